/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * smoke: the requests of upstream shift --smoke, which must succeed before any weight changes: GET,
 * straight to the server that is to get traffic. A status of 2xx or 3xx within SMOKE_MS is good.
 * They come from this host; what the service itself may reach, it may not.
 */
#include "admin/polderctl.h"
#include "polder/clock.h"
#include "polder/rpc_in.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SMOKE_MS  5000
#define SMOKE_URL 2048

/* ---- words ---- */

bool smoke_take(char **words, int *n, struct ctl_smoke *out)
{
    int kept = 0;
    out->n = 0;
    for (int i = 0; i < *n; i++) {
        const bool joined = !strncmp(words[i], "--smoke=", 8);
        if (!joined && strcmp(words[i], "--smoke")) {
            words[kept++] = words[i];
            continue;
        }
        if ((!joined && i + 1 == *n) || out->n == SMOKE_MAX)
            return false;
        out->url[out->n++] = joined ? words[i] + 8 : words[++i];
    }
    *n = kept;
    return true;
}

/* ---- one request ---- */

static bool smoke_wait(int fd, short events, uint64_t until_ms)
{
    const uint64_t now_ms = clock_mono_ms();
    struct pollfd p = {fd, events, 0};
    return now_ms < until_ms && poll(&p, 1, (int)(until_ms - now_ms)) > 0;
}

static int connect_by(int fd, const struct sockaddr *sa, socklen_t len, uint64_t until_ms)
{
    int code = 0;
    socklen_t size = sizeof code;
    if (connect(fd, sa, len) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    if (!smoke_wait(fd, POLLOUT, until_ms))
        return ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) ? errno : code;
}

static int dial(const struct sockaddr *sa, socklen_t len, uint64_t until_ms, int *fd)
{
    *fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int code = *fd < 0 ? errno : connect_by(*fd, sa, len, until_ms);
    if (code && *fd >= 0)
        close(*fd);
    return code;
}

static int dial_name(char *host, uint64_t until_ms, int *fd)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char *port = strrchr(host, ':');
    int code = EHOSTUNREACH;
    if (!port)
        return EINVAL;
    *port++ = 0;
    const size_t len = strlen(host);
    if (*host == '[' && len && host[len - 1] == ']') {
        host[len - 1] = 0;
        host++;
    }
    if (getaddrinfo(host, port, &hints, &found))
        return EHOSTUNREACH;
    for (const struct addrinfo *a = found; a && code; a = a->ai_next)
        code = dial(a->ai_addr, a->ai_addrlen, until_ms, fd);
    freeaddrinfo(found);
    return code;
}

/* 0 or an errno. */
static int dial_server(const char *server, uint64_t until_ms, int *fd)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char host[300];
    if (!strncmp(server, "unix:", 5)) {
        snprintf(un.sun_path, sizeof un.sun_path, "%.107s", server + 5);
        return dial((const struct sockaddr *)&un, sizeof un, until_ms, fd);
    }
    snprintf(host, sizeof host, "%s", server);
    return dial_name(host, until_ms, fd);
}

/* "/path", or "http://host/path": the host is what Host says. */
static bool split(const char *url, const char *server, char host[300], const char **path)
{
    const bool whole = !strncmp(url, "http://", 7);
    const char *at = whole ? url + 7 : url;
    const size_t len = whole ? strcspn(at, "/") : 0;
    if (strlen(url) >= SMOKE_URL || len >= 300 || (whole && !len) || (!whole && *url != '/') ||
        strcspn(url, " \t\r\n#") != strlen(url))
        return false;
    if (whole)
        snprintf(host, 300, "%.*s", (int)len, at);
    else
        snprintf(host, 300, "%s", strncmp(server, "unix:", 5) ? server : "localhost");
    *path = at[len] ? at + len : "/";
    return true;
}

/* The status, or 0: why. */
static unsigned status_of(int fd, uint64_t until_ms)
{
    char head[16];
    size_t have = 0;
    while (have < sizeof head - 1 && smoke_wait(fd, POLLIN, until_ms)) {
        const ssize_t n = recv(fd, head + have, sizeof head - 1 - have, 0);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    head[have] = 0;
    return have >= 12 && !strncmp(head, "HTTP/1.", 7) && head[8] == ' '
               ? (unsigned)strtoul(head + 9, NULL, 10)
               : 0;
}

static bool one(const char *server, const char *url)
{
    char host[300], request[SMOKE_URL + 600];
    const char *path;
    int fd;
    const uint64_t until_ms = clock_mono_ms() + SMOKE_MS;
    if (!split(url, server, host, &path)) {
        fprintf(stderr, "polderctl: --smoke %s: expected a path, or http://HOST/PATH\n", url);
        return false;
    }
    const int code = dial_server(server, until_ms, &fd);
    if (code) {
        fprintf(stderr, "polderctl: smoke %s: cannot connect to %s: %s\n", url, server,
                strerror(code));
        return false;
    }
    const int len = snprintf(request, sizeof request,
                             "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: polderctl\r\nAccept: "
                             "*/*\r\nConnection: close\r\n\r\n",
                             path, host);
    const bool sent = send(fd, request, (size_t)len, MSG_NOSIGNAL) == len;
    const unsigned status = sent ? status_of(fd, until_ms) : 0;
    close(fd);
    if (status >= 200 && status < 400)
        return true;
    if (status)
        fprintf(stderr, "polderctl: smoke %s: %s answered %u\n", url, server, status);
    else
        fprintf(stderr, "polderctl: smoke %s: no answer of %s within %d s\n", url, server,
                SMOKE_MS / 1000);
    return false;
}

/* ---- all of them ---- */

bool smoke_passes(const struct ctl_smoke *smoke, const struct rpc_out *params)
{
    msgpack_unpacked space;
    char server[300];
    bool good = true;
    msgpack_unpacked_init(&space);
    msgpack_unpack_next(&space, params->buffer.data, params->buffer.size, NULL);
    if (rpc_in_text(&space.data, "server", server, sizeof server) >= 0)
        for (unsigned i = 0; i < smoke->n && good; i++)
            good = one(server, smoke->url[i]);
    msgpack_unpacked_destroy(&space);
    if (!good)
        fputs("polderctl: nothing is changed\n", stderr);
    return good;
}

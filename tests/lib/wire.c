/* SPDX-License-Identifier: BSD-2-Clause */
/* wire: see wire.h. */
#include "source.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

const char *field_of(const struct message *m, const char *name)
{
    static _Thread_local char value[16384];
    size_t len = strlen(name), n = 0;
    bool found = false;
    value[0] = 0;
    for (const char *line = m->head ? strstr(m->head, "\r\n") : NULL; line;
         line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) || line[len] != ':')
            continue;
        const char *v = line + len + 1, *e = strstr(v, "\r\n");
        v += strspn(v, " \t");
        n += (size_t)snprintf(value + n, sizeof value - n, "%s%.*s", found ? ", " : "",
                              (int)(e - v), v);
        found = true;
    }
    return found ? value : NULL;
}

void message_free(struct message *m)
{
    free(m->head);
    free(m->body);
    memset(m, 0, sizeof *m);
}

int client_connect_small(unsigned port, int receive_buffer)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (receive_buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa)) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

int client_connect(unsigned port)
{
    return client_connect_small(port, 0);
}

void client_send_bytes(int fd, const void *bytes, size_t len)
{
    send_bytes(fd, bytes, len);
}

void client_send(int fd, const char *fmt, ...)
{
    va_list ap;
    char *text;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    assert_true(n >= 0);
    send_bytes(fd, text, (size_t)n);
    free(text);
}

/* Bytes of the next response may arrive with those of this one (pipelining), so they are peeked:
 * only what belongs to the message is taken from the socket. */
static void read_response(int fd, struct message *m, bool to_head, unsigned ms)
{
    struct source *s = calloc(1, sizeof *s);
    memset(m, 0, sizeof *m);
    s->fd = fd;
    s->deadline = mono_ms() + harness_patience(ms);
    /* byte-wise head: never past its end */
    struct bytes b = {0};
    bytes_add(&b, 0), b.len = 0;
    for (;;) {
        char c;
        struct pollfd p = {fd, POLLIN, 0};
        uint64_t now = mono_ms();
        if (now >= s->deadline || poll(&p, 1, (int)(s->deadline - now)) <= 0) {
            s->late = true;
            break;
        }
        char peek[4096];
        ssize_t n = recv(fd, peek, sizeof peek, MSG_PEEK);
        if (n <= 0) {
            s->closed = true;
            break;
        }
        ssize_t use = 0;
        bool done = false;
        while (use < n && !done) {
            c = peek[use++];
            bytes_add(&b, c);
            done = b.len >= 4 && !memcmp(b.at + b.len - 4, "\r\n\r\n", 4);
        }
        if (recv(fd, peek, (size_t)use, 0) != use || done)
            break;
    }
    m->head = b.at, m->head_len = b.len;
    if (sscanf(m->head, "HTTP/1.%*d %d", &m->status) != 1)
        m->status = 0;
    bool none = to_head || m->status / 100 == 1 || m->status == 204 || m->status == 304;
    if (m->status && !none) {
        const bool chunked = field_of(m, "Transfer-Encoding") != NULL;
        const char *cl = field_of(m, "Content-Length");
        if (cl && !chunked) { /* exact: leave what follows */
            struct bytes body = {0};
            uint64_t left = strtoull(cl, NULL, 10);
            bytes_add(&body, 0), body.len = 0;
            while (left) {
                char part[65536];
                struct pollfd p = {fd, POLLIN, 0};
                uint64_t now = mono_ms();
                if (now >= s->deadline || poll(&p, 1, (int)(s->deadline - now)) <= 0)
                    break;
                ssize_t n = recv(fd, part, left < sizeof part ? (size_t)left : sizeof part, 0);
                if (n <= 0) {
                    s->closed = true;
                    break;
                }
                for (ssize_t i = 0; i < n; i++)
                    bytes_add(&body, part[i]);
                left -= (uint64_t)n;
            }
            m->body = body.at, m->body_len = body.len, m->complete = left == 0,
            m->closed = s->closed;
        } else {
            source_body(s, m, false,
                        true); /* chunked or to close: must be the last of what was pipelined */
        }
    } else {
        m->body = calloc(1, 1);
        m->complete = m->status != 0;
        m->closed = s->closed;
    }
    free(s);
}

void client_read(int fd, struct message *m, bool to_head)
{
    read_response(fd, m, to_head, 10000);
}

bool client_closed(int fd, unsigned ms)
{
    uint64_t end = mono_ms() + harness_patience(ms), now;
    char sink[4096];
    while ((now = mono_ms()) < end) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, (int)(end - now)) <= 0)
            return false;
        if (recv(fd, sink, sizeof sink, 0) <= 0)
            return true;
    }
    return false;
}

int request(unsigned port, const char *method, const char *target, const char *lines,
            const char *body, struct message *m)
{
    struct message own;
    int fd = client_connect(port), status;
    if (fd < 0) {
        if (m)
            memset(m, 0, sizeof *m);
        return 0;
    }
    client_send(fd, "%s %s HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n%s", method,
                target, lines);
    if (body)
        client_send(fd, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    else
        client_send(fd, "\r\n");
    client_read(fd, m ? m : &own, !strcmp(method, "HEAD"));
    status = (m ? m : &own)->status;
    if (!m)
        message_free(&own);
    close(fd);
    return status;
}

int get_with(unsigned port, const char *target, const char *lines, struct message *m)
{
    return request(port, "GET", target, lines, NULL, m);
}

int get(unsigned port, const char *target, struct message *m)
{
    return get_with(port, target, "", m);
}

bool served_from_store(unsigned port, const char *target)
{
    struct message m;
    get(port, target, &m);
    const char *status = m.status ? field_of(&m, "Cache-Status") : NULL;
    const bool hit = status && strstr(status, "polder; hit");
    message_free(&m);
    return hit;
}

struct storm {
    unsigned port, share;
    const char *target, *forbidden;
    unsigned counts[1000];
};

static void *storm_run(void *arg)
{
    struct storm *s = arg;
    int fd = -1;
    for (unsigned i = 0; i < s->share; i++) {
        struct message m;
        if (fd < 0 && (fd = client_connect(s->port)) < 0) {
            s->counts[0]++;
            nap_ms(2);
            continue;
        }
        client_send(fd, "GET %s HTTP/1.1\r\nHost: test.example\r\n\r\n", s->target);
        client_read(fd, &m, false);
        s->counts[m.status > 0 && m.status < 999 && m.complete ? m.status : 0]++;
        if (s->forbidden && m.body && strstr(m.body, s->forbidden))
            s->counts[999]++;
        const char *connection = m.status ? field_of(&m, "Connection") : "close";
        if (!m.complete || (connection && !strcasecmp(connection, "close"))) {
            close(fd);
            fd = -1;
        }
        message_free(&m);
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

void storm(unsigned port, const char *target, unsigned n, unsigned parallel, unsigned counts[1000],
           const char *forbidden)
{
    struct storm *s = calloc(parallel, sizeof *s);
    pthread_t *t = calloc(parallel, sizeof *t);
    for (unsigned i = 0; i < parallel; i++) {
        s[i] = (struct storm){.port = port, .target = target, .forbidden = forbidden};
        s[i].share = n / parallel + (i < n % parallel);
        assert_int_equal(pthread_create(&t[i], NULL, storm_run, &s[i]), 0);
    }
    for (unsigned i = 0; i < parallel; i++) {
        pthread_join(t[i], NULL);
        for (unsigned c = 0; c < 1000; c++)
            counts[c] += s[i].counts[c];
    }
    free(s);
    free(t);
}

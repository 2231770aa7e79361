/* SPDX-License-Identifier: BSD-2-Clause */
/* http: GET requests over one kept connection; llhttp reads the answers. */
#include "admin/verify/verify.h"
#include "polder/clock.h"

#include <errno.h>
#include <llhttp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define ANSWER_MS 10000
#define BATCH     32

struct http {
    int fd;
    llhttp_t parser;
    struct reply reply; /* being read */
    char field[32];
    size_t field_len, value_len, body_len;
    char value[256];
    bool whole, closes;
    char in[16384];
    size_t start, end;
};

bool http_wait(struct verify *v, int fd, short events, uint64_t until_ms)
{
    for (;;) {
        struct pollfd p = {fd, events, 0};
        const uint64_t now_ms = clock_mono_ms();
        if (!verify_goes_on(v) || now_ms >= until_ms)
            return false;
        const uint64_t left_ms = until_ms - now_ms;
        if (poll(&p, 1, left_ms < 500 ? (int)left_ms + 1 : 500) > 0)
            return true;
    }
}

int http_dial(const struct verify *v, char *why, size_t size)
{
    static const char proxy[] = "PROXY UNKNOWN\r\n";
    const int fd = socket(v->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval timeout = {5, 0};
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&v->address, v->address_len) ||
        (v->proxy_protocol && send(fd, proxy, sizeof proxy - 1, MSG_NOSIGNAL) < 0)) {
        snprintf(why, size, "cannot connect to %s: %s", v->where, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

void http_field(const struct verify *v, const struct ask *ask, char *out, size_t size)
{
    snprintf(out, size, "Host: %s\r\n" VERIFY_FIELD ": %s;client=%u%s%s\r\n", v->host, v->token,
             ask->client ? ask->client : 1, *ask->kind ? ";" : "", ask->kind);
}

/* ---- one answer ---- */

static struct http *http_of(llhttp_t *p)
{
    return p->data;
}

static int on_field(llhttp_t *p, const char *at, size_t len)
{
    struct http *h = http_of(p);
    if (h->value_len) /* of the field before */
        h->field_len = h->value_len = 0;
    for (size_t i = 0; i < len && h->field_len + 1 < sizeof h->field; i++)
        h->field[h->field_len++] = at[i];
    h->field[h->field_len] = 0;
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t len)
{
    struct http *h = http_of(p);
    for (size_t i = 0; i < len && h->value_len + 1 < sizeof h->value; i++)
        h->value[h->value_len++] = at[i];
    h->value[h->value_len] = 0;
    return 0;
}

static int on_value_complete(llhttp_t *p)
{
    struct http *h = http_of(p);
    struct reply *r = &h->reply;
    const char *polder = strstr(h->value, "polder");
    if (!strcasecmp(h->field, "cache-status") && polder) {
        snprintf(r->cache_status, sizeof r->cache_status, "%s", polder);
        /* what is stale is fetched again behind it */
        r->hit = !strncmp(polder, "polder; hit", 11) && !strstr(polder, "fwd=") &&
                 (!strstr(polder, "ttl=-") || strstr(polder, "detail=poll-interval"));
    } else if (!strcasecmp(h->field, "retry-after")) {
        char *end;
        r->retry_after_s = strtoull(h->value, &end, 10);
        r->has_retry_after = end != h->value && !*end;
    } else if (!strcasecmp(h->field, "age")) {
        r->age_s = strtoull(h->value, NULL, 10);
    }
    h->field_len = h->value_len = 0;
    h->value[0] = 0;
    return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t len)
{
    struct http *h = http_of(p);
    for (size_t i = 0; i < len && h->body_len + 1 < sizeof h->reply.body; i++)
        h->reply.body[h->body_len++] = at[i];
    h->reply.body[h->body_len] = 0;
    return 0;
}

static int on_whole(llhttp_t *p)
{
    struct http *h = http_of(p);
    h->reply.status = p->status_code;
    h->closes = !llhttp_should_keep_alive(p);
    h->whole = true;
    return HPE_PAUSED;
}

/* False: reply.why. */
static bool read_reply(struct verify *v, struct http *h)
{
    static const llhttp_settings_t settings = {.on_header_field = on_field,
                                               .on_header_value = on_value,
                                               .on_header_value_complete = on_value_complete,
                                               .on_body = on_body,
                                               .on_message_complete = on_whole};
    const uint64_t until_ms = clock_mono_ms() + ANSWER_MS;
    memset(&h->reply, 0, sizeof h->reply);
    h->field_len = h->value_len = h->body_len = 0;
    h->whole = false;
    llhttp_init(&h->parser, HTTP_RESPONSE, &settings);
    h->parser.data = h;
    while (!h->whole) {
        if (h->start == h->end) {
            ssize_t n = -1;
            if (http_wait(v, h->fd, POLLIN, until_ms))
                n = recv(h->fd, h->in, sizeof h->in, 0);
            if (n == 0)
                llhttp_finish(&h->parser);
            if (n <= 0 && !h->whole)
                snprintf(h->reply.why, sizeof h->reply.why, "%s",
                         n == 0 ? "the connection was closed" : "no answer within 10 seconds");
            if (n <= 0)
                return h->whole;
            h->start = 0;
            h->end = (size_t)n;
        }
        const enum llhttp_errno code =
            llhttp_execute(&h->parser, h->in + h->start, h->end - h->start);
        if (code == HPE_OK) {
            h->start = h->end;
        } else if (code == HPE_PAUSED && h->whole) {
            h->start = (size_t)(llhttp_get_error_pos(&h->parser) - h->in);
        } else {
            snprintf(h->reply.why, sizeof h->reply.why, "the answer is no HTTP");
            return false;
        }
    }
    return true;
}

/* ---- requests ---- */

static bool send_all(int fd, const char *at, size_t len)
{
    while (len) {
        const ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static bool http_ready(struct verify *v, char *why, size_t size)
{
    if (!v->http && !(v->http = calloc(1, sizeof *v->http))) {
        snprintf(why, size, "out of memory");
        return false;
    }
    if (v->http->fd > 0)
        return true;
    const int fd = http_dial(v, why, size);
    v->http->fd = fd < 0 ? 0 : fd;
    v->http->start = v->http->end = 0;
    return fd >= 0;
}

static void hang_up(struct http *h)
{
    close(h->fd);
    h->fd = 0;
}

static int write_request(const struct verify *v, const struct ask *ask, char *out, size_t size)
{
    char field[512];
    http_field(v, ask, field, sizeof field);
    const int n = snprintf(out, size, "GET %s HTTP/1.1\r\n%s%s\r\n", ask->path, field,
                           ask->headers ? ask->headers : "");
    return n > 0 && (size_t)n < size ? n : -1;
}

/* Up to BATCH requests at once, and their answers. How many were answered. */
static unsigned http_batch(struct verify *v, const char *request, size_t len, unsigned n,
                           void (*each)(void *arg, const struct reply *reply), void *arg)
{
    struct http *h = v->http;
    unsigned done = 0;
    for (unsigned i = 0; i < n; i++)
        if (!send_all(h->fd, request, len))
            n = i;
    while (done < n && read_reply(v, h)) {
        each(arg, &h->reply);
        done++;
        if (h->closes)
            break;
    }
    if (done < n || h->closes)
        hang_up(h);
    return done;
}

bool http_many(struct verify *v, const struct ask *ask, unsigned n,
               void (*each)(void *arg, const struct reply *reply), void *arg, char *why,
               size_t why_size)
{
    char request[VERIFY_PATH + 4096];
    const int len = write_request(v, ask, request, sizeof request);
    unsigned fruitless = 0;
    snprintf(why, why_size, "the request is too long");
    while (len > 0 && n && fruitless < 2) {
        if (!http_ready(v, why, why_size))
            return false;
        const unsigned done = http_batch(v, request, (size_t)len, n < BATCH ? n : BATCH, each, arg);
        fruitless = done ? 0 : fruitless + 1; /* a kept connection may have been closed meanwhile */
        if (!done)
            snprintf(why, why_size, "%s", v->http->reply.why);
        n -= done;
    }
    return n == 0;
}

static void keep_reply(void *arg, const struct reply *reply)
{
    *(struct reply *)arg = *reply;
}

void http_get(struct verify *v, const struct ask *ask, struct reply *reply)
{
    char why[sizeof reply->why];
    memset(reply, 0, sizeof *reply);
    if (!http_many(v, ask, 1, keep_reply, reply, why, sizeof why)) {
        reply->status = 0;
        memcpy(reply->why, why, sizeof why);
    }
}

void http_close(struct verify *v)
{
    if (v->http && v->http->fd > 0)
        hang_up(v->http);
    free(v->http);
    v->http = NULL;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* visitor: one keep-alive connection, which says how each exchange ended instead of failing. */
#include "tests/chaos/chaos.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ROOM   (BODY_MOST + (64u << 10))
#define LATE_S 15

void visitor_init(struct visitor *v, unsigned port)
{
    *v = (struct visitor){.fd = -1, .port = port, .buf = malloc(ROOM)};
}

static void hang_up(struct visitor *v)
{
    if (v->fd >= 0)
        close(v->fd);
    v->fd = -1;
}

void visitor_fini(struct visitor *v)
{
    hang_up(v);
    free(v->buf);
}

bool answer_field(const struct answer *a, const char *name, char *value, size_t size)
{
    const size_t len = strlen(name);
    for (const char *line = strchr(a->head, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if (strncasecmp(line, name, len) != 0 || line[len] != ':')
            continue;
        const char *from = line + len + 1;
        from += strspn(from, " ");
        snprintf(value, size, "%.*s", (int)strcspn(from, "\r\n"), from);
        return true;
    }
    return false;
}

/* More bytes into the buffer. */
static enum outcome more(struct visitor *v)
{
    if (v->end + 1 >= ROOM)
        return VISIT_NONSENSE;
    for (;;) {
        const ssize_t n = recv(v->fd, v->buf + v->end, ROOM - 1 - v->end, 0);
        if (n > 0) {
            v->end += (size_t)n;
            v->buf[v->end] = 0;
            return VISIT_DONE;
        }
        if (n < 0 && errno == EINTR)
            continue;
        return n < 0 && errno == EAGAIN ? VISIT_LATE : VISIT_CUT;
    }
}

static enum outcome need(struct visitor *v, size_t bytes)
{
    enum outcome o = VISIT_DONE;
    while (v->end < bytes && o == VISIT_DONE)
        o = more(v);
    return o;
}

/* A line from `at` on, within the buffer: *next is where the one after it begins. */
static enum outcome need_line(struct visitor *v, size_t at, size_t *next)
{
    char *stop;
    while (v->end <= at || !(stop = memchr(v->buf + at, '\n', v->end - at))) {
        const enum outcome o = more(v);
        if (o != VISIT_DONE)
            return o;
    }
    *next = (size_t)(stop - v->buf) + 1;
    return VISIT_DONE;
}

/* Chunks are moved together where they lie. */
static enum outcome read_chunks(struct visitor *v, size_t at, struct answer *a)
{
    size_t to = at, next;
    for (;;) {
        enum outcome o = need_line(v, at, &next);
        if (o != VISIT_DONE)
            return o;
        char *stop;
        const size_t n = strtoul(v->buf + at, &stop, 16);
        if (stop == v->buf + at || n > ROOM)
            return VISIT_NONSENSE;
        if ((o = need(v, next + n + 2)) != VISIT_DONE)
            return o;
        if (memcmp(v->buf + next + n, "\r\n", 2) != 0)
            return VISIT_NONSENSE;
        memmove(v->buf + to, v->buf + next, n);
        to += n;
        at = next + n + 2;
        if (n == 0)
            break;
    }
    a->body_len = to - (size_t)(a->body - v->buf);
    v->used = at;
    return VISIT_DONE;
}

static enum outcome read_head(struct visitor *v, struct answer *a, size_t *head_len)
{
    char *stop = NULL;
    while (v->end == 0 || !(stop = strstr(v->buf, "\r\n\r\n"))) {
        const enum outcome o = more(v);
        if (o != VISIT_DONE)
            return o;
    }
    *head_len = (size_t)(stop - v->buf) + 4;
    a->head = v->buf;
    return sscanf(v->buf, "HTTP/1.1 %d", &a->status) == 1 ? VISIT_DONE : VISIT_NONSENSE;
}

static enum outcome read_answer(struct visitor *v, bool to_head, struct answer *a)
{
    size_t head_len;
    char value[64];
    enum outcome o = read_head(v, a, &head_len);
    if (o != VISIT_DONE)
        return o;
    v->buf[head_len - 2] = 0; /* ends the head, for answer_field() */
    a->body = v->buf + head_len;
    a->close = answer_field(a, "Connection", value, sizeof value) && !strcasecmp(value, "close");
    v->used = head_len;
    if (to_head || a->status == 304 || a->status == 204)
        return VISIT_DONE;
    if (answer_field(a, "Transfer-Encoding", value, sizeof value))
        return read_chunks(v, head_len, a);
    if (!answer_field(a, "Content-Length", value, sizeof value))
        return VISIT_NONSENSE;
    a->body_len = strtoul(value, NULL, 10);
    v->used = head_len + a->body_len;
    return need(v, v->used);
}

static bool go_there(struct visitor *v)
{
    const struct timeval late = {LATE_S, 0};
    if (v->fd >= 0)
        return true;
    v->fd = client_connect(v->port);
    if (v->fd < 0)
        return false;
    setsockopt(v->fd, SOL_SOCKET, SO_RCVTIMEO, &late, sizeof late);
    return true;
}

enum outcome visitor_ask(struct visitor *v, const char *request, bool to_head, struct answer *a)
{
    const size_t len = strlen(request);
    *a = (struct answer){0};
    v->end = v->used = 0;
    if (!go_there(v))
        return VISIT_REFUSED;
    enum outcome o = VISIT_CUT;
    if (send(v->fd, request, len, MSG_NOSIGNAL) == (ssize_t)len)
        o = read_answer(v, to_head, a);
    if (o == VISIT_DONE && v->end != v->used)
        o = VISIT_NONSENSE; /* more than was asked for */
    if (o != VISIT_DONE || a->close)
        hang_up(v);
    return o;
}

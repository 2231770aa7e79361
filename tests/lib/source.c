/* SPDX-License-Identifier: BSD-2-Clause */
/* source: see source.h. */
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

int source_byte(struct source *s)
{
    if (s->at < s->end)
        return (unsigned char)s->buf[s->at++];
    for (;;) {
        uint64_t now = mono_ms();
        struct pollfd p = {s->fd, POLLIN, 0};
        if (now >= s->deadline || poll(&p, 1, (int)(s->deadline - now)) <= 0) {
            s->late = true;
            return -1;
        }
        ssize_t n = recv(s->fd, s->buf, sizeof s->buf, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            s->closed = true;
            return -1;
        }
        s->at = 1, s->end = (size_t)n;
        return (unsigned char)s->buf[0];
    }
}

void bytes_add(struct bytes *b, char c)
{
    if (b->len + 1 >= b->room) {
        b->room = b->room ? b->room * 2 : 1024;
        b->at = realloc(b->at, b->room);
    }
    b->at[b->len++] = c;
    b->at[b->len] = 0;
}

bool source_head(struct source *s, struct message *m)
{
    struct bytes b = {0};
    int c;
    bytes_add(&b, 0), b.len = 0;
    while ((c = source_byte(s)) >= 0) {
        if (b.len == 0 && (c == '\r' || c == '\n'))
            continue;
        bytes_add(&b, (char)c);
        if (b.len >= 4 && !memcmp(b.at + b.len - 4, "\r\n\r\n", 4))
            break;
    }
    m->head = b.at, m->head_len = b.len;
    return c >= 0;
}

#define KEEP_MOST ((size_t)16 << 20) /* of a longer body only the length is known */

static bool take(struct source *s, struct bytes *b, uint64_t n)
{
    while (n) {
        int c = source_byte(s);
        if (c < 0)
            return false;
        s->at--;
        size_t part = s->end - s->at < n ? s->end - s->at : (size_t)n;
        for (size_t i = 0; i < part && b->len < KEEP_MOST; i++)
            bytes_add(b, s->buf[s->at + i]);
        b->total += part;
        s->at += part, n -= part;
    }
    return true;
}

static bool take_line(struct source *s, char *line, size_t size)
{
    size_t n = 0;
    int c;
    while ((c = source_byte(s)) >= 0 && c != '\n')
        if (n + 1 < size && c != '\r')
            line[n++] = (char)c;
    line[n] = 0;
    return c >= 0;
}

static bool read_chunks(struct source *s, struct bytes *b)
{
    char line[8192], *end;
    for (;;) {
        if (!take_line(s, line, sizeof line))
            return false;
        uint64_t n = strtoull(line, &end, 16);
        if (end == line)
            return false;
        if (n == 0)
            break;
        if (!take(s, b, n) || !take_line(s, line, sizeof line) || line[0])
            return false;
    }
    do {
        if (!take_line(s, line, sizeof line))
            return false;
    } while (line[0]);
    return true;
}

void source_body(struct source *s, struct message *m, bool none, bool to_close)
{
    struct bytes b = {0};
    const char *te = field_of(m, "Transfer-Encoding"), *cl;
    bytes_add(&b, 0), b.len = 0;
    m->chunked = te && strcasestr(te, "chunked");
    if (none) {
        m->complete = true;
    } else if (m->chunked) {
        m->complete = read_chunks(s, &b);
    } else if ((cl = field_of(m, "Content-Length"))) {
        m->complete = take(s, &b, strtoull(cl, NULL, 10));
    } else if (to_close) {
        int c;
        while ((c = source_byte(s)) >= 0)
            bytes_add(&b, (char)c);
        m->complete = s->closed;
    } else {
        m->complete = true;
    }
    m->body = b.at, m->body_len = b.total > b.len ? (size_t)b.total : b.len, m->closed = s->closed;
}

bool send_bytes(int fd, const char *at, size_t len)
{
    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n, len -= (size_t)n;
    }
    return true;
}

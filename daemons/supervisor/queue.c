/* SPDX-License-Identifier: BSD-2-Clause */
/* queue: bytes that a socket has not taken yet, in pieces of one pool. */
#include "daemons/supervisor/supervisor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define POOL_MOST 256

struct piece *piece_get(struct supervisor *s)
{
    struct piece *p = s->pool;
    if (p) {
        s->pool = p->next;
        s->pooled--;
    } else if (!(p = malloc(sizeof *p))) {
        return NULL;
    }
    p->next = NULL;
    p->start = p->end = 0;
    return p;
}

void piece_put(struct supervisor *s, struct piece *p)
{
    if (s->pooled >= POOL_MOST) {
        free(p);
        return;
    }
    p->next = s->pool;
    s->pool = p;
    s->pooled++;
}

bool queue_append(struct supervisor *s, struct queue *q, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    while (len) {
        if (!q->tail || q->tail->end == SUPERVISOR_CHUNK) {
            struct piece *p = piece_get(s);
            if (!p)
                return false;
            if (q->tail)
                q->tail->next = p;
            else
                q->head = p;
            q->tail = p;
        }
        const size_t room = SUPERVISOR_CHUNK - q->tail->end, n = len < room ? len : room;
        memcpy(q->tail->data + q->tail->end, at, n);
        q->tail->end += (uint32_t)n;
        q->len += n;
        at += n, len -= n;
    }
    return true;
}

static void queue_pop(struct supervisor *s, struct queue *q)
{
    struct piece *p = q->head;
    q->head = p->next;
    if (!q->head)
        q->tail = NULL;
    piece_put(s, p);
}

void queue_clear(struct supervisor *s, struct queue *q)
{
    while (q->head)
        queue_pop(s, q);
    q->len = 0;
}

ssize_t queue_flush(struct supervisor *s, struct queue *q, int fd)
{
    ssize_t sum = 0;
    while (q->head) {
        struct piece *p = q->head;
        const ssize_t n =
            send(fd, p->data + p->start, p->end - p->start, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? sum : -1;
        sum += n;
        p->start += (uint32_t)n;
        q->len -= (size_t)n;
        if (p->start < p->end)
            return sum;
        queue_pop(s, q);
    }
    return sum;
}

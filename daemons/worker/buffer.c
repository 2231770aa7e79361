/* SPDX-License-Identifier: BSD-2-Clause */
/* buffer: pooled buffers for bytes that have to wait, and chains of them. */
#include "daemons/worker/buffer.h"
#include "daemons/net/transport.h"
#include "daemons/worker/worker.h"

#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FREE_MAX 32 /* kept for the next burst: 1 MiB */
#define IOV_MAX_ 32

struct buffer *buffer_get(struct worker *w)
{
    struct buffer *b = w->free_buffers;
    if (b) {
        w->free_buffers = b->next;
        w->n_free_buffers--;
    } else {
        b = malloc(sizeof *b);
        if (!b)
            return NULL;
    }
    w->n_buffers++;
    b->next = NULL;
    b->start = b->end = 0;
    return b;
}

void buffer_put(struct worker *w, struct buffer *b)
{
    w->n_buffers--;
    if (w->n_free_buffers >= FREE_MAX) {
        free(b);
        return;
    }
    b->next = w->free_buffers;
    w->free_buffers = b;
    w->n_free_buffers++;
}

void buffer_trim(struct worker *w)
{
    if (w->n_buffers || !w->n_free_buffers)
        return;
    while (w->free_buffers) {
        struct buffer *b = w->free_buffers;
        w->free_buffers = b->next;
        free(b);
    }
    w->n_free_buffers = 0;
    malloc_trim(0);
}

bool chain_append(struct worker *w, struct chain *c, const char *bytes, size_t len)
{
    while (len) {
        struct buffer *b = c->tail;
        if (!b || b->end == WORKER_BUFFER) {
            b = buffer_get(w);
            if (!b)
                return false;
            if (c->tail)
                c->tail->next = b;
            else
                c->head = b;
            c->tail = b;
        }
        const size_t room = WORKER_BUFFER - b->end, n = len < room ? len : room;
        memcpy(b->data + b->end, bytes, n);
        b->end += (uint32_t)n;
        c->len += n;
        bytes += n;
        len -= n;
    }
    return true;
}

unsigned chain_iov(const struct chain *c, struct iovec *iov, unsigned max)
{
    unsigned n = 0;
    for (struct buffer *b = c->head; b && n < max; b = b->next)
        iov[n++] = (struct iovec){b->data + b->start, b->end - b->start};
    return n;
}

void chain_drop(struct worker *w, struct chain *c, size_t len)
{
    c->len -= len;
    while (len) {
        struct buffer *b = c->head;
        const uint32_t have = b->end - b->start; /* NOLINT(clang-analyzer-core.NullDereference) */
        if (len < have) {
            b->start += (uint32_t)len;
            return;
        }
        len -= have;
        c->head = b->next;
        if (!c->head)
            c->tail = NULL;
        buffer_put(w, b);
    }
}

void chain_free(struct worker *w, struct chain *c)
{
    while (c->head) {
        struct buffer *b = c->head;
        c->head = b->next;
        buffer_put(w, b);
    }
    *c = (struct chain){0};
}

/* Appends what lies behind the first `skip` of the first `until` bytes of iov. */
static bool append_rest(struct worker *w, struct chain *c, const struct iovec *iov, unsigned n,
                        size_t skip, size_t until)
{
    for (unsigned i = 0; i < n && until; i++) {
        const size_t len = iov[i].iov_len < until ? iov[i].iov_len : until;
        until -= len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        if (!chain_append(w, c, (const char *)iov[i].iov_base + skip, len - skip))
            return false;
        skip = 0;
    }
    return true;
}

ssize_t chain_send_some(struct worker *w, struct chain *c, struct transport *t,
                        const struct iovec *iov, unsigned n, size_t keep)
{
    ssize_t sent = 0;
    if (!c->len && (sent = t->ops->write(t, iov, n)) < 0)
        return sent;
    /* Behind what waits already, the write watcher brings it out in order. */
    if ((size_t)sent < keep && !append_rest(w, c, iov, n, (size_t)sent, keep))
        return -ENOMEM;
    return sent;
}

int chain_send(struct worker *w, struct chain *c, struct transport *t, const struct iovec *iov,
               unsigned n)
{
    const ssize_t sent = chain_send_some(w, c, t, iov, n, SIZE_MAX);
    return sent < 0 ? (int)sent : 0;
}

int chain_flush(struct worker *w, struct chain *c, struct transport *t)
{
    while (c->len) {
        struct iovec iov[IOV_MAX_];
        const unsigned n = chain_iov(c, iov, IOV_MAX_);
        const ssize_t sent = t->ops->write(t, iov, n);
        if (sent <= 0)
            return (int)sent;
        chain_drop(w, c, (size_t)sent);
    }
    return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* buffer: see buffer.h. */
#include "daemons/net/buffer.h"
#include "daemons/net/transport.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#define IOV_AT_ONCE 32

/* ---- the pool ---- */

void buffer_pool_init(struct buffer_pool *pool, uint32_t size, uint32_t keeps)
{
    *pool = (struct buffer_pool){.size = size, .keeps = keeps};
    STAILQ_INIT(&pool->free);
}

struct buffer *buffer_get(struct buffer_pool *pool)
{
    struct buffer *b = STAILQ_FIRST(&pool->free);
    if (b) {
        STAILQ_REMOVE_HEAD(&pool->free, next);
        pool->n_free--;
    } else {
        b = pool->make ? pool->make(pool->arg) : malloc(sizeof *b + pool->size);
        if (!b)
            return NULL;
    }
    pool->n_used++;
    b->start = b->end = 0;
    return b;
}

static void buffer_free(struct buffer_pool *pool, struct buffer *b)
{
    if (pool->unmake)
        pool->unmake(pool->arg, b);
    else
        free(b);
}

void buffer_put(struct buffer_pool *pool, struct buffer *b)
{
    pool->n_used--;
    if (pool->n_free >= pool->keeps) {
        buffer_free(pool, b);
        return;
    }
    STAILQ_INSERT_HEAD(&pool->free, b, next);
    pool->n_free++;
}

void buffer_pool_trim(struct buffer_pool *pool)
{
    struct buffer *b;
    if (pool->n_used || !pool->n_free)
        return;
    while ((b = STAILQ_FIRST(&pool->free))) {
        STAILQ_REMOVE_HEAD(&pool->free, next);
        buffer_free(pool, b);
    }
    pool->n_free = 0;
    if (!pool->unmake)
        malloc_trim(0);
}

/* ---- chains ---- */

/* With room; NULL: no memory. */
static struct buffer *chain_tail(struct buffer_pool *pool, struct chain *c)
{
    if (c->len && c->last->end < pool->size)
        return c->last;
    struct buffer *b = buffer_get(pool);
    if (!b)
        return NULL;
    if (!c->len)
        STAILQ_INIT(&c->list);
    STAILQ_INSERT_TAIL(&c->list, b, next);
    c->last = b;
    return b;
}

bool chain_append(struct buffer_pool *pool, struct chain *c, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len) {
        struct buffer *b = chain_tail(pool, c);
        if (!b)
            return false;
        const size_t room = pool->size - b->end, n = len < room ? len : room;
        memcpy(b->data + b->end, at, n);
        b->end += (uint32_t)n;
        c->len += n;
        at += n;
        len -= n;
    }
    return true;
}

unsigned chain_iov(const struct chain *c, struct iovec *iov, unsigned max)
{
    const struct buffer *b;
    unsigned n = 0;
    STAILQ_FOREACH (b, &c->list, next) {
        if (n == max)
            break;
        iov[n++] = (struct iovec){(char *)(uintptr_t)b->data + b->start, b->end - b->start};
    }
    return n;
}

void chain_drop(struct buffer_pool *pool, struct chain *c, size_t len)
{
    c->len -= len;
    while (len) {
        struct buffer *b = STAILQ_FIRST(&c->list);
        const uint32_t have = b->end - b->start; /* NOLINT(clang-analyzer-core.NullDereference) */
        if (len < have) {
            b->start += (uint32_t)len;
            return;
        }
        len -= have;
        STAILQ_REMOVE_HEAD(&c->list, next);
        buffer_put(pool, b);
    }
}

void chain_free(struct buffer_pool *pool, struct chain *c)
{
    chain_drop(pool, c, c->len);
}

/* ---- writing ---- */

/* Appends what lies behind the first `skip` of the first `until` bytes of iov. */
static bool append_rest(struct buffer_pool *pool, struct chain *c, const struct iovec *iov,
                        unsigned n, size_t skip, size_t until)
{
    for (unsigned i = 0; i < n && until; i++) {
        const size_t len = iov[i].iov_len < until ? iov[i].iov_len : until;
        until -= len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        if (!chain_append(pool, c, (const char *)iov[i].iov_base + skip, len - skip))
            return false;
        skip = 0;
    }
    return true;
}

ssize_t chain_send_some(struct buffer_pool *pool, struct chain *c, struct transport *t,
                        const struct iovec *iov, unsigned n, size_t keep)
{
    ssize_t sent = 0;
    if (!c->len && (sent = t->ops->write(t, iov, n)) < 0)
        return sent;
    /* Behind what waits already, it goes out in order when the transport can be written. */
    if ((size_t)sent < keep && !append_rest(pool, c, iov, n, (size_t)sent, keep))
        return -ENOMEM;
    return sent;
}

int chain_send(struct buffer_pool *pool, struct chain *c, struct transport *t,
               const struct iovec *iov, unsigned n)
{
    const ssize_t sent = chain_send_some(pool, c, t, iov, n, SIZE_MAX);
    return sent < 0 ? (int)sent : 0;
}

/* t: NULL: to the socket fd. */
static ssize_t chain_write(struct buffer_pool *pool, struct chain *c, struct transport *t, int fd)
{
    ssize_t sum = 0;
    while (c->len) {
        struct iovec iov[IOV_AT_ONCE];
        size_t all = 0;
        const unsigned n = chain_iov(c, iov, IOV_AT_ONCE);
        for (unsigned i = 0; i < n; i++)
            all += iov[i].iov_len;
        const ssize_t sent = t ? t->ops->write(t, iov, n) : socket_write(fd, iov, n);
        if (sent < 0)
            return sent;
        chain_drop(pool, c, (size_t)sent);
        sum += sent;
        if ((size_t)sent < all)
            break;
    }
    return sum;
}

ssize_t chain_flush(struct buffer_pool *pool, struct chain *c, struct transport *t)
{
    return chain_write(pool, c, t, -1);
}

ssize_t chain_flush_socket(struct buffer_pool *pool, struct chain *c, int fd)
{
    return chain_write(pool, c, NULL, fd);
}

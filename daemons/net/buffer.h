/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * buffer: pooled buffers and chains of them, for bytes that came too early or cannot be written
 * yet. Most connections own none: they are read into one buffer of the loop, and written from where
 * the bytes lie.
 *
 * Buffers belong to a pool and are given back to it; a chain owns its buffers.
 */
#ifndef POLDER_DAEMONS_NET_BUFFER_H
#define POLDER_DAEMONS_NET_BUFFER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <sys/uio.h>

struct transport;

struct buffer {
    STAILQ_ENTRY(buffer) next;
    uint32_t start, end; /* of the bytes in use */
    char data[];
};
STAILQ_HEAD(buffer_list, buffer);

struct buffer_pool {
    uint32_t size;  /* of a buffer's data */
    uint32_t keeps; /* number of free ones to keep, for the next burst */
    struct buffer_list free;
    uint32_t n_free, n_used;
    /* Where buffers come from, and go to that are more than it keeps; NULL: malloc(). Set after
     * buffer_pool_init(). */
    struct buffer *(*make)(void *arg);
    void (*unmake)(void *arg, struct buffer *b);
    void *arg;
};
struct chain {
    struct buffer_list list; /* this and the last of it: while len is not 0 */
    struct buffer *last;
    size_t len;
};

void buffer_pool_init(struct buffer_pool *pool, uint32_t size, uint32_t keeps);
/* Frees what is free, and gives memory back to the system, where none is in use. */
void buffer_pool_trim(struct buffer_pool *pool);
struct buffer *buffer_get(struct buffer_pool *pool); /* NULL: no memory */
void buffer_put(struct buffer_pool *pool, struct buffer *b);

/* A zeroed chain is empty. False: no memory; part of the bytes may have been appended. */
bool chain_append(struct buffer_pool *pool, struct chain *c, const void *bytes, size_t len);
unsigned chain_iov(const struct chain *c, struct iovec *iov, unsigned max);
void chain_drop(struct buffer_pool *pool, struct chain *c, size_t len);
void chain_free(struct buffer_pool *pool, struct chain *c);
/* One write of iov if the chain is empty; what is not taken is appended. 0, or a negative errno:
 * the connection is gone. */
int chain_send(struct buffer_pool *pool, struct chain *c, struct transport *t,
               const struct iovec *iov, unsigned n);
/* The same, but only the first `keep` bytes are appended if they are not taken. Returns how many
 * were taken. */
ssize_t chain_send_some(struct buffer_pool *pool, struct chain *c, struct transport *t,
                        const struct iovec *iov, unsigned n, size_t keep);
/* Writes what is taken of the chain. Bytes taken, or a negative errno. */
ssize_t chain_flush(struct buffer_pool *pool, struct chain *c, struct transport *t);
/* The same, to a socket that does not wait. */
ssize_t chain_flush_socket(struct buffer_pool *pool, struct chain *c, int fd);
#endif

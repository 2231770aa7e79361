/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * buffer: pooled buffers and chains of them, for bytes that a socket has brought too early or does
 * not take yet. Most connections own none: they are read into one buffer that the loop has, and
 * written to straight from where the bytes lie.
 *
 * A worker's buffers belong to its pool; who has got one gives it back. A chain owns its buffers.
 */
#ifndef POLDER_WORKER_BUFFER_H
#define POLDER_WORKER_BUFFER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct transport;
struct worker;

#define WORKER_BUFFER 32768       /* bytes of a pooled buffer, and of one read */
#define WORKER_HIGH   (96u << 10) /* stop reading the other leg */
#define WORKER_LOW    (32u << 10) /* read it again */

struct buffer {
    struct buffer *next;
    uint32_t start, end; /* of the bytes in use */
    char data[WORKER_BUFFER];
};
struct chain {
    struct buffer *head, *tail;
    size_t len;
};
struct buffer *buffer_get(struct worker *w); /* NULL: no memory */
void buffer_put(struct worker *w, struct buffer *b);
void buffer_trim(struct worker *w); /* gives back what a burst left over */
bool chain_append(struct worker *w, struct chain *c, const char *bytes, size_t len);
unsigned chain_iov(const struct chain *c, struct iovec *iov, unsigned max);
void chain_drop(struct worker *w, struct chain *c, size_t len);
void chain_free(struct worker *w, struct chain *c);
/* One write of iov if the chain is empty; what is not taken is appended. 0, or a negative errno:
 * the connection is gone. */
int chain_send(struct worker *w, struct chain *c, struct transport *t, const struct iovec *iov,
               unsigned n);
/* The same, but only the first `keep` bytes are appended if they are not taken. Returns how many
 * were taken. */
ssize_t chain_send_some(struct worker *w, struct chain *c, struct transport *t,
                        const struct iovec *iov, unsigned n, size_t keep);
/* Writes what is taken of the chain. 0, or a negative errno. */
int chain_flush(struct worker *w, struct chain *c, struct transport *t);

#endif

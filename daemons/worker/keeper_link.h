/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * keeper_link: what this worker tells the keeper, through its ring. A record is there as a whole or
 * not at all; a full ring is no error but a reason not to store.
 */
#ifndef POLDER_WORKER_KEEPER_LINK_H
#define POLDER_WORKER_KEEPER_LINK_H
#include "polder/ring.h"

#include <stdint.h>
#include <sys/uio.h>

struct cache_key;
struct permit;
struct worker;

struct keeper_link {
    struct ring *ring;
    uint64_t stream; /* number of the last one */
    uint64_t aborts[32];
    uint32_t n_aborts;
};

/* A record; 0 or -ENOSPC. permit: goes with it, and is not held any more then; NULL: none. */
int keeper_link_push(struct worker *w, enum ring_type type, uint64_t stream, struct permit *permit,
                     const struct iovec *iov, int n);
/* The stream will have no end. Where the ring is full it is told later. */
void keeper_link_abort(struct worker *w, uint64_t stream);
void keeper_link_flush(struct worker *w); /* such aborts; once an iteration */
/* Where the ring is full, the next one who meets it tries again. */
void keeper_link_delete(struct worker *w, const struct cache_key *key);
/* A newer answer has said that it must not be kept. */
void keeper_link_delete_object(struct worker *w, const struct cache_key *key, uint64_t obj_id);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * keeper_link: what this worker sends to the keeper through its ring. A record arrives completely
 * or not at all; a full ring is no error, but the response is not stored.
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
/* The stream will not be completed. If the ring is full the record is sent later. */
void keeper_link_abort(struct worker *w, uint64_t stream);
void keeper_link_flush(struct worker *w); /* such aborts; once an iteration */
/* If the ring is full, the next reader that meets the record tries again. */
void keeper_link_delete(struct worker *w, const struct cache_key *key);
/* A newer answer forbids storing it. */
void keeper_link_delete_object(struct worker *w, const struct cache_key *key, uint64_t obj_id);

#endif

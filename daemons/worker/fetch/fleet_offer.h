/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_offer: what a fetch brings is given to other hosts of the fleet, or they hear that there is
 * nothing to wait for. Control sends it (model/fleet_share.h), after it was stored here. Nothing of a
 * request with an identity, or of a route that parts them by other fields, is given.
 */
#ifndef POLDER_WORKER_FETCH_FLEET_OFFER_H
#define POLDER_WORKER_FETCH_FLEET_OFFER_H
#include "polder/cache.h"
#include "polder/fetch_lock.h"
#include "polder/field.h"
#include "polder/fleet.h"

#include <stdbool.h>

struct fetch;

/* May what it fetches be given to other hosts? The response may still forbid it. */
bool fleet_offer_may(const struct fetch *ex);
/* May what other hosts have given answer it? What has an identity is told later whether it may have
 * just that. */
bool fleet_offer_may_take(const struct fetch *ex);
/* To control, with the name of the permit under which it asked. False: the ring is full, which costs the others nothing but a
 * fetch. */
bool fleet_offer_tell(struct fetch *ex, enum fleet_share_note kind, uint64_t stream,
                      const struct iovec *iov, int n);

struct fleet_offer {
    const struct cache_record *record;
    struct str text; /* url, vary, head */
    struct str body; /* none: it has gone in chunks */
    uint64_t stream; /* of those; 0: none */
    bool marks;      /* it says by which fields its URL varies */
};
/* The next chunk of a long body. False: it did not arrive. */
bool fleet_offer_chunk(struct fetch *ex, uint64_t stream, uint64_t from, const char *bytes,
                       size_t len);
/* A 304 has renewed the stored copy of the fetch. */
void fleet_offer_renewed(struct fetch *ex);
/* It was stored here. */
void fleet_offer_put(struct fetch *ex, const struct fleet_offer *o);
/* It brings nothing that other hosts could have: they need not wait. Once. */
void fleet_offer_end(struct fetch *ex, enum fetch_lock_result result);
/* The same, and its permit is released. */
void fleet_offer_release(struct fetch *ex, enum fetch_lock_result result);
#endif

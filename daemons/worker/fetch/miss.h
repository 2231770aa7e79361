/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * miss: the store had no usable response.
 *
 *   miss.c      one request fetches, over all workers (polder/fetch_lock.h)
 *   collapse.c  the others wait until that is stored, and look it up again
 */
#ifndef POLDER_WORKER_FETCH_MISS_H
#define POLDER_WORKER_FETCH_MISS_H
#include "polder/fetch_lock.h"

#include <stdbool.h>

struct fetch;
struct fetch_watcher;
struct hit_found;
struct request;
struct worker;

/* ---- miss.c ---- */
void miss_begin(const struct request *r, struct hit_found *found);
/* The same after a repeated lookup (fetches.look_again) that failed; r->client is the fetch's. */
void miss_again(struct fetch *ex, const struct request *r, struct hit_found *found);
/* The backend answers, bypassing the store: the stored response is not for this identity. Takes
 * found->stale. */
void miss_bypass(const struct request *r, struct hit_found *found);
/* Revalidates in the background after a stale answer, if no other request does. Takes
 * found->stale. */
void miss_refresh(const struct request *r, struct hit_found *found);
/* Whether others may share what is fetched for it. */
bool miss_collapsible(const struct request *r, const struct hit_found *found);
/* Fetches without a client, if no other request does; takes found->stale. LEAD or WAIT: this
 * worker's eventfd is written when the fetch has ended. */
enum fetch_lock_claim fetch_background_stale(const struct request *r, struct hit_found *found,
                                             struct fetch_permit *permit);
/* The same as a background fetch; budget_may() has allowed it. watcher: set for LEAD; may be
 * NULL. */
enum fetch_lock_claim fetch_background(const struct request *r, struct hit_found *found,
                                       struct fetch_permit *permit, struct fetch_watcher *watcher);

/* No other host has what it looked for under a permit (fleet_share.h). */
void miss_looked_in_vain(struct fetch *ex);
/* The same after what it has waited for is there, or not. */
void miss_lead_again(struct fetch *ex);

/* ---- collapse.c ---- */
/* resume: when that fetch is over, or it has waited for long enough. */
void collapse_wait(struct fetch *ex, void (*resume)(struct fetch *ex));
void collapse_wake(struct worker *w); /* the eventfd fired, or time went by */
/* Until when it waits if the backend sends nothing. */
uint64_t collapse_until_ms(const struct fetch *ex);
/* The fetch it waited for has ended without an answer, and there is not enough time left for one of
 * its own. */
bool collapse_is_over(const struct fetch *ex);

#endif

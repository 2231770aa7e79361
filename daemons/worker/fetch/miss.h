/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * miss: the store had no answer that may be given.
 *
 *   miss.c      one of those who want it fetches, over all workers (polder/fetch_lock.h)
 *   collapse.c  the others wait until it has landed, and look again
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
/* The same for who has looked again (fetches.look_again) in vain; r->client is the fetch's again. */
void miss_again(struct fetch *ex, const struct request *r, struct hit_found *found);
/* The backend answers, and the store knows nothing of it: what is there is not for who asks. Takes
 * found->stale. */
void miss_bypass(const struct request *r, struct hit_found *found);
/* Fetches behind a stale answer that was given, if nobody else does. Takes found->stale. */
void miss_refresh(const struct request *r, struct hit_found *found);
/* Whether others may share what is fetched for it. */
bool miss_collapsible(const struct request *r, const struct hit_found *found);
/* Fetches without a client, if nobody else does; takes found->stale. LEAD or WAIT: this worker's
 * eventfd is written when the flight has landed. */
enum fetch_lock_claim fetch_background_stale(const struct request *r, struct hit_found *found,
                                             struct fetch_permit *permit);
/* The same for what nobody waits for; budget_may() has said that there is room. watcher: of LEAD;
 * NULL. */
enum fetch_lock_claim fetch_background(const struct request *r, struct hit_found *found,
                                       struct fetch_permit *permit, struct fetch_watcher *watcher);

/* ---- collapse.c ---- */
/* resume: when that fetch is over, or it has waited for long enough. */
void collapse_wait(struct fetch *ex, void (*resume)(struct fetch *ex));
void collapse_wake(struct worker *w); /* the eventfd fired, or time went by */
/* Until when it waits where the backend says nothing. */
uint64_t collapse_until_ms(const struct fetch *ex);
/* The fetch it waited for has ended without a word of the backend, and there is not enough time
 * left for one of its own. */
bool collapse_is_over(const struct fetch *ex);

#endif

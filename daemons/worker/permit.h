/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * permit: the right of one worker to fetch for all (polder/fetch_lock.h), from its claim to its
 * end.
 *
 * The holder of a permit keeps it in its own memory, renews it from time to time, and gives it up
 * in one of two ways: permit_release() wakes the waiters, or keeper_link_push() passes it to the
 * keeper, which releases it after its commit. A permit that is claimed over, or freed while it is
 * held, is a mistake that asserts: waiters would hang until its lease ends.
 *
 * A waiter for another's fetch keeps its name, a struct fetch_permit, and asks about that.
 */
#ifndef POLDER_WORKER_PERMIT_H
#define POLDER_WORKER_PERMIT_H
#include "polder/fetch_lock.h"

#include <stdbool.h>
#include <stdint.h>

struct cache_key;
struct worker;

struct permit { /* all zero: none is held */
    struct fetch_permit lock;
    uint64_t renewed_ms;
};

/* ---- the fetcher ---- */
static inline bool permit_is_held(const struct permit *p)
{
    return p->lock.word != 0;
}
/* LEAD: *p is held. *name: of the fetch that is under way then, this one's or another's; may be
 * NULL. */
enum fetch_lock_claim permit_claim(struct worker *w, const struct cache_key *key, struct permit *p,
                                   struct fetch_permit *name);
/* Each of these may be called where none is held: nothing happens then. */
void permit_renew(struct worker *w, struct permit *p);       /* its lease, from time to time */
void permit_note_answer(struct worker *w, struct permit *p); /* the response has begun */
bool permit_is_awaited(const struct worker *w, const struct permit *p);
void permit_release(struct worker *w, struct permit *p, enum fetch_lock_result result);
void permit_pass_on(struct worker *w, struct permit *p); /* it is with the keeper */
void permit_check_gone(const struct permit *p);          /* its memory is about to be freed */

/* ---- waiters ---- */
/* Waits for the fetch of that key; false: there is none. */
bool permit_wait_join(struct worker *w, const struct cache_key *key, struct fetch_permit *name);
bool permit_wait_pending(struct worker *w, const struct fetch_permit *name);
/* This worker's eventfd will be written (again); false: it is over. */
bool permit_wait_again(struct worker *w, const struct fetch_permit *name);
bool permit_wait_is_silent(struct worker *w, const struct fetch_permit *name);
/* The last response for that key was for one client alone: waiting for it is useless. */
bool permit_is_noshare(struct worker *w, const struct cache_key *key);

#endif

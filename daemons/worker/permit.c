/* SPDX-License-Identifier: BSD-2-Clause */
/* permit: see permit.h. */
#include "daemons/worker/permit.h"
#include "daemons/worker/worker.h"

#include <assert.h>

#define RENEW_MS 2000

enum fetch_lock_claim permit_claim(struct worker *w, const struct cache_key *key, struct permit *p,
                                   struct fetch_permit *name)
{
    struct fetch_permit lock;
    assert(!permit_is_held(p));
    const enum fetch_lock_claim got = fetch_lock_claim(w->shared->fetch_locks, key, w->number,
                                                       w->process->incarnation, w->mono_ms, &lock);
    if (got == FETCH_LOCK_LEAD)
        *p = (struct permit){lock, w->mono_ms};
    if (name)
        *name = lock;
    return got;
}

void permit_renew(struct worker *w, struct permit *p)
{
    if (!permit_is_held(p) || w->mono_ms < p->renewed_ms + RENEW_MS)
        return;
    p->renewed_ms = w->mono_ms;
    fetch_lock_renew(w->shared->fetch_locks, &p->lock, w->mono_ms);
}

void permit_note_answer(struct worker *w, struct permit *p)
{
    if (permit_is_held(p))
        fetch_lock_note_answer(w->shared->fetch_locks, &p->lock);
}

bool permit_is_awaited(const struct worker *w, const struct permit *p)
{
    return permit_is_held(p) && fetch_lock_is_awaited(w->shared->fetch_locks, &p->lock);
}

void permit_release(struct worker *w, struct permit *p, enum fetch_lock_result result)
{
    if (!permit_is_held(p))
        return;
    fetch_lock_release(w->shared->fetch_locks, &p->lock, result, w->shared->worker_event);
    *p = (struct permit){0};
}

void permit_pass_on(struct worker *w, struct permit *p)
{
    if (!permit_is_held(p))
        return;
    fetch_lock_hand_over(w->shared->fetch_locks, &p->lock, w->mono_ms);
    *p = (struct permit){0};
}

void permit_check_gone(const struct permit *p)
{
    assert(!permit_is_held(p));
    (void)p;
}

bool permit_wait_join(struct worker *w, const struct cache_key *key, struct fetch_permit *name)
{
    return fetch_lock_join(w->shared->fetch_locks, key, w->number, w->mono_ms, name);
}

bool permit_wait_pending(struct worker *w, const struct fetch_permit *name)
{
    return fetch_lock_pending(w->shared->fetch_locks, name, w->mono_ms);
}

bool permit_wait_again(struct worker *w, const struct fetch_permit *name)
{
    return fetch_lock_wait_again(w->shared->fetch_locks, name, w->number);
}

bool permit_wait_is_silent(struct worker *w, const struct fetch_permit *name)
{
    return fetch_lock_is_silent(w->shared->fetch_locks, name);
}

bool permit_is_noshare(struct worker *w, const struct cache_key *key)
{
    return fetch_lock_is_noshare(w->shared->fetch_locks, key, w->mono_ms);
}

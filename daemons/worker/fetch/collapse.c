/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * collapse: requests that wait while another one, of this worker or of any other, fetches
 * what they want. The release of the claim writes this worker's eventfd; leases bound every wait. While
 * the backend says nothing, each waits at most one timeout of its upstream from its own beginning
 * on, and WAIT_OVER_MS more, in which the fetch may have found another server; then it gets what is
 * stale, or 504.
 */
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/net/timer_wheel.h"
#include "daemons/worker/worker.h"

#define WAIT_MS      (FETCH_LOCK_LEASE_MS + 250)
#define LEASES       3
#define LOOK_MS      500 /* has the lease ended? */
#define WAIT_OVER_MS 500
#define WORTH        4 /* a fetch of its own, if this fraction of a timeout is left */

uint64_t collapse_until_ms(const struct fetch *ex)
{
    return ex->waits_since_ms + ex->upstream->timeout_ms + WAIT_OVER_MS;
}

bool collapse_is_over(const struct fetch *ex)
{
    const uint64_t min_ms = ex->upstream->timeout_ms / WORTH;
    return ex->waits_since_ms && permit_wait_is_silent(ex->worker, &ex->waits_for) &&
           ex->worker->mono_ms + min_ms + WAIT_OVER_MS >= collapse_until_ms(ex);
}

/* Looked at again now and then, and when it has waited long enough. */
static void set_timer(struct fetch *ex)
{
    struct worker *w = ex->worker;
    const uint64_t look_ms = w->mono_ms + LOOK_MS, until_ms = collapse_until_ms(ex);
    timer_set(&w->wheel, &ex->timer,
              w->mono_ms < until_ms && until_ms < look_ms ? until_ms : look_ms);
}

static void collapse_leave(struct fetch *ex)
{
    TAILQ_REMOVE(&ex->worker->fetches->waiters, ex, entry);
    ex->queue = NULL;
    timer_stop(&ex->worker->wheel, &ex->timer);
}

static void collapse_timeout(struct fetch *ex);

void collapse_wait(struct fetch *ex, void (*resume)(struct fetch *ex))
{
    static const struct fetch_queue queue = {collapse_leave, collapse_timeout};
    struct worker *w = ex->worker;
    ex->queue = &queue;
    ex->resume = resume;
    fetch_move(ex, FETCH_COLLAPSED);
    TAILQ_INSERT_HEAD(&w->fetches->waiters, ex, entry);
    if (!ex->waits_since_ms)
        ex->waits_since_ms = w->mono_ms;
    set_timer(ex);
}

/* Still under way, and our eventfd will be written? */
static bool still_waits(struct worker *w, const struct fetch *ex)
{
    return permit_wait_pending(w, &ex->waits_for) && permit_wait_again(w, &ex->waits_for);
}

void collapse_wake(struct worker *w)
{
    struct fetch *next;
    for (struct fetch *ex = TAILQ_FIRST(&w->fetches->waiters); ex; ex = next) {
        next = TAILQ_NEXT(ex, entry);
        if (still_waits(w, ex))
            continue;
        collapse_leave(ex);
        fetch_resume(ex);
    }
}

/* As long as the backend may think, and some leases more for its answer. */
static uint64_t wait_max_ms(const struct fetch *ex)
{
    return LEASES * WAIT_MS + ex->upstream->timeout_ms;
}

static void collapse_timeout(struct fetch *ex)
{
    struct worker *w = ex->worker;
    if (still_waits(w, ex)) {
        if (w->mono_ms >= collapse_until_ms(ex) && permit_wait_is_silent(w, &ex->waits_for)) {
            fetch_fail(ex, PROBLEM_GATEWAY_TIMEOUT);
            return;
        }
        if (w->mono_ms < ex->waits_since_ms + wait_max_ms(ex)) { /* who fetches it is alive */
            set_timer(ex);
            return;
        }
        ex->rounds = UINT8_MAX - 1; /* too slow to be waited for: it fetches for itself */
    }
    collapse_leave(ex);
    fetch_resume(ex);
}

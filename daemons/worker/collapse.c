/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * collapse: requests that are parked while another one, of this worker or of any other, fetches
 * what they want. The flight's landing writes this worker's eventfd; leases bound every wait.
 */
#include "daemons/worker/miss.h"
#include "daemons/worker/exchange.h"
#include "daemons/worker/timer.h"
#include "daemons/worker/worker.h"

#define WAIT_MS (INFLIGHT_LEASE_MS + 250)
#define LEASES  3

void collapse_park(struct exchange *ex)
{
    struct worker *w = ex->worker;
    exchange_move(ex, EXCHANGE_PARKED);
    ex->next = w->parked;
    if (ex->next)
        ex->next->link = &ex->next;
    ex->link = &w->parked;
    w->parked = ex;
    timer_set(w, &ex->timer, w->mono_ms + WAIT_MS);
}

void collapse_unpark(struct exchange *ex)
{
    *ex->link = ex->next;
    if (ex->next)
        ex->next->link = ex->link;
    ex->link = NULL;
    timer_stop(ex->worker, &ex->timer);
}

/* Still in the air, and our eventfd will be written? */
static bool still_waits(struct worker *w, const struct exchange *ex)
{
    return inflight_pending(w->shared->inflight, &ex->waits_for, w->mono_ms) &&
           inflight_wait_again(w->shared->inflight, &ex->waits_for, w->number);
}

void collapse_wake(struct worker *w)
{
    struct exchange *next;
    for (struct exchange *ex = w->parked; ex; ex = next) {
        next = ex->next;
        if (still_waits(w, ex))
            continue;
        collapse_unpark(ex);
        miss_retry(ex);
    }
}

/* Leases that it sees renewed: as long as the backend may think, and some for its answer. */
static uint64_t leases_most(const struct exchange *ex)
{
    return LEASES + ex->upstream->timeout_ms / WAIT_MS;
}

void collapse_timeout(struct exchange *ex)
{
    struct worker *w = ex->worker;
    if (still_waits(w, ex)) {
        if (++ex->leases < leases_most(ex)) { /* who fetches it is alive */
            timer_set(w, &ex->timer, w->mono_ms + WAIT_MS);
            return;
        }
        ex->rounds = UINT8_MAX - 1; /* too slow to be waited for: it fetches for itself */
    }
    collapse_unpark(ex);
    miss_retry(ex);
}

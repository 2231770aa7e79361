/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * miss: the store had no answer that may be given. One of those who want it fetches, over all
 * workers; the others are parked until it has landed (collapse.c) and look again.
 */
#include "daemons/worker/worker.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX 3 /* then everybody fetches for himself */

/* Whether others may share what this request fetches. */
static bool collapsible(const struct worker *w, const struct exchange *ex)
{
    const struct policy_settings *s = &w->routes[ex->req.route->index].settings;
    if (!ex->fetch || ex->rounds >= ROUNDS_MAX)
        return false;
    if (ex->req.policy.has_authorization && !s->partitioned_by_authorization)
        return false;
    return !inflight_is_noshare(w->shared->inflight, &ex->flight_key, w->mono_ms);
}

static bool has_validators(const struct stored_copy *copy)
{
    const uint32_t flags = copy->view.record->flags;
    return (flags & CACHE_HAS_ETAG && !(flags & CACHE_ETAG_OURS)) ||
           flags & CACHE_HAS_LAST_MODIFIED;
}

static enum inflight_claim claim(struct worker *w, struct exchange *ex,
                                 struct inflight_ticket *ticket)
{
    return inflight_claim(w->shared->inflight, &ex->flight_key, w->number, w->process->incarnation,
                          w->mono_ms, ticket);
}

static void fetch(struct worker *w, struct exchange *ex)
{
    struct inflight_ticket ticket;
    if (!collapsible(w, ex)) {
        exchange_start(ex);
        return;
    }
    switch (claim(w, ex, &ticket)) {
    case INFLIGHT_LEAD:
        ex->ticket = ticket;
        ex->renewed_ms = w->mono_ms;
        exchange_start(ex);
        break;
    case INFLIGHT_WAIT:
        ex->waits_for = ticket;
        collapse_park(ex);
        break;
    case INFLIGHT_FULL:
        exchange_start(ex);
        break;
    }
}

static void take_stale(struct exchange *ex, struct hit_found *found)
{
    hit_copy_free(ex->worker, ex->stale);
    ex->stale = found->stale;
    found->stale = NULL;
    ex->fwd = ex->stale ? FWD_STALE : found->vary_miss ? FWD_VARY_MISS : FWD_URI_MISS;
    ex->flight_key = found->vary_miss ? found->key : ex->req.key;
    ex->conditional = ex->fetch && ex->stale && has_validators(ex->stale);
}

void miss_begin(const struct request *r, struct hit_found *found)
{
    struct worker *w = r->client->worker;
    if (r->policy.cc.flags & FIELD_CC_ONLY_IF_CACHED) {
        hit_copy_free(w, found->stale);
        response_problem(r, r->client, PROBLEM_ONLY_IF_CACHED, "", "", true);
        return;
    }
    stats_add(w->stats, STATS_CACHE_MISSES, 1);
    struct exchange *ex = exchange_new(w, r);
    if (!ex) {
        hit_copy_free(w, found->stale);
        response_problem(r, r->client, PROBLEM_UNAVAILABLE, "Retry-After: 1\r\n", "", true);
        return;
    }
    ex->fetch = r->head->is_get && !r->policy.has_range;
    take_stale(ex, found);
    fetch(w, ex);
}

void miss_refresh(const struct request *r, struct hit_found *found)
{
    struct worker *w = r->worker;
    struct request behind = *r;
    if (!found->stale)
        return;
    behind.client = NULL;
    behind.is_head = behind.policy.is_head = behind.policy.has_range = false;
    behind.policy.is_get = true;
    struct exchange *ex = exchange_new(w, &behind);
    if (!ex) {
        hit_copy_free(w, found->stale);
        return;
    }
    struct inflight_ticket ticket;
    ex->fetch = true;
    take_stale(ex, found);
    if (claim(w, ex, &ticket) != INFLIGHT_LEAD) {
        exchange_finish(ex); /* somebody is at it */
        return;
    }
    ex->ticket = ticket;
    ex->renewed_ms = w->mono_ms;
    exchange_start(ex);
}

void miss_retry(struct exchange *ex)
{
    struct worker *w = ex->worker;
    struct client *c = ex->req.client;
    struct hit_found found = {0};
    struct request r = ex->req;
    exchange_move(ex, EXCHANGE_NEW);
    ex->rounds++;
    r.collapsed = true;
    c->exchange = NULL; /* the client is answered without it, or comes back */
    ex->req.client = NULL;
    if (hit_try(&r, &found) == HIT_ANSWERED) {
        hit_copy_free(w, found.stale);
        exchange_finish(ex);
        return;
    }
    c->exchange = ex;
    ex->req.client = c;
    take_stale(ex, &found);
    fetch(w, ex);
}

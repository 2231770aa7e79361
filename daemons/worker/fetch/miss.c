/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * miss: the store had no usable response. One request fetches, over all workers; the others wait
 * until that is stored (collapse.c) and repeat their steps from the lookup (fetches.look_again).
 */
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/error_backoff.h"
#include "daemons/worker/fetch/fleet_share.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/cache/stale.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/fetch/partial.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/route_state.h"
#include "polder/cache.h"
#include "polder/clock.h"
#include "polder/field.h"
#include "polder/problem.h"
#include "polder/stats.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX 3 /* then each request fetches for itself */

static bool may_share(const struct request *r, const struct cache_key *lock_key)
{
    const struct worker *w = r->worker;
    const struct policy_settings *s = &w->routes[r->route->index].settings;
    if (request_is_quarantined(r) ||
        (r->policy.has_authorization && !s->partitioned_by_authorization))
        return false;
    return !permit_is_noshare(r->worker, lock_key);
}

/* What has to be asked about for each request, since it says no-cache or a lifetime of nothing, is
 * of no use to who has waited for another's. */
static bool is_revalidated_always(const struct fetch *ex)
{
    const struct cache_record *rec = ex->stale ? ex->stale->view.record : NULL;
    if (!rec || request_interval_ms(&ex->req))
        return false;
    const uint64_t born_ms = rec->received_ms - (uint64_t)rec->age_s * 1000;
    return rec->flags & CACHE_NO_CACHE ||
           (rec->fresh_until_ms <= born_ms && rec->swr_until_ms <= rec->received_ms);
}

/* Whether others may share what this request fetches, under that key. */
static bool collapsible(const struct fetch *ex, const struct cache_key *key)
{
    return !is_revalidated_always(ex) && (ex->for_store || partial_is_shareable(&ex->req)) &&
           ex->rounds < ROUNDS_MAX && may_share(&ex->req, key);
}

/* A range, or a HEAD, that may be answered from the whole body that another request is fetching. */
static bool waits_for_whole(struct fetch *ex)
{
    const bool may_wait = !ex->for_store && (ex->req.is_head || partial_is_shareable(&ex->req));
    return may_wait && ex->rounds < ROUNDS_MAX && may_share(&ex->req, &ex->lock_key) &&
           permit_wait_join(ex->worker, &ex->lock_key, &ex->waits_for);
}

/* Requests join fetches of their class alone. */
static struct cache_key lock_key(const struct request *r, const struct hit_found *found)
{
    struct cache_key key = found->vary_miss ? found->key : r->key;
    identity_lock_key(r, &key);
    return key;
}

bool miss_collapsible(const struct request *r, const struct hit_found *found)
{
    const struct cache_key key = lock_key(r, found);
    return !r->policy.has_range && may_share(r, &key);
}

static bool has_validators(const struct stored_copy *copy)
{
    const uint32_t flags = copy->view.record->flags;
    return (flags & CACHE_HAS_ETAG && !(flags & CACHE_ETAG_OURS)) ||
           flags & CACHE_HAS_LAST_MODIFIED;
}

/* Between the look into the store and the claim another fetch may have ended: then what this one
 * would fetch is there. */
static bool stored_meanwhile(const struct fetch *ex)
{
    struct hit_found found = {0};
    uint64_t left = 0, life = 0;
    bool newer = false;
    if (stored_left_ms(&ex->req, &found, &left, &life) && left && found.stale) {
        const struct cache_record *now = found.stale->view.record,
                                  *then = ex->stale ? ex->stale->view.record : NULL;
        newer = !then || now->obj_id != then->obj_id || now->received_ms > then->received_ms;
    }
    stored_copy_free(ex->worker, found.stale);
    return newer;
}

/* As if its route had no cache. */
static void bypass(struct fetch *ex)
{
    stored_copy_free(ex->worker, ex->stale);
    ex->stale = NULL;
    ex->for_store = ex->conditional = false;
    ex->req.cacheable = ex->req.drops_cookies = false;
    route_stats_lookup(ex->worker, ex->req.route, STATS_LOOKUP_BYPASS);
    cache_store_name_identity(ex);
    fetch_start(ex);
}

/* What others have got there was for themselves alone: it will be so again. */
static bool is_known_personal(const struct fetch *ex)
{
    return ex->req.policy.identity == POLICY_SHARED && !ex->stale &&
           permit_is_noshare(ex->worker, &ex->lock_key);
}

static void look_again(struct fetch *ex)
{
    ex->rounds++;
    ex->worker->fetches->look_again(ex);
}

/* What it has waited for is over. */
static void miss_retry(struct fetch *ex)
{
    fetch_move(ex, FETCH_NEW);
    look_again(ex);
}

/* It holds the permit. */
static void fetch_for_all(struct fetch *ex)
{
    if (!fleet_share_ask(ex))
        fetch_start(ex);
}

/* A range, a HEAD, or what has an identity, which another host's copy may answer: one of them looks. False:
 * none does. */
static bool looks_elsewhere(struct fetch *ex)
{
    static const char name[] = "\nlook"; /* no field of a variant's has such a name */
    struct worker *w = ex->worker;
    struct fetch_permit other;
    struct cache_key key;
    if (ex->rounds >= ROUNDS_MAX || !fleet_share_may_look(ex) ||
        permit_is_noshare(w, &ex->lock_key))
        return false;
    cache_key_variant(inval_secret(w->shared->inval), &ex->lock_key, name, sizeof name - 1, &key);
    switch (permit_claim(w, &key, &ex->permit, &other)) {
    case FETCH_LOCK_LEAD:
        if (stored_meanwhile(ex)) {
            permit_release(w, &ex->permit, FETCH_LOCK_STORED);
            look_again(ex);
            return true;
        }
        if (fleet_share_ask(ex))
            return true;
        permit_release(w, &ex->permit, FETCH_LOCK_FAILED);
        return false;
    case FETCH_LOCK_WAIT:
        fleet_share_looked(ex);
        ex->waits_for = other;
        collapse_wait(ex, miss_retry);
        return true;
    default:
        return false;
    }
}

static void fetch(struct worker *w, struct fetch *ex)
{
    struct fetch_permit name;
    struct cache_key key = ex->lock_key;
    if (is_known_personal(ex)) {
        bypass(ex);
        return;
    }
    if (waits_for_whole(ex)) {
        collapse_wait(ex, miss_retry);
        return;
    }
    if (looks_elsewhere(ex))
        return;
    if (!ex->for_store)
        partial_lock_key(&ex->req, &key);
    if (!collapsible(ex, &key)) {
        fetch_start(ex);
        return;
    }
    switch (permit_claim(w, &key, &ex->permit, &name)) {
    case FETCH_LOCK_LEAD:
        if (stored_meanwhile(ex) || (!ex->for_store && partial_is_stored(ex))) {
            permit_release(ex->worker, &ex->permit, FETCH_LOCK_STORED);
            look_again(ex);
            break;
        }
        fetch_for_all(ex);
        break;
    case FETCH_LOCK_WAIT:
        ex->waits_for = name;
        collapse_wait(ex, miss_retry);
        break;
    case FETCH_LOCK_FULL:
        fetch_start(ex);
        break;
    }
}

void miss_looked_in_vain(struct fetch *ex)
{
    permit_release(ex->worker, &ex->permit, FETCH_LOCK_FAILED);
    fetch(ex->worker, ex);
}

static void take_stale(struct fetch *ex, struct hit_found *found)
{
    stored_copy_free(ex->worker, ex->stale);
    ex->stale = found->stale;
    found->stale = NULL;
    ex->fwd = ex->stale          ? FWD_STALE
              : found->partial   ? FWD_PARTIAL
              : found->vary_miss ? FWD_VARY_MISS
                                 : FWD_URI_MISS;
    ex->lock_key = lock_key(&ex->req, found);
    ex->conditional = ex->for_store && ex->stale && has_validators(ex->stale);
}

void miss_begin(const struct request *r, struct hit_found *found)
{
    struct worker *w = r->client->worker;
    if (r->policy.cc.flags & FIELD_CC_ONLY_IF_CACHED) {
        stored_copy_free(w, found->stale);
        response_problem(r, r->client, PROBLEM_ONLY_IF_CACHED, "", "", true);
        return;
    }
    if (found->stale && stale_answer(r, found->stale)) {
        stored_copy_free(w, found->stale);
        return;
    }
    if (r->policy.identity != POLICY_SHARED) /* else the answer tells what it was */
        route_stats_lookup(w, r->route, STATS_LOOKUP_MISS);
    struct fetch *ex = fetch_new(w, r);
    if (!ex) {
        stored_copy_free(w, found->stale);
        response_problem(r, r->client, PROBLEM_UNAVAILABLE, "Retry-After: 1\r\n", "", true);
        return;
    }
    ex->for_store = r->head->is_get && !r->policy.has_range;
    take_stale(ex, found);
    fetch(w, ex);
}

void miss_bypass(const struct request *r, struct hit_found *found)
{
    struct worker *w = r->worker;
    stored_copy_free(w, found->stale);
    found->stale = NULL;
    if (r->policy.cc.flags & FIELD_CC_ONLY_IF_CACHED) {
        response_problem(r, r->client, PROBLEM_ONLY_IF_CACHED, "", "", true);
        return;
    }
    struct fetch *ex = fetch_new(w, r);
    if (!ex) {
        response_problem(r, r->client, PROBLEM_UNAVAILABLE, "Retry-After: 1\r\n", "", true);
        return;
    }
    ex->req.started_ns = clock_mono_ns();
    bypass(ex);
}

/* What an anonymous request has fetched is renewed by such a one. */
static void forget_identity(struct fetch *ex)
{
    const struct stored_copy *copy = ex->stale;
    if (!ex->req.has_identity || ex->req.policy.identity == POLICY_PARTITION ||
        ex->req.route->cache->n_partition || !copy || copy->view.record->flags & CACHE_BY_IDENTITY)
        return;
    identity_strip(&ex->req, &ex->head);
    ex->req.has_identity = ex->req.policy.has_authorization = false;
    ex->req.policy.identity = POLICY_ANONYMOUS;
}

/* An exchange without a client. NULL: no memory; the copy is freed. */
static struct fetch *behind(const struct request *r, struct hit_found *found)
{
    struct request plain = *r;
    plain.client = NULL;
    plain.is_head = plain.policy.is_head = plain.policy.has_range = false;
    plain.policy.is_get = true;
    plain.wait_s = plain.waited_s = 0;
    struct fetch *ex = fetch_new(r->worker, &plain);
    if (!ex) {
        stored_copy_free(r->worker, found->stale);
        found->stale = NULL;
        return NULL;
    }
    ex->for_store = true;
    take_stale(ex, found);
    forget_identity(ex);
    return ex;
}

/* Fetches, if no other request does. name: the claim whose end this worker is to be told; NULL: nothing
 * here waits for it. */
static enum fetch_lock_claim lead(struct fetch *ex, struct fetch_permit *name,
                                  struct fetch_watcher *watcher)
{
    struct worker *w = ex->worker;
    const enum fetch_lock_claim got = permit_claim(w, &ex->lock_key, &ex->permit, name);
    if (got != FETCH_LOCK_LEAD) {
        fetch_finish(ex);
        return got;
    }
    if (name) /* its own end is told to it too */
        permit_wait_again(w, name);
    if (stored_meanwhile(ex)) {
        permit_release(ex->worker, &ex->permit, FETCH_LOCK_STORED);
        fetch_finish(ex);
        return FETCH_LOCK_WAIT;
    }
    if (watcher)
        fetch_watch(ex, watcher);
    fetch_for_all(ex);
    return got;
}

void miss_lead_again(struct fetch *ex)
{
    struct hit_found found = {0};
    uint64_t left = 0, life = 0;
    if (stored_meanwhile(ex)) {
        fetch_finish(ex);
        return;
    }
    stored_left_ms(&ex->req, &found, &left, &life);
    take_stale(ex, &found);
    lead(ex, NULL, NULL);
}

enum fetch_lock_claim fetch_background_stale(const struct request *r, struct hit_found *found,
                                             struct fetch_permit *permit)
{
    struct fetch *ex = behind(r, found);
    return ex ? lead(ex, permit, NULL) : FETCH_LOCK_FULL;
}

enum fetch_lock_claim fetch_background(const struct request *r, struct hit_found *found,
                                       struct fetch_permit *permit, struct fetch_watcher *watcher)
{
    struct fetch *ex = behind(r, found);
    if (!ex)
        return FETCH_LOCK_FULL;
    ex->background = true;
    return lead(ex, permit, watcher);
}

void miss_refresh(const struct request *r, struct hit_found *found)
{
    if (found->stale && request_interval_ms(r) && error_backoff_rest_ms(r->worker, found->stale)) {
        stored_copy_free(r->worker, found->stale);
        found->stale = NULL;
    }
    struct fetch *ex = found->stale ? behind(r, found) : NULL;
    if (ex)
        lead(ex, NULL, NULL);
}

void miss_again(struct fetch *ex, const struct request *r, struct hit_found *found)
{
    struct worker *w = ex->worker;
    if (found->stale && stale_answer(r, found->stale)) {
        stored_copy_free(w, found->stale);
        fetch_finish(ex);
        return;
    }
    fetch_take_client(ex, r->client);
    take_stale(ex, found);
    if (found->others) {
        bypass(ex);
        return;
    }
    if (collapse_is_over(ex)) {
        fetch_fail(ex, PROBLEM_GATEWAY_TIMEOUT);
        return;
    }
    if (ex->waits_since_ms && permit_wait_is_silent(w, &ex->waits_for))
        ex->until_ms = collapse_until_ms(ex);
    fetch(w, ex);
}

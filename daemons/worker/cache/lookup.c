/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lookup: answers from the store.
 *
 * The whole of a hit: one or two lookups in a read transaction (stored.c), the invalidation words,
 * freshness, one byte of ref[], and the answer (deliver.c). The transaction never outlives the
 * call.
 */
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fleet_link.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/poll.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/message/tenants.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/route_state.h"
#include "polder/clock.h"
#include "polder/leak_guard.h"
#include "polder/inval.h"
#include "polder/policy.h"
#include "polder/refresh.h"
#include "polder/stats.h"

#define SAMPLE_EACH 64

static enum policy_use use_of(const struct worker *w, const struct request *r,
                              const struct cache_record *rec, enum inval_state state)
{
    const uint64_t interval_ms = request_interval_ms(r);
    if (interval_ms && state == INVAL_VALID &&
        policy_poll_holds(&r->policy, rec, interval_ms, w->real_ms))
        return POLICY_FRESH;
    const uint32_t slow = CACHE_NO_CACHE | CACHE_SLOW;
    if (w->real_ms < rec->fresh_until_ms && state == INVAL_VALID && !(rec->flags & slow) &&
        !r->policy.has_authorization && !r->policy.obey_directives &&
        policy_suits_origin(&r->policy, rec) && policy_is_of_the_past(rec, w->real_ms))
        return POLICY_FRESH;
    return policy_use_of(&r->policy, rec, state == INVAL_SOFT, w->real_ms);
}

/* Other hosts may have invalidated it. What has come while this request waited for it may have been
 * asked for before. */
static enum policy_use use_cut_off(const struct worker *w, const struct cache_record *rec,
                                   enum policy_use use)
{
    const enum config_cut_off mode = w->config->fleet.cut_off;
    const bool is_young = w->real_ms < rec->received_ms + CONFIG_CUT_OFF_MS;
    if (use == POLICY_UNUSABLE || (mode == CONFIG_CUT_OFF_SERVE && is_young))
        return use;
    return POLICY_REVALIDATE;
}

static void measure(struct worker *w, const struct config_route *route, uint64_t start_ns)
{
    if (start_ns)
        w->lookups->hit_ns = clock_mono_ns() - start_ns;
    stats_observe(w->stats, STATS_LATENCY_HIT, route_stats(w, route), w->lookups->hit_ns);
}

/* What may be done with the record that was found. */
static bool use(struct worker *w, const struct request *r, const struct cache_view *v,
                struct hit_found *found)
{
    const struct cache_record *rec = v->record;
    struct route_state *route = &w->routes[r->route->index];
    struct guard_check *check = NULL;
    const enum inval_state state = cache_record_state(w->shared->inval, rec, rec->fetch_seq);
    if (state == INVAL_HARD || !guard_lets(route->guard, rec->fetch_seq, r->url, r->url_len) ||
        rec->rules != route->identity.number)
        return false;
    if (r->policy.identity == POLICY_SHARED && !identity_may_take(r, v)) {
        found->others = true;
        return false;
    }
    stored_touch(w, rec);
    enum policy_use may = use_of(w, r, rec, state);
    if (fleet_link_is_cut_off(w))
        may = use_cut_off(w, rec, may);
    switch (may) {
    case POLICY_FRESH:
        if (w->real_ms >= refresh_from_ms(rec) && w->real_ms < rec->fresh_until_ms &&
            !request_interval_ms(r))
            w->lookups->hit_ops->soon_stale(r, rec);
        if (--route->guard_left == 0 && !w->lookups->hit_ops->look(r, v, &check))
            return false;
        const bool answered = deliver_view(w, r, v, state == INVAL_SOFT, &found->key);
        if (check)
            w->lookups->hit_ops->begin(check, answered && !r->client->held);
        if (!answered)
            return false;
        if (request_interval_ms(r))
            poll_note(r);
        if (!r->client->held) {
            route_stats_lookup(w, r->route,
                               r->collapsed ? STATS_LOOKUP_COLLAPSED : STATS_LOOKUP_HIT);
            tenants_count(r, TENANTS_HITS);
        }
        if (r->policy.identity != POLICY_ANONYMOUS)
            stats_add(w->stats,
                      r->policy.identity == POLICY_PARTITION ? STATS_IDENTITY_OWN
                                                             : STATS_IDENTITY_SHARED,
                      1);
        return true;
    case POLICY_STALE_OK:
        if (!r->head) /* to refresh it takes the head */
            return false;
        found->stale = stored_copy_of(w, r, v, &found->key);
        if (!deliver_view(w, r, v, state == INVAL_SOFT, &found->key))
            return false;
        if (!r->client->held)
            route_stats_lookup(w, r->route, STATS_LOOKUP_STALE);
        return true;
    case POLICY_REVALIDATE:
        if (r->head)
            found->stale = stored_copy_of(w, r, v, &found->key);
        return false;
    default:
        return false;
    }
}

bool hit_try(const struct request *r, struct hit_found *found)
{
    struct worker *w = r->worker;
    struct cache_view v;
    bool answered = false;
    w->routes[r->route->index].identity_counts.requests++;
    if (!reader_ready(w))
        return false;
    const uint64_t start_ns = w->lookups->hit_sample++ % SAMPLE_EACH ? 0 : clock_mono_ns();
    if (stored_find(w, r, &v, found) == 1)
        answered = use(w, r, &v, found);
    cache_reader_release(w->reader);
    if (answered)
        measure(w, r->route, start_ns);
    return answered;
}

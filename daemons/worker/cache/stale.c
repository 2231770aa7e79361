/* SPDX-License-Identifier: BSD-2-Clause */
/* stale: see stale.h. */
#include "daemons/worker/cache/stale.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/fetch/error_backoff.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/route_state.h"
#include "polder/cache_status.h"
#include "polder/inval.h"
#include "polder/leak_guard.h"
#include "polder/policy.h"
#include "polder/stats.h"

#include <inttypes.h>
#include <stdio.h>

/* Has the copy been invalidated since it was taken? */
static bool is_purged(const struct request *r, const struct stored_copy *copy)
{
    const struct cache_view *v = &copy->view;
    const struct cache_record *rec = v->record;
    if (!guard_lets(r->worker->routes[r->route->index].guard, rec->fetch_seq, r->url, r->url_len))
        return true;
    const struct inval_page *page = r->worker->shared->inval;
    return inval_check_held(page, rec->fetch_seq, copy->since, rec->url_slot, rec->tag_slot,
                            rec->n_tags, v->url, rec->url_len) == INVAL_HARD ||
           cache_record_state(page, rec, rec->fetch_seq) == INVAL_HARD;
}

bool stale_may_give(const struct request *r, const struct stored_copy *copy)
{
    return !is_purged(r, copy) &&
           policy_stale_if_error(&r->policy, copy->view.record, r->worker->real_ms);
}

bool stale_answer(const struct request *r, struct stored_copy *copy)
{
    struct worker *w = r->worker;
    char status[64] = "fwd=stale; collapsed; detail=stale-if-error";
    if ((!request_interval_ms(r) && !r->collapsed) || !error_backoff_rest_ms(w, copy) ||
        !stale_may_give(r, copy))
        return false;
    const struct cache_record *rec = copy->view.record;
    const bool soft = cache_record_state(w->shared->inval, rec, rec->fetch_seq) == INVAL_SOFT;
    if (!r->collapsed)
        snprintf(status, sizeof status, "hit; ttl=%" PRId64 "; detail=stale-if-error",
                 cache_status_ttl_s(rec, soft, w->real_ms));
    route_stats_lookup(w, r->route, STATS_LOOKUP_STALE);
    deliver_copy(r, copy, status);
    return true;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* stale: see stale.h. */
#include "daemons/worker/cache/stale.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/request/request.h"
#include "daemons/worker/worker.h"
#include "polder/inval.h"
#include "polder/leak_guard.h"
#include "polder/policy.h"

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

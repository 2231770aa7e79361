/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * error_backoff: after a failed fetch the backend is not asked again by each further request while
 * a stale response may be served instead (stale_if_error). On a polled route a failure counts for
 * an interval, as an answer does; elsewhere for the requests that waited for the failed fetch.
 *
 * Each worker remembers failures that it has seen itself, in a table with one slot per key hash: an
 * overwritten entry costs one more request. An invalidation after the failure ends it.
 */
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/error_backoff.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/inval.h"

#include <string.h>

#define WAITERS_MS 1000 /* by then they have all been told */

static struct failed *slot_of(const struct worker *w, const struct cache_key *key)
{
    uint64_t v;
    memcpy(&v, key->hash, sizeof v);
    return (struct failed *)(uintptr_t)&w->fetches->failed[v % ERROR_BACKOFF_PLACES];
}

static enum inval_state state_since(const struct worker *w, const struct cache_view *v,
                                    uint64_t since)
{
    const struct cache_record *rec = v->record;
    return cache_record_state(w->shared->inval, rec, since);
}

void error_backoff_note(const struct fetch *ex)
{
    struct worker *w = ex->worker;
    const uint64_t interval_ms = request_interval_ms(&ex->req);
    *slot_of(w, &ex->stale->key) =
        (struct failed){.key = ex->stale->key,
                        .until_ms = w->mono_ms + (interval_ms ? interval_ms : WAITERS_MS),
                        .since = ex->fetch_seq ? ex->fetch_seq : inval_seq(w->shared->inval)};
}

uint64_t error_backoff_rest_ms(const struct worker *w, const struct stored_copy *copy)
{
    const struct failed *f = slot_of(w, &copy->key);
    if (f->until_ms <= w->mono_ms || memcmp(&f->key, &copy->key, sizeof f->key) ||
        state_since(w, &copy->view, f->since) != INVAL_VALID)
        return 0;
    return f->until_ms - w->mono_ms;
}

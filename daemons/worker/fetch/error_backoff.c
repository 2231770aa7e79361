/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * error_backoff: what could not be fetched a moment ago is not asked for again by everybody who
 * wants it, where something stale may be given instead (stale_if_error). On a polled route one
 * failure counts for an interval, as an answer does; elsewhere for those who waited for the fetch
 * that failed.
 *
 * Each worker knows what it has seen itself, in a table of one place a key: what loses its place is
 * asked for once more. An invalidation that came after the failure ends it.
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

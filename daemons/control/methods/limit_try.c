/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_try: limit.try begins a try and answers at once, or reports of the running or last one.
 * What is counted is on the board in shared memory (limit_try.h): this process may die meanwhile.
 */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/limit_parts.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/regions.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/limit_top.h"
#include "polder/limit_try.h"

#include <stdio.h>
#include <string.h>

#define TRY_DEFAULT_MS 60000
#define TRY_MIN_MS     1000
#define TRY_MAX_MS     (UINT64_C(24) * 3600 * 1000)
#define CLIENTS        20

/* ---- the report ---- */

static void put_refused(struct rpc_out *o, uint64_t refused, uint64_t requests)
{
    rpc_out_u64(o, "refused", refused);
    rpc_out_f64(o, "refused_rate", requests ? (double)refused / (double)requests : 0);
}

static void put_clients(const struct control *c, struct rpc_out *o, const struct config_limit *l,
                        unsigned slot)
{
    struct limit_top_row row[CLIENTS];
    const struct limit_top_list list = {LIMIT_TOP_TRY + slot, 0};
    const size_t n = limit_top_read(c->shared->limits, list, LIMIT_TOP_REFUSED, row, CLIENTS);
    rpc_out_list(o, "clients");
    for (size_t i = 0; i < n; i++)
        limit_put_client(o, l, &row[i], "refused");
    rpc_out_end(o);
}

static void try_report(const struct control *c, const struct rpc_call *call,
                       const struct config_limit *l, int slot, bool begun)
{
    const struct limit_try *t = &c->shared->shadow_limits->slot[slot];
    const uint64_t now_ms = clock_mono_ms(), until_ms = t->terms.until_ms;
    struct limit_try_counts n;
    limit_try_counts(t, &n);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    rpc_out_u64(o, "run", atomic_load(&t->run));
    if (begun)
        rpc_out_bool(o, "begun", true);
    rpc_out_str(o, "state", now_ms < until_ms ? "running" : "ended");
    rpc_out_u64(o, "for_ms", until_ms - t->terms.started_ms);
    rpc_out_u64(o, "left_ms", now_ms < until_ms ? until_ms - now_ms : 0);
    rpc_out_u64(o, "requests", n.requests);
    rpc_out_map(o, "live");
    limit_put_values(o, &t->terms.live);
    put_refused(o, n.live_refused, n.requests);
    rpc_out_end(o);
    rpc_out_map(o, "candidate");
    limit_put_candidate(o, l, &t->terms);
    put_refused(o, n.refused, n.requests);
    rpc_out_end(o);
    put_clients(c, o, l, (unsigned)slot);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- its beginning ---- */

/* False: answered. */
static bool time_requested(struct control *c, const struct rpc_call *call, uint64_t *ms)
{
    char text[64];
    *ms = TRY_DEFAULT_MS;
    if (!rpc_in_get(call->params, "for"))
        return true;
    const int len = rpc_in_text(call->params, "for", text, sizeof text);
    if (len >= 0 && config_parse_duration(text, ms) == 0 && *ms >= TRY_MIN_MS && *ms <= TRY_MAX_MS)
        return true;
    call_error(c, call->reply, RPC_BAD_ARGUMENT, "for is a duration between 1s and 24h");
    return false;
}

static bool may_be_tried(struct control *c, const struct rpc_call *call)
{
    if (!rpc_in_get(rpc_in_get(call->params, "set"), "dry_run"))
        return true;
    call_error(c, call->reply, RPC_BAD_ARGUMENT,
               "dry_run cannot be tried: a candidate never refuses; expected requests, window, "
               "algorithm, concurrent and exempt");
    return false;
}

static void try_begin(struct control *c, const struct rpc_call *call, const struct config_limit *l)
{
    struct runtime_values values;
    struct limit_terms requested = {.exempts = false}; /* the list of the limit */
    uint64_t for_ms;
    runtime_read(c->runtime, &values);
    requested.value = values.limit[l->index];
    if (!time_requested(c, call, &for_ms) || !may_be_tried(c, call) ||
        !limit_read_terms(c, call, &requested))
        return;
    const uint64_t now_ms = clock_mono_ms();
    struct limit_try_terms terms = {.limit_id = l->id,
                                    .started_ms = now_ms,
                                    .until_ms = now_ms + for_ms,
                                    .live = values.limit[l->index],
                                    .candidate = requested.value,
                                    .exempt = requested.exempt,
                                    .exempts = requested.exempts};
    terms.candidate.dry_run = 0;
    snprintf(terms.name, sizeof terms.name, "%s", l->name);
    const int slot = limit_try_begin(c->shared->shadow_limits, c->shared->limits, &terms);
    if (slot < 0) {
        call_error(c, call->reply, RPC_BUSY,
                   "%d limits are being tried already; wait until one of these is over",
                   LIMIT_TRY_SLOTS);
        return;
    }
    regions_publish(c, NULL, NULL); /* from now on workers charge it */
    try_report(c, call, l, slot, true);
}

void limit_try(struct control *c, const struct rpc_call *call)
{
    const struct config_limit *l = limit_named(c, call);
    if (!l)
        return;
    if (rpc_in_get(call->params, "set")) {
        try_begin(c, call, l);
        return;
    }
    const int slot = limit_try_find(c->shared->shadow_limits, l->id);
    if (rpc_in_get(call->params, "for"))
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "for goes with what is to be tried, such as requests=10");
    else if (slot < 0)
        call_error(c, call->reply, RPC_NOT_FOUND,
                   "nothing was tried beside limit \"%s\" yet; limit try %s requests=10 would "
                   "begin",
                   l->name, l->name);
    else
        try_report(c, call, l, slot, false);
}

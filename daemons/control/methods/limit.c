/* SPDX-License-Identifier: BSD-2-Clause */
/* limit: limit.list, show, top, set, confirm, revert and reset. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/limit_parts.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/model/fleet_slots.h"
#include "daemons/control/regions.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/fleet_grants.h"
#include "polder/fleet_slots.h"
#include "polder/limit.h"
#include "polder/limit_top.h"
#include "polder/limitkey.h"

#include <errno.h>
#include <string.h>

#define CONFIRM_MIN_MS 1000
#define CONFIRM_MAX_MS (UINT64_C(7) * 24 * 3600 * 1000)

/* ---- what a limit looks like ---- */

static void put_terms(struct rpc_out *o, const char *key, const struct config_limit *l,
                      const struct limit_terms *terms)
{
    rpc_out_map(o, key);
    limit_put_values(o, &terms->value);
    limit_put_exempt(o, l, terms->exempts ? &terms->exempt : NULL);
    rpc_out_end(o);
}

static void put_counts(const struct control *c, struct rpc_out *o, const struct config_limit *l)
{
    struct stats_limit sums;
    stats_limit_of(c->shared->stats, l->id, l->index, &sums);
    rpc_out_u64(o, "admitted", sums.admitted);
    rpc_out_u64(o, "refused", sums.refused);
    rpc_out_u64(o, "dry_run_refused", sums.dry_refused);
}

static void put_routes(const struct control *c, struct rpc_out *o, const struct config_limit *l)
{
    rpc_out_list(o, "routes");
    for (uint32_t i = 0; i < c->config->n_routes; i++)
        for (uint32_t k = 0; k < c->config->routes[i].n_limits; k++)
            if (c->config->routes[i].limits[k] == l)
                rpc_out_str(o, NULL, c->config->routes[i].pattern);
    rpc_out_end(o);
}

/* Where it is counted. */
static void put_scope(const struct control *c, struct rpc_out *o, const struct config_limit *l,
                      const struct runtime_limit *running)
{
    const struct fleet_grants *g = c->shared->fleet_grants;
    rpc_out_str(o, "scope", l->scope == CONFIG_SCOPE_FLEET ? "fleet" : "host");
    if (l->scope != CONFIG_SCOPE_FLEET)
        return;
    rpc_out_str(o, "cut_off", config_word(&config_rows[CONFIG_LIMIT_cut_off], l->cut_off));
    rpc_out_str(o, "state", fleet_member_limits_state(c));
    rpc_out_u64(o, "lease", fleet_lease_of(g, running->requests, running->algorithm));
    rpc_out_u64(o, "share", fleet_share_part(g, running->requests));
    if (!running->concurrent)
        return;
    struct fleet_slots_view v;
    fleet_slots_view(c->shared, l->id, &v);
    rpc_out_str(o, "concurrent_state", v.comes ? "granted" : "cut off");
    rpc_out_u64(o, "concurrent_held", v.held[FLEET_SLOT_REQUEST]);
    rpc_out_u64(o, "concurrent_in_use", v.used[FLEET_SLOT_REQUEST]);
}

/* The candidate that is charged beside the limit now, if there is one. */
static void put_try(const struct control *c, struct rpc_out *o, const struct config_limit *l)
{
    const int slot = limit_try_find(c->shared->shadow_limits, l->id);
    const uint64_t now_ms = clock_mono_ms();
    if (slot < 0 || c->shared->shadow_limits->slot[slot].terms.until_ms <= now_ms)
        return;
    const struct limit_try_terms *terms = &c->shared->shadow_limits->slot[slot].terms;
    rpc_out_map(o, "try");
    rpc_out_u64(o, "left_ms", terms->until_ms - now_ms);
    limit_put_candidate(o, l, terms);
    rpc_out_end(o);
}

static void put_limit(const struct control *c, struct rpc_out *o, const struct config_limit *l,
                      const struct runtime_values *values, bool persisted)
{
    const struct runtime_limit *running = &values->limit[l->index];
    const struct exempt *list = runtime_exempt_of(c->runtime, l->index, running);
    char key[512];
    limitkey_describe(l, key, sizeof key);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    limit_put_values(o, running);
    limit_put_exempt(o, l, list);
    rpc_out_str(o, "key", key);
    put_scope(c, o, l, running);
    put_counts(c, o, l);
    rpc_out_bool(o, "changed", !limits_is_as_file(c, l, running));
    rpc_out_bool(o, "persisted", persisted);
    const uint64_t until_ms = limits_pending_until_ms(c, l), now_ms = clock_mono_ms();
    if (until_ms) /* on trial */
        rpc_out_u64(o, "confirm_within_ms", until_ms > now_ms ? until_ms - now_ms : 0);
    put_routes(c, o, l);
    put_try(c, o, l);
    rpc_out_map(o, "file");
    limit_put_values(o, &l->value);
    limit_put_exempt(o, l, NULL);
    rpc_out_end(o);
    rpc_out_end(o);
}

void limit_list(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    bool persisted[RUNTIME_LIMITS_MAX];
    runtime_read(c->runtime, &values);
    runtime_persist_which(c->config->state_dir, c->config, persisted);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_list(o, NULL);
    for (uint32_t i = 0; i < c->config->n_limits; i++)
        put_limit(c, o, &c->config->limits[i], &values, persisted[i]);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void limit_show(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    const struct config_limit *l = limit_named(c, call);
    if (!l)
        return;
    runtime_read(c->runtime, &values);
    put_limit(c, rpc_reply_result(call->reply), l, &values,
              runtime_persist_has(c->config->state_dir, l->name) > 0);
    rpc_reply_send(call->reply);
}

/* ---- top ---- */

#define TOP_ROWS 10

static void put_top(const struct control *c, struct rpc_out *o, const struct config_limit *l,
                    enum limit_top_by by, const char *name)
{
    struct limit_top_row row[TOP_ROWS];
    const struct limit_top_list list = {l->index, l->id};
    const size_t n = limit_top_read(c->shared->limits, list, by, row, TOP_ROWS);
    rpc_out_list(o, name);
    for (size_t i = 0; i < n; i++)
        limit_put_client(o, l, &row[i], "requests");
    rpc_out_end(o);
}

void limit_top(struct control *c, const struct rpc_call *call)
{
    const struct config_limit *l = limit_named(c, call);
    if (!l)
        return;
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    put_top(c, o, l, LIMIT_TOP_HEAVIEST, "heaviest");
    put_top(c, o, l, LIMIT_TOP_REFUSED, "refused");
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- set ---- */

/* False: answered. *ms 0: no trial. */
static bool confirm_within(struct control *c, const struct rpc_call *call, bool persist,
                           uint64_t *ms)
{
    char text[64];
    *ms = 0;
    if (!rpc_in_get(call->params, "confirm-within"))
        return true;
    const int len = rpc_in_text(call->params, "confirm-within", text, sizeof text);
    if (len < 0 || config_parse_duration(text, ms) || *ms < CONFIRM_MIN_MS || *ms > CONFIRM_MAX_MS)
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "confirm-within is a duration between 1s and 7d");
    else if (persist)
        call_error(
            c, call->reply, RPC_BAD_ARGUMENT,
            "a pending change cannot be made permanent; confirm it, then set it with --persist");
    else
        return true;
    return false;
}

void limit_confirm(struct control *c, const struct rpc_call *call)
{
    const struct config_limit *l = limit_named(c, call);
    if (!l)
        return;
    if (!limits_pending_until_ms(c, l)) {
        call_error(c, call->reply, RPC_FAILED, "limit \"%s\" has no pending change", l->name);
        return;
    }
    limits_pending_begin(c, l, 0, NULL);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    rpc_out_bool(o, "confirmed", true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

static void answer_change(const struct rpc_call *call, const struct config_limit *l, bool persisted,
                          uint64_t confirm_ms, const struct limit_terms *before,
                          const struct limit_terms *after)
{
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    rpc_out_bool(o, "persisted", persisted);
    if (confirm_ms)
        rpc_out_u64(o, "confirm_within_ms", confirm_ms);
    put_terms(o, "before", l, before);
    put_terms(o, "after", l, after);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

static void cannot_persist(struct control *c, const struct rpc_call *call, int code)
{
    call_error(c, call->reply, RPC_FAILED, "cannot write %s/runtime.mp: %s; nothing is changed",
               c->config->state_dir, strerror(-code));
}

void limit_set(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    const struct config_limit *l = limit_named(c, call);
    const bool persist = rpc_in_flag(call->params, "persist");
    uint64_t confirm_ms;
    if (!l || !confirm_within(c, call, persist, &confirm_ms))
        return;
    runtime_read(c->runtime, &values);
    struct limit_terms before, after;
    limits_terms(c, l, &values.limit[l->index], &before);
    after = before;
    if (!limit_read_terms(c, call, &after))
        return;
    const int code = persist ? runtime_persist_save(c->config->state_dir, l->name, &after.value,
                                                    after.exempts ? &after.exempt : NULL, l)
                             : 0;
    if (code) {
        cannot_persist(c, call, code);
        return;
    }
    limits_pending_begin(c, l, confirm_ms,
                         &before.value); /* first: what if we die between the two? */
    limits_publish(c, l->name, &after);
    answer_change(call, l, persist, confirm_ms, &before, &after);
}

void limit_revert(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    const struct config_limit *l = limit_named(c, call);
    const int code = l ? runtime_persist_forget(c->config->state_dir, l->name) : 0;
    if (!l)
        return;
    if (code) {
        cannot_persist(c, call, code);
        return;
    }
    struct limit_terms before, file = {.value = l->value};
    runtime_read(c->runtime, &values);
    limits_terms(c, l, &values.limit[l->index], &before);
    limits_publish(c, l->name, &file);
    limits_pending_begin(c, l, 0, NULL);
    answer_change(call, l, false, 0, &before, &file);
}

/* ---- reset ---- */

/* A client that sent no key is counted by its address. */
static bool reset_client(struct control *c, const struct rpc_call *call,
                         const struct config_limit *l, bool *forgotten)
{
    char client[1024], who[4096];
    const int given = rpc_in_text(call->params, "client", client, sizeof client);
    const int len = given > 0 ? limitkey_from_text(l, client, who, sizeof who) : -EINVAL;
    char key[512];
    limitkey_describe(l, key, sizeof key);
    *forgotten = limits_forget_client(c, l, who, len);
    const int address = given > 0 ? limitkey_client(client, who, sizeof who) : -EINVAL;
    *forgotten |= limits_forget_client(c, l, who, address);
    if (len >= 0 || address >= 0)
        return true;
    call_error(c, call->reply, RPC_BAD_ARGUMENT,
               "the key of limit \"%s\" is %s: client is its value (of several parts with + "
               "between them; an address for client)",
               l->name, key);
    return false;
}

void limit_reset(struct control *c, const struct rpc_call *call)
{
    const struct config_limit *l = limit_named(c, call);
    const bool one = rpc_in_get(call->params, "client") != NULL;
    bool forgotten = true;
    if (!l)
        return;
    if (!one)
        limit_reset_all(c->shared->limits, l->id);
    else if (!reset_client(c, call, l, &forgotten))
        return;
    regions_publish(c, NULL, NULL);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "name", l->name);
    rpc_out_str(o, "reset", one ? "client" : "all");
    rpc_out_bool(o, "had_counts", forgotten);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

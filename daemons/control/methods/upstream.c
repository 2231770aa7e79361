/* SPDX-License-Identifier: BSD-2-Clause */
/* upstream: upstream.list and weight. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/methods/persist.h"
#include "daemons/control/model/servers.h"
#include "daemons/control/model/shift.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/server_check.h"
#include "polder/server_load.h"
#include "polder/server_state.h"
#include "polder/sticky.h"

#include <stdio.h>
#include <string.h>

static void put_addresses(struct rpc_out *o, const struct config_server *s,
                          const struct server_row *row)
{
    struct server_addresses list = {0};
    char text[64];
    if (s->address.len)
        return; /* that is it */
    rpc_out_list(o, "addresses");
    if (row)
        server_addresses_get(row, &list);
    for (uint32_t i = 0; i < list.n; i++) {
        server_address_text(&list.at[i], text, sizeof text);
        rpc_out_str(o, NULL, text);
    }
    rpc_out_end(o);
    const uint64_t due_ms = row ? atomic_load(&row->due_ms) : 0, now_ms = clock_mono_ms();
    rpc_out_u64(o, "next_lookup_ms", due_ms > now_ms ? due_ms - now_ms : 0);
    rpc_out_u64(o, "lookups_failed", row ? atomic_load(&row->lookups_failed) : 0);
}

static void put_errors(struct rpc_out *o, const struct server_row *row)
{
    uint64_t sum = 0;
    for (unsigned i = 0; row && i < SERVER_REASONS; i++)
        sum += atomic_load(&row->errors[i]);
    rpc_out_u64(o, "errors", sum);
    rpc_out_map(o, "errors_by_reason");
    for (unsigned i = 0; row && i < SERVER_REASONS; i++)
        if (atomic_load(&row->errors[i]))
            rpc_out_u64(o, server_reason_label((enum server_reason)i),
                        atomic_load(&row->errors[i]));
    rpc_out_end(o);
}

static void put_state(struct rpc_out *o, const struct config_server *s,
                      const struct server_row *row, uint32_t weight)
{
    const uint64_t now_ms = clock_mono_ms();
    const struct server_view v = row ? server_view(row) : (struct server_view){.since_ms = now_ms};
    rpc_out_str(o, "state", servers_state_name(s, row, weight));
    const struct server_check check = row ? server_check_read(row) : (struct server_check){0};
    const uint64_t since_ms = check.down ? check.since_ms : v.since_ms;
    rpc_out_u64(o, "since_ms", now_ms > since_ms ? now_ms - since_ms : 0);
    if (!v.reason)
        return;
    const uint64_t error_ms = atomic_load(&row->error_ms);
    rpc_out_str(o, "last_error", server_reason_text(v.reason));
    rpc_out_u64(o, "error_ago_ms", now_ms > error_ms ? now_ms - error_ms : 0);
}

/* What is beside the state: requests under way, ejections, what checks have found. */
static void put_health(const struct control *c, struct rpc_out *o, const struct server_row *row)
{
    struct server_loads load;
    if (!row)
        return;
    server_load_look(&load, c->shared->servers, row);
    rpc_out_u64(o, "busy", server_load_busy(&load));
    rpc_out_u64(o, "ejections", atomic_load(&row->ejections));
    const struct server_check check = server_check_read(row);
    if (!check.known)
        return;
    const uint64_t now_ms = clock_mono_ms();
    rpc_out_map(o, "check");
    rpc_out_str(o, "state", check.down ? "fails" : "passes");
    rpc_out_str(o, "last", server_check_label(check.last));
    rpc_out_u64(o, "percent", check.drain ? 0 : check.percent);
    rpc_out_u64(o, "since_ms", now_ms > check.since_ms ? now_ms - check.since_ms : 0);
    rpc_out_end(o);
}

static void put_counts(const struct control *c, struct rpc_out *o, const struct config_server *s,
                       const struct server_row *row)
{
    struct stats_server sums;
    stats_server_of(c->shared->stats, stats_server_id(s), s->index, &sums);
    rpc_out_u64(o, "requests", sums.requests + (row ? atomic_load(&row->upgrades) : 0));
    rpc_out_u64(o, "connects", sums.connects);
    rpc_out_u64(o, "reuses", sums.reuses);
    put_errors(o, row);
    rpc_out_f64(o, "mean_seconds", distribution_mean_s(&sums.latency));
    rpc_out_f64(o, "p50_seconds", distribution_quantile_s(&sums.latency, 0.5));
    rpc_out_f64(o, "p95_seconds", distribution_quantile_s(&sums.latency, 0.95));
}

/* Both sides beside each other, since the step began. */
static void put_shift(const struct control *c, struct rpc_out *o, const struct config_server *s)
{
    const struct shift_state *shift = shift_of(c, s->upstream);
    if (!shift)
        return;
    const bool new = !strcmp(shift->server, s->address.text);
    const enum shift_side side = new ? SHIFT_NEW : SHIFT_OTHER;
    rpc_out_map(o, "shift");
    rpc_out_u64(o, "percent", new ? shift->percent : 100 - shift->percent);
    rpc_out_str(o, "side", new ? "new" : "other");
    rpc_out_str(o, "state", shift_phase_name((enum shift_phase)shift->phase));
    rpc_out_str(o, "guard", shift_guard_text(shift));
    rpc_out_u64(o, "requests", shift->watch.since[side].requests);
    rpc_out_f64(o, "error_percent", 100 * shift_error_rate(&shift->watch, side));
    rpc_out_f64(o, "p95_seconds", shift_p95_s(&shift->watch, side));
    rpc_out_end(o);
}

static void put_server(const struct control *c, struct rpc_out *o, const struct config_server *s,
                       const struct runtime_values *values)
{
    const struct server_row *row = server_find(c->shared->servers, stats_server_id(s));
    rpc_out_map(o, NULL);
    rpc_out_str(o, "upstream", s->upstream->name);
    rpc_out_str(o, "server", s->address.text);
    rpc_out_u64(o, "weight", values->server[s->index].weight);
    put_state(o, s, row, values->server[s->index].weight);
    put_counts(c, o, s, row);
    put_health(c, o, row);
    put_addresses(o, s, row);
    put_shift(c, o, s);
    if (s->upstream->sticky.kind != CONFIG_KEY_NONE)
        rpc_out_u64(o, "top_key_percent",
                    sticky_top_percent(c->shared->sticky_counts, s->upstream->name));
    rpc_out_map(o, "file");
    rpc_out_u64(o, "weight", s->weight);
    rpc_out_end(o);
    rpc_out_end(o);
}

void upstream_list(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_list(o, NULL);
    for (uint32_t i = 0; i < c->config->n_upstreams; i++)
        for (uint32_t k = 0; k < c->config->upstreams[i].n_servers; k++)
            put_server(c, o, &c->config->upstreams[i].servers[k], &values);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* The server that the call names, with texts that outlive it; NULL: the call is answered. */
static const struct config_server *server_named(struct control *c, const struct rpc_call *call,
                                                struct setting *setting)
{
    char upstream[SETTINGS_SECTION - 16];
    memset(setting, 0, sizeof *setting);
    const struct config_server *s =
        rpc_in_text(call->params, "upstream", upstream, sizeof upstream) < 0 ||
                rpc_in_text(call->params, "server", setting->key, sizeof setting->key) < 0
            ? NULL
            : servers_find(c->config, upstream, setting->key);
    if (s)
        snprintf(setting->section, sizeof setting->section, "upstream %s", upstream);
    else
        call_error(c, call->reply, RPC_NOT_FOUND,
                   "there is no such server; upstream list shows upstreams and their servers");
    return s;
}

static void change_weight(struct control *c, const struct rpc_call *call,
                          const struct config_server *s, uint32_t weight, bool persisted)
{
    const char *upstream = s->upstream->name, *server = s->address.text;
    shift_override(c, upstream);
    const uint32_t before = servers_set_weight(c, s, weight);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "upstream", upstream);
    rpc_out_str(o, "server", server);
    rpc_out_bool(o, "persisted", persisted);
    rpc_out_map(o, "before");
    rpc_out_u64(o, "weight", before);
    rpc_out_end(o);
    rpc_out_map(o, "after");
    rpc_out_u64(o, "weight", weight);
    rpc_out_end(o);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void upstream_weight(struct control *c, const struct rpc_call *call)
{
    struct setting setting;
    const bool persist = rpc_in_flag(call->params, "persist");
    const struct config_server *s = server_named(c, call, &setting);
    const struct config_row *row = &config_rows[CONFIG_SERVER_weight];
    uint64_t weight;
    if (!s)
        return;
    if (rpc_in_u64(call->params, row->key, row->max, &weight)) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "%s is %s", row->key,
                   config_number_check(row, UINT64_MAX));
        return;
    }
    snprintf(setting.value, sizeof setting.value, "%u", (unsigned)weight);
    if (!persist || persist_settings(c, call, &setting, 1))
        change_weight(c, call, s, (uint32_t)weight, persist);
}

void upstream_revert(struct control *c, const struct rpc_call *call)
{
    struct setting setting;
    const struct config_server *s = server_named(c, call, &setting);
    if (s && persist_forget(c, call, setting.section, setting.key))
        change_weight(c, call, s, s->weight, false);
}

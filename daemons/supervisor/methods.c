/* SPDX-License-Identifier: BSD-2-Clause */
/* methods: runtime_dir/supervisor-rpc.sock, where control asks and changes; ws.* of the table, and
 * ws.invalidated. */
#include "daemons/rpc/server.h"
#include "daemons/supervisor/program.h"
#include "daemons/supervisor/supervisor.h"
#include "polder/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIST_MAX 1000
#define TAGS_MAX 64

/* ---- ws.stats ---- */

static double min(double a, double b)
{
    return a < b ? a : b;
}

static void put_durations(const struct supervisor *s, struct rpc_out *o)
{
    const double max_s = (double)s->lifetimes.max_ms / 1000;
    struct distribution d = distribution_empty(HISTOGRAM_LIFETIME);
    distribution_add(&d, &s->lifetimes.histogram);
    rpc_out_map(o, "connectionDuration");
    rpc_out_f64(o, "avg", d.count ? s->lifetimes.sum_s / (double)d.count : 0);
    rpc_out_f64(o, "p50", min(distribution_quantile_s(&d, 0.5), max_s));
    rpc_out_f64(o, "p95", min(distribution_quantile_s(&d, 0.95), max_s));
    rpc_out_f64(o, "p99", min(distribution_quantile_s(&d, 0.99), max_s));
    rpc_out_f64(o, "max", max_s);
    rpc_out_end(o);
    /* for /metrics: the counts of all buckets, from that of HISTOGRAM_LIFETIME on */
    rpc_out_list(o, "durationCounts");
    for (unsigned b = 0; b < HISTOGRAM_BUCKETS; b++)
        rpc_out_u64(o, NULL, d.bucket[b]);
    rpc_out_end(o);
    rpc_out_u64(o, "durationCount", d.count);
    rpc_out_f64(o, "durationSum", s->lifetimes.sum_s);
}

static void put_routes(const struct supervisor *s, struct rpc_out *o)
{
    rpc_out_list(o, "routes");
    for (uint32_t i = 0; i < s->config->n_routes; i++) {
        const struct route_count *r = &s->routes[i];
        if (!s->config->routes[i].websocket)
            continue;
        rpc_out_map(o, NULL);
        rpc_out_str(o, "route", s->config->routes[i].pattern);
        rpc_out_u64(o, "open", r->open);
        rpc_out_u64(o, "maxConnections", s->route_values[i].ws.max_connections);
        values_put(o, "values", &s->route_values[i].ws, false);
        rpc_out_u64(o, "opened", r->opened);
        rpc_out_u64(o, "refused", r->refused);
        rpc_out_u64(o, "reaped", r->reaped);
        rpc_out_u64(o, "messagesIn", r->messages_in);
        rpc_out_u64(o, "messagesOut", r->messages_out);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

/* heartbeatSuccess: JSON heartbeats that were written and pings that were answered, of those that
 * were sent (a ping still under way counts as answered). */
static double success(const struct supervisor *s)
{
    const uint64_t sent = s->heartbeats + s->pings, under_way = s->open * 2u;
    uint64_t good = s->heartbeats_acked + s->pongs;
    good = good + under_way < sent ? good : sent;
    return sent ? (double)good / (double)sent : 1;
}

/* All routes together. */
static uint64_t capacity(const struct supervisor *s)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->config->n_routes; i++)
        if (s->config->routes[i].websocket)
            sum += s->route_values[i].ws.max_connections;
    return s->values.max_connections_total && s->values.max_connections_total < sum
               ? s->values.max_connections_total
               : sum;
}

/* What lies on disk is not all of what runs. */
static bool program_is_other(const struct supervisor *s)
{
    const char *custodian = s->upgrade.custodian;
    return program_differs() || (*custodian && strcmp(custodian, supervisor_version()) != 0);
}

static void ws_stats(struct supervisor *s, const struct rpc_call *call)
{
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_u64(o, "activeConnections", s->open);
    rpc_out_u64(o, "maxConnections", capacity(s));
    rpc_out_f64(o, "heartbeatSuccess", success(s));
    rpc_out_u64(o, "heartbeatsSent", s->heartbeats + s->pings);
    rpc_out_u64(o, "heartbeatsAnswered", s->heartbeats_acked + s->pongs);
    rpc_out_u64(o, "jsonHeartbeats", s->heartbeats);
    rpc_out_u64(o, "pings", s->pings);
    rpc_out_u64(o, "pongs", s->pongs);
    rpc_out_u64(o, "deaths", s->survived.deaths);
    rpc_out_u64(o, "takenUp", s->survived.kept);
    rpc_out_u64(o, "takenUpClosed", s->survived.closed);
    rpc_out_u64(o, "takenUpRefused", s->survived.refused);
    rpc_out_u64(o, "opened", s->opened);
    rpc_out_u64(o, "refused", s->refused);
    rpc_out_u64(o, "reaped", s->ends[END_TIMEOUT]);
    rpc_out_f64(o, "leakedHours", leaked_hours(&s->leaked, s->now_ms));
    rpc_out_f64(o, "countedSeconds", (double)(s->now_ms - s->leaked.since_ms) / 1000);
    rpc_out_u64(o, "messagesIn", s->messages_in);
    rpc_out_u64(o, "messagesOut", s->messages_out);
    rpc_out_u64(o, "pid", (uint64_t)getpid());
    rpc_out_str(o, "version", supervisor_version());
    rpc_out_u64(o, "upgrades", s->upgrade.done);
    rpc_out_u64(o, "upgradesFailed", s->upgrade.failures);
    rpc_out_str(o, "upgradeError", s->upgrade.why);
    rpc_out_str(o, "custodian", s->upgrade.custodian);
    rpc_out_bool(o, "custodianPending", s->upgrade.custodian_pending);
    rpc_out_bool(o, "programDiffers", program_is_other(s));
    rpc_out_f64(o, "upgradePausedMs", (double)s->upgrade.pause_ns / 1e6);
    put_durations(s, o);
    rpc_out_map(o, "ends");
    for (int i = 0; i < END_REASONS; i++)
        rpc_out_u64(o, session_end_names[i], s->ends[i]);
    rpc_out_end(o);
    put_routes(s, o);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- ws.list, ws.close, ws.broadcast ---- */

static const char *state_name(const struct session *x)
{
    static const char *const names[] = {"connecting", "asking",  "refusing",
                                        "open",       "closing", "ended"};
    return names[x->state];
}

static void put_session(const struct supervisor *s, struct rpc_out *o, const struct session *x)
{
    char ip[46];
    rpc_out_map(o, NULL);
    rpc_out_u64(o, "id", x->id);
    rpc_out_str(o, "client_id", x->client_id ? x->client_id : "");
    clientip_format(&x->count->ip, ip);
    rpc_out_str(o, "client", ip);
    rpc_out_str(o, "route", x->route->pattern);
    rpc_out_str(o, "state", state_name(x));
    rpc_out_u64(o, "age_ms", s->now_ms - x->opened_ms);
    rpc_out_u64(o, "idle_ms", s->now_ms - x->from_client_ms);
    rpc_out_u64(o, "queued", x->client.out.len + x->backend.out.len);
    rpc_out_end(o);
}

/* The youngest first. A cursor is the number of the last one shown: numbers only grow, so no
 * session is shown twice, and none that stays is left out. */
static void ws_list(struct supervisor *s, const struct rpc_call *call)
{
    uint64_t limit = LIST_MAX, after = UINT64_MAX;
    const int given = rpc_in_u64(call->params, "limit", LIST_MAX, &limit),
              from = rpc_in_u64(call->params, "cursor", UINT64_MAX, &after);
    if ((given < 0 && given != -ENOENT) || !limit || (from < 0 && from != -ENOENT)) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "limit is 1 to %d, cursor what ws list gave",
                        LIST_MAX);
        return;
    }
    struct rpc_out *o = rpc_reply_result(call->reply);
    struct session *x = LIST_FIRST(&s->sessions);
    uint64_t last = 0;
    rpc_out_map(o, NULL);
    rpc_out_list(o, "websockets");
    while (x && x->id >= after)
        x = LIST_NEXT(x, entry);
    for (uint64_t n = 0; x && n < limit; x = LIST_NEXT(x, entry)) {
        if (x->probe)
            continue;
        put_session(s, o, x);
        last = x->id;
        n++;
    }
    rpc_out_end(o);
    if (x)
        rpc_out_u64(o, "cursor", last);
    else
        rpc_out_nil(o, "cursor");
    rpc_out_u64(o, "total", s->open);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

static void ws_close(struct supervisor *s, const struct rpc_call *call)
{
    char text[32], *end;
    if (rpc_in_text(call->params, "id", text, sizeof text) < 0) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "id is the number that ws list shows");
        return;
    }
    const uint64_t id = strtoull(text, &end, 10);
    for (struct session *x = LIST_FIRST(&s->sessions); !*end && x; x = LIST_NEXT(x, entry))
        if (x->id == id) {
            session_close(s, x, 1001, "closed by the operator", END_CLOSED_BY_ADMIN);
            struct rpc_out *o = rpc_reply_result(call->reply);
            rpc_out_map(o, NULL);
            rpc_out_u64(o, "closed", id);
            rpc_out_end(o);
            rpc_reply_send(call->reply);
            return;
        }
    rpc_reply_error(call->reply, RPC_NOT_FOUND, "there is no WebSocket with the id %s", text);
}

static void ws_broadcast(struct supervisor *s, const struct rpc_call *call)
{
    char text[2000];
    unsigned notified = 0;
    if (rpc_in_text(call->params, "text", text, sizeof text) < 0 ||
        !frames_utf8_valid((const uint8_t *)text, strlen(text))) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "text is UTF-8 of at most 1999 bytes");
        return;
    }
    for (struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry))
        if (x->state == SESSION_OPEN && !x->probe && frames_between_messages(&x->backend.in) &&
            !x->client.out.len) {
            notified += leg_put_frame(s, &x->client, FRAMES_TEXT, text, strlen(text));
            relay_watch(s, x);
        }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_u64(o, "told", notified);
    rpc_out_u64(o, "of", s->open);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- ws.invalidated: control tells what has been invalidated ---- */

static void ws_invalidated(struct supervisor *s, const struct rpc_call *call)
{
    static char texts[TAGS_MAX][257];
    const char *tags[TAGS_MAX];
    char prefix[512], one[257];
    size_t n = 0;
    const msgpack_object *list = rpc_in_get(call->params, "tags");
    for (uint32_t i = 0;
         list && list->type == MSGPACK_OBJECT_ARRAY && i < list->via.array.size && n < TAGS_MAX;
         i++)
        if (rpc_in_object_text(&list->via.array.ptr[i], texts[n], sizeof texts[n]) >= 0) {
            tags[n] = texts[n];
            n++;
        }
    if (rpc_in_text(call->params, "tag", one, sizeof one) >= 0 && n < TAGS_MAX)
        tags[n++] = one;
    const bool has_prefix = rpc_in_text(call->params, "prefix", prefix, sizeof prefix) >= 0 ||
                            rpc_in_text(call->params, "url", prefix, sizeof prefix) >= 0;
    const unsigned notified = local_invalidated(s, tags, n, has_prefix ? prefix : NULL);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_u64(o, "told", notified);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- ws.weight: control tells what upstream weight has changed ---- */

static void ws_weight(struct supervisor *s, const struct rpc_call *call)
{
    char upstream[256], server[256];
    uint64_t weight = 0;
    bool found = false;
    if (rpc_in_text(call->params, "upstream", upstream, sizeof upstream) >= 0 &&
        rpc_in_text(call->params, "server", server, sizeof server) >= 0 &&
        !rpc_in_u64(call->params, "weight", 1000000, &weight))
        for (uint32_t i = 0; i < s->config->n_upstreams; i++) {
            const struct config_upstream *u = &s->config->upstreams[i];
            for (uint32_t k = 0; k < u->n_servers && !strcmp(u->name, upstream); k++)
                if (!strcmp(u->servers[k].address.text, server)) {
                    s->weights[u->servers[k].index] = (uint32_t)weight;
                    found = true;
                }
        }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "found", found);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- log.level, log.reopen ---- */

static void say_done(const struct rpc_call *call)
{
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "done", true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

static void log_level_run(struct supervisor *s, const struct rpc_call *call)
{
    enum log_level level;
    char word[16];
    if (rpc_in_text(call->params, "level", word, sizeof word) < 0 ||
        !log_level_parse(word, &level)) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT,
                        "level: expected error, warning, info or debug");
        return;
    }
    s->log_level = level;
    log_set_level(level);
    say_done(call);
}

static void log_reopen_run(struct supervisor *s, const struct rpc_call *call)
{
    char why[512];
    if (supervisor_log_open(s, why, sizeof why) < 0)
        rpc_reply_error(call->reply, RPC_FAILED, "%s; going on with the old file", why);
    else
        say_done(call);
}

/* ---- supervisor.upgrade ---- */

/* Answers when the new program is proven, or not; ws.stats shows when it runs. */
static void supervisor_upgrade(struct supervisor *s, const struct rpc_call *call)
{
    s->on_upgrade_requested(s, call);
}

/* ---- dispatch ---- */

static const struct {
    const char *name;
    void (*run)(struct supervisor *s, const struct rpc_call *call);
} methods[] = {{"ws.stats", ws_stats},
               {"ws.list", ws_list},
               {"ws.close", ws_close},
               {"ws.broadcast", ws_broadcast},
               {"ws.set", values_set},
               {"ws.revert", values_revert},
               {"ws.invalidated", ws_invalidated},
               {"ws.weight", ws_weight},
               {"supervisor.upgrade", supervisor_upgrade},
               {"log.level", log_level_run},
               {"log.reopen", log_reopen_run}};

static void on_call(void *arg, const struct rpc_call *call)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strlen(methods[i].name) == call->method_len &&
            !memcmp(methods[i].name, call->method, call->method_len)) {
            methods[i].run(arg, call);
            return;
        }
    rpc_reply_error(call->reply, RPC_NO_METHOD, "the supervisor has no such method");
}

static void methods_path(const struct supervisor *s, char path[128])
{
    snprintf(path, 128, "%s/supervisor-rpc.sock", s->config->runtime_dir);
}

int methods_adopt(struct supervisor *s, int fd)
{
    char path[128];
    methods_path(s, path);
    return rpc_server_adopt(&s->rpc, s->loop, fd, path, (gid_t)-1, on_call, s);
}

int methods_open(struct supervisor *s)
{
    char path[128];
    methods_path(s, path);
    const int code = rpc_server_new(&s->rpc, s->loop, path, 0600, (gid_t)-1, on_call, s);
    if (code)
        log_error("methods: cannot listen on %s: %s", path, strerror(-code));
    return code;
}

void methods_close(struct supervisor *s)
{
    if (s->rpc)
        rpc_server_free(s->rpc);
    s->rpc = NULL;
}

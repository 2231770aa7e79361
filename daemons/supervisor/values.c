/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * values: ws set. Without a route it changes the defaults, and with them every route that does not
 * state the value itself, in the file or by an earlier ws set; with a route that route's own value.
 * All is checked before anything changes. A reload brings back what the file says, and over it what
 * control has kept in settings.mp (polder/settings.h).
 */
#include "daemons/rpc/server.h"
#include "daemons/supervisor/supervisor.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include "polder/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_MOST   10000000
#define TIME_MOST_MS 86400000
#define SIZE_MOST    (UINT64_C(1) << 30)
#define ORIGINS_MOST 64

struct origins {
    struct origins *next;
    const char *list[ORIGINS_MOST];
    uint32_t n;
    char text[]; /* the strings */
};

/* What one ws set makes of the values of all routes together, and of one section. */
struct totals {
    uint32_t connections, per_client;
};

/* ---- one value ---- */

static const char *read_count(const char *text, uint32_t *out)
{
    char *end;
    const unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n > COUNT_MOST)
        return "a number up to 10000000";
    *out = (uint32_t)n;
    return NULL;
}

static const char *read_time(const char *text, uint32_t *out)
{
    uint64_t ms;
    if (config_parse_duration(text, &ms) || ms < 100 || ms > TIME_MOST_MS)
        return "a duration between 100ms and 1d";
    *out = (uint32_t)ms;
    return NULL;
}

static const char *read_size(const char *text, uint64_t least, uint64_t *out)
{
    uint64_t n;
    if (config_parse_size(text, &n) || n < least || n > SIZE_MOST)
        return least ? "a size between 125 and 1G" : "a size up to 1G; 0: any";
    *out = n;
    return NULL;
}

static const char *const beats[] = {[CONFIG_HEARTBEAT_OFF] = "off",
                                    [CONFIG_HEARTBEAT_PING] = "ping",
                                    [CONFIG_HEARTBEAT_JSON] = "json",
                                    [CONFIG_HEARTBEAT_BOTH] = "both"};

static const char *read_heartbeat(const char *text, enum config_heartbeat *out)
{
    for (int i = 0; i < 4; i++)
        if (!strcmp(text, beats[i])) {
            *out = (enum config_heartbeat)i;
            return NULL;
        }
    return "json, ping, both or off";
}

static const char *read_rate(const char *text, double *out)
{
    char *end;
    const double d = strtod(text, &end);
    if (*text < '0' || *text > '9' || *end || d > 1e6)
        return "a number of handshakes a second";
    *out = d;
    return NULL;
}

/* "https://a.example,https://b.example", or "any". The list lives until the next reload. */
static const char *read_origins(struct supervisor *s, const char *text, struct config_websocket *w)
{
    static const char right[] = "origins such as https://app.example.org, separated by commas, at "
                                "most 64; or any";
    struct origins *o = calloc(1, sizeof *o + strlen(text) + 1);
    char *rest, *one;
    if (!o)
        return "memory";
    o->next = s->origins;
    s->origins = o;
    strcpy(o->text, text);
    if (strcmp(text, "any"))
        for (one = strtok_r(o->text, ", ", &rest); one; one = strtok_r(NULL, ", ", &rest)) {
            if (!config_is_origin(one) || o->n == ORIGINS_MOST)
                return right;
            o->list[o->n++] = one;
        }
    w->origins = o->list;
    w->n_origins = o->n;
    return o->n || !strcmp(text, "any") ? NULL : right;
}

void values_forget(struct supervisor *s)
{
    while (s->origins) {
        struct origins *o = s->origins;
        s->origins = o->next;
        free(o);
    }
}

static int key_of(const char *text)
{
    for (int i = 0; i < CONFIG_WS_KEYS; i++)
        if (!strcmp(text, config_websocket_keys[i]))
            return i;
    return -1;
}

/* NULL, or what would be right. */
static const char *read_value(struct supervisor *s, int key, const char *text,
                              struct config_websocket *w)
{
    w->set |= 1u << key;
    switch ((enum config_websocket_key)key) {
    case CONFIG_WS_HEARTBEAT:
        return read_heartbeat(text, &w->heartbeat);
    case CONFIG_WS_INTERVAL:
        return read_time(text, &w->interval_ms);
    case CONFIG_WS_TIMEOUT:
        return read_time(text, &w->timeout_ms);
    case CONFIG_WS_MAX_CONNECTIONS:
        return read_count(text, &w->max_connections);
    case CONFIG_WS_MAX_PER_CLIENT:
        return read_count(text, &w->max_per_client);
    case CONFIG_WS_MAX_MESSAGE:
        return read_size(text, 125, &w->max_message);
    case CONFIG_WS_MAX_MESSAGE_BACKEND:
        return read_size(text, 0, &w->max_message_backend);
    case CONFIG_WS_CONNECT_RATE:
        return read_rate(text, &w->connect_rate);
    case CONFIG_WS_ORIGINS:
        return read_origins(s, text, w);
    case CONFIG_WS_KEYS:
        break;
    }
    return "something else";
}

/* ---- the whole request ---- */

/* route: "" for the defaults. NULL, or what would be right; *wrong: instead of which word. */
static const char *read_all(struct supervisor *s, const msgpack_object *set, bool for_route,
                            struct config_websocket *w, struct totals *t, uint32_t *given,
                            const char **wrong)
{
    static char key[64], text[8192];
    *wrong = "set";
    if (!set || set->type != MSGPACK_OBJECT_MAP)
        return "KEY=VALUE";
    for (uint32_t i = 0; i < set->via.map.size; i++) {
        const char *why = NULL;
        if (rpc_in_object_text(&set->via.map.ptr[i].key, key, sizeof key) < 0 ||
            rpc_in_object_text(&set->via.map.ptr[i].val, text, sizeof text) < 0)
            return "KEY=VALUE";
        *wrong = key;
        const int k = key_of(key);
        if (!strcmp(key, "route"))
            continue;
        if (k >= 0) {
            *given |= 1u << k;
            why = read_value(s, k, text, w);
        } else if (!for_route && !strcmp(key, "max_connections_total")) {
            why = read_count(text, &t->connections);
        } else if (!for_route && !strcmp(key, "max_per_client_total")) {
            why = read_count(text, &t->per_client);
        } else {
            return "one of max_connections, max_per_client, max_message, max_message_backend, "
                   "interval, timeout, heartbeat, connect_rate, origins, route; without route "
                   "also max_connections_total, max_per_client_total";
        }
        if (why)
            return why;
    }
    return NULL;
}

static void put_values(struct rpc_out *o, const char *name, const struct config_websocket *w,
                       const struct totals *t)
{
    rpc_out_map(o, name);
    rpc_out_u64(o, "max_connections", w->max_connections);
    rpc_out_u64(o, "max_per_client", config_websocket_per_client(w));
    if (t) {
        rpc_out_u64(o, "max_connections_total", t->connections);
        rpc_out_u64(o, "max_per_client_total", t->per_client);
    }
    rpc_out_u64(o, "max_message_bytes", w->max_message);
    rpc_out_u64(o, "max_message_backend_bytes", w->max_message_backend);
    rpc_out_u64(o, "interval_ms", w->interval_ms);
    rpc_out_u64(o, "timeout_ms", w->timeout_ms);
    rpc_out_str(o, "heartbeat", beats[w->heartbeat]);
    rpc_out_f64(o, "connect_rate", w->connect_rate);
    rpc_out_list(o, "origins");
    for (uint32_t i = 0; i < w->n_origins; i++)
        rpc_out_str(o, NULL, w->origins[i]);
    rpc_out_end(o);
    rpc_out_end(o);
}

/* Routes that go on with a value of their own for something that was given. */
static void put_unmoved(const struct supervisor *s, struct rpc_out *o, uint32_t given)
{
    bool any = false;
    for (uint32_t i = 0; i < s->config->n_routes; i++) {
        if (!s->config->routes[i].websocket || !(s->route_values[i].ws.set & given))
            continue;
        if (!any)
            rpc_out_list(o, "routes_with_own_value");
        any = true;
        rpc_out_str(o, NULL, s->config->routes[i].pattern);
    }
    if (any)
        rpc_out_end(o);
}

/* ---- shedding ---- */

static int by_idleness(const void *a, const void *b)
{
    const struct session *x = *(struct session *const *)a, *y = *(struct session *const *)b;
    const uint64_t i = x->from_client_ms, k = y->from_client_ms;
    return i < k ? -1 : i > k;
}

struct shedding {
    struct session **open;
    size_t n;
    uint32_t left;      /* that stay, so far */
    uint32_t *on_route; /* the same by route */
};

/* Who is on the way out counts no more. */
static void shed_count(struct supervisor *s, struct shedding *g)
{
    for (struct session *x = s->sessions; x; x = x->next)
        x->count->leaving = 0;
    for (struct session *x = s->sessions; x; x = x->next) {
        if (x->state == SESSION_CLOSING) {
            x->count->leaving++;
            continue;
        }
        g->left++;
        g->on_route[x->route->index]++;
        if (x->state == SESSION_OPEN)
            g->open[g->n++] = x;
    }
}

static bool is_over(uint32_t n, uint32_t total)
{
    return total && n > total;
}

/* Of this client on this route, without those who leave. */
static uint32_t client_on_route(const struct supervisor *s, const struct session *one)
{
    uint32_t n = 0;
    for (const struct session *x = s->sessions; x; x = x->next)
        n += x->count == one->count && x->route == one->route && x->state != SESSION_CLOSING;
    return n;
}

static bool is_one_too_many(const struct supervisor *s, const struct shedding *g,
                            const struct session *x)
{
    const struct config_websocket *w = session_values(s, x);
    const uint32_t of_client = x->count->n - x->count->leaving,
                   most = config_websocket_per_client(w);
    return is_over(g->left, s->max_connections_total) ||
           g->on_route[x->route->index] > w->max_connections ||
           is_over(of_client, s->max_per_client_total) ||
           (of_client > most && client_on_route(s, x) > most);
}

/* Closes the longest idle until the limits are kept. */
static unsigned shed(struct supervisor *s)
{
    struct shedding g = {.open = calloc(s->open + 1, sizeof(struct session *)),
                         .on_route = calloc(SUPERVISOR_ROUTES, sizeof *g.on_route)};
    unsigned gone = 0;
    if (g.open && g.on_route) {
        shed_count(s, &g);
        qsort(g.open, g.n, sizeof *g.open, by_idleness);
    }
    for (size_t i = 0; i < g.n; i++) {
        struct session *x = g.open[i];
        if (!is_one_too_many(s, &g, x))
            continue;
        session_close(s, x, 1013, "too many connections; try again later", END_SHED);
        if (x->state == SESSION_CLOSING)
            x->count->leaving++;
        g.left--;
        g.on_route[x->route->index]--;
        gone++;
    }
    free(g.open);
    free(g.on_route);
    return gone;
}

/* ---- descriptors ---- */

/* Each WebSocket takes one, and another one where it is relayed. */
static uint64_t files_needed(const struct supervisor *s)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->config->n_routes; i++)
        if (s->config->routes[i].websocket)
            sum += (uint64_t)s->route_values[i].ws.max_connections *
                   (s->config->routes[i].upstream ? 2 : 1);
    const uint64_t most = 2 * (uint64_t)s->max_connections_total;
    return most && most < sum ? most : sum;
}

void values_tell_files(struct supervisor *s)
{
    char reason[CONDITION_REASON];
    const uint64_t needed = files_needed(s);
    snprintf(reason, sizeof reason, "%u are left for WebSockets; max_connections would need %llu",
             s->may_hold, (unsigned long long)needed);
    condition_set(s->conditions, COND_DESCRIPTORS_SHORT, "polder-supervisor", needed > s->may_hold,
                  reason, clock_real_ms());
}

/* ---- ws.set ---- */

static struct route_values *values_of_route(struct supervisor *s, const char *pattern)
{
    for (uint32_t i = 0; i < s->config->n_routes; i++)
        if (s->config->routes[i].websocket && !strcmp(s->config->routes[i].pattern, pattern))
            return &s->route_values[i];
    return NULL;
}

static void apply_defaults(struct supervisor *s, const struct config_websocket *w,
                           const struct totals *t)
{
    s->values = *w;
    s->max_connections_total = t->connections;
    s->max_per_client_total = t->per_client;
    for (uint32_t i = 0; i < s->config->n_routes; i++)
        if (s->config->routes[i].websocket)
            config_websocket_inherit(&s->route_values[i].ws, &s->values);
}

static void rearm(struct supervisor *s)
{
    for (struct session *x = s->sessions; x; x = x->next)
        if (x->state == SESSION_OPEN && !x->deadline_ms)
            heartbeat_arm(s, x);
}

void values_set(struct supervisor *s, const struct rpc_call *call)
{
    const msgpack_object *set = rpc_in_get(call->params, "set");
    char pattern[512];
    const char *wrong, *why;
    const bool for_route = set && set->type == MSGPACK_OBJECT_MAP &&
                           rpc_in_text(set, "route", pattern, sizeof pattern) >= 0;
    struct route_values *own = for_route ? values_of_route(s, pattern) : NULL;
    uint32_t given = 0;
    if (for_route && !own) {
        rpc_reply_error(call->reply, RPC_NOT_FOUND, "no route \"%s\" has a websocket section",
                        pattern);
        return;
    }
    const struct totals old_totals = {s->max_connections_total, s->max_per_client_total};
    const struct config_websocket old = own ? own->ws : s->values;
    struct totals totals = old_totals;
    struct config_websocket w = old;
    if ((why = read_all(s, set, for_route, &w, &totals, &given, &wrong))) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "%s: %s would be right", wrong, why);
        return;
    }
    if (own)
        own->ws = w;
    else
        apply_defaults(s, &w, &totals);
    s->changed = true;
    values_tell_files(s);
    const unsigned gone = rpc_in_flag(call->params, "shed") ? shed(s) : 0;
    rearm(s);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    if (own)
        rpc_out_str(o, "route", pattern);
    rpc_out_u64(o, "open", s->open);
    if (rpc_in_flag(call->params, "shed"))
        rpc_out_u64(o, "shed", gone);
    if (!own)
        put_unmoved(s, o, given);
    put_values(o, "before", &old, own ? NULL : &old_totals);
    put_values(o, "after", &w, own ? NULL : &totals);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- what was persisted ---- */

/* NULL, or what would be right. */
static const char *load_default(struct supervisor *s, const char *key, const char *text)
{
    struct config_websocket w = s->values;
    struct totals t = {s->max_connections_total, s->max_per_client_total};
    const int k = key_of(key);
    const char *why = k >= 0                                  ? read_value(s, k, text, &w)
                      : !strcmp(key, "max_connections_total") ? read_count(text, &t.connections)
                      : !strcmp(key, "max_per_client_total")  ? read_count(text, &t.per_client)
                                                              : "another key";
    if (!why)
        apply_defaults(s, &w, &t);
    return why;
}

static const char *load_route(struct supervisor *s, const char *pattern, const char *key,
                              const char *text)
{
    struct route_values *own = values_of_route(s, pattern);
    const int k = key_of(key);
    if (!own)
        return NULL; /* there may be one again */
    struct config_websocket w = own->ws;
    const char *why = k < 0 ? "another key" : read_value(s, k, text, &w);
    if (!why)
        own->ws = w;
    return why;
}

static void load_weight(struct supervisor *s, const char *upstream, const char *server,
                        const char *text)
{
    for (uint32_t i = 0; i < s->config->n_upstreams; i++) {
        const struct config_upstream *u = &s->config->upstreams[i];
        for (uint32_t k = 0; k < u->n_servers && !strcmp(u->name, upstream); k++)
            if (!strcmp(u->servers[k].address.text, server))
                read_count(text, &s->weights[u->servers[k].index]);
    }
}

static void load_one(struct supervisor *s, const struct setting *x)
{
    static const char one[] = "websocket ", weights[] = "upstream ";
    const char *why = NULL;
    if (!strcmp(x->section, "websocket"))
        why = load_default(s, x->key, x->value);
    else if (!strncmp(x->section, one, sizeof one - 1))
        why = load_route(s, x->section + sizeof one - 1, x->key, x->value);
    else if (!strncmp(x->section, weights, sizeof weights - 1))
        load_weight(s, x->section + sizeof weights - 1, x->key, x->value);
    if (why)
        log_warning("config: settings.mp: %s %s=%.64s is left out; %s would be right", x->section,
                    x->key, x->value, why);
}

void values_load(struct supervisor *s)
{
    struct settings all;
    const int code = settings_read(s->config->state_dir, &all);
    if (code)
        log_warning("config: %s/settings.mp cannot be used: %s", s->config->state_dir,
                    strerror(-code));
    for (size_t i = 0; i < all.n; i++)
        load_one(s, &all.at[i]);
    settings_free(&all);
    s->changed = false;
}

static void revert_defaults(struct supervisor *s)
{
    const struct config *c = s->config;
    const struct totals t = {c->websocket_max_connections_total, c->websocket_max_per_client_total};
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket)
            s->route_values[i].ws = *c->routes[i].websocket;
    apply_defaults(s, &c->websocket, &t);
}

void values_revert(struct supervisor *s, const struct rpc_call *call)
{
    char pattern[512];
    const bool for_route = rpc_in_text(call->params, "route", pattern, sizeof pattern) >= 0;
    struct route_values *own = for_route ? values_of_route(s, pattern) : NULL;
    if (for_route && !own) {
        rpc_reply_error(call->reply, RPC_NOT_FOUND, "no route \"%s\" has a websocket section",
                        pattern);
        return;
    }
    if (own) {
        own->ws = *s->config->routes[own - s->route_values].websocket;
        config_websocket_inherit(&own->ws, &s->values);
    } else {
        revert_defaults(s);
    }
    rearm(s);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "reverted", own ? pattern : "all routes");
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

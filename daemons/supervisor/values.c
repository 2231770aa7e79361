/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * values: ws set. Without a route it changes the defaults, and with them every route that does not
 * state the value itself, in the file or by an earlier ws set; with a route that route's own value.
 * All is checked before anything changes. What control has kept in settings.mp (polder/settings.h)
 * is there from the start; what a reload leaves of all of it is in values_carry.c.
 */
#include "daemons/rpc/server.h"
#include "daemons/supervisor/supervisor.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config_keys.h"
#include "polder/log.h"
#include "polder/rpc_values.h"
#include "polder/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORIGINS_MAX 64

struct origins {
    SLIST_ENTRY(origins) entry;
    const char *list[ORIGINS_MAX];
    uint32_t n;
    char text[]; /* the strings */
};

/* ---- one value ---- */

/* "https://a.example,https://b.example", or "any". The list lives until the next reload, which copies it. */
static const char *read_origins(struct supervisor *s, const char *text, struct config_websocket *w)
{
    static const char right[] = "origins such as https://app.example.org, separated by commas, at "
                                "most 64; or any";
    struct origins *o = calloc(1, sizeof *o + strlen(text) + 1);
    char *rest, *one;
    if (!o)
        return "memory";
    SLIST_INSERT_HEAD(&s->origins, o, entry);
    strcpy(o->text, text);
    if (strcmp(text, "any"))
        for (one = strtok_r(o->text, ", ", &rest); one; one = strtok_r(NULL, ", ", &rest)) {
            if (!config_is_origin(one) || o->n == ORIGINS_MAX)
                return right;
            o->list[o->n++] = one;
        }
    w->origins = o->list;
    w->n_origins = o->n;
    return o->n || !strcmp(text, "any") ? NULL : right;
}

void values_copy_origins(struct supervisor *s, const struct config_websocket *from,
                         struct config_websocket *to)
{
    size_t len = 0;
    for (uint32_t i = 0; i < from->n_origins; i++)
        len += strlen(from->origins[i]) + 1;
    struct origins *o = calloc(1, sizeof *o + len);
    if (!o || from->n_origins > ORIGINS_MAX) {
        free(o);
        return; /* the file's stay */
    }
    SLIST_INSERT_HEAD(&s->origins, o, entry);
    char *at = o->text;
    for (uint32_t i = 0; i < from->n_origins; i++) {
        o->list[o->n++] = at;
        at = stpcpy(at, from->origins[i]) + 1;
    }
    to->origins = o->list;
    to->n_origins = o->n;
}

void values_forget(struct origins_list *list)
{
    while (!SLIST_EMPTY(list)) {
        struct origins *o = SLIST_FIRST(list);
        SLIST_REMOVE_HEAD(list, entry);
        free(o);
    }
}

/* Returns NULL, or a text that says what is expected. */
static const char *read_value(struct supervisor *s, const struct config_row *row, const char *text,
                              struct config_websocket *w)
{
    w->set |= config_row_bit(row);
    return row->count_at ? read_origins(s, text, w) : config_live_set(row, w, text);
}

/* NULL: no command changes it, or not on a route. */
static const struct config_row *row_named(const char *key, bool for_route)
{
    const struct config_row *row = config_live_row(CONFIG_SECTION_WEBSOCKET, key);
    return row && for_route && row->inherits == CONFIG_TOP_ONLY ? NULL : row;
}

/* ---- the whole request ---- */

static const char *keys_text(bool for_route)
{
    static char text[512];
    size_t n = 0;
    for (const struct config_row *row = NULL;
         (row = config_row_next(CONFIG_SECTION_WEBSOCKET, row));)
        if (row_named(row->key, for_route) && n < sizeof text)
            n +=
                (size_t)snprintf(text + n, sizeof text - n, "%s%s", n ? ", " : "one of ", row->key);
    if (n < sizeof text)
        snprintf(text + n, sizeof text - n, " or route");
    return text;
}

/* Returns NULL, or a text that says what is expected; *wrong: instead of which word. */
static const char *read_all(struct supervisor *s, const msgpack_object *set, bool for_route,
                            struct config_websocket *w, uint64_t *given, const char **wrong)
{
    static char key[64], text[8192];
    *wrong = "set";
    if (!set || set->type != MSGPACK_OBJECT_MAP)
        return "KEY=VALUE";
    for (uint32_t i = 0; i < set->via.map.size; i++) {
        if (rpc_in_object_text(&set->via.map.ptr[i].key, key, sizeof key) < 0 ||
            rpc_in_object_text(&set->via.map.ptr[i].val, text, sizeof text) < 0)
            return "KEY=VALUE";
        *wrong = key;
        if (!strcmp(key, "route"))
            continue;
        const struct config_row *row = row_named(key, for_route);
        const char *why = row ? read_value(s, row, text, w) : keys_text(for_route);
        if (why)
            return why;
        *given |= config_row_bit(row);
    }
    return NULL;
}

void values_put(struct rpc_out *o, const char *name, const struct config_websocket *w, bool top)
{
    struct config_websocket shown = *w;
    shown.max_per_client = config_websocket_per_client(w);
    rpc_out_map(o, name);
    rpc_put_values(o, CONFIG_SECTION_WEBSOCKET, &shown, top);
    rpc_out_list(o, "origins");
    for (uint32_t i = 0; i < w->n_origins; i++)
        rpc_out_str(o, NULL, w->origins[i]);
    rpc_out_end(o);
    rpc_out_end(o);
}

/* Routes that go on with a value of their own for something that was given. */
static void put_unmoved(const struct supervisor *s, struct rpc_out *o, uint64_t given)
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

/* A leaving session does not count any more. */
static void shed_count(struct supervisor *s, struct shedding *g)
{
    for (struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry))
        x->count->leaving = 0;
    for (struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry)) {
        if (x->probe)
            continue;
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

/* Sessions of this client on this route, without leaving ones. */
static uint32_t client_on_route(const struct supervisor *s, const struct session *one)
{
    uint32_t n = 0;
    for (const struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry))
        n += x->count == one->count && x->route == one->route && x->state != SESSION_CLOSING;
    return n;
}

static bool is_one_too_many(const struct supervisor *s, const struct shedding *g,
                            const struct session *x)
{
    const struct config_websocket *w = session_values(s, x);
    const uint32_t of_client = x->count->n - x->count->leaving,
                   max = config_websocket_per_client(w);
    return is_over(g->left, s->values.max_connections_total) ||
           g->on_route[x->route->index] > w->max_connections ||
           is_over(of_client, s->values.max_per_client_total) ||
           (of_client > max && client_on_route(s, x) > max);
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
    const uint64_t max = 2 * (uint64_t)s->values.max_connections_total;
    return max && max < sum ? max : sum;
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

void values_apply_defaults(struct supervisor *s, const struct config_websocket *w)
{
    s->values = *w;
    for (uint32_t i = 0; i < s->config->n_routes; i++)
        if (s->config->routes[i].websocket) {
            struct config_websocket *own = &s->route_values[i].ws;
            config_inherit(CONFIG_SECTION_WEBSOCKET, own, own->set, w);
        }
}

static void rearm(struct supervisor *s)
{
    for (struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry))
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
    uint64_t given = 0;
    if (for_route && !own) {
        rpc_reply_error(call->reply, RPC_NOT_FOUND, "no route \"%s\" has a websocket section",
                        pattern);
        return;
    }
    const struct config_websocket old = own ? own->ws : s->values;
    struct config_websocket w = old;
    if ((why = read_all(s, set, for_route, &w, &given, &wrong))) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "%s: expected %s", wrong, why);
        return;
    }
    if (own)
        own->ws = w;
    else
        values_apply_defaults(s, &w);
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
    values_put(o, "before", &old, !own);
    values_put(o, "after", &w, !own);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- what was persisted ---- */

/* Returns NULL, or a text that says what is expected. */
static const char *load_default(struct supervisor *s, const char *key, const char *text)
{
    struct config_websocket w = s->values;
    const struct config_row *row = row_named(key, false);
    const char *why = row ? read_value(s, row, text, &w) : "another key";
    if (!why)
        values_apply_defaults(s, &w);
    return why;
}

static const char *load_route(struct supervisor *s, const char *pattern, const char *key,
                              const char *text)
{
    struct route_values *own = values_of_route(s, pattern);
    const struct config_row *row = row_named(key, true);
    if (!own)
        return NULL; /* there may be one again */
    struct config_websocket w = own->ws;
    const char *why = row ? read_value(s, row, text, &w) : "another key";
    if (!why)
        own->ws = w;
    return why;
}

static void load_weight(struct supervisor *s, const char *upstream, const char *server,
                        const char *text)
{
    uint64_t weight;
    if (config_value(&config_rows[CONFIG_SERVER_weight], text, &weight, NULL))
        return;
    for (uint32_t i = 0; i < s->config->n_upstreams; i++) {
        const struct config_upstream *u = &s->config->upstreams[i];
        for (uint32_t k = 0; k < u->n_servers && !strcmp(u->name, upstream); k++)
            if (!strcmp(u->servers[k].address.text, server))
                s->weights[u->servers[k].index] = (uint32_t)weight;
    }
}

static void load_one(struct supervisor *s, const struct setting *x)
{
    if (!settings_holds(s->config, x))
        return; /* the file has changed since */
    static const char one[] = "websocket ", weights[] = "upstream ";
    const char *why = NULL;
    if (!strcmp(x->section, "websocket"))
        why = load_default(s, x->key, x->value);
    else if (!strncmp(x->section, one, sizeof one - 1))
        why = load_route(s, x->section + sizeof one - 1, x->key, x->value);
    else if (!strncmp(x->section, weights, sizeof weights - 1))
        load_weight(s, x->section + sizeof weights - 1, x->key, x->value);
    if (why)
        log_warning("config: settings.mp: %s %s=%.64s is left out; expected %s", x->section, x->key,
                    x->value, why);
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
}

static void revert_defaults(struct supervisor *s)
{
    const struct config *c = s->config;
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket)
            s->route_values[i].ws = *c->routes[i].websocket;
    values_apply_defaults(s, &c->websocket);
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
        config_inherit(CONFIG_SECTION_WEBSOCKET, &own->ws, own->ws.set, &s->values);
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * values_carry: what a reload leaves of values that were changed while running, by the rule of
 * polder/running.h: a value whose place in the file says what it said runs on as it is; else the
 * file's holds. A route that states none of its own still states none.
 */
#include "daemons/supervisor/supervisor.h"
#include "polder/config_keys.h"
#include "polder/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct values_before {
    struct config_websocket values, route[SUPERVISOR_ROUTES];
    uint32_t weights[RUNTIME_SERVERS_MAX];
    struct origins_list origins;
};

struct values_before *values_before(struct supervisor *s)
{
    struct values_before *b = malloc(sizeof *b);
    if (!b)
        return NULL;
    b->values = s->values;
    for (uint32_t i = 0; i < SUPERVISOR_ROUTES; i++)
        b->route[i] = s->route_values[i].ws;
    memcpy(b->weights, s->weights, sizeof b->weights);
    b->origins = s->origins; /* new values get lists of their own */
    SLIST_INIT(&s->origins);
    return b;
}

void values_before_free(struct values_before *b)
{
    values_forget(&b->origins);
    free(b);
}

/* ---- one value ---- */

static bool same_origins(const struct config_websocket *a, const struct config_websocket *b)
{
    if (a->n_origins != b->n_origins)
        return false;
    for (uint32_t i = 0; i < a->n_origins; i++)
        if (strcmp(a->origins[i], b->origins[i]))
            return false;
    return true;
}

static bool is_same(const struct config_row *row, const struct config_websocket *a,
                    const struct config_websocket *b)
{
    if (row->count_at)
        return same_origins(a, b);
    return !memcmp((const char *)a + row->live_at, (const char *)b + row->live_at, row->size);
}

static void copy_value(struct supervisor *s, const struct config_row *row,
                       const struct config_websocket *from, struct config_websocket *to)
{
    if (!row->count_at)
        memcpy((char *)to + row->live_at, (const char *)from + row->live_at, row->size);
    else if (!same_origins(from, to))
        values_copy_origins(s, from, to);
}

static const char *text_of(const struct config_row *row, const struct config_websocket *w,
                           char out[CONFIG_NUMBER_TEXT])
{
    double real;
    if (row->count_at) {
        snprintf(out, CONFIG_NUMBER_TEXT, "%u of them", w->n_origins);
    } else if (row->type == TYPE_NUMBER) {
        memcpy(&real, (const char *)w + row->live_at, sizeof real);
        snprintf(out, CONFIG_NUMBER_TEXT, "%g", real);
    } else {
        config_number_text(row, config_live_number(row, w), out);
    }
    return out;
}

/* route "": the defaults. */
static void tell(const char *route, const struct config_row *row, bool kept,
                 const struct config_websocket *was, const struct config_websocket *now)
{
    char a[CONFIG_NUMBER_TEXT], b[CONFIG_NUMBER_TEXT];
    const char *space = *route ? " " : "";
    if (kept)
        log_info("reload: kept websocket%s%s %s %s (file: %s)", space, route, row->key,
                 text_of(row, was, a), text_of(row, now, b));
    else
        log_warning("reload: reset websocket%s%s %s %s -> %s: the file's value has changed", space,
                    route, row->key, text_of(row, was, a), text_of(row, now, b));
}

static const struct config_row *next_value(const struct config_row *row)
{
    while ((row = config_row_next(CONFIG_SECTION_WEBSOCKET, row)) && !row->live)
        ;
    return row;
}

/* ---- the defaults, routes, weights ---- */

static void carry_defaults(struct supervisor *s, const struct values_before *b,
                           const struct config *old)
{
    const struct config_websocket *file = &s->config->websocket, *was = &b->values;
    struct config_websocket w = s->values;
    for (const struct config_row *row = NULL; (row = next_value(row));) {
        const bool kept = is_same(row, file, &old->websocket);
        copy_value(s, row, kept ? was : file, &w);
        if (!is_same(row, was, &old->websocket) && !is_same(row, was, file))
            tell("", row, kept, was, file);
    }
    values_apply_defaults(s, &w);
}

/* The file states the same as before, or still nothing. */
static bool states_same(const struct config_row *row, const struct config_websocket *file,
                        const struct config_websocket *old)
{
    const uint64_t bit = config_row_bit(row);
    return (file->set & bit) == (old->set & bit) && (!(file->set & bit) || is_same(row, file, old));
}

static void carry_route(struct supervisor *s, const struct config_route *route,
                        const struct config_websocket *old, const struct config_websocket *was)
{
    struct config_websocket *w = &s->route_values[route->index].ws;
    const struct config_websocket *file = route->websocket;
    for (const struct config_row *row = NULL; (row = next_value(row));) {
        const uint64_t bit = config_row_bit(row);
        const bool kept = states_same(row, file, old);
        const struct config_websocket *from = kept ? was : file;
        const bool changed = was->set & bit && (!(old->set & bit) || !is_same(row, was, old));
        w->set = (w->set & ~bit) | (from->set & bit);
        if (from->set & bit)
            copy_value(s, row, from, w);
        if (changed && !is_same(row, was, file))
            tell(route->pattern, row, kept, was, file);
    }
    config_inherit(CONFIG_SECTION_WEBSOCKET, w, w->set, &s->values);
}

static void carry_routes(struct supervisor *s, const struct values_before *b,
                         const struct config *old)
{
    for (uint32_t i = 0; i < s->config->n_routes; i++)
        for (uint32_t k = 0; k < old->n_routes && s->config->routes[i].websocket; k++)
            if (old->routes[k].websocket &&
                !strcmp(s->config->routes[i].pattern, old->routes[k].pattern))
                carry_route(s, &s->config->routes[i], old->routes[k].websocket,
                            &b->route[old->routes[k].index]);
}

static const struct config_server *same_server(const struct config *config,
                                               const struct config_server *s)
{
    for (uint32_t u = 0; u < config->n_upstreams; u++) {
        const struct config_upstream *upstream = &config->upstreams[u];
        for (uint32_t i = 0; i < upstream->n_servers && !strcmp(upstream->name, s->upstream->name);
             i++)
            if (!strcmp(upstream->servers[i].address.text, s->address.text))
                return &upstream->servers[i];
    }
    return NULL;
}

static void carry_weights(struct supervisor *s, const struct values_before *b,
                          const struct config *old)
{
    for (uint32_t u = 0; u < s->config->n_upstreams; u++)
        for (uint32_t i = 0; i < s->config->upstreams[u].n_servers; i++) {
            const struct config_server *now = &s->config->upstreams[u].servers[i],
                                       *was = same_server(old, now);
            if (was && was->weight == now->weight)
                s->weights[now->index] = b->weights[was->index];
        }
}

void values_carry(struct supervisor *s, const struct values_before *before,
                  const struct config *old)
{
    carry_defaults(s, before, old);
    carry_routes(s, before, old);
    carry_weights(s, before, old);
}

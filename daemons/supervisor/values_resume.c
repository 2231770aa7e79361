/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * values_resume: what ws set has changed, for a program that replaces this one, by the rule of
 * polder/running.h: it holds on where the file says what it said.
 */
#include "daemons/supervisor/supervisor.h"
#include "polder/config_keys.h"
#include "polder/log.h"

#include <stdio.h>
#include <string.h>

#define ORIGINS_MAX 64

static const struct config_row *row_named(const char *key, bool for_route)
{
    const struct config_row *row = config_live_row(CONFIG_SECTION_WEBSOCKET, key);
    return row && for_route && row->inherits == CONFIG_TOP_ONLY ? NULL : row;
}

static struct route_values *values_of_route(struct supervisor *s, const char *pattern)
{
    for (uint32_t i = 0; i < s->config->n_routes; i++)
        if (s->config->routes[i].websocket && !strcmp(s->config->routes[i].pattern, pattern))
            return &s->route_values[i];
    return NULL;
}

/* Separated by spaces, which no origin has. */
static void origins_join(const struct config_websocket *w, char *out, size_t size)
{
    size_t n = 0;
    *out = 0;
    for (uint32_t i = 0; i < w->n_origins && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? " " : "", w->origins[i]);
}

struct changes {
    const char *route;
    const struct config_websocket *file, *running;
    void (*fn)(void *arg, const struct changed_value *v);
    void *arg;
};

static void tell_if_changed(const struct changes *c, const struct config_row *row)
{
    static char origins[2][ORIGINS_MAX * 256];
    const uint64_t bit = config_row_bit(row);
    struct changed_value v = {.route = c->route, .key = row->key};
    if (!(c->running->set & bit)) /* it is inherited */
        return;
    if (row->count_at) {
        origins_join(c->file, origins[0], sizeof origins[0]);
        origins_join(c->running, origins[1], sizeof origins[1]);
        v.file_origins = origins[0];
        v.origins = origins[1];
    } else {
        v.file = config_live_number(row, c->file);
        v.running = config_live_number(row, c->running);
    }
    if (v.file != v.running || !(c->file->set & bit) ||
        (v.origins && strcmp(v.origins, v.file_origins)))
        c->fn(c->arg, &v);
}

static void tell_changes(const struct changes *c, bool for_route)
{
    for (const struct config_row *row = NULL;
         (row = config_row_next(CONFIG_SECTION_WEBSOCKET, row));)
        if ((row->live && !(for_route && row->inherits == CONFIG_TOP_ONLY)))
            tell_if_changed(c, row);
}

void values_each_changed(const struct supervisor *s,
                         void (*fn)(void *arg, const struct changed_value *v), void *arg)
{
    const struct config *c = s->config;
    const struct changes top = {"", &c->websocket, &s->values, fn, arg};
    tell_changes(&top, false);
    for (uint32_t i = 0; i < c->n_routes; i++) {
        const struct config_route *r = &c->routes[i];
        const struct changes of_route = {r->pattern, r->websocket, &s->route_values[i].ws, fn, arg};
        if (r->websocket)
            tell_changes(&of_route, true);
    }
}

static bool number_fits(const struct config_row *row, uint64_t number)
{
    double real;
    if (row->type != TYPE_NUMBER)
        return !config_number_check(row, number);
    memcpy(&real, &number, sizeof real);
    return real >= (double)row->min && real <= (double)row->max;
}

static bool origins_taken(struct supervisor *s, const struct config_row *row, const char *text,
                          struct config_websocket *w)
{
    static char words[ORIGINS_MAX * 256];
    const char *list[ORIGINS_MAX];
    struct config_websocket from = {.origins = list};
    char *rest, *one;
    snprintf(words, sizeof words, "%s", text);
    for (one = strtok_r(words, " ", &rest); one; one = strtok_r(NULL, " ", &rest)) {
        if (!config_is_origin(one) || from.n_origins == ORIGINS_MAX)
            return false;
        list[from.n_origins++] = one;
    }
    values_copy_origins(s, &from, w);
    w->set |= config_row_bit(row);
    return true;
}

/* False: the file says something else by now, or this version has no such value. */
static bool value_taken(struct supervisor *s, const struct config_row *row,
                        const struct changed_value *v, const struct config_websocket *file,
                        struct config_websocket *w)
{
    static char now[ORIGINS_MAX * 256];
    if (!row || (row->count_at != 0) != (v->origins != NULL))
        return false;
    if (v->origins) {
        origins_join(file, now, sizeof now);
        return !strcmp(now, v->file_origins) && origins_taken(s, row, v->origins, w);
    }
    if (config_live_number(row, file) != v->file || !number_fits(row, v->running))
        return false;
    w->set |= config_row_bit(row);
    config_number_put(row, (char *)w + row->live_at, v->running);
    return true;
}

void values_resume(struct supervisor *s, const struct changed_value *v)
{
    const bool for_route = *v->route;
    struct route_values *own = for_route ? values_of_route(s, v->route) : NULL;
    struct config_websocket w = own ? own->ws : s->values;
    const struct config_websocket *file =
        own ? s->config->routes[own - s->route_values].websocket : &s->config->websocket;
    if (for_route && !own)
        return; /* it is gone, and its sessions with it */
    if (!value_taken(s, row_named(v->key, for_route), v, file, &w)) {
        log_warning("config: %s%swebsocket %s, which ws set had changed, is as the file says now",
                    v->route, for_route ? ": " : "", v->key);
        return;
    }
    if (own)
        own->ws = w;
    else
        values_apply_defaults(s, &w);
}

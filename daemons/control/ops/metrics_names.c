/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_names: see metrics_names.h. */
#include "daemons/control/ops/metrics_names.h"
#include "daemons/control/control.h"
#include "polder/config.h"

#include <stdlib.h>
#include <string.h>

#define NO_ROUTE "none" /* no pattern: these begin with a slash */

static const char *keep(struct metrics_names *n, const char *text)
{
    char *at = n->texts + n->texts_len;
    metrics_label_value(text, at);
    n->texts_len += strlen(at) + 1;
    return at;
}

static struct metrics_row *next_row(struct metrics_names *n, enum metrics_rows kind, uint64_t id,
                                    uint32_t index)
{
    struct metrics_row *row = &n->row[kind][n->rows[kind]++];
    row->id = id;
    row->index = index;
    return row;
}

static void take_routes(struct metrics_names *n, const struct config *config)
{
    for (uint32_t i = 0; i <= config->n_routes; i++) {
        const struct config_route *r = i < config->n_routes ? &config->routes[i] : NULL;
        struct metrics_row *row =
            next_row(n, METRICS_OF_ROUTES, r ? r->id : STATS_NO_ROUTE, r ? r->index : i);
        row->label[0] = (struct metrics_label){"route", keep(n, r ? r->pattern : NO_ROUTE)};
    }
}

static void take_limits(struct metrics_names *n, const struct config *config)
{
    for (uint32_t i = 0; i < config->n_limits; i++) {
        const struct config_limit *l = &config->limits[i];
        next_row(n, METRICS_OF_LIMITS, l->id, l->index)->label[0] =
            (struct metrics_label){"limit", keep(n, l->name)};
    }
}

static void take_servers(struct metrics_names *n, const struct config *config)
{
    for (uint32_t u = 0; u < config->n_upstreams; u++) {
        const struct config_upstream *upstream = &config->upstreams[u];
        const char *name = keep(n, upstream->name);
        for (uint32_t i = 0; i < upstream->n_servers; i++) {
            const struct config_server *s = &upstream->servers[i];
            struct metrics_row *row = next_row(n, METRICS_OF_SERVERS, stats_server_id(s), s->index);
            row->label[0] = (struct metrics_label){"upstream", name};
            row->label[1] = (struct metrics_label){"server", keep(n, s->address.text)};
        }
    }
}

bool metrics_names_take(struct metrics_names *n, const struct control *c)
{
    const struct config *config = c->config;
    const uint32_t rows[METRICS_ROWS] = {config->n_routes + 1, config->n_limits, config->n_servers};
    bool room = true;
    size_t texts = config->n_upstreams;
    *n = (struct metrics_names){0};
    for (int i = 0; i < METRICS_ROWS; i++) {
        n->row[i] = calloc(rows[i] + 1, sizeof *n->row[i]);
        room = room && n->row[i];
        texts += rows[i];
    }
    n->texts = malloc(texts * METRICS_VALUE_MAX);
    if (!room || !n->texts) {
        metrics_names_free(n);
        return false;
    }
    take_routes(n, config);
    take_limits(n, config);
    take_servers(n, config);
    runtime_read(c->runtime, &n->values);
    return true;
}

void metrics_names_free(struct metrics_names *n)
{
    for (int i = 0; i < METRICS_ROWS; i++)
        free(n->row[i]);
    free(n->texts);
    *n = (struct metrics_names){0};
}

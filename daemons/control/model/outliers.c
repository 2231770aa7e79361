/* SPDX-License-Identifier: BSD-2-Clause */
/* outliers: see outliers.h. */
#include "daemons/control/model/outliers.h"
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/proportion.h"
#include "polder/server_choice.h"

#include <stdlib.h>
#include <string.h>

/* A server, and its counts and those of its whole upstream when its time began. */
struct outlier {
    uint64_t id; /* 0: not looked at yet */
    uint64_t since_ms;
    struct proportion own, group;
    struct proportion_trend trend;
};

struct outliers {
    const struct config *config;            /* that the places are of */
    struct outlier at[RUNTIME_SERVERS_MAX]; /* by config_server.index */
};

struct outliers *outliers_new(void)
{
    return calloc(1, sizeof(struct outliers));
}

void outliers_free(struct outliers *o)
{
    free(o);
}

/* ---- counts ---- */

/* A request that finds no connection is not counted as sent. */
static bool was_sent(enum server_reason reason)
{
    return reason > SERVER_CONNECT_TIMEOUT;
}

static struct proportion counts_of(const struct control *c, const struct config_server *s,
                                   const struct server_row *row)
{
    struct stats_server sums;
    stats_server_of(c->shared->stats, stats_server_id(s), s->index, &sums);
    struct proportion p = {.requests = sums.requests};
    for (unsigned i = 0; row && i < SERVER_REASONS; i++) {
        const uint64_t n = i == SERVER_OUTLIER ? 0 : atomic_load(&row->errors[i]);
        p.errors += n;
        p.requests += was_sent((enum server_reason)i) ? 0 : n;
    }
    return p;
}

static struct proportion plus(struct proportion a, const struct proportion *b)
{
    a.requests += b->requests;
    a.errors += b->errors;
    return a;
}

/* 0 where the counts have begun anew. */
static struct proportion minus(struct proportion a, const struct proportion *b)
{
    a.requests = a.requests > b->requests ? a.requests - b->requests : 0;
    a.errors = a.errors > b->errors ? a.errors - b->errors : 0;
    return a;
}

/* ---- judgement ---- */

struct group {
    const struct config_upstream *upstream;
    struct server_option option[RUNTIME_SERVERS_MAX];
    struct proportion count[RUNTIME_SERVERS_MAX], all;
    uint64_t now_ms;
};

static void look_at_group(const struct control *c, const struct config_upstream *u,
                          const struct runtime_values *values, struct group *g)
{
    memset(&g->all, 0, sizeof g->all);
    g->upstream = u;
    g->now_ms = clock_mono_ms();
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const struct config_server *s = &u->servers[i];
        struct server_row *row = server_find(c->shared->servers, stats_server_id(s));
        g->option[i] =
            (struct server_option){.row = row, .weight = values->server[s->index].weight};
        g->count[i] = counts_of(c, s, row);
        g->all = plus(g->all, &g->count[i]);
    }
}

static void begin(struct outlier *o, const struct group *g, uint32_t i)
{
    o->id = stats_server_id(&g->upstream->servers[i]);
    o->since_ms = g->now_ms;
    o->own = g->count[i];
    o->group = g->all;
}

static void eject(const struct control *c, const struct group *g, uint32_t i,
                  const struct proportion *own, const struct proportion *others)
{
    const struct config_server *s = &g->upstream->servers[i];
    struct server_row *row = g->option[i].row;
    const struct server_choice choice = {g->upstream, g->option, g->upstream->n_servers,
                                         false,       g->now_ms, NULL};
    if (!row || !server_choice_has_other(&choice, i) ||
        !server_eject(row, SERVER_OUTLIER, g->now_ms))
        return;
    if (!server_choice_stays_ejected(&choice, i))
        return;
    log_warning("upstream %s: server %s is ejected: %.1f %% of its requests failed, %.1f %% of "
                "those of the others",
                g->upstream->name, s->address.text, 100 * proportion_rate(own),
                100 * proportion_rate(others));
    const struct server_name name = {row, c->shared->conditions, g->upstream->name,
                                     s->address.text};
    server_report_ejection(&name, SERVER_OUTLIER);
}

static void look_at_server(const struct control *c, struct outlier *o, const struct group *g,
                           uint32_t i)
{
    const struct proportion own = minus(g->count[i], &o->own);
    const struct proportion all = minus(g->all, &o->group), others = minus(all, &own);
    const uint64_t ms = g->now_ms - o->since_ms;
    if (ms < OUTLIERS_MS || (own.requests < PROPORTION_MIN && ms < OUTLIERS_MAX_MS))
        return;
    if (proportion_look(&o->trend, &own, &others) == PROPORTION_WORSE) {
        o->trend.worse = 0;
        eject(c, g, i, &own, &others);
    }
    begin(o, g, i);
}

/* Places are by number in the configuration, and a reload gives servers other ones. */
static void follow_config(struct outliers *o, const struct config *config)
{
    if (o->config == config)
        return;
    struct outliers before = *o;
    memset(o, 0, sizeof *o);
    o->config = config;
    for (uint32_t u = 0; u < config->n_upstreams; u++)
        for (uint32_t i = 0; i < config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &config->upstreams[u].servers[i];
            const uint64_t id = stats_server_id(s);
            for (uint32_t k = 0; k < RUNTIME_SERVERS_MAX; k++)
                if (before.at[k].id == id)
                    o->at[s->index] = before.at[k];
        }
}

/* Where nothing may be ejected (any more), nothing stays so. */
static void readmit_all(const struct control *c, const struct config_upstream *u)
{
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const struct server_name name = {
            server_find(c->shared->servers, stats_server_id(&u->servers[i])), c->shared->conditions,
            u->name, u->servers[i].address.text};
        if (name.row && server_view(name.row).state == SERVER_EJECTED)
            server_report_answer(&name, true, clock_mono_ms());
    }
}

void outliers_follow(struct control *c)
{
    static struct group group; /* large */
    struct runtime_values values;
    if (!c->outliers)
        return;
    follow_config(c->outliers, c->config);
    runtime_read(c->runtime, &values);
    for (uint32_t u = 0; u < c->config->n_upstreams; u++) {
        const struct config_upstream *upstream = &c->config->upstreams[u];
        if (!upstream->eject || upstream->n_servers < 2) {
            readmit_all(c, upstream);
            continue;
        }
        look_at_group(c, upstream, &values, &group);
        for (uint32_t i = 0; i < upstream->n_servers; i++) {
            struct outlier *o = &c->outliers->at[upstream->servers[i].index];
            if (!o->id)
                begin(o, &group, i);
            else
                look_at_server(c, o, &group, i);
        }
    }
}

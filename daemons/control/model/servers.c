/* SPDX-License-Identifier: BSD-2-Clause */
/* servers: see servers.h. */
#include "daemons/control/model/servers.h"
#include "daemons/control/control.h"
#include "daemons/control/regions.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/server_check.h"
#include "polder/server_names.h"
#include "polder/server_state.h"

#include <stdio.h>
#include <string.h>

static bool is_server(const struct config *config, const char *subject, bool named)
{
    char text[CONDITION_SUBJECT];
    for (uint32_t u = 0; u < config->n_upstreams; u++)
        for (uint32_t i = 0; i < config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &config->upstreams[u].servers[i];
            server_subject(s, text, sizeof text);
            if ((!named || !s->address.len) && condition_subject_is(subject, text))
                return true;
        }
    return false;
}

static bool is_a_server(void *arg, const char *subject)
{
    return is_server(((const struct control *)arg)->config, subject, false);
}

static bool is_a_name(void *arg, const char *subject)
{
    return is_server(((const struct control *)arg)->config, subject, true);
}

static bool is_an_upstream(void *arg, const char *subject)
{
    const struct config *config = ((const struct control *)arg)->config;
    for (uint32_t u = 0; u < config->n_upstreams; u++)
        if (condition_subject_is(subject, config->upstreams[u].name))
            return true;
    return false;
}

/* Does it take requests? */
static bool look_at_server(struct control *c, const struct config_server *s, uint32_t weight)
{
    char subject[CONDITION_SUBJECT], why[SERVER_WHY];
    const struct server_row *row = server_find(c->shared->servers, stats_server_id(s));
    const bool down = row && !server_is_up(row);
    server_subject(s, subject, sizeof subject);
    condition_set(c->shared->conditions, COND_BACKEND_DOWN, subject, down && weight,
                  server_why_down(row, why), clock_real_ms());
    return weight && !down;
}

static void look_at_upstream(struct control *c, const struct config_upstream *u,
                             const struct runtime_values *values)
{
    uint32_t take = 0, weighed = 0;
    char reason[64] = "all weights are 0";
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const uint32_t weight = values->server[u->servers[i].index].weight;
        weighed += weight != 0;
        take += look_at_server(c, &u->servers[i], weight);
    }
    if (weighed)
        snprintf(reason, sizeof reason, "%u of %u servers down, the others of weight 0", weighed,
                 u->n_servers);
    if (weighed == u->n_servers)
        snprintf(reason, sizeof reason,
                 weighed == 1 ? "its only server is down" : "all %u servers are down", weighed);
    condition_set(c->shared->conditions, COND_NO_SERVER_LEFT, u->name, !take, reason,
                  clock_real_ms());
}

static bool is_in_use(void *arg, uint64_t id)
{
    struct config_region *region[SHARED_REGIONS];
    const size_t n = regions_live(arg, region);
    for (size_t r = 0; r < n; r++)
        for (uint32_t u = 0; u < region[r]->config->n_upstreams; u++)
            for (uint32_t i = 0; i < region[r]->config->upstreams[u].n_servers; i++)
                if (stats_server_id(&region[r]->config->upstreams[u].servers[i]) == id)
                    return true;
    return false;
}

void servers_follow(struct control *c)
{
    struct condition_table *t = c->shared->conditions;
    const uint64_t now_ms = clock_real_ms();
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    for (uint32_t u = 0; u < c->config->n_upstreams; u++)
        look_at_upstream(c, &c->config->upstreams[u], &values);
    condition_clear_except(t, COND_BACKEND_DOWN, is_a_server, c, now_ms);
    condition_clear_except(t, COND_NO_SERVER_LEFT, is_an_upstream, c, now_ms);
    condition_clear_except(t, COND_NAME_UNRESOLVED, is_a_name, c, now_ms);
    server_sweep(c->shared->servers, is_in_use, c);
}

/* ---- weights ---- */

const struct config_server *servers_find(const struct config *config, const char *upstream,
                                         const char *server)
{
    for (uint32_t i = 0; i < config->n_upstreams; i++) {
        const struct config_upstream *u = &config->upstreams[i];
        for (uint32_t k = 0; k < u->n_servers && !strcmp(u->name, upstream); k++)
            if (!strcmp(u->servers[k].address.text, server))
                return &u->servers[k];
    }
    return NULL;
}

struct change {
    const struct config *current;
    const char *upstream, *server;
    uint32_t weight, before;
};

static bool change_weight(void *arg, struct config_region *region, struct runtime_values *values)
{
    struct change *change = arg;
    const struct config_server *s = servers_find(region->config, change->upstream, change->server);
    if (!s)
        return false;
    if (region->config == change->current)
        change->before = values->server[s->index].weight;
    values->server[s->index].weight = change->weight;
    return true;
}

uint32_t servers_set_weight(struct control *c, const struct config_server *s, uint32_t weight)
{
    struct change change = {.current = c->config,
                            .upstream = s->upstream->name,
                            .server = s->address.text,
                            .weight = weight};
    regions_publish(c, change_weight, &change);
    peers_tell_weight(&c->peers, change.upstream, change.server, weight);
    return change.before;
}

struct changes {
    const struct config_upstream *upstream;
    const uint32_t *weight;
};

static bool change_weights(void *arg, struct config_region *region, struct runtime_values *values)
{
    const struct changes *changes = arg;
    const struct config_upstream *u = changes->upstream;
    bool any = false;
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const struct config_server *s =
            servers_find(region->config, u->name, u->servers[i].address.text);
        if (s)
            values->server[s->index].weight = changes->weight[i];
        any |= s != NULL;
    }
    return any;
}

void servers_set_weights(struct control *c, const struct config_upstream *upstream,
                         const uint32_t *weight)
{
    struct changes changes = {upstream, weight};
    regions_publish(c, change_weights, &changes);
    for (uint32_t i = 0; i < upstream->n_servers; i++)
        peers_tell_weight(&c->peers, upstream->name, upstream->servers[i].address.text, weight[i]);
}

void servers_tell_weights(struct control *c)
{
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    for (uint32_t u = 0; u < c->config->n_upstreams; u++)
        for (uint32_t i = 0; i < c->config->upstreams[u].n_servers; i++) {
            const struct config_server *s = &c->config->upstreams[u].servers[i];
            peers_tell_weight(&c->peers, s->upstream->name, s->address.text,
                              values.server[s->index].weight);
        }
}

const char *servers_state_name(const struct config_server *s, const struct server_row *row,
                               uint32_t weight)
{
    if (!weight)
        return "drained";
    if (row && !server_is_up(row))
        return server_view(row).state == SERVER_EJECTED && !server_check_read(row).down ? "ejected"
                                                                                        : "down";
    if (row && server_drains(row))
        return "draining";
    return row && server_warmth(row, s->upstream->slow_start_ms, clock_mono_ms()) < SERVER_SHARE
               ? "slow start"
               : "up";
}

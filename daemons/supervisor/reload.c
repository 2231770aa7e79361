/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reload: puts a configuration in use, and another one in its place while sessions go on. They move
 * over to the route of the same pattern; those without a route any more, and handshakes to changed
 * servers, are closed to reconnect.
 */
#include "daemons/supervisor/program.h"
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/survive.h"
#include "polder/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void log_mistake(void *arg, const char *line)
{
    (void)arg;
    log_error("config: %s", line);
}

const struct config *config_read_proven(struct supervisor *s)
{
    char path[32];
    const struct config *c = supervisor_read_config(s->path, &s->arena[0], log_mistake);
    snprintf(path, sizeof path, "/proc/self/fd/%d", PROGRAM_FILE_FD);
    return c ? c : supervisor_read_config(path, &s->arena[0], log_mistake);
}

void config_use(struct supervisor *s, const struct config *c)
{
    const bool same_level = s->config && s->config->log_level == c->log_level;
    s->config = c;
    if (!same_level) { /* else it is what a command may have set */
        s->log_level = (enum log_level)c->log_level;
        log_set_level(s->log_level);
    }
    s->values = c->websocket;
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket)
            s->route_values[i].ws = *c->routes[i].websocket;
    for (uint32_t i = 0; i < c->n_upstreams; i++)
        for (uint32_t k = 0; k < c->upstreams[i].n_servers; k++) {
            const struct config_server *server = &c->upstreams[i].servers[k];
            s->weights[server->index] = server->weight;
        }
}

void config_open_log(struct supervisor *s)
{
    char why[512];
    if (supervisor_log_open(s, why, sizeof why) < 0)
        log_error("%s", why);
}

static const struct config_route *same_route(const struct config *c, const struct config_route *old)
{
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].websocket && !strcmp(c->routes[i].pattern, old->pattern))
            return &c->routes[i];
    return NULL;
}

static bool same_servers(const struct config_upstream *a, const struct config_upstream *b)
{
    if (!a || !b)
        return a == b;
    if (strcmp(a->name, b->name) != 0 || a->n_servers != b->n_servers)
        return false;
    for (uint32_t i = 0; i < a->n_servers; i++)
        if (strcmp(a->servers[i].address.text, b->servers[i].address.text) != 0)
            return false;
    return true;
}

/* Does it go on as if nothing had happened? A handshake waits for one of the route's servers. */
static bool survives(const struct session *x, const struct config_route *to)
{
    return to && (x->state == SESSION_OPEN || x->state == SESSION_CLOSING ||
                  same_servers(x->route->upstream, to->upstream));
}

static void move_over(struct session *x, const struct config_route *to)
{
    if (x->pending && x->pending->server)
        x->pending->server =
            &to->upstream->servers[x->pending->server - x->route->upstream->servers];
    x->route = to;
}

/* NULL: it stays with the one that is in use. */
static const struct config *read_another(const struct supervisor *s, void **memory)
{
    const struct config *c = supervisor_read_config(s->path, memory, log_mistake), *old = s->config;
    if (!c) {
        log_error("config: nothing has changed");
        return NULL;
    }
    if (!strcmp(c->runtime_dir, old->runtime_dir))
        return c;
    log_error("config: runtime_dir cannot change while polder-supervisor runs (\"%s\", not "
              "\"%s\"); restart it for that; nothing has changed",
              old->runtime_dir, c->runtime_dir);
    munmap(*memory, SHARED_REGION_SIZE);
    return NULL;
}

/* What routes have counted, but for what is open: the sessions say that. */
static void take_counts(const struct supervisor *s, const struct config *c,
                        struct route_count *counts)
{
    const struct config *old = s->config;
    for (uint32_t i = 0; i < old->n_routes; i++) {
        const struct config_route *to = same_route(c, &old->routes[i]);
        if (to) {
            counts[to->index] = s->routes[i];
            counts[to->index].open = 0;
        }
    }
}

/* Those that cannot go on end, as their configuration goes; the others have their routes of the new
 * one. */
static void move_sessions(struct supervisor *s, const struct config *c, struct route_count *counts)
{
    for (struct session *x = LIST_FIRST(&s->sessions), *next; x; x = next) {
        next = LIST_NEXT(x, entry);
        if (survives(x, same_route(c, x->route)))
            continue;
        if (x->state != SESSION_CLOSING)
            session_close(s, x, 1012, "the service has changed", END_DRAIN);
        session_end(s, x, END_DRAIN);
    }
    for (struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry)) {
        move_over(x, same_route(c, x->route));
        counts[x->route->index].open++;
    }
    sessions_bury(s);
}

static void heartbeats_arm(struct supervisor *s)
{
    for (struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry))
        if (x->state == SESSION_OPEN && !x->deadline_ms)
            heartbeat_arm(s, x); /* in the intervals of now */
}

bool config_reload(struct supervisor *s)
{
    void *memory, *old_memory = s->arena[0];
    const struct config *c = read_another(s, &memory), *old = s->config;
    if (!c)
        return false;
    struct route_count *counts = calloc(SUPERVISOR_ROUTES, sizeof *counts);
    struct values_before *before = counts ? values_before(s) : NULL;
    if (!before) {
        free(counts);
        munmap(memory, SHARED_REGION_SIZE);
        return false;
    }
    take_counts(s, c, counts);
    move_sessions(s, c, counts);
    memcpy(s->routes, counts, SUPERVISOR_ROUTES * sizeof *counts);
    free(counts);
    config_use(s, c);
    config_open_log(s);
    values_load(s);
    values_carry(s, before, old);
    values_before_free(before);
    values_tell_files(s);
    s->arena[0] = memory;
    munmap(old_memory, SHARED_REGION_SIZE);
    ws_fleet_read_config(s);
    survive_read_again(s);
    heartbeats_arm(s);
    log_info("config: read again");
    return true;
}

void config_reload_copy(void *arg)
{
    struct supervisor *s = arg;
    void *memory, *old = s->arena[0];
    const struct config *c = supervisor_read_config(s->path, &memory, log_mistake);
    if (!c)
        return;
    config_use(s, c);
    s->arena[0] = memory;
    values_load(s);
    munmap(old, SHARED_REGION_SIZE);
}

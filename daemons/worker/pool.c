/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pool: which server of an upstream gets a request, and the connections that are kept open to it.
 *
 * Servers take turns by smooth weighted round robin over their running weights; one with weight 0
 * gets nothing. One that refused a connection is passed over for a second while another is there.
 * Idle connections: the last one used first, so that the surplus ages and closes.
 */
#include "daemons/worker/upstream.h"
#include "daemons/worker/worker.h"

#include <errno.h>
#include <sys/socket.h>

#define FAILED_MS 1000
#define IDLE_MS   4000 /* uvicorn closes after 5 s: be earlier, and win the race */

uint64_t pool_bit(const struct config_upstream *upstream, const struct config_server *server)
{
    const size_t i = (size_t)(server - upstream->servers);
    return i < 64 ? UINT64_C(1) << i : 0;
}

static uint32_t weight_of(const struct worker *w, const struct config_server *server)
{
    return server == &w->ops_server ? 1 : w->runtime.server[server->index].weight;
}

/* One turn among the servers that are not in `tried`; healthy: nor have they failed just now. */
static const struct config_server *turn(struct worker *w, const struct config_upstream *upstream,
                                        uint64_t tried, bool healthy)
{
    const struct config_server *best = NULL;
    int64_t total = 0;
    for (uint32_t i = 0; i < upstream->n_servers; i++) {
        const struct config_server *server = &upstream->servers[i];
        struct server_state *state = &w->servers[server->index];
        const uint32_t weight = weight_of(w, server);
        if (!weight || tried & pool_bit(upstream, server))
            continue;
        if (healthy && state->failed_until_ms > w->mono_ms)
            continue;
        state->current += weight;
        total += weight;
        if (!best || state->current > w->servers[best->index].current)
            best = server;
    }
    if (best)
        w->servers[best->index].current -= total;
    return best;
}

const struct config_server *pool_choose(struct worker *w, const struct config_upstream *upstream,
                                        uint64_t tried)
{
    const struct config_server *server = turn(w, upstream, tried, true);
    return server ? server : turn(w, upstream, tried, false);
}

void pool_failed(struct worker *w, const struct config_server *server)
{
    w->servers[server->index].failed_until_ms = w->mono_ms + FAILED_MS;
}

static void unlink_idle(struct upstream *u)
{
    *u->link = u->next;
    if (u->next)
        u->next->link = u->link;
    u->link = NULL;
    u->worker->n_idle--;
}

/* Bytes that have come before the question are no answer to it, and who has hung up will not give
 * one; the loop may not have told of either yet. */
static bool is_quiet(const struct upstream *u)
{
    char byte;
    return recv(u->read.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

struct upstream *pool_take(struct worker *w, const struct config_server *server)
{
    struct upstream *u;
    while ((u = w->servers[server->index].idle) && !is_quiet(u))
        upstream_close(u);
    if (!u)
        return NULL;
    unlink_idle(u);
    u->state = UPSTREAM_BUSY;
    u->reused = true;
    u->got_bytes = false;
    w->n_busy++;
    return u;
}

void pool_keep(struct upstream *u)
{
    struct worker *w = u->worker;
    struct server_state *state = &w->servers[u->server->index];
    if (w->draining) {
        upstream_close(u);
        return;
    }
    u->state = UPSTREAM_IDLE;
    u->exchange = NULL;
    w->n_busy--;
    w->n_idle++;
    u->next = state->idle;
    if (u->next)
        u->next->link = &u->next;
    u->link = &state->idle;
    state->idle = u;
    ev_io_start(w->loop, &u->read); /* its end, or bytes nobody asked for */
    timer_set(w, &u->timer, w->mono_ms + IDLE_MS);
}

void pool_forget(struct upstream *u)
{
    if (u->link)
        unlink_idle(u);
}

void pool_close_idle(struct worker *w)
{
    for (uint32_t i = 0; i <= w->config->n_servers; i++)
        while (w->servers[i].idle)
            upstream_close(w->servers[i].idle);
}

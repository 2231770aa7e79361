/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pool: which server of an upstream gets a request, and the connections that are kept open to it.
 *
 * Servers that are up take turns by smooth weighted round robin over their running weights; one
 * with weight 0 gets nothing. One that is down gets a trial now and then (polder/server_state.h),
 * of a request that can be repeated elsewhere; of another only where none such has come for a
 * while. Where no server is up, all take turns. Idle connections: the last one used first, so that
 * the rest ages and closes.
 */
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"

#include <errno.h>

#define IDLE_MS        4000  /* uvicorn closes after 5 s: be earlier, and win the race */
#define LATE_MS        10000 /* a trial that is due so long may cost a client its answer */
#define TRIAL_SPARE_MS 1000

uint64_t pool_bit(const struct config_upstream *upstream, const struct config_server *server)
{
    const size_t i = (size_t)(server - upstream->servers);
    return i < 64 ? UINT64_C(1) << i : 0;
}

static uint32_t weight_of(const struct worker *w, const struct config_server *server)
{
    return server == &w->ops_server ? 1 : w->runtime.server[server->index].weight;
}

/* One turn among the servers that are not in `tried`; healthy: and are up. */
static const struct config_server *turn(struct worker *w, const struct config_upstream *upstream,
                                        uint64_t tried, bool healthy)
{
    const struct config_server *best = NULL;
    int64_t total = 0;
    for (uint32_t i = 0; i < upstream->n_servers; i++) {
        const struct config_server *server = &upstream->servers[i];
        struct server_local *state = &w->servers[server->index];
        const uint32_t weight = weight_of(w, server);
        if (!weight || tried & pool_bit(upstream, server))
            continue;
        if (healthy && !server_is_up(state->row))
            continue;
        const int64_t share =
            (int64_t)weight * server_warmth(state->row, upstream->slow_start_ms, w->mono_ms);
        state->current += share;
        total += share;
        if (!best || state->current > w->servers[best->index].current)
            best = server;
    }
    if (best)
        w->servers[best->index].current -= total;
    return best;
}

/* A server that is down and whose trial is due; this request is it now. */
static const struct config_server *trial(struct worker *w, const struct pool_wish *wish,
                                         struct pool_choice *choice)
{
    const struct config_upstream *u = wish->upstream;
    const uint64_t lasts_ms = (uint64_t)u->connect_timeout_ms + u->timeout_ms + TRIAL_SPARE_MS;
    for (uint32_t i = 0; i < u->n_servers; i++) {
        const struct config_server *server = &u->servers[i];
        struct server_row *row = w->servers[server->index].row;
        if (!server_is_up(row) && weight_of(w, server) && !(wish->tried & pool_bit(u, server)) &&
            server_try(row, w->mono_ms, wish->repeatable ? 0 : LATE_MS, lasts_ms,
                       &choice->lease_ms))
            return server;
    }
    return NULL;
}

bool pool_choose(struct worker *w, const struct pool_wish *wish, struct pool_choice *choice)
{
    *choice = (struct pool_choice){0};
    if ((choice->server = trial(w, wish, choice)))
        return true;
    choice->lease_ms = 0;
    if ((choice->server = turn(w, wish->upstream, wish->tried | wish->avoid, true)))
        return true;
    choice->server = turn(w, wish->upstream, wish->tried, false);
    choice->is_down = choice->server && !server_is_up(w->servers[choice->server->index].row);
    return choice->server != NULL;
}

bool pool_any_down(const struct worker *w, const struct config_upstream *upstream)
{
    for (uint32_t i = 0; i < upstream->n_servers; i++)
        if (!server_is_up(w->servers[upstream->servers[i].index].row))
            return true;
    return false;
}

static struct server_name name_of(const struct worker *w, const struct config_server *server)
{
    struct condition_table *conditions =
        server == &w->ops_server || !w->shared ? NULL : w->shared->conditions;
    return (struct server_name){w->servers[server->index].row, conditions, server->upstream->name,
                                server->address.text};
}

void pool_failed(struct worker *w, const struct config_server *server, enum server_reason reason,
                 const char *what, uint64_t lease_ms)
{
    const struct server_name name = name_of(w, server);
    server_report_failure(&name, reason, what, lease_ms != 0, w->mono_ms);
}

void pool_answered(struct worker *w, const struct config_server *server)
{
    const struct server_name name = name_of(w, server);
    server_report_answer(&name, w->mono_ms);
}

/* Bytes that have come before the question are no answer to it, and a server that has hung up will
 * not give one; the loop may not have told of either yet.
 *
 * It was quiet a moment ago in any case: when it was read last, in this iteration, or else when the
 * loop polled. That is enough for a request that can be repeated and whose answer is not stored, and
 * saves a system call. */
static bool is_quiet(struct upstream *u, bool look)
{
    if (!look && u->drained && !transport_is_due(&u->transport))
        return true;
    const ssize_t n = u->transport.ops->peek(&u->transport);
    if (n > 0)
        upstream_distrust(u);
    return n == -EAGAIN;
}

struct upstream *pool_take(struct worker *w, const struct config_server *server, bool look)
{
    struct upstream *u;
    while ((u = w->servers[server->index].idle) && !is_quiet(u, look))
        upstream_close(u);
    if (!u)
        return NULL;
    upstream_leave_idle(u);
    u->state = UPSTREAM_BUSY;
    u->reused = true;
    u->got_bytes = false;
    w->n_busy++;
    return u;
}

void pool_keep(struct upstream *u)
{
    struct worker *w = u->worker;
    struct server_local *state = &w->servers[u->server->index];
    u->user = NULL;
    if (w->draining) {
        upstream_close(u);
        return;
    }
    u->state = UPSTREAM_IDLE;
    w->n_busy--;
    w->n_idle++;
    u->next = state->idle;
    if (u->next)
        u->next->link = &u->next;
    u->link = &state->idle;
    state->idle = u;
    transport_start(&u->transport, TRANSPORT_READ); /* its end, or bytes nobody asked for */
    timer_set(&w->wheel, &u->timer, w->mono_ms + IDLE_MS);
}

void pool_close_idle(struct worker *w)
{
    for (uint32_t i = 0; i <= w->config->n_servers; i++)
        while (w->servers[i].idle)
            upstream_close(w->servers[i].idle);
}

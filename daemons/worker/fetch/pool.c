/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pool: which server of an upstream gets a request, and the connections that are kept open to it.
 *
 * How servers take turns: polder/server_choice.h. Idle connections: the last one used first, so
 * that the rest ages and closes; each for the time that its last response allows (keep_alive.h).
 */
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/server_choice.h"

#include <errno.h>

#define SINGLE_MS 60000u

uint64_t pool_bit(const struct config_upstream *upstream, const struct config_server *server)
{
    const size_t i = (size_t)(server - upstream->servers);
    return i < 64 ? UINT64_C(1) << i : 0;
}

static uint32_t weight_of(const struct worker *w, const struct config_server *server)
{
    return server == &w->upstreams->ops_server ? 1 : w->runtime.server[server->index].weight;
}

bool pool_choose(struct worker *w, const struct pool_request *wanted, struct pool_choice *out)
{
    const struct config_upstream *u = wanted->upstream;
    struct server_option option[RUNTIME_SERVERS_MAX];
    struct server_choice choice = {u, option, 0, wanted->repeatable, w->mono_ms};
    for (; choice.n < u->n_servers && choice.n < RUNTIME_SERVERS_MAX; choice.n++) {
        const struct config_server *server = &u->servers[choice.n];
        struct server_local *state = &w->upstreams->servers[server->index];
        const uint64_t bit = pool_bit(u, server);
        option[choice.n] =
            (struct server_option){state->row, weight_of(w, server), wanted->tried & bit,
                                   wanted->avoid & bit, &state->turn};
    }
    *out = (struct pool_choice){0};
    const int n = server_choose(&choice, &out->lease_ms);
    if (n < 0)
        return false;
    out->server = &u->servers[n];
    out->is_down = !out->lease_ms && !server_is_up(option[n].row);
    return true;
}

bool pool_any_down(const struct worker *w, const struct config_upstream *upstream)
{
    for (uint32_t i = 0; i < upstream->n_servers; i++)
        if (!server_is_up(w->upstreams->servers[upstream->servers[i].index].row))
            return true;
    return false;
}

static struct server_name name_of(const struct worker *w, const struct config_server *server)
{
    struct condition_table *conditions =
        server == &w->upstreams->ops_server || !w->shared ? NULL : w->shared->conditions;
    return (struct server_name){w->upstreams->servers[server->index].row, conditions,
                                server->upstream->name, server->address.text};
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

/* Bytes that arrived before the request are no answer to it, and a server that has closed will not
 * send one; the loop may not have reported either yet.
 *
 * Where it has polled since the connection was read last, and just now, and was told of nothing,
 * that is enough for a request that can be repeated and whose answer is not stored, and saves a
 * system call: what comes in between is as if it had come with the request on its way. */
static bool was_just_quiet(const struct upstream *u)
{
    const struct worker *w = u->worker;
    return u->drained && u->read_at != ev_iteration(w->loop) && !transport_is_due(&u->transport) &&
           clock_mono_ms() == w->mono_ms;
}

/* The loop may be late, and so may its timers. */
static bool is_aged(const struct upstream *u, bool look)
{
    const struct worker *w = u->worker;
    return (look ? clock_mono_ms() : w->mono_ms) >= u->timer.due_ms;
}

static bool is_usable(struct upstream *u, bool look)
{
    if (is_aged(u, look))
        return false;
    if (!look && was_just_quiet(u))
        return true;
    const ssize_t n = u->transport.ops->peek(&u->transport);
    if (n > 0)
        upstream_distrust(u);
    return n == -EAGAIN;
}

struct upstream *pool_take(struct worker *w, const struct config_server *server, bool look)
{
    struct upstream *u;
    while ((u = LIST_FIRST(&w->upstreams->servers[server->index].idle)) && !is_usable(u, look))
        upstream_close(u);
    if (!u)
        return NULL;
    upstream_leave_idle(u);
    u->state = UPSTREAM_BUSY;
    u->reused = true;
    u->got_bytes = false;
    w->upstreams->n_busy++;
    return u;
}

void pool_keep(struct upstream *u)
{
    struct worker *w = u->worker;
    struct server_local *state = &w->upstreams->servers[u->server->index];
    u->user = NULL;
    if (w->draining || w->mono_ms < state->single_until_ms || !u->keep_ms) {
        upstream_close(u);
        return;
    }
    u->state = UPSTREAM_IDLE;
    w->upstreams->n_busy--;
    w->upstreams->n_idle++;
    LIST_INSERT_HEAD(&state->idle, u, entry);
    transport_start(&u->transport, TRANSPORT_READ); /* its end, or unsolicited bytes */
    timer_set(&w->wheel, &u->timer, w->mono_ms + u->keep_ms);
}

static void close_idle_of(struct server_local *state)
{
    struct upstream *u;
    while ((u = LIST_FIRST(&state->idle)))
        upstream_close(u);
}

void pool_close_idle(struct worker *w)
{
    for (uint32_t i = 0; i <= w->config->n_servers; i++)
        close_idle_of(&w->upstreams->servers[i]);
}

void pool_mistrust(struct upstream *u)
{
    struct worker *w = u->worker;
    struct server_local *state = &w->upstreams->servers[u->server->index];
    if (w->mono_ms >= state->single_until_ms)
        log_warning("upstream %s: %s sent bytes that nobody had asked for; no connection to it is "
                    "used for more than one request for %u s",
                    u->server->upstream->name, u->server->address.text, SINGLE_MS / 1000);
    state->single_until_ms = w->mono_ms + SINGLE_MS;
    close_idle_of(state);
}

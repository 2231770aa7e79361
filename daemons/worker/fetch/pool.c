/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pool: which server of an upstream gets a request, and the connections that are kept open to it.
 *
 * How servers take turns: polder/server_choice.h. Idle connections: the last one used first, so
 * that the rest ages and closes, each after the time that its last response allows (keep_alive.h),
 * but no more than are too many for the most requests at once of the last minute.
 */
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/server_choice.h"

#include <errno.h>

#define SINGLE_MS 60000u
#define PEAK_MS   30000

uint64_t pool_bit(const struct config_upstream *upstream, const struct config_server *server)
{
    const size_t i = (size_t)(server - upstream->servers);
    return i < 64 ? UINT64_C(1) << i : 0;
}

static uint32_t weight_of(const struct worker *w, const struct config_server *server)
{
    return server == &w->upstreams->ops_server ? 1 : w->runtime.server[server->index].weight;
}

struct server_loads *pool_loads(const struct worker *w, const struct config_upstream *upstream)
{
    return &w->upstreams->servers[upstream->servers[0].index].loads;
}

bool pool_is_bounded(const struct config_upstream *upstream)
{
    for (uint32_t i = 0; i < upstream->n_servers; i++)
        if (upstream->servers[i].max_connections)
            return true;
    return false;
}

static struct server_option option_of(const struct worker *w, const struct config_server *server)
{
    struct server_local *state = &w->upstreams->servers[server->index];
    struct server_option o = {.row = state->row,
                              .weight = weight_of(w, server),
                              .turn = &state->turn,
                              .backup = server->backup};
    if (server->max_connections || server->upstream->balance == CONFIG_BALANCE_FEWEST)
        o.busy = server_load_busy(&state->loads);
    o.full = server->max_connections && o.busy >= server->max_connections;
    return o;
}

static uint32_t options_of(const struct worker *w, const struct config_upstream *u,
                           struct server_option option[RUNTIME_SERVERS_MAX])
{
    uint32_t n = 0;
    for (; n < u->n_servers && n < RUNTIME_SERVERS_MAX; n++)
        option[n] = option_of(w, &u->servers[n]);
    return n;
}

/* Others may have taken the last place meanwhile. */
static bool enter(const struct worker *w, const struct config_server *server, uint64_t lease_ms)
{
    struct server_local *state = &w->upstreams->servers[server->index];
    if (server_load_enter(&state->loads, server->max_connections))
        return true;
    if (lease_ms)
        server_untry(state->row, lease_ms, w->mono_ms);
    return false;
}

enum pool_result pool_choose(struct worker *w, const struct pool_request *wanted,
                             struct pool_choice *out)
{
    const struct config_upstream *u = wanted->upstream;
    struct server_option option[RUNTIME_SERVERS_MAX];
    const struct server_choice choice = {.upstream = u,
                                         .option = option,
                                         .n = options_of(w, u, option),
                                         .repeatable = wanted->repeatable,
                                         .now_ms = w->mono_ms,
                                         .sticky = wanted->sticky};
    for (uint32_t i = 0; i < choice.n; i++) {
        const uint64_t bit = pool_bit(u, &u->servers[i]);
        option[i].tried = wanted->tried & bit;
        option[i].avoid = wanted->avoid & bit;
    }
    *out = (struct pool_choice){0};
    int n;
    while ((n = server_choose(&choice, &out->lease_ms)) >= 0 &&
           !enter(w, &u->servers[n], out->lease_ms))
        option[n].full = true;
    if (n < 0)
        return n == SERVER_CHOICE_FULL ? POOL_FULL : POOL_NONE;
    out->server = &u->servers[n];
    out->is_down = !out->lease_ms && !server_is_up(option[n].row);
    return POOL_CHOSEN;
}

void pool_leave(struct worker *w, const struct config_server *server)
{
    server_load_leave(&w->upstreams->servers[server->index].loads);
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

static void answered_badly(const struct worker *w, const struct server_name *name,
                           const struct config_server *server, bool trial)
{
    const struct config_upstream *u = server->upstream;
    struct server_option option[RUNTIME_SERVERS_MAX];
    const struct server_choice choice = {u,     option,     options_of(w, u, option),
                                         false, w->mono_ms, NULL};
    server_choice_error(&choice, (uint32_t)(server - u->servers), name, trial);
}

void pool_answered(struct worker *w, const struct config_server *server, unsigned status,
                   bool trial)
{
    const struct server_name name = name_of(w, server);
    if (server_is_error(status))
        answered_badly(w, &name, server, trial);
    else
        server_report_answer(&name, trial, w->mono_ms);
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
    if (is_aged(u, look) || upstream_has_left(u))
        return false;
    if (!look && was_just_quiet(u))
        return true;
    const ssize_t n = u->transport.ops->peek(&u->transport);
    if (n > 0)
        upstream_distrust(u);
    return n == -EAGAIN;
}

static void note_use(const struct worker *w, struct server_local *state)
{
    const uint32_t busy = state->n_open - state->n_idle;
    if (w->mono_ms >= state->peak_ms + PEAK_MS) {
        state->peak_before = w->mono_ms < state->peak_ms + 2 * PEAK_MS ? state->peak : 0;
        state->peak = 0;
        state->peak_ms = w->mono_ms;
    }
    if (busy > state->peak)
        state->peak = busy;
}

/* The oldest one where its time is nearly over and it will be needed: so many have been in use at
 * once lately, and would be opened again. */
static struct upstream *next_idle(const struct worker *w, struct server_local *state,
                                  bool repeatable)
{
    struct upstream *oldest = TAILQ_LAST(&state->idle, idle_list);
    const uint32_t peak = state->peak > state->peak_before ? state->peak : state->peak_before;
    if (oldest && repeatable && state->n_open <= peak &&
        oldest->timer.due_ms < w->mono_ms + oldest->keep_ms / 2)
        return oldest;
    return TAILQ_FIRST(&state->idle);
}

void pool_opened(struct upstream *u)
{
    struct server_local *state = &u->worker->upstreams->servers[u->server->index];
    state->n_open++;
    note_use(u->worker, state);
}

struct upstream *pool_take(struct worker *w, const struct config_server *server, bool look,
                           bool repeatable)
{
    struct server_local *state = &w->upstreams->servers[server->index];
    struct upstream *u;
    while ((u = next_idle(w, state, repeatable)) && !is_usable(u, look))
        upstream_close(u);
    if (!u)
        return NULL;
    upstream_leave_idle(u);
    u->state = UPSTREAM_BUSY;
    u->reused = true;
    u->got_bytes = false;
    w->upstreams->n_busy++;
    note_use(w, state);
    return u;
}

void pool_keep(struct upstream *u)
{
    struct worker *w = u->worker;
    struct server_local *state = &w->upstreams->servers[u->server->index];
    u->user = NULL;
    if (w->draining || w->mono_ms < state->single_until_ms || !u->keep_ms || upstream_has_left(u)) {
        upstream_close(u);
        return;
    }
    u->state = UPSTREAM_IDLE;
    w->upstreams->n_busy--;
    w->upstreams->n_idle++;
    state->n_idle++;
    TAILQ_INSERT_HEAD(&state->idle, u, idle);
    transport_start(&u->transport, TRANSPORT_READ); /* its end, or unsolicited bytes */
    timer_set(&w->wheel, &u->timer, w->mono_ms + u->keep_ms);
}

static void close_idle_of(struct server_local *state)
{
    struct upstream *u;
    while ((u = TAILQ_FIRST(&state->idle)))
        upstream_close(u);
}

void pool_close_left(struct server_local *state)
{
    struct upstream *u = TAILQ_FIRST(&state->idle), *next;
    for (; u; u = next) {
        next = TAILQ_NEXT(u, idle);
        if (upstream_has_left(u))
            upstream_close(u);
    }
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

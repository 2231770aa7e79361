/* SPDX-License-Identifier: BSD-2-Clause */
/* save: writes all that polder-supervisor owns into a state block. */
#include "daemons/rpc/server.h"
#include "daemons/supervisor/carry/carry.h"
#include "daemons/supervisor/carry/process.h"
#include "polder/sandbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void save_numbers(struct state_writer *w, const struct supervisor *s, enum carry_to to,
                         uint64_t started_ns)
{
    const uint64_t n[PROCESS_NUMBERS] = {
        [PROCESS_STARTED_NS] = started_ns,
        [PROCESS_NEXT_ID] = s->next_id,
        [PROCESS_PING_SECRET] = s->ping_secret,
        [PROCESS_OPENED] = s->opened,
        [PROCESS_REFUSED] = s->refused,
        [PROCESS_HEARTBEATS] = s->heartbeats,
        [PROCESS_HEARTBEATS_ACKED] = s->heartbeats_acked,
        [PROCESS_PINGS] = s->pings,
        [PROCESS_PONGS] = s->pongs,
        [PROCESS_MESSAGES_IN] = s->messages_in,
        [PROCESS_MESSAGES_OUT] = s->messages_out,
        [PROCESS_REFUSAL_LOGGED_MS] = s->refusal_logged_ms,
        [PROCESS_TOO_LONG_LOGGED_MS] = s->too_long_logged_ms,
        [PROCESS_REFUSALS_UNLOGGED] = s->refusals_unlogged,
        [PROCESS_LOG_LEVEL] = s->log_level,
        [PROCESS_FILE_LOG_LEVEL] = s->config->log_level,
        [PROCESS_UPGRADES] = s->upgrade.done,
        [PROCESS_SINCE_MS] = s->upgrade.since_ms,
        [PROCESS_OWN_INTAKE] = !s->intake_passed,
        [PROCESS_TO] = to,
    };
    carry_put_numbers(w, n, PROCESS_NUMBERS);
}

static void save_lifetimes(struct state_writer *w, const struct lifetimes *l)
{
    uint64_t n[LIFETIME_NUMBERS] = {
        [LIFETIME_SUM_S] = carry_of_double(l->sum_s),
        [LIFETIME_MAX_MS] = l->max_ms,
        [LIFETIME_SUM_NS] = atomic_load_explicit(&l->histogram.sum_ns, memory_order_relaxed),
    };
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        n[LIFETIME_BUCKETS + i] =
            atomic_load_explicit(&l->histogram.bucket[i], memory_order_relaxed);
    carry_put_numbers(w, n, LIFETIME_NUMBERS);
}

static void save_leaked(struct state_writer *w, const struct leaked *l)
{
    uint64_t n[LEAKED_NUMBERS] = {
        [LEAKED_SINCE_MS] = l->since_ms,
        [LEAKED_COUNTED_MS] = l->counted_ms,
        [LEAKED_HELD] = l->held,
        [LEAKED_CONNECTION_HOURS] = carry_of_double(l->hours),
    };
    for (unsigned i = 0; i < LEAKED_HOURS; i++)
        n[LEAKED_REAPED + i] = l->reaped[i];
    carry_put_numbers(w, n, LEAKED_NUMBERS);
}

static void save_process(struct state_writer *w, const struct supervisor *s, enum carry_to to,
                         uint64_t started_ns)
{
    const bool stays = to == CARRY_PROGRAM; /* this process, with its filter */
    char calls[SANDBOX_CALLS_MAX];
    sandbox_calls(SANDBOX_SUPERVISOR, calls, sizeof calls);
    state_record(w, CARRY_PROCESS, 0);
    save_numbers(w, s, to, started_ns);
    state_put_text(w, s->config->runtime_dir);
    state_put_text(w, stays && s->filtered ? calls : "");
    state_put_fd(w, stays ? s->intake.fd : -1, STATE_FD_LISTENER);
    state_put_fd(w, stays ? rpc_server_fd(s->rpc) : -1, STATE_FD_LISTENER);
    state_put_fd(w, s->servers ? s->servers_fd : -1, STATE_FD_SEGMENT);
    save_lifetimes(w, &s->lifetimes);
    save_leaked(w, &s->leaked);
}

static void save_ends(struct state_writer *w, const struct supervisor *s)
{
    for (unsigned i = 0; i < END_REASONS; i++) {
        state_record(w, CARRY_END, STATE_SKIPPABLE);
        state_put_text(w, session_end_names[i]);
        state_put_u64(w, s->ends[i]);
    }
}

static void save_routes(struct state_writer *w, const struct supervisor *s)
{
    for (uint32_t i = 0; i < s->config->n_routes; i++) {
        const struct route_count *c = &s->routes[i];
        const struct bucket *b = &s->route_values[i].bucket;
        const uint64_t n[ROUTE_NUMBERS] = {[ROUTE_OPENED] = c->opened,
                                           [ROUTE_REFUSED] = c->refused,
                                           [ROUTE_REAPED] = c->reaped,
                                           [ROUTE_MESSAGES_IN] = c->messages_in,
                                           [ROUTE_MESSAGES_OUT] = c->messages_out,
                                           [ROUTE_TOKENS] = carry_of_double(b->tokens),
                                           [ROUTE_TOKENS_MS] = b->ms};
        if (!s->config->routes[i].websocket)
            continue;
        state_record(w, CARRY_ROUTE, STATE_SKIPPABLE);
        state_put_text(w, s->config->routes[i].pattern);
        carry_put_numbers(w, n, ROUTE_NUMBERS);
    }
}

static void save_value(void *arg, const struct changed_value *v)
{
    struct state_writer *w = arg;
    state_record(w, v->origins ? CARRY_ORIGINS : CARRY_VALUE, STATE_SKIPPABLE);
    state_put_text(w, v->route);
    state_put_text(w, v->key);
    if (v->origins) {
        state_put_text(w, v->file_origins);
        state_put_text(w, v->origins);
    } else {
        state_put_u64(w, v->file);
        state_put_u64(w, v->running);
    }
}

static void save_server(struct state_writer *w, const struct supervisor *s,
                        const struct config_server *server)
{
    const uint64_t n[SERVER_NUMBERS] = {[SERVER_FILE_WEIGHT] = server->weight,
                                        [SERVER_WEIGHT] = s->weights[server->index],
                                        [SERVER_TURN] = (uint64_t)s->turns[server->index],
                                        [SERVER_PLACE] = s->places[server->index]};
    state_record(w, CARRY_SERVER, STATE_SKIPPABLE);
    state_put_text(w, server->upstream->name);
    state_put_text(w, server->address.text);
    carry_put_numbers(w, n, SERVER_NUMBERS);
}

static void save_servers(struct state_writer *w, const struct supervisor *s)
{
    for (uint32_t i = 0; i < s->config->n_upstreams; i++)
        for (uint32_t k = 0; k < s->config->upstreams[i].n_servers; k++)
            save_server(w, s, &s->config->upstreams[i].servers[k]);
}

static void save_link(void *arg, int fd)
{
    state_record(arg, CARRY_LINK, 0);
    state_put_fd(arg, fd, STATE_FD_CHANNEL);
}

static void save_admin(void *arg, int fd)
{
    state_record(arg, CARRY_ADMIN, 0);
    state_put_fd(arg, fd, STATE_FD_CHANNEL);
}

static void save_leaving(void *arg, const struct leaving_record *r)
{
    carry_put_leaving(arg, r);
}

static int save_session(struct state_writer *w, const struct session *x)
{
    struct session_record record;
    struct session_space space;
    if (!session_describe(x, &record, &space))
        return -ENOMEM;
    carry_put_session(w, &record);
    session_forget(&space);
    return 0;
}

/* The list begins with the youngest. */
static int save_sessions(struct state_writer *w, const struct supervisor *s)
{
    const struct session *x;
    size_t n = 0;
    LIST_FOREACH (x, &s->sessions, entry)
        n++;
    const struct session **all = calloc(n + 1, sizeof *all);
    if (!all)
        return -ENOMEM;
    n = 0;
    LIST_FOREACH (x, &s->sessions, entry)
        all[n++] = x;
    int code = 0;
    while (n && code == 0)
        code = save_session(w, all[--n]);
    free(all);
    return code;
}

int carry_save(struct supervisor *s, enum carry_to to, uint64_t started_ns)
{
    struct state_writer w;
    state_writer_open(&w, STATE_OF_SUPERVISOR, supervisor_version());
    save_process(&w, s, to, started_ns);
    save_ends(&w, s);
    save_routes(&w, s);
    values_each_changed(s, save_value, &w);
    save_servers(&w, s);
    intake_each_link(s, save_link, &w);
    rpc_server_each_quiet(s->rpc, save_admin, &w);
    const int code = save_sessions(&w, s);
    refuse_each_leaving(s, save_leaving, &w);
    const int fd = state_writer_close(&w);
    if (code && fd >= 0)
        close(fd);
    return code ? code : fd;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* worker_run: a worker's life from fork to exit. */
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/background/budget.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/supervisor_link.h"
#include "daemons/worker/cache/compress_stored.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/message/via.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/message/messages.h"
#include "daemons/worker/message/route_state.h"
#include "polder/cache.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/proc.h"
#include "polder/server_state.h"
#include "polder/sandbox.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

/* Telemetry on public listeners is answered by control, through its socket, like any backend. */
static void ops_init(struct worker *w)
{
    struct sockaddr_un *sa = (struct sockaddr_un *)&w->upstreams->ops_server.address.sa;
    sa->sun_family = AF_UNIX;
    snprintf(sa->sun_path, sizeof sa->sun_path, "%s/ops.sock", w->config->runtime_dir);
    w->upstreams->ops_server.address.len =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(sa->sun_path) + 1);
    w->upstreams->ops_server.address.text = "ops.sock";
    w->upstreams->ops_server.weight = 1;
    w->upstreams->ops_server.index = w->config->n_servers;
    w->upstreams->ops_server.upstream = &w->upstreams->ops;
    w->upstreams->ops = (struct config_upstream){.name = "ops",
                                                 .servers = &w->upstreams->ops_server,
                                                 .n_servers = 1,
                                                 .connect_timeout_ms = 1000,
                                                 .timeout_ms = 10000,
                                                 .idle_timeout_ms = 4000,
                                                 .retry_budget = 100,
                                                 .health = ""};
}

/* Where the table is full, and for ops, a row that this worker alone knows. */
static struct server_row *row_new(void)
{
    struct server_row *row = aligned_alloc(_Alignof(struct server_row), sizeof *row);
    if (row)
        memset(row, 0, sizeof *row);
    return row;
}

static bool servers_open(struct worker *w)
{
    const struct config *c = w->config;
    w->upstreams->servers = calloc(c->n_servers + 1, sizeof *w->upstreams->servers);
    if (!w->upstreams->servers || !(w->upstreams->servers[c->n_servers].row = row_new()))
        return false;
    w->upstreams->servers[c->n_servers].stats_row =
        (uint32_t)(stats_server_row(w->stats, STATS_OPS) - w->stats->server);
    server_load_clear(w->shared->servers, w->number); /* of a predecessor that died */
    for (uint32_t i = 0; i <= c->n_servers; i++) {
        w->upstreams->servers[i].transport = &socket_transport;
        TAILQ_INIT(&w->upstreams->servers[i].idle);
    }
    for (uint32_t u = 0; u < c->n_upstreams; u++)
        for (uint32_t i = 0; i < c->upstreams[u].n_servers; i++) {
            const struct config_server *s = &c->upstreams[u].servers[i];
            struct server_row **row = &w->upstreams->servers[s->index].row;
            w->upstreams->servers[s->index].stats_row =
                (uint32_t)(stats_server_row(w->stats, stats_server_id(s)) - w->stats->server);
            *row = server_claim(w->shared->servers, stats_server_id(s), clock_mono_ms());
            if (!*row && !(*row = row_new()))
                return false;
        }
    for (uint32_t i = 0; i <= c->n_servers; i++) {
        struct server_local *s = &w->upstreams->servers[i];
        server_load_open(&s->loads, w->shared->servers, s->row, w->number, &s->alone);
    }
    return true;
}

/* Where the worker counts what each of them does. */
static void stats_open(struct worker *w)
{
    const struct config *c = w->config;
    for (uint32_t i = 0; i < c->n_routes; i++)
        w->routes[c->routes[i].index].stats_row =
            (uint32_t)(stats_route_row(w->stats, c->routes[i].id) - w->stats->route);
    w->routes[c->n_routes].stats_row =
        (uint32_t)(stats_route_row(w->stats, STATS_NO_ROUTE) - w->stats->route);
    for (uint32_t i = 0; i < c->n_limits; i++)
        w->limits->state[c->limits[i].index].stats_row =
            (uint32_t)(stats_limit_row(w->stats, c->limits[i].id) - w->stats->limit);
}

static struct worker *worker_new(const struct process *p)
{
    struct worker *w = worker_alloc();
    if (!w)
        return NULL;
    w->process = p;
    w->shared = p->shared;
    w->config = p->region->config;
    w->number = p->slot - PROC_SLOT_WORKER0;
    buffer_pool_init(&w->buffers, WORKER_BUFFER, WORKER_BUFFERS);
    w->slot = &p->shared->proc->slot[p->slot];
    w->stats = &p->shared->stats[p->slot];
    stats_adopt(w->stats, w->config);
    w->keeper.ring = p->shared->ring[w->number];
    w->limit_caller = (struct limit_caller){.table = p->shared->limits,
                                            .proc = p->shared->proc,
                                            .slot = p->slot,
                                            .incarnation = p->incarnation};
    /* Stream numbers of an earlier incarnation may still be in the ring. */
    w->keeper.stream = (uint64_t)p->incarnation << 40;
    w->routes = calloc(w->config->n_routes + 1, sizeof *w->routes);
    w->limits->state = calloc(w->config->n_limits + 1, sizeof *w->limits->state);
    if (!w->routes || !w->limits->state || !servers_open(w))
        return NULL;
    stats_open(w);
    request_id_init(&w->messages->ids);
    via_init(w);
    ops_init(w);
    return w;
}

struct worker *worker_open(const struct process *process)
{
    struct worker *w = worker_new(process);
    if (!w || !loop_open(w) || !budget_open(w))
        return NULL;
    budget_source(w, warm_rpc_step);
    budget_source(w, refresh_step);
    budget_source(w, warm_step);
    return w;
}

void worker_close(struct worker *w)
{
    compress_stored_stop(w);
    warm_rpc_close(w);
    accept_free(w);
    loop_close(w);
    warm_stop(w);
    refresh_close(w);
    budget_close(w);
    supervisor_link_close(w);
    access_close(w);
    if (w->reader)
        cache_reader_close(w->reader);
    free(w->routes);
    if (w->unread_stats)
        munmap(w->unread_stats, sizeof *w->unread_stats);
    limits_free(w);
    free(w->upstreams->servers[w->config->n_servers].row);
    free(w->upstreams->servers);
    worker_free(w);
}

int worker_run(const struct process *process)
{
    char title[32];
    snprintf(title, sizeof title, "worker %u", process->index);
    process_start(process, title);
    map_fault_install(process->shared, process->slot);
    struct worker *w = worker_open(process);
    if (!w) {
        log_error("worker: cannot start: %s", strerror(errno ? errno : ENOMEM));
        return 1;
    }
    if (access_open(w) < 0 || accept_start(w) < 0)
        return 1;
    reader_ready(w);
    warm_rpc_open(w);
    process_ready(process);
    warm_start(w);
    sandbox_enter_or_warn(SANDBOX_WORKER, w->config->sandbox);
    ev_run(w->loop, 0);
    worker_close(w);
    return 0;
}

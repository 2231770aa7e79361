/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * accept: connections come in, a few an iteration, and are counted against the two connection
 * limits: max_connections over the process table, max_connections_per_client over the shared table
 * of hashed addresses.
 *
 * Where a process may have fewer descriptors than max_connections needs, a worker takes as many
 * connections as it has room for, each with one to a backend, and answers the others with 503. Out
 * of descriptors for another reason: a reserve one is given up to accept and close one, so that the
 * kernel's queue moves, and listening pauses for a moment.
 */
#include "daemons/worker/client/client.h"
#include "daemons/net/listener.h"
#include "daemons/worker/worker.h"
#include "polder/inval.h"
#include "polder/log.h"
#include "polder/proc.h"
#include "polder/shared.h"
#include "polder/stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPTS_A_WAKE 8
#define PAUSE_S        0.05
#define WARN_MS        1000
#define PENDING_MAX    4096 /* a listen queue */
#define FILES_SPARE    16   /* for the store, logs and sockets that are opened now and then */

struct accept {
    int reserve;        /* a descriptor to be given up */
    uint32_t files_max; /* descriptors for clients and backends together */
    unsigned looked_at; /* iteration of the loop in which the table of processes was ... */
    uint32_t others;    /* ... with so many open connections of other workers ... */
    uint32_t n_rows;    /* ... and these rows of shared.clients in use, ours too */
    uint8_t row[PROC_WORKER_SLOTS];
    uint64_t quiet_until_ms; /* it has just been said that there are no descriptors */
    uint32_t n_listeners;
    struct listener listener[];
};

static bool process_lives(const struct proc_slot *slot)
{
    const uint32_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
    return state == PROC_STARTING || state == PROC_READY || state == PROC_DRAINING;
}

/* Which workers there are, and what they have: 16 KiB to look through, so once an iteration. A
 * worker is in the table long before it accepts. */
static void look_round(const struct worker *w)
{
    struct accept *a = w->clients->accept;
    const unsigned now = ev_iteration(w->loop);
    if (a->looked_at == now)
        return;
    a->looked_at = now;
    a->others = a->n_rows = 0;
    for (uint32_t i = 0; i < PROC_WORKER_SLOTS; i++) {
        const struct proc_slot *slot = &w->shared->proc->slot[PROC_SLOT_WORKER0 + i];
        if (!process_lives(slot))
            continue;
        a->row[a->n_rows++] = (uint8_t)i;
        if (slot != w->slot)
            a->others += atomic_load_explicit(&slot->connections, memory_order_relaxed);
    }
}

static void on_exhausted(void *arg)
{
    struct worker *w = arg;
    struct accept *a = w->clients->accept;
    if (w->mono_ms < a->quiet_until_ms)
        return;
    a->quiet_until_ms = w->mono_ms + WARN_MS;
    log_warning("worker: out of descriptors with %u connections; raise LimitNOFILE or lower "
                "max_connections",
                w->clients->n);
}

/* Those that it has at its start are numbered from 0. */
static void count_descriptors(struct worker *w)
{
    struct rlimit r;
    w->clients->accept->files_max = UINT32_MAX;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur > UINT32_MAX)
        return;
    const uint64_t own =
        (uint64_t)(w->clients->accept->reserve < 0 ? 0 : w->clients->accept->reserve) + FILES_SPARE;
    w->clients->accept->files_max = r.rlim_cur > own + 2 ? (uint32_t)(r.rlim_cur - own) : 2;
    if (w->clients->accept->files_max / 2 < w->config->connections_wanted)
        log_warning("worker: this process has room for %u connections of max_connections = %u with "
                    "%llu descriptors; further ones get 503; raise LimitNOFILE",
                    w->clients->accept->files_max / 2, w->config->max_connections,
                    (unsigned long long)r.rlim_cur);
}

/* Further ones, also those that linger, would take descriptors that backends need for these. */
static bool is_crowded(const struct worker *w)
{
    return w->clients->n >= w->clients->accept->files_max / 2;
}

static bool has_room(const struct worker *w)
{
    look_round(w);
    return w->clients->accept->others + clients_open(w) < w->config->max_connections &&
           !is_crowded(w);
}

/* Over the limit of all connections: the answer goes out before anything was read. */
static void refuse(struct worker *w, int fd, const struct clientip *peer)
{
    const bool crowded = is_crowded(w);
    struct client *c = client_new(w, &socket_transport, fd, peer);
    stats_add(w->stats, STATS_CONNECTIONS_REFUSED, 1);
    if (!c) {
        close(fd);
        return;
    }
    c->refused = true;
    c->note.limit = "max_connections";
    if (crowded) /* or closing at once would be a reset, which may destroy the answer */
        (void)!recv(fd, w->clients->buffer, sizeof w->clients->buffer, 0);
    w->clients->ops->refused(c, "");
    if (crowded)
        client_close(c);
    w->clients->ops->begin(c);
}

static void on_accepted(void *arg, int fd, const struct sockaddr *sa)
{
    struct worker *w = arg;
    struct clientip peer;
    clientip_from_sockaddr(&peer, sa);
    if (!has_room(w)) {
        refuse(w, fd, &peer);
        return;
    }
    struct client *c = client_new(w, &socket_transport, fd, &peer);
    if (!c) {
        close(fd);
        return;
    }
    stats_add(w->stats, STATS_CONNECTIONS, 1);
    if (!w->config->proxy_protocol)
        accept_admit(c, &peer);
    w->clients->ops->begin(c);
}

static void listen_on(struct worker *w, int fd)
{
    struct listener *l = &w->clients->accept->listener[w->clients->accept->n_listeners++];
    listener_init(l, w->loop, on_accepted, w);
    l->at_once = ACCEPTS_A_WAKE;
    l->pause_s = PAUSE_S;
    l->reserve = &w->clients->accept->reserve;
    l->exhausted = on_exhausted;
    listener_open_socket(l, fd);
}

int accept_start(struct worker *w)
{
    const struct process *p = w->process;
    w->clients->accept = calloc(1, sizeof *w->clients->accept +
                                       p->n_listeners * sizeof *w->clients->accept->listener);
    if (!w->clients->accept)
        return -ENOMEM;
    w->clients->accept->looked_at = ev_iteration(w->loop) - 1;
    w->clients->accept->reserve = listener_reserve_open();
    count_descriptors(w);
    memset(w->shared->clients[w->number], 0, sizeof *w->shared->clients);
    for (uint32_t i = 0; i < p->n_listeners; i++) {
        const struct process_listener *l = &p->listeners[i];
        if (l->worker == UINT32_MAX || l->worker % p->workers == p->index)
            listen_on(w, l->fd);
        else
            close(l->fd); /* another worker's: it must be able to end without us */
    }
    return 0;
}

/* The sockets are let go of. When the service stops, ours was the last hold on them, and the kernel
 * refuses what comes now, so that it goes elsewhere; after a reload, or where systemd holds them
 * too, others accept. */
void accept_stop(struct worker *w, bool drain)
{
    struct accept *a = w->clients->accept;
    for (uint32_t i = 0; a && i < a->n_listeners; i++) {
        if (drain)
            listener_drain(&a->listener[i], PENDING_MAX);
        listener_close(&a->listener[i]);
    }
    atomic_store(&w->slot->accepts_no_more, 1);
    shared_wake_master(w->shared); /* a reload waits for that */
}

void accept_free(struct worker *w)
{
    struct accept *a = w->clients->accept;
    for (uint32_t i = 0; a && i < a->n_listeners; i++)
        listener_close(&a->listener[i]);
    free(a);
    w->clients->accept = NULL;
}

/* ---- max_connections_per_client ---- */

/* The two cells of a client; never the same one, in which each connection would count twice. */
static void cells_of(const struct worker *w, const struct clientip *ip, uint32_t cell[2])
{
    const uint64_t hash = clientip_hash(ip, inval_secret(w->shared->inval));
    cell[0] = (uint32_t)hash % SHARED_CLIENT_CELLS;
    cell[1] =
        (cell[0] + 1 + (uint32_t)(hash >> 32) % (SHARED_CLIENT_CELLS - 1)) % SHARED_CLIENT_CELLS;
}

static void cell_add(struct worker *w, uint32_t cell, int n)
{
    _Atomic uint16_t *word = &w->shared->clients[w->number][cell];
    /* seq_cst: of two workers that admit at once, one at least sees the other */
    atomic_fetch_add(word, (uint16_t)n);
}

static uint32_t cell_sum(const struct worker *w, uint32_t cell)
{
    const struct accept *a = w->clients->accept;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < a->n_rows; i++)
        sum += atomic_load(&w->shared->clients[a->row[i]][cell]);
    return sum;
}

bool accept_admit(struct client *c, const struct clientip *ip)
{
    struct worker *w = c->worker;
    if (clientip_in(ip, w->config->trusted_proxies, w->config->n_trusted_proxies))
        return true; /* a proxy carries many clients */
    uint32_t cell[2];
    look_round(w);
    cells_of(w, ip, cell);
    for (int i = 0; i < 2; i++) {
        cell_add(w, cell[i], 1);
        c->cell[i] = (uint16_t)(cell[i] + 1);
    }
    if (cell_sum(w, cell[0]) <= w->config->max_connections_per_client ||
        cell_sum(w, cell[1]) <= w->config->max_connections_per_client)
        return true;
    accept_dismiss(c);
    stats_add(w->stats, STATS_CONNECTIONS_REFUSED, 1);
    c->note.limit = "max_connections_per_client";
    w->clients->ops->refused(c, ",\"reason\":\"too many connections of one client\"");
    return false;
}

void accept_dismiss(struct client *c)
{
    for (int i = 0; i < 2; i++) {
        if (c->cell[i])
            cell_add(c->worker, c->cell[i] - 1u, -1);
        c->cell[i] = 0;
    }
}

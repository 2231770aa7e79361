/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * worker: the process that speaks HTTP. Private to daemons/worker.
 *
 * The steps of a request are the table in request/steps.c. By folder, from the bottom up; none uses
 * one above it (tests/layering.sh):
 *
 *   (here)       buffer.h, permit.h (the right to fetch for all), reader.h (the store as it is
 *                read), keeper_link.h and supervisor_link.h (what goes there), uncounted.h
 *   client/      connections: accept.c takes one, client_read.c reads heads and bodies into the
 *                worker's one buffer and keeps what is left over in a pooled one, client.c writes,
 *                client_leave.c notices that it goes. An idle one owns no buffer. It tells what
 *                happens through client_ops.
 *   message/     what a request says (request.h): identity.c, key_text.c, origin.c, via.c, and its
 *                name and line in the log: request_id.c, access.c
 *   cache/       the store: lookup.c judges what stored.c finds, deliver.c writes it, without an
 *                allocation, a lock, a look at the clock; stale.c; compress_stored.c
 *   fetch/       backends: miss.c lets one fetch for all, collapse.c lets the others wait; fetch.c
 *                links a client with a connection (upstream.c, pool.c; upstream_ops), retry.c and
 *                retry_queue.c choose a server, request_body.c sends, response_read.c reads,
 *                headers.c and request_head.c write heads, store.c and partial.c keep what may,
 *                revalidate.c judges what renews it, error_backoff.c remembers failures. It tells
 *                of each fetch through fetch_ops and fetch_watcher.
 *   request/     steps.c, and its steps that are no other folder's: repeat.c, identify.c, locate.c,
 *                websocket.c, limits.c, prepare.c, long_poll.c; replay.c and probe.c
 *   background/  fetches that no client waits for: budget.c bounds refresh.c, warm.c,
 *                warm_rpc.c
 *   leak_guard/  checks after some hits whether their content depends on the identity
 *   (here)       client_events.c says which part takes what connections and hits tell (client_ops,
 *                hit_ops, hold_ops); route_settings.c, loop.c, parts.c, main.c
 *
 * Each part has its state in a struct of its own, which it alone writes; struct worker has what all
 * of them work with, and where these are.
 *
 * Ownership: the worker owns clients, fetches and backend connections; a client has at most one
 * fetch, a fetch at most one backend connection; each of them is freed only at the end of an
 * iteration (loop.c, free_the_dead), so a callback never loses what it works on. A fetch may outlive
 * its client (it goes on into the store) and may begin without one (background revalidation).
 * Back-pressure: where more than WORKER_HIGH bytes wait to be written, the other leg is not read.
 */
#ifndef POLDER_WORKER_H
#define POLDER_WORKER_H
#include "daemons/http/h1.h"
#include "daemons/net/timer_wheel.h"
#include "daemons/worker/buffer.h"
#include "daemons/worker/keeper_link.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/supervisor_link.h"
#include "polder/config.h"
#include "polder/limit.h"
#include "polder/process.h"
#include "polder/runtime.h"
#include "polder/shared.h"
#include "polder/stats.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct background;
struct cache_reader;
struct clients;
struct fetches;
struct guard_checks;
struct limits;
struct long_polls;
struct lookups;
struct loop_watchers;
struct messages;
struct proc_slot;
struct repeats;
struct route_state;
struct texts;
struct upstreams;

struct worker_date {
    int64_t s;
    char line[48]; /* "Date: …\r\n" */
    uint32_t len;
};

/* What all parts use, and the state of each, which that part alone writes. */
struct worker {
    const struct process *process;
    struct shared *shared;
    const struct config *config;
    struct ev_loop *loop;
    int epoll_fd; /* of the loop */
    struct proc_slot *slot;
    struct stats_slab *stats;
    struct stats_slab *unread_stats; /* uncounted.h; NULL: never needed */
    uint32_t number;                 /* worker slot, 0.. */

    /* ---- loop.c, route_settings.c ---- */
    uint64_t mono_ms, real_ms; /* of this iteration */
    struct worker_date date;
    struct runtime_values runtime;
    uint64_t generation; /* of all that repeats depend on */
    bool draining;
    bool drained; /* as proc_table.drained says, see loop.c */
    uint64_t drain_until_ms;
    struct loop_watchers *watchers;

    /* ---- what all stand on ---- */
    struct timer_wheel wheel;
    struct buffer_pool buffers;
    struct limit_caller limit_caller;
    struct cache_reader *reader; /* reader.h; NULL: there is no store yet */
    struct reader_state reader_state;
    struct keeper_link keeper;
    struct supervisor_link supervisor;

    /* ---- the parts, from the client's connection up ---- */
    struct clients *clients;           /* client/client.h */
    struct messages *messages;         /* message/messages.h */
    struct texts *texts;               /* message/messages.h */
    struct route_state *routes;        /* message/route_state.h; by config_route.index */
    struct upstreams *upstreams;       /* fetch/upstream.h */
    struct fetches *fetches;           /* fetch/fetch.h */
    struct lookups *lookups;           /* cache/lookup.h */
    struct limits *limits;             /* request/limits.h */
    struct repeats *repeats;           /* request/repeat.h */
    struct long_polls *long_polls;     /* request/long_poll.h */
    struct background *background;     /* background/budget.h */
    struct guard_checks *guard_checks; /* leak_guard/leak_guard.h */

    struct h1_head head; /* of the request that is being looked at now */
};

/* parts.c: a worker, all zero, with the state of its parts. NULL: no memory. */
struct worker *worker_alloc(void);
void worker_free(struct worker *w);

/* main.c: all of a worker but its listeners, its access log and the store; NULL: errno says why. */
struct worker *worker_open(const struct process *process);
void worker_close(struct worker *w);

struct ev_loop *loop_open(struct worker *w);
void loop_close(struct worker *w);

#endif

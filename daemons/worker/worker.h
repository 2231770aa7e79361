/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * worker: the process that speaks HTTP. Private to daemons/worker.
 *
 * The way of a request, by file:
 *
 *   accept.c        a connection becomes a struct client (client.c), with a PROXY header
 *                   (proxy_protocol.c)
 *   client_leave.c  ends its request when it goes before it is answered
 *   client_read.c   bytes are read into the loop's one shared buffer and parsed in place; what is
 *                   left over moves to a pooled buffer. An idle connection owns no buffer.
 *   request.c       a parsed head finds its route, who asks (clientip), its limits (limits.c), and
 *                   goes
 *       lookup.c         answered from the store: no allocation, no lock, no clock (stored.c finds,
 *                        deliver.c writes)
 *       miss.c           one of those who want it fetches, the others wait (collapse.c)
 *       upstream.c       straight to a backend
 *       long_poll.c      told later, when what the client has changes (Prefer: wait)
 *       error_backoff.c  answered with what is stale, for the backend has just failed
 *       leak_guard.c     asks behind some hits whether their content depends on who asks
 *       websocket.c      a WebSocket: its socket moves to polder-supervisor
 *   budget.c        bounds what is fetched before anybody waits for it: refresh.c, warm.c,
 *                   warm_rpc.c
 *   access.c        its line in the access log, when its answer is out; request_id.c its name
 *   fetch.c         a struct fetch links a client with a connection to a backend (upstream.c,
 *                   pool.c); request_body.c sends what its request brings, response_read.c reads
 *                   what comes back, headers.c writes heads, store.c tees what may be stored into
 *                   the keeper's ring, with its tags (tags.c, origin.c); revalidate.c judges what
 *                   renews it, partial.c keeps parts of bodies.
 *
 * What a connection tells the parts above it goes through tables, so that none of them is known
 * below: client_events.c (client_ops, hit_ops, hold_ops) and fetch_events.c (upstream_ops). A fetch
 * that waits carries what it waits in and goes on with (fetch_queue), and who watches it
 * (fetch_watcher). permit.c has the right to fetch for all, keeper_link.c what goes to the keeper,
 * reader.c the store as it is read.
 *
 * Each subject has its header, which says what its files promise: buffer.h and net/timer_wheel.h, client.h
 * and repeat.h, request.h and limits.h, lookup.h, compress_stored.h and long_poll.h, miss.h and
 * fetch.h, upstream.h, headers.h, store.h and partial.h, leak_guard.h, budget.h. Here is what they
 * all work for: struct worker and the loop.
 *
 * Ownership: the worker owns clients, exchanges and backend connections; a client has at most one
 * exchange, an exchange at most one backend connection; each of them is freed only at the end of an
 * iteration (loop.c, graveyard), so a callback never loses what it works on. An exchange may
 * outlive its client (the fetch goes on into the store) and may be born without one (background
 * revalidation). Back-pressure: who cannot be written to more than WORKER_HIGH bytes ahead is not
 * read for, on both legs.
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

/* What all parts work with, and the state of each, which that part alone writes. */
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

    /* ---- loop.c, settings.c ---- */
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
void loop_time(struct worker *w);
void loop_drain(struct worker *w);

#endif

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
#include "daemons/worker/buffer.h"
#include "daemons/worker/fetch/error_backoff.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/message/recent_note.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/net/timer_wheel.h"
#include "polder/access_log.h"
#include "polder/config.h"
#include "polder/field.h"
#include "polder/leak_guard.h"
#include "polder/limit.h"
#include "polder/limit_top.h"
#include "polder/limit_try.h"
#include "polder/policy.h"
#include "polder/process.h"
#include "polder/runtime.h"
#include "polder/shared.h"
#include "polder/stats.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct accept;
struct budget;
struct warm_rpc;
struct cache_reader;
struct client;
struct client_ops;
struct compress_state;
struct fetch;
struct fetch_ops;
struct guard_check;
struct hit_ops;
struct hold_ops;
struct repeat;
struct proc_slot;
struct refresh;
struct ring;
struct server_local;
struct compress_stored;
struct upstream;
struct upstream_ops;
struct warm;
struct watch;

#define WORKER_SCRATCH (40u << 10) /* a head of H1_HEAD_MAX and all that we add to it */
#define WORKER_URL_MAX (H1_TARGET_MAX * 3 + 1024)

struct route_state {
    uint32_t stats_row; /* route_stats.h; behind the last route: of none */
    struct policy_settings settings;
    struct identity_rules identity;
    struct identity_counts identity_counts;
    bool hinted_upgrade; /* hints.h */
    struct guard_route *guard;
    uint32_t guard_left;             /* hits until one is looked at */
    uint32_t guard_step, guard_most; /* what it starts from next, and in the end; most 0: off */
    uint64_t guard_again_ms;         /* not before */
    char guard_detail[GUARD_NAMES + 64];
};

struct worker {
    const struct process *process;
    struct shared *shared;
    const struct config *config;
    struct ev_loop *loop;
    int epoll_fd;
    struct proc_slot *slot;
    struct stats_slab *stats;
    struct stats_slab *unread_stats; /* uncounted.h; NULL: never needed */
    struct ring *ring;
    uint32_t number; /* worker slot, 0.. */

    ev_prepare prepare;
    ev_check check;
    ev_timer beat;
    ev_io event;
    ev_io leave; /* the epoll set of client_leave.c */
    ev_signal term;

    uint64_t mono_ms, real_ms;
    int64_t date_s;
    char date[48]; /* "Date: …\r\n" */
    uint32_t date_len;

    struct runtime_values runtime;
    uint64_t runtime_generation;
    uint64_t generation; /* of all that repeats depend on */
    struct route_state *routes;
    struct limit_state *limits;
    struct limit_caller limit_caller;
    struct limit_top_sampler top, poll_top;
    uint8_t n_shadows; /* candidates that are charged beside limits, now */
    bool any_cache;
    bool any_subscribers;   /* a WebSocket route without a backend */
    bool resync_supervisor; /* the supervisor has not been told of everything */

    struct timer_wheel wheel;
    struct buffer_pool buffers;

    struct accept *accept;  /* NULL: not begun */
    uint64_t proxy_warn_ms; /* no line about missing PROXY headers before */
    bool draining;
    bool drained; /* as proc_table.drained says, see loop.c */
    uint64_t drain_until_ms;

    const struct client_ops *client_ops;
    LIST_HEAD(, client) clients;
    SLIST_HEAD(, client) ready; /* looked at again before the loop sleeps */
    uint32_t n_clients, n_lingering;
    LIST_HEAD(, client) dead_clients;
    struct fetch *dead_fetches;
    LIST_HEAD(, upstream) dead_upstreams;
    struct fetch *waiters;
    struct fetch *retry_queue, **retry_queue_tail; /* oldest first */
    ev_timer retry_queue_timer;
    struct repeat *repeats, **repeats_tail;
    uint32_t n_repeats;
    const struct hit_ops *hit_ops;   /* lookup.h */
    const struct hold_ops *hold_ops; /* lookup.h */
    struct watch **watches;          /* by key; NULL: never needed */
    struct watch *new_watches, *dead_watches;
    uint32_t n_watches, n_held;
    struct budget *budget;
    struct refresh *refresh;   /* NULL: nothing was due yet */
    struct warm *warm;         /* NULL: not this worker's */
    struct warm_rpc *warm_rpc; /* NULL: not this worker's, or not open yet */
    uint64_t warm_rpc_again_ms;
    struct compress_stored *compress_stored;
    struct compress_state *compress; /* NULL: nothing was compressed yet */
    struct guard_check *checks;
    uint32_t n_checks;
    bool guard_due; /* some check waits for its next step */
    ev_timer scan;  /* looks at all watches a little later */
    double scanned_s;
    uint64_t request_bytes;  /* of bodies that wait to be sent (request_body.c) */
    uint32_t n_busy, n_idle; /* backend connections */
    uint32_t n_changes;      /* requests whose client has left, for what their answer invalidates */

    const struct upstream_ops *upstream_ops; /* of fetches */
    const struct fetch_ops *fetch_ops;
    struct server_local *servers; /* by config_server.index; the last one is ops */
    struct config_upstream ops_upstream;
    struct config_server ops_server;

    struct cache_reader *reader;
    bool cache_ready, cache_asked; /* this iteration */
    uint64_t reader_again_ms;
    uint64_t stream; /* number of the last stream to the keeper */
    uint64_t aborts[32];
    uint32_t n_aborts;
    uint64_t hit_ns; /* what a hit took when last measured */
    uint32_t hit_sample;
    uint64_t chance; /* a sequence of random-looking numbers, one a hit */

    struct request_ids ids;
    char via[72];   /* our name in Via */
    int supervisor; /* handover socket; -1 */
    uint64_t supervisor_again_ms, supervisor_warn_ms;

    struct limit_shadow shadows[LIMIT_TRY_SLOTS]; /* n_shadows of them */
    struct failed failed[ERROR_BACKOFF_PLACES];   /* by key */

    struct access_log log;
    struct recent_notes recent; /* for those who watch */
    ev_io channel;              /* from the master */

    struct h1_head head, response; /* being looked at now */
    char limit_text[2048];
    char url[WORKER_URL_MAX], reference[WORKER_URL_MAX], partition[4096];
    char target[H1_TARGET_MAX + 1];
    char tags_asked_for[H1_HEAD_MAX]; /* of an If-None-Match in several lines */
    char scratch[WORKER_SCRATCH];
    char client_buffer[WORKER_BUFFER], upstream_buffer[WORKER_BUFFER];
};

/* Those that are refused or only waited for to close do not count. */
static inline uint32_t loop_open_clients(const struct worker *w)
{
    return w->n_clients - w->n_lingering;
}
/* main.c: all of a worker but its listeners, its access log and the store; NULL: errno says why. */
struct worker *worker_open(const struct process *process);
void worker_close(struct worker *w);
struct ev_loop *loop_open(struct worker *w);
void loop_close(struct worker *w);
void loop_time(struct worker *w);
void loop_drain(struct worker *w);

#endif

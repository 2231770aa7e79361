/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upstream: connections to backends.
 *
 *   upstream.c  a connection: connects, reads, writes, ends
 *   pool.c      which server gets the next request, and idle connections
 *   keep_alive.c  for how long an idle one may be used
 *
 * The worker owns them; a busy one reports to its user through upstream_ops; an idle one is in its
 * server's list.
 */
#ifndef POLDER_WORKER_FETCH_UPSTREAM_H
#define POLDER_WORKER_FETCH_UPSTREAM_H
#include "daemons/http/h1.h"
#include "daemons/net/transport.h"
#include "daemons/worker/buffer.h"
#include "daemons/net/timer_wheel.h"
#include "polder/config.h"
#include "daemons/worker/worker.h"
#include "polder/server_load.h"
#include "polder/server_state.h"
#include "polder/stats.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

struct upstream_error;
struct worker;

/* Callbacks to the user of a connection. Each may close the connection or hand it back; its memory
 * is then freed at the end of the iteration. */
struct upstream_ops {
    void (*connected)(void *user);
    void (*unconnected)(void *user, const struct upstream_error *e); /* takes no connection */
    /* It has broken, or was silent for too long, before the response was whole. */
    void (*failed)(void *user, const struct upstream_error *e, bool timeout);
    /* Bytes of the response, which may be moved about; returns how many were used (part of a head
     * is left). */
    size_t (*readable)(void *user, char *at, size_t len);
    bool (*ended)(void *user);         /* FIN; false: the response is not whole */
    void (*writable)(void *user);      /* takes more of the request */
    void (*out_of_memory)(void *user); /* for what is left of a head */
    bool (*is_slow)(const void *user); /* the client has to send more before the backend can */
    void (*closed)(void *user);        /* it is gone; not told when it is handed back */
};

enum upstream_state { UPSTREAM_CONNECTING, UPSTREAM_BUSY, UPSTREAM_IDLE, UPSTREAM_CLOSED };
#define UPSTREAM_URL 504
struct upstream {
    struct transport transport;
    struct timer timer;
    struct worker *worker;
    const struct upstream_ops *ops;
    void *user; /* NULL: idle */
    const struct config_server *server;
    struct server_address at;   /* of a name: the address, and ... */
    uint64_t addresses;         /* ... the list in which it was found last */
    TAILQ_ENTRY(upstream) idle; /* its server's idle ones */
    LIST_ENTRY(upstream) entry; /* upstreams.dead */
    struct buffer *in;          /* part of a response head */
    struct chain out;
    struct h1_body body;
    char *trailer; /* of a chunked response */
    size_t scanned;
    uint64_t progress_ms;
    uint64_t until_ms; /* no response head by then: it is given up; 0: its server's time */
    uint32_t keep_ms;  /* for how long it may be kept after its response; 0: not at all */
    uint8_t state;
    uint16_t stored_len;       /* of what was stored last over it; 0: nothing */
    char stored[UPSTREAM_URL]; /* its URL, for upstream_distrust() */
    bool reused, got_bytes, keep_alive;
    bool in_body;       /* the response's head has come */
    bool drained;       /* the last read took all that had come ... */
    unsigned read_at;   /* ... in this iteration of the loop */
    bool paused;        /* not read: the client is slow */
    bool deaf;          /* takes no more of the request */
    bool event_stream;  /* its response is one */
    bool uncounted;     /* it works for a probe (uncounted.h) */
    bool chunk_request; /* the request's body goes out in chunks */
};

/* ---- upstream.c ---- */
/* Assigns it to the user, which wants the response's head by until_ms (0: no limit).
 */
void upstream_attach(struct upstream *u, const struct upstream_ops *ops, void *user,
                     uint64_t until_ms);
void upstream_free(struct upstream *u);
void upstream_close(struct upstream *u);
/* Remembers what an answer over it was stored for; a connection for which that is too long is not
 * used again. */
void upstream_stores(struct upstream *u, const char *url, size_t len);
/* Unsolicited bytes came: the last answer may have been the one before it, or its rest. What was
 * stored from it is invalidated. */
void upstream_distrust(struct upstream *u);
void upstream_resume(struct upstream *u);   /* read again, where it was paused; NULL: none */
void upstream_progress(struct upstream *u); /* its time starts again */
void upstream_keep_trailer(struct upstream *u);
void upstream_leave_idle(struct upstream *u); /* the list of its server */
void upstream_send(struct upstream *u, const struct iovec *iov, unsigned n);
/* Why there is no connection, or no response. what: a clause about the server, for the log. */
struct upstream_error {
    enum server_reason reason; /* SERVER_NONE: it is not the server's fault */
    char what[160];
};
void upstream_error(struct upstream_error *e, enum server_reason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* To the address of the server that this worker uses now. NULL: *e says why. */
struct upstream *upstream_connect(struct worker *w, const struct config_server *server,
                                  struct upstream_error *e);
uint32_t upstream_addresses(const struct worker *w, const struct config_server *server);
void upstream_next_address(struct worker *w, const struct config_server *server);
/* Its address is none of its server's name any more. */
bool upstream_has_left(struct upstream *u);

/* ---- pool.c ---- */
/* This worker's state of a server. */
struct server_local {
    struct server_row *row;                /* its shared row; never NULL */
    struct server_loads loads;             /* what is under way there, over all workers */
    struct server_load alone;              /* the same where the table has no row for it */
    uint32_t stats_row;                    /* server_stats() */
    const struct transport_ops *transport; /* of connections to it */
    uint32_t address;           /* the one in use, of those of its name: its place, ... */
    struct server_address at;   /* ... itself, where one has been used, ... */
    uint64_t addresses;         /* ... and the list in which that place is */
    uint64_t retry_queue_bytes; /* of its upstream's first server: what waits for any of them */
    uint32_t waiting;
    uint64_t room_blocked[2]; /* the same: the turn in which none of them finds room (a retry) */
    TAILQ_HEAD(idle_list, upstream) idle; /* last used first */
    uint32_t n_idle, n_open;              /* connections: those, and all */
    uint32_t peak, peak_before; /* most of them in use at once, in this span of time and the last */
    uint64_t peak_ms;           /* when this one began */
    uint64_t single_until_ms;   /* until then each connection serves one request */
    int64_t turn;               /* as servers take them */
};
/* All of a worker's. */
struct upstreams {
    LIST_HEAD(, upstream) dead;
    uint32_t n_busy, n_idle;
    struct server_local *servers; /* by config_server.index; the last one is ops */
    struct config_upstream ops;
    struct config_server ops_server;
    char buffer[WORKER_BUFFER];
};
static inline struct stats_server_row *server_stats(const struct worker *w,
                                                    const struct config_server *server)
{
    return &w->stats->server[w->upstreams->servers[server->index].stats_row];
}
struct pool_request {
    const struct config_upstream *upstream;
    uint64_t tried;  /* never these */
    uint64_t avoid;  /* these only if no other is up */
    bool repeatable; /* a failure can be retried elsewhere */
    const struct sticky_key *sticky;
};
struct pool_choice {
    const struct config_server *server;
    uint64_t lease_ms; /* it is a trial of a server that is down, until then; 0 */
    bool is_down;      /* and is asked because no other is up */
};
enum pool_result {
    POOL_NONE,   /* no server is left */
    POOL_CHOSEN, /* the request counts as under way at choice.server until pool_leave() */
    POOL_FULL,   /* all that are left have as many requests as they may */
};
enum pool_result pool_choose(struct worker *w, const struct pool_request *wanted,
                             struct pool_choice *choice);
void pool_leave(struct worker *w, const struct config_server *server);
/* Where the counts of a whole upstream are. */
struct server_loads *pool_loads(const struct worker *w, const struct config_upstream *upstream);
bool pool_is_bounded(const struct config_upstream *upstream); /* a server has max_connections */
bool pool_any_down(const struct worker *w, const struct config_upstream *upstream);
uint64_t pool_bit(const struct config_upstream *upstream, const struct config_server *server);
/* An attempt has failed, or its response has begun. lease_ms: of the trial; 0: it was none. trial:
 * it was one, or the server was asked because no other was up. */
void pool_failed(struct worker *w, const struct config_server *server, enum server_reason reason,
                 const char *what, uint64_t lease_ms);
void pool_answered(struct worker *w, const struct config_server *server, unsigned status,
                   bool trial);
/* An idle connection to the server, NULL: none. look: asks the kernel for unsolicited bytes;
 * otherwise only what the loop has reported counts. repeatable: it may be an old one, because a
 * request that it loses is sent again. */
struct upstream *pool_take(struct worker *w, const struct config_server *server, bool look,
                           bool repeatable);
void pool_opened(struct upstream *u); /* a new one is in use */
void pool_keep(struct upstream *u);   /* its user is done with it */
void pool_close_idle(struct worker *w);
void pool_close_left(struct server_local *state); /* those to addresses that have left */
/* Unsolicited bytes came over it, and its server may send more: for a while, no connection to that
 * server is used twice, because such bytes would be taken for the answer to the next request. */
void pool_mistrust(struct upstream *u);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upstream: connections to backends.
 *
 *   upstream.c  one of them: connects, reads, writes, ends
 *   pool.c      which server gets the next request, and the connections that are kept
 *
 * The worker owns them; a busy one belongs to its exchange, an idle one lies in its server's list.
 */
#ifndef POLDER_WORKER_FETCH_UPSTREAM_H
#define POLDER_WORKER_FETCH_UPSTREAM_H
#include "daemons/http/h1.h"
#include "daemons/worker/buffer.h"
#include "daemons/worker/timer.h"
#include "polder/config.h"
#include "polder/server_state.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct fetch;
struct worker;

enum upstream_state { UPSTREAM_CONNECTING, UPSTREAM_BUSY, UPSTREAM_IDLE, UPSTREAM_CLOSED };
#define UPSTREAM_URL 504
struct upstream {
    ev_io read, write;
    struct timer timer;
    struct worker *worker;
    struct fetch *exchange;
    const struct config_server *server;
    struct upstream *next, **link; /* the server's idle list, or the graveyard (next) */
    struct buffer *in;             /* part of a response head */
    struct chain out;
    struct h1_body body;
    char *trailer; /* of a chunked response */
    size_t scanned;
    uint64_t progress_ms;
    uint8_t state;
    uint16_t stored_len;       /* of what was stored last over it; 0: nothing */
    char stored[UPSTREAM_URL]; /* its URL, for upstream_distrust() */
    bool reused, got_bytes, keep_alive;
    bool paused;        /* not read: the client is slow */
    bool deaf;          /* takes no more of the request */
    bool event_stream;  /* its response is one */
    bool chunk_request; /* the request's body goes out in chunks */
};

/* ---- upstream.c ---- */
void upstream_free(struct upstream *u);
void upstream_close(struct upstream *u);
/* Remembers what an answer over it was stored for; a connection for which that is too long is not
 * used again. */
void upstream_stores(struct upstream *u, const char *url, size_t len);
/* Bytes came that nobody asked for: the last answer may have been the one before it, or its rest.
 * What was stored of it is invalidated. */
void upstream_distrust(struct upstream *u);
void upstream_progress(struct upstream *u); /* its time starts again */
void upstream_arm(struct upstream *u);      /* its timer, after exchange.until_ms has changed */
void upstream_keep_trailer(struct upstream *u);
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

/* ---- pool.c ---- */
/* What this worker has of a server. */
struct server_local {
    struct server_row *row;     /* what all know of it; never NULL */
    uint32_t address;           /* the one in use, of those of its name */
    uint64_t retry_queue_bytes; /* of its upstream's first server: what waits for any of them */
    uint32_t waiting;
    struct upstream *idle; /* last used first */
    int64_t current;       /* smooth weighted round robin */
};
struct pool_wish {
    const struct config_upstream *upstream;
    uint64_t tried;  /* never these */
    uint64_t avoid;  /* these only where nobody else is up */
    bool repeatable; /* a failure costs no client its answer */
};
struct pool_choice {
    const struct config_server *server;
    uint64_t lease_ms; /* it is a trial of a server that is down, until then; 0 */
    bool is_down;      /* and is asked for want of a better one */
};
bool pool_choose(struct worker *w, const struct pool_wish *wish, struct pool_choice *choice);
bool pool_any_down(const struct worker *w, const struct config_upstream *upstream);
uint64_t pool_bit(const struct config_upstream *upstream, const struct config_server *server);
/* An attempt has failed, or its response has begun. lease_ms: of the trial that it was; 0. */
void pool_failed(struct worker *w, const struct config_server *server, enum server_reason reason,
                 const char *what, uint64_t lease_ms);
void pool_answered(struct worker *w, const struct config_server *server);
struct upstream *pool_take(struct worker *w, const struct config_server *server);
void pool_keep(struct upstream *u);
void pool_forget(struct upstream *u); /* an idle one is being closed */
void pool_close_idle(struct worker *w);

#endif

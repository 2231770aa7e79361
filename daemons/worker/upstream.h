/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upstream: connections to backends.
 *
 *   upstream.c  one of them: connects, reads, writes, ends
 *   pool.c      which server gets the next request, and the connections that are kept
 *
 * The worker owns them; a busy one belongs to its exchange, an idle one lies in its server's list.
 */
#ifndef POLDER_WORKER_UPSTREAM_H
#define POLDER_WORKER_UPSTREAM_H
#include "daemons/http/h1.h"
#include "daemons/worker/buffer.h"
#include "daemons/worker/timer.h"
#include "polder/config.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct exchange;
struct worker;

enum upstream_state { UPSTREAM_CONNECTING, UPSTREAM_BUSY, UPSTREAM_IDLE, UPSTREAM_CLOSED };
struct upstream {
    ev_io read, write;
    struct timer timer;
    struct worker *worker;
    struct exchange *exchange;
    const struct config_server *server;
    struct upstream *next, **link; /* the server's idle list, or the graveyard (next) */
    struct buffer *in;             /* part of a response head */
    struct chain out;
    struct h1_body body;
    char *trailer; /* of a chunked response */
    size_t scanned;
    uint64_t progress_ms;
    uint8_t state;
    bool reused, got_bytes, keep_alive;
    bool paused;        /* not read: the client is slow */
    bool deaf;          /* takes no more of the request */
    bool chunk_request; /* the request's body goes out in chunks */
};

/* ---- upstream.c ---- */
void upstream_timeout(struct upstream *u);
void upstream_free(struct upstream *u);
void upstream_close(struct upstream *u);
void upstream_progress(struct upstream *u); /* its time starts again */
void upstream_keep_trailer(struct upstream *u);
void upstream_send(struct upstream *u, const struct iovec *iov, unsigned n);
struct upstream *upstream_connect(struct worker *w, const struct config_server *server);

/* ---- pool.c ---- */
struct server_state {
    uint64_t waiting_bytes; /* of its upstream's first server: what waits for any of them */
    uint32_t waiting;
    struct upstream *idle; /* last used first */
    int64_t current;       /* smooth weighted round robin */
    uint64_t failed_until_ms;
};
const struct config_server *pool_choose(struct worker *w, const struct config_upstream *upstream,
                                        uint64_t tried);
uint64_t pool_bit(const struct config_upstream *upstream, const struct config_server *server);
void pool_failed(struct worker *w, const struct config_server *server);
struct upstream *pool_take(struct worker *w, const struct config_server *server);
void pool_keep(struct upstream *u);
void pool_forget(struct upstream *u); /* an idle one is being closed */
void pool_close_idle(struct worker *w);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fetch: a request and its response, between a client and a connection to a backend; either may
 * be missing for a while.
 *
 *   fetch.c         its beginning and its end
 *   fetch_state.c   its states, and what is tied to it
 *   ask.c           its request goes out
 *   retry.c         which server it asks, and which one next
 *   response_read.c what comes back
 *   retry_queue.c   it waits while a backend restarts
 *   room_queue.c    it waits for room at a server, or for its second try
 *   fetch_events.c  events of its connection to a backend
 *   request_body.c  what its request brings behind the head
 *
 * The worker owns it. fetch_finish() detaches everything; the memory is freed at the end of the
 * iteration.
 */
#ifndef POLDER_WORKER_FETCH_FETCH_H
#define POLDER_WORKER_FETCH_FETCH_H
#include "daemons/http/h1.h"
#include "daemons/worker/fetch/error_backoff.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/fetch/request_body.h"
#include "daemons/worker/permit.h"
#include "daemons/net/timer_wheel.h"
#include "polder/cache.h"
#include "polder/config.h"
#include "polder/fetch_lock.h"
#include "polder/problem.h"
#include "polder/sticky.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct client;
struct compress_stream;
struct fetch_watcher;
struct stored_copy;
struct store_stream;
struct upstream;
struct upstream_error;
struct worker;

enum fetch_state {
    FETCH_NEW,
    FETCH_COLLAPSED, /* another request fetches */
    FETCH_BUFFERING, /* the request's body is waited for (request_body.c) */
    FETCH_CONNECT,   /* waiting for the connection */
    FETCH_WAITING,   /* for a backend that may be restarting (retry_queue.c), or room_queue.c */
    FETCH_HEAD,      /* request (head) sent, waiting for the final response head */
    FETCH_BODY,      /* relaying the response's body */
    FETCH_DONE,
    FETCH_STATES
};
/* Observes a fetch without being its client; embedded in the observer's struct. head, body, whole
 * and wants_more may be NULL. */
struct fetch_watcher_ops {
    void (*head)(struct fetch_watcher *at, const struct h1_head *head);
    void (*body)(struct fetch_watcher *at, const char *bytes, size_t len);
    void (*whole)(struct fetch_watcher *at);            /* the response has come to its end */
    bool (*wants_more)(const struct fetch_watcher *at); /* of a body that only this watcher wants */
    /* The fetch is over, for whatever reason, and no longer watched. */
    void (*done)(struct fetch_watcher *at, const struct fetch *ex);
};
struct fetch_watcher {
    const struct fetch_watcher_ops *ops;
    struct fetch *fetch; /* NULL: none is under way */
};
/* Events of every fetch, for the limit of background fetches. */
struct fetch_ops {
    void (*begun)(struct fetch *ex); /* it asks for a server */
    void (*ended)(struct fetch *ex);
    void (*answered)(struct fetch *ex, bool failure); /* a response's head is there */
    void (*failed)(struct fetch *ex);                 /* no server has answered */
};
/* A list in which a fetch waits; fetch.queue is set while it stands there. */
struct fetch_queue {
    void (*leave)(struct fetch *ex);   /* out of the list: it is over, or goes on */
    void (*timeout)(struct fetch *ex); /* its timer */
};
enum fetch_body { BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_TO_CLOSE };

struct fetch {
    struct request req; /* its pointers lead into bytes */
    struct worker *worker;
    struct upstream *up;
    const struct config_upstream *upstream;
    TAILQ_ENTRY(fetch) entry;         /* fetches.waiters, .askers or .retry_queue, then .dead */
    void (*let_go)(struct fetch *ex); /* before its client goes its way; NULL */
    const struct fetch_queue *queue;  /* NULL: it waits in none */
    void (*resume)(struct fetch *ex); /* what it goes on with, when what it waits for is there */
    const struct room_wait *room;     /* what it waits for in the room queue */
    struct timer timer;            /* waiters; how long others wait for it, or it goes on alone */
    struct permit permit;          /* it fetches for all requests that want the same */
    struct fetch_permit waits_for; /* another that does */
    struct cache_key lock_key;
    struct stored_copy *stale;     /* may answer if the backend cannot; its validators are sent */
    struct store_stream *store;    /* NULL: not being stored */
    struct fetch_watcher *watcher; /* NULL: none */
    struct compress_stream *compress; /* the body goes through it to the client; NULL: as it is */
    uint64_t fetch_seq;               /* inval_seq() before the request was sent */
    uint64_t fleet_epoch, fleet_applied; /* of polder/fleet.h, likewise */
    uint64_t sent_real_ms, sent_ns;
    uint64_t begun_ms;       /* asks for a server since then */
    uint64_t until_ms;       /* no head by then: it is given up; 0: each server has its time */
    uint64_t fleet_since_ms; /* asked the fleet's store then */
    uint64_t fleet_until_ms; /* its answer is waited for */
    struct fetch_permit fleet_permit;    /* under which it did, last */
    uint64_t waits_since_ms;             /* for another's fetch; 0: it never did */
    uint64_t lease_ms;                   /* of the trial of `server` that it is; 0 */
    const struct config_server *server;  /* asked now or last */
    const struct config_server *entered; /* where it counts as under way; NULL */
    uint64_t room_since_ms;              /* in the room queue since then; 0: it is not */
    uint64_t room_blocked;               /* the turn in which it has found no room */
    uint64_t wait_until_ms;   /* it has waited for a backend that restarts; 0: it has not */
    uint64_t alone_ms;        /* the client has left: when to give up; 0: it has not */
    const char *not_stored;   /* why, for Cache-Status; NULL: it is, or it was not for the store */
    struct sticky_key sticky; /* what keeps it at a server */
    uint64_t tried, avoid;    /* bit per server of the upstream (by position) */
    uint32_t head_unsent;     /* bytes of the response's head that wait in texts.scratch */
    uint64_t body_sent;       /* response body bytes the client got */
    uint16_t status;          /* sent to the client; 0: none yet */
    uint16_t answered;        /* the backend's status; 0: none yet */
    uint8_t state;            /* enum fetch_state; moved by fetch_move() alone */
    uint8_t fwd;              /* enum fwd_reason, for Cache-Status */
    uint8_t client_body;      /* enum fetch_body: how the client gets it */
    uint8_t rounds;           /* times that it has waited for another's */
    uint8_t interims;         /* 1xx that the backend has sent */
    uint8_t coding;           /* enum coding: of the answer, made here */
    bool stored_compressible; /* copies in codings will be kept of what is stored */
    bool compressible;        /* the answer depends on Accept-Encoding */
    bool length_unknown;      /* of the response's body, before it ends */
    bool for_store;      /* sent as a plain GET for the store: the client's conditions stay here */
    bool conditional;    /* sent with the stored validators */
    bool body_to_client; /* the client gets the body (not HEAD, not answered 304) */
    bool request_done;   /* the whole request has been handed to the backend connection */
    bool body_consumed;  /* body bytes went out that are not kept: no second try */
    bool fresh;          /* no kept connection any more: one was closed under it */
    bool may_return;     /* a server that was tried gave no answer at all: it may be restarting */
    uint8_t failed_attempts; /* servers that it was sent to */
    uint32_t addresses;      /* of `server` that took no connection */
    uint8_t fleet_stages;    /* in which it has asked the store of the fleet (fleet_share.c) */
    bool fleet_claims;       /* other hosts may wait for what it brings */
    bool fleet_waits;        /* another host fetches it */
    uint8_t fleet_silent;    /* looks since that was said */
    bool background;         /* a background fetch */
    bool change;             /* nor for this: of fetches.n_changes */
    bool counted;            /* among those under way at its upstream (budget.c) */
    bool failed;             /* fetch_fail() */
    bool under_way;          /* counted at its upstream, over all workers */
    bool retrying;           /* the same among second tries */
    bool no_further;         /* no other server is to be asked */
    bool anyway;             /* no server was up, and one was asked all the same */
    uint8_t last_problem;    /* enum problem: why no server could be reached, or why it failed */
    uint64_t fetch_ns;       /* until the response head was there */

    struct request_buffer body; /* of the request */
    char *bytes;
    struct h1_head head;            /* from here on nothing is cleared at first */
    char identity[IDENTITY_DETAIL]; /* room for not_stored */
};

/* All of a worker's. */
struct fetches {
    const struct upstream_ops *upstream_ops;
    const struct fetch_ops *ops;
    /* What it wanted may be stored by now: its request takes its steps once more, from the lookup
     * on, and is answered without it or comes back (miss_again()). */
    void (*look_again)(struct fetch *ex);
    TAILQ_HEAD(, fetch) dead;        /* until the end of the iteration: a caller may still use it */
    TAILQ_HEAD(, fetch) waiters;     /* collapse.c */
    TAILQ_HEAD(, fetch) askers;      /* fleet_share.c */
    ev_timer askers_timer;           /* the first of them has waited for its shared_timeout */
    TAILQ_HEAD(, fetch) retry_queue; /* oldest first */
    ev_timer retry_queue_timer;
    TAILQ_HEAD(, fetch) room_queue; /* the same */
    ev_timer room_queue_timer;
    uint64_t room_turn;              /* of looking through it */
    uint64_t request_bytes;          /* of bodies that wait to be sent (request_body.c) */
    uint32_t n_changes;              /* requests without a client, kept for what they invalidate */
    bool any_cache;                  /* some route has one */
    struct compress_state *compress; /* NULL: nothing was compressed yet */
    struct failed failed[ERROR_BACKOFF_PLACES]; /* by key */
    struct h1_head response;                    /* being looked at now */
};

/* ---- fetch.c ---- */
struct fetch *fetch_new(struct worker *w, const struct request *r); /* copies all */
/* at->ops->done() is called once from now on, unless fetch_unwatch() is. */
void fetch_watch(struct fetch *ex, struct fetch_watcher *at);
void fetch_unwatch(struct fetch_watcher *at);
void fetch_move(struct fetch *ex, enum fetch_state to);
void fetch_client_left(struct fetch *ex);
/* The client is answered otherwise: the fetch detaches from it and from a half-sent request. */
void fetch_drop_client(struct fetch *ex);
void fetch_drop_body(struct fetch *ex); /* of the request: it is not sent once more */
void fetch_fail(struct fetch *ex, enum problem problem);
void fetch_free(struct fetch *ex);
/* Finishes the fetch: detaches client and connection; freed at the end of the iteration. */
void fetch_finish(struct fetch *ex);

/* Detaches the client; its body reader must not write here any more. */
struct client *fetch_let_go(struct fetch *ex);
/* The client is answered without it, or comes back. */
struct client *fetch_lend_client(struct fetch *ex);
void fetch_take_client(struct fetch *ex, struct client *c);
/* The client has its whole answer. */
void fetch_client_done(struct fetch *ex);
/* Serves the stale stored response. False: there is none that may be served. */
bool fetch_answer_stale(struct fetch *ex);
void fetch_measure(struct fetch *ex);
void fetch_note_server(const struct fetch *ex);
/* Its client's connection ends before the whole answer is out: the line in the access log. */
void fetch_log_lost(const struct fetch *ex);

/* The event it waited for has come, or is given up. */
void fetch_resume(struct fetch *ex);
bool fetch_has_stale(const struct fetch *ex);
void fetch_watch_lease(struct fetch *ex);

/* It is not a trial of its server (any more). */
void fetch_end_trial(struct fetch *ex);

/* ---- ask.c: the request goes out ---- */
void fetch_start(struct fetch *ex); /* when enough of its body is there */
void fetch_send(struct fetch *ex);  /* the connection is there */

/* ---- retry.c: which server it asks, and which one next ---- */
void retry_begin(struct fetch *ex);
/* Its server takes no connection; or the connection has failed under it, before the response was
 * whole. */
void retry_unconnected(struct fetch *ex, const struct upstream_error *e);
void retry_broken(struct fetch *ex, const struct upstream_error *e, bool timeout);
void retry_answered(struct fetch *ex, unsigned status); /* a response head has come */
void retry_end(struct fetch *ex); /* it is over, and counts nowhere any more */

/* ---- fetch_events.c ---- */
void fetch_events_init(struct worker *w);

/* ---- response_read.c: what comes back ---- */
/* Bytes of the response, which may be moved about; returns how many were used (part of a head is
 * left). */
size_t response_receive(struct fetch *ex, char *at, size_t len);
bool response_eof(struct fetch *ex); /* false: that is no proper end */

/* ---- retry_queue.c: requests wait while a backend restarts ---- */
/* False: it may not wait, or not any longer. resume: calls retry_queue_leave(). */
bool retry_queue_enter(struct fetch *ex, void (*resume)(struct fetch *ex));
void retry_queue_leave(struct fetch *ex);
void retry_queue_wake(struct worker *w, const struct config_upstream *upstream);
void retry_queue_init(struct worker *w);

/* ---- room_queue.c: requests wait for room at servers that are full, or to be tried again ---- */
struct room_wait {
    bool (*go)(struct fetch *ex); /* leaves the queue and goes on; false: there is no room */
    void (*timeout)(struct fetch *ex);
    bool is_retry; /* it waits for a second try, which has nothing to do with room */
};
/* False: too many wait. */
bool room_queue_enter(struct fetch *ex, const struct room_wait *wait);
void room_queue_leave(struct fetch *ex);
/* Others wait for room there, before this one. */
bool room_queue_is_before(const struct fetch *ex);
/* There may be room at its servers, or for a second try: the next one goes on. */
void room_queue_wake(struct worker *w, const struct config_upstream *upstream);
void room_queue_run(struct worker *w); /* another worker has found that this one's is the next */
void room_queue_init(struct worker *w);

#endif

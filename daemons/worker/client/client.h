/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client: a connection from a client, from accept() to its end.
 *
 *   accept.c      takes it, and counts it for its client
 *   proxy_protocol.c  reads the header with the client's address
 *   client_read.c reads requests
 *   client_leave.c notices that the client leaves while it is being answered
 *   stop.c        ends connections while the service stops
 *   cut.c         cuts what is not finished when the worker must leave
 *   client.c      writes answers, and ends the connection
 *
 * The worker owns it. client_close() detaches it from everything at once; its memory is freed at
 * the end of the iteration, so a callback never loses the object that it works on.
 */
#ifndef POLDER_WORKER_CLIENT_CLIENT_H
#define POLDER_WORKER_CLIENT_CLIENT_H
#include "daemons/http/h1.h"
#include "daemons/net/transport.h"
#include "daemons/worker/buffer.h"
#include "daemons/worker/worker.h"
#include "daemons/net/timer_wheel.h"
#include "polder/clientip.h"
#include "polder/config.h"
#include "polder/field.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

struct access_line;
struct client;
struct config_server;
struct fetch;
struct h1_spans;
struct held;
struct limit_waiter;
struct repeat;
struct worker;

#define WORKER_LINGER_MS 2000
#define WORKER_LINGERING 256 /* connections lingering at once; further ones are just closed */

/* How a connection calls the layers above it. */
struct client_ops {
    struct transport_user on;             /* what carries it tells of */
    void (*begin)(struct client *c);      /* a new one: read from now on */
    void (*use_input)(struct client *c);  /* what was read and kept */
    void (*watch_read)(struct client *c); /* read from, if that makes sense now */
    /* Bytes of a head, and what follows it; returns how many were used, 0: more of it must come. */
    size_t (*head)(struct client *c, const char *at, size_t len);
    /* Bytes of a body that is wanted; end: the last ones. There is room for one span before and
     * four behind. */
    void (*body)(struct client *c, struct h1_spans *spans, bool end);
    void (*body_malformed)(struct client *c);
    void (*refused)(struct client *c, const char *members); /* one connection too many: 503 */
    void (*out)(struct client *c);      /* the answer with a pending line (client.line) */
    void (*cut)(struct client *c);      /* it is being closed: what was not answered is logged so */
    void (*gone)(struct client *c);     /* CLOSED now: all that is for its request ends, or goes on
                                         * alone */
    void (*writable)(struct client *c); /* takes more of its answer */
    bool (*response_begun)(const struct client *c); /* a backend's, for the request under way */
    bool (*streams)(const struct client *c);        /* that is an event stream */
    /* Its request waits for something to change: until when; and it is answered now. */
    uint64_t (*held_until_ms)(const struct client *c);
    void (*end_hold)(struct client *c);
    void (*unanswered)(struct client *c); /* no answer can be waited for any more: 503 */
    void (*let_go)(struct client *c);     /* no more of its answer is written but what is kept */
    void (*timed_out)(struct client *c);  /* within a request, of which nothing was answered: 408 */
};

enum client_state {
    CLIENT_PROXY,   /* the PROXY header is expected */
    CLIENT_IDLE,    /* nothing of a request has come */
    CLIENT_HEAD,    /* part of a head has come */
    CLIENT_BUSY,    /* a request is being answered */
    CLIENT_DISCARD, /* answered; the rest of its body is read away */
    CLIENT_LINGER,  /* we have said FIN and read until the client does */
    CLIENT_CLOSED,
    CLIENT_STATES
};

/* For its line in the access log. */
struct access_note {
    uint64_t began_ns;                  /* its head was complete; 0: it was not */
    uint64_t number;                    /* of a request without a head; 0: none yet */
    uint64_t upstream_ns;               /* until the head of the server's answer, or its failure */
    const struct config_server *server; /* that was asked last; NULL: none */
    const char *limit;                  /* that refused it */
    const char *cache;                  /* "hit", ...; NULL: the store had no part in it */
    const char *fwd;                    /* why the store did not answer, for Cache-Status */
    const char *detail;                 /* of cache or fwd; lives as long as what is answered */
    const char *cut;                    /* what has cut the answer short */
    bool recorded;                      /* for live views */
    bool is_probe;                      /* of polderctl verify: it has no line */
    struct str raw;                     /* a head that is not understood */
};

/* The rest of a stored body that is sent chunk by chunk. */
struct stored_send {
    uint64_t obj_id;  /* pinned */
    uint64_t at, end; /* body bytes [at, end) still to send */
};

/* All of a worker's. */
struct clients {
    const struct client_ops *ops;
    LIST_HEAD(, client) all;
    SLIST_HEAD(, client) ready; /* looked at again before the loop sleeps */
    LIST_HEAD(, client) dead;
    uint32_t n, n_lingering;
    ev_io leave;           /* the epoll set of client_leave.c */
    struct accept *accept; /* NULL: not begun */
    bool cut;              /* cut.h */
    uint64_t cut_until_ms;
    uint64_t stop_began_ms; /* stop.h; 0: not yet */
    bool letting_go;
    uint64_t proxy_warn_ms; /* no line about missing PROXY headers before */
    char buffer[WORKER_BUFFER];
};

struct client {
    struct transport transport;
    struct timer timer;
    struct worker *worker;
    LIST_ENTRY(client) entry;   /* clients.all, then clients.dead */
    SLIST_ENTRY(client) second; /* clients.ready */
    struct buffer *in;          /* what was read and cannot be used yet; mostly NULL */
    struct chain out;           /* what the socket did not take; mostly empty */
    struct fetch *fetch;
    struct repeat *repeat;
    struct held *held;           /* until something changes (long_poll.c) */
    struct limit_waiter *waiter; /* until the store of the fleet has answered (limits_wait.c) */
    struct stored_send *stored;
    struct access_line *line; /* of an answer that is not out yet; mostly NULL */
    struct access_note note;  /* of the request being answered */
    struct h1_body body;      /* of the request being answered */
    size_t scanned;           /* of the head being read */
    uint64_t first_ms;        /* first byte of the head being read; start of lingering */
    uint64_t progress_ms;     /* last byte read or written */
    uint64_t rated_ms;        /* since when the bytes of a body are counted ... */
    uint64_t rated_bytes;     /* ... these */
    struct clientip peer;     /* the socket's, or the PROXY header's */
    /* keys of `concurrent` limits that its request is under way for; left in client_answered() and
     * when it goes */
    uint64_t inside[CONFIG_ROUTE_LIMITS_MAX];
    uint16_t tenant; /* row of its last request that was counted (message/tenants.h) */
    uint8_t n_inside;
    uint8_t inside_fleet; /* bits of inside: ids of slots that the fleet counts */
    uint8_t state;        /* enum client_state; moved by client_move() alone */
    bool ready;           /* is on clients.ready */
    bool broken;          /* a write failed */
    bool eof;             /* the peer has said FIN */
    bool keep_alive;      /* after this response */
    bool answered;        /* the whole response has been written or queued */
    bool body_pending;    /* the request has a body that is not read completely */
    bool body_wanted;     /* body bytes are wanted now */
    bool body_comes;      /* the client sends it without being asked (no Expect) */
    bool discard;         /* whatever else comes is dropped, then the end */
    bool seen_request;    /* at least one */
    bool refused;         /* over a connection limit; not counted as open */
    bool resets;          /* to close it is to reset it */
    bool was_there;       /* when the service began to stop */
    bool cut;         /* its request is not answered any more, or not whole: this process leaves */
    uint16_t cell[2]; /* + 1, where it is counted for its client; 0: nowhere */

    bool fin_seen;      /* as eof, behind bytes that are not read yet */
    bool leave_watched; /* is in the set of client_leave.c */
    bool half_closes;   /* FIN behind the request being answered need not mean that it has left */
};

/* ---- client.c ---- */
/* fd: a socket that does not block, or -1 where the transport has none. It is not read from before
 * client_begin(). */
struct client *client_new(struct worker *w, const struct transport_ops *transport, int fd,
                          const struct clientip *peer);
void client_move(struct client *c, enum client_state to);
void client_close(struct client *c);
void client_free(struct client *c);
bool client_may_keep(const struct client *c); /* the connection, after this answer */
/* Writes now what the socket takes and keeps the rest. Never frees: a failure is noticed at the end
 * of the iteration. */
void client_send(struct client *c, const struct iovec *iov, unsigned n);
/* Writes what the socket takes, and keeps of the rest only what belongs to the first `keep` bytes.
 * Returns how many bytes behind them were written. */
size_t client_send_some(struct client *c, const struct iovec *iov, unsigned n, size_t keep);
void client_send_bytes(struct client *c, const char *bytes, size_t len);
void client_leave_limits(struct client *c); /* its request is no longer under way */
/* The whole response has been handed to client_send(). */
void client_answered(struct client *c);
/* The connection's end will be that of its answer's body: until all of it is out, any other end,
 * this process's too, is a reset, for a body that was cut would look whole after a FIN. */
void client_ends_body(struct client *c);
/* The response cannot be completed: breaks the connection, so that it is not taken for complete. */
void client_break(struct client *c);
void client_schedule(struct client *c); /* looked at again before the loop sleeps */
void client_run_ready(struct worker *w);
void client_want_body(struct client *c, bool wanted);
void client_update_timer(struct client *c);
void client_drop_input(struct client *c); /* what was read and not used */
void client_on_writable(struct transport *t);

/* ---- client_read.c ---- */
/* client_ops.begin(). What a new one asks has mostly come by then, and is read at once: a connection
 * that ends behind its answer never enters the loop's set. */
void client_begin(struct client *c);
void client_on_readable(struct transport *t);
void client_use_input(struct client *c);  /* what was read and kept, and then what comes */
void client_watch_read(struct client *c); /* read from, if that makes sense now */
/* For client_ops.head(): part of a head is there; it was an empty line, after all; the whole is
 * there. */
void client_head_begins(struct client *c);
void client_head_was_blank(struct client *c);
void client_head_ends(struct client *c);
/* A request with that head begins, or begins again: its body, and what becomes of the connection. */
void client_begin_request(struct client *c, const struct h1_head *head);

/* ---- client_leave.c ---- */
/* The client has gone: FIN where that counts as leaving, a reset, a write that failed. Ends its
 * connection and, at the backend too, the request that is being answered, unless others want the
 * answer. The one place where a client's leaving ends a request. */
void client_left(struct client *c);
/* It has said FIN; true: that was its leaving. */
bool client_leave_by_fin(struct client *c);
void client_leave_watch(struct client *c);   /* while it is answered and not read */
void client_leave_unwatch(struct client *c); /* before its descriptor goes to another process */
void client_leave_open(struct worker *w);
void client_leave_close(struct worker *w);

/* ---- proxy_protocol.c: bytes consumed, 0: need more, -EPROTO ---- */
int proxyproto_read(struct client *c, const char *bytes, size_t len);

/* ---- accept.c ---- */
int accept_start(struct worker *w);
/* drain: what has connected already is served; else it stays in the kernel's queues. */
void accept_stop(struct worker *w, bool drain);
void accept_free(struct worker *w);
/* Counts the connection for its client; false: that is one too many, and 503 has been sent. */
bool accept_admit(struct client *c, const struct clientip *ip);
void accept_dismiss(struct client *c); /* counts it no longer */

/* Those that are refused, or linger, do not count. */
static inline uint32_t clients_open(const struct worker *w)
{
    return w->clients->n - w->clients->n_lingering;
}

#endif

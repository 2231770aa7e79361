/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * verify: polderctl verify asks a running Polder, as a client would, whether polling, websocket,
 * caching and rateLimiting do what the configuration says. Private to admin/verify/.
 *
 *   verify.c    the run: a token from control, the checks, goodbye
 *   lease.c     the token goes on being good meanwhile
 *   report.c    what was seen, the score, the table, JSON
 *   plan.c      what the configuration says, and which path to ask for
 *   http.c      requests over one connection
 *   ws.c        a WebSocket, as far as a client needs it
 *   caching.c polling.c limits.c websocket.c   the checks of an optimisation each
 *
 * Every request carries the token (polder/verify.h), so no client and no figure notices it.
 */
#ifndef POLDER_ADMIN_VERIFY_H
#define POLDER_ADMIN_VERIFY_H
#include "admin/polderctl.h"
#include "polder/verify.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#define VERIFY_PATH   2048
#define VERIFY_ROUTES 32 /* of each optimisation */

enum optimisation { POLLING, WEBSOCKET, CACHING, RATE_LIMITING, OPTIMISATIONS };
enum outcome { SEEN_OK, SEEN_FAILED, NOT_PROBED, NOT_CONFIGURED };

struct check {
    enum optimisation of;
    enum outcome outcome;
    char subject[128], name[32], seen[400];
};
struct limit_plan {
    char name[128], algorithm[16];
    uint64_t requests, file_requests, window_ms;
    bool dry_run;
    const msgpack_object *key; /* list of {kind, name} */
};
struct ws_plan {
    uint64_t max_connections, max_per_client, interval_ms, timeout_ms;
    char heartbeat[8];
};
struct route_plan {
    char pattern[VERIFY_PATH], verify[VERIFY_PATH];
    bool upstream, cache, poll, websocket;
    uint64_t min_interval_ms, cost;
    struct ws_plan ws;
    const msgpack_object *limits; /* list of names */
};
struct http; /* http.c */

struct verify {
    const char *socket;
    unsigned timeout_ms;
    uint64_t wait_ms; /* no check takes longer */
    unsigned threshold;
    bool json;
    char only[80]; /* "": all */

    char token[VERIFY_TOKEN_SIZE];
    uint64_t kept_ms; /* the lease was kept last */
    bool lost;        /* and could not be any more */
    struct ctl_answer plan, ws;
    struct route_plan *routes;
    struct limit_plan *limits;
    uint32_t n_routes, n_limits;

    struct sockaddr_storage address;
    socklen_t address_len;
    bool proxy_protocol;
    char host[280];         /* Host */
    char path[VERIFY_PATH]; /* of the URL that was given; "": none */
    char where[320];
    char note[600]; /* what the service says of itself; "": nothing */
    struct http *http;

    struct check *checks;
    size_t n_checks;
};

/* ---- verify.c ---- */
int verify_run(const char *socket, unsigned timeout_ms, bool json, const struct rpc_out *params);

/* ---- lease.c ---- */
/* Sleeps; the token goes on being good. False: interrupted, or it is not good any more. */
bool verify_wait(struct verify *v, uint64_t ms);
bool verify_goes_on(struct verify *v);
/* Ends what is stored of a path for probes. */
bool verify_forget(struct verify *v, const char *path);
void lease_end(struct verify *v);
void lease_watch_signals(void);
bool lease_is_interrupted(void);

/* ---- report.c ---- */
void report(struct verify *v, enum optimisation of, const char *subject, const char *name,
            enum outcome outcome, const char *format, ...) __attribute__((format(printf, 6, 7)));
void report_progress(const struct verify *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* So many more routes or limits than VERIFY_ROUTES are left out. */
void report_more(struct verify *v, enum optimisation of, unsigned n);
/* Whether it is to be looked at. */
bool report_wants(const struct verify *v, enum optimisation of);
/* True: each word of the list is one. */
bool report_knows(const char *list);
/* 0 to 100; -1: nothing is configured. */
int report_score(const struct verify *v);
void report_print(const struct verify *v);
const char *report_time(uint64_t ms, char out[32]);

/* ---- plan.c ---- */
/* 0, or an exit status with the reason printed. */
int plan_read(struct verify *v, const char *url);
void plan_free(struct verify *v);
/* What to ask for on that route: stated, given, stored, or made up. */
void plan_path(const struct verify *v, const struct route_plan *r, char out[VERIFY_PATH]);
/* What would help where the route's path is answered with 3xx or 4xx. */
const char *plan_advice(const struct route_plan *r);

/* ---- http.c ---- */
struct reply {
    unsigned status; /* 0: none came; why says so */
    bool has_retry_after, hit;
    uint64_t retry_after_s, age_s;
    char cache_status[256]; /* Polder's */
    char why[160];
    char body[512]; /* its beginning */
};
struct ask {
    const char *path;
    const char *kind;    /* of the probe: "", "limit" */
    const char *headers; /* whole lines, or "" */
    unsigned client;     /* 1.. */
};
/* A new connection, not blocking; -1: why. */
int http_dial(const struct verify *v, char *why, size_t size);
void http_field(const struct verify *v, const struct ask *ask, char *out, size_t size);
void http_get(struct verify *v, const struct ask *ask, struct reply *reply);
/* The same request n times over. each: called with each reply; false: the connection failed. */
bool http_many(struct verify *v, const struct ask *ask, unsigned n,
               void (*each)(void *arg, const struct reply *reply), void *arg, char *why,
               size_t why_size);
void http_close(struct verify *v);
/* At most until then, for POLLIN or POLLOUT; false: too late, or interrupted. */
bool http_wait(struct verify *v, int fd, short events, uint64_t until_ms);

/* ---- ws.c ---- */
struct ws {
    int fd;             /* -1: closed */
    struct reply reply; /* to the handshake */
    uint8_t in[4096];
    size_t have;
    bool json_heartbeat, ping, ended; /* what was seen */
    uint16_t close_code;
    bool answers; /* pings */
};
/* True: it is open. kind: "", "local". */
bool ws_open(struct verify *v, struct ws *ws, const char *path, const char *kind, unsigned client);
void ws_read(struct ws *ws); /* what has come */
void ws_close(struct ws *ws);

/* ---- the checks ---- */
void check_caching(struct verify *v);
void check_polling(struct verify *v);
void check_limits(struct verify *v);
void check_websockets(struct verify *v);
#endif

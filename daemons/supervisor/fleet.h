/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet: bounds on WebSockets that hold over all hosts of a fleet (scope = "fleet" of a websocket
 * section; polder/fleet_slots.h).
 *
 * polderd's control has the link to the store; what this host holds is in a page of polderd's, which
 * each worker hands over once a second (HANDOVER_SLOTS). Each WebSocket counts there in up to four
 * rows: of its route, of its client on the route, of all routes, of its client on all routes. Where
 * one of them has no room left the handshake is kept until control has asked the store, at most
 * fleet.limit_timeout; it is a session only then.
 *
 * The page has what this process has counted. A successor of this one, or the next page, is told by
 * counting all WebSockets anew. Without a page nothing is known of the store: each bound does what its
 * cut_off says, and where that is share nothing is held.
 */
#ifndef POLDER_SUPERVISOR_FLEET_H
#define POLDER_SUPERVISOR_FLEET_H
#include "polder/fleet_grants.h"
#include "polder/fleet_slots.h"
#include "polder/handover.h"

#include <ev.h>
#include <sys/queue.h>

struct clientip;
struct config_route;
struct session;
struct supervisor;
enum admit;

/* Bits of session.fleet: the rows that count it. */
enum ws_fleet_key {
    WS_FLEET_ROUTE,
    WS_FLEET_CLIENT,
    WS_FLEET_TOTAL,
    WS_FLEET_CLIENT_TOTAL,
    WS_FLEET_KEYS
};

#define WS_FLEET_ANSWERED 32
/* A handshake has just come; it has waited; it waits no longer. */
enum ws_fleet_try { WS_FLEET_FIRST, WS_FLEET_AGAIN, WS_FLEET_LAST };

struct ws_fleet {
    struct fleet_slots *page; /* NULL: none has come yet */
    int fd, event;            /* its descriptor; to wake control */
    uint8_t secret[FLEET_GRANTS_SECRET];
    TAILQ_HEAD(ws_fleet_list, ws_fleet_waiter) waiters; /* the first one is due first */
    uint32_t n_waiters;
    const struct fleet_slot
        *answered[WS_FLEET_ANSWERED]; /* rows, in this turn of those that wait */
    uint32_t n_answered;
    bool (*take)(struct supervisor *s, const struct handover *h, const char *rest, int fd,
                 enum ws_fleet_try try);
    ev_timer turn; /* while some wait */
    ev_timer look; /* while there is a page */
};

/* The loop is there. take: decides a handshake and takes its fd; false: it waits on. */
void ws_fleet_begin(struct supervisor *s,
                    bool (*take)(struct supervisor *s, const struct handover *h, const char *rest,
                                 int fd, enum ws_fleet_try try));
/* The configuration is another one; sessions have their routes of it. */
void ws_fleet_read_config(struct supervisor *s);
void ws_fleet_take_page(struct supervisor *s, int fd, int event); /* takes both */

enum ws_fleet_result { WS_FLEET_ADMITS, WS_FLEET_WAITS, WS_FLEET_REFUSES };
/* Counts one more, and says in which rows; or why not. */
enum ws_fleet_result ws_fleet_enter(struct supervisor *s, const struct config_route *route,
                                    const struct clientip *ip, enum ws_fleet_try try, uint8_t *rows,
                                    enum admit *why);
/* rows: as from ws_fleet_enter(); 0: it was not counted. */
void ws_fleet_leave(struct supervisor *s, const struct config_route *route,
                    const struct clientip *ip, uint8_t rows);
/* Keeps a handshake until the store has answered; takes fd. False: there is no room, and nothing is
 * taken. */
bool ws_fleet_wait(struct supervisor *s, const struct handover *h, const char *rest, size_t len,
                   int fd);
/* Those that wait are decided now: this process ends, or is replaced. */
void ws_fleet_flush(struct supervisor *s);

/* fleet_end.c: before there is a page */
void ws_fleet_end_begin(struct supervisor *s);
#endif

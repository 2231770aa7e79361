/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_store: the link to the store of the fleet, a Redis or Valkey server.
 *
 * Of several servers it takes the one that says it is the master, and looks again when the link
 * breaks. Two connections: one on which the log is waited for, one for all else. Nothing blocks; a
 * server that does not answer in time is left. What a server sends is bounded before it is used.
 */
#ifndef POLDER_CONTROL_FLEET_STORE_H
#define POLDER_CONTROL_FLEET_STORE_H
#include "daemons/control/model/store_link.h"
#include "polder/config.h"
#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#define FLEET_ANSWER_MS 1000       /* the longest a server may take */
#define FLEET_WORDS     256        /* of one command */
#define FLEET_SEND_MAX  (1u << 20) /* bytes that may wait to be sent, before what can be left out */

enum fleet_script {
    FLEET_SCRIPT_ENTER,
    FLEET_SCRIPT_RENEW,
    FLEET_SCRIPT_APPEND,
    FLEET_SCRIPT_FORGET,
    FLEET_SCRIPT_SHARE_GET,
    FLEET_SCRIPT_SHARE_PUT,
    FLEET_SCRIPT_LIMIT_SHARE,
    FLEET_SCRIPT_LIMIT_REPORT,
    FLEET_SCRIPT_LIMIT_TAKE,
    FLEET_SCRIPT_SLOTS_RENEW,
    FLEET_SCRIPT_SLOTS_TAKE,
    FLEET_SCRIPTS
};

struct fleet_store;
/* What its user hears. up: run_id names the server's run; all scripts are known to it. down: after
 * up, or in vain; why is for the operator. Both come from the loop, never from within a call. */
struct fleet_store_ops {
    void (*up)(void *arg, const char *run_id);
    void (*down)(void *arg, const char *why);
};
/* NULL: no memory. config: valid as long as the link. */
struct fleet_store *fleet_store_new(struct ev_loop *loop, const struct config_fleet *config,
                                    const char *const scripts[FLEET_SCRIPTS],
                                    const struct fleet_store_ops *ops, void *arg);
void fleet_store_free(struct fleet_store *s);
bool fleet_store_is_up(const struct fleet_store *s);
/* The server that is linked or tried, without secrets. */
const char *fleet_store_name(const struct fleet_store *s);
/* Its place in the list. */
uint32_t fleet_store_at(const struct fleet_store *s);
/* Another server is to be used: leaves the one that is linked or tried. */
void fleet_store_move(struct fleet_store *s, uint32_t at, const char *why);

/* reply NULL: the link is down. Called exactly once, from the loop or from fleet_store_free(). */
typedef store_reply_fn fleet_reply_fn;
/* Runs a script; false: the link is down, and nothing will be called. argv: keys, then arguments. */
bool fleet_store_run(struct fleet_store *s, enum fleet_script script, int n_keys, int argc,
                     const char **argv, const size_t *len, fleet_reply_fn done, void *arg);
/* False: so much waits to be sent that no more should wait behind it. */
bool fleet_store_has_room(const struct fleet_store *s, size_t len);
/* Waits for entries of two streams after these ids, at most 1 s; the reply is XREAD's. */
struct fleet_streams {
    const char *stream[2], *after[2];
};
bool fleet_store_follow(struct fleet_store *s, const struct fleet_streams *from,
                        fleet_reply_fn done, void *arg);
/* Has a replica what was written before? It may take a while; the reply is the number of those that have. */
bool fleet_store_confirm(struct fleet_store *s, fleet_reply_fn done, void *arg);
/* The user has seen what must not be: leaves the server, and tries again. */
void fleet_store_fail(struct fleet_store *s, const char *why);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * check: one active check of a server: a GET over a connection of its own, whose answer is judged.
 *
 * Owned by its caller until it has told how it ended, or is stopped. Nothing blocks; what is read
 * is bounded by CHECK_BODY_MAX and the longest head, and the whole by the upstream's
 * health_timeout.
 */
#ifndef POLDER_CONTROL_CHECK_H
#define POLDER_CONTROL_CHECK_H
#include "polder/server_check.h"
#include <ev.h>

#define CHECK_BODY_MAX 16384 /* of a body, what is searched for health_body */

struct check;
struct config_server;
struct check_outcome {
    enum server_check_result result;
    unsigned status;   /* 0: there was none */
    struct str weight; /* what Polder-Weight says, until the callback returns; at NULL: nothing */
};
typedef void (*check_done_fn)(void *arg, const struct check_outcome *outcome);

/* row: where the addresses of a name are. done: called once, from the loop; the check is gone then.
 * NULL: no memory. */
struct check *check_start(struct ev_loop *loop, const struct config_server *server,
                          const struct server_row *row, check_done_fn done, void *arg);
void check_stop(struct check *check); /* NULL: nothing */
#endif

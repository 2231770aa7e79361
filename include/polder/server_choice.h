/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server_choice: which server of an upstream gets the next request, for workers and for WebSockets.
 *
 * Servers that are up take turns by smooth weighted round robin over their running weights, less
 * while they are warming up, or as their health answers ask for; one with weight 0 gets nothing.
 * With `balance = "least_conn"` the one with the fewest requests under way for its weight is next.
 * One that is down gets a trial from time to time (server_state.h), with a request that can be
 * retried elsewhere; with another one only if no such request has come for a while.
 *
 * A request with a key (sticky.h) goes to the server of that key instead, whatever the turns are, in
 * proportion to the same shares: while one warms up its keys come to it one after the other, and none
 * leaves it again. A session that is known stays at its server, whatever share that has. A trial of
 * the server, while it is down, is of its keys too; a key goes to the next one if its own is down or
 * full. Servers that are up for no other reason get nothing by keys: as below.
 *
 * Backup servers are asked if no other is up; servers that drain if these are not up either; then
 * all, whatever is known of them.
 */
#ifndef POLDER_SERVER_CHOICE_H
#define POLDER_SERVER_CHOICE_H
#include "polder/config.h"
#include "polder/server_state.h"
#include "polder/sticky.h"

struct server_option {
    struct server_row *row; /* NULL: nothing is known of it, so it is up */
    uint32_t weight;
    bool tried;    /* already tried by this request */
    bool avoid;    /* only if no other is up */
    int64_t *turn; /* of this process, between choices */
    bool backup;   /* only if no other is up */
    bool full;     /* it has as many requests as it may */
    uint32_t busy; /* requests under way, for CONFIG_BALANCE_FEWEST */
};
struct server_choice {
    const struct config_upstream *upstream;
    const struct server_option *option; /* of its first n servers */
    uint32_t n;
    bool repeatable; /* a failure can be retried elsewhere */
    uint64_t now_ms;
    const struct sticky_key *sticky; /* NULL: there is none */
};
#define SERVER_CHOICE_NONE (-1)
#define SERVER_CHOICE_FULL (-2) /* all that could be asked are full */
/* The number of the server, or one of these. *lease_ms: it is a trial of one that is down, until
 * then; else 0. */
int server_choose(const struct server_choice *choice, uint64_t *lease_ms);
/* Is another than that one up, and gets requests? */
bool server_choice_has_other(const struct server_choice *choice, uint32_t than);
/* That one has answered with an error status. It is ejected for many in a row, if the upstream has
 * that on and another is up. */
void server_choice_error(const struct server_choice *choice, uint32_t i,
                         const struct server_name *name, bool trial);
/* The caller has just ejected that one. False: it is up again, for no other is: another process has
 * ejected the last other one at the same moment. */
bool server_choice_stays_ejected(const struct server_choice *choice, uint32_t i);
#endif

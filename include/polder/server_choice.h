/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server_choice: which server of an upstream gets the next request, for workers and for WebSockets.
 *
 * Servers that are up take turns by smooth weighted round robin over their running weights, less
 * while they are warming up; one with weight 0 gets nothing. One that is down gets a trial from
 * time to time (server_state.h), with a request that can be retried elsewhere; with another one
 * only if no such request has come for a while. If no server is up, all take turns.
 */
#ifndef POLDER_SERVER_CHOICE_H
#define POLDER_SERVER_CHOICE_H
#include "polder/config.h"
#include "polder/server_state.h"

struct server_option {
    struct server_row *row; /* NULL: nothing is known of it, so it is up */
    uint32_t weight;
    bool tried;    /* already tried by this request */
    bool avoid;    /* only if no other is up */
    int64_t *turn; /* of this process, between choices */
};
struct server_choice {
    const struct config_upstream *upstream;
    const struct server_option *option; /* of its first n servers */
    uint32_t n;
    bool repeatable; /* a failure can be retried elsewhere */
    uint64_t now_ms;
};
/* The number of the server, -1: none. *lease_ms: it is a trial of one that is down, until then;
 * else 0. */
int server_choose(const struct server_choice *choice, uint64_t *lease_ms);
#endif

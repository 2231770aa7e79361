/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server_choice: which server of an upstream gets the next request, for workers and for WebSockets.
 *
 * Servers that are up take turns by smooth weighted round robin over their running weights, less
 * while they are warming up; one with weight 0 gets nothing. One that is down gets a trial now and
 * then (server_state.h), of a request that can be repeated elsewhere; of another only where none
 * such has come for a while. Where no server is up, all take turns.
 */
#ifndef POLDER_SERVER_CHOICE_H
#define POLDER_SERVER_CHOICE_H
#include "polder/config.h"
#include "polder/server_state.h"

struct server_option {
    struct server_row *row; /* NULL: nothing is known of it, so it is up */
    uint32_t weight;
    bool tried;    /* by this request: not again */
    bool avoid;    /* only where no other is up */
    int64_t *turn; /* of this process, between choices */
};
struct server_choice {
    const struct config_upstream *upstream;
    const struct server_option *option; /* of its first n servers */
    uint32_t n;
    bool repeatable; /* a failure costs no client its answer */
    uint64_t now_ms;
};
/* The number of the server, -1: none. *lease_ms: it is a trial of one that is down, until then;
 * else 0. */
int server_choose(const struct server_choice *choice, uint64_t *lease_ms);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ws_storm: many WebSockets with echo traffic, in a thread of their own. Each client numbers its
 * messages, keeps some under way, and expects each one back once and in order.
 */
#ifndef POLDER_TEST_WS_STORM_H
#define POLDER_TEST_WS_STORM_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct ws_storm_client;
struct ws_storm {
    struct ws_storm_client *client;
    unsigned n;
    atomic_bool stop;
    atomic_uint messages;    /* that came back so far */
    atomic_uint wrong, lost; /* not the next one; connections that ended */
    uint64_t longest_ms;     /* silence of a client, while messages of it were under way */
    pthread_t thread;
};

/* n WebSockets on target, in groups of under_way messages. The test fails if one does not open. */
void ws_storm_begin(struct ws_storm *s, unsigned port, const char *target, unsigned n,
                    unsigned under_way);
/* Waits for what is under way, and fails the test unless all came back once and in order. */
void ws_storm_end(struct ws_storm *s);
#endif

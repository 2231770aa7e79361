/* SPDX-License-Identifier: BSD-2-Clause */
/* peers: the processes that control talks to: keeper, supervisor and the first worker. */
#ifndef POLDER_CONTROL_PEERS_H
#define POLDER_CONTROL_PEERS_H
#include "daemons/rpc/client.h"
#include <stdbool.h>

#define PEERS_ANSWER_MS 2000 /* how long keeper and supervisor may take to answer */

enum supervisor_state {
    SUPERVISOR_UNKNOWN,
    SUPERVISOR_ANSWERS,
    SUPERVISOR_MISSING, /* its socket refuses connections */
    SUPERVISOR_HANGS,   /* its socket accepts connections, and no answer comes */
};

/* The supervisor's last report of its WebSockets; counts are since its own start. */
struct peers_websockets {
    bool known; /* it answers */
    uint32_t pid;
    double open, max, opened, refused, reaped, messages, leaked_hours;
    double heartbeats, answered; /* sent, of both kinds; those that were answered or written */
};

struct peers {
    struct rpc_client keeper, supervisor, worker;
    bool supervisor_requested; /* by peers_ask_supervisor() */
    enum supervisor_state supervisor_state;
    struct peers_websockets websockets;
    uint32_t met; /* the supervisor that `meet` was called for last */
    void (*meet)(void *arg);
    void *meet_arg;
};

void peers_init(struct peers *p, struct ev_loop *loop, const char *runtime_dir);
/* Called when a supervisor answers that has not before. */
void peers_on_meeting(struct peers *p, void (*meet)(void *arg), void *arg);
void peers_fini(struct peers *p); /* ends what is under way with RPC_UNAVAILABLE */
/* "keeper", "supervisor" or "worker". */
const char *peers_name(const struct peers *p, const struct rpc_client *client);

/* Is there a socket of it? */
bool peers_has_supervisor(const struct peers *p);
/* Notifies it, if there is one. The answer is not waited for. */
void peers_tell_invalidated(struct peers *p, const char *what, const char *text, size_t len);
/* Sends it to all its clients. */
void peers_tell_text(struct peers *p, const char *text, size_t len);
void peers_tell_weight(struct peers *p, const char *upstream, const char *server, uint32_t weight);
void peers_tell_log_level(struct peers *p, const char *level);
/* For how long the WebSockets that the supervisor has reaped would have been held by now, and since
 * when it counts. */
struct peers_leaked {
    double hours; /* negative: unknown */
    double counted_s;
};
struct peers_leaked peers_leaked_of(const msgpack_object *ws_stats); /* NULL: no answer */
/* Asks it, or calls back at once with "unknown". */
void peers_ask_leaked(struct peers *p, void (*done)(void *arg, const struct peers_leaked *l),
                      void *arg);
/* Finds out supervisor_state and websockets; one question at a time. */
void peers_ask_supervisor(struct peers *p);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* call: helpers of methods to answer calls. */
#ifndef POLDER_CONTROL_CALL_H
#define POLDER_CONTROL_CALL_H
#include "daemons/rpc/client.h"
#include "daemons/rpc/server.h"
#include <stdbool.h>
#include <stdint.h>

struct control;

void call_error(struct control *c, struct rpc_reply *reply, enum rpc_error code, const char *format,
                ...) __attribute__((format(printf, 4, 5)));
/* Lets one of c->peers answer. params: taken. */
void call_forward(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                  const char *method, struct rpc_out *params);
/* The same for what takes longer than PEERS_ANSWER_MS. */
void call_forward_for(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                      const char *method, struct rpc_out *params, unsigned timeout_ms);

/* A caller that waits for a request to the master made by a counter of proc.h. */
struct call_wait {
    LIST_ENTRY(call_wait) entry;
    struct rpc_reply *reply;
    uint32_t requested; /* the counter, with this request */
    uint64_t until_ms;
};
struct call_waits;
/* Asks the master and puts the caller in the list; without memory it answers at once and asks
 * nothing. */
void call_wait(struct control *c, struct call_waits *waits, struct rpc_reply *reply,
               _Atomic uint32_t *counter, unsigned patience_ms);
/* look: true: it has answered the caller, which is removed. */
typedef bool (*call_look_fn)(struct control *c, const struct call_wait *wait);
void call_waits_follow(struct control *c, struct call_waits *waits, call_look_fn look);

/* List "listeners": the sockets that are open, not those of the file: those of systemd win over
 * `listen`. */
void call_put_listeners(const struct control *c, struct rpc_out *o);

/* One line of what a caller asked for, without secrets; for the log. */
void call_describe(enum rpc_method method, const msgpack_object *params, char *out, size_t size);
#endif

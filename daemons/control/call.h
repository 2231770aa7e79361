/* SPDX-License-Identifier: BSD-2-Clause */
/* call: what methods answer a call with. */
#ifndef POLDER_CONTROL_CALL_H
#define POLDER_CONTROL_CALL_H
#include "daemons/rpc/client.h"
#include "daemons/rpc/server.h"

struct control;

void call_error(struct control *c, struct rpc_reply *reply, enum rpc_error code, const char *format,
                ...) __attribute__((format(printf, 4, 5)));
/* Lets one of c->peers answer. params: taken. */
void call_forward(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                  const char *method, struct rpc_out *params);
/* The same for what takes longer than PEERS_ANSWER_MS. */
void call_forward_for(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                      const char *method, struct rpc_out *params, unsigned timeout_ms);
/* One line of what a caller asked for, without secrets; for the log. */
void call_describe(enum rpc_method method, const msgpack_object *params, char *out, size_t size);
#endif

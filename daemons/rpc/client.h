/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client: asks another process on its UNIX socket, without waiting.
 *
 * A call is a connection of its own: there is nothing to recover when the other side dies. `done`
 * is called exactly once for each call, from the loop (never from within rpc_client_call), or from
 * rpc_client_fini.
 */
#ifndef POLDER_DAEMONS_RPC_CLIENT_H
#define POLDER_DAEMONS_RPC_CLIENT_H
#include "polder/rpc.h"
#include "polder/rpc_in.h"
#include "polder/rpc_out.h"
#include <ev.h>
#include <sys/queue.h>

/* code RPC_OK: result is valid until it returns; else message says why, result is NULL. */
typedef void (*rpc_answer_fn)(void *arg, enum rpc_error code, const char *message,
                              const msgpack_object *result);

struct rpc_client {
    struct ev_loop *loop;
    char path[108];
    LIST_HEAD(, rpc_ask) asks; /* under way */
    unsigned n_asks;
};

void rpc_client_init(struct rpc_client *client, struct ev_loop *loop, const char *path);
void rpc_client_fini(struct rpc_client *client); /* ends what is under way with RPC_UNAVAILABLE */
/* params: one map, which the call takes and frees; NULL: none. */
void rpc_client_call(struct rpc_client *client, const char *method, struct rpc_out *params,
                     unsigned timeout_ms, rpc_answer_fn done, void *arg);
#endif

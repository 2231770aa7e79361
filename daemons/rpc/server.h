/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server: MessagePack-RPC on a UNIX stream socket, in a libev loop.
 *
 * Used by control (admin.sock), keeper (keeper.sock) and supervisor (supervisor-rpc.sock). Lets in
 * root, the own user and members of one group (SO_PEERCRED, SO_PEERGROUPS). What is malformed, too
 * long or too deep gets an error answer and costs that connection alone. Connections, requests
 * under way and unsent answers are bounded; a client that is silent for 60 s without waiting for
 * anything is closed.
 *
 * The handler is called once a request, with parameters that are a map. It answers with
 * rpc_reply_error(), or with rpc_reply_result() and rpc_reply_send(), at once or later: a reply
 * outlives its connection (the answer is then thrown away) and has to be answered exactly once, and
 * before the server is freed. Answers go out in the order in which they are made.
 */
#ifndef POLDER_DAEMONS_RPC_SERVER_H
#define POLDER_DAEMONS_RPC_SERVER_H
#include "polder/rpc.h"
#include "polder/rpc_in.h"
#include "polder/rpc_out.h"
#include <ev.h>
#include <sys/types.h>

struct rpc_server;
struct rpc_reply;

struct rpc_peer {
    uid_t uid;
    gid_t gid;
    pid_t pid;
};
struct rpc_call {
    struct rpc_reply *reply; /* for notifications too: the answer is not sent */
    struct rpc_peer peer;
    const char *method; /* not NUL-terminated */
    size_t method_len;
    const msgpack_object *params; /* a map; gone when the handler returns */
};
typedef void (*rpc_handler)(void *arg, const struct rpc_call *call);

/* gid: its members get access; (gid_t)-1: no group. 0 or a negative errno, -EADDRINUSE where
 * another process answers on path. */
int rpc_server_new(struct rpc_server **out, struct ev_loop *loop, const char *path, mode_t mode,
                   gid_t gid, rpc_handler handler, void *arg);
/* The same on a listening socket that another program of this process has left (takes fd). */
int rpc_server_adopt(struct rpc_server **out, struct ev_loop *loop, int fd, const char *path,
                     gid_t gid, rpc_handler handler, void *arg);
/* A connection that it has left too. */
void rpc_server_take(struct rpc_server *server, int fd);
/* Nothing is half read, under way or unsent on any connection. */
bool rpc_server_is_quiet(const struct rpc_server *server);
int rpc_server_fd(const struct rpc_server *server);
/* Each connection on which nothing is under way: those can be left to another program. */
void rpc_server_each_quiet(const struct rpc_server *server, void (*fn)(void *arg, int fd),
                           void *arg);
/* Changes who has access from now on. */
void rpc_server_permit(struct rpc_server *server, mode_t mode, gid_t gid);
/* Takes no further connection and no further call, and removes the path; what is under way is still
 * answered. */
void rpc_server_take_no_more(struct rpc_server *server);
/* Closes all connections, and removes the path. */
void rpc_server_free(struct rpc_server *server);

/* The result: put exactly one value, then send. */
struct rpc_out *rpc_reply_result(struct rpc_reply *reply);
void rpc_reply_send(struct rpc_reply *reply);
void rpc_reply_error(struct rpc_reply *reply, enum rpc_error code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* What the request's parameters are according to the table, else answered: true: go on. */
bool rpc_call_check(const struct rpc_call *call, enum rpc_method method);
#endif

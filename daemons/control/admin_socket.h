/* SPDX-License-Identifier: BSD-2-Clause */
/* admin_socket: runtime_dir/admin.sock, with the mode and group of the configuration. */
#ifndef POLDER_CONTROL_ADMIN_SOCKET_H
#define POLDER_CONTROL_ADMIN_SOCKET_H
#include "daemons/rpc/server.h"

struct config;

struct admin_socket {
    struct rpc_server *server;   /* NULL: could not be opened yet; tried again each second */
    const struct config *config; /* that its mode and group come from */
    char complaint[256];         /* last error logged: once, not each second */
};
/* Opens the socket, or updates its mode and group. */
void admin_socket_follow(struct admin_socket *s, struct ev_loop *loop, const struct config *config,
                         rpc_handler handler, void *arg);
/* No further call; those under way are still answered. */
void admin_socket_take_no_more(struct admin_socket *s);
void admin_socket_close(struct admin_socket *s);
#endif

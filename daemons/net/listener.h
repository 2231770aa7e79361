/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * listener: accepts connections in a libev loop and hands them to a callback.
 *
 * One connection per wake-up, so that a crowd at the door does not starve those inside. When the
 * process is out of descriptors or memory, accepting pauses for a second: else the loop would spin.
 */
#ifndef POLDER_DAEMONS_NET_LISTENER_H
#define POLDER_DAEMONS_NET_LISTENER_H
#include "daemons/net/unix_socket.h"
#include <ev.h>
#include <stdbool.h>
#include <sys/socket.h>

/* fd: nonblocking, close-on-exec, for the callee to close. */
typedef void (*listener_fn)(void *arg, int fd);

struct listener {
    struct ev_loop *loop;
    listener_fn accepted;
    void *arg;
    ev_io io;
    ev_timer pause;
    bool open, is_unix;
    int fd;
    struct unix_socket socket; /* where is_unix */
};

void listener_init(struct listener *l, struct ev_loop *loop, listener_fn accepted, void *arg);
/* Begin to accept: 0 or a negative errno, see unix_socket_listen(). */
int listener_open_path(struct listener *l, const char *path, mode_t mode, gid_t gid);
/* TCP; its connections have TCP_NODELAY. */
int listener_open_address(struct listener *l, const struct sockaddr_storage *sa, socklen_t len);
/* Does nothing where it is not open; removes a path. */
void listener_close(struct listener *l);
#endif

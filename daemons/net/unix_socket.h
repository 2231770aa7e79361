/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * unix_socket: UNIX listeners that replace dead ones, but never a living one.
 *
 * The socket is bound under a temporary name, given its mode and group, and renamed: no client can
 * connect before its permissions are set, and the path always exists.
 */
#ifndef POLDER_DAEMONS_NET_UNIX_SOCKET_H
#define POLDER_DAEMONS_NET_UNIX_SOCKET_H
#include <stddef.h>
#include <sys/types.h>

struct unix_socket {
    int fd;
    dev_t device; /* the socket made here, so that one of another process is never removed */
    ino_t inode;
    char path[108];
};

/* type: SOCK_STREAM, SOCK_SEQPACKET. gid: (gid_t)-1 leaves the group. 0, -EADDRINUSE if a process
 * answers on path, or a negative errno. A group that cannot be set is logged and left. */
int unix_socket_listen(struct unix_socket *s, const char *path, int type, mode_t mode, gid_t gid);
/* One that another process, or another program of this one, has made: takes fd. path "": it is not
 * ours to remove. 0 or a negative errno: it listens on no UNIX socket of that type. */
int unix_socket_adopt(struct unix_socket *s, int fd, const char *path, int type);
/* The next unix_socket_listen() on path takes this listening socket, which another process made. */
void unix_socket_inherit(const struct unix_socket *from);
/* Gives the path mode and group; what cannot be given is logged. 0 or a negative errno. */
int unix_socket_permit(const char *path, mode_t mode, gid_t gid);
/* Closes; removes the path if it is still ours. */
void unix_socket_close(struct unix_socket *s);
/* A nonblocking stream; fd or a negative errno. */
int unix_socket_connect(const char *path);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * listener: accepts connections in a libev loop and hands them to a callback.
 *
 * A few connections per wake-up, so that a burst of new ones does not starve the others. When the
 * process is out of descriptors or memory, accepting pauses: else the loop would spin. Where there
 * is a reserve descriptor it is given up for a moment to accept and close one connection, so that
 * the kernel's queue moves and its client learns that it has to try elsewhere.
 */
#ifndef POLDER_DAEMONS_NET_LISTENER_H
#define POLDER_DAEMONS_NET_LISTENER_H
#include "daemons/net/unix_socket.h"
#include <ev.h>
#include <stdbool.h>
#include <sys/socket.h>

/* fd: nonblocking, close-on-exec, with TCP_NODELAY where it is TCP; for the callee to close. */
typedef void (*listener_fn)(void *arg, int fd, const struct sockaddr *peer);

struct listener {
    struct ev_loop *loop;
    listener_fn accepted;
    void *arg;
    /* listener_init() sets the usual values of these; they may be changed before it opens. */
    unsigned at_once;             /* connections per wake-up: 1 */
    double pause_s;               /* 1 */
    int *reserve;                 /* listener_reserve_open(); NULL: none */
    void (*exhausted)(void *arg); /* called before it pauses; NULL: not needed */

    ev_io io;
    ev_timer pause;
    bool open;
    int fd;
    unsigned n_delayed; /* connections that came before fd had TCP_NODELAY, which others inherit */
    struct unix_socket socket; /* of a path */
};

void listener_init(struct listener *l, struct ev_loop *loop, listener_fn accepted, void *arg);
/* Begin to accept: 0 or a negative errno, see unix_socket_listen(). type: SOCK_STREAM,
 * SOCK_SEQPACKET. */
int listener_open_path(struct listener *l, const char *path, int type, mode_t mode, gid_t gid);
/* One that is there: unix_socket_adopt(). */
int listener_adopt_path(struct listener *l, int fd, const char *path, int type);
int listener_open_address(struct listener *l, const struct sockaddr_storage *sa, socklen_t len);
/* A socket that listens already, and is the listener's from now on. */
void listener_open_socket(struct listener *l, int fd);
/* Accepts at once what has connected already, `max` at most. */
void listener_drain(struct listener *l, unsigned max);
/* Does nothing where it is not open; removes a path. */
void listener_close(struct listener *l);

int listener_reserve_open(void); /* a descriptor; -1 */
#endif

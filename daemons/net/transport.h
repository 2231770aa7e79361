/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * transport: carries the bytes of a connection. The connection knows their meaning; the transport
 * how they are sent and received: over a socket (socket_transport), later under TLS, and in memory
 * for tests.
 *
 * Nothing here blocks. A transport calls its user when it can be read or written, as long as the
 * user wants that; the user then reads or writes once or more, may want something else, and may
 * close the transport, whose memory it keeps until the end of the loop's iteration.
 */
#ifndef POLDER_DAEMONS_NET_TRANSPORT_H
#define POLDER_DAEMONS_NET_TRANSPORT_H
#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#define TRANSPORT_READ  1u
#define TRANSPORT_WRITE 2u

struct transport;

struct transport_ops {
    /* Bytes read; 0: the peer has finished (FIN); -EAGAIN: nothing now; another negative errno: it
     * is broken. */
    ssize_t (*read)(struct transport *t, void *at, size_t room);
    /* As read() of one byte, which stays where it is. */
    ssize_t (*peek)(struct transport *t);
    /* Bytes taken, of memory or of a mapped file, that may change afterwards; 0: no more now; a
     * negative errno: it is broken. */
    ssize_t (*write)(struct transport *t, const struct iovec *iov, unsigned n);
    void (*want)(struct transport *t, unsigned events); /* TRANSPORT_READ, TRANSPORT_WRITE */
    /* 0: it is there, or its user will be told that it can be written and asks established(). */
    int (*connect)(struct transport *t, const struct sockaddr *to, socklen_t len);
    int (*established)(struct transport *t); /* 0 or a negative errno */
    void (*finish)(struct transport *t);     /* nothing more is written: FIN */
    /* However it ends, this process's death included, the peer sees that as a broken connection and
     * not as a finished one. */
    void (*break_on_close)(struct transport *t, bool on);
    void (*close)(struct transport *t);
};
struct transport_user {
    void (*readable)(struct transport *t);
    void (*writable)(struct transport *t);
};

struct transport {
    const struct transport_ops *ops;
    const struct transport_user *user;
    struct ev_loop *loop;
    ev_io read, write; /* of the socket; its descriptor is -1 where there is none */
    void *state;       /* the transport's own; sockets have none */
    unsigned wanted;
};
/* What the transport is a member of. */
#define TRANSPORT_OWNER(t, type, member) ((type *)(void *)((char *)(t)-offsetof(type, member)))

extern const struct transport_ops socket_transport;

/* fd: a socket that does not block, which is the transport's from now on; -1: none yet. */
void transport_init(struct transport *t, const struct transport_ops *ops,
                    const struct transport_user *user, struct ev_loop *loop, int fd);
static inline int transport_fd(const struct transport *t)
{
    return t->read.fd;
}
static inline void transport_start(struct transport *t, unsigned events)
{
    if (~t->wanted & events)
        t->ops->want(t, t->wanted | events);
}
static inline void transport_stop(struct transport *t, unsigned events)
{
    if (t->wanted & events)
        t->ops->want(t, t->wanted & ~events);
}
/* The loop has found it readable, and its user has not been told yet. */
static inline bool transport_is_due(const struct transport *t)
{
    return ev_is_pending(&t->read);
}
/* As sendmsg() that neither waits nor raises SIGPIPE. */
ssize_t socket_send(int fd, const struct iovec *iov, unsigned n);
/* Bytes that a socket takes, 0: none now; a negative errno. */
ssize_t socket_write(int fd, const struct iovec *iov, unsigned n);
/* The socket leaves the loop, because another process will own it: the loop's epoll set would keep
 * reporting it. socket_transport_return(): it stays after all. */
void socket_transport_leave(struct transport *t, int epoll_fd);
void socket_transport_return(struct transport *t);
#endif

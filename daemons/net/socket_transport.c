/* SPDX-License-Identifier: BSD-2-Clause */
/* socket_transport: bytes go over a socket as they are. See transport.h. */
#include "daemons/net/transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <unistd.h>

static void on_read(struct ev_loop *loop, ev_io *w, int revents)
{
    struct transport *t = w->data;
    (void)loop, (void)revents;
    t->user->readable(t);
}

static void on_write(struct ev_loop *loop, ev_io *w, int revents)
{
    struct transport *t = w->data;
    (void)loop, (void)revents;
    t->user->writable(t);
}

void transport_init(struct transport *t, const struct transport_ops *ops,
                    const struct transport_user *user, struct ev_loop *loop, int fd)
{
    t->ops = ops;
    t->user = user;
    t->loop = loop;
    t->wanted = 0;
    ev_io_init(&t->read, on_read, fd, EV_READ);
    ev_io_init(&t->write, on_write, fd, EV_WRITE);
    t->read.data = t->write.data = t;
}

static ssize_t socket_read(struct transport *t, void *at, size_t room)
{
    const ssize_t n = recv(t->read.fd, at, room, 0);
    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t socket_peek(struct transport *t)
{
    char byte;
    const ssize_t n = recv(t->read.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

/* One piece is a little cheaper without what describes pieces. */
ssize_t socket_send(int fd, const struct iovec *iov, unsigned n)
{
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    const struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
    return n == 1 ? send(fd, iov->iov_base, iov->iov_len, flags) : sendmsg(fd, &m, flags);
}

ssize_t socket_write(int fd, const struct iovec *iov, unsigned n)
{
    ssize_t sent;
    do
        sent = socket_send(fd, iov, n);
    while (sent < 0 && errno == EINTR);
    return sent >= 0 ? sent : errno == EAGAIN ? 0 : -errno;
}

static ssize_t on_socket_write(struct transport *t, const struct iovec *iov, unsigned n)
{
    return socket_write(t->read.fd, iov, n);
}

static void socket_want(struct transport *t, unsigned events)
{
    const unsigned changed = t->wanted ^ events;
    t->wanted = events;
    if (changed & TRANSPORT_READ)
        (events & TRANSPORT_READ ? ev_io_start : ev_io_stop)(t->loop, &t->read);
    if (changed & TRANSPORT_WRITE)
        (events & TRANSPORT_WRITE ? ev_io_start : ev_io_stop)(t->loop, &t->write);
}

static int socket_connect(struct transport *t, const struct sockaddr *to, socklen_t len)
{
    const int on = 1;
    const int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (to->sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, to, len) < 0 && errno != EINPROGRESS) {
        const int code = -errno;
        close(fd);
        return code;
    }
    ev_io_set(&t->read, fd, EV_READ);
    ev_io_set(&t->write, fd, EV_WRITE);
    return 0;
}

static int socket_established(struct transport *t)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (getsockopt(t->write.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        return -errno;
    return -error;
}

static void socket_finish(struct transport *t)
{
    shutdown(t->read.fd, SHUT_WR);
}

static void socket_break_on_close(struct transport *t, bool on)
{
    const struct linger linger = {.l_onoff = on, .l_linger = 0};
    setsockopt(t->read.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static void socket_close(struct transport *t)
{
    socket_want(t, 0);
    if (t->read.fd >= 0)
        close(t->read.fd);
}

const struct transport_ops socket_transport = {
    .read = socket_read,
    .peek = socket_peek,
    .write = on_socket_write,
    .want = socket_want,
    .connect = socket_connect,
    .established = socket_established,
    .finish = socket_finish,
    .break_on_close = socket_break_on_close,
    .close = socket_close,
};

/* libev would not notice, for the description stays open, and would rebuild its whole set at the
 * first stray event. */
void socket_transport_leave(struct transport *t, int epoll_fd)
{
    socket_want(t, 0);
    if (epoll_fd >= 0)
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, t->read.fd, NULL);
}

void socket_transport_return(struct transport *t)
{
    ev_io_set(&t->read, t->read.fd, EV_READ); /* makes libev tell the kernel again */
    ev_io_set(&t->write, t->write.fd, EV_WRITE);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* listener: see listener.h. */
#include "daemons/net/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#define BACKLOG 128
#define PAUSE_S 1.

static void on_accept(struct ev_loop *loop, ev_io *w, int revents)
{
    struct listener *l = w->data;
    const int one = 1;
    (void)revents;
    const int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            ev_io_stop(loop, w);
            ev_timer_again(loop, &l->pause);
        }
        return;
    }
    if (!l->is_unix)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    l->accepted(l->arg, fd);
}

static void on_pause(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct listener *l = w->data;
    (void)revents;
    ev_timer_stop(loop, w);
    ev_io_start(loop, &l->io);
}

void listener_init(struct listener *l, struct ev_loop *loop, listener_fn accepted, void *arg)
{
    *l = (struct listener){.loop = loop, .accepted = accepted, .arg = arg, .fd = -1};
}

static void listener_start(struct listener *l, int fd)
{
    l->fd = fd;
    l->open = true;
    ev_io_init(&l->io, on_accept, fd, EV_READ);
    ev_init(&l->pause, on_pause);
    l->pause.repeat = PAUSE_S;
    l->io.data = l->pause.data = l;
    ev_io_start(l->loop, &l->io);
}

int listener_open_path(struct listener *l, const char *path, mode_t mode, gid_t gid)
{
    const int code = unix_socket_listen(&l->socket, path, mode, gid);
    if (code)
        return code;
    l->is_unix = true;
    listener_start(l, l->socket.fd);
    return 0;
}

int listener_open_address(struct listener *l, const struct sockaddr_storage *sa, socklen_t len)
{
    const int one = 1;
    const int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (sa->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)sa, len) < 0 || listen(fd, BACKLOG) < 0) {
        const int code = -errno;
        close(fd);
        return code;
    }
    l->is_unix = false;
    listener_start(l, fd);
    return 0;
}

void listener_close(struct listener *l)
{
    if (!l->open)
        return;
    ev_io_stop(l->loop, &l->io);
    ev_timer_stop(l->loop, &l->pause);
    if (l->is_unix)
        unix_socket_close(&l->socket);
    else
        close(l->fd);
    l->open = false;
}

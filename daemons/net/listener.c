/* SPDX-License-Identifier: BSD-2-Clause */
/* listener: see listener.h. */
#include "daemons/net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <unistd.h>

#define BACKLOG 128
#define PAUSE_S 1.

/* ---- accepting ---- */

/* Connections in the kernel's queue; UINT_MAX: it does not tell, as where this is not TCP. */
static unsigned listener_queued(const struct listener *l)
{
    struct tcp_info info;
    const socklen_t wanted = offsetof(struct tcp_info, tcpi_unacked) + sizeof info.tcpi_unacked;
    socklen_t len = wanted;
    if (getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 || len < wanted)
        return UINT_MAX;
    return info.tcpi_unacked;
}

int listener_reserve_open(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void listener_turn_one_away(struct listener *l)
{
    if (!l->reserve || *l->reserve < 0)
        return;
    close(*l->reserve);
    const int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    *l->reserve = listener_reserve_open();
}

static void listener_pause(struct listener *l)
{
    listener_turn_one_away(l);
    if (l->exhausted && !ev_is_active(&l->pause))
        l->exhausted(l->arg);
    ev_io_stop(l->loop, &l->io);
    ev_timer_again(l->loop, &l->pause);
}

static void listener_send_at_once(int fd)
{
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* False: the queue is empty, or there is no room. */
static bool listener_take(struct listener *l)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    const int fd = accept4(l->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            listener_pause(l);
        return errno == ECONNABORTED || errno == EINTR;
    }
    if (l->n_delayed && peer.ss_family != AF_UNIX) {
        listener_send_at_once(fd);
        l->n_delayed--;
    }
    l->accepted(l->arg, fd, (const struct sockaddr *)&peer);
    return true;
}

static void on_accept(struct ev_loop *loop, ev_io *w, int revents)
{
    struct listener *l = w->data;
    (void)loop, (void)revents;
    unsigned n = 1;
    if (l->at_once > 1) { /* an accept4() in vain makes and frees a socket: to ask is cheaper */
        const unsigned queued = listener_queued(l);
        n = queued > l->at_once ? l->at_once : queued ? queued : 1;
    }
    for (unsigned i = 0; i < n && ev_is_active(&l->io); i++)
        if (!listener_take(l))
            return;
}

static void on_pause(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct listener *l = w->data;
    (void)revents;
    ev_timer_stop(loop, w);
    ev_io_start(loop, &l->io);
}

void listener_drain(struct listener *l, unsigned max)
{
    for (unsigned i = 0; i < max && l->open && ev_is_active(&l->io); i++)
        if (!listener_take(l))
            return;
}

/* ---- opening and closing ---- */

void listener_init(struct listener *l, struct ev_loop *loop, listener_fn accepted, void *arg)
{
    *l = (struct listener){.loop = loop,
                           .accepted = accepted,
                           .arg = arg,
                           .at_once = 1,
                           .pause_s = PAUSE_S,
                           .fd = -1,
                           .socket = {.fd = -1}};
}

static void listener_start(struct listener *l, int fd)
{
    l->fd = fd;
    l->open = true;
    ev_io_init(&l->io, on_accept, fd, EV_READ);
    ev_init(&l->pause, on_pause);
    l->pause.repeat = l->pause_s;
    l->io.data = l->pause.data = l;
    listener_send_at_once(fd);
    l->n_delayed = listener_queued(l);
    ev_io_start(l->loop, &l->io);
}

int listener_open_path(struct listener *l, const char *path, int type, mode_t mode, gid_t gid)
{
    const int code = unix_socket_listen(&l->socket, path, type, mode, gid);
    if (code)
        return code;
    listener_start(l, l->socket.fd);
    return 0;
}

int listener_adopt_path(struct listener *l, int fd, const char *path, int type)
{
    const int code = unix_socket_adopt(&l->socket, fd, path, type);
    if (code == 0)
        listener_open_socket(l, fd);
    return code;
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
    listener_start(l, fd);
    return 0;
}

void listener_open_socket(struct listener *l, int fd)
{
    const int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    listener_start(l, fd);
}

void listener_close(struct listener *l)
{
    if (!l->open)
        return;
    ev_io_stop(l->loop, &l->io);
    ev_timer_stop(l->loop, &l->pause);
    if (l->socket.fd >= 0)
        unix_socket_close(&l->socket);
    else
        close(l->fd);
    l->open = false;
}

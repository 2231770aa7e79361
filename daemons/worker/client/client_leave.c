/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client_leave: a client that leaves while its request waits.
 *
 * Mostly its connection is read meanwhile, and recv() tells the end. Where reading has stopped,
 * because requests wait behind this one or its body has to wait, FIN and reset lie behind bytes
 * that are not read. Such connections are in a second epoll set, which is told of FIN and reset
 * alone (EPOLLRDHUP, which libev does not ask for) and is itself watched by the loop. A connection
 * enters it the first time that its reading stops and stays there, edge-triggered, to its end: that
 * is one system call in the life of some connections, and none in that of others.
 */
#include "daemons/worker/client/client.h"
#include "daemons/worker/worker.h"

#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS 64

void client_left(struct client *c)
{
    client_close(c);
}

/* Whether FIN ends the request that is being answered. What the store answers is just written. */
static bool fin_ends_request(const struct client *c)
{
    if (c->state != CLIENT_BUSY || (!c->fetch && !c->held))
        return false;
    switch (c->worker->config->client_half_close) {
    case CONFIG_HALF_CLOSE_ANSWER:
        return false;
    case CONFIG_HALF_CLOSE_ABORT:
        return true;
    default:
        return !c->half_closes;
    }
}

bool client_leave_by_fin(struct client *c)
{
    if (fin_ends_request(c)) {
        client_left(c);
        return true;
    }
    if (c->held) /* it may have gone: whether it reads an answer is found out now */
        c->worker->clients->ops->end_hold(c);
    return false;
}

void client_leave_watch(struct client *c)
{
    struct worker *w = c->worker;
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (c->leave_watched) {
        if (c->fin_seen && fin_ends_request(c))
            client_schedule(c); /* it was for a request before this one */
        return;
    }
    const int fd = transport_fd(&c->transport);
    if (w->clients->leave.fd >= 0 && fd >= 0)
        c->leave_watched = epoll_ctl(w->clients->leave.fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void client_leave_unwatch(struct client *c)
{
    if (c->leave_watched)
        epoll_ctl(c->worker->clients->leave.fd, EPOLL_CTL_DEL, transport_fd(&c->transport), NULL);
    c->leave_watched = false;
}

static void notice(struct client *c, uint32_t events)
{
    c->fin_seen = true; /* also for what is read ahead and asked next */
    if (c->state != CLIENT_BUSY)
        return;
    if (events & (EPOLLHUP | EPOLLERR))
        client_left(c);
    else
        client_leave_by_fin(c);
}

static void on_leave(EV_P_ ev_io *watcher, int events)
{
    struct epoll_event event[EVENTS];
    int n;
    (void)loop, (void)events;
    do {
        n = epoll_wait(watcher->fd, event, EVENTS, 0);
        for (int i = 0; i < n; i++)
            notice(event[i].data.ptr, event[i].events);
    } while (n == EVENTS);
}

void client_leave_open(struct worker *w)
{
    ev_io_init(&w->clients->leave, on_leave, epoll_create1(EPOLL_CLOEXEC), EV_READ);
    if (w->clients->leave.fd >= 0)
        ev_io_start(w->loop, &w->clients->leave);
}

void client_leave_close(struct worker *w)
{
    if (w->clients->leave.fd < 0)
        return;
    ev_io_stop(w->loop, &w->clients->leave);
    close(w->clients->leave.fd);
    w->clients->leave.fd = -1;
}

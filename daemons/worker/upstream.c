/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upstream: connections to backends: connecting, bytes in and out, time-outs. What the bytes mean
 * for a request is exchange.c's.
 */
#include "daemons/worker/upstream.h"
#include "daemons/worker/client.h"
#include "daemons/worker/exchange.h"
#include "daemons/worker/worker.h"
#include "polder/stats.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TRAILER_KEPT 2048 /* what does not fit is dropped */

static void on_read(EV_P_ ev_io *watcher, int events);
static void on_write(EV_P_ ev_io *watcher, int events);

/* ---- life ---- */

struct upstream *upstream_connect(struct worker *w, const struct config_server *server)
{
    const struct sockaddr *sa = (const struct sockaddr *)&server->address.sa;
    struct upstream *u = calloc(1, sizeof *u);
    if (!u)
        return NULL;
    const int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        free(u);
        return NULL;
    }
    if (sa->sa_family != AF_UNIX) {
        const int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (connect(fd, sa, server->address.len) < 0 && errno != EINPROGRESS) {
        close(fd);
        free(u);
        return NULL;
    }
    u->worker = w;
    u->server = server;
    u->state = UPSTREAM_CONNECTING;
    u->timer.kind = TIMER_UPSTREAM;
    ev_io_init(&u->read, on_read, fd, EV_READ);
    ev_io_init(&u->write, on_write, fd, EV_WRITE);
    u->read.data = u->write.data = u;
    ev_io_start(w->loop, &u->write);
    timer_set(w, &u->timer, w->mono_ms + server->upstream->connect_timeout_ms);
    w->n_busy++;
    return u;
}

void upstream_close(struct upstream *u)
{
    struct worker *w = u->worker;
    if (u->state == UPSTREAM_CLOSED)
        return;
    if (u->state == UPSTREAM_IDLE)
        pool_forget(u);
    else
        w->n_busy--;
    u->state = UPSTREAM_CLOSED;
    ev_io_stop(w->loop, &u->read);
    ev_io_stop(w->loop, &u->write);
    timer_stop(w, &u->timer);
    close(u->read.fd);
    if (u->in)
        buffer_put(w, u->in);
    u->in = NULL;
    chain_free(w, &u->out);
    if (u->exchange)
        u->exchange->up = NULL;
    u->exchange = NULL;
    u->next = w->dead_upstreams;
    w->dead_upstreams = u;
}

void upstream_free(struct upstream *u)
{
    free(u->trailer);
    free(u);
}

void upstream_keep_trailer(struct upstream *u)
{
    if (!u->trailer)
        u->trailer = malloc(TRAILER_KEPT);
    if (u->trailer)
        h1_body_keep_trailer(&u->body, u->trailer, TRAILER_KEPT);
}

/* ---- time ---- */

void upstream_progress(struct upstream *u)
{
    u->progress_ms = u->worker->mono_ms;
    timer_set(u->worker, &u->timer, u->progress_ms + u->server->upstream->timeout_ms);
}

void upstream_timeout(struct upstream *u)
{
    struct worker *w = u->worker;
    if (u->state == UPSTREAM_IDLE) {
        upstream_close(u);
        return;
    }
    if (u->state == UPSTREAM_CONNECTING) {
        stats_add(w->stats, STATS_UPSTREAM_TIMEOUTS, 1);
        exchange_connect_failed(u->exchange, true);
        return;
    }
    /* Waiting for the client, to take more or to send more, is not the backend's fault; the
     * client's own deadline watches that. */
    const struct client *c = u->exchange->req.client;
    const bool client_slow = u->paused || (c && c->body_pending && c->body_wanted && !u->out.len);
    const uint64_t due = u->progress_ms + u->server->upstream->timeout_ms;
    if (client_slow) {
        upstream_progress(u);
    } else if (due > w->mono_ms) {
        timer_set(w, &u->timer, due);
    } else {
        stats_add(w->stats, STATS_UPSTREAM_TIMEOUTS, 1);
        exchange_broken(u->exchange, true);
    }
}

/* ---- bytes ---- */

static void connected(struct upstream *u)
{
    int error = 0;
    socklen_t len = sizeof error;
    ev_io_stop(u->worker->loop, &u->write);
    if (getsockopt(u->write.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error) {
        exchange_connect_failed(u->exchange, false);
        return;
    }
    stats_add(u->worker->stats, STATS_UPSTREAM_CONNECTS, 1);
    u->state = UPSTREAM_BUSY;
    exchange_send(u->exchange);
}

void upstream_send(struct upstream *u, const struct iovec *iov, unsigned n)
{
    if (u->deaf)
        return;
    if (chain_send(u->worker, &u->out, u->write.fd, iov, n) < 0) {
        /* It has stopped listening; perhaps its answer is already here. The read side tells. */
        u->deaf = true;
        chain_free(u->worker, &u->out);
    } else if (u->out.len) {
        ev_io_start(u->worker->loop, &u->write);
    }
}

static void writable(struct upstream *u)
{
    const size_t before = u->out.len;
    if (chain_flush(u->worker, &u->out, u->write.fd) < 0) {
        u->deaf = true;
        chain_free(u->worker, &u->out);
    }
    if (u->out.len != before)
        u->progress_ms = u->worker->mono_ms;
    if (!u->out.len)
        ev_io_stop(u->worker->loop, &u->write);
    if (u->out.len < WORKER_LOW)
        exchange_writable(u->exchange);
}

static void on_write(EV_P_ ev_io *watcher, int events)
{
    struct upstream *u = watcher->data;
    (void)loop, (void)events;
    if (u->state == UPSTREAM_CONNECTING)
        connected(u);
    else if (u->state == UPSTREAM_BUSY)
        writable(u);
}

/* Keeps the part of a head for the next read, in the buffer it came in if it was one. */
static void keep_rest(struct upstream *u, struct buffer *in, const char *at, size_t len)
{
    struct worker *w = u->worker;
    const bool wanted = len && u->state == UPSTREAM_BUSY;
    if (wanted && !in)
        in = buffer_get(w);
    if (wanted && in) {
        memmove(in->data, at, len);
        in->end = (uint32_t)len;
        u->in = in;
    } else if (in) {
        buffer_put(w, in);
    }
    if (wanted && !in)
        exchange_broken(u->exchange, false);
}

static void readable(struct upstream *u)
{
    struct buffer *in = u->in;
    char *at = in ? in->data : u->worker->upstream_buffer;
    const size_t had = in ? in->end : 0;
    const ssize_t n = recv(u->read.fd, at + had, WORKER_BUFFER - had, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (u->state == UPSTREAM_IDLE) {
        upstream_close(u);
        return;
    }
    if (n <= 0) {
        if (n == 0)
            reply_eof(u->exchange);
        else
            exchange_broken(u->exchange, false);
        return;
    }
    u->got_bytes = true;
    u->in = NULL;
    upstream_progress(u);
    const size_t len = had + (size_t)n, used = reply_receive(u->exchange, at, len);
    keep_rest(u, in, at + used, len - used);
}

static void on_read(EV_P_ ev_io *watcher, int events)
{
    struct upstream *u = watcher->data;
    (void)loop, (void)events;
    if (u->state != UPSTREAM_CLOSED)
        readable(u);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upstream: connections to backends: connecting, bytes in and out, time-outs. What the bytes mean
 * for a request is its user's (upstream_ops).
 */
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/uncounted.h"
#include "daemons/worker/fleet_link.h"
#include "daemons/worker/worker.h"
#include "polder/shared.h"
#include "polder/log.h"
#include "polder/inval.h"
#include "polder/stats.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRAILER_KEPT 2048 /* what does not fit is dropped */

static void arm(struct upstream *u);
static void on_timeout(struct timer *t);
static void on_readable(struct transport *t);
static void on_writable(struct transport *t);

/* ---- life ---- */

void upstream_error(struct upstream_error *e, enum server_reason reason, const char *format, ...)
{
    va_list args;
    e->reason = reason;
    va_start(args, format);
    vsnprintf(e->what, sizeof e->what, format, args);
    va_end(args);
}

/* What connect() says; what is wrong on this side alone is no error of the server. */
static void connect_error(struct upstream_error *e, int code)
{
    if (code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM)
        upstream_error(e, SERVER_NONE, "cannot be asked: %s", strerror(code));
    else if (code == ECONNREFUSED || code == ENOENT)
        upstream_error(e, SERVER_REFUSED, "refused the connection: %s", strerror(code));
    else
        upstream_error(e, SERVER_UNREACHABLE, "cannot be reached: %s", strerror(code));
}

uint32_t upstream_addresses(const struct worker *w, const struct config_server *server)
{
    struct server_addresses list;
    if (server->address.len)
        return 1;
    return server_addresses_get(w->upstreams->servers[server->index].row, &list) ? list.n : 0;
}

void upstream_next_address(struct worker *w, const struct config_server *server)
{
    w->upstreams->servers[server->index].address++;
}

/* In another list, the address in use stays the one in use if it is still there. */
static void follow_addresses(struct server_local *state, const struct server_addresses *list,
                             uint64_t generation)
{
    if (state->addresses == generation)
        return;
    for (uint32_t i = 0; i < list->n && state->addresses; i++)
        if (!memcmp(&list->at[i], &state->at, sizeof state->at))
            state->address = i;
    state->addresses = generation;
    pool_close_left(state);
}

/* Of a name, the address to use now; 0: it has none. */
static socklen_t choose_address(struct upstream *u, struct sockaddr_storage *out)
{
    struct server_local *state = &u->worker->upstreams->servers[u->server->index];
    const uint64_t generation = server_addresses_generation(state->row);
    struct server_addresses list;
    if (!server_addresses_get(state->row, &list) || !list.n)
        return 0;
    follow_addresses(state, &list, generation);
    state->at = u->at = list.at[state->address % list.n];
    u->addresses = generation;
    return server_address_to(&u->at, out);
}

static socklen_t address_of(struct upstream *u, struct sockaddr_storage *out)
{
    if (!u->server->address.len)
        return choose_address(u, out);
    *out = u->server->address.sa;
    return u->server->address.len;
}

bool upstream_has_left(struct upstream *u)
{
    const struct server_row *row = u->worker->upstreams->servers[u->server->index].row;
    struct server_addresses list;
    if (u->server->address.len)
        return false;
    const uint64_t generation = server_addresses_generation(row);
    if (u->addresses == generation)
        return false;
    if (!server_addresses_get(row, &list) || !server_addresses_have(&list, &u->at))
        return true;
    u->addresses = generation;
    return false;
}

static bool begin(struct upstream *u, struct upstream_error *e)
{
    static const struct transport_user on = {on_readable, on_writable};
    struct worker *w = u->worker;
    struct sockaddr_storage sa;
    const socklen_t len = address_of(u, &sa);
    if (!len) {
        upstream_error(e, SERVER_NO_ADDRESS, "has a name without an address now");
        return false;
    }
    transport_init(&u->transport, w->upstreams->servers[u->server->index].transport, &on, w->loop,
                   -1);
    const int code = u->transport.ops->connect(&u->transport, (const struct sockaddr *)&sa, len);
    if (code)
        connect_error(e, -code);
    return !code;
}

struct upstream *upstream_connect(struct worker *w, const struct config_server *server,
                                  struct upstream_error *e)
{
    struct upstream *u = calloc(1, sizeof *u);
    if (!u) {
        connect_error(e, ENOMEM);
        return NULL;
    }
    u->worker = w;
    u->server = server;
    if (!begin(u, e)) {
        free(u);
        return NULL;
    }
    u->state = UPSTREAM_CONNECTING;
    u->timer.fire = on_timeout;
    u->progress_ms = w->mono_ms;
    transport_start(&u->transport, TRANSPORT_WRITE);
    arm(u);
    w->upstreams->n_busy++;
    pool_opened(u);
    return u;
}

void upstream_attach(struct upstream *u, const struct upstream_ops *ops, void *user,
                     uint64_t until_ms)
{
    u->ops = ops;
    u->user = user;
    u->until_ms = until_ms;
    u->in_body = u->uncounted = false;
    arm(u);
}

void upstream_leave_idle(struct upstream *u)
{
    struct server_local *state = &u->worker->upstreams->servers[u->server->index];
    TAILQ_REMOVE(&state->idle, u, idle);
    state->n_idle--;
    u->worker->upstreams->n_idle--;
}

void upstream_close(struct upstream *u)
{
    struct worker *w = u->worker;
    if (u->state == UPSTREAM_CLOSED)
        return;
    if (u->state == UPSTREAM_IDLE)
        upstream_leave_idle(u);
    else
        w->upstreams->n_busy--;
    u->state = UPSTREAM_CLOSED;
    w->upstreams->servers[u->server->index].n_open--;
    timer_stop(&w->wheel, &u->timer);
    u->transport.ops->close(&u->transport);
    if (u->in)
        buffer_put(&w->buffers, u->in);
    u->in = NULL;
    chain_free(&w->buffers, &u->out);
    if (u->user)
        u->ops->closed(u->user);
    u->user = NULL;
    LIST_INSERT_HEAD(&w->upstreams->dead, u, entry);
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

/* Events may be rare; that a stream of them is silent says nothing about its server. */
static uint32_t silence_allowed_ms(const struct upstream *u)
{
    const struct config_upstream *of = u->server->upstream;
    return u->event_stream && of->stream_timeout_ms > of->timeout_ms ? of->stream_timeout_ms
                                                                     : of->timeout_ms;
}

/* When what it does now has taken too long: for itself, or for its user. */
static uint64_t due_of(const struct upstream *u)
{
    const struct config_upstream *of = u->server->upstream;
    const bool connecting = u->state == UPSTREAM_CONNECTING;
    const uint64_t due_ms =
        u->progress_ms + (connecting ? of->connect_timeout_ms : silence_allowed_ms(u));
    return !u->in_body && u->until_ms && u->until_ms < due_ms ? u->until_ms : due_ms;
}

static void arm(struct upstream *u)
{
    timer_set(&u->worker->wheel, &u->timer, due_of(u));
}

void upstream_progress(struct upstream *u)
{
    u->progress_ms = u->worker->mono_ms;
    arm(u);
}

void upstream_resume(struct upstream *u)
{
    if (!u || !u->paused)
        return;
    u->paused = false;
    upstream_progress(u);
    transport_start(&u->transport, TRANSPORT_READ);
}

/* Not the server's fault where its user had less time left than a server gets. */
static void timed_out(struct upstream *u)
{
    struct worker *w = u->worker;
    struct upstream_error e;
    const bool connecting = u->state == UPSTREAM_CONNECTING;
    const struct config_upstream *of = u->server->upstream;
    const uint32_t allowed_ms = connecting ? of->connect_timeout_ms : silence_allowed_ms(u);
    const bool whole = w->mono_ms >= u->progress_ms + allowed_ms;
    stats_add(w->stats, STATS_UPSTREAM_TIMEOUTS, 1);
    upstream_error(&e,
                   !whole || u->event_stream ? SERVER_NONE
                   : connecting              ? SERVER_CONNECT_TIMEOUT
                                             : SERVER_TIMEOUT,
                   connecting   ? "took no connection for %g s"
                   : u->in_body ? "was silent for %g s within its response"
                   : u->in      ? "gave no whole response head for %g s"
                                : "gave no response for %g s",
                   allowed_ms / 1000.);
    if (connecting)
        u->ops->unconnected(u->user, &e);
    else
        u->ops->failed(u->user, &e, true);
}

static void timer_due(struct upstream *u)
{
    struct worker *w = u->worker;
    if (u->state == UPSTREAM_IDLE) {
        upstream_close(u);
        return;
    }
    if (u->state == UPSTREAM_CONNECTING) {
        timed_out(u);
        return;
    }
    /* Waiting for the client, to take more or to send more, is not the backend's fault; the
     * client's own deadline watches that. */
    const bool is_slow = u->paused || (!u->out.len && u->ops->is_slow(u->user));
    const uint64_t due = due_of(u);
    if (is_slow) {
        upstream_progress(u);
    } else if (due > w->mono_ms) {
        timer_set(&w->wheel, &u->timer, due);
    } else {
        timed_out(u);
    }
}

static struct stats_slab *counts_begin(const struct upstream *u)
{
    return u->uncounted ? uncounted_begin(u->worker) : u->worker->stats;
}

static void on_timeout(struct timer *t)
{
    struct upstream *u = TIMER_OWNER(t, struct upstream, timer);
    struct stats_slab *counts = counts_begin(u);
    timer_due(u);
    uncounted_end(u->worker, counts);
}

/* ---- bytes ---- */

static void connected(struct upstream *u)
{
    struct transport *t = &u->transport;
    const int code = t->ops->established(t);
    transport_stop(t, TRANSPORT_WRITE);
    if (code) {
        struct upstream_error e;
        connect_error(&e, -code);
        u->ops->unconnected(u->user, &e);
        return;
    }
    stats_add(u->worker->stats, STATS_UPSTREAM_CONNECTS, 1);
    stats_bump(&server_stats(u->worker, u->server)->connects, 1);
    u->state = UPSTREAM_BUSY;
    u->ops->connected(u->user);
}

void upstream_send(struct upstream *u, const struct iovec *iov, unsigned n)
{
    if (u->deaf)
        return;
    for (unsigned i = 0; i < n; i++)
        stats_bump(&server_stats(u->worker, u->server)->bytes_out, iov[i].iov_len);
    if (chain_send(&u->worker->buffers, &u->out, &u->transport, iov, n) < 0) {
        /* It has stopped listening; perhaps its answer is already here. The read side tells. */
        u->deaf = true;
        chain_free(&u->worker->buffers, &u->out);
    } else if (u->out.len) {
        transport_start(&u->transport, TRANSPORT_WRITE);
    }
}

static void writable(struct upstream *u)
{
    const size_t before = u->out.len;
    if (chain_flush(&u->worker->buffers, &u->out, &u->transport) < 0) {
        u->deaf = true;
        chain_free(&u->worker->buffers, &u->out);
    }
    if (u->out.len != before)
        u->progress_ms = u->worker->mono_ms;
    if (!u->out.len)
        transport_stop(&u->transport, TRANSPORT_WRITE);
    if (u->out.len < WORKER_LOW)
        u->ops->writable(u->user);
}

static void on_writable(struct transport *t)
{
    struct upstream *u = TRANSPORT_OWNER(t, struct upstream, transport);
    struct stats_slab *counts = counts_begin(u);
    if (u->state == UPSTREAM_CONNECTING)
        connected(u);
    else if (u->state == UPSTREAM_BUSY)
        writable(u);
    uncounted_end(u->worker, counts);
}

/* Keeps the part of a head for the next read, in the buffer it came in if it was one. */
static void keep_rest(struct upstream *u, struct buffer *in, const char *at, size_t len)
{
    struct worker *w = u->worker;
    const bool wanted = len && u->state == UPSTREAM_BUSY;
    if (wanted && !in)
        in = buffer_get(&w->buffers);
    if (wanted && in) {
        memmove(in->data, at, len);
        in->end = (uint32_t)len;
        u->in = in;
    } else if (in) {
        buffer_put(&w->buffers, in);
    }
    if (wanted && !in)
        u->ops->out_of_memory(u->user);
}

/* The connection has ended before the response has; code: errno, 0: it was closed. */
static void ended(struct upstream *u, int code)
{
    struct upstream_error e;
    const char *where = u->in_body     ? "within its response"
                        : u->got_bytes ? "within its response head"
                                       : "before its response head";
    upstream_error(&e, SERVER_CLOSED, "closed the connection %s%s%s", where, code ? ": " : "",
                   code ? strerror(code) : "");
    u->ops->failed(u->user, &e, false);
}

static void readable(struct upstream *u)
{
    struct buffer *in = u->in;
    char *at = in ? in->data : u->worker->upstreams->buffer;
    const size_t had = in ? in->end : 0;
    const ssize_t n = u->transport.ops->read(&u->transport, at + had, WORKER_BUFFER - had);
    if (n == -EAGAIN)
        return;
    if (u->state == UPSTREAM_IDLE) {
        if (n > 0)
            upstream_distrust(u);
        upstream_close(u);
        return;
    }
    if (n <= 0) {
        if (n < 0 || !u->ops->ended(u->user))
            ended(u, (int)-n);
        return;
    }
    u->got_bytes = true;
    u->drained = (size_t)n < WORKER_BUFFER - had;
    u->read_at = ev_iteration(u->worker->loop);
    u->in = NULL;
    stats_bump(&server_stats(u->worker, u->server)->bytes_in, (uint64_t)n);
    if (u->in_body || !had) /* a head has its time from its first byte, or would drip for days */
        upstream_progress(u);
    const size_t len = had + (size_t)n, used = u->ops->readable(u->user, at, len);
    if (had && u->in_body && u->state == UPSTREAM_BUSY)
        upstream_progress(u); /* its head is whole now */
    keep_rest(u, in, at + used, len - used);
}

void upstream_stores(struct upstream *u, const char *url, size_t len)
{
    u->stored_len = len <= sizeof u->stored ? (uint16_t)len : 0;
    if (u->stored_len)
        memcpy(u->stored, url, len);
    else
        u->keep_alive = false;
}

void upstream_distrust(struct upstream *u)
{
    pool_mistrust(u);
    if (!u->stored_len)
        return;
    log_warning("upstream %s: %s sent bytes that were not asked for; what was stored last over "
                "that connection is invalidated",
                u->server->upstream->name, u->server->address.text);
    fleet_link_tell(u->worker, FLEET_URL, (struct str){u->stored, u->stored_len},
                    (struct str){"", 0});
    inval_mark_url(u->worker->shared->inval, u->stored, u->stored_len, false);
    shared_wake_holders(u->worker->shared);
    u->stored_len = 0;
}

static void on_readable(struct transport *t)
{
    struct upstream *u = TRANSPORT_OWNER(t, struct upstream, transport);
    struct stats_slab *counts = counts_begin(u);
    if (u->state != UPSTREAM_CLOSED)
        readable(u);
    uncounted_end(u->worker, counts);
}

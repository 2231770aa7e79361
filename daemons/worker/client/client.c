/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client: a connection from a client: its states, deadlines, writing, and its end. What it sends is
 * read in client_read.c.
 */
#include "daemons/worker/client/client.h"
#include "daemons/worker/worker.h"
#include "polder/fleet_slots.h"
#include "polder/limit.h"
#include "polder/stats.h"

#include <assert.h>
#include <stdlib.h>

#define DISCARD_MAX   (64u << 10) /* longer rests of bodies are not worth a kept connection */
#define DRAIN_IDLE_MS 1000
#define RATE_MS       10000 /* a body's rate is looked at so often */

#define MAY(state) (1u << (state))
static const unsigned moves[CLIENT_STATES] = {
    [CLIENT_PROXY] = MAY(CLIENT_IDLE) | MAY(CLIENT_BUSY) | MAY(CLIENT_CLOSED),
    [CLIENT_IDLE] = MAY(CLIENT_HEAD) | MAY(CLIENT_BUSY) | MAY(CLIENT_CLOSED),
    [CLIENT_HEAD] = MAY(CLIENT_IDLE) | MAY(CLIENT_BUSY) | MAY(CLIENT_CLOSED),
    [CLIENT_BUSY] =
        MAY(CLIENT_IDLE) | MAY(CLIENT_DISCARD) | MAY(CLIENT_LINGER) | MAY(CLIENT_CLOSED),
    [CLIENT_DISCARD] = MAY(CLIENT_IDLE) | MAY(CLIENT_BUSY) | MAY(CLIENT_CLOSED),
    [CLIENT_LINGER] = MAY(CLIENT_CLOSED),
};

void client_move(struct client *c, enum client_state to)
{
    assert(moves[c->state] & MAY(to));
    c->state = (uint8_t)to;
}

/* ---- deadlines ---- */

/* It shall not wait for a further request; a new one is not there to be sent away unheard. */
static bool client_is_drained(const struct client *c)
{
    return c->worker->draining || (c->worker->drained && c->seen_request);
}

/* Is a body waited for that must come at a rate? Once the response has begun, the two may talk. */
static bool is_rated(const struct client *c)
{
    return c->worker->config->request_min_rate && c->body_pending &&
           (c->state == CLIENT_DISCARD || (c->state == CLIENT_BUSY && c->body_wanted &&
                                           !c->worker->clients->ops->response_begun(c)));
}

static uint64_t body_due(const struct client *c)
{
    const uint64_t silent_ms = c->progress_ms + c->worker->config->client_timeout_ms,
                   slow_ms = c->rated_ms + RATE_MS;
    return is_rated(c) && slow_ms < silent_ms ? slow_ms : silent_ms;
}

static void rate_begin(struct client *c)
{
    c->rated_ms = c->worker->mono_ms;
    c->rated_bytes = 0;
}

/* The time is over in which so many bytes of the body should have come. True: they have. */
static bool is_fast_enough(struct client *c)
{
    const struct worker *w = c->worker;
    if (!is_rated(c) || w->mono_ms < c->rated_ms + RATE_MS ||
        c->rated_bytes < w->config->request_min_rate * RATE_MS / 1000)
        return false;
    rate_begin(c);
    return true;
}

/* When the connection has waited for its client long enough; UINT64_MAX: it is not waiting. */
static uint64_t client_due(const struct client *c)
{
    const struct config *config = c->worker->config;
    switch (c->state) {
    case CLIENT_PROXY:
    case CLIENT_HEAD: /* not prolonged by a byte now and then */
        return c->first_ms + config->client_timeout_ms;
    case CLIENT_IDLE:
        return c->progress_ms + (client_is_drained(c) ? DRAIN_IDLE_MS
                                 : c->seen_request    ? config->keepalive_timeout_ms
                                                      : config->client_timeout_ms);
    case CLIENT_BUSY:
        if (c->held)
            return c->worker->clients->ops->held_until_ms(c);
        if (!c->out.len && !c->stored && !(c->body_pending && c->body_wanted))
            return UINT64_MAX;
        return body_due(c);
    case CLIENT_DISCARD:
        return body_due(c);
    case CLIENT_LINGER:
        return c->first_ms + WORKER_LINGER_MS;
    default:
        return UINT64_MAX;
    }
}

void client_update_timer(struct client *c)
{
    const uint64_t due = client_due(c);
    if (due != UINT64_MAX)
        timer_set(&c->worker->wheel, &c->timer, due);
}

static void client_timeout(struct timer *t)
{
    struct client *c = TIMER_OWNER(t, struct client, timer);
    if (is_fast_enough(c)) {
        client_update_timer(c);
        return;
    }
    const uint64_t due = client_due(c);
    if (due > c->worker->mono_ms) { /* there was progress since */
        if (due != UINT64_MAX)
            timer_set(&c->worker->wheel, &c->timer, due);
        return;
    }
    if (c->held) {
        c->worker->clients->ops->end_hold(c);
        return;
    }
    if (c->state != CLIENT_IDLE && c->state != CLIENT_LINGER)
        stats_add(c->worker->stats, STATS_CLIENT_TIMEOUTS, 1);
    const bool waits_for_body = c->state == CLIENT_BUSY && !c->out.len && !c->stored &&
                                !c->answered && !c->worker->clients->ops->response_begun(c);
    if (c->state == CLIENT_HEAD || waits_for_body) {
        c->discard = true;
        c->worker->clients->ops->timed_out(c);
    } else {
        c->note.cut = "client-timeout";
        client_close(c);
    }
}

/* ---- writing ---- */

size_t client_send_some(struct client *c, const struct iovec *iov, unsigned n, size_t keep)
{
    if (c->broken || c->state == CLIENT_CLOSED)
        return 0;
    struct worker *w = c->worker;
    const size_t waited = c->out.len;
    const ssize_t sent = chain_send_some(&w->buffers, &c->out, &c->transport, iov, n, keep);
    if (sent < 0) {
        c->broken = true;
        client_schedule(c);
        return 0;
    }
    if (sent > 0)
        c->progress_ms = w->mono_ms;
    stats_add(w->stats, STATS_BYTES_OUT, (uint64_t)sent);
    if (c->out.len && !waited) {
        c->progress_ms = w->mono_ms;
        transport_start(&c->transport, TRANSPORT_WRITE);
        client_update_timer(c);
    }
    return (size_t)sent > keep ? (size_t)sent - keep : 0;
}

void client_send(struct client *c, const struct iovec *iov, unsigned n)
{
    client_send_some(c, iov, n, SIZE_MAX);
}

void client_send_bytes(struct client *c, const char *bytes, size_t len)
{
    const struct iovec iov = {(void *)bytes, len};
    client_send(c, &iov, 1);
}

/* Whether closing the connection, by whatever ends this process too, resets it. */
static void client_set_reset(struct client *c, bool on)
{
    c->transport.ops->break_on_close(&c->transport, on);
    c->resets = on;
}

void client_ends_body(struct client *c)
{
    client_set_reset(c, true);
}

/* The last answer is out. If the client may still be sending, an immediate close would make the
 * kernel answer with a reset, which can destroy the answer on its way. */
static void client_finish(struct client *c)
{
    struct worker *w = c->worker;
    struct transport *t = &c->transport;
    if (c->resets)
        client_set_reset(c, false);
    const bool talking =
        c->discard || c->body_pending || c->in || c->refused || t->ops->peek(t) > 0;
    if (!talking || c->eof || w->clients->n_lingering >= WORKER_LINGERING) {
        client_close(c);
        return;
    }
    client_move(c, CLIENT_LINGER);
    t->ops->finish(t);
    w->clients->n_lingering++;
    c->first_ms = w->mono_ms;
    client_update_timer(c);
    transport_start(t, TRANSPORT_READ);
}

static bool worth_discarding(const struct client *c)
{
    return c->body.framing == H1_LENGTH && c->body.left <= DISCARD_MAX && c->body_comes;
}

/* The answer is out: on to the next request, or the end. */
static void client_next(struct client *c)
{
    c->answered = false;
    if (c->line)
        c->worker->clients->ops->out(c);
    if (!c->keep_alive || c->broken) {
        client_finish(c);
        return;
    }
    c->progress_ms = c->worker->mono_ms;
    rate_begin(c);
    c->body_wanted = false;
    client_move(c, c->body_pending ? CLIENT_DISCARD : CLIENT_IDLE);
    if (c->eof && !c->in) {
        client_close(c);
        return;
    }
    client_update_timer(c);
    if (c->in)
        client_schedule(c);
}

bool client_may_keep(const struct client *c)
{
    if (!c->keep_alive || c->worker->draining || c->worker->drained || c->discard)
        return false;
    return !c->body_pending || worth_discarding(c);
}

/* A request that had a slot of the fleet is over. */
static void slot_left(struct worker *w, uint64_t id)
{
    const struct fleet_slot_key key = {{id, 0}};
    struct fleet_slots *p = w->shared->fleet_slots;
    struct fleet_slot *s = fleet_slot_find(p, FLEET_SLOT_REQUEST, &key);
    if (s && fleet_slot_left(p, w->number, s))
        shared_wake_control(w->shared);
}

void client_leave_limits(struct client *c)
{
    struct worker *w = c->worker;
    while (c->n_inside) {
        const uint64_t id = c->inside[--c->n_inside];
        limit_leave(&w->limit_caller, id);
        if (c->inside_fleet >> c->n_inside & 1)
            slot_left(w, id);
    }
    c->inside_fleet = 0;
}

void client_answered(struct client *c)
{
    if (c->n_inside)
        client_leave_limits(c);
    if (c->state != CLIENT_BUSY)
        return;
    c->answered = true;
    if (c->body_pending && !worth_discarding(c))
        c->keep_alive = false;
    if (!c->out.len && !c->broken)
        client_next(c);
}

void client_break(struct client *c)
{
    client_set_reset(c, true);
    client_close(c);
}

void client_on_writable(struct transport *t)
{
    struct client *c = TRANSPORT_OWNER(t, struct client, transport);
    const size_t before = c->out.len;
    if (chain_flush(&c->worker->buffers, &c->out, t) < 0) {
        client_left(c);
        return;
    }
    if (c->out.len != before)
        c->progress_ms = c->worker->mono_ms;
    stats_add(c->worker->stats, STATS_BYTES_OUT, before - c->out.len);
    if (c->out.len < WORKER_LOW)
        c->worker->clients->ops->writable(c);
    if (c->state == CLIENT_CLOSED || c->out.len || c->stored)
        return;
    transport_stop(t, TRANSPORT_WRITE);
    if (c->answered)
        client_next(c);
    c->worker->clients->ops->watch_read(c);
}

void client_want_body(struct client *c, bool wanted)
{
    if (c->body_wanted == wanted)
        return;
    c->body_wanted = wanted;
    c->progress_ms = c->worker->mono_ms;
    rate_begin(c);
    client_schedule(c);
}

/* ---- a second look before the loop sleeps ---- */

void client_schedule(struct client *c)
{
    if (c->ready)
        return;
    c->ready = true;
    SLIST_INSERT_HEAD(&c->worker->clients->ready, c, second);
}

static void look_again(struct client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (c->broken) {
        client_left(c);
        return;
    }
    if (c->fin_seen && client_leave_by_fin(c))
        return;
    if (c->state == CLIENT_BUSY && c->answered && !c->out.len)
        client_next(c);
    if (c->state == CLIENT_CLOSED)
        return;
    client_update_timer(c);
    c->worker->clients->ops->use_input(c);
    if ((c->state == CLIENT_IDLE || c->state == CLIENT_HEAD) && c->eof)
        client_close(c); /* all that came whole has been answered */
}

void client_run_ready(struct worker *w)
{
    struct client *c;
    while ((c = SLIST_FIRST(&w->clients->ready))) {
        SLIST_REMOVE_HEAD(&w->clients->ready, second);
        c->ready = false;
        look_again(c);
    }
}

/* ---- life ---- */

struct client *client_new(struct worker *w, const struct transport_ops *transport, int fd,
                          const struct clientip *peer)
{
    struct client *c = malloc(sizeof *c); /* calloc() takes none of those that were just freed */
    if (!c)
        return NULL;
    *c = (struct client){0};
    c->worker = w;
    c->peer = *peer;
    c->state = w->config->proxy_protocol ? CLIENT_PROXY : CLIENT_IDLE;
    c->first_ms = c->progress_ms = w->mono_ms;
    c->timer.fire = client_timeout;
    transport_init(&c->transport, transport, &w->clients->ops->on, w->loop, fd);
    LIST_INSERT_HEAD(&w->clients->all, c, entry);
    w->clients->n++;
    client_update_timer(c);
    return c;
}

void client_drop_input(struct client *c)
{
    if (c->in)
        buffer_put(&c->worker->buffers, c->in);
    c->in = NULL;
}

void client_close(struct client *c)
{
    struct worker *w = c->worker;
    if (c->state == CLIENT_CLOSED)
        return;
    w->clients->ops->cut(c);
    if (c->state == CLIENT_LINGER)
        w->clients->n_lingering--;
    client_move(c, CLIENT_CLOSED);
    transport_stop(&c->transport, TRANSPORT_READ | TRANSPORT_WRITE);
    timer_stop(&w->wheel, &c->timer);
    w->clients->ops->gone(c);
    chain_free(&w->buffers, &c->out);
    LIST_REMOVE(c, entry);
    w->clients->n--;
    LIST_INSERT_HEAD(&w->clients->dead, c, entry);
    c->transport.ops->close(&c->transport);
}

void client_free(struct client *c)
{
    client_drop_input(c); /* not before: a request that is answered from there may have closed it */
    free(c);
}

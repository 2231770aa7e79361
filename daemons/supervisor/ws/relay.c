/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * relay: bytes from one leg to the other. What is read lies in the process's one buffer; frames.c
 * says how far it may pass; it is written on in the same turn, unchanged, in one write. What a leg
 * does not take is kept in pooled pieces, and while too much waits the other leg is not read.
 *
 * Client masks are passed to the backend as they are: a mask only has to be unpredictable to the
 * author of the payload, and it was made for this frame.
 */
#include "daemons/supervisor/ws/inflate_count.h"
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/survive.h"
#include "polder/log.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static struct leg *other(struct leg *leg)
{
    struct session *x = leg->session;
    return leg == &x->client ? &x->backend : &x->client;
}

/* ---- what has been read ---- */

static void stash(struct supervisor *s, struct leg *from, const uint8_t *bytes, size_t len)
{
    if (!len)
        return;
    if (!(from->stash = buffer_get(&s->buffers))) {
        from->cut = true;
        return;
    }
    memcpy(from->stash->data, bytes, len);
    from->stash->end = (uint32_t)len;
}

/* Logs errors of a backend; those of clients are not logged. */
static void log_backend(struct supervisor *s, const struct session *x, const char *what)
{
    if (s->now_ms - s->too_long_logged_ms < LOG_EVERY_MS)
        return;
    s->too_long_logged_ms = s->now_ms;
    log_warning("relay: route %s: a WebSocket was closed: %s", x->route->pattern, what);
}

static void broken_backend(struct supervisor *s, struct session *x, const struct frames_piece *p)
{
    char text[160];
    if (p->code == 1009) {
        const struct farewell f = {1009, "a message of the backend is too long"};
        snprintf(text, sizeof text,
                 "a message of the backend is longer than max_message_backend (%llu)",
                 (unsigned long long)session_values(s, x)->max_message_backend);
        log_backend(s, x, text);
        session_close_with(s, x, f, f, END_TOO_BIG);
        return;
    }
    snprintf(text, sizeof text, "the backend broke the protocol: %s", p->why);
    log_backend(s, x, text);
    session_close_with(s, x, (struct farewell){1011, "the backend broke the protocol"},
                       (struct farewell){p->code, p->why}, END_BACKEND_LOST);
}

/* The peer broke a rule, and hears which; for the client, a backend that breaks one has failed
 * (1011). Where part of the bad frame has passed already, its receiver cannot be told but by the
 * end of the connection. */
static void broken(struct supervisor *s, struct leg *from, const struct frames_piece *p)
{
    struct session *x = from->session;
    from->in.close_seen = true; /* nothing more of it is looked at */
    from->in.left = p->within && from == &x->backend;
    turn_settle(s, x); /* what came before it is for others */
    if (from == &x->backend) {
        broken_backend(s, x, p);
        return;
    }
    if (p->within)
        leg_close(s, &x->backend);
    session_close(s, x, p->code, p->why, p->code == 1009 ? END_TOO_BIG : END_PROTOCOL);
}

static void take_close(struct supervisor *s, struct leg *from, const struct frames_piece *p)
{
    struct session *x = from->session;
    if (x->state != SESSION_OPEN)
        return;
    x->close_code = p->code;
    session_move(x, SESSION_CLOSING);
    x->end = from == &x->client ? END_CLIENT_CLOSED : END_BACKEND_CLOSED;
    x->moved_ms = s->now_ms;
    session_close_due(s, x);
}

static void count_message(struct supervisor *s, struct leg *from)
{
    struct session *x = from->session;
    struct route_count *r = &s->routes[x->route->index];
    if (x->probe)
        return;
    if (from == &x->client) {
        s->messages_in++;
        x->messages_in++;
        r->messages_in++;
    } else {
        s->messages_out++;
        x->messages_out++;
        r->messages_out++;
    }
}

/* Returns true if the bytes of the piece pass to the other leg. */
static bool take_piece(struct supervisor *s, struct leg *from, const struct frames_piece *p,
                       const uint8_t *bytes)
{
    struct session *x = from->session;
    const bool local = x->subscription && !x->goodbye,
               passes = !x->subscription && !x->goodbye && other(from)->io.fd >= 0;
    if (p->kind == FRAMES_DATA) {
        if (p->message_end)
            count_message(s, from);
        if (local)
            s->on_local_message(s, x, bytes, p->len);
        return passes;
    }
    if (p->opcode == FRAMES_PONG)
        return !ping_answered(s, from, p->payload, p->payload_len) && passes;
    if (p->opcode == FRAMES_PING) {
        if (local)
            leg_put_frame(s, &x->client, FRAMES_PONG, p->payload, p->payload_len);
        return passes;
    }
    take_close(s, from, p);
    if (local)
        leg_put_frame(s, &x->client, FRAMES_CLOSE, p->payload,
                      p->payload_len > 2 ? 2 : p->payload_len);
    return passes;
}

/* Is this compressed message longer than that when its receiver has expanded it? It is counted
 * unless it comes in one frame that is too short for it. */
static bool expands_too_far(struct leg *from, const struct frames_piece *p, const uint8_t *bytes,
                            uint64_t max)
{
    const struct frames *f = &from->in;
    const size_t n = p->len - p->header;
    const bool begins = f->message == n && p->header,
               short_one = f->fin && n + f->left <= max / INFLATE_RATIO_MAX;
    if (begins && !from->expanded && !short_one && !(from->expanded = inflate_count_new()))
        return true;
    if (!from->expanded)
        return false;
    const bool too_far = inflate_count_feed(from->expanded, bytes + p->header, n, f->mask,
                                            (unsigned)(f->phase + 4 - n % 4), max) > max;
    if (p->message_end) {
        inflate_count_free(from->expanded);
        from->expanded = NULL;
    }
    return too_far;
}

/* What frames_next() says, and what a compressed message comes to. */
static void next_piece(struct leg *from, const uint8_t *bytes, size_t len, uint64_t max,
                       struct frames_piece *p)
{
    frames_next(&from->in, bytes, len, max, p);
    if (p->kind != FRAMES_DATA || !from->in.compressed || !max ||
        !expands_too_far(from, p, bytes, max))
        return;
    p->kind = FRAMES_BAD;
    p->code = 1009;
    p->why = "a message is too long";
    p->within = !p->header;
}

static void feed(struct supervisor *s, struct leg *from, const uint8_t *bytes, size_t len)
{
    struct session *x = from->session;
    struct leg *to = other(from);
    const struct config_websocket *w = session_values(s, x);
    const uint64_t max = from == &x->client ? w->max_message : w->max_message_backend;
    struct frames_piece p;
    size_t at = 0, run = 0; /* [run, at) passes */
    while (at < len) {
        next_piece(from, bytes + at, len - at, max, &p);
        if (p.kind == FRAMES_NEED_MORE)
            break;
        if (p.kind == FRAMES_BAD) {
            if (at > run)
                leg_put(s, to, bytes + run, at - run);
            if (!x->goodbye && x->state == SESSION_OPEN)
                broken(s, from, &p);
            return;
        }
        const bool passes = take_piece(s, from, &p, bytes + at);
        if (!passes && at > run)
            leg_put(s, to, bytes + run, at - run);
        at += p.len;
        if (!passes)
            run = at;
        if (x->leaves && passes && p.kind == FRAMES_DATA && p.message_end) {
            leg_put(s, to, bytes + run, at - run);
            run = at;
            session_leave_between(s, x);
        }
        if (x->state == SESSION_ENDED)
            return;
    }
    if (at > run)
        leg_put(s, to, bytes + run, at - run);
    stash(s, from, bytes + at, len - at);
}

void relay_feed(struct supervisor *s, struct leg *from, const uint8_t *bytes, size_t len)
{
    struct session *x = from->session;
    turn_begin(x);
    feed(s, from, bytes, len);
    turn_end(s, x);
}

void relay_take(struct supervisor *s, struct leg *from, size_t have, size_t n)
{
    struct session *x = from->session;
    from->read_at += n;
    from->pinged_ms = 0;
    if (from == &x->client)
        x->from_client_ms = s->now_ms;
    relay_feed(s, from, s->buffer, have + n);
    survive_taken(x);
}

/* ---- a leg is gone ---- */

/* The client has left. What it has said is still on its way to the backend, and so is word of its
 * leaving. */
static void lost_client(struct supervisor *s, struct session *x)
{
    uint8_t payload[125];
    struct leg *to = &x->backend;
    int unsent = 0; /* in the kernel */
    const bool going = x->state == SESSION_OPEN || x->state == SESSION_CLOSING;
    const bool slow = going && to->io.fd >= 0 && !to->cut &&
                      (to->out.len || (ioctl(to->io.fd, SIOCOUTQ, &unsent) == 0 && unsent));
    if (x->state == SESSION_OPEN && to->io.fd >= 0 && frames_between(&x->client.in))
        leg_put_frame(s, to, FRAMES_CLOSE, payload,
                      frames_close_payload(payload, 1001, "the client has gone"));
    if (!slow) {
        /* unread bytes would turn our close into a reset, which could overtake the frame */
        for (int i = 0; i < 4 && to->io.fd >= 0; i++)
            if (recv(to->io.fd, s->buffer, SUPERVISOR_READ, MSG_DONTWAIT) <= 0)
                break;
        session_end(s, x, END_CLIENT_LOST);
        return;
    }
    x->goodbye = true; /* there is no client for the backend's data */
    if (x->state == SESSION_OPEN) {
        session_move(x, SESSION_CLOSING);
        x->end = END_CLIENT_LOST;
    }
    x->moved_ms = s->now_ms;
    leg_close(s, &x->client);
    session_close_due(s, x);
}

static void lost(struct supervisor *s, struct leg *leg)
{
    struct session *x = leg->session;
    if (leg == &x->client) {
        lost_client(s, x);
        return;
    }
    leg_close(s, &x->backend);
    if (x->state == SESSION_OPEN)
        session_close(s, x, 1011, "the backend has gone", END_BACKEND_LOST);
}

/* Both have said goodbye, and have been told. */
static bool settled(const struct session *x)
{
    if (x->state == SESSION_CLOSING && x->client.io.fd < 0)
        return x->backend.io.fd < 0;
    if (x->untold)
        return !x->client.out.len;
    const bool client = x->client.in.close_seen,
               backend = x->backend.io.fd < 0 || x->backend.in.close_seen;
    return x->state == SESSION_CLOSING && client && backend && !x->client.out.len &&
           !x->backend.out.len;
}

/* So much may wait for a leg; while it does, the other one is not read. */
static size_t bound(const struct supervisor *s, const struct session *x)
{
    const uint64_t max = session_values(s, x)->max_message;
    return max < SUPERVISOR_CHUNK  ? SUPERVISOR_CHUNK
           : max > SUPERVISOR_READ ? SUPERVISOR_READ
                                   : (size_t)max;
}

static void leg_read(struct supervisor *s, struct leg *from)
{
    struct session *x = from->session;
    const size_t waits = other(from)->out.len,
                 room = x->subscription ? SUPERVISOR_CHUNK : bound(s, x);
    struct buffer *old = from->stash; /* until what it has become is committed */
    const size_t have = old ? old->end : 0;
    if (waits >= room)
        return;
    if (old)
        memcpy(s->buffer, old->data, have);
    survive_reading(s, from, have);
    die_here(DIE_BEFORE_READ);
    const ssize_t n = recv(from->io.fd, s->buffer + have, die_fewer(room - waits), MSG_DONTWAIT);
    die_here(DIE_AFTER_READ);
    if (n > 0) {
        from->stash = NULL;
        relay_take(s, from, have, (size_t)n);
        if (old)
            buffer_put(&s->buffers, old);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        lost(s, from);
    }
}

static void watch(struct supervisor *s, struct leg *leg, bool read)
{
    const int want = (read ? EV_READ : 0) | (leg->out.len ? EV_WRITE : 0);
    if (leg->io.fd < 0 ||
        (ev_is_active(&leg->io) && (leg->io.events & (EV_READ | EV_WRITE)) == want))
        return;
    ev_io_stop(s->loop, &leg->io);
    if (!want)
        return;
    ev_io_set(&leg->io, leg->io.fd, want);
    ev_io_start(s->loop, &leg->io);
}

static void leg_event(struct ev_loop *loop, ev_io *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    struct leg *leg = (struct leg *)(void *)w; /* its first member */
    struct session *x = leg->session;
    if (revents & EV_WRITE)
        leg_flush(s, leg);
    if ((revents & EV_READ) && !leg->cut)
        leg_read(s, leg);
    if (x->state != SESSION_ENDED)
        relay_watch(s, x);
}

void relay_watch(struct supervisor *s, struct session *x)
{
    const size_t high = bound(s, x);
    if (x->turn)
        return; /* at its end */
    for (int i = 0; i < 2 && x->state != SESSION_ENDED; i++) {
        struct leg *l = i ? &x->backend : &x->client;
        if (l->cut && l->io.fd >= 0)
            lost(s, l);
    }
    if (settled(x))
        session_end(s, x, (enum session_end)x->end);
    if (x->state == SESSION_ENDED)
        return;
    if (x->state == SESSION_CLOSING && x->client.io.fd < 0 && !x->backend.out.len &&
        !x->backend.fin) {
        x->backend.fin = true;
        shutdown(x->backend.io.fd, SHUT_WR);
    }
    ev_set_cb(&x->client.io, leg_event);
    ev_set_cb(&x->backend.io, leg_event);
    /* Without a backend, answers go back to the sender: it must read some before it sends more. */
    watch(s, &x->client,
          x->backend.out.len < high && (!x->subscription || x->client.out.len < SUPERVISOR_CHUNK));
    watch(s, &x->backend, x->client.out.len < high);
}

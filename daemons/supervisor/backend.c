/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * backend: connects to a server of the route, sends the handshake, and passes its answer: 101 opens
 * the session, anything else goes to the client as HTTP. The client hears nothing before.
 */
#include "daemons/http/h1.h"
#include "daemons/supervisor/supervisor.h"
#include "polder/server_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define REFUSAL_MOST 65536

static void give_up(struct supervisor *s, struct session *x, unsigned status, const char *why)
{
    intake_refuse(x->client.io.fd, status, status == 503 ? 1 : 0, why);
    session_end(s, x, END_BACKEND_REFUSED);
}

static void on_backend(struct ev_loop *loop, ev_io *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    backend_ready(s, ((struct leg *)(void *)w)->session, revents);
}

/* The client may leave, or send its first frames, while the backend is asked. */
static void on_client(struct ev_loop *loop, ev_io *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    struct session *x = ((struct leg *)(void *)w)->session;
    char byte;
    (void)revents;
    const ssize_t n = recv(x->client.io.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0)
        ev_io_stop(loop, w); /* frames wait in the socket until the session is open */
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        session_end(s, x, END_CLIENT_LOST);
}

static void connect_next(struct supervisor *s, struct session *x, int failed);

void backend_begin(struct supervisor *s, struct session *x)
{
    if (!ev_is_active(&x->client.io)) {
        ev_io_init(&x->client.io, on_client, x->client.io.fd, EV_READ);
        ev_io_start(s->loop, &x->client.io);
    }
    connect_next(s, x, 0);
}

/* failed: errno of the address that was tried last; 0: none was. */
static void connect_next(struct supervisor *s, struct session *x, int failed)
{
    const int fd = servers_connect(s, x, failed);
    if (fd == -ECONNREFUSED && s->now_ms >= x->pending->until_ms) {
        give_up(s, x, 504, "the backend did not answer in time");
    } else if (fd == -ECONNREFUSED) {
        give_up(s, x, x->pending->tried ? 502 : 503, "no backend takes the connection");
    } else if (fd < 0) {
        give_up(s, x, 503, "no descriptor is left");
    } else {
        s->held++;
        ev_io_init(&x->backend.io, on_backend, fd, EV_WRITE);
        ev_io_start(s->loop, &x->backend.io);
        x->deadline_ms = servers_deadline(s, x, x->route->upstream->connect_timeout_ms);
        wheel_set(s, x, x->deadline_ms);
    }
}

static void unconnected(struct supervisor *s, struct session *x, int code)
{
    relay_close(s, &x->backend);
    connect_next(s, x, code);
}

/* It has the handshake and fails: another server gets it, or the client hears of it. */
static void failed(struct supervisor *s, struct session *x, bool again, unsigned status,
                   const char *why)
{
    if (!again) {
        give_up(s, x, status, why);
        return;
    }
    relay_close(s, &x->backend);
    x->pending->answer_len = 0;
    x->pending->scanned = 0;
    session_move(x, SESSION_CONNECTING);
    x->pending->tried |= UINT64_C(1)
                         << (x->pending->server - x->pending->server->upstream->servers);
    connect_next(s, x, 0);
}

static void ask(struct supervisor *s, struct session *x)
{
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(x->backend.io.fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error) {
        unconnected(s, x, error);
        return;
    }
    session_move(x, SESSION_ASKING);
    servers_count(s, x);
    x->deadline_ms = servers_deadline(s, x, x->route->upstream->timeout_ms);
    wheel_set(s, x, x->deadline_ms);
    ev_io_stop(s->loop, &x->backend.io);
    ev_io_set(&x->backend.io, x->backend.io.fd, EV_READ);
    ev_io_start(s->loop, &x->backend.io);
    /* at most 24 KiB into an empty socket buffer: it takes them whole, or the connection is dead */
    if (send(x->backend.io.fd, x->pending->bytes, x->pending->head_len, MSG_NOSIGNAL) !=
        (ssize_t)x->pending->head_len)
        failed(s, x, servers_failed(s, x, SERVER_CLOSED, "closed the connection at once"), 502,
               "the backend closed the connection");
}

/* ---- the answer ---- */

static const char *find_field(const struct h1_head *h, const char *name, struct field_text *value)
{
    for (uint32_t i = 0; i < h->n_fields; i++)
        if (h->field[i].name.len == strlen(name) &&
            !strncasecmp(h->field[i].name.at, name, h->field[i].name.len)) {
            *value = h->field[i].value;
            return name;
        }
    return NULL;
}

static bool is_handshake(const struct session *x, const struct h1_head *h, bool *deflate)
{
    struct field_text accept, extensions, upgrade;
    *deflate = find_field(h, "sec-websocket-extensions", &extensions) &&
               memmem(extensions.at, extensions.len, "permessage-deflate", 18);
    return find_field(h, "upgrade", &upgrade) && field_is(upgrade, "websocket") &&
           find_field(h, "sec-websocket-accept", &accept) &&
           accept.len == sizeof x->pending->accept_key &&
           !memcmp(accept.at, x->pending->accept_key, accept.len);
}

/* The head for the client: hop-by-hop fields are ours. */
static size_t write_answer(const struct h1_head *h, bool switches, char *out, size_t size)
{
    struct h1_out o = {.at = out, .end = out + size};
    h1_put_status_line(&o, h->status, h->reason);
    for (uint32_t i = 0; i < h->n_fields; i++) {
        const struct h1_field *f = &h->field[i];
        if (f->id == H1_CONNECTION || f->id == H1_UPGRADE || f->id == H1_CONTENT_LENGTH ||
            f->id == H1_TRANSFER_ENCODING || h1_is_hop_by_hop(h, f))
            continue;
        h1_put(&o, f->name.at, f->name.len);
        h1_put(&o, ": ", 2);
        h1_put(&o, f->value.at, f->value.len);
        h1_put(&o, "\r\n", 2);
    }
    h1_puts(&o, switches ? "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                         : "Connection: close\r\n\r\n");
    return o.overflow ? 0 : (size_t)(o.at - out);
}

static void open_session(struct supervisor *s, struct session *x, const struct h1_head *h,
                         bool deflate)
{
    char out[H1_HEAD_MAX + 1024];
    struct pending *p = x->pending;
    const size_t len = write_answer(h, true, out, sizeof out), rest = p->answer_len - h->head_len;
    x->client.in.rsv1_allowed = x->backend.in.rsv1_allowed = deflate;
    if (!len || !relay_put(s, &x->client, (const uint8_t *)out, len)) {
        session_end(s, x, END_CLIENT_LOST);
        return;
    }
    x->pending = NULL;
    x->deadline_ms = 0;
    session_opened(s, x);
    if (rest)
        relay_feed(s, &x->backend, (const uint8_t *)p->answer + h->head_len, rest);
    if (p->surplus_len && x->state == SESSION_OPEN)
        relay_feed(s, &x->client, (const uint8_t *)p->bytes + p->head_len, p->surplus_len);
    free(p);
    if (x->state != SESSION_ENDED)
        relay_watch(s, x);
}

/* A refusal: its head, and what of its body is here or comes at once; the end of the connection
 * ends it. */
static void pass_refusal(struct supervisor *s, struct session *x, const struct h1_head *h)
{
    char out[H1_HEAD_MAX + 1024];
    struct pending *p = x->pending;
    struct h1_body body;
    const size_t len = write_answer(h, false, out, sizeof out);
    struct field_text part;
    size_t used, total = 0;
    send(x->client.io.fd, out, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    h1_body_init(&body, h->framing, h->length);
    const char *at = p->answer + h->head_len;
    ssize_t n = (ssize_t)(p->answer_len - h->head_len);
    do {
        while (n > 0 && !body.done && h1_body_read(&body, at, (size_t)n, &used, &part) == 0 &&
               (used || part.len)) {
            send(x->client.io.fd, part.at, part.len, MSG_NOSIGNAL | MSG_DONTWAIT);
            total += part.len;
            at += used, n -= (ssize_t)used;
        }
        if (body.done || total > REFUSAL_MOST)
            break;
        at = (const char *)s->buffer;
        n = recv(x->backend.io.fd, s->buffer, SUPERVISOR_READ, MSG_DONTWAIT);
    } while (n > 0);
    shutdown(x->client.io.fd, SHUT_WR);
    session_end(s, x, END_BACKEND_REFUSED);
}

/* Has all of the refusal's body come? One that is garbled will not get better. */
static bool refusal_whole(const struct pending *p, const struct h1_head *h)
{
    struct h1_body body;
    struct field_text part;
    const char *at = p->answer + h->head_len;
    size_t used, left = p->answer_len - h->head_len;
    h1_body_init(&body, h->framing, h->length);
    while (left && !body.done) {
        if (h1_body_read(&body, at, left, &used, &part) < 0)
            return true;
        if (!used)
            break;
        at += used, left -= used;
    }
    return body.done;
}

static void read_answer(struct supervisor *s, struct session *x)
{
    struct pending *p = x->pending;
    static struct h1_head head; /* 5 KiB, used within this call alone */
    bool deflate;
    const size_t room = sizeof p->answer - 1;
    const ssize_t n =
        recv(x->backend.io.fd, p->answer + p->answer_len, room - p->answer_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    p->answer_len += n > 0 ? (uint32_t)n : 0;
    for (;;) {
        switch (h1_parse_response(p->answer, p->answer_len, &p->scanned, false, &head)) {
        case H1_MORE:
            if (n <= 0)
                failed(s, x,
                       servers_failed(s, x, SERVER_CLOSED,
                                      "closed the connection %s its response head",
                                      p->answer_len ? "within" : "before"),
                       502, "the backend closed the connection");
            else if (p->answer_len == room)
                failed(s, x,
                       servers_failed(s, x, SERVER_TOO_LARGE, "sent a response head over 16 KiB"),
                       502, "the backend's answer is too long");
            return;
        case H1_BAD:
            failed(s, x,
                   servers_failed(s, x, head.flaw_is_size ? SERVER_TOO_LARGE : SERVER_MALFORMED,
                                  "sent a response head %s", head.flaw),
                   502, "the backend's answer is malformed");
            return;
        default:
            break;
        }
        if (head.status / 100 != 1 || head.status == 101)
            break;
        memmove(p->answer, p->answer + head.head_len,
                p->answer_len - head.head_len); /* 100, 103: not for us */
        p->answer_len -= head.head_len;
        p->scanned = 0;
    }
    servers_answered(s, x);
    if (head.status != 101 && n > 0 && p->answer_len < room && !refusal_whole(p, &head))
        p->scanned = 0; /* its head is looked at again with more of its body */
    else if (head.status != 101)
        pass_refusal(s, x, &head);
    else if (is_handshake(x, &head, &deflate))
        open_session(s, x, &head, deflate);
    else
        failed(s, x, servers_failed(s, x, SERVER_MALFORMED, "sent a 101 that is no WebSocket's"),
               502, "the backend's handshake is wrong");
}

static void timed_out(struct supervisor *s, struct session *x)
{
    const double timeout_s = x->route->upstream->timeout_ms / 1000.;
    if (x->state == SESSION_ASKING)
        failed(s, x, servers_failed(s, x, SERVER_TIMEOUT, "gave no response for %g s", timeout_s),
               504, "the backend did not answer in time");
    else
        unconnected(s, x, ETIMEDOUT);
}

void backend_ready(struct supervisor *s, struct session *x, int revents)
{
    if (revents & EV_TIMER)
        timed_out(s, x);
    else if (x->state == SESSION_CONNECTING)
        ask(s, x);
    else if (x->state == SESSION_ASKING)
        read_answer(s, x);
}

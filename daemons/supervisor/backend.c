/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * backend: connects to a server of the route, sends the handshake, and passes its answer: 101 opens
 * the session, anything else goes to the client as HTTP (refuse.c). The client hears nothing
 * before; it may have said FIN, which then only means that it says nothing more (RFC 9112 9.6).
 */
#include "daemons/http/h1.h"
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/survive.h"
#include "polder/server_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static void give_up(struct supervisor *s, struct session *x, enum problem problem, const char *why)
{
    const struct refusal r = {problem, problem == PROBLEM_UNAVAILABLE ? 1 : 0, why, NULL};
    ws_line_server(x);
    refuse_session(s, x, &r, END_BACKEND_REFUSED);
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
    if (n >= 0)
        ev_io_stop(loop, w); /* frames, or a FIN, wait in the socket until the session is open */
    else if (errno != EAGAIN && errno != EINTR)
        session_end(s, x, END_CLIENT_LOST);
}

static void connect_next(struct supervisor *s, struct session *x, int failed);

static void watch_client(struct supervisor *s, struct session *x)
{
    ev_io_init(&x->client.io, on_client, x->client.io.fd, EV_READ);
    ev_io_start(s->loop, &x->client.io);
}

void backend_begin(struct supervisor *s, struct session *x)
{
    if (x->client.io.cb != on_client)
        watch_client(s, x);
    connect_next(s, x, 0);
}

void backend_resume(struct supervisor *s, struct session *x)
{
    watch_client(s, x);
    ev_io_init(&x->backend.io, on_backend, x->backend.io.fd,
               x->state == SESSION_CONNECTING ? EV_WRITE : EV_READ);
    ev_io_start(s->loop, &x->backend.io);
}

/* failed: errno of the address that was tried last; 0: none was. */
static void connect_next(struct supervisor *s, struct session *x, int failed)
{
    const int fd = servers_connect(s, x, failed);
    if (fd == -ECONNREFUSED && s->now_ms >= x->pending->until_ms) {
        give_up(s, x, PROBLEM_GATEWAY_TIMEOUT, "the backend did not answer in time");
    } else if (fd == -ECONNREFUSED && x->pending->failed_why[0]) {
        give_up(s, x, x->pending->failed_with, x->pending->failed_why);
    } else if (fd == -ECONNREFUSED) {
        give_up(s, x, x->pending->tried ? PROBLEM_BAD_GATEWAY : PROBLEM_UNAVAILABLE,
                "no backend takes the connection");
    } else if (fd < 0) {
        give_up(s, x, PROBLEM_UNAVAILABLE, "no descriptor is left");
    } else {
        s->held++;
        ev_io_init(&x->backend.io, on_backend, fd, EV_WRITE);
        ev_io_start(s->loop, &x->backend.io);
        x->deadline_ms = servers_deadline(s, x, x->route->upstream->connect_timeout_ms);
        timer_set(&s->wheel, &x->timer, x->deadline_ms);
    }
}

static void unconnected(struct supervisor *s, struct session *x, int code)
{
    leg_close(s, &x->backend);
    connect_next(s, x, code);
}

/* It has the handshake and fails: another server gets it, or the client hears of it. */
static void failed(struct supervisor *s, struct session *x, bool again, enum problem problem,
                   const char *why)
{
    if (!again) {
        give_up(s, x, problem, why);
        return;
    }
    leg_close(s, &x->backend);
    x->pending->failed_with = problem; /* if there is no other */
    snprintf(x->pending->failed_why, sizeof x->pending->failed_why, "%s", why);
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
    ws_line_requested(x);
    x->deadline_ms = servers_deadline(s, x, x->route->upstream->timeout_ms);
    timer_set(&s->wheel, &x->timer, x->deadline_ms);
    ev_io_stop(s->loop, &x->backend.io);
    ev_io_set(&x->backend.io, x->backend.io.fd, EV_READ);
    ev_io_start(s->loop, &x->backend.io);
    /* at most 24 KiB into an empty socket buffer: it takes them whole, or the connection is dead */
    if (send(x->backend.io.fd, pending_head(x->pending), x->pending->head_len, MSG_NOSIGNAL) !=
        (ssize_t)x->pending->head_len)
        failed(s, x, servers_failed(s, x, SERVER_CLOSED, "closed the connection at once"),
               PROBLEM_BAD_GATEWAY, "the backend closed the connection");
}

/* ---- the answer ---- */

static const char *find_field(const struct h1_head *h, const char *name, struct str *value)
{
    for (uint32_t i = 0; i < h->n_fields; i++)
        if (h->field[i].name.len == strlen(name) &&
            !strncasecmp(h->field[i].name.at, name, h->field[i].name.len)) {
            *value = h->field[i].value;
            return name;
        }
    return NULL;
}

/* Are all extensions that the backend takes on ones that it was offered? */
static bool extensions_known(const struct h1_head *h, bool *deflate)
{
    *deflate = false;
    for (uint32_t i = 0; i < h->n_fields; i++) {
        struct str rest = h->field[i].value, name;
        if (h->field[i].id != H1_SEC_WEBSOCKET_EXTENSIONS)
            continue;
        while (field_list_next(&rest, &name)) {
            const char *end = memchr(name.at, ';', name.len);
            if (end)
                name.len = (size_t)(end - name.at);
            if (*deflate || !field_is(field_trim(name), "permessage-deflate"))
                return false;
            *deflate = true;
        }
    }
    return true;
}

static const char *handshake_wrong(const struct session *x, const struct h1_head *h, bool *deflate)
{
    struct str accept, upgrade;
    if (!find_field(h, "upgrade", &upgrade) || !field_is(upgrade, "websocket") ||
        !find_field(h, "sec-websocket-accept", &accept) ||
        accept.len != sizeof x->pending->accept_key ||
        memcmp(accept.at, x->pending->accept_key, accept.len) != 0)
        return "the backend's handshake is wrong";
    return extensions_known(h, deflate) ? NULL : "the backend uses an extension that is not known";
}

/* Hop-by-hop fields are ours. A 426 must say what it wants (RFC 9110 15.5.22). */
static void put_connection(struct h1_out *o, const struct h1_head *h)
{
    struct str upgrade = {"websocket", 9};
    if (h->status == 101) {
        h1_puts(o, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        return;
    }
    if (h->framing == H1_LENGTH) {
        h1_puts(o, "Content-Length: ");
        h1_put_u64(o, h->length);
        h1_puts(o, "\r\n");
    } else if (h->framing == H1_CHUNKED) {
        h1_puts(o, "Transfer-Encoding: chunked\r\n");
    }
    if (h->status == 426) {
        find_field(h, "upgrade", &upgrade);
        h1_put_field(o, "Upgrade", upgrade);
    }
    h1_puts(o,
            h->status == 426 ? "Connection: close, Upgrade\r\n\r\n" : "Connection: close\r\n\r\n");
}

/* The backend's head, for the client. */
static size_t write_answer(const struct session *x, const struct h1_head *h, char *out, size_t size)
{
    struct h1_out o = {.at = out, .end = out + size};
    const struct lines limits = pending_lines(x->pending);
    const bool own_id = memmem(limits.at, limits.len, "X-Request-Id:", 13) != NULL;
    h1_put_status_line(&o, h->status, h->reason);
    for (uint32_t i = 0; i < h->n_fields; i++) {
        const struct h1_field *f = &h->field[i];
        if (f->id == H1_CONNECTION || f->id == H1_UPGRADE || f->id == H1_CONTENT_LENGTH ||
            f->id == H1_TRANSFER_ENCODING || h1_is_hop_by_hop(h, f) ||
            (f->id == H1_X_REQUEST_ID && own_id))
            continue;
        h1_copy_field(&o, f);
    }
    h1_put(&o, limits.at, limits.len);
    put_connection(&o, h);
    return o.overflow ? 0 : (size_t)(o.at - out);
}

static void open_session(struct supervisor *s, struct session *x, const struct h1_head *h,
                         bool deflate)
{
    char out[H1_HEAD_MAX + 4096];
    struct pending *p = x->pending;
    const size_t len = write_answer(x, h, out, sizeof out), rest = p->answer_len - h->head_len;
    x->client.in.rsv1_allowed = x->backend.in.rsv1_allowed = deflate;
    survive_opened(s, x);
    die_here(DIE_OPENING);
    turn_begin(x);
    if (!len || !leg_put(s, &x->client, (const uint8_t *)out, len)) {
        session_end(s, x, END_CLIENT_LOST);
        return;
    }
    x->pending = NULL;
    x->deadline_ms = 0;
    x->head_left = (uint32_t)len;
    session_opened(s, x);
    heartbeat_arm(s, x);
    if (rest)
        relay_feed(s, &x->backend, (const uint8_t *)p->answer + h->head_len, rest);
    if (p->pipelined_len && x->state == SESSION_OPEN)
        relay_feed(s, &x->client, (const uint8_t *)pending_pipelined(p), p->pipelined_len);
    free(p);
    turn_end(s, x);
    if (x->state != SESSION_ENDED)
        relay_watch(s, x);
}

static void pass_refusal(struct supervisor *s, struct session *x, const struct h1_head *h)
{
    char out[H1_HEAD_MAX + 4096];
    const struct pending *p = x->pending;
    const size_t len = write_answer(x, h, out, sizeof out);
    if (len)
        refuse_pass(s, x, h, out, len, p->answer + h->head_len, p->answer_len - h->head_len);
    else
        give_up(s, x, PROBLEM_BAD_GATEWAY, "the backend's answer is too long");
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
                       PROBLEM_BAD_GATEWAY, "the backend closed the connection");
            else if (p->answer_len == room)
                failed(s, x,
                       servers_failed(s, x, SERVER_TOO_LARGE, "sent a response head over 16 KiB"),
                       PROBLEM_BAD_GATEWAY, "the backend's answer is too long");
            return;
        case H1_BAD:
            failed(s, x,
                   servers_failed(s, x, head.flaw_is_size ? SERVER_TOO_LARGE : SERVER_MALFORMED,
                                  "sent a response head %s", head.flaw),
                   PROBLEM_BAD_GATEWAY, "the backend's answer is malformed");
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
    servers_answered(s, x, head.status);
    ws_line_server(x);
    const char *wrong = head.status == 101 ? handshake_wrong(x, &head, &deflate) : NULL;
    if (head.status != 101)
        pass_refusal(s, x, &head);
    else if (!wrong)
        open_session(s, x, &head, deflate);
    else
        failed(s, x, servers_failed(s, x, SERVER_MALFORMED, "sent a 101 that is no WebSocket's"),
               PROBLEM_BAD_GATEWAY, wrong);
}

static void timed_out(struct supervisor *s, struct session *x)
{
    const double timeout_s = x->route->upstream->timeout_ms / 1000.;
    if (x->state == SESSION_ASKING)
        failed(s, x, servers_failed(s, x, SERVER_TIMEOUT, "gave no response for %g s", timeout_s),
               PROBLEM_GATEWAY_TIMEOUT, "the backend did not answer in time");
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

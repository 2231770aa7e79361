/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * refuse: HTTP answers instead of a WebSocket: Polder's own, and a backend's refusal, which passes
 * with its own framing under back-pressure, so that it arrives whole or is seen to be cut.
 *
 * After the last byte the connection is closed in stages (RFC 9112 9.6): we say FIN, drop what the
 * client still sends, and close when it has closed, or after a while. Without that, frames that it
 * has sent already would turn our close into a reset, which erases what it has not read. By then
 * the session has ended: a leaving client has no place among those that are counted.
 */
#include "daemons/http/h1.h"
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/survive.h"
#include "polder/clock.h"
#include "polder/field.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LEAVING_MAX      1024
#define LEAVING_MS       2000  /* from our FIN */
#define LEAVING_STUCK_MS 30000 /* before it: nothing was taken for so long */
#define DROP_READS       16

struct leaving {
    ev_io io;
    LIST_ENTRY(leaving) entry;
    struct supervisor *supervisor;
    struct timer timer;
    struct chain out;
    bool reset; /* nothing else shows that the answer is cut */
    bool fin;   /* said */
    bool eof;   /* the client has said its own */
};

/* ---- clients that leave ---- */

static void leaving_end(struct supervisor *s, struct leaving *l)
{
    const struct linger hard = {1, 0};
    ev_io_stop(s->loop, &l->io);
    if (l->reset)
        setsockopt(l->io.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    survive_close(s, l->io.fd);
    s->held--;
    s->n_leaving--;
    chain_free(&s->buffers, &l->out);
    timer_stop(&s->wheel, &l->timer);
    LIST_REMOVE(l, entry);
    free(l);
}

static void leaving_watch(struct supervisor *s, struct leaving *l)
{
    const int want = (l->eof ? 0 : EV_READ) | (l->fin ? 0 : EV_WRITE);
    if (ev_is_active(&l->io) && (l->io.events & (EV_READ | EV_WRITE)) == want)
        return;
    ev_io_stop(s->loop, &l->io);
    ev_io_set(&l->io, l->io.fd, want);
    ev_io_start(s->loop, &l->io);
}

/* false: it is gone. */
static bool leaving_write(struct supervisor *s, struct leaving *l)
{
    const ssize_t n = chain_flush_socket(&s->buffers, &l->out, l->io.fd);
    if (n > 0)
        timer_set(&s->wheel, &l->timer, s->now_ms + LEAVING_STUCK_MS);
    if (!l->out.len && !l->fin && !l->reset) {
        l->fin = true;
        timer_set(&s->wheel, &l->timer, s->now_ms + LEAVING_MS);
        shutdown(l->io.fd, SHUT_WR);
    }
    if (n >= 0 && !(l->reset && !l->out.len) && !(l->fin && l->eof))
        return true;
    leaving_end(s, l);
    return false;
}

static void on_leaving(struct ev_loop *loop, ev_io *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    struct leaving *l = (struct leaving *)(void *)w;
    if (revents & EV_READ) {
        const ssize_t n = recv(w->fd, s->buffer, SUPERVISOR_READ, MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            leaving_end(s, l);
            return;
        }
        l->eof = n == 0; /* it may read on */
    }
    if (leaving_write(s, l))
        leaving_watch(s, l);
}

static void leaving_due(struct timer *t)
{
    struct leaving *l = TIMER_OWNER(t, struct leaving, timer);
    leaving_end(l->supervisor, l);
}

/* Takes fd, and what out holds. */
static void leave(struct supervisor *s, int fd, struct chain *out, bool reset)
{
    struct leaving *l = s->n_leaving < LEAVING_MAX ? calloc(1, sizeof *l) : NULL;
    if (!l) {
        chain_flush_socket(&s->buffers, out, fd);
        chain_free(&s->buffers, out);
        shutdown(fd, SHUT_WR);
        for (int i = 0; i < DROP_READS; i++) /* a client that goes on sending must not hold us up */
            if (recv(fd, s->buffer, SUPERVISOR_READ, MSG_DONTWAIT) <= 0)
                break;
        survive_close(s, fd);
        return;
    }
    l->out = *out;
    *out = (struct chain){0};
    l->reset = reset;
    l->supervisor = s;
    l->timer.fire = leaving_due;
    timer_set(&s->wheel, &l->timer, s->now_ms + LEAVING_STUCK_MS);
    LIST_INSERT_HEAD(&s->leaving, l, entry);
    s->n_leaving++;
    s->held++;
    ev_io_init(&l->io, on_leaving, fd, EV_READ | EV_WRITE);
    if (leaving_write(s, l))
        leaving_watch(s, l);
}

/* ---- carried to another program ---- */

void refuse_each_leaving(struct supervisor *s,
                         void (*fn)(void *arg, const struct leaving_record *r), void *arg)
{
    const struct leaving *l;
    LIST_FOREACH (l, &s->leaving, entry) {
        const struct leaving_record r = {l->io.fd, l->reset,        l->fin,
                                         l->eof,   l->timer.due_ms, &l->out};
        fn(arg, &r);
    }
}

void refuse_resume_leaving(struct supervisor *s, const struct leaving_record *r, struct chain *out)
{
    struct leaving *l = calloc(1, sizeof *l);
    if (!l) {
        chain_free(&s->buffers, out);
        close(r->fd);
        return;
    }
    l->out = *out;
    *out = (struct chain){0};
    l->reset = r->reset;
    l->fin = r->fin;
    l->eof = r->eof;
    l->supervisor = s;
    l->timer.fire = leaving_due;
    timer_set(&s->wheel, &l->timer, r->due_ms);
    LIST_INSERT_HEAD(&s->leaving, l, entry);
    s->n_leaving++;
    s->held++;
    ev_io_init(&l->io, on_leaving, r->fd, EV_READ | EV_WRITE);
    leaving_watch(s, l);
}

void refuse_end_all(struct supervisor *s)
{
    while (!LIST_EMPTY(&s->leaving))
        leaving_end(s, LIST_FIRST(&s->leaving)); /* NOLINT(clang-analyzer-unix.Malloc) */
}

/* ---- Polder's own answers ---- */

/* Our words, never a peer's: nothing in them needs an escape. */
static size_t write_problem(const struct refusal *r, struct lines limits, char *out, size_t size)
{
    char lines[HANDOVER_LINES_MAX + 512], members[256], date[FIELD_DATE_LEN + 1], retry[48] = "";
    field_date_format((int64_t)(clock_real_ms() / 1000), date);
    if (r->retry_s)
        snprintf(retry, sizeof retry, "Retry-After: %u\r\n", r->retry_s);
    snprintf(members, sizeof members, ",\"reason\":\"%s\"", r->why);
    const int n = snprintf(lines, sizeof lines, "Date: %s\r\n%s%.*sConnection: close\r\n", date,
                           retry, (int)limits.len, limits.at);
    return n > 0 && (size_t)n < sizeof lines ? problem_render(r->problem, lines, members, out, size)
                                             : 0;
}

static size_t body_len(const char *text, size_t len)
{
    const char *end = memmem(text, len, "\r\n\r\n", 4);
    return end ? len - (size_t)(end - text) - 4 : 0;
}

size_t refuse(struct supervisor *s, int fd, const struct refusal *r, struct lines limits)
{
    char text[PROBLEM_RENDER_MAX + HANDOVER_LINES_MAX + 512];
    struct chain out = {0};
    const size_t len = write_problem(r, limits, text, sizeof text);
    chain_append(&s->buffers, &out, text, len);
    leave(s, fd, &out, false);
    return body_len(text, len);
}

/* The client's socket goes its own way, and the session ends. */
static void part(struct supervisor *s, struct session *x, bool reset, enum session_end why)
{
    const int fd = x->client.io.fd;
    ev_io_stop(s->loop, &x->client.io);
    x->client.io.fd = -1;
    s->held--;
    leave(s, fd, &x->client.out, reset);
    session_end(s, x, why);
}

void refuse_session(struct supervisor *s, struct session *x, const struct refusal *r,
                    enum session_end why)
{
    char text[PROBLEM_RENDER_MAX + HANDOVER_LINES_MAX + 512];
    const struct lines limits = x->pending ? pending_lines(x->pending) : (struct lines){"", 0};
    survive_answered(x);
    const size_t len = write_problem(r, limits, text, sizeof text);
    if (!chain_append(&s->buffers, &x->client.out, text, len))
        chain_free(&s->buffers, &x->client.out);
    x->refused_with = (uint16_t)problem_status(r->problem);
    x->bytes = body_len(text, len);
    part(s, x, false, why);
}

/* ---- a backend's refusal passes ---- */

void refuse_cut(struct supervisor *s, struct session *x, const char *by)
{
    x->cut_by = by;
    part(s, x, x->pending->body.framing == H1_TO_CLOSE, END_BACKEND_REFUSED);
}

static void watch_pass(struct supervisor *s, struct session *x)
{
    const bool waits = x->client.out.len > 0;
    ev_io_stop(s->loop, &x->client.io);
    if (waits) {
        ev_io_set(&x->client.io, x->client.io.fd, EV_WRITE);
        ev_io_start(s->loop, &x->client.io);
    }
    if (x->client.out.len >= SUPERVISOR_CHUNK)
        ev_io_stop(s->loop, &x->backend.io);
    else
        ev_io_start(s->loop, &x->backend.io);
    x->deadline_ms = s->now_ms + x->route->upstream->timeout_ms;
}

/* Passes what belongs to the answer. true: there may come more. */
static bool pass_bytes(struct supervisor *s, struct session *x, const char *bytes, size_t len)
{
    struct h1_body *body = &x->pending->body;
    struct str part_of;
    size_t used, at = 0;
    bool good = true;
    while (at < len && !body->done && good) {
        good = h1_body_read(body, bytes + at, len - at, &used, &part_of) == 0;
        if (good && !used)
            break;
        at += good ? used : 0;
        x->bytes += good ? part_of.len : 0;
    }
    if (!chain_append(&s->buffers, &x->client.out, bytes, at) || !good) {
        refuse_cut(s, x, good ? "polder" : "upstream-closed");
        return false;
    }
    if (body->done)
        part(s, x, false, END_BACKEND_REFUSED);
    return !body->done;
}

static void read_more(struct supervisor *s, struct session *x)
{
    const ssize_t n = recv(x->backend.io.fd, s->buffer, SUPERVISOR_CHUNK, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        pass_bytes(s, x, (const char *)s->buffer, (size_t)n);
    } else if (n == 0 && h1_body_eof(&x->pending->body)) {
        part(s, x, false, END_BACKEND_REFUSED);
    } else {
        refuse_cut(s, x, "upstream-closed");
    }
}

static void on_pass(struct ev_loop *loop, ev_io *w, int revents)
{
    struct supervisor *s = ev_userdata(loop);
    struct session *x = ((struct leg *)(void *)w)->session;
    if (w == &x->backend.io && (revents & EV_READ))
        read_more(s, x);
    if (x->state == SESSION_ENDED)
        return;
    if (chain_flush_socket(&s->buffers, &x->client.out, x->client.io.fd) < 0)
        session_end(s, x, END_CLIENT_LOST);
    else
        watch_pass(s, x);
}

void refuse_resume(struct supervisor *s, struct session *x)
{
    ev_io_init(&x->backend.io, on_pass, x->backend.io.fd, EV_READ);
    ev_io_init(&x->client.io, on_pass, x->client.io.fd, EV_WRITE);
    const uint64_t deadline_ms = x->deadline_ms;
    watch_pass(s, x);
    x->deadline_ms = deadline_ms;
}

void refuse_pass(struct supervisor *s, struct session *x, const struct h1_head *h, const char *head,
                 size_t head_len, const char *rest, size_t len)
{
    session_move(x, SESSION_REFUSING);
    survive_answered(x);
    x->refused_with = (uint16_t)h->status;
    h1_body_init(&x->pending->body, h->framing, h->length);
    if (!chain_append(&s->buffers, &x->client.out, head, head_len)) {
        session_end(s, x, END_FAILED);
        return;
    }
    if (x->pending->body.done || h->framing == H1_NO_BODY) {
        part(s, x, false, END_BACKEND_REFUSED);
        return;
    }
    if (!pass_bytes(s, x, rest, len))
        return;
    ev_io_stop(s->loop, &x->backend.io);
    ev_io_init(&x->backend.io, on_pass, x->backend.io.fd, EV_READ);
    ev_io_stop(s->loop, &x->client.io);
    ev_io_init(&x->client.io, on_pass, x->client.io.fd, EV_WRITE);
    if (chain_flush_socket(&s->buffers, &x->client.out, x->client.io.fd) < 0) {
        session_end(s, x, END_CLIENT_LOST);
        return;
    }
    watch_pass(s, x);
    timer_set(&s->wheel, &x->timer, x->deadline_ms);
}

void refuse_due(struct supervisor *s, struct session *x)
{
    if (s->now_ms < x->deadline_ms)
        timer_set(&s->wheel, &x->timer, x->deadline_ms);
    else
        refuse_cut(s, x, x->client.out.len ? "client-timeout" : "upstream-timeout");
}

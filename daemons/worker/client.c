/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client: a connection from a client: reading, writing, timing out, closing.
 *
 * Bytes are read into the loop's one buffer and used in place; only what cannot be used yet moves
 * to a buffer of the connection's own. Requests are answered in order: while one is being answered
 * (CLIENT_BUSY), what follows it waits unread in the socket, after at most one buffer.
 */
#include "daemons/worker/client.h"
#include "daemons/worker/exchange.h"
#include "daemons/worker/hit.h"
#include "daemons/worker/hold.h"
#include "daemons/worker/limits.h"
#include "daemons/worker/memo.h"
#include "daemons/worker/request.h"
#include "daemons/worker/response.h"
#include "daemons/worker/worker.h"
#include "polder/problem.h"
#include "polder/stats.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISCARD_MAX   (64u << 10) /* longer rests of bodies are not worth a kept connection */
#define DRAIN_IDLE_MS 1000

#define MAY(state) (1u << (state))
static const unsigned moves[CLIENT_STATES] = {
    [CLIENT_PROXY] = MAY(CLIENT_IDLE) | MAY(CLIENT_BUSY) | MAY(CLIENT_CLOSED),
    [CLIENT_IDLE] = MAY(CLIENT_HEAD) | MAY(CLIENT_BUSY) | MAY(CLIENT_CLOSED),
    [CLIENT_HEAD] = MAY(CLIENT_BUSY) | MAY(CLIENT_CLOSED),
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

/* ---- deadlines ---------------------------------------------------------------------------------
 */

/* When the connection has waited for its client long enough; UINT64_MAX: it is not waiting. */
static uint64_t client_due(const struct client *c)
{
    const struct config *config = c->worker->config;
    switch (c->state) {
    case CLIENT_PROXY:
    case CLIENT_HEAD: /* not prolonged by a byte now and then */
        return c->first_ms + config->client_timeout_ms;
    case CLIENT_IDLE:
        return c->progress_ms + (c->worker->draining ? DRAIN_IDLE_MS
                                 : c->seen_request   ? config->keepalive_timeout_ms
                                                     : config->client_timeout_ms);
    case CLIENT_BUSY:
        if (c->held)
            return hold_due(c);
        if (!c->out.len && !c->stored && !(c->body_pending && c->body_wanted))
            return UINT64_MAX;
        return c->progress_ms + config->client_timeout_ms;
    case CLIENT_DISCARD:
        return c->progress_ms + config->client_timeout_ms;
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
        timer_set(c->worker, &c->timer, due);
}

void client_timeout(struct client *c)
{
    const uint64_t due = client_due(c);
    if (due > c->worker->mono_ms) { /* there was progress since */
        if (due != UINT64_MAX)
            timer_set(c->worker, &c->timer, due);
        return;
    }
    if (c->held) {
        hold_end(c);
        return;
    }
    if (c->state != CLIENT_IDLE && c->state != CLIENT_LINGER)
        stats_add(c->worker->stats, STATS_CLIENT_TIMEOUTS, 1);
    const bool waits_for_body = c->state == CLIENT_BUSY && !c->out.len && !c->answered &&
                                !(c->exchange && c->exchange->status);
    if (waits_for_body && c->exchange)
        exchange_drop_client(c->exchange);
    if (c->state == CLIENT_HEAD || waits_for_body) {
        c->discard = true;
        response_problem(NULL, c, PROBLEM_REQUEST_TIMEOUT, "", "", false);
    } else {
        client_close(c);
    }
}

/* ---- writing -----------------------------------------------------------------------------------
 */

size_t client_send_some(struct client *c, const struct iovec *iov, unsigned n, size_t keep)
{
    if (c->broken || c->state == CLIENT_CLOSED)
        return 0;
    struct worker *w = c->worker;
    const size_t waited = c->out.len;
    const ssize_t sent = chain_send_some(w, &c->out, c->read.fd, iov, n, keep);
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
        ev_io_start(w->loop, &c->write);
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

/* The last answer is out. If the client may still be sending, an immediate close would make the
 * kernel answer with a reset, which can destroy the answer on its way. */
static void client_finish(struct client *c)
{
    struct worker *w = c->worker;
    int unread = 0;
    const bool talking = c->discard || c->body_pending || c->in || c->refused ||
                         (ioctl(c->read.fd, FIONREAD, &unread) == 0 && unread > 0);
    if (!talking || c->eof || w->n_lingering >= WORKER_LINGERING) {
        client_close(c);
        return;
    }
    client_move(c, CLIENT_LINGER);
    shutdown(c->read.fd, SHUT_WR);
    w->n_lingering++;
    c->first_ms = w->mono_ms;
    client_update_timer(c);
    ev_io_start(w->loop, &c->read);
}

static bool worth_discarding(const struct client *c)
{
    return c->body.framing == H1_LENGTH && c->body.left <= DISCARD_MAX && c->body_told;
}

/* The answer is out: on to the next request, or the end. */
static void client_next(struct client *c)
{
    c->answered = false;
    if (!c->keep_alive || c->broken) {
        client_finish(c);
        return;
    }
    c->progress_ms = c->worker->mono_ms;
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
    if (!c->keep_alive || c->worker->draining || c->discard)
        return false;
    return !c->body_pending || worth_discarding(c);
}

void client_answered(struct client *c)
{
    if (c->n_inside)
        limits_leave(c);
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
    /* A reset, for a body that ends with the connection would look whole after a FIN. */
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(c->read.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    client_close(c);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static size_t read_proxy(struct client *c, const char *at, size_t len)
{
    const int used = proxyproto_read(c, at, len);
    if (used < 0 || (used == 0 && len > CLIENTIP_PROXY_MAX)) {
        stats_add(c->worker->stats, STATS_BAD_REQUESTS, 1);
        client_close(c);
        return len;
    }
    if (used > 0 && c->state == CLIENT_PROXY)
        client_move(c, CLIENT_IDLE);
    return (size_t)used;
}

static size_t read_head(struct client *c, const char *at, size_t len)
{
    struct worker *w = c->worker;
    enum problem problem = PROBLEM_BAD_REQUEST;
    if (c->state == CLIENT_IDLE) {
        const size_t known = c->memo ? c->memo->len : 0;
        if (known && memo_answer(c, at, len))
            return known;
        const size_t blank = h1_skip_blank(at, len);
        if (blank)
            return blank;
    }
    switch (h1_parse_request(at, len, &c->scanned, &w->head, &problem)) {
    case H1_MORE:
        if (c->state == CLIENT_IDLE) {
            client_move(c, CLIENT_HEAD);
            c->first_ms = w->mono_ms;
            client_update_timer(c);
        }
        return 0;
    case H1_BAD:
        c->scanned = 0;
        request_bad(c, problem);
        return len;
    case H1_DONE:
        break;
    }
    c->scanned = 0;
    c->seen_request = true;
    client_move(c, CLIENT_BUSY);
    const size_t used = w->head.head_len; /* w->head may be another one's afterwards */
    w->surplus = (struct field_text){at + used, len - used};
    request_begin(c, &w->head);
    w->prepaid_client = NULL;
    return used;
}

static void body_malformed(struct client *c)
{
    const bool begun = c->answered || (c->exchange && c->exchange->status);
    stats_add(c->worker->stats, STATS_BAD_REQUESTS, 1);
    if (c->exchange)
        exchange_drop_client(c->exchange);
    if (begun || c->state == CLIENT_DISCARD) {
        client_break(c);
    } else {
        c->discard = true;
        response_problem(NULL, c, PROBLEM_BAD_REQUEST, "", "", false);
    }
}

/* Decodes one span of the request's body and passes it on, or drops it. */
static size_t read_body(struct client *c, const char *at, size_t len)
{
    size_t used;
    struct field_text content = {0};
    if (c->state == CLIENT_BUSY && !c->answered && !c->body_wanted)
        return 0;
    if (h1_body_read(&c->body, at, len, &used, &content) < 0) {
        body_malformed(c);
        return len;
    }
    c->body_pending = !c->body.done;
    if (c->exchange && c->state == CLIENT_BUSY) {
        if (content.len)
            exchange_feed(c->exchange, content.at, content.len);
        if (!c->body_pending && c->exchange)
            exchange_request_end(c->exchange);
    } else if (!c->body_pending && c->state == CLIENT_DISCARD) {
        c->progress_ms = c->worker->mono_ms;
        client_move(c, CLIENT_IDLE);
        client_update_timer(c);
    }
    return used;
}

/* Uses what can be used; returns how much that was. */
static size_t consume(struct client *c, const char *at, size_t len)
{
    size_t used = 0;
    while (used < len) {
        size_t n = 0;
        if (c->discard)
            return len;
        switch (c->state) {
        case CLIENT_PROXY:
            n = read_proxy(c, at + used, len - used);
            break;
        case CLIENT_IDLE:
        case CLIENT_HEAD:
            n = read_head(c, at + used, len - used);
            break;
        case CLIENT_BUSY:
        case CLIENT_DISCARD:
            n = c->body_pending ? read_body(c, at + used, len - used) : 0;
            break;
        default: /* lingering or closed: of no interest */
            return len;
        }
        if (!n)
            return used;
        used += n;
    }
    return used;
}

/* Whether reading makes sense now. While a request is answered, the socket is watched for its end
 * as long as nothing waits in our own buffer. */
static bool wants_read(const struct client *c)
{
    if (c->state == CLIENT_CLOSED || c->eof || c->broken)
        return false;
    if (c->state != CLIENT_BUSY || c->discard)
        return true;
    if (c->body_pending && !c->answered)
        return c->body_wanted;
    return !c->in;
}

static void watch_read(struct client *c)
{
    if (wants_read(c))
        ev_io_start(c->worker->loop, &c->read);
    else if (c->state != CLIENT_CLOSED)
        ev_io_stop(c->worker->loop, &c->read);
}

static void in_release(struct client *c)
{
    if (c->in)
        buffer_put(c->worker, c->in);
    c->in = NULL;
}

/* Keeps what was not used. at: in the loop's buffer or in c->in. */
static void keep_rest(struct client *c, const char *at, size_t len)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (!len) {
        in_release(c);
        return;
    }
    if (c->in) {
        c->in->start = c->in->end - (uint32_t)len;
        return;
    }
    c->in = buffer_get(c->worker);
    if (!c->in) {
        client_close(c);
        return;
    }
    memcpy(c->in->data, at, len);
    c->in->end = (uint32_t)len;
}

static void drive(struct client *c, const char *at, size_t len)
{
    const size_t used = consume(c, at, len);
    keep_rest(c, at + used, len - used);
    watch_read(c);
}

/* The connection is gone, or its client is. */
static void client_gone(struct client *c)
{
    client_close(c);
}

/* FIN. What was asked completely is still answered: it may be only half a close. */
static void client_eof(struct client *c)
{
    const bool asked = c->state == CLIENT_BUSY && !(c->body_pending && !c->answered);
    if (!asked) {
        client_gone(c);
        return;
    }
    c->eof = true;
    if (c->held) /* it may have gone: whether it reads an answer is found out now */
        hold_end(c);
    watch_read(c);
}

static void client_readable(struct client *c)
{
    struct worker *w = c->worker;
    char *at = w->client_buffer;
    size_t room = WORKER_BUFFER, had = 0;
    if (c->in) {
        if (c->in->start) {
            had = c->in->end - c->in->start;
            memmove(c->in->data, c->in->data + c->in->start, had);
            c->in->start = 0;
            c->in->end = (uint32_t)had;
        }
        had = c->in->end;
        at = c->in->data;
        room = WORKER_BUFFER - had;
        if (!room) {
            ev_io_stop(w->loop, &c->read);
            return;
        }
    }
    const ssize_t n = recv(c->read.fd, at + had, room, 0);
    if (n <= 0) {
        if (n == 0)
            client_eof(c);
        else if (errno != EAGAIN && errno != EINTR)
            client_gone(c);
        return;
    }
    stats_add(w->stats, STATS_BYTES_IN, (uint64_t)n);
    c->progress_ms = w->mono_ms;
    if (c->in)
        c->in->end += (uint32_t)n;
    drive(c, at, had + (size_t)n);
}

static void on_read(EV_P_ ev_io *watcher, int events)
{
    (void)loop, (void)events;
    client_readable(watcher->data);
}

static void client_writable(struct client *c)
{
    const size_t before = c->out.len;
    if (chain_flush(c->worker, &c->out, c->write.fd) < 0) {
        client_gone(c);
        return;
    }
    if (c->out.len != before)
        c->progress_ms = c->worker->mono_ms;
    stats_add(c->worker->stats, STATS_BYTES_OUT, before - c->out.len);
    if (c->out.len < WORKER_LOW) {
        if (c->stored)
            hit_continue(c);
        else if (c->exchange)
            exchange_resume(c->exchange);
    }
    if (c->state == CLIENT_CLOSED || c->out.len || c->stored)
        return;
    ev_io_stop(c->worker->loop, &c->write);
    if (c->answered)
        client_next(c);
    watch_read(c);
}

static void on_write(EV_P_ ev_io *watcher, int events)
{
    (void)loop, (void)events;
    client_writable(watcher->data);
}

void client_want_body(struct client *c, bool wanted)
{
    if (c->body_wanted == wanted)
        return;
    c->body_wanted = wanted;
    c->progress_ms = c->worker->mono_ms;
    client_schedule(c);
}

/* ---- a second look before the loop sleeps ---- */

void client_schedule(struct client *c)
{
    if (c->ready)
        return;
    c->ready = true;
    c->ready_next = c->worker->ready;
    c->worker->ready = c;
}

static void look_again(struct client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (c->broken) {
        client_gone(c);
        return;
    }
    if (c->state == CLIENT_BUSY && c->answered && !c->out.len)
        client_next(c);
    if (c->state == CLIENT_CLOSED)
        return;
    client_update_timer(c);
    if (c->in)
        drive(c, c->in->data + c->in->start, c->in->end - c->in->start);
    else
        watch_read(c);
    if ((c->state == CLIENT_IDLE || c->state == CLIENT_HEAD) && c->eof)
        client_close(c); /* all that came whole has been answered */
}

void client_run_ready(struct worker *w)
{
    while (w->ready) {
        struct client *c = w->ready;
        w->ready = c->ready_next;
        c->ready = false;
        look_again(c);
    }
}

/* ---- life ---- */

struct client *client_new(struct worker *w, int fd, const struct clientip *peer)
{
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->worker = w;
    c->peer = *peer;
    c->state = w->config->proxy_protocol ? CLIENT_PROXY : CLIENT_IDLE;
    c->first_ms = c->progress_ms = w->mono_ms;
    c->timer.kind = TIMER_CLIENT;
    ev_io_init(&c->read, on_read, fd, EV_READ);
    ev_io_init(&c->write, on_write, fd, EV_WRITE);
    c->read.data = c->write.data = c;
    c->next = w->clients;
    if (c->next)
        c->next->link = &c->next;
    c->link = &w->clients;
    w->clients = c;
    w->n_clients++;
    ev_io_start(w->loop, &c->read);
    client_update_timer(c);
    return c;
}

/* Everything but the descriptor. */
static void client_detach(struct client *c)
{
    struct worker *w = c->worker;
    if (c->state == CLIENT_LINGER)
        w->n_lingering--;
    client_move(c, CLIENT_CLOSED);
    ev_io_stop(w->loop, &c->read);
    ev_io_stop(w->loop, &c->write);
    timer_stop(w, &c->timer);
    if (c->n_inside)
        limits_leave(c);
    if (c->exchange)
        exchange_client_gone(c->exchange);
    hold_drop(c);
    hit_stored_stop(c);
    memo_forget(c);
    in_release(c);
    chain_free(w, &c->out);
    client_dismiss(c);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    w->n_clients--;
    c->next = w->dead_clients;
    w->dead_clients = c;
}

void client_close(struct client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    client_detach(c);
    close(c->read.fd);
}

int client_release(struct client *c)
{
    const int fd = c->read.fd;
    client_detach(c);
    return fd;
}

void client_free(struct client *c)
{
    free(c);
}

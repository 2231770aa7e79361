/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * client_read: what a client sends: a PROXY header, heads and bodies of requests.
 *
 * Bytes are read into the loop's one buffer and used in place; only what cannot be used yet moves
 * to a buffer of the connection's own. Requests are answered in order: while one is being answered
 * (CLIENT_BUSY), what follows it waits unread in the socket, after at most one buffer.
 */
#include "daemons/worker/client/client.h"
#include "daemons/worker/worker.h"
#include "polder/log.h"
#include "polder/stats.h"

#include <errno.h>
#include <string.h>

#define IOV_BODY      64
#define PROXY_WARN_MS 60000

/* Nothing was asked, so the access log has no line of it. */
static void warn_proxy(const struct client *c)
{
    struct worker *w = c->worker;
    char peer[46];
    if (w->mono_ms < w->clients->proxy_warn_ms)
        return;
    w->clients->proxy_warn_ms = w->mono_ms + PROXY_WARN_MS;
    clientip_format(&c->peer, peer);
    log_warning(
        "proxy_protocol: a connection from %s was closed, for it began with no PROXY header; "
        "proxy_protocol = true wants one on each",
        peer);
}

static size_t read_proxy(struct client *c, const char *at, size_t len)
{
    const int used = proxyproto_read(c, at, len);
    if (used < 0 || (used == 0 && len > CLIENTIP_PROXY_MAX)) {
        warn_proxy(c);
        stats_add(c->worker->stats, STATS_BAD_REQUESTS, 1);
        client_close(c);
        return len;
    }
    if (used > 0 && c->state == CLIENT_PROXY)
        client_move(c, CLIENT_IDLE);
    return (size_t)used;
}

void client_head_begins(struct client *c)
{
    if (c->state != CLIENT_IDLE)
        return;
    client_move(c, CLIENT_HEAD);
    c->first_ms = c->worker->mono_ms;
    client_update_timer(c);
}

void client_head_was_blank(struct client *c)
{
    client_move(c, CLIENT_IDLE);
    client_update_timer(c);
}

void client_head_ends(struct client *c)
{
    c->scanned = 0;
    c->seen_request = true;
    client_move(c, CLIENT_BUSY);
}

void client_begin_request(struct client *c, const struct h1_head *head)
{
    c->keep_alive = head->keep_alive && !c->worker->draining && !c->worker->drained;
    c->answered = false;
    c->body_wanted = false;
    c->body_comes = !head->expect_continue;
    c->half_closes = head->minor == 0 || !head->keep_alive || head->asks_upgrade;
    h1_body_init(&c->body, head->framing, head->length);
    c->body_pending = !c->body.done;
    if (c->body_pending) {
        c->progress_ms = c->worker->mono_ms;
        client_update_timer(c);
    }
}

/* Decodes some of the request's body and passes it on, or drops it. */
static size_t read_body(struct client *c, char *at, size_t len)
{
    size_t used;
    struct iovec iov[IOV_BODY]; /* with room for the head of a chunk, its end and the last one */
    struct h1_spans spans = {.iov = iov + 1, .max = IOV_BODY - 5};
    if (c->state == CLIENT_BUSY && !c->answered && !c->body_wanted)
        return 0;
    if (h1_body_gather(&c->body, at, len, &used, &spans) < 0) {
        c->worker->clients->ops->body_malformed(c);
        return len;
    }
    c->rated_bytes += used;
    c->body_pending = !c->body.done;
    if (c->fetch && c->state == CLIENT_BUSY) {
        c->worker->clients->ops->body(c, &spans, !c->body_pending);
    } else if (!c->body_pending && c->state == CLIENT_DISCARD) {
        c->progress_ms = c->worker->mono_ms;
        client_move(c, CLIENT_IDLE);
        client_update_timer(c);
    }
    return used;
}

/* Uses what can be used; returns how much that was. */
static size_t consume(struct client *c, char *at, size_t len)
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
            n = c->worker->clients->ops->head(c, at + used, len - used);
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

void client_watch_read(struct client *c)
{
    if (wants_read(c)) {
        transport_start(&c->transport, TRANSPORT_READ);
    } else if (c->state != CLIENT_CLOSED) {
        transport_stop(&c->transport, TRANSPORT_READ);
        if (c->state == CLIENT_BUSY && !c->eof && (c->fetch || c->held))
            client_leave_watch(c);
    }
}

/* Keeps what was not used. at: in the loop's buffer or in c->in. */
static void keep_rest(struct client *c, const char *at, size_t len)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (!len) {
        client_drop_input(c);
        return;
    }
    if (c->in) {
        c->in->start = c->in->end - (uint32_t)len;
        return;
    }
    c->in = buffer_get(&c->worker->buffers);
    if (!c->in) {
        client_close(c);
        return;
    }
    memcpy(c->in->data, at, len);
    c->in->end = (uint32_t)len;
}

static void drive(struct client *c, char *at, size_t len)
{
    const size_t used = consume(c, at, len);
    keep_rest(c, at + used, len - used);
    client_watch_read(c);
}

void client_use_input(struct client *c)
{
    if (c->in)
        drive(c, c->in->data + c->in->start, c->in->end - c->in->start);
    else
        client_watch_read(c);
}

/* FIN. What was asked completely may still be answered: it may be only half a close. */
static void client_eof(struct client *c)
{
    const bool whole = c->state == CLIENT_BUSY && !(c->body_pending && !c->answered);
    c->eof = true;
    if (!whole)
        client_left(c);
    else if (!client_leave_by_fin(c))
        client_watch_read(c);
}

void client_on_readable(struct transport *t)
{
    struct client *c = TRANSPORT_OWNER(t, struct client, transport);
    struct worker *w = c->worker;
    char *at = w->clients->buffer;
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
            client_watch_read(c);
            return;
        }
    }
    const ssize_t n = t->ops->read(t, at + had, room);
    if (n <= 0) {
        if (n == 0)
            client_eof(c);
        else if (n != -EAGAIN)
            client_left(c);
        else
            client_watch_read(c);
        return;
    }
    stats_add(w->stats, STATS_BYTES_IN, (uint64_t)n);
    c->progress_ms = w->mono_ms;
    if (c->in)
        c->in->end += (uint32_t)n;
    drive(c, at, had + (size_t)n);
}

void client_begin(struct client *c)
{
    const bool is_unheard = c->state == CLIENT_PROXY || c->state == CLIENT_IDLE;
    if (is_unheard && !c->worker->draining) /* which takes in many at a time */
        client_on_readable(&c->transport);
    else
        client_watch_read(c);
}

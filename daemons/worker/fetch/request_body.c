/* SPDX-License-Identifier: BSD-2-Clause */
/* request_body: the body of a request on its way to a backend. */
#include "daemons/worker/fetch/request_body.h"
#include "daemons/worker/buffer.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"

#include <stdlib.h>
#include <string.h>

#define ROOM_MIN 4096 /* of a body whose length is not known, or not small */

/* ---- what is kept ---- */

static uint64_t share_of(const struct worker *w)
{
    return w->config->request_buffers_total / w->config->workers;
}

static bool grow(struct fetch *ex, size_t need)
{
    struct request_buffer *b = &ex->body;
    const struct h1_head *head = &ex->head;
    size_t room = b->room ? b->room * 2 : ROOM_MIN;
    if (head->framing == H1_LENGTH && room > head->length)
        room = (size_t)head->length;
    if (room < need)
        room = need;
    char *bytes = realloc(b->bytes, room);
    if (!bytes)
        return false;
    ex->worker->fetches->request_bytes += room - b->room;
    b->bytes = bytes;
    b->room = room;
    return true;
}

/* False: no memory. */
static bool keep(struct fetch *ex, const struct h1_spans *spans)
{
    struct request_buffer *b = &ex->body;
    if (b->len + spans->total > b->room && !grow(ex, b->len + spans->total))
        return false;
    for (unsigned i = 0; i < spans->n; i++) {
        memcpy(b->bytes + b->len, spans->iov[i].iov_base, spans->iov[i].iov_len);
        b->len += spans->iov[i].iov_len;
    }
    return true;
}

bool request_body_is_at_hand(const struct fetch *ex)
{
    return !ex->body_consumed;
}

/* ---- reading it ---- */

static void ask_for_more(struct fetch *ex)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct client *c = ex->req.client;
    if (!c->body_comes && !ex->req.http10) {
        c->body_comes = true;
        client_send_bytes(c, go_on, sizeof go_on - 1);
    }
    client_want_body(c, true);
}

bool request_body_waits(struct fetch *ex)
{
    struct worker *w = ex->worker;
    const struct client *c = ex->req.client;
    if (ex->state != FETCH_NEW || ex->for_store || !c || !c->body_pending ||
        !w->config->request_buffer || w->fetches->request_bytes >= share_of(w))
        return false;
    fetch_move(ex, FETCH_BUFFERING);
    ask_for_more(ex);
    return true;
}

static void buffer(struct fetch *ex, const struct h1_spans *spans, bool end)
{
    struct worker *w = ex->worker;
    struct request_buffer *b = &ex->body;
    if (!keep(ex, spans)) {
        fetch_fail(ex, PROBLEM_UNAVAILABLE);
        return;
    }
    if (end) {
        const struct h1_body *body = &ex->req.client->body;
        b->whole = true;
        b->trailer = body->kept;
        b->trailer_len = body->kept_len;
    }
    if (end || b->len >= w->config->request_buffer || w->fetches->request_bytes > share_of(w))
        fetch_resume(ex);
}

/* ---- passing it on ---- */

static void pass_on(struct fetch *ex, struct h1_spans *spans, bool end)
{
    struct upstream *u = ex->up;
    const struct h1_body *body = &ex->req.client->body;
    char line[18];
    struct iovec *iov = spans->iov;
    unsigned n = spans->n;
    if (u->chunk_request && spans->total) {
        *--iov = (struct iovec){line, h1_chunk_head(line, spans->total)};
        iov[++n] = (struct iovec){(void *)"\r\n", 2};
        n++;
    }
    if (u->chunk_request && end)
        n += h1_last_chunk(iov + n, body->kept, body->kept_len);
    if (n)
        upstream_send(u, iov, n); /* NOLINT(clang-analyzer-core.StackAddressEscape) */
    if (end)
        u->progress_ms = ex->worker->mono_ms;
    else if (u->out.len > WORKER_HIGH)
        client_want_body(ex->req.client, false);
}

void request_body_feed(struct fetch *ex, struct h1_spans *spans, bool end)
{
    if (ex->state == FETCH_BUFFERING) {
        buffer(ex, spans, end);
        return;
    }
    fetch_drop_body(ex);
    ex->body_consumed = true;
    ex->request_done = end;
    if (ex->up)
        pass_on(ex, spans, end);
}

void request_body_send(struct fetch *ex, const char *head, size_t len)
{
    struct upstream *u = ex->up;
    const struct client *c = ex->req.client;
    const struct request_buffer *b = &ex->body;
    char line[18];
    struct iovec iov[7] = {{(void *)(uintptr_t)head, len}};
    unsigned n = 1;
    if (b->len && u->chunk_request)
        iov[n++] = (struct iovec){line, h1_chunk_head(line, b->len)};
    if (b->len)
        iov[n++] = (struct iovec){b->bytes, b->len};
    if (b->len && u->chunk_request)
        iov[n++] = (struct iovec){(void *)"\r\n", 2};
    if (b->whole && u->chunk_request)
        n += h1_last_chunk(iov + n, b->trailer, b->trailer_len);
    upstream_send(u, iov, n); /* NOLINT(clang-analyzer-core.StackAddressEscape) */
    ex->request_done = ex->for_store || !c || !c->body_pending;
    if (!ex->request_done)
        ask_for_more(ex);
}

void request_body_resume(struct fetch *ex)
{
    if (ex->req.client && ex->req.client->body_pending && !ex->request_done)
        client_want_body(ex->req.client, true);
}

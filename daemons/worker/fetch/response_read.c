/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * response_read: what a backend sends back for an exchange: interim responses, the head that
 * decides what becomes of it (passed on, stored, or the stored one renewed), the body.
 */
#include "daemons/worker/fetch/content.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/buffer.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/compress.h"
#include "daemons/worker/message/affinity.h"
#include "daemons/worker/message/hints.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/cache/conditions.h"
#include "daemons/worker/fetch/invalidate.h"
#include "daemons/worker/fetch/keep_alive.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/clock.h"
#include "polder/field.h"
#include "polder/server_state.h"
#include "polder/stats.h"

#include <string.h>

#define IOV_BODY     64
#define STALL_MS     1000 /* others wait no longer for a client that reads slowly */
#define STREAM_MS    5000 /* nor for a body without an end in sight */
#define INTERIMS_MAX 100

/* What the client gets of it now, in one write: the head, if that has just come, what of the body
 * is in the spans, and the end of it. There is room for two before the spans and four behind. */
static void send_on(struct fetch *ex, const struct h1_spans *spans, bool end)
{
    struct client *c = ex->req.client;
    const struct h1_body *body = &ex->up->body;
    struct iovec *iov = spans->iov;
    unsigned n = 0;
    char line[18];
    if (!c)
        return;
    if (ex->compress) {
        compress_send(ex, spans->iov, spans->n, end);
        return;
    }
    if (ex->body_to_client) {
        n = spans->n;
        ex->body_sent += spans->total;
        route_stats_bytes(ex->worker, ex->req.route, spans->total);
        if (n && ex->client_body == BODY_CHUNKED) {
            *--iov = (struct iovec){line, h1_chunk_head(line, spans->total)};
            iov[++n] = (struct iovec){(void *)"\r\n", 2};
            n++;
        }
        if (end && ex->client_body == BODY_CHUNKED)
            n += h1_last_chunk(iov + n, body->kept, body->kept_len);
    }
    if (ex->head_unsent) {
        *--iov = (struct iovec){ex->worker->texts->scratch, ex->head_unsent};
        n++;
        ex->head_unsent = 0;
    }
    if (n)
        client_send(c, iov, n); /* NOLINT(clang-analyzer-core.StackAddressEscape) */
}

static void pass_body(struct fetch *ex, const struct h1_spans *spans, bool end)
{
    struct fetch_watcher *at = ex->watcher;
    for (unsigned i = 0; i < spans->n; i++) {
        cache_store_body(ex, spans->iov[i].iov_base, spans->iov[i].iov_len);
        if (at && at->ops->body)
            at->ops->body(at, spans->iov[i].iov_base, spans->iov[i].iov_len);
    }
    send_on(ex, spans, end);
}

/* The connection has done its work. */
static void give_back(struct fetch *ex)
{
    struct upstream *u = ex->up;
    const bool again = u->keep_alive && ex->request_done && !u->deaf && !u->out.len;
    ex->up = NULL;
    u->user = NULL;
    if (again)
        pool_keep(u);
    else
        upstream_close(u);
}

/* The response is complete: the connection is free again, the client has its answer. */
static void response_end(struct fetch *ex)
{
    cache_store_end(ex);
    if (ex->watcher && ex->watcher->ops->whole)
        ex->watcher->ops->whole(ex->watcher);
    give_back(ex);
    fetch_client_done(ex);
    fetch_finish(ex);
}

bool response_eof(struct fetch *ex)
{
    if (ex->state != FETCH_BODY || !h1_body_eof(&ex->up->body))
        return false;
    struct iovec iov[IOV_BODY];
    const struct h1_spans none = {.iov = iov + 2};
    ex->up->keep_alive = false;
    send_on(ex, &none, true);
    response_end(ex);
    return true;
}

/* What has come is no response to this request. */
static void refuse(struct fetch *ex, enum server_reason reason, const char *what)
{
    struct upstream_error e;
    upstream_error(&e, reason, "%s", what);
    retry_broken(ex, &e, false);
}

/* How the client gets the body, and whether it gets it at all. */
static void choose_body(struct fetch *ex, const struct h1_head *head, uint16_t status)
{
    if (ex->req.is_head || status == 304 || status == 204 || head->framing == H1_NO_BODY) {
        ex->client_body = BODY_NONE;
        ex->body_to_client = false;
    } else if (head->framing == H1_LENGTH && !ex->compress) {
        ex->client_body = BODY_LENGTH;
    } else {
        ex->client_body = ex->req.http10 ? BODY_TO_CLOSE : BODY_CHUNKED;
    }
}

/* The backend was asked without the client's conditions: they are met here. */
static uint16_t client_status(const struct fetch *ex, const struct h1_head *head)
{
    int64_t modified;
    if (!ex->for_store || head->status != 200)
        return head->status;
    const struct h1_field *etag = h1_only(head, H1_ETAG);
    const bool dated = h1_read_date(head, H1_LAST_MODIFIED, &modified) && modified > 0;
    const uint64_t modified_ms = dated ? (uint64_t)modified * 1000 : 0;
    return conditions_not_modified(&ex->req, etag ? etag->value : (struct str){0}, modified_ms)
               ? 304
               : 200;
}

static void send_head(struct fetch *ex, const struct h1_head *head)
{
    struct client *c = ex->req.client;
    const uint16_t status = client_status(ex, head);
    ex->status = status;
    compress_begin(ex, head, status);
    choose_body(ex, head, status);
    if (!c)
        return;
    if (ex->client_body == BODY_TO_CLOSE || !ex->request_done)
        c->keep_alive = false;
    c->keep_alive = client_may_keep(c);
    ex->stored_compressible = cache_store_compressible(ex);
    const size_t len = response_head(ex, head, status);
    if (!len) { /* 16 KiB of the backend's and what we add do not fit: cannot happen by design */
        ex->body_to_client = false;
        c->note.cut = "polder";
        client_break(c);
        return;
    }
    route_stats_answer(ex->worker, ex->req.route, status);
    if (ex->client_body == BODY_TO_CLOSE)
        client_ends_body(c);
    ex->head_unsent = (uint32_t)len; /* until the bytes behind it have been looked at */
}

/* 304 to our own conditions: the stored body is good, its head is renewed. */
static void not_modified(struct fetch *ex, const struct h1_head *head)
{
    struct client *c = ex->req.client;
    stats_add(ex->worker->stats, STATS_CACHE_REVALIDATED, 1);
    const bool taken = revalidate_stored(ex, head), stored = taken && !ex->not_stored;
    if (!taken)
        permit_release(ex->worker, &ex->permit, FETCH_LOCK_FAILED);
    give_back(ex);
    if (c) {
        struct request r = ex->req;
        fetch_let_go(ex);
        ex->status = ex->stale->view.record->status;
        deliver_copy(&r, ex->stale,
                     stored ? "fwd=stale; fwd-status=304; stored" : "fwd=stale; fwd-status=304");
        fetch_measure(ex);
    }
    fetch_finish(ex);
}

/* A 304 about something else than we asked about, or for others only, tells nothing (RFC 9111
 * 4.3.4): the whole, then. */
static void ask_again(struct fetch *ex)
{
    upstream_close(ex->up);
    ex->conditional = false;
    fetch_start(ex);
}

/* The answer to a POST is going to be stored: a GET by a client that has seen it waits for that. */
static void claim_for_readers(struct fetch *ex)
{
    struct cache_key key = ex->req.key;
    identity_lock_key(&ex->req, &key);
    if (!permit_is_held(&ex->permit))
        permit_claim(ex->worker, &key, &ex->permit, NULL);
}

/* Has it no body, but speaks of one? Some backends send it, a moment later: as the answer to the
 * next request. */
static bool announces_body(const struct h1_head *head)
{
    return h1_find(head, H1_TRANSFER_ENCODING) ||
           (h1_find(head, H1_CONTENT_LENGTH) && head->length > 0);
}

/* more: bytes have come behind the head; where it has no body they are no part of any answer. */
static bool final_head(struct fetch *ex, const struct h1_head *head, bool more)
{
    struct upstream *u = ex->up;
    fetch_drop_body(ex);
    ex->fetch_ns = clock_mono_ns() - ex->sent_ns;
    histogram_add(&server_stats(ex->worker, u->server)->latency,
                  histogram_bucket(HISTOGRAM_LATENCY, ex->fetch_ns), ex->fetch_ns);
    retry_answered(ex, head->status);
    affinity_learn(ex->worker, u->server, head);
    fetch_note_server(ex);
    ex->answered = head->status;
    ex->worker->fetches->ops->answered(ex, policy_stale_replaces(head->status));
    h1_body_init(&u->body, head->framing, head->length);
    if (head->framing == H1_CHUNKED)
        upstream_keep_trailer(u);
    u->keep_alive = head->keep_alive && head->framing != H1_TO_CLOSE &&
                    !(head->framing == H1_NO_BODY && (more || announces_body(head)));
    u->keep_ms = keep_alive_ms(head, u->server->upstream->idle_timeout_ms);
    if (ex->for_store && head->status == 304) {
        if (!ex->conditional)
            refuse(ex, SERVER_MALFORMED, "sent a 304 that was not asked for");
        else if (revalidate_agrees(ex, head))
            not_modified(ex, head);
        else
            ask_again(ex);
        return false;
    }
    if (ex->for_store && head->status == 206) { /* no part was asked for */
        refuse(ex, SERVER_MALFORMED, "sent a 206 that was not asked for");
        return false;
    }
    if (policy_stale_replaces(head->status) && fetch_answer_stale(ex)) {
        fetch_finish(ex);
        return false;
    }
    if (!ex->req.head->is_safe)
        invalidate_after(ex, head);
    fetch_move(ex, FETCH_BODY);
    u->in_body = true;
    u->event_stream = content_is_event_stream(head);
    hints_redirect(&ex->req, head);
    permit_note_answer(ex->worker, &ex->permit);
    ex->length_unknown = head->framing == H1_CHUNKED || head->framing == H1_TO_CLOSE;
    if (ex->req.is_head && !ex->for_store)
        revalidate_by_head(ex, head);
    if (ex->req.cacheable || ex->req.post)
        cache_store_begin(ex, head);
    if (ex->store && ex->req.post)
        claim_for_readers(ex);
    if (ex->watcher && ex->watcher->ops->head)
        ex->watcher->ops->head(ex->watcher, head);
    if (!ex->alone_ms)
        timer_stop(&ex->worker->wheel, &ex->timer); /* of its lease: what comes renews it now */
    if (permit_is_held(&ex->permit) && ex->length_unknown)
        timer_set(&ex->worker->wheel, &ex->timer, ex->worker->mono_ms + STREAM_MS);
    send_head(ex, head);
    return ex->state == FETCH_BODY;
}

static void bad_head(struct fetch *ex, const struct h1_head *head)
{
    struct upstream_error e;
    upstream_error(&e, head->flaw_is_size ? SERVER_TOO_LARGE : SERVER_MALFORMED,
                   "sent a response head %s", head->flaw);
    retry_broken(ex, &e, false);
}

/* One head. Returns the bytes used; 0: not complete, or the exchange is over. */
static size_t receive_head(struct fetch *ex, const char *at, size_t len)
{
    struct worker *w = ex->worker;
    struct upstream *u = ex->up;
    struct h1_head *head = &w->fetches->response;
    switch (h1_parse_response(at, len, &u->scanned, ex->req.is_head && !ex->for_store, head)) {
    case H1_MORE:
        return 0;
    case H1_BAD:
        bad_head(ex, head);
        return 0;
    case H1_DONE:
        break;
    }
    const size_t used = head->head_len;
    u->scanned = 0;
    if (head->status == 101) {
        refuse(ex, SERVER_MALFORMED, "sent a 101 that was not asked for");
        return 0;
    }
    if (head->status < 200) {
        if (++ex->interims > INTERIMS_MAX) {
            refuse(ex, SERVER_MALFORMED, "sent more than 100 interim responses");
            return 0;
        }
        response_interim(ex, head);
        return used;
    }
    return final_head(ex, head, len > used) ? used : 0;
}

static bool watcher_wants_more(const struct fetch *ex)
{
    const struct fetch_watcher *at = ex->watcher;
    return at && at->ops->wants_more && at->ops->wants_more(at);
}

static void body_taken(struct fetch *ex)
{
    struct upstream *u = ex->up;
    if (ex->req.client && ex->req.client->out.len > WORKER_HIGH) {
        u->paused = true;
        transport_stop(&u->transport, TRANSPORT_READ);
        if (permit_is_held(&ex->permit) && !timer_is_armed(&ex->timer))
            timer_set(&ex->worker->wheel, &ex->timer, ex->worker->mono_ms + STALL_MS);
    } else if (compress_is_due_later(ex)) {
        u->paused = true;
        transport_stop(&u->transport, TRANSPORT_READ);
    } else if (!ex->req.client && !ex->store && !watcher_wants_more(ex)) {
        fetch_finish(ex); /* too long to be stored, and not wanted otherwise */
    }
}

/* Body bytes; what lies behind the body's end is no part of any answer and spoils the connection.
 */
static void receive_body(struct fetch *ex, char *at, size_t len)
{
    struct upstream *u = ex->up;
    struct iovec iov[IOV_BODY];
    struct h1_spans spans = {.iov = iov + 2, .max = IOV_BODY - 6};
    int rc;
    do {
        size_t used;
        rc = h1_body_gather(&u->body, at, len, &used, &spans);
        pass_body(ex, &spans, rc == 0 && u->body.done);
        at += used;
        len -= used;
    } while (len && !u->body.done && rc == 0);
    if (rc < 0) {
        refuse(ex, SERVER_MALFORMED, "sent a malformed response body");
    } else if (u->body.done) {
        if (len) {
            u->keep_alive = false;
            pool_mistrust(u);
        }
        response_end(ex);
    } else {
        body_taken(ex);
    }
}

size_t response_receive(struct fetch *ex, char *at, size_t len)
{
    size_t done = 0;
    const struct upstream *u = ex->up;
    permit_renew(ex->worker, &ex->permit);
    while (ex->state == FETCH_HEAD && done < len) {
        const size_t used = receive_head(ex, at + done, len - done);
        if (!used)
            return ex->state == FETCH_HEAD && ex->up == u ? done : len;
        done += used;
    }
    if (ex->state == FETCH_BODY)
        receive_body(ex, at + done, len - done); /* an empty one ends here too */
    return len;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * exchange: one request on its way to a backend and the response on its way back.
 *
 *   NEW -> CONNECT -> HEAD -> BODY -> DONE       (PARKED before: somebody else fetches the same;
 *                                                WAITING: the backend refuses connections)
 *
 * Until the first byte of a response has come, a failure may be repaired: a connection that could
 * not be made by the next server; a kept connection that the backend closed just then by a fresh
 * one, if the request is idempotent and none of its body has been taken from the client. Later
 * failures reach the client as what they are: a broken connection, never a shorter response.
 */
#include "daemons/worker/worker.h"
#include "polder/clock.h"
#include "polder/inval.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define IOV_BODY      64
#define RENEW_MS      2000
#define STALL_MS      1000 /* others wait no longer for a client that reads slowly */
#define STREAM_MS     5000 /* nor for a body without an end in sight */
#define ALONE_MS      10000 /* a body without a known end is fetched on without a client for so long */
#define ALONE_LONG_MS 30000
#define INTERIMS_MAX  100
#define TRAILER_KEPT  2048 /* of a request; what does not fit is dropped */

#define MAY(state) (1u << (state))
static const unsigned moves[EXCHANGE_STATES] = {
    [EXCHANGE_NEW] = MAY(EXCHANGE_PARKED) | MAY(EXCHANGE_CONNECT) | MAY(EXCHANGE_DONE),
    [EXCHANGE_PARKED] = MAY(EXCHANGE_NEW) | MAY(EXCHANGE_DONE),
    [EXCHANGE_CONNECT] = MAY(EXCHANGE_HEAD) | MAY(EXCHANGE_WAITING) | MAY(EXCHANGE_DONE),
    [EXCHANGE_WAITING] = MAY(EXCHANGE_CONNECT) | MAY(EXCHANGE_DONE),
    [EXCHANGE_HEAD] = MAY(EXCHANGE_CONNECT) | MAY(EXCHANGE_BODY) | MAY(EXCHANGE_DONE),
    [EXCHANGE_BODY] = MAY(EXCHANGE_DONE),
};

void exchange_move(struct exchange *ex, enum exchange_state to)
{
    assert(moves[ex->state] & MAY(to));
    ex->state = (uint8_t)to;
}

/* ---- life ---- */

static void rebase(struct field_text *t, const char *from, size_t len, const char *to)
{
    if (t->at && t->at >= from && t->at <= from + len)
        t->at = to + (t->at - from);
}

static void rebase_head(struct h1_head *h, const char *from, size_t len, const char *to)
{
    rebase(&h->method, from, len, to);
    rebase(&h->target, from, len, to);
    rebase(&h->path, from, len, to);
    rebase(&h->query, from, len, to);
    rebase(&h->host, from, len, to);
    for (uint32_t i = 0; i < h->n_fields; i++) {
        rebase(&h->field[i].name, from, len, to);
        rebase(&h->field[i].value, from, len, to);
    }
}

static const char *copy(char **at, const char *bytes, size_t len)
{
    const char *start = *at;
    if (len)
        memcpy(*at, bytes, len);
    *at += len;
    return start;
}

struct exchange *exchange_new(struct worker *w, const struct request *r)
{
    const struct h1_head *head = r->head;
    const char *from = head->method.at;
    struct exchange *ex = calloc(1, sizeof *ex);
    const size_t trailer = head->framing == H1_CHUNKED ? TRAILER_KEPT : 0;
    char *bytes = malloc(trailer + head->head_len + r->target.len + r->url_len + r->partition_len +
                         r->limit_len + 1);
    if (!ex || !bytes) {
        free(ex);
        free(bytes);
        return NULL;
    }
    ex->worker = w;
    ex->bytes = bytes;
    ex->req = *r;
    ex->head = *head;
    ex->req.head = &ex->head;
    const char *to = copy(&bytes, from, head->head_len);
    rebase_head(&ex->head, from, head->head_len, to);
    rebase(&ex->req.if_none_match, from, head->head_len, to);
    rebase(&ex->req.if_modified_since, from, head->head_len, to);
    rebase(&ex->req.range, from, head->head_len, to);
    rebase(&ex->req.if_range, from, head->head_len, to);
    ex->req.target.at = copy(&bytes, r->target.at, r->target.len);
    ex->req.url = copy(&bytes, r->url, r->url_len);
    ex->req.partition = copy(&bytes, r->partition, r->partition_len);
    ex->req.limit_lines = copy(&bytes, r->limit_lines, r->limit_len);
    ex->ticket = ex->waits_for = INFLIGHT_NONE;
    ex->timer.kind = TIMER_EXCHANGE;
    ex->upstream = r->route ? r->route->upstream : &w->ops_upstream;
    ex->body_to_client = true;
    if (r->client)
        r->client->exchange = ex;
    if (r->client && trailer)
        h1_body_keep_trailer(&r->client->body, bytes, trailer);
    return ex;
}

void exchange_free(struct exchange *ex)
{
    hit_copy_free(ex->worker, ex->stale);
    free(ex->bytes);
    free(ex);
}

/* The client goes its way; its body reader must not write here any more. */
static struct client *let_go(struct exchange *ex)
{
    struct client *c = ex->req.client;
    if (c) {
        c->exchange = NULL;
        h1_body_keep_trailer(&c->body, NULL, 0);
    }
    ex->req.client = NULL;
    return c;
}

void exchange_finish(struct exchange *ex)
{
    struct worker *w = ex->worker;
    if (ex->state == EXCHANGE_DONE)
        return;
    if (ex->state == EXCHANGE_PARKED)
        collapse_unpark(ex);
    if (ex->state == EXCHANGE_WAITING)
        waiting_leave(ex);
    exchange_move(ex, EXCHANGE_DONE);
    timer_stop(w, &ex->timer);
    if (ex->tee)
        tee_abort(ex, INFLIGHT_FAILED);
    tee_land(ex, INFLIGHT_FAILED); /* whoever still waits for it may try */
    if (ex->up)
        upstream_close(ex->up);
    let_go(ex);
    ex->next = w->dead_exchanges;
    w->dead_exchanges = ex;
}

void exchange_drop_client(struct exchange *ex)
{
    let_go(ex);
    exchange_finish(ex);
}

void exchange_client_gone(struct exchange *ex)
{
    struct worker *w = ex->worker;
    let_go(ex);
    /* Others may wait for what this one fetches, and it may soon be stored. */
    const bool wanted = ex->tee || (ex->fetch && ex->ticket.word);
    if (!wanted || ex->state == EXCHANGE_PARKED || ex->state == EXCHANGE_WAITING) {
        exchange_finish(ex);
        return;
    }
    ex->alone_ms = w->mono_ms + (ex->length_unknown ? ALONE_MS : ALONE_LONG_MS);
    timer_set(w, &ex->timer, ex->alone_ms);
    if (ex->up && ex->up->paused) {
        ex->up->paused = false;
        ev_io_start(w->loop, &ex->up->read);
    }
}

void exchange_timeout(struct exchange *ex)
{
    struct worker *w = ex->worker;
    if (ex->state == EXCHANGE_PARKED) {
        collapse_timeout(ex);
        return;
    }
    if (ex->state == EXCHANGE_WAITING) {
        exchange_fail(ex, ex->last_problem);
        return;
    }
    if (ex->alone_ms && w->mono_ms >= ex->alone_ms) {
        exchange_finish(ex);
        return;
    }
    if (ex->alone_ms)
        timer_set(w, &ex->timer, ex->alone_ms);
    if (ex->length_unknown) /* a stream: whoever wants it gets his own */
        tee_land(ex, INFLIGHT_NOSHARE);
    else if (!ex->alone_ms)
        tee_land(ex, INFLIGHT_FAILED);
}

static void measure(struct exchange *ex)
{
    struct worker *w = ex->worker;
    if (!ex->req.started_ns)
        return;
    stats_observe(w->stats, ex->req.cacheable ? STATS_LATENCY_MISS : STATS_LATENCY_PASS,
                  clock_mono_ns() - ex->req.started_ns);
}

static void log_access(struct exchange *ex)
{
    if (ex->worker->config->access_log != CONFIG_LOG_OFF)
        accesslog_line(ex->worker, &(struct access_entry){&ex->req, ex->status, ex->body_sent,
                                                          ex->req.cacheable ? "miss" : "pass"});
}

/* The client has its whole answer. */
static void client_done(struct exchange *ex)
{
    struct client *c = ex->req.client;
    if (!c)
        return;
    measure(ex);
    log_access(ex);
    if (!ex->request_done)
        c->keep_alive = false; /* answered early: the rest of the body leads nowhere */
    let_go(ex);
    client_answered(c);
}

/* ---- answers without the backend's ---- */

/* Has the copy been invalidated since it was taken? */
static bool stale_is_purged(const struct exchange *ex)
{
    const struct cache_view *v = &ex->stale->view;
    const struct cache_record *r = v->record;
    return inval_check_held(ex->worker->shared->inval, r->birth, ex->stale->since, r->url_slot,
                            r->tag_slot, r->n_tags, v->url, r->url_len) == INVAL_HARD;
}

static bool has_stale(const struct exchange *ex)
{
    return ex->stale && !stale_is_purged(ex) &&
           policy_stale_if_error(&ex->req.policy, ex->stale->view.record, ex->worker->real_ms);
}

/* The stored response, although it is stale: detail says why. False: there is none to give. */
static bool answer_stale(struct exchange *ex)
{
    struct client *c = ex->req.client;
    if (!has_stale(ex))
        return false;
    stats_add(ex->worker->stats, STATS_CACHE_STALE, 1);
    if (c) {
        struct request r = ex->req;
        let_go(ex);
        ex->status = ex->stale->view.record->status;
        hit_answer_copy(&r, ex->stale, "fwd=stale; detail=stale-if-error");
    }
    return true;
}

void exchange_fail(struct exchange *ex, enum problem problem)
{
    struct worker *w = ex->worker;
    struct client *c = ex->req.client;
    stats_add(w->stats, STATS_UPSTREAM_ERRORS, 1);
    if (ex->up && ex->up->server->index < w->config->n_servers)
        stats_bump(&w->stats->server[ex->up->server->index].errors, 1);
    if (!answer_stale(ex) && c) {
        const char *extra = problem == PROBLEM_UNAVAILABLE ? "Retry-After: 1\r\n" : "";
        let_go(ex);
        response_problem(&ex->req, c, problem, extra, "", ex->request_done);
    }
    exchange_finish(ex);
}

/* ---- to the backend ---- */

static void renew(struct exchange *ex)
{
    struct worker *w = ex->worker;
    if (!ex->ticket.word || w->mono_ms < ex->renewed_ms + RENEW_MS)
        return;
    ex->renewed_ms = w->mono_ms;
    inflight_renew(w->shared->inflight, &ex->ticket, w->mono_ms);
}

static void connect_next(struct exchange *ex)
{
    struct worker *w = ex->worker;
    const struct config_server *server;
    if (ex->req.client)
        client_want_body(ex->req.client, false); /* until there is a connection for it */
    while ((server = pool_choose(w, ex->upstream, ex->tried))) {
        struct upstream *u = ex->retried ? NULL : pool_take(w, server);
        const bool kept = u != NULL;
        if (!u)
            u = upstream_connect(w, server);
        if (u) {
            ex->up = u;
            u->exchange = ex;
            if (kept)
                exchange_send(ex);
            return;
        }
        pool_failed(w, server);
        ex->tried |= pool_bit(ex->upstream, server);
        if (!pool_bit(ex->upstream, server))
            break;
    }
    const bool refused = ex->tried && ex->last_problem == PROBLEM_BAD_GATEWAY;
    if (!refused || has_stale(ex) || !waiting_enter(ex))
        exchange_fail(ex, ex->tried ? ex->last_problem : PROBLEM_UNAVAILABLE);
}

void exchange_try_again(struct exchange *ex)
{
    waiting_leave(ex);
    renew(ex);
    exchange_move(ex, EXCHANGE_CONNECT);
    ex->tried = 0;
    connect_next(ex);
}

void exchange_start(struct exchange *ex)
{
    exchange_move(ex, EXCHANGE_CONNECT);
    ex->last_problem = PROBLEM_BAD_GATEWAY;
    connect_next(ex);
}

void exchange_connect_failed(struct exchange *ex, bool timeout)
{
    struct worker *w = ex->worker;
    const struct config_server *server = ex->up->server;
    pool_failed(w, server);
    ex->tried |= pool_bit(ex->upstream, server);
    ex->last_problem = timeout ? PROBLEM_GATEWAY_TIMEOUT : PROBLEM_BAD_GATEWAY;
    upstream_close(ex->up);
    stats_add(w->stats, STATS_UPSTREAM_RETRIES, 1);
    connect_next(ex);
}

static void start_body(struct exchange *ex)
{
    struct client *c = ex->req.client;
    if (ex->fetch || !c || !c->body_pending) {
        ex->request_done = true;
        return;
    }
    if (!c->body_told && !ex->req.http10) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        c->body_told = true;
        client_send_bytes(c, go_on, sizeof go_on - 1);
    }
    client_want_body(c, true);
}

void exchange_send(struct exchange *ex)
{
    struct worker *w = ex->worker;
    struct upstream *u = ex->up;
    const size_t len = response_request_head(
        w, &(struct response_request){.request = &ex->req,
                                      .conditions = ex->conditional ? ex->stale : NULL,
                                      .fetch = ex->fetch});
    exchange_move(ex, EXCHANGE_HEAD);
    if (!len) {
        exchange_fail(ex, PROBLEM_HEAD_TOO_LARGE);
        return;
    }
    ex->birth = inval_seq(w->shared->inval);
    ex->sent_real_ms = w->real_ms;
    ex->sent_ns = clock_mono_ns();
    u->chunk_request = !ex->fetch && ex->req.head->framing == H1_CHUNKED;
    u->keep_alive = false;
    u->scanned = 0;
    if (ex->upstream !=
        &w->ops_upstream) { /* telemetry is answered by control: no backend's work */
        stats_add(w->stats, STATS_UPSTREAM_REQUESTS, 1);
        stats_add(w->stats, STATS_UPSTREAM_REUSES, u->reused);
    }
    if (u->server->index < w->config->n_servers)
        stats_bump(&w->stats->server[u->server->index].requests, 1);
    upstream_progress(u);
    ev_io_start(w->loop, &u->read);
    const struct iovec iov = {w->scratch, len};
    upstream_send(u, &iov, 1);
    start_body(ex);
    if (ex->wait_until_ms)
        waiting_wake(w, ex->upstream); /* it is there again */
}

void exchange_feed(struct exchange *ex, const char *bytes, size_t len)
{
    struct upstream *u = ex->up;
    ex->body_consumed = true;
    if (!u)
        return;
    if (u->chunk_request) {
        char head[18];
        const struct iovec iov[3] = {
            {head, h1_chunk_head(head, len)}, {(void *)bytes, len}, {(void *)"\r\n", 2}};
        upstream_send(u, iov, 3);
    } else {
        const struct iovec iov = {(void *)bytes, len};
        upstream_send(u, &iov, 1);
    }
    if (u->out.len > WORKER_HIGH)
        client_want_body(ex->req.client, false);
}

void exchange_request_end(struct exchange *ex)
{
    struct upstream *u = ex->up;
    ex->request_done = true;
    if (!u)
        return;
    if (u->chunk_request) {
        const struct h1_body *b = &ex->req.client->body;
        const struct iovec iov[3] = {
            {(void *)"0\r\n", 3}, {b->kept, b->kept_len}, {(void *)"\r\n", 2}};
        upstream_send(u, iov, 3);
    }
    u->progress_ms = ex->worker->mono_ms;
}

void exchange_writable(struct exchange *ex)
{
    if (ex->req.client && ex->req.client->body_pending && !ex->request_done)
        client_want_body(ex->req.client, true);
}

/* ---- from the backend ---- */

static bool may_retry(const struct exchange *ex)
{
    return ex->state == EXCHANGE_HEAD && !ex->up->got_bytes && !ex->body_consumed &&
           (ex->fetch || ex->req.head->is_idempotent);
}

/* The connection has failed under a request. */
void exchange_broken(struct exchange *ex, bool timeout)
{
    struct worker *w = ex->worker;
    struct upstream *u = ex->up;
    if (ex->state == EXCHANGE_BODY) {
        struct client *c = ex->req.client;
        if (u->server->index < w->config->n_servers)
            stats_bump(&w->stats->server[u->server->index].errors, 1);
        if (c) {
            log_access(ex);
            let_go(ex);
            client_break(c);
        }
        exchange_finish(ex);
        return;
    }
    if (!timeout && may_retry(ex) && (u->reused || !ex->retried)) {
        if (!u->reused) { /* a fresh one: that server is not well */
            pool_failed(w, u->server);
            ex->tried |= pool_bit(ex->upstream, u->server);
        }
        ex->retried = true;
        upstream_close(u);
        stats_add(w->stats, STATS_UPSTREAM_RETRIES, 1);
        exchange_move(ex, EXCHANGE_CONNECT);
        connect_next(ex);
        return;
    }
    exchange_fail(ex, timeout ? PROBLEM_GATEWAY_TIMEOUT : PROBLEM_BAD_GATEWAY);
}

/* The response is complete: the connection is free again, the client has its answer. */
static void response_end(struct exchange *ex)
{
    struct worker *w = ex->worker;
    struct upstream *u = ex->up;
    struct client *c = ex->req.client;
    tee_end(ex);
    if (c && ex->body_to_client && ex->client_body == BODY_CHUNKED) {
        const struct iovec iov[3] = {
            {(void *)"0\r\n", 3}, {u->body.kept, u->body.kept_len}, {(void *)"\r\n", 2}};
        client_send(c, iov, 3);
    }
    if (u->server->index < w->config->n_servers)
        stats_bump(&w->stats->server[u->server->index].time_ns, clock_mono_ns() - ex->sent_ns);
    ex->up = NULL;
    u->exchange = NULL;
    if (u->keep_alive && ex->request_done && !u->deaf && !u->out.len)
        pool_keep(u);
    else
        upstream_close(u);
    client_done(ex);
    exchange_finish(ex);
}

void exchange_eof(struct exchange *ex)
{
    if (ex->state == EXCHANGE_BODY && h1_body_eof(&ex->up->body)) {
        ex->up->keep_alive = false;
        response_end(ex);
    } else {
        exchange_broken(ex, false);
    }
}

/* How the client gets the body, and whether it gets it at all. */
static void choose_body(struct exchange *ex, const struct h1_head *head, uint16_t status)
{
    if (ex->req.is_head || status == 304 || status == 204 || head->framing == H1_NO_BODY) {
        ex->client_body = BODY_NONE;
        ex->body_to_client = false;
    } else if (head->framing == H1_LENGTH) {
        ex->client_body = BODY_LENGTH;
    } else {
        ex->client_body = ex->req.http10 ? BODY_TO_CLOSE : BODY_CHUNKED;
    }
}

static struct field_text value_of(const struct h1_head *head, enum h1_field_id id)
{
    const struct h1_field *f = h1_find(head, id);
    return f ? f->value : (struct field_text){0};
}

/* The backend was asked without the client's conditions: they are met here. */
static uint16_t client_status(const struct exchange *ex, const struct h1_head *head)
{
    int64_t modified;
    if (!ex->fetch || head->status != 200)
        return head->status;
    const struct field_text lm = value_of(head, H1_LAST_MODIFIED);
    const uint64_t modified_ms =
        lm.at && field_date(lm, &modified) == 0 && modified > 0 ? (uint64_t)modified * 1000 : 0;
    return hit_not_modified(&ex->req, value_of(head, H1_ETAG), modified_ms) ? 304 : 200;
}

static void send_head(struct exchange *ex, const struct h1_head *head)
{
    struct client *c = ex->req.client;
    const uint16_t status = client_status(ex, head);
    ex->status = status;
    choose_body(ex, head, status);
    if (!c)
        return;
    if (ex->client_body == BODY_TO_CLOSE || !ex->request_done)
        c->keep_alive = false;
    c->keep_alive = client_may_keep(c);
    const size_t len = response_head(ex, head, status);
    if (!len) { /* 16 KiB of the backend's and what we add do not fit: cannot happen by design */
        ex->body_to_client = false;
        client_break(c);
        return;
    }
    response_count(ex->worker, status);
    client_send_bytes(c, ex->worker->scratch, len);
}

/* 304 to our own conditions: the stored body is good, its head is renewed. */
static void not_modified(struct exchange *ex, const struct h1_head *head)
{
    struct client *c = ex->req.client;
    struct upstream *u = ex->up;
    stats_add(ex->worker->stats, STATS_CACHE_REVALIDATED, 1);
    if (!tee_freshen(ex, head))
        tee_land(ex, INFLIGHT_FAILED);
    ex->up = NULL;
    u->exchange = NULL;
    if (head->keep_alive && !u->deaf && !u->out.len)
        pool_keep(u);
    else
        upstream_close(u);
    if (c) {
        struct request r = ex->req;
        let_go(ex);
        ex->status = ex->stale->view.record->status;
        hit_answer_copy(&r, ex->stale, "fwd=stale; fwd-status=304; stored");
        measure(ex);
    }
    exchange_finish(ex);
}

static bool is_failure(uint16_t status)
{
    return status == 500 || status == 502 || status == 503 || status == 504;
}

/* The answer to a POST is going to be stored: who asks for it, having seen it, waits for that. */
static void claim_for_readers(struct exchange *ex)
{
    struct worker *w = ex->worker;
    struct inflight_ticket ticket;
    if (ex->ticket.word ||
        inflight_claim(w->shared->inflight, &ex->req.key, w->number, w->process->incarnation,
                       w->mono_ms, &ticket) != INFLIGHT_LEAD)
        return;
    ex->ticket = ticket;
    ex->renewed_ms = w->mono_ms;
}

static bool final_head(struct exchange *ex, const struct h1_head *head)
{
    struct upstream *u = ex->up;
    ex->fetch_ns = clock_mono_ns() - ex->sent_ns;
    h1_body_init(&u->body, head->framing, head->length);
    if (head->framing == H1_CHUNKED)
        upstream_keep_trailer(u);
    u->keep_alive = head->keep_alive && head->framing != H1_TO_CLOSE;
    if (ex->conditional && head->status == 304) {
        not_modified(ex, head);
        return false;
    }
    if (is_failure(head->status) && answer_stale(ex)) {
        exchange_finish(ex);
        return false;
    }
    if (!ex->req.head->is_safe)
        invalidate_after(ex, head);
    exchange_move(ex, EXCHANGE_BODY);
    ex->length_unknown = head->framing == H1_CHUNKED || head->framing == H1_TO_CLOSE;
    if (ex->req.cacheable || ex->req.post)
        tee_begin(ex, head);
    if (ex->tee && ex->req.post)
        claim_for_readers(ex);
    if (ex->ticket.word && ex->length_unknown)
        timer_set(ex->worker, &ex->timer, ex->worker->mono_ms + STREAM_MS);
    send_head(ex, head);
    return ex->state == EXCHANGE_BODY;
}

/* One head. Returns the bytes used; 0: not complete, or the exchange is over. */
static size_t receive_head(struct exchange *ex, const char *at, size_t len)
{
    struct worker *w = ex->worker;
    struct upstream *u = ex->up;
    struct h1_head *head = &w->response;
    switch (h1_parse_response(at, len, &u->scanned, ex->req.is_head && !ex->fetch, head)) {
    case H1_MORE:
        return 0;
    case H1_BAD:
        exchange_fail(ex, PROBLEM_BAD_GATEWAY);
        return 0;
    case H1_DONE:
        break;
    }
    const size_t used = head->head_len;
    u->scanned = 0;
    if (head->status == 101) {
        exchange_fail(ex, PROBLEM_BAD_GATEWAY); /* nobody asked for another protocol */
        return 0;
    }
    if (head->status < 200) {
        if (++ex->interims > INTERIMS_MAX) {
            exchange_fail(ex, PROBLEM_BAD_GATEWAY);
            return 0;
        }
        response_interim(ex, head);
        return used;
    }
    return final_head(ex, head) ? used : 0;
}

static void send_body(struct exchange *ex, struct iovec *iov, unsigned n, size_t total)
{
    struct client *c = ex->req.client;
    char head[18];
    ex->body_sent += total;
    if (!c || !ex->body_to_client || !total)
        return;
    if (ex->client_body == BODY_CHUNKED) {
        iov[0] = (struct iovec){head, h1_chunk_head(head, total)};
        iov[n++] = (struct iovec){(void *)"\r\n", 2};
        client_send(c, iov, n); /* NOLINT(clang-analyzer-core.StackAddressEscape) */
    } else {
        client_send(c, iov + 1, n - 1);
    }
}

/* Body bytes; what lies behind the body's end is no part of any answer and spoils the connection.
 */
static void receive_body(struct exchange *ex, const char *at, size_t len)
{
    struct upstream *u = ex->up;
    struct iovec iov[IOV_BODY];
    unsigned n = 1; /* the first is for the head of a chunk */
    size_t total = 0;
    while (len && !u->body.done) {
        size_t used;
        struct field_text content = {0};
        if (h1_body_read(&u->body, at, len, &used, &content) < 0) {
            send_body(ex, iov, n, total);
            exchange_broken(ex, false);
            return;
        }
        at += used;
        len -= used;
        if (!content.len)
            continue;
        tee_body(ex, content.at, content.len);
        iov[n++] = (struct iovec){(void *)content.at, content.len};
        total += content.len;
        if (n == IOV_BODY - 1) {
            send_body(ex, iov, n, total);
            n = 1;
            total = 0;
        }
    }
    send_body(ex, iov, n, total);
    if (u->body.done) {
        if (len)
            u->keep_alive = false;
        response_end(ex);
    } else if (ex->req.client && ex->req.client->out.len > WORKER_HIGH) {
        u->paused = true;
        ev_io_stop(ex->worker->loop, &u->read);
        if (ex->ticket.word && !ex->timer.link)
            timer_set(ex->worker, &ex->timer, ex->worker->mono_ms + STALL_MS);
    } else if (!ex->req.client && !ex->tee) {
        exchange_finish(ex); /* too long to be stored, and nobody else wants it */
    }
}

size_t exchange_receive(struct exchange *ex, const char *at, size_t len)
{
    size_t done = 0;
    renew(ex);
    while (ex->state == EXCHANGE_HEAD && done < len) {
        const size_t used = receive_head(ex, at + done, len - done);
        if (!used)
            return ex->state == EXCHANGE_HEAD ? done : len;
        done += used;
    }
    if (ex->state == EXCHANGE_BODY)
        receive_body(ex, at + done, len - done); /* an empty one ends here too */
    return len;
}

void exchange_resume(struct exchange *ex)
{
    struct upstream *u = ex->up;
    if (!u || !u->paused)
        return;
    u->paused = false;
    upstream_progress(u);
    ev_io_start(ex->worker->loop, &u->read);
}

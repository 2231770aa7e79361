/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fetch: one request on its way to a backend and the response on its way back.
 *
 *   NEW -> CONNECT -> HEAD -> BODY -> DONE       (before: COLLAPSED: another fetches the same;
 *                                                BUFFERING: its body is waited for;
 *                                                WAITING: the backend refuses connections)
 *
 * Until a response head has come, a failure may be repaired (retry.c). Later failures reach the
 * client as what they are: a broken connection, never a shorter response.
 */
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/buffer.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/error_backoff.h"
#include "daemons/worker/fetch/fleet_offer.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/cache/stale.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/uncounted.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/cache_status.h"
#include "polder/clock.h"
#include "polder/leak_guard.h"
#include "polder/fetch_lock.h"
#include "polder/inval.h"
#include "polder/policy.h"
#include "polder/stats.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEASE_LOOK_MS 4000  /* so often while the backend has said nothing yet */
#define ALONE_MS      10000 /* how long a body of unknown length is fetched on without a client */
#define ALONE_LONG_MS 30000
#define CHANGES_MAX   64   /* with clients that have left, and answers still waited for */
#define TRAILER_KEPT  2048 /* of a request; what does not fit is dropped */

static void fetch_timeout(struct timer *t);

/* ---- life ---- */

static void rebase(struct str *t, const char *from, size_t len, const char *to)
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

struct fetch *fetch_new(struct worker *w, const struct request *r)
{
    const struct h1_head *head = r->head;
    const char *from = head->method.at;
    struct fetch *ex = malloc(sizeof *ex);
    const size_t trailer = head->framing == H1_CHUNKED ? TRAILER_KEPT : 0;
    const bool joined = r->if_none_match.at == w->texts->joined_tags; /* not of the head's bytes */
    char *bytes = malloc(trailer + head->head_len + r->target.len + r->url_len + r->partition_len +
                         r->limit_len + (joined ? r->if_none_match.len : 0) + 1);
    if (!ex || !bytes) {
        free(ex);
        free(bytes);
        return NULL;
    }
    memset(ex, 0, offsetof(struct fetch, head));
    ex->worker = w;
    ex->bytes = bytes;
    ex->req = *r;
    h1_copy_head(&ex->head, head);
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
    if (joined)
        ex->req.if_none_match.at = copy(&bytes, r->if_none_match.at, r->if_none_match.len);
    ex->waits_for = FETCH_LOCK_NONE;
    ex->timer.fire = fetch_timeout;
    ex->upstream = r->route ? r->route->upstream : &w->upstreams->ops;
    ex->body_to_client = true;
    if (r->client)
        fetch_take_client(ex, r->client);
    if (r->client && trailer)
        h1_body_keep_trailer(&r->client->body, bytes, trailer);
    return ex;
}

void fetch_drop_body(struct fetch *ex)
{
    struct request_buffer *b = &ex->body;
    if (b->len)
        ex->body_consumed = true;
    ex->worker->fetches->request_bytes -= b->room;
    free(b->bytes);
    *b = (struct request_buffer){0};
}

void fetch_free(struct fetch *ex)
{
    permit_check_gone(&ex->permit);
    stored_copy_free(ex->worker, ex->stale);
    fetch_drop_body(ex);
    free(ex->bytes);
    free(ex);
}

void fetch_end_trial(struct fetch *ex)
{
    struct worker *w = ex->worker;
    if (ex->lease_ms)
        server_untry(w->upstreams->servers[ex->server->index].row, ex->lease_ms, w->mono_ms);
    ex->lease_ms = 0;
}

void fetch_resume(struct fetch *ex)
{
    struct stats_slab *counts = ex->req.probe ? uncounted_begin(ex->worker) : ex->worker->stats;
    ex->resume(ex);
    uncounted_end(ex->worker, counts);
}

void fetch_finish(struct fetch *ex)
{
    struct worker *w = ex->worker;
    struct fetch_watcher *at = ex->watcher;
    if (ex->state == FETCH_DONE)
        return;
    if (ex->queue)
        ex->queue->leave(ex);
    fetch_move(ex, FETCH_DONE);
    fetch_drop_body(ex);
    w->fetches->n_changes -= ex->change;
    timer_stop(&w->wheel, &ex->timer);
    ex->worker->fetches->ops->ended(ex);
    if (ex->store)
        cache_store_abort(ex, FETCH_LOCK_FAILED);
    fleet_offer_end(ex, FETCH_LOCK_FAILED);
    permit_release(ex->worker, &ex->permit, FETCH_LOCK_FAILED); /* remaining waiters may try */
    fetch_end_trial(ex);
    if (ex->up)
        upstream_close(ex->up);
    retry_end(ex);
    fetch_let_go(ex);
    if (at) {
        fetch_unwatch(at);
        at->ops->done(at, ex);
    }
    TAILQ_INSERT_HEAD(&w->fetches->dead, ex, entry);
}

void fetch_drop_client(struct fetch *ex)
{
    fetch_let_go(ex);
    fetch_finish(ex);
}

/* Waiters keep waiting while the backend works, and do not send requests of their own. */
void fetch_watch_lease(struct fetch *ex)
{
    struct worker *w = ex->worker;
    const uint64_t look_ms = w->mono_ms + LEASE_LOOK_MS;
    if (permit_is_held(&ex->permit))
        timer_set(&w->wheel, &ex->timer,
                  ex->alone_ms && ex->alone_ms < look_ms ? ex->alone_ms : look_ms);
}

/* A change that was sent to the backend invalidates what is stored for its route, whether its
 * client gets the answer or not. Other requests may be long work that is not wanted any more. */
static bool is_awaited_change(struct fetch *ex)
{
    struct worker *w = ex->worker;
    if (ex->state != FETCH_HEAD || !ex->request_done || ex->head.is_safe || !ex->req.route ||
        !ex->req.route->cache || w->fetches->n_changes >= CHANGES_MAX)
        return false;
    ex->change = true;
    w->fetches->n_changes++;
    return true;
}

/* Others may wait for what this one fetches, and it may soon be stored. */
static bool is_wanted_without_client(struct fetch *ex)
{
    return cache_store_outlives_client(ex) || (ex->for_store && permit_is_held(&ex->permit)) ||
           permit_is_awaited(ex->worker, &ex->permit) || is_awaited_change(ex);
}

void fetch_client_left(struct fetch *ex)
{
    struct worker *w = ex->worker;
    fetch_let_go(ex);
    const bool wanted = is_wanted_without_client(ex);
    if (!wanted || ex->queue) {
        fetch_finish(ex);
        return;
    }
    ex->alone_ms = w->mono_ms + (ex->length_unknown ? ALONE_MS : ALONE_LONG_MS);
    timer_set(&w->wheel, &ex->timer, ex->alone_ms);
    if (ex->state != FETCH_BODY)
        fetch_watch_lease(ex);
    if (ex->up && ex->up->paused) {
        ex->up->paused = false;
        transport_start(&ex->up->transport, TRANSPORT_READ);
    }
}

static void fetch_timeout(struct timer *t)
{
    struct fetch *ex = TIMER_OWNER(t, struct fetch, timer);
    struct worker *w = ex->worker;
    if (ex->queue) {
        ex->queue->timeout(ex);
        return;
    }
    if (ex->alone_ms && w->mono_ms >= ex->alone_ms) {
        if (!permit_is_awaited(w, &ex->permit)) {
            fetch_finish(ex);
            return;
        }
        ex->alone_ms = w->mono_ms + ALONE_MS; /* the backend's own time bounds it */
    }
    if (ex->state != FETCH_BODY && permit_is_held(&ex->permit)) {
        permit_renew(w, &ex->permit);
        fetch_watch_lease(ex);
        return;
    }
    if (ex->alone_ms)
        timer_set(&w->wheel, &ex->timer, ex->alone_ms);
    if (ex->length_unknown) /* a stream: each client gets its own */
        fleet_offer_release(ex, FETCH_LOCK_NOSHARE);
    else if (!ex->alone_ms)
        permit_release(ex->worker, &ex->permit, FETCH_LOCK_FAILED);
}

void fetch_measure(struct fetch *ex)
{
    struct worker *w = ex->worker;
    if (!ex->req.started_ns)
        return;
    stats_observe(w->stats, ex->req.cacheable ? STATS_LATENCY_MISS : STATS_LATENCY_PASS,
                  route_stats(w, ex->req.route), clock_mono_ns() - ex->req.started_ns);
}

/* For the line of the request: the server, and how long it took to answer or to fail. */
void fetch_note_server(const struct fetch *ex)
{
    struct client *c = ex->req.client;
    if (!c)
        return;
    c->note.server = ex->server;
    c->note.upstream_ns = ex->fetch_ns  ? ex->fetch_ns
                          : ex->sent_ns ? clock_mono_ns() - ex->sent_ns
                                        : 0;
}

/* ---- its line in the access log ---- */

static void note_outcome(const struct fetch *ex)
{
    struct access_note *n = &ex->req.client->note;
    n->cache = ex->fwd == FWD_NONE                          ? NULL
               : ex->req.cacheable && ex->fwd != FWD_BYPASS ? "miss"
                                                            : "bypass";
    n->server = ex->server;
    n->fwd = ex->fwd == FWD_NONE ? NULL : cache_status_fwd((enum fwd_reason)ex->fwd);
    n->detail = ex->not_stored;
}

static void fetch_log(const struct fetch *ex)
{
    note_outcome(ex);
    access_answered(ex->req.client, &ex->req, ex->status, ex->body_sent);
}

void fetch_log_lost(const struct fetch *ex)
{
    note_outcome(ex);
    access_lost(ex->req.client, &ex->req, ex->status, ex->body_sent);
}

void fetch_client_done(struct fetch *ex)
{
    struct client *c = ex->req.client;
    if (!c)
        return;
    fetch_measure(ex);
    fetch_log(ex);
    if (!ex->request_done)
        c->keep_alive = false; /* answered early: the rest of the body leads nowhere */
    fetch_let_go(ex);
    client_answered(c);
}

/* ---- answers without the backend's ---- */

bool fetch_has_stale(const struct fetch *ex)
{
    return ex->stale && stale_may_give(&ex->req, ex->stale);
}

/* The stored response, although it is stale: detail says why. False: there is none to give. */
bool fetch_answer_stale(struct fetch *ex)
{
    struct client *c = ex->req.client;
    if (!fetch_has_stale(ex))
        return false;
    error_backoff_note(ex);
    route_stats_lookup(ex->worker, ex->req.route, STATS_LOOKUP_STALE);
    if (c) {
        struct request r = ex->req;
        fetch_let_go(ex);
        char status[64] = "fwd=stale; detail=stale-if-error";
        ex->status = ex->stale->view.record->status;
        if (ex->answered)
            snprintf(status, sizeof status, "fwd=stale; fwd-status=%u; detail=stale-if-error",
                     ex->answered);
        deliver_copy(&r, ex->stale, status);
    }
    return true;
}

void fetch_fail(struct fetch *ex, enum problem problem)
{
    struct worker *w = ex->worker;
    struct client *c = ex->req.client;
    stats_add(w->stats, STATS_UPSTREAM_ERRORS, 1);
    ex->failed = true;
    ex->last_problem = (uint8_t)problem;
    ex->worker->fetches->ops->failed(ex);
    if (!ex->answered)
        fetch_note_server(ex);
    if (!fetch_answer_stale(ex) && c) {
        c->note.cache = ex->req.cacheable ? "miss" : NULL;
        const char *extra = problem == PROBLEM_UNAVAILABLE ? "Retry-After: 1\r\n" : "";
        fetch_let_go(ex);
        response_problem(&ex->req, c, problem, extra, "", ex->request_done || ex->body.whole);
    }
    fetch_finish(ex);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * retry: which server an exchange asks, and which one after a failure.
 *
 * A server that takes no connection has been sent nothing: the next one is asked, whatever the
 * request. One that was sent the request and fails before a response head is there is followed by
 * one other server, if the request is idempotent and what has gone out of its body is kept. A kept
 * connection that is closed at that moment says nothing of its server: a fresh one is made, to
 * another server if there is one. All together takes at most twice the upstream's timeout. Where no
 * server is left and one of them took no connection, or closed it without an answer, the request
 * may wait (retry_queue.c).
 *
 * Of the requests under way over all workers a share at most is being sent a second time
 * (retry_budget), so servers that fail do not get twice the load; further ones wait for that
 * (room_queue.c). What was sent nowhere, or over a kept connection that had just been closed, is no
 * second try.
 *
 * What is known to be down is asked only where nothing stale may be given instead.
 */
#include "daemons/worker/message/access.h"
#include "daemons/worker/message/affinity.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/message/hints.h"
#include "daemons/worker/worker.h"
#include "polder/server_state.h"
#include "polder/stats.h"

#include <stdio.h>

#define SERVERS_MAX 2 /* servers that one request is sent to */

static uint64_t total_ms(const struct fetch *ex)
{
    return (uint64_t)2 * ex->upstream->timeout_ms;
}

static bool is_over(const struct fetch *ex)
{
    return ex->until_ms && ex->worker->mono_ms >= ex->until_ms;
}

/* From the first failure on, what is left of the whole time bounds each try. */
static void bound(struct fetch *ex)
{
    const uint64_t until_ms = ex->begun_ms + total_ms(ex);
    if (!ex->until_ms || until_ms < ex->until_ms)
        ex->until_ms = until_ms;
}

static bool is_repeatable(const struct fetch *ex)
{
    return request_body_is_at_hand(ex) && (ex->for_store || ex->req.head->is_idempotent);
}

/* Whether what a kept connection brings unasked, or its end, would do more harm than one more try.
 */
static bool needs_quiet(const struct fetch *ex)
{
    return !is_repeatable(ex) || ex->for_store || ex->req.cacheable || ex->req.post;
}

/* A line of the log names one of the requests that it is about. */
static void report(const struct fetch *ex, enum server_reason reason, const char *what)
{
    char text[256], space[REQUEST_ID_LEN];
    const struct str id = request_id_of(&ex->req, space);
    snprintf(text, sizeof text, "%s (request %.*s)", what, (int)id.len, id.at);
    pool_failed(ex->worker, ex->server, reason, text, ex->lease_ms);
}

/* What answers, however badly, is not restarting. */
static bool has_answered(enum server_reason reason)
{
    return reason == SERVER_MALFORMED || reason == SERVER_TOO_LARGE;
}

/* ex->server is out of it. */
static void server_failed(struct fetch *ex, const struct upstream_error *e, bool timeout)
{
    if (e->reason != SERVER_NONE) {
        report(ex, e->reason, e->what);
        ex->lease_ms = 0;
    }
    fetch_end_trial(ex);
    ex->tried |= pool_bit(ex->upstream, ex->server);
    ex->may_return |= !has_answered(e->reason);
    ex->last_problem = timeout ? PROBLEM_GATEWAY_TIMEOUT : PROBLEM_BAD_GATEWAY;
    bound(ex);
}

static void attach(struct fetch *ex, struct upstream *u)
{
    ex->up = u;
    upstream_attach(u, ex->worker->fetches->upstream_ops, ex, ex->until_ms);
    u->uncounted = ex->req.probe;
    fetch_watch_lease(ex);
}

/* To ex->server, at each of its addresses that has not been tried. False: none takes one. */
static bool begin_connection(struct fetch *ex, struct upstream_error *e)
{
    struct worker *w = ex->worker;
    for (;;) {
        struct upstream *u = upstream_connect(w, ex->server, e);
        if (u) {
            attach(ex, u);
            return true;
        }
        if (e->reason == SERVER_NONE)
            return false;
        upstream_next_address(w, ex->server);
        if (++ex->addresses >= upstream_addresses(w, ex->server))
            return false;
    }
}

/* After WAITING. */
static void retry_again(struct fetch *ex);

static void no_server(struct fetch *ex)
{
    const bool waits = ex->may_return && ex->last_problem == PROBLEM_BAD_GATEWAY && !is_over(ex);
    if (!waits || fetch_has_stale(ex) || !retry_queue_enter(ex, retry_again))
        fetch_fail(ex, ex->tried ? ex->last_problem : PROBLEM_UNAVAILABLE);
}

/* It counts as under way at its server no more. */
static void leave_server(struct fetch *ex)
{
    if (!ex->entered)
        return;
    pool_leave(ex->worker, ex->entered);
    ex->entered = NULL;
    room_queue_wake(ex->worker, ex->upstream);
}

/* Asks the server. False: it takes no connection. */
static bool ask_server(struct fetch *ex, const struct pool_choice *choice)
{
    struct worker *w = ex->worker;
    struct upstream_error e;
    ex->server = ex->entered = choice->server;
    ex->lease_ms = choice->lease_ms;
    ex->anyway = choice->is_down;
    ex->addresses = 0;
    struct upstream *u =
        ex->fresh ? NULL : pool_take(w, choice->server, needs_quiet(ex), is_repeatable(ex));
    if (u) {
        attach(ex, u);
        u->ops->connected(ex);
        return true;
    }
    if (begin_connection(ex, &e))
        return true;
    leave_server(ex);
    server_failed(ex, &e, false);
    ex->no_further |= e.reason == SERVER_NONE || !pool_bit(ex->upstream, choice->server);
    return false;
}

static enum pool_result choose(struct fetch *ex, struct pool_choice *choice)
{
    const struct pool_request wanted = {ex->upstream, ex->tried, ex->avoid, is_repeatable(ex),
                                        &ex->sticky};
    return pool_choose(ex->worker, &wanted, choice);
}

/* A request without a client would keep others from the queue, and what is stale is there. */
static bool may_queue(const struct fetch *ex)
{
    return ex->req.client && !fetch_has_stale(ex);
}

static bool go_on(struct fetch *ex);

static void no_room(struct fetch *ex)
{
    stats_add(ex->worker->stats, STATS_UPSTREAM_QUEUE_TIMEOUTS, 1);
    fetch_fail(ex, PROBLEM_UNAVAILABLE);
}

static void wait_for_room(struct fetch *ex)
{
    static const struct room_wait wait = {go_on, no_room, false};
    if (may_queue(ex) && room_queue_enter(ex, &wait))
        return;
    stats_add(ex->worker->stats, STATS_UPSTREAM_QUEUE_REFUSED, 1);
    fetch_fail(ex, PROBLEM_UNAVAILABLE);
}

/* The server that it has got, or the next ones. */
static void ask_from(struct fetch *ex, enum pool_result found, struct pool_choice *choice)
{
    for (; found == POOL_CHOSEN; found = choose(ex, choice)) {
        if (choice->is_down && fetch_has_stale(ex)) {
            pool_leave(ex->worker, choice->server);
            fetch_fail(ex, PROBLEM_BAD_GATEWAY);
            return;
        }
        if (ask_server(ex, choice))
            return;
        if (ex->no_further || is_over(ex)) {
            found = POOL_NONE;
            break;
        }
    }
    if (found == POOL_FULL)
        wait_for_room(ex);
    else
        no_server(ex);
}

/* Out of the room queue, if there is room. */
static bool go_on(struct fetch *ex)
{
    struct pool_choice choice;
    const enum pool_result found = choose(ex, &choice);
    if (found == POOL_FULL)
        return false;
    room_queue_leave(ex);
    permit_renew(ex->worker, &ex->permit);
    fetch_move(ex, FETCH_CONNECT);
    ex->begun_ms = ex->worker->mono_ms; /* it has not waited yet */
    ask_from(ex, found, &choice);
    return true;
}

static void ask_next(struct fetch *ex)
{
    struct pool_choice choice;
    leave_server(ex);
    ex->no_further = false;
    if (ex->req.client)
        client_want_body(ex->req.client, false); /* until there is a connection for it */
    if (is_over(ex))
        no_server(ex);
    else if (pool_is_bounded(ex->upstream) && room_queue_is_before(ex))
        wait_for_room(ex);
    else
        ask_from(ex, choose(ex, &choice), &choice);
}

void retry_begin(struct fetch *ex)
{
    ex->begun_ms = ex->worker->mono_ms;
    ex->last_problem = PROBLEM_BAD_GATEWAY;
    if (!ex->under_way) {
        server_load_begin(pool_loads(ex->worker, ex->upstream));
        affinity_of(&ex->req, ex->upstream, &ex->sticky);
    }
    ex->under_way = true;
    ask_next(ex);
}

void retry_end(struct fetch *ex)
{
    if (!ex->under_way)
        return;
    const struct server_loads *l = pool_loads(ex->worker, ex->upstream);
    leave_server(ex);
    server_load_end(l);
    if (ex->retrying) {
        server_load_retried(l);
        room_queue_wake(ex->worker, ex->upstream);
    }
    ex->under_way = ex->retrying = false;
}

static void retry_again(struct fetch *ex)
{
    retry_queue_leave(ex);
    permit_renew(ex->worker, &ex->permit);
    fetch_move(ex, FETCH_CONNECT);
    ex->begun_ms = ex->worker->mono_ms; /* it has not waited yet */
    ex->until_ms = ex->tried = 0;
    ex->may_return = false;
    ask_next(ex);
}

void retry_answered(struct fetch *ex, unsigned status)
{
    const bool trial = ex->lease_ms || ex->anyway;
    ex->lease_ms = 0;
    pool_answered(ex->worker, ex->server, status, trial);
}

/* ---- second tries ---- */

static bool take_retry(struct fetch *ex)
{
    if (!ex->retrying)
        ex->retrying =
            server_load_retry(pool_loads(ex->worker, ex->upstream), ex->upstream->retry_budget);
    return ex->retrying;
}

/* Out of the room queue, if it may be tried again now. */
static bool go_again(struct fetch *ex)
{
    if (!take_retry(ex))
        return false;
    room_queue_leave(ex);
    permit_renew(ex->worker, &ex->permit);
    fetch_move(ex, FETCH_CONNECT);
    stats_add(ex->worker->stats, STATS_UPSTREAM_RETRIES, 1);
    ask_next(ex);
    return true;
}

static void no_retry(struct fetch *ex)
{
    stats_add(ex->worker->stats, STATS_UPSTREAM_RETRIES_REFUSED, 1);
    fetch_fail(ex, ex->last_problem);
}

/* It was sent to a server: now it is sent to another one, as long as few others are. */
static void try_again(struct fetch *ex)
{
    static const struct room_wait wait = {go_again, no_retry, true};
    fetch_move(ex, FETCH_CONNECT);
    leave_server(ex);
    if (take_retry(ex)) {
        stats_add(ex->worker->stats, STATS_UPSTREAM_RETRIES, 1);
        ask_next(ex);
    } else if (!may_queue(ex) || !room_queue_enter(ex, &wait)) {
        no_retry(ex);
    }
}

void retry_unconnected(struct fetch *ex, const struct upstream_error *e)
{
    struct worker *w = ex->worker;
    struct upstream_error last = *e;
    upstream_close(ex->up);
    bound(ex);
    if (e->reason != SERVER_NONE) {
        upstream_next_address(w, ex->server);
        if (++ex->addresses < upstream_addresses(w, ex->server) && !is_over(ex) &&
            begin_connection(ex, &last))
            return;
    }
    server_failed(ex, &last, last.reason == SERVER_CONNECT_TIMEOUT || is_over(ex));
    stats_add(w->stats, STATS_UPSTREAM_RETRIES, 1);
    ask_next(ex);
}

static void body_broken(struct fetch *ex, const struct upstream_error *e, bool timeout)
{
    struct client *c = ex->req.client;
    report(ex, SERVER_CUT, e->what);
    if (c) {
        c->note.cut = timeout ? "upstream-timeout" : "upstream-closed";
        fetch_log_lost(ex);
        fetch_let_go(ex);
        client_break(c);
    }
    fetch_finish(ex);
}

void retry_broken(struct fetch *ex, const struct upstream_error *e, bool timeout)
{
    struct worker *w = ex->worker;
    struct upstream *u = ex->up;
    if (timeout && u->event_stream)
        hints_stream_cut(&ex->req, ex->upstream);
    if (ex->state == FETCH_BODY) {
        body_broken(ex, e, timeout);
        return;
    }
    const bool may = is_repeatable(ex) && !ex->interims;
    const bool aged_now = may && u->reused && e->reason == SERVER_CLOSED && !u->got_bytes;
    if (aged_now) {
        ex->avoid |= pool_bit(ex->upstream, ex->server);
        ex->fresh = true;
        fetch_end_trial(ex);
    } else {
        server_failed(ex, e, timeout);
        if (timeout)
            upstream_next_address(w, ex->server);
        if (!may || ++ex->failed_attempts >= SERVERS_MAX || is_over(ex)) {
            fetch_fail(ex, ex->last_problem);
            return;
        }
    }
    upstream_close(u);
    if (!aged_now) {
        try_again(ex);
        return;
    }
    stats_add(w->stats, STATS_UPSTREAM_RETRIES, 1);
    fetch_move(ex, FETCH_CONNECT);
    ask_next(ex);
}

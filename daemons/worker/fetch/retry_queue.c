/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * retry_queue: a backend that refuses connections may be restarting. Idempotent requests with a
 * completely buffered body wait for it, instead of 502, within the time and number set by their
 * upstream. One of them tries each tenth of a second; when it has a connection, the others follow,
 * some at a time.
 *
 * A waiting request has nothing but its fetch: no connection, no buffer. Fetches without a client
 * do not wait, nor requests for which a stale response may be served.
 */
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"
#include "polder/stats.h"

#define TRY_S   0.1
#define WAKE    64 /* at once */
#define TRY_MAX 16 /* upstreams tried in one tick */

/* Where the upstream's counts are. */
static struct server_local *account(struct worker *w, const struct config_upstream *upstream)
{
    return &w->upstreams->servers[upstream->servers[0].index];
}

static uint64_t bytes_of(const struct fetch *ex)
{
    return sizeof *ex + ex->body.room + ex->head.head_len + ex->req.target.len + ex->req.url_len;
}

static void retry_queue_timeout(struct fetch *ex)
{
    fetch_fail(ex, ex->last_problem);
}

bool retry_queue_enter(struct fetch *ex, void (*resume)(struct fetch *ex))
{
    static const struct fetch_queue queue = {retry_queue_leave, retry_queue_timeout};
    struct worker *w = ex->worker;
    const struct config_upstream *u = ex->upstream;
    const struct client *c = ex->req.client;
    struct server_local *a = account(w, u);
    const bool first = ex->wait_until_ms == 0;
    if (!u->park_ms || !c || c->body_pending || !request_body_is_at_hand(ex) ||
        !ex->head.is_idempotent)
        return false;
    if (first)
        ex->wait_until_ms = w->mono_ms + u->park_ms;
    if (w->mono_ms >= ex->wait_until_ms || a->waiting >= u->park_requests ||
        a->retry_queue_bytes + bytes_of(ex) > u->park_bytes)
        return false;
    if (first)
        stats_add(w->stats, STATS_UPSTREAM_WAITS, 1);
    fetch_move(ex, FETCH_WAITING);
    ex->queue = &queue;
    ex->resume = resume;
    a->waiting++;
    a->retry_queue_bytes += bytes_of(ex);
    TAILQ_INSERT_TAIL(&w->fetches->retry_queue, ex, entry);
    timer_set(&w->wheel, &ex->timer, ex->wait_until_ms);
    if (!ev_is_active(&w->fetches->retry_queue_timer)) {
        ev_timer_set(&w->fetches->retry_queue_timer, TRY_S, TRY_S);
        ev_timer_start(w->loop, &w->fetches->retry_queue_timer);
    }
    return true;
}

void retry_queue_leave(struct fetch *ex)
{
    struct worker *w = ex->worker;
    struct server_local *a = account(w, ex->upstream);
    a->waiting--;
    a->retry_queue_bytes -= bytes_of(ex);
    TAILQ_REMOVE(&w->fetches->retry_queue, ex, entry);
    ex->queue = NULL;
    timer_stop(&w->wheel, &ex->timer);
}

void retry_queue_wake(struct worker *w, const struct config_upstream *upstream)
{
    struct fetch *list[WAKE];
    unsigned n = 0;
    struct fetch *ex;
    TAILQ_FOREACH (ex, &w->fetches->retry_queue, entry) {
        if (n == WAKE)
            break;
        if (ex->upstream == upstream)
            list[n++] = ex;
    }
    for (unsigned i = 0; i < n; i++)
        if (list[i]->state == FETCH_WAITING)
            fetch_resume(list[i]);
}

/* The oldest of each upstream tries. */
static void on_try(EV_P_ ev_timer *watcher, int events)
{
    struct worker *w = watcher->data;
    struct fetch *list[TRY_MAX];
    unsigned n = 0;
    (void)events;
    struct fetch *ex;
    TAILQ_FOREACH (ex, &w->fetches->retry_queue, entry) {
        unsigned i = 0;
        if (n == TRY_MAX)
            break;
        while (i < n && list[i]->upstream != ex->upstream)
            i++;
        if (i == n)
            list[n++] = ex;
    }
    for (unsigned i = 0; i < n; i++)
        if (list[i]->state == FETCH_WAITING)
            fetch_resume(list[i]);
    if (TAILQ_EMPTY(&w->fetches->retry_queue))
        ev_timer_stop(EV_A_ watcher);
}

void retry_queue_init(struct worker *w)
{
    ev_timer_init(&w->fetches->retry_queue_timer, on_try, 0., 0.);
    w->fetches->retry_queue_timer.data = w;
}

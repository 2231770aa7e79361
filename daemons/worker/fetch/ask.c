/* SPDX-License-Identifier: BSD-2-Clause */
/* ask: the request of a fetch goes out: to a server (retry.c), over the connection that it gets. */
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/message/tenants.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/clock.h"
#include "polder/fleet.h"
#include "polder/inval.h"
#include "polder/stats.h"

static void ask(struct fetch *ex)
{
    fetch_move(ex, FETCH_CONNECT);
    ex->worker->fetches->ops->begun(ex);
    retry_begin(ex);
}

void fetch_start(struct fetch *ex)
{
    ex->resume = ask;
    if (!request_body_waits(ex))
        ask(ex);
}

void fetch_send(struct fetch *ex)
{
    struct worker *w = ex->worker;
    struct upstream *u = ex->up;
    const size_t len = response_request_head(
        w, &(struct response_request){.request = &ex->req,
                                      .conditions = ex->conditional ? ex->stale : NULL,
                                      .for_store = ex->for_store});
    fetch_move(ex, FETCH_HEAD);
    if (!len) {
        fetch_fail(ex, PROBLEM_HEAD_TOO_LARGE);
        return;
    }
    ex->fetch_seq = inval_seq(w->shared->inval);
    ex->fleet_epoch = atomic_load(&w->shared->fleet->epoch); /* before what counts in it */
    ex->fleet_applied = atomic_load(&w->shared->fleet->applied);
    ex->sent_real_ms = w->real_ms;
    ex->sent_ns = clock_mono_ns();
    u->chunk_request = !ex->for_store && ex->req.head->framing == H1_CHUNKED;
    u->keep_alive = u->event_stream = false;
    u->scanned = 0;
    if (ex->upstream !=
        &w->upstreams->ops) { /* telemetry is answered by control: no backend's work */
        stats_add(w->stats, STATS_UPSTREAM_REQUESTS, 1);
        stats_add(w->stats, STATS_UPSTREAM_REUSES, u->reused);
        stats_bump(&route_stats(w, ex->req.route)->calls, 1);
        tenants_count(&ex->req, TENANTS_CALLS);
        stats_bump(&route_stats(w, ex->req.route)->background, !ex->req.client);
    }
    stats_bump(&server_stats(w, u->server)->requests, 1);
    stats_bump(&server_stats(w, u->server)->reuses, u->reused);
    upstream_progress(u);
    transport_start(&u->transport, TRANSPORT_READ);
    request_body_send(ex, w->texts->scratch, len);
    if (ex->wait_until_ms)
        retry_queue_wake(w, ex->upstream); /* it is there again */
}

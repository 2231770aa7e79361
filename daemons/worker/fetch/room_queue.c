/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * room_queue: requests that wait until a server of their upstream has room (max_connections), or
 * until fewer requests are being tried a second time (retry_budget).
 *
 * How many wait is counted over all workers, and bounded by the upstream's queue. The oldest goes
 * first, of whichever worker it is: each worker publishes since when its oldest waits for room, and
 * who leaves a server wakes the worker of the oldest. One that does not find room holds up those
 * behind it only of its own upstream. A worker looks by itself each tenth of a
 * second, then without regard to others: one of them may have died.
 *
 * A waiting request has nothing but its fetch: no connection, no buffer. Requests without a client
 * do not wait, nor those for which a stale response may be served.
 */
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"
#include "polder/stats.h"

#include <unistd.h>

#define LOOK_S  0.1
#define RUN_MAX 64 /* at once */

/* ---- the list ---- */

static void publish_oldest(struct worker *w, const struct config_upstream *upstream)
{
    const struct fetch *ex;
    uint64_t since_ms = 0;
    TAILQ_FOREACH (ex, &w->fetches->room_queue, entry)
        if (ex->upstream == upstream && !ex->room->is_retry) {
            since_ms = ex->room_since_ms;
            break;
        }
    server_load_waits_since(pool_loads(w, upstream), since_ms);
}

void room_queue_leave(struct fetch *ex)
{
    struct worker *w = ex->worker;
    TAILQ_REMOVE(&w->fetches->room_queue, ex, entry);
    ex->queue = NULL;
    server_load_waited(pool_loads(w, ex->upstream));
    timer_stop(&w->wheel, &ex->timer);
    publish_oldest(w, ex->upstream);
}

static void room_queue_timeout(struct fetch *ex)
{
    ex->room->timeout(ex);
}

bool room_queue_enter(struct fetch *ex, const struct room_wait *wait)
{
    static const struct fetch_queue queue = {room_queue_leave, room_queue_timeout};
    struct worker *w = ex->worker;
    if (!server_load_wait(pool_loads(w, ex->upstream), ex->upstream->queue))
        return false;
    fetch_move(ex, FETCH_WAITING);
    ex->queue = &queue;
    ex->room = wait;
    ex->room_since_ms = w->mono_ms ? w->mono_ms : 1;
    TAILQ_INSERT_TAIL(&w->fetches->room_queue, ex, entry);
    timer_set(&w->wheel, &ex->timer, w->mono_ms + ex->upstream->queue_timeout_ms);
    stats_add(w->stats, STATS_UPSTREAM_QUEUED, 1);
    publish_oldest(w, ex->upstream);
    if (!ev_is_active(&w->fetches->room_queue_timer)) {
        ev_timer_set(&w->fetches->room_queue_timer, LOOK_S, LOOK_S);
        ev_timer_start(w->loop, &w->fetches->room_queue_timer);
    }
    /* room may have come before it was seen to wait */
    ev_feed_event(w->loop, &w->fetches->room_queue_timer, EV_CUSTOM);
    return true;
}

bool room_queue_is_before(const struct fetch *ex)
{
    uint32_t slot;
    return server_load_oldest(pool_loads(ex->worker, ex->upstream), &slot) != 0;
}

/* ---- turns ---- */

/* No further one for the same upstream has to try in this turn. */
static uint64_t *blocked_in(const struct fetch *ex)
{
    const struct config_upstream *u = ex->upstream;
    return &ex->worker->upstreams->servers[u->servers[0].index].room_blocked[ex->room->is_retry];
}

/* It has found no room. True: that says nothing of others, for there may be room at servers that it
 * has tried. */
static bool block(struct fetch *ex, uint64_t turn)
{
    const bool alone = ex->tried && !ex->room->is_retry;
    *(alone ? &ex->room_blocked : blocked_in(ex)) = turn;
    return alone;
}

/* The oldest that has to try. */
static struct fetch *next_to_try(const struct worker *w, uint64_t turn)
{
    struct fetch *ex;
    TAILQ_FOREACH (ex, &w->fetches->room_queue, entry)
        if (ex->room_blocked != turn && *blocked_in(ex) != turn)
            break;
    return ex;
}

/* Nobody waits longer. */
static bool is_next(const struct fetch *ex)
{
    uint32_t slot;
    const struct server_loads *l = pool_loads(ex->worker, ex->upstream);
    const uint64_t oldest = server_load_oldest(l, &slot);
    return ex->room->is_retry || slot == l->slot || oldest >= ex->room_since_ms;
}

static void run(struct worker *w, bool anyway)
{
    const uint64_t turn = ++w->fetches->room_turn;
    struct fetch *ex;
    unsigned n = 0;
    TAILQ_FOREACH (ex, &w->fetches->room_queue, entry)
        permit_renew(w, &ex->permit);
    while (n < RUN_MAX && (ex = next_to_try(w, turn))) {
        if (anyway || is_next(ex))
            n += ex->room->go(ex) || block(ex, turn);
        else
            *blocked_in(ex) = turn;
    }
}

static void on_look(EV_P_ ev_timer *watcher, int events)
{
    struct worker *w = watcher->data;
    run(w, !(events & EV_CUSTOM));
    if (TAILQ_EMPTY(&w->fetches->room_queue))
        ev_timer_stop(EV_A_ watcher);
}

void room_queue_run(struct worker *w)
{
    if (!TAILQ_EMPTY(&w->fetches->room_queue))
        run(w, false);
}

void room_queue_wake(struct worker *w, const struct config_upstream *upstream)
{
    const struct server_loads *l = pool_loads(w, upstream);
    uint32_t slot = l->slot;
    if (pool_is_bounded(upstream) && server_load_oldest(l, &slot) && slot != l->slot) {
        const ssize_t n = write(w->shared->worker_event[slot], &(uint64_t){1}, sizeof(uint64_t));
        (void)n; /* it looks by itself soon */
    }
    if (!TAILQ_EMPTY(&w->fetches->room_queue))
        ev_feed_event(w->loop, &w->fetches->room_queue_timer, EV_CUSTOM);
}

void room_queue_init(struct worker *w)
{
    ev_timer_init(&w->fetches->room_queue_timer, on_look, LOOK_S, LOOK_S);
    w->fetches->room_queue_timer.data = w;
}

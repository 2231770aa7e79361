/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * loop: what happens around each iteration of the event loop.
 *
 * check (after the kernel has told what is ready, before any callback): the time, the heartbeat,
 * the running values. prepare (before sleeping): connections that wait for a second look, what was
 * closed is freed, log lines and gauges go out. Nothing else in a worker asks for the time.
 */
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/background/budget.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/client/cut.h"
#include "daemons/worker/client/stop.h"
#include "daemons/worker/client_events.h"
#include "daemons/worker/fetch/compress.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/leak_guard/leak_guard.h"
#include "daemons/worker/keeper_link.h"
#include "daemons/worker/supervisor_link.h"
#include "daemons/worker/request/long_poll.h"
#include "daemons/worker/route_settings.h"
#include "daemons/worker/request/repeat.h"
#include "daemons/worker/fetch/fleet_share.h"
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/request/limits_slots.h"
#include "daemons/worker/request/limits_wait.h"
#include "daemons/worker/message/messages.h"
#include "daemons/worker/message/route_state.h"
#include "polder/cache.h"
#include "polder/clock.h"
#include "polder/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define IDLE_DRAIN_MS 1000
#define TIMERS_A_TICK 1000

struct loop_watchers {
    ev_prepare prepare;
    ev_check check;
    ev_timer heartbeat_timer;
    ev_io event;
    ev_signal term;
    ev_timer drain_timer;
};

/* ---- the time ---- */

static void loop_time(struct worker *w)
{
    w->mono_ms = clock_mono_ms();
    w->real_ms = clock_real_ms();
    recent_note_follow(w);
    const int64_t s = (int64_t)(w->real_ms / 1000);
    if (s != w->date.s) {
        char text[FIELD_DATE_LEN + 1];
        field_date_format(s, text);
        w->date.len = (uint32_t)snprintf(w->date.line, sizeof w->date.line, "Date: %s\r\n", text);
        w->date.s = s;
    }
}

/* ---- draining ---- */

/* A turn then; those each second may be too late. */
static void loop_turn_at(struct worker *w, uint64_t due_ms)
{
    ev_timer *t = &w->watchers->drain_timer;
    const uint64_t left_ms = due_ms > w->mono_ms ? due_ms - w->mono_ms : 0;
    if (left_ms >= 1000)
        return;
    ev_timer_stop(w->loop, t); /* it may have been set for later */
    ev_timer_set(t, (double)left_ms / 1000, 0.);
    ev_timer_start(w->loop, t);
}

static void loop_drain(struct worker *w)
{
    const uint64_t leave_by_ms = atomic_load(&w->slot->leave_by_ms);
    /* 0: the signal is not the master's */
    w->drain_until_ms = leave_by_ms ? leave_by_ms : w->mono_ms + PROCESS_DRAIN_MS;
    if (w->draining) {
        long_poll_leave(w); /* there may be less time now */
        return;
    }
    w->draining = true;
    w->generation++; /* repeats know nothing of Connection: close */
    if (!w->clients->stop_began_ms)
        accept_stop(w, true);
    warm_rpc_close(w);
    long_poll_leave(w);
    struct client *c;
    LIST_FOREACH (c, &w->clients->all, entry)
        if (c->state == CLIENT_IDLE)
            timer_set(&w->wheel, &c->timer, w->mono_ms + IDLE_DRAIN_MS);
}

/* The whole service stops: it is served on until the master says, by a second signal, that all
 * workers let go now. Where systemd holds the sockets, the successor finds in them what has come. */
static void loop_stop(struct worker *w, uint32_t stage)
{
    if (!w->clients->stop_began_ms)
        stop_begin(w);
    loop_drain(w);
    if (stage < PROC_DRAINING_ENDS || w->clients->letting_go)
        return;
    stop_let_go(w);
    accept_stop(w, !w->shared->proc->sockets_from_systemd);
}

/* True: it goes on serving. */
static bool stop_check(struct worker *w)
{
    if (!w->clients->stop_began_ms)
        return false;
    stop_look(w);
    if (w->clients->letting_go || atomic_load(&w->slot->accepts_no_more))
        return false;
    loop_turn_at(w, w->mono_ms + STOP_LOOK_MS);
    return true;
}

static void drain_check(struct worker *w)
{
    if (!w->draining || stop_check(w))
        return;
    if (!w->clients->cut && w->mono_ms >= w->drain_until_ms)
        cut_begin(w);
    if (LIST_EMPTY(&w->clients->all) || (w->clients->cut && cut_is_over(w)))
        ev_break(w->loop, EVBREAK_ALL);
    else
        loop_turn_at(w, w->clients->cut             ? w->mono_ms + CUT_LOOK_MS
                        : w->clients->stop_began_ms ? w->mono_ms + STOP_LOOK_MS
                                                    : w->drain_until_ms);
}

/* Draining begins or ends. Every client is answered, and then its connection is closed: a load
 * balancer that checks readyz opens no new one. */
static void drained_follow(struct worker *w)
{
    const bool drained = atomic_load_explicit(&w->shared->proc->drained, memory_order_relaxed);
    if (drained == w->drained)
        return;
    w->drained = drained;
    w->generation++; /* repeats know nothing of Connection: close */
    struct client *c;
    LIST_FOREACH (c, &w->clients->all, entry)
        if (drained && c->state == CLIENT_IDLE)
            timer_set(&w->wheel, &c->timer, w->mono_ms + IDLE_DRAIN_MS);
}

/* ---- callbacks ---- */

static void on_check(EV_P_ ev_check *watcher, int events)
{
    struct worker *w = watcher->data;
    (void)loop, (void)events;
    loop_time(w);
    process_heartbeat(w->process, w->mono_ms);
    w->reader_state.checked = false;
    if (runtime_generation(&w->process->region->runtime) != w->limits->generation)
        route_settings_read(w);
}

static void free_the_dead(struct worker *w)
{
    struct client *c;
    struct fetch *ex;
    struct upstream *u;
    while ((c = LIST_FIRST(&w->clients->dead))) {
        LIST_REMOVE(c, entry);
        client_free(c);
    }
    while ((ex = TAILQ_FIRST(&w->fetches->dead))) {
        TAILQ_REMOVE(&w->fetches->dead, ex, entry);
        fetch_free(ex);
    }
    while ((u = LIST_FIRST(&w->upstreams->dead))) {
        LIST_REMOVE(u, entry);
        upstream_free(u);
    }
    repeat_free_the_dead(w);
    long_poll_free_the_dead(w);
}

static void on_prepare(EV_P_ ev_prepare *watcher, int events)
{
    struct worker *w = watcher->data;
    (void)loop, (void)events;
    if (!LIST_EMPTY(&w->long_polls->new_watches))
        long_poll_look_new(w);
    client_run_ready(w);
    compress_turn(w);
    if (w->guard_checks->due)
        guard_run(w);
    free_the_dead(w);
    keeper_link_flush(w);
    access_flush(w);
    stats_gauge_set(w->stats, STATS_GAUGE_CONNECTIONS_OPEN, clients_open(w));
    stats_gauge_set(w->stats, STATS_GAUGE_POLL_HELD, w->long_polls->n_held);
    stats_gauge_set(w->stats, STATS_GAUGE_UPSTREAM_BUSY, w->upstreams->n_busy);
    stats_gauge_set(w->stats, STATS_GAUGE_UPSTREAM_IDLE, w->upstreams->n_idle);
    stats_gauge_set(w->stats, STATS_GAUGE_CACHE_BACKGROUND, budget_fetching(w));
    atomic_store_explicit(&w->slot->connections, clients_open(w), memory_order_relaxed);
    drain_check(w);
}

static void on_heartbeat(EV_P_ ev_timer *watcher, int events)
{
    struct worker *w = watcher->data;
    (void)loop, (void)events;
    repeat_sweep(w);
    buffer_pool_trim(&w->buffers);
    supervisor_link_catch_up(w);
    supervisor_link_send_slots(w);
    warm_rpc_open(w);
    long_poll_wake(w); /* a fetch that ended without a wake-up */
    identity_watch(w);
    if (w->draining)
        long_poll_leave(w);
    drained_follow(w);
    limits_slots_follow(w);
    limit_top_refill(&w->limits->top);
    limit_top_refill(&w->messages->poll_top);
    if (reader_ready(w)) /* notices a rotation without requests, and unmaps the old store */
        w->reader_state.checked = true;
}

static void on_event(EV_P_ ev_io *watcher, int events)
{
    struct worker *w = watcher->data;
    uint64_t n;
    (void)loop, (void)events;
    const ssize_t got = read(watcher->fd, &n, sizeof n);
    (void)got;
    collapse_wake(w);
    fleet_share_wake(w);
    room_queue_run(w);
    long_poll_wake(w);
    limits_wait_wake(w);
    drained_follow(w);
}

static void on_drain_timer(EV_P_ ev_timer *watcher, int events)
{
    (void)loop, (void)watcher, (void)events; /* the look is before the loop sleeps */
}

static void on_scan(EV_P_ ev_timer *watcher, int events)
{
    (void)loop, (void)events;
    long_poll_scan(watcher->data);
}

static void on_term(EV_P_ ev_signal *watcher, int events)
{
    struct worker *w = watcher->data;
    (void)loop, (void)events;
    const uint32_t stage = atomic_load(&w->shared->proc->draining);
    if (stage)
        loop_stop(w, stage);
    else
        loop_drain(w);
}

/* ---- life ---- */

/* libev does not tell its epoll descriptor; sockets that are handed over must leave it. */
static int find_epoll(void)
{
    char path[64], target[64];
    for (int fd = 3; fd < 4096; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        const ssize_t n = readlink(path, target, sizeof target - 1);
        if (n <= 0)
            continue;
        target[n] = 0;
        if (!strcmp(target, "anon_inode:[eventpoll]"))
            return fd;
    }
    return -1;
}

struct ev_loop *loop_open(struct worker *w)
{
    w->watchers = calloc(1, sizeof *w->watchers);
    if (!w->watchers)
        return NULL;
    w->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!w->loop)
        return NULL;
    w->epoll_fd = find_epoll();
    ev_prepare_init(&w->watchers->prepare, on_prepare);
    ev_check_init(&w->watchers->check, on_check);
    ev_timer_init(&w->watchers->heartbeat_timer, on_heartbeat, 1.0, 1.0);
    timer_wheel_init(&w->wheel, w->loop, &w->mono_ms, TIMERS_A_TICK);
    fetch_events_init(w);
    client_events_init(w);
    ev_timer_init(&w->long_polls->scan, on_scan, 0., 0.);
    retry_queue_init(w);
    fleet_share_init(w);
    limits_wait_init(w);
    room_queue_init(w);
    ev_io_init(&w->watchers->event, on_event, w->shared->worker_event[w->number], EV_READ);
    ev_signal_init(&w->watchers->term, on_term, SIGTERM);
    ev_timer_init(&w->watchers->drain_timer, on_drain_timer, 0., 0.);
    w->watchers->prepare.data = w->watchers->check.data = w->watchers->heartbeat_timer.data =
        w->long_polls->scan.data = w->watchers->event.data = w->watchers->term.data = w;
    ev_set_priority(&w->watchers->check, EV_MAXPRI);
    ev_prepare_start(w->loop, &w->watchers->prepare);
    ev_check_start(w->loop, &w->watchers->check);
    ev_timer_start(w->loop, &w->watchers->heartbeat_timer);
    ev_io_start(w->loop, &w->watchers->event);
    ev_signal_start(w->loop, &w->watchers->term);
    client_leave_open(w);
    loop_time(w);
    route_settings_read(w);
    identity_prepare(w);
    identity_watch_begin(w);
    guard_prepare(w);
    return w->loop;
}

void loop_close(struct worker *w)
{
    struct client *c;
    while ((c = LIST_FIRST(&w->clients->all))) {
        cut_count(w, c);
        c->note.cut = "drain";
        client_close(c);
    }
    compress_close(w);
    guard_stop(w);
    free_the_dead(w);
    pool_close_idle(w);
    free_the_dead(w);
    buffer_pool_trim(&w->buffers);
    long_poll_free_the_dead(w);
    free(w->long_polls->watches);
    if (w->loop) {
        client_leave_close(w);
        ev_signal_stop(w->loop, &w->watchers->term);
        ev_loop_destroy(w->loop);
    }
    free(w->watchers);
}

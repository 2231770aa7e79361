/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * loop: rounds of work while there is any, and otherwise sleep.
 *
 * Before it sleeps the keeper marks the rings as asleep and looks at them once more; a producer
 * publishes before it looks at that mark: so one of the two notices the other. A tick a second
 * does what is due by time.
 */
#include "daemons/keeper/keeper.h"
#include "polder/clock.h"
#include "polder/log.h"
#include <signal.h>
#include <unistd.h>

#define TICK_MS       1000
#define LAG_MS        2000
#define CLOCK_STEP_MS 20 /* the coarse clock may be behind the timer that woke us */
#define LAG_AGAIN     10000
#define STOP_MS       2000

void keeper_time(struct keeper *k)
{
    k->mono_ms = clock_mono_ms();
    k->real_ms = clock_real_ms();
}

/* ---- limits ---- */

void keeper_follow_limits(struct keeper *k)
{
    const uint32_t region = atomic_load_explicit(&k->shared->proc->region, memory_order_acquire);
    if (region >= SHARED_REGIONS)
        return;
    atomic_store(&k->slot->followed, k->shared->region[region]->generation);
    const struct runtime_page *page = &k->shared->region[region]->runtime;
    if (region == k->region && runtime_generation(page) == k->runtime_generation)
        return;
    k->runtime_generation = runtime_read(page, &k->runtime);
    k->region = region;
    const uint64_t items = k->runtime.cache.max_items;
    k->store.max_items = items < CACHE_SLOTS_MAX ? items : CACHE_SLOTS_MAX;
    k->store.max_units = store_units_for(store_map_for(k->runtime.cache.max_bytes));
    evict_expect(k->store.evict, (uint32_t)k->store.max_items);
    k->caches = config_has_caches(k->shared->region[region]->config);
    k->tick_due_ms = 0; /* the file may have to grow, or to go */
}

/* ---- what is due by time ---- */

/* A transaction that stays open keeps every page that was freed since from being used again. */
static void watch_readers(struct keeper *k)
{
    struct store_reader oldest;
    store_readers_bury(&k->store);
    if (!store_oldest_reader(&k->store, &oldest) || oldest.txn_id != k->lag_txn ||
        oldest.pid != k->lag_pid || oldest.txn_id >= store_last_txn(&k->store)) {
        k->lag_txn = oldest.txn_id;
        k->lag_pid = oldest.pid;
        k->lag_since_ms = k->mono_ms;
        return;
    }
    if (k->mono_ms - k->lag_since_ms < LAG_MS)
        return;
    log_warning("cache: process %d has read the store in one transaction for more than %d s; the "
                "store grows meanwhile",
                k->lag_pid, LAG_MS / 1000);
    k->lag_since_ms = k->mono_ms + LAG_AGAIN - LAG_MS;
}

/* Dates are real time. Where that goes back, things would be fresh for too long. */
static void watch_clock(struct keeper *k)
{
    const uint64_t passed = k->mono_ms - k->mono_last_ms;
    if (k->real_last_ms && k->real_ms + 60000 < k->real_last_ms + passed) {
        log_warning("cache: the clock went back; all that is stored is taken for stale");
        inval_mark_all(k->shared->inval, true);
    }
    k->real_last_ms = k->real_ms;
    k->mono_last_ms = k->mono_ms;
}

static void keeper_due(struct keeper *k)
{
    k->tick_due_ms = k->mono_ms + TICK_MS - CLOCK_STEP_MS;
    watch_clock(k);
    rotate_tick(k);
    intake_drop_dead(k);
    if (k->store.env)
        watch_readers(k);
    sweep_tick(k);
    k->expiring = k->store.env != NULL;
}

/* ---- rounds ---- */

void keeper_gauges(struct keeper *k)
{
    const struct store *s = &k->store;
    stats_gauge_set(k->stats, STATS_GAUGE_CACHE_ITEMS, s->env ? store_items(s) : 0);
    stats_gauge_set(k->stats, STATS_GAUGE_CACHE_BYTES, s->env ? s->live_units * STORE_UNIT : 0);
    stats_gauge_set(k->stats, STATS_GAUGE_CACHE_READY, s->env != NULL);
    atomic_store_explicit(&k->shared->cache->body_max, s->env ? store_body_max(s) : 0,
                          memory_order_relaxed);
}

/* A limit that was lowered: down to it in small transactions. */
static struct slice_result evict_slice(struct keeper *k)
{
    if (!k->store.env || !store_is_over(&k->store) || k->store.n_objects == 0)
        return SLICE_IDLE;
    int rc = store_begin(&k->store);
    if (rc == 0)
        rc = store_make_room(&k->store, 0, 0, 0, KEEPER_SLICE);
    if (rc == 0)
        rc = store_commit(&k->store);
    return (struct slice_result){true, rc, "evict objects"};
}

static struct slice_result deferred_free_slice(struct keeper *k)
{
    unsigned done = 0;
    if (!k->store.env || k->store.n_freed == 0)
        return SLICE_IDLE;
    int rc = store_begin(&k->store);
    if (rc == 0)
        rc = deferred_free_run(&k->store, KEEPER_SLICE, &done);
    if (rc == 0)
        rc = store_commit(&k->store);
    /* none: they wait for a reader, and there is no hurry */
    return (struct slice_result){done > 0, rc, "delete bodies"};
}

static struct slice_result expiry_slice(struct keeper *k)
{
    if (!k->expiring)
        return SLICE_IDLE;
    const struct slice_result done = expire_slice(k);
    k->expiring = done.more;
    return done;
}

/* The one place where a failure of the database has consequences. */
static bool slice_judge(struct keeper *k, struct slice_result done)
{
    if (done.rc != 0) {
        intake_forget(k);
        rotate_failed(k, done.rc, done.what);
    }
    return done.more;
}

/* Background work, a slice at a time. A worker may share our core, and its clients would wait a
 * scheduler's tick longer if we did not sleep: so after each slice the keeper sleeps as long as
 * that has taken. Work from the rings is done meanwhile. */
static void background_work(struct keeper *k)
{
    static struct slice_result (*const slice[])(struct keeper *) = {
        evict_slice, deferred_free_slice, sweep_slice, expiry_slice, inspect_slice};
    const unsigned kinds = sizeof slice / sizeof *slice;
    const uint64_t began_ns = clock_mono_ns();
    uint64_t now_ns = began_ns;
    bool more = false;
    if (began_ns < k->rest_until_ns)
        return;
    for (unsigned i = 0; i < kinds && now_ns - began_ns < KEEPER_SLICE_NS; i++) {
        more |= slice_judge(k, slice[k->turn](k));
        k->turn = (k->turn + 1) % kinds;
        now_ns = clock_mono_ns();
    }
    more |= now_ns - began_ns >= KEEPER_SLICE_NS; /* not all had their turn */
    k->rest_until_ns = more ? now_ns + (now_ns - began_ns) : 0;
}

/* Sleeps no longer than the background work rests. */
static void rest_arm(struct keeper *k)
{
    const uint64_t now_ns = clock_mono_ns();
    ev_timer_stop(k->loop, &k->rest);
    if (!k->rest_until_ns)
        return;
    const uint64_t left_ns = k->rest_until_ns > now_ns ? k->rest_until_ns - now_ns : 0;
    ev_now_update(k->loop);
    ev_timer_set(&k->rest, (double)left_ns / 1e9, 0.);
    ev_timer_start(k->loop, &k->rest);
}

/* One round. true: there is more to do at once. */
static bool keeper_work(struct keeper *k)
{
    keeper_time(k);
    process_heartbeat(k->process, k->mono_ms);
    keeper_follow_limits(k);
    if (k->mono_ms >= k->tick_due_ms ||
        atomic_load_explicit(&k->shared->cache->rotate_requested, memory_order_relaxed))
        keeper_due(k);
    const bool more = slice_judge(k, intake_batch(k));
    background_work(k);
    keeper_gauges(k);
    return more;
}

void keeper_loop(struct keeper *k)
{
    for (unsigned ring = 0; ring < SHARED_RINGS; ring++)
        k->intake.awake[ring] = true; /* as new rings say, or a keeper that was killed left them */
    while (!k->stopping) {
        intake_sleep(k, false);
        if (keeper_work(k)) {
            ev_run(k->loop, EVRUN_NOWAIT);
            continue;
        }
        intake_sleep(k, true);
        rest_arm(k);
        ev_run(k->loop, intake_pending(k) ? EVRUN_NOWAIT : EVRUN_ONCE);
    }
    /* What workers sent last. What cannot be finished soon is found again at the next start. */
    const uint64_t until_ms = clock_mono_ms() + STOP_MS;
    while (intake_pending(k) && clock_mono_ms() < until_ms)
        keeper_work(k);
}

/* ---- events ---- */

/* A process died or started: resources of dead ones in the store are released at once. */
static void look_for_deaths(struct keeper *k)
{
    uint64_t mix = 0;
    for (unsigned i = PROC_SLOT_WORKER0; i < PROC_SLOTS; i++) {
        const struct proc_slot *slot = &k->shared->proc->slot[i];
        mix = mix * 31 + atomic_load_explicit(&slot->pid, memory_order_relaxed);
        mix = mix * 31 + atomic_load_explicit(&slot->incarnation, memory_order_relaxed);
    }
    if (mix == k->processes)
        return;
    k->processes = mix;
    intake_drop_dead(k);
    if (k->store.env)
        store_readers_bury(&k->store);
}

static void on_event(struct ev_loop *loop, ev_io *w, int revents)
{
    uint64_t count;
    (void)loop;
    (void)revents;
    const ssize_t n = read(w->fd, &count, sizeof count);
    (void)n; /* only there to be woken */
    look_for_deaths(w->data);
}

static void on_tick(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)w;
    (void)revents;
}

static void on_term(struct ev_loop *loop, ev_signal *w, int revents)
{
    (void)loop;
    (void)revents;
    struct keeper *k = w->data;
    k->stopping = true;
}

static void on_file_touched(struct keeper *k, const char *why)
{
    keeper_time(k);
    rotate_now(k, why);
}

/* ---- what a store that comes or goes means to the others ---- */

static void store_opened(struct keeper *k)
{
    file_watch_begin(k);
    sweep_init(k);
}

static void store_leaves(struct keeper *k)
{
    file_watch_end(k);
    intake_forget(k);
}

static const struct rotate_hooks hooks = {.opened = store_opened,
                                          .leaves = store_leaves,
                                          .file_changes = file_watch_end,
                                          .file_changed = file_watch_begin};

int keeper_loop_open(struct keeper *k)
{
    k->rotate.hooks = &hooks;
    k->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!k->loop)
        return -1;
    ev_io_init(&k->event, on_event, k->shared->keeper_event, EV_READ);
    ev_timer_init(&k->tick, on_tick, TICK_MS / 1000.0, TICK_MS / 1000.0);
    ev_timer_init(&k->rest, on_tick, 0., 0.);
    ev_signal_init(&k->term, on_term, SIGTERM);
    k->event.data = k->term.data = k;
    ev_io_start(k->loop, &k->event);
    ev_timer_start(k->loop, &k->tick);
    ev_signal_start(k->loop, &k->term);
    file_watch_open(k, on_file_touched);
    return 0;
}

void keeper_loop_close(struct keeper *k)
{
    file_watch_close(k);
    ev_loop_destroy(k->loop);
}

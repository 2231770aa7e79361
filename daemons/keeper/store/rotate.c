/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * rotate: which directory holds the store, and the one way to recover: an empty one.
 *
 * state_dir/cache.<epoch>/ holds data.mdb, lock.mdb and, between a clean stop and the next start,
 * `clean`. The store that is found is kept if nothing speaks against it:
 *
 *   - the same master still runs and no process has died in the map: its state is known
 *   - otherwise data.mdb is examined page by page (check.c), its history of invalidations must be
 *     the one in inval.page, and it must be of this boot (what was written is in the page cache or
 *     on disk) or closed cleanly with no invalidation since.
 *
 * Repair is never tried. Rotating: a new directory, published in cache_shared.epoch, the old one
 * unlinked; workers notice the number and reopen. What cannot be opened is tried again every 30 s;
 * until then the service runs without a cache.
 */
#include "daemons/keeper/keeper.h"
#include "daemons/keeper/store/directory.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RETRY_MS        30000
#define SOON_MS         1000
#define LOCK_RETRY_MS   500
#define ROTATIONS       3
#define ROTATIONS_MS    600000
#define MAP_MIN         ((uint64_t)8 << 20)
#define FULL_MS         60000 /* MAP_FULL three times within this: rotate */
#define FULL_APART_MS   5000  /* as one time counts what comes within: a reader may stand still */
#define FULL_EVICT      20    /* one part in so many goes when the map is full */
#define CHECK_BUDGET_MS 5000
#define CLOCK_BACK_MS   60000
#define WHY             200

/* Says it once, not every 30 s. */
static void __attribute__((format(printf, 2, 3))) complain(struct keeper *k, const char *fmt, ...)
{
    char text[sizeof k->rotate.complaint];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (strcmp(text, k->rotate.complaint) == 0)
        return;
    memcpy(k->rotate.complaint, text, sizeof text);
    log_error("cache: %s", text);
}

/* ---- conditions ---- */

/* For the disk, the user's share of it, or the file system. */
static bool is_too_much(int rc)
{
    return rc == ENOSPC || rc == EDQUOT || rc == EFBIG;
}

static enum condition_id trouble_of(int rc)
{
    if (is_too_much(rc))
        return COND_DISK_FULL;
    return rc == EROFS ? COND_STATE_READ_ONLY : COND_STORE_OFF;
}

/* What keeps the store from being what was configured, until trouble_end(). */
static void trouble_begin(struct keeper *k, enum condition_id id, const char *reason)
{
    struct rotate *r = &k->rotate;
    if (r->troubled && r->trouble != id)
        condition_clear(k->shared->conditions, r->trouble, NULL, clock_real_ms());
    r->troubled = true;
    r->trouble = id;
    condition_raise(k->shared->conditions, id, NULL, reason, clock_real_ms());
}

/* Of a keeper before us, too. */
static void trouble_end(struct keeper *k)
{
    static const enum condition_id ours[] = {COND_DISK_FULL, COND_STATE_READ_ONLY, COND_STORE_OFF};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        condition_clear(k->shared->conditions, ours[i], NULL, clock_real_ms());
    k->rotate.troubled = false;
}

static void trouble_small(struct keeper *k, uint64_t has, uint64_t wanted)
{
    char reason[96];
    snprintf(reason, sizeof reason, "the store has %llu MiB instead of %llu MiB",
             (unsigned long long)(has >> 20), (unsigned long long)(wanted >> 20));
    trouble_begin(k, COND_DISK_FULL, reason);
}

/* ---- publishing ---- */

static void publish(struct keeper *k)
{
    struct cache_shared *shared = k->shared->cache;
    if (atomic_load(&shared->epoch_floor) < k->store.epoch)
        atomic_store(&shared->epoch_floor, k->store.epoch);
    map_fault_blame(k->store.epoch);
    atomic_store(&shared->suspect, 0);
    atomic_store(&shared->damaged_epoch, 0);
    atomic_store_explicit(&shared->epoch, k->store.epoch, memory_order_release);
    directory_scan(k->state_dir, k->store.epoch);
    k->rotate.complaint[0] = 0;
    k->rotate.grow_failed = false;
    k->rotate.hooks->opened(k);
}

/* It is not read any more, from the next request on. */
static void withdraw(struct keeper *k)
{
    atomic_store_explicit(&k->shared->cache->epoch, 0, memory_order_release);
    k->rotate.hooks->leaves(k);
    store_close(&k->store, false);
    map_fault_blame(0);
}

static void unpublish(struct keeper *k, uint64_t retry_after_ms)
{
    withdraw(k);
    k->rotate.retry_ms = k->mono_ms + retry_after_ms;
}

/* What the store says of itself from now on; also the first sign that it takes writes. */
static int meta_renew(struct keeper *k, uint64_t next_id)
{
    struct store_meta meta = {.format = CACHE_FORMAT, .real_ms = clock_real_ms()};
    memcpy(meta.uuid, inval_uuid(k->shared->inval), sizeof meta.uuid);
    shm_boot_id(meta.boot_id);
    meta.next_id = next_id;
    int rc = store_begin(&k->store);
    if (rc != 0)
        return rc;
    if ((rc = store_meta_write(&k->store, &meta)) != 0) {
        store_cancel(&k->store);
        return rc;
    }
    return store_commit(&k->store);
}

/* ---- an empty store ---- */

/* Ids are never used twice, not even in another store: workers may still know an old one. */
static uint64_t first_id(const struct keeper *k)
{
    const uint64_t floor = atomic_load(&k->shared->cache->id_floor);
    const uint64_t now_us = clock_real_ms() * 1000;
    uint64_t id = now_us > floor ? now_us : floor;
    if (k->store.next_id > id)
        id = k->store.next_id;
    return id + 1;
}

static int fresh_open(struct keeper *k, uint64_t epoch, uint64_t map_bytes, const char **what)
{
    char dir[PATH_MAX];
    int rc = cache_directory(k->state_dir, epoch, dir, sizeof dir);
    if (rc < 0)
        return -rc;
    *what = "make the directory of";
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return errno;
    rc = store_open(&k->store, epoch, dir, map_bytes, STORE_NEW, what);
    if (rc == 0) {
        k->store.next_id = k->store.id_ceiling = first_id(k);
        *what = "write to";
        rc = meta_renew(k, k->store.next_id);
    }
    if (rc != 0) {
        store_close(&k->store, false);
        directory_remove(k->state_dir, epoch);
    }
    return rc;
}

static void fresh_start(struct keeper *k)
{
    const uint64_t wanted = store_map_for(k->runtime.cache.max_bytes);
    const uint64_t floor = atomic_load(&k->shared->cache->epoch_floor);
    /* Nothing is kept: the disk may have no room for two. */
    const uint64_t newest = directory_scan(k->state_dir, DIRECTORY_KEEP_NONE);
    const uint64_t epoch = (newest > floor ? newest : floor) + 1;
    const char *what = "open";
    uint64_t map_bytes = wanted;
    int rc;
    while ((rc = fresh_open(k, epoch, map_bytes, &what)) != 0 && is_too_much(rc) &&
           map_bytes / 2 >= MAP_MIN)
        map_bytes = map_bytes / 2 / CACHE_PAGE * CACHE_PAGE;
    if (rc != 0) {
        complain(k, "cannot %s %s/cache.%llu (%llu MiB): %s; serving without storing", what,
                 k->state_dir, (unsigned long long)epoch, (unsigned long long)(wanted >> 20),
                 store_strerror(rc));
        trouble_begin(k, trouble_of(rc), store_strerror(rc));
        /* What was removed just now is there until its last reader has noticed. */
        unpublish(k, newest ? SOON_MS : RETRY_MS);
        return;
    }
    publish(k);
    trouble_end(k);
    if (map_bytes < wanted) {
        log_warning("cache: not enough disk under %s for %llu MiB; the store has %llu MiB",
                    k->state_dir, (unsigned long long)(wanted >> 20),
                    (unsigned long long)(map_bytes >> 20));
        trouble_small(k, map_bytes, wanted);
    }
    log_info("cache: an empty store of %llu MiB in cache.%llu",
             (unsigned long long)(map_bytes >> 20), (unsigned long long)epoch);
}

/* ---- the store that is there ---- */

static void check_heartbeat(void *arg)
{
    const struct keeper *k = arg;
    process_heartbeat(k->process, clock_mono_ms());
}

static bool same(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, 16) == 0;
}

/* NULL: nothing speaks against it. Otherwise what does. */
static const char *judge_meta(struct keeper *k, const char *dir, const struct store_meta *meta)
{
    uint8_t boot[16];
    uint64_t seq;
    if (meta->format != CACHE_FORMAT)
        return "it has another format";
    if (!same(meta->uuid, inval_uuid(k->shared->inval)))
        return "it does not belong to this history of invalidations (inval.page)";
    if (shm_boot_id(boot) == 0 && same(meta->boot_id, boot))
        return NULL;
    if (!directory_clean_read(dir, &seq))
        return "the machine went down before it was closed";
    if (seq != inval_seq(k->shared->inval))
        return "there were invalidations after it was closed";
    return NULL;
}

/* Before LMDB may see it. NULL, or what speaks against it; why: room for text. */
static const char *judge_file(struct keeper *k, const char *dir, char why[WHY])
{
    struct check_result found;
    const int rc = check_file(dir, CHECK_BUDGET_MS, check_heartbeat, k, &found);
    if (rc < 0) {
        snprintf(why, WHY, "%s", found.why[0] ? found.why : strerror(-rc));
        return why;
    }
    if (found.newest_fetch_seq > inval_seq(k->shared->inval)) /* or what comes would not reach it */
        return "it knows of invalidations that inval.page does not: that is an older one";
    return judge_meta(k, dir, &found.meta);
}

/* The private tables, and unused ids. */
static int existing_read(struct keeper *k, const struct store_meta *meta)
{
    const uint64_t floor = atomic_load(&k->shared->cache->id_floor);
    const int rc = store_rebuild(&k->store);
    if (rc != 0)
        return rc;
    if (k->store.next_id < meta->next_id)
        k->store.next_id = meta->next_id;
    if (k->store.next_id < floor)
        k->store.next_id = floor;
    k->store.id_ceiling = k->store.next_id;
    directory_clean_remove(k->store.dir);
    return meta_renew(k, k->store.next_id);
}

/* As large as is wanted; where there is no room for that, as large as it was. Where less is wanted
 * than there was the end of the file is given back, as far as nothing lies there. */
static int existing_map(struct keeper *k, uint64_t epoch, const char *dir, const char **what)
{
    char path[PATH_MAX];
    struct stat st;
    const uint64_t wanted = store_map_for(k->runtime.cache.max_bytes);
    uint64_t min = wanted;
    snprintf(path, sizeof path, "%.4000s/data.mdb", dir);
    const uint64_t there =
        stat(path, &st) == 0 ? (uint64_t)st.st_size / CACHE_PAGE * CACHE_PAGE : 0;
    int rc =
        store_open(&k->store, epoch, dir, there > wanted ? there : wanted, STORE_EXISTING, what);
    if (is_too_much(rc) && there)
        rc = store_open(&k->store, epoch, dir, there, STORE_EXISTING, what);
    if (rc == 0 && store_can_cut(&k->store, &min))
        store_cut(&k->store, min);
    if (rc == 0 && k->store.map_bytes > wanted)
        log_info("cache: data.mdb stays at %llu MiB, of which max_bytes lets %llu MiB be used; the "
                 "rest is free when the store is emptied",
                 (unsigned long long)(k->store.map_bytes >> 20),
                 (unsigned long long)(wanted >> 20));
    return rc;
}

/* NULL, or why the store of that epoch cannot be kept. */
static const char *existing_open(struct keeper *k, uint64_t epoch, bool examine, char why[WHY])
{
    struct store_meta meta;
    char dir[PATH_MAX];
    const char *what, *bad = NULL;
    if (cache_directory(k->state_dir, epoch, dir, sizeof dir) < 0)
        return "its path is too long";
    if (examine && (bad = judge_file(k, dir, why)))
        return bad;
    int rc = existing_map(k, epoch, dir, &what);
    if (rc == 0 && (rc = store_meta_read(&k->store, &meta)) == 0 && !examine)
        bad = judge_meta(k, dir, &meta);
    if (rc == 0 && !bad)
        rc = existing_read(k, &meta);
    if (rc != 0)
        bad = store_strerror(rc);
    if (bad) {
        store_close(&k->store, false);
        return bad;
    }
    /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
    if (meta.real_ms > clock_real_ms() + CLOCK_BACK_MS) {
        log_warning("cache: the clock has gone back since the store was written; all of it is "
                    "taken for stale");
        inval_mark_all(k->shared->inval, true);
    }
    return NULL;
}

static bool lock_take(struct keeper *k)
{
    char path[PATH_MAX];
    if (k->rotate.lock >= 0)
        return true;
    if (snprintf(path, sizeof path, "%s/keeper.lock", k->state_dir) >= (int)sizeof path)
        return false;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        k->rotate.lock = fd;
        return true;
    }
    const int code = errno;
    complain(k, "cannot lock %s: %s; serving without storing", path,
             code == EWOULDBLOCK ? "another keeper has it" : strerror(code));
    if (code != EWOULDBLOCK) /* a predecessor that has a moment to leave */
        trouble_begin(k, trouble_of(code), strerror(code));
    if (fd >= 0)
        close(fd);
    k->rotate.retry_ms = k->mono_ms + LOCK_RETRY_MS;
    return false;
}

/* Until that is done, who dies in the old store is one of those it was asked for. */
static void rotate_on_request(struct keeper *k, uint32_t requested)
{
    rotate_now(k, "it seems to have killed processes");
    atomic_fetch_sub(&k->shared->cache->rotate_requested, requested);
}

/* If no route caches, changes are not marked: the stored objects would become wrong, and they take
 * disk. */
static void store_drop(struct keeper *k)
{
    const uint64_t was = directory_scan(k->state_dir, 0);
    if (k->store.env)
        withdraw(k);
    atomic_store_explicit(&k->shared->cache->epoch, 0, memory_order_release);
    directory_scan(k->state_dir, DIRECTORY_KEEP_NONE);
    trouble_end(k);
    k->rotate.retry_ms = 0;
    if (was)
        log_info("cache: no route has a cache section; cache.%llu is removed",
                 (unsigned long long)was);
}

void rotate_start(struct keeper *k)
{
    struct cache_shared *shared = k->shared->cache;
    char text[WHY];
    if (!lock_take(k))
        return;
    if (!k->caches) {
        store_drop(k);
        return;
    }
    const uint32_t requested = atomic_load(&shared->rotate_requested);
    const uint64_t current = atomic_load(&shared->epoch);
    const uint64_t epoch = current ? current : directory_scan(k->state_dir, 0);
    if (requested) {
        rotate_on_request(k, requested);
        return;
    }
    if (epoch == 0) {
        fresh_start(k);
        return;
    }
    const bool examine = current == 0 || atomic_load(&shared->suspect) ||
                         atomic_load(&shared->damaged_epoch) == current;
    const char *why = existing_open(k, epoch, examine, text);
    if (!why) {
        publish(k);
        trouble_end(k);
        log_info("cache: kept %llu objects (%llu MiB) in cache.%llu",
                 (unsigned long long)store_items(&k->store),
                 (unsigned long long)(k->store.live_units * STORE_UNIT >> 20),
                 (unsigned long long)epoch);
        return;
    }
    log_warning("cache: data.mdb of cache.%llu failed its checks (%s); starting with an empty "
                "store",
                (unsigned long long)epoch, why);
    stats_add(k->stats, STATS_CACHE_ROTATIONS, 1);
    withdraw(k);
    fresh_start(k);
}

/* ---- rotating ---- */

/* Notes a rotation; true if there were too many lately. *until: when the cache may be on again. */
static bool rotations_note(struct keeper *k, uint64_t *until)
{
    _Atomic uint64_t *times = k->shared->cache->rotated_ms;
    unsigned oldest = 0;
    for (unsigned i = 1; i < ROTATIONS; i++)
        if (atomic_load(&times[i]) < atomic_load(&times[oldest]))
            oldest = i;
    const uint64_t first = atomic_load(&times[oldest]);
    if (first && k->mono_ms - first < ROTATIONS_MS) {
        *until = first + ROTATIONS_MS;
        return true;
    }
    atomic_store(&times[oldest], k->mono_ms ? k->mono_ms : 1);
    return false;
}

void rotate_now(struct keeper *k, const char *why)
{
    uint64_t until;
    stats_add(k->stats, STATS_CACHE_ROTATIONS, 1);
    if (rotations_note(k, &until)) {
        log_error("cache: given up again (%s), after three times in ten minutes: the cache is off "
                  "for %llu s",
                  why, (unsigned long long)(until - k->mono_ms) / 1000);
        trouble_begin(k, COND_STORE_OFF, why);
        const uint64_t epoch = k->store.epoch;
        unpublish(k, until - k->mono_ms);
        directory_remove(k->state_dir, epoch);
        return;
    }
    log_error("cache: the store is given up (%s); starting with an empty one", why);
    withdraw(k);
    fresh_start(k);
}

/* Gives up one part in twenty, in small transactions. */
static int make_air(struct keeper *k)
{
    const uint64_t allowed = store_units_allowed(&k->store);
    const uint64_t live = k->store.live_units;
    const uint64_t want = live > live / FULL_EVICT ? live - live / FULL_EVICT : 0;
    int rc = 0;
    while (rc == 0 && k->store.n_objects && k->store.live_units > want) {
        unsigned dropped;
        if ((rc = store_begin(&k->store)) != 0)
            break;
        rc = store_make_room(&k->store, 0, 0, allowed - want, KEEPER_SLICE);
        if (rc == 0)
            rc = deferred_free_run(&k->store, KEEPER_SLICE, &dropped);
        if (rc != 0)
            break;
        rc = store_commit(&k->store);
        check_heartbeat(k);
    }
    return rc;
}

static void map_full(struct keeper *k)
{
    uint64_t *times = k->rotate.full_ms;
    if (store_readers_bury(&k->store) > 0)
        return; /* they kept what was freed from being used again: there is room now */
    if (times[1] && k->mono_ms - times[1] < FULL_APART_MS) {
        const int again = make_air(k);
        if (again != 0)
            rotate_now(k, store_strerror(again));
        return;
    }
    if (times[0] && k->mono_ms - times[0] < FULL_MS) {
        rotate_now(k, "its map was full three times in a minute");
        return;
    }
    times[0] = times[1];
    times[1] = k->mono_ms;
    const int rc = make_air(k);
    log_warning("cache: the map of %llu MiB is full; gave up a part of it",
                (unsigned long long)(k->store.map_bytes >> 20));
    if (rc != 0)
        rotate_now(k, store_strerror(rc));
}

void rotate_failed(struct keeper *k, int rc, const char *what)
{
    store_abort(&k->store);
    if (rc == STORE_FULL && k->store.env) {
        map_full(k);
        return;
    }
    log_error("cache: cannot %s: %s", what, store_strerror(rc));
    rotate_now(k, store_strerror(rc));
}

static void grow_if_wanted(struct keeper *k)
{
    const uint64_t wanted = store_map_for(k->runtime.cache.max_bytes);
    uint64_t min = wanted;
    if (store_can_cut(&k->store, &min)) {
        k->rotate.hooks->file_changes(k);
        store_cut(&k->store, min);
        k->rotate.hooks->file_changed(k);
        log_info("cache: data.mdb is cut to %llu MiB", (unsigned long long)(min >> 20));
    }
    if (wanted <= k->store.map_bytes && k->rotate.troubled)
        trouble_end(k); /* less is wanted by now */
    if (wanted <= k->store.map_bytes || k->mono_ms < k->rotate.retry_ms)
        return;
    k->rotate.hooks->file_changes(k);
    const int rc = store_grow(&k->store, wanted);
    k->rotate.hooks->file_changed(k);
    if (rc == 0) {
        log_info("cache: the store has grown to %llu MiB", (unsigned long long)(wanted >> 20));
        k->rotate.grow_failed = false;
        trouble_end(k);
        return;
    }
    k->rotate.retry_ms = k->mono_ms + RETRY_MS;
    if (!k->rotate.grow_failed)
        log_warning("cache: cannot grow data.mdb to %llu MiB: %s; it stays at %llu MiB",
                    (unsigned long long)(wanted >> 20), store_strerror(rc),
                    (unsigned long long)(k->store.map_bytes >> 20));
    k->rotate.grow_failed = true;
    if (is_too_much(rc))
        trouble_small(k, k->store.map_bytes, wanted);
}

void rotate_tick(struct keeper *k)
{
    const uint32_t requested = atomic_load(&k->shared->cache->rotate_requested);
    if (!k->store.env) {
        if (k->caches && k->mono_ms >= k->rotate.retry_ms && lock_take(k))
            rotate_start(k);
        return;
    }
    if (!k->caches) {
        store_drop(k);
        return;
    }
    if (requested) {
        rotate_on_request(k, requested);
        return;
    }
    if (atomic_load(&k->shared->cache->damaged_epoch) == k->store.epoch) {
        rotate_now(k, "a reader found its tree damaged");
        return;
    }
    grow_if_wanted(k);
}

void rotate_stop(struct keeper *k)
{
    if (!k->store.env)
        return;
    const uint64_t seq = inval_seq(k->shared->inval);
    const int rc = inval_page_sync(k->shared->inval);
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%.4000s", k->store.dir);
    meta_renew(k, k->store.next_id);
    const int synced = store_sync(&k->store);
    store_close(&k->store, false);
    /* Only the master knows that there are no more invalidations. */
    if (rc == 0 && synced == 0 && getppid() == k->process->master_pid)
        directory_clean_write(dir, seq);
}

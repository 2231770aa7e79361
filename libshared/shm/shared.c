/* SPDX-License-Identifier: BSD-2-Clause */
/* shared: makes every segment and eventfd once, before the first fork. */
#include "polder/shared.h"
#include "libshared/shm/shared_kept.h"
#include "libshared/shm/shared_left.h"
#include "polder/alerts.h"
#include "polder/cache.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/leak_guard.h"
#include "polder/fetch_lock.h"
#include "polder/fleet.h"
#include "polder/fleet_grants.h"
#include "polder/fleet_slots.h"
#include "polder/history.h"
#include "polder/inval.h"
#include "polder/limit.h"
#include "polder/limit_try.h"
#include "polder/log.h"
#include "polder/recent.h"
#include "polder/ring.h"
#include "polder/server_state.h"
#include "polder/shift.h"
#include "polder/stats.h"
#include "polder/sticky.h"
#include "polder/tenants.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* Bodies without a header of their own start here, on their own pair of cache lines. */
#define SHARED_BODY  128
#define LAYOUT(a, b) ((uint64_t)(a) << 32 | (uint64_t)(b))
#define SEGMENTS_MAX (sizeof(((struct shared *)0)->seg) / sizeof(struct shared_segment))

_Static_assert(offsetof(struct config_region, arena) < SHARED_REGION_SIZE, "room for an arena");

/* A segment, remembered for shared_destroy(); NULL with the reason logged. */
static void *shared_segment(struct shared *sh, const struct shared_options *opt, const char *name,
                            enum shm_kind kind, uint64_t layout, size_t size)
{
    struct shared_segment *named = shared_next(sh, name);
    struct shm_segment *seg = &named->shm;
    const int rc = left_adopt(sh, opt, named, kind, SHARED_ABI, layout, size)
                       ? 0
                       : shm_create(seg, name, kind, SHARED_ABI, layout, size);
    if (rc < 0) {
        log_error("shared: cannot make the %zu byte segment %s: %s", size, name, strerror(-rc));
        return NULL;
    }
    sh->segs++;
    return seg->base;
}

static void *shared_numbered(struct shared *sh, const struct shared_options *opt, const char *name,
                             enum shm_kind kind, size_t size, uint64_t layout)
{
    char *base = shared_segment(sh, opt, name, kind, layout, SHARED_BODY + size);
    return base ? base + SHARED_BODY : NULL;
}

static void *shared_body(struct shared *sh, const struct shared_options *opt, const char *name,
                         enum shm_kind kind, size_t size)
{
    return shared_numbered(sh, opt, name, kind, size, LAYOUT(SHARED_BODY, size));
}

struct shared_file {
    const char *name; /* in state_dir */
    enum shm_kind kind;
    uint64_t layout;
    size_t size;
    bool in_memory;      /* not needed after a restart */
    const char *without; /* consequence if there is no room for the file */
};

enum file_was { FILE_NEW, FILE_REUSED, FILE_IN_USE };

/* The segment that the file backs; *reused: enum file_was. 0 or a negative errno. */
static int shared_file(struct shared *sh, const struct shared_options *opt,
                       const struct shared_file *f, int *reused)
{
    char path[PATH_MAX];
    struct shared_segment *named = shared_next(sh, f->name);
    struct shm_segment *seg = &named->shm;
    if (snprintf(path, sizeof path, "%s/%s", opt->state_dir, f->name) >= (int)sizeof path)
        return -ENAMETOOLONG;
    *reused = FILE_NEW;
    if (left_adopt(sh, opt, named, f->kind, SHARED_ABI, f->layout, f->size)) {
        *reused = FILE_IN_USE;
        sh->segs++;
        return 0;
    }
    if (left_fd(opt, f->name) >= 0 && !opt->proving)
        unlink(path); /* of another layout; those who have it mapped keep it */
    int rc;
    if (opt->proving) {
        rc = shm_create(seg, f->name, f->kind, SHARED_ABI, f->layout, f->size);
    } else if (f->in_memory) {
        unlink(path); /* of an earlier configuration: nothing is there that it could be about */
        rc = shm_create(seg, f->name, f->kind, SHARED_ABI, f->layout, f->size);
    } else {
        rc = shm_create_file(seg, path, f->kind, SHARED_ABI, f->layout, f->size, reused);
    }
    if (rc == -ENOSPC || rc == -EDQUOT || rc == -EROFS) {
        log_warning("shared: no room for %s (%zu bytes): %s; %s", path, f->size, strerror(-rc),
                    f->without);
        if (rc != -EROFS)
            unlink(path);
        *reused = FILE_NEW;
        rc = shm_create(seg, f->name, f->kind, SHARED_ABI, f->layout, f->size);
    }
    if (rc < 0) {
        log_error("shared: cannot make %s (%zu bytes): %s", path, f->size, strerror(-rc));
        return rc;
    }
    sh->segs++;
    return 0;
}

/* Without room to remember invalidations the service goes on; but a store without its history is
 * not believed. */
static int shared_inval(struct shared *sh, const struct shared_options *opt)
{
    const struct shared_file file = {
        .name = "inval.page",
        .kind = SHM_INVAL,
        .layout = inval_page_layout(),
        .size = inval_page_size(),
        .in_memory = opt->no_caches,
        .without = "the cache will not outlive a restart",
    };
    int reused, rc = shared_file(sh, opt, &file, &reused);
    if (rc < 0)
        return rc;
    struct shm_segment *seg = &sh->seg[sh->segs - 1].shm;
    sh->inval = seg->base;
    if (reused == FILE_REUSED) {
        inval_page_open(sh->inval);
    } else if (reused == FILE_NEW) {
        inval_page_init(sh->inval);
        shm_publish(seg);
    }
    return 0;
}

static int shared_guard(struct shared *sh, const struct shared_options *opt)
{
    const struct shared_file file = {
        .name = "guard.page",
        .kind = SHM_GUARD,
        .layout = guard_page_layout(),
        .size = guard_page_size(),
        .without = "the quarantine of a route will not outlive a restart",
    };
    int reused, rc = shared_file(sh, opt, &file, &reused);
    if (rc < 0)
        return rc;
    struct shm_segment *seg = &sh->seg[sh->segs - 1].shm;
    sh->guard = seg->base;
    if (reused != FILE_IN_USE)
        guard_page_open(sh->guard, inval_uuid(sh->inval), inval_seq(sh->inval));
    if (!reused)
        shm_publish(seg);
    return 0;
}

/* One that is of use as it was found. */
static int shared_plain_file(struct shared *sh, const struct shared_options *opt,
                             const struct shared_file *f, void **page)
{
    int reused;
    const int rc = shared_file(sh, opt, f, &reused);
    if (rc < 0)
        return rc;
    struct shm_segment *seg = &sh->seg[sh->segs - 1].shm;
    *page = seg->base;
    if (!reused)
        shm_publish(seg);
    return 0;
}

/* Where traffic goes. */
static int shared_traffic(struct shared *sh, const struct shared_options *opt)
{
    const struct shared_file shift = {
        .name = "shift.page",
        .kind = SHM_SHIFT,
        .layout = shift_page_layout(),
        .size = shift_page_size(),
        .without = "the guard of a shift of traffic will not outlive a restart",
    };
    const struct shared_file sticky = {
        .name = "sticky.page",
        .kind = SHM_STICKY,
        .layout = sticky_page_layout(),
        .size = sticky_page_size(),
        .without = "the servers of sessions will not outlive a restart",
    };
    void *page;
    int rc = shared_plain_file(sh, opt, &shift, &page);
    if (rc < 0)
        return rc;
    sh->shift = page;
    rc = shared_plain_file(sh, opt, &sticky, &page);
    if (rc == 0)
        sh->sticky = page;
    return rc;
}

/* Another one for a copy of the file. */
static uint64_t file_number(const struct shm_segment *seg)
{
    struct stat st;
    if (fstat(seg->fd, &st) < 0)
        return 0;
    const uint64_t number[] = {st.st_dev, st.st_ino};
    return XXH3_64bits(number, sizeof number);
}

static int shared_fleet(struct shared *sh, const struct shared_options *opt)
{
    const struct shared_file file = {
        .name = "fleet.page",
        .kind = SHM_FLEET,
        .layout = fleet_page_layout(),
        .size = sizeof(struct fleet_page),
        .without = "in a fleet, the cache begins empty after a restart",
    };
    int reused;
    const int rc = shared_file(sh, opt, &file, &reused);
    if (rc < 0)
        return rc;
    struct shm_segment *seg = &sh->seg[sh->segs - 1].shm;
    sh->fleet = seg->base;
    if (reused != FILE_IN_USE)
        fleet_page_open(sh->fleet, reused == FILE_REUSED, file_number(seg));
    if (!reused)
        shm_publish(seg);
    return 0;
}

/* Shared with polder-supervisor, which may have made it. */
static int shared_conditions(struct shared *sh, const struct shared_options *opt)
{
    char path[PATH_MAX];
    struct shm_segment *seg = &shared_next(sh, "conditions.page")->shm;
    const char *dir = opt->proving ? NULL : opt->runtime_dir;
    if (dir && snprintf(path, sizeof path, "%s/conditions.page", dir) >= (int)sizeof path)
        return -ENAMETOOLONG;
    const int fd = left_fd(opt, "conditions.page");
    const int rc = fd < 0 ? conditions_open(seg, dir ? path : NULL, CONDITIONS_OF_POLDERD)
                          : conditions_continue(seg, dir ? path : NULL, CONDITIONS_OF_POLDERD);
    if (fd >= 0)
        close(fd); /* its path leads there */
    if (rc < 0) {
        log_error("shared: cannot make the table of conditions: %s", strerror(-rc));
        return rc;
    }
    sh->conditions = conditions_of(seg);
    sh->segs++;
    return 0;
}

static bool shared_tables(struct shared *sh, const struct shared_options *opt)
{
    sh->proc = shared_segment(
        sh, opt, "polder-proc", SHM_PROC,
        LAYOUT(sizeof(struct proc_table), offsetof(struct proc_table, slot) << 8 | PROC_LAYOUT),
        sizeof(struct proc_table));
    sh->stats =
        shared_numbered(sh, opt, "polder-stats", SHM_STATS, sizeof(struct stats_slab) * PROC_SLOTS,
                        LAYOUT(STATS_LAYOUT, sizeof(struct stats_slab)));
    sh->limits = shared_limits(sh, opt);
    sh->shadow_limits =
        shared_body(sh, opt, "polder-tries", SHM_LIMIT, sizeof(struct limit_try_board));
    sh->fetch_locks = shared_segment(sh, opt, "polder-inflight", SHM_FETCH_LOCK,
                                     fetch_lock_table_layout(), fetch_lock_table_size());
    sh->ref = shared_body(sh, opt, "polder-ref", SHM_REF, CACHE_SLOTS_MAX);
    sh->cache = shared_body(sh, opt, "polder-cache", SHM_REF, sizeof(struct cache_shared));
    sh->clients = shared_body(sh, opt, "polder-clients", SHM_PROC,
                              sizeof(shared_client_row) * PROC_WORKER_SLOTS);
    sh->servers = shared_servers(sh, opt);
    sh->tenants = shared_body(sh, opt, "polder-tenants", SHM_STATS, tenants_page_size());
    sh->recent = shared_body(sh, opt, "polder-recent", SHM_RECENT, recent_page_size());
    sh->history = shared_history(sh, opt);
    sh->alerts = shared_segment(sh, opt, "polder-alerts", SHM_ALERTS, alert_page_layout(),
                                sizeof(struct alert_page));
    sh->fleet_rings = shared_numbered(
        sh, opt, "polder-fleet-rings", SHM_RING, ring_size() * PROC_WORKER_SLOTS,
        LAYOUT(FLEET_NOTES_LAYOUT, sizeof(struct fleet_ask) << 16 | sizeof(struct fleet_put)));
    sh->fleet_grants = shared_numbered(sh, opt, "polder-fleet-grants", SHM_FLEET_GRANTS,
                                       sizeof(struct fleet_grants),
                                       LAYOUT(FLEET_GRANTS_LAYOUT, sizeof(struct fleet_grants)));
    sh->fleet_slots = shared_segment(sh, opt, "polder-fleet-slots", SHM_FLEET_SLOTS,
                                     fleet_slots_layout(), sizeof(struct fleet_slots));
    sh->sticky_counts =
        shared_body(sh, opt, "polder-sticky", SHM_STICKY, sizeof(struct sticky_counts));
    return sh->proc && sh->stats && sh->limits && sh->shadow_limits && sh->fetch_locks && sh->ref &&
           sh->cache && sh->clients && sh->servers && sh->recent && sh->tenants && sh->history &&
           sh->alerts && sh->fleet_rings && sh->fleet_grants && sh->fleet_slots &&
           sh->sticky_counts;
}

/* Sparse: an unused ring or region costs address space only. */
static bool shared_rings(struct shared *sh, const struct shared_options *opt)
{
    char name[32];
    for (unsigned i = 0; i < SHARED_RINGS; i++) {
        snprintf(name, sizeof name, "polder-ring-%u", i);
        sh->ring[i] = shared_segment(sh, opt, name, SHM_RING, ring_layout(), ring_size());
        if (!sh->ring[i])
            return false;
    }
    for (unsigned i = 0; i < SHARED_REGIONS; i++) {
        snprintf(name, sizeof name, "polder-config-%u", i);
        sh->region[i] =
            shared_segment(sh, opt, name, SHM_CONFIG,
                           LAYOUT(sizeof(struct config), offsetof(struct config_region, arena)),
                           SHARED_REGION_SIZE);
        if (!sh->region[i])
            return false;
    }
    return true;
}

static const struct {
    const char *name;
    size_t at;
} events[] = {{"event-master", offsetof(struct shared, master_event)},
              {"event-keeper", offsetof(struct shared, keeper_event)},
              {"event-control", offsetof(struct shared, control_event)},
              {"event-notifier", offsetof(struct shared, notifier_event)}};
#define EVENTS (sizeof events / sizeof *events)

static int *event_of(const struct shared *sh, size_t i)
{
    return (int *)(void *)((char *)(uintptr_t)sh + events[i].at);
}

static int event_make(const struct shared_options *opt, const char *name)
{
    const int fd = left_fd(opt, name);
    return fd >= 0 ? fd : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static int shared_events(struct shared *sh, const struct shared_options *opt)
{
    char name[32];
    for (size_t i = 0; i < EVENTS; i++)
        if ((*event_of(sh, i) = event_make(opt, events[i].name)) < 0)
            return -errno;
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++) {
        snprintf(name, sizeof name, "event-worker-%u", i);
        if ((sh->worker_event[i] = event_make(opt, name)) < 0)
            return -errno;
    }
    return 0;
}

void shared_each_left(const struct shared *sh, void (*fn)(void *arg, const char *name, int fd),
                      void *arg)
{
    char name[32];
    for (size_t i = 0; i < sh->segs; i++)
        if (((const struct shm_header *)sh->seg[i].shm.base)->kind != SHM_CONFIG)
            fn(arg, sh->seg[i].name, sh->seg[i].shm.fd);
    for (size_t i = 0; i < EVENTS; i++)
        fn(arg, events[i].name, *event_of(sh, i));
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++) {
        snprintf(name, sizeof name, "event-worker-%u", i);
        fn(arg, name, sh->worker_event[i]);
    }
}

static void shared_clear(struct shared *sh)
{
    memset(sh, 0, sizeof *sh);
    sh->master_event = sh->keeper_event = sh->control_event = sh->notifier_event = -1;
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        sh->worker_event[i] = -1;
    for (size_t i = 0; i < SEGMENTS_MAX; i++)
        sh->seg[i].shm.fd = -1;
}

int shared_create(struct shared *sh, const struct shared_options *opt)
{
    shared_clear(sh);
    int rc = -ENOMEM;
    if (!shared_tables(sh, opt) || !shared_rings(sh, opt))
        goto fail;
    for (size_t i = 0; i < sh->segs; i++)
        shm_publish(&sh->seg[i].shm);
    if ((rc = shared_conditions(sh, opt)) < 0 || (rc = shared_inval(sh, opt)) < 0 ||
        (rc = shared_guard(sh, opt)) < 0 || (rc = shared_traffic(sh, opt)) < 0 ||
        (rc = shared_fleet(sh, opt)) < 0)
        goto fail;
    if ((rc = shared_events(sh, opt)) < 0) {
        log_error("shared: cannot make eventfds: %s", strerror(-rc));
        goto fail;
    }
    return 0;
fail:
    shared_destroy(sh);
    return rc;
}

static void shared_event_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void shared_destroy(struct shared *sh)
{
    while (sh->segs)
        shm_close(&sh->seg[--sh->segs].shm);
    shared_event_close(&sh->master_event);
    shared_event_close(&sh->keeper_event);
    shared_event_close(&sh->control_event);
    shared_event_close(&sh->notifier_event);
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        shared_event_close(&sh->worker_event[i]);
    shared_clear(sh);
}

bool shared_is_whole(const struct shared *sh)
{
    struct stat st;
    for (size_t i = 0; i < sh->segs; i++)
        if (fstat(sh->seg[i].shm.fd, &st) == 0 && (uint64_t)st.st_size < sh->seg[i].shm.size)
            return false;
    return true;
}

static int fd_of(const struct shared *sh, const void *base)
{
    for (size_t i = 0; i < sh->segs; i++)
        if (sh->seg[i].shm.base == base)
            return sh->seg[i].shm.fd;
    return -1;
}

int shared_servers_fd(const struct shared *sh)
{
    return fd_of(sh, sh->servers);
}

int shared_slots_fd(const struct shared *sh)
{
    return fd_of(sh, sh->fleet_slots);
}

static void shared_wake(int event)
{
    const uint64_t one = 1;
    const ssize_t n = write(event, &one, sizeof one);
    (void)n; /* full: it will wake anyway */
}

struct ring *shared_fleet_ring(const struct shared *sh, unsigned worker_slot)
{
    return (struct ring *)(void *)(sh->fleet_rings + worker_slot * ring_size());
}

void shared_wake_master(const struct shared *sh)
{
    shared_wake(sh->master_event);
}

void shared_wake_control(const struct shared *sh)
{
    shared_wake(sh->control_event);
}

void shared_wake_notifier(const struct shared *sh)
{
    shared_wake(sh->notifier_event);
}

void shared_wake_holders(const struct shared *sh)
{
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        if (atomic_load(&sh->proc->slot[PROC_SLOT_WORKER0 + i].holding))
            shared_wake(sh->worker_event[i]);
}

void shared_wake_workers(const struct shared *sh)
{
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        if (atomic_load(&sh->proc->slot[PROC_SLOT_WORKER0 + i].pid))
            shared_wake(sh->worker_event[i]);
}

void shared_wake_worker(const struct shared *sh, unsigned worker_slot)
{
    if (worker_slot < PROC_WORKER_SLOTS)
        shared_wake(sh->worker_event[worker_slot]);
}

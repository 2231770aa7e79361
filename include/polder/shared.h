/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shared: the memory and descriptors that all processes of one polderd share.
 *
 * The master makes it once, before it forks; every child inherits the mappings at the same
 * addresses and the descriptors under the same numbers. That is why a configuration may hold plain
 * pointers: its arena is mapped in all of them at one address. Nothing is unmapped while processes
 * live.
 *
 * Some segments are kept over a restart (kept.h): the master finds those of an earlier run among the
 * descriptors that it was started with, and hands them in as shared_options.found; or they are in
 * files of runtime_dir. shared.seg names each segment with its descriptor; kind, layout and size are
 * in its header (struct shm_header).
 */
#ifndef POLDER_SHARED_H
#define POLDER_SHARED_H
#include "polder/proc.h"
#include <stdbool.h>
#include <stddef.h>

struct stats_slab;
struct limit_table;
struct limit_try_board;
struct inval_page;
struct fetch_lock_table;
struct ring;
struct config_region;
struct cache_shared;
struct guard_page;
struct condition_table;
struct server_table;
struct recent_page;
struct tenants_page;
struct history_page;
struct alert_page;
struct shift_page;
struct fleet_page;
struct fleet_grants;
struct fleet_slots;
struct sticky_counts;
struct sticky_page;

/* Configurations that may be in use at once: draining workers keep theirs. The current one, one that
 * is read, three that finish what they have (daemons/master/generations.c), and some that end. Each
 * takes as much memory as its configuration has filled. */
#define SHARED_REGIONS 8
#ifndef SHARED_ABI
#define SHARED_ABI 1 /* of segments' bodies */
#endif
#define SHARED_REGION_SIZE ((size_t)16 << 20)

/* rings to the keeper: one a worker slot, and one from control */
#define SHARED_RING_CONTROL PROC_WORKER_SLOTS
#define SHARED_RINGS        (PROC_WORKER_SLOTS + 1)

/* Open connections by hashed client address, a row a worker slot: written by its worker (which
 * zeroes it when it starts), summed over all rows when a connection comes. A client is counted in
 * two cells, and the lower of the two is its number of connections, so other clients are counted
 * with it only if they share both. */
#define SHARED_CLIENT_CELLS 16384
typedef _Atomic uint16_t shared_client_row[SHARED_CLIENT_CELLS];

#define SHARED_SEGMENTS (34 + SHARED_RINGS)

/* A segment, with what is needed to pass it on. */
struct shared_segment {
    struct shm_segment shm;
    char name[32]; /* "polder-limits" */
    bool keep;  /* in memory, and meant to outlive all processes: its descriptor has to be stored */
    bool found; /* it is that of an earlier run */
    bool in_use; /* by other processes, just now */
};

/* A descriptor of an earlier run. */
struct shared_found {
    char name[32];
    int fd; /* -1: taken */
};

/* A descriptor that the program before has left over execve(2): a segment by its name, or an event
 * ("event-keeper"). Others use it just now. */
struct shared_left {
    char name[32];
    int fd;
};
#define SHARED_LEFT_MAX (SHARED_SEGMENTS + 4 + PROC_WORKER_SLOTS)

struct shared {
    struct proc_table *proc;
    struct stats_slab *stats; /* [PROC_SLOTS] */
    struct limit_table *limits;
    struct limit_try_board *shadow_limits;
    struct inval_page *inval;           /* file-backed: state_dir/inval.page */
    struct guard_page *guard;           /* file-backed: state_dir/guard.page */
    struct condition_table *conditions; /* file-backed: runtime_dir/conditions.page */
    struct fetch_lock_table *fetch_locks;
    _Atomic uint8_t *ref; /* [CACHE_SLOTS_MAX] uses of cached objects: polder/access_bits.h */
    struct cache_shared *cache;
    shared_client_row *clients;        /* [PROC_WORKER_SLOTS] */
    struct server_table *servers;      /* polder/server_state.h */
    struct tenants_page *tenants;      /* polder/tenants.h */
    struct recent_page *recent;        /* polder/recent.h */
    struct history_page *history;      /* polder/history.h */
    struct alert_page *alerts;         /* polder/alerts.h */
    struct shift_page *shift;          /* file-backed: state_dir/shift.page */
    struct fleet_page *fleet;          /* file-backed: state_dir/fleet.page; polder/fleet.h */
    struct fleet_grants *fleet_grants; /* polder/fleet_grants.h */
    struct fleet_slots *fleet_slots;   /* polder/fleet_slots.h; with polder-supervisor */
    char *fleet_rings;                 /* [PROC_WORKER_SLOTS] rings, from workers to control */
    struct sticky_page *sticky;        /* file-backed: state_dir/sticky.page */
    struct sticky_counts *sticky_counts;
    struct ring *ring[SHARED_RINGS];
    struct config_region *region[SHARED_REGIONS];

    int master_event;                           /* eventfd: a process is ready, or a reload or the
                                            reopening of logs is requested (proc.h) */
    int keeper_event;                           /* eventfd: rings have data */
    int control_event;                          /* eventfd: something for control changed */
    int notifier_event;                         /* eventfd: there is a notice to pass on */
    int worker_event[PROC_WORKER_SLOTS];        /* eventfd a worker: a fetch it waits for has ended,
                                            or its configuration page changed */
    struct shared_segment seg[SHARED_SEGMENTS]; /* what to close in the end */
    size_t segs;
    char anew[768]; /* of what was left by the program before, those of another layout: "a, b" */
};

struct shared_options {
    const char *state_dir;   /* for inval.page and the other pages */
    const char *runtime_dir; /* for conditions.page; NULL: memory alone */
    size_t limit_entries;    /* 0: default */
    struct shared_found *found;
    size_t n_found;
    bool has_store; /* the service manager keeps descriptors: nothing is kept in files */
    bool no_caches; /* no route caches: inval.page is in memory alone */
    /* Taken over as they are; one whose layout is another one is made anew and named in
     * shared.anew, and those who use the old one keep it. Configurations are never taken over: they
     * hold pointers. */
    const struct shared_left *left;
    size_t n_left;
    bool proving; /* only to see whether it would do: no file is touched */
};

/* 0 or a negative errno, with the reason logged. */
int shared_create(struct shared *sh, const struct shared_options *opt);
void shared_destroy(struct shared *sh);
/* For each segment that is taken over, and each event. */
void shared_each_left(const struct shared *sh, void (*fn)(void *arg, const char *name, int fd),
                      void *arg);
/* False: a file that backs a segment was truncated; access beyond its end is a SIGBUS. */
bool shared_is_whole(const struct shared *sh);
/* The descriptor behind `servers`, for the supervisor. */
int shared_servers_fd(const struct shared *sh);
int shared_slots_fd(const struct shared *sh); /* the same of fleet_slots */
/* In which a worker notes what it has invalidated, for other hosts. */
struct ring *shared_fleet_ring(const struct shared *sh, unsigned worker_slot);
/* Makes the master check the process table. Never blocks. */
void shared_wake_master(const struct shared *sh);
void shared_wake_control(const struct shared *sh);
void shared_wake_notifier(const struct shared *sh);
/* Writes the eventfd of each worker that holds long polls (proc_slot.holding); called after an
 * invalidation, and by the keeper after it has stored something. Never blocks. */
void shared_wake_holders(const struct shared *sh);
/* The same of all workers. */
void shared_wake_workers(const struct shared *sh);
void shared_wake_worker(const struct shared *sh, unsigned worker_slot);

#endif

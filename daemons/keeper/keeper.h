/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * keeper: the only process that writes the cache. Private to daemons/keeper.
 *
 *   main.c        first steps, last steps
 *   loop.c        one round: limits, rings, room, background work; sleeps when idle; handles
 *                 failures of the database
 *   intake.c      records from the rings become objects; permits are released after the commit
 *   expire.c      deletes useless objects
 *   sweep.c       deletes invalidated objects, in slices
 *   removals.c    why an object was removed
 *   file_watch.c  detects foreign access to the store's files
 *   store/        the database and its private tables; no other folder uses LMDB
 *   inspect/      queries of the store, for control
 *
 * A keeper may be killed at any instant: LMDB's two meta pages keep the database whole, the rings
 * keep what was not committed, and all else is made again from `idx`.
 */
#ifndef POLDER_KEEPER_H
#define POLDER_KEEPER_H
#include "daemons/keeper/store/store.h"
#include "polder/conditions.h"
#include "polder/process.h"
#include "polder/ring.h"
#include "polder/runtime.h"
#include <ev.h>
#include <limits.h>
#include <sys/queue.h>

#define KEEPER_BATCH_RECORDS 64
#define KEEPER_BATCH_BYTES   (1u << 20)
#define KEEPER_BATCH_NS      2000000u
#define KEEPER_SLICE         48     /* deletions in one transaction: 20 to 30 us each */
#define KEEPER_SLICE_NS      500000 /* for looking, in a slice of background work */

/* ---- intake.c ---- */
struct stream; /* a body that comes in chunks */
struct intake {
    LIST_HEAD(, stream) streams;
    uint32_t n_streams;
    uint16_t put[KEEPER_BATCH_RECORDS]; /* cache_stored_slot() of what this batch has stored */
    uint32_t n_put;
    unsigned first_ring;      /* where the next batch begins: all rings take turns */
    bool awake[SHARED_RINGS]; /* `sleeping` is 0 */
    uint64_t complained_ms;
    char *record; /* RING_RECORD_MAX bytes and some to pad */
};

/* ---- sweep.c ---- */
#define SWEEP_URLS 256
struct sweep_ban {
    uint64_t seq;      /* 0: none known in this slot */
    uint64_t done_txn; /* 0: not through yet; then the commit after which nothing is left */
    uint64_t seen_ms;
    bool walked; /* the walk that is under way is for it too */
};
struct sweep_walk { /* along `url`, for all bans that were known when it began */
    bool on;
    uint16_t at_len; /* where to go on; 0: from the start */
    uint8_t at[STORE_URL_KEY];
};
struct sweep_url {
    uint16_t len;
    char url[STORE_URL_CUT];
};
struct sweep {
    struct sweep_ban ban[INVAL_BANS];
    struct sweep_walk walk;
    struct sweep_url url[SWEEP_URLS]; /* a queue of single URLs */
    uint32_t url_first, n_urls;
    bool all, all_again; /* looking at every object; once more when through */
    uint64_t all_at;     /* obj_id to go on from */
    bool verify;         /* checksums too: the first time after a start */
    uint64_t all_began_ms;
    uint64_t all_next_ms; /* not before */
};

/* ---- store/rotate.c ---- */
struct keeper;
/* Callbacks for opening and closing of the store; set before rotate_start(). */
struct rotate_hooks {
    void (*opened)(struct keeper *k);       /* it is complete and published */
    void (*leaves)(struct keeper *k);       /* it is not found any more, but still open */
    void (*file_changes)(struct keeper *k); /* data.mdb is about to get another length */
    void (*file_changed)(struct keeper *k);
};
struct rotate {
    const struct rotate_hooks *hooks;
    int lock;            /* state_dir/keeper.lock; -1: not held */
    uint64_t retry_ms;   /* next try to open a store */
    uint64_t full_ms[2]; /* the last two times the map was full */
    char complaint[256]; /* last log line: not repeated */
    bool grow_failed;
    bool troubled; /* a condition is raised: this one */
    enum condition_id trouble;
};

/* ---- file_watch.c ---- */
#define WATCH_FILES 2
struct watch_file {
    int wd; /* -1: not watched */
    uint32_t seen;
    ino_t inode;
    dev_t device;
};
struct file_watch {
    ev_io io; /* inotify; fd -1: there is none */
    void (*on_touched)(struct keeper *k, const char *why);
    struct watch_file file[WATCH_FILES];
};

struct keeper {
    const struct process *process;
    struct shared *shared;
    struct proc_slot *slot;
    struct stats_slab *stats;
    char state_dir[PATH_MAX], runtime_dir[PATH_MAX]; /* regions of old configurations are reused */

    struct ev_loop *loop;
    ev_io event;
    ev_timer tick, rest;
    ev_signal term;
    bool stopping;

    uint64_t mono_ms, real_ms;
    uint64_t real_last_ms, mono_last_ms; /* at the last tick, to see the clock step back */
    uint64_t tick_due_ms;

    uint32_t region; /* followed */
    uint64_t runtime_generation;
    struct runtime_values runtime;
    bool caches; /* a route of the configuration has a cache section; else there is no store */

    struct store store;
    struct intake intake;
    struct sweep sweep;
    struct rotate rotate;
    struct file_watch file_watch;
    uint32_t expire_at;     /* slot to look at next */
    bool expiring;          /* the round of this second is not over */
    unsigned turn;          /* the next slice of background work */
    uint64_t rest_until_ns; /* mono: none before; 0: there is none that waits */

    uint64_t processes;             /* changes when a worker dies or comes */
    uint64_t lag_txn, lag_since_ms; /* a reader that does not move */
    int lag_pid;
    struct inspect *inspect;
};

/* The result of a slice of work. rc: the database failed with that code while it was to do
 * `what`: the transaction is still open, and the loop decides what follows (rotate_failed()). */
struct slice_result {
    bool more; /* there may be more to do at once */
    int rc;
    const char *what;
};
#define SLICE_IDLE ((struct slice_result){0})

/* ---- loop.c ---- */
int keeper_loop_open(struct keeper *k);
void keeper_loop(struct keeper *k);
void keeper_loop_close(struct keeper *k);
void keeper_time(struct keeper *k);
void keeper_follow_limits(struct keeper *k);
void keeper_gauges(struct keeper *k);

/* ---- intake.c ---- */
int intake_init(struct keeper *k);
void intake_fini(struct keeper *k);
/* One batch, one transaction. more: something was taken. */
struct slice_result intake_batch(struct keeper *k);
bool intake_pending(const struct keeper *k);
void intake_sleep(struct keeper *k, bool asleep);
void intake_drop_dead(struct keeper *k); /* streams of producers that are gone */
/* Streams are lost with their transaction or store. */
void intake_forget(struct keeper *k);

/* ---- expire.c ---- */
struct slice_result expire_slice(struct keeper *k);

/* ---- sweep.c ---- */
void sweep_init(struct keeper *k);
void sweep_hint(struct keeper *k, const struct ring_sweep *what, const char *text);
void sweep_tick(struct keeper *k);                 /* looks for bans; retires finished ones */
struct slice_result sweep_slice(struct keeper *k); /* more: something was done */

/* ---- store/rotate.c ---- */
void rotate_start(struct keeper *k); /* opens a store: the one that is there, or an empty one */
void rotate_tick(struct keeper *k);  /* retries, grows, answers requests */
void rotate_now(struct keeper *k, const char *why);
/* A transaction failed with rc: aborts it, makes room or rotates. Streams are forgotten before. */
void rotate_failed(struct keeper *k, int rc, const char *what);
void rotate_stop(struct keeper *k); /* clean: synced, flagged */

/* ---- file_watch.c ---- */
void file_watch_open(struct keeper *k, void (*on_touched)(struct keeper *k, const char *why));
void file_watch_close(struct keeper *k);
void file_watch_begin(struct keeper *k); /* the store is open and complete */
void file_watch_end(struct keeper *k);   /* before anything is done to the file itself */

/* ---- store/check.c ---- */
struct check_result {
    struct store_meta meta;
    uint64_t map_bytes, objects, newest_fetch_seq;
    bool whole;    /* every checksum was verified, not only the structure */
    char why[160]; /* what is wrong */
};
/* Reads dir/data.mdb without LMDB. 0, or -EPROTO with result->why, or another negative errno.
 * beat() is called from time to time. budget_ms: then only the structure is looked at. */
int check_file(const char *dir, unsigned budget_ms, void (*heartbeat)(void *), void *arg,
               struct check_result *result);

/* ---- inspect/list.c ---- */
int inspect_open(struct keeper *k);
void inspect_close(struct keeper *k);
struct slice_result inspect_slice(struct keeper *k); /* more: to answer */
#endif

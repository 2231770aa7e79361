/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_try: candidate limits (shadow limits) that are charged beside the live ones, and never
 * refuse.
 *
 * One board for all configurations, in shared memory: a try goes on over a reload and a respawn of
 * control. Control writes a slot: its run is 0 meanwhile, and its number is stored last. Workers
 * copy the slots with each generation of the running values, so control publishes one after each
 * change. A worker counts in a row of its own: no count is lost when it dies, and a late one counts
 * for a run that is not read any more.
 *
 * The candidate's requests are counted under keys of the run (limit_try_key()), so that it is exact
 * over all workers and starts with nothing. It exempts the same clients as the limit, or a list of
 * its own instead: then it also counts clients that only the limit exempts. Clients that it would
 * have refused are in the list LIMIT_TOP_TRY + slot (limit_top.h), each request noted.
 */
#ifndef POLDER_LIMIT_TRY_H
#define POLDER_LIMIT_TRY_H
#include "polder/limit.h"
#include "polder/proc.h"

#define LIMIT_TRY_SLOTS 8 /* limits that can be tried at once; the last reports stay there too */
#define LIMIT_TRY_NAME  72

struct limit_try_counts {
    uint64_t requests;     /* charged to the limit or the candidate, and not refused by another */
    uint64_t live_refused; /* by the limit itself; in dry_run: would have been */
    uint64_t refused;      /* would have been, by the candidate */
};
struct limit_try_row {                 /* of a process slot */
    _Alignas(64) _Atomic uint64_t run; /* run that these counts belong to; 0: none */
    _Atomic uint64_t requests, live_refused, refused;
};

/* The terms of a trial. Times are monotonic. */
struct limit_try_terms {
    uint64_t limit_id; /* config_limit.id */
    uint64_t started_ms, until_ms;
    struct runtime_limit live, candidate; /* live: the limit at the start */
    struct exempt exempt;                 /* replaces the limit's list, if exempts */
    bool exempts;
    char name[LIMIT_TRY_NAME]; /* of the limit */
};
struct limit_try {
    _Alignas(64) _Atomic uint64_t run; /* never the same twice; 0: nothing here */
    _Atomic uint32_t ended;            /* control has said so */
    struct limit_try_terms terms;
    struct limit_try_row row[PROC_SLOTS];
};
struct limit_try_board {
    _Atomic uint64_t runs; /* so far */
    struct limit_try slot[LIMIT_TRY_SLOTS];
};

/* ---- control ---- */

/* The slot with the limit's running or last try, or -1. */
int limit_try_find(const struct limit_try_board *board, uint64_t limit_id);
/* Begins one in the slot of the limit's last one; else in a free slot, or that of the oldest
 * finished one. Returns the slot, or -EBUSY: LIMIT_TRY_SLOTS are running. Publish a generation
 * afterwards. */
int limit_try_begin(struct limit_try_board *board, struct limit_table *table,
                    const struct limit_try_terms *terms);
void limit_try_counts(const struct limit_try *slot, struct limit_try_counts *out);

/* ---- workers ---- */

/* Copies the terms of a slot. Returns its run; 0: nothing is charged there. */
uint64_t limit_try_read(const struct limit_try *slot, uint64_t now_ms, struct limit_try_terms *out);
/* key: that of the limit itself. */
uint64_t limit_try_key(const struct limit_table *table, uint64_t run, uint64_t key);
/* Adds to the row of the process slot. Only for its owner. False: another run has begun there. */
bool limit_try_add(struct limit_try *slot, uint64_t run, uint32_t process,
                   const struct limit_try_counts *more);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_try: candidates that are charged beside the limits of that name, and refuse nobody.
 *
 * One board for all configurations, in shared memory: a try goes on over a reload and a respawn of
 * control. Control writes a slot: its run is 0 meanwhile, and its number is stored last. Workers
 * copy the slots with each generation of the running values, so control publishes one after each
 * change. A worker counts in a row of its own, in its own words: no count is lost when it dies, and
 * one that is late counts for a run that nobody reads any more.
 *
 * The candidate's requests are counted under keys of the run (limit_try_key()), so that it is exact
 * over all workers and starts with nothing. It exempts whom the limit exempts, or a list of its own
 * instead: then it is asked about those too whom only the limit exempts. Clients that it would have
 * refused are in the list LIMIT_TOP_TRY + slot (limit_top.h), each request noted.
 */
#ifndef POLDER_LIMIT_TRY_H
#define POLDER_LIMIT_TRY_H
#include "polder/limit.h"
#include "polder/proc.h"

#define LIMIT_TRY_SLOTS 8 /* limits that can be tried at once; the last reports stay there too */
#define LIMIT_TRY_NAME  72

struct limit_try_counts {
    uint64_t requests;     /* that the limit or the candidate was asked about, and no other limit
                              refused */
    uint64_t live_refused; /* by the limit itself; in dry_run: would have been */
    uint64_t refused;      /* would have been, by the candidate */
};
struct limit_try_row {                 /* of a process slot */
    _Alignas(64) _Atomic uint64_t run; /* whose counts these are; 0: nobody's */
    _Atomic uint64_t requests, live_refused, refused;
};

/* What is tried. Times are monotonic. */
struct limit_try_terms {
    uint64_t limit_id; /* config_limit.id */
    uint64_t started_ms, until_ms;
    struct runtime_limit live, candidate; /* live: as it was at the start */
    struct exempt exempt;                 /* instead of whom the limit exempts, if exempts */
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
/* Begins one, instead of the limit's last one; else where nothing is, or the oldest that is over.
 * Returns the slot, or -EBUSY: LIMIT_TRY_SLOTS are running. Publish a generation afterwards. */
int limit_try_begin(struct limit_try_board *board, struct limit_table *table,
                    const struct limit_try_terms *terms);
void limit_try_counts(const struct limit_try *slot, struct limit_try_counts *out);

/* ---- workers ---- */

/* Copies the terms of a slot; returns its run, 0: nothing to be charged there. */
uint64_t limit_try_read(const struct limit_try *slot, uint64_t now_ms, struct limit_try_terms *out);
/* key: what the limit itself counts by. */
uint64_t limit_try_key(const struct limit_table *table, uint64_t run, uint64_t key);
/* Adds to the row of the process slot. Only for its owner. False: another run has begun there. */
bool limit_try_add(struct limit_try *slot, uint64_t run, uint32_t process,
                   const struct limit_try_counts *more);
#endif

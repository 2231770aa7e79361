/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit: rate limits that are exact over all processes, in one shared-memory table.
 *
 * A key (limit id + client) hashes to two buckets of eight entries; an entry has a word {keyed tag,
 * kept until} and a 128-bit state that says itself how it is to be read. A check is one
 * compare-and-swap of the state and takes no lock. Making an entry takes a striped lock that names
 * its owner and is stolen from a dead one, so that not one request too many is admitted when
 * processes meet a new key at once. The guarantee holds whichever process is killed at whatever
 * instant; when a lock cannot be had within 10 ms (its owner is stopped), the request is refused.
 *
 * sliding (RUNTIME_SLIDING): in no span of `window`, wherever it starts, are more than `requests`
 *   admitted; a used slot is free again between 1.0 and 1.2 windows later (six sub-windows of
 *   window/5).
 * fixed: aligned windows.
 * gcra: a burst of `requests`, refilled evenly; counted in requests, so that a changed limit applies
 *   to the same count.
 *
 * Running values may change between any two calls, and differ between processes for a moment:
 * counts are kept. After a change of window or algorithm what was counted counts as if it had come
 * just now.
 *
 * Both buckets of a new key full of live entries: the one with the lowest count is replaced and the
 * new key inherits its count, so a flood of keys cannot free a heavy client. It is counted
 * (evicted_live): the table is too small for the clients of a window. The default holds a million
 * of them with room to spare.
 */
#ifndef POLDER_LIMIT_H
#define POLDER_LIMIT_H
#include "polder/runtime.h"
#include "polder/shm.h"
#include <stdbool.h>

#define LIMIT_ENTRIES_DEFAULT ((size_t)1 << 21) /* 48 MiB, touched as keys come */
#define LIMIT_CHARGES_MAX     8

#define LIMIT_ABI 1 /* of what the words and states mean, beside the layout */

struct limit_table;

/* Bytes of a table of that many entries (rounded up to whole pages). It has two parts that lie one
 * behind the other: the counts, which a restart keeps, and rows and lists of processes, which die
 * with them and have a segment header of their own. */
size_t limit_table_size(size_t entries);
size_t limit_counts_size(size_t entries);
size_t limit_rows_size(void);
uint64_t limit_table_layout(void);
uint64_t limit_rows_layout(void);
/* Fills a zeroed segment: random hash secret, geometry. */
void limit_table_init(struct limit_table *table, size_t entries);
/* The counts of an earlier run, whose processes are all dead: lets go of what these held, and drops
 * what no process can have written. fd: of the segment, to skip what was never written; -1: all is
 * looked at. NULL, or why none of it can be used. */
const char *limit_table_mend(struct limit_table *table, size_t size, int fd, uint64_t now_ms);

/* The calling process, as named in locks; proc tells which owners of locks are dead (NULL: none
 * is). */
struct proc_table;
struct limit_caller {
    struct limit_table *table;
    const struct proc_table *proc;
    uint32_t slot, incarnation;
};

struct limit_charge {
    uint64_t key;                      /* limit_key() */
    const struct runtime_limit *limit; /* running values */
    uint32_t cost;                     /* 1.. ; more than `requests`: never admitted */
};
struct limit_verdict {
    bool admitted;      /* by this limit; another one may have refused the request */
    uint32_t remaining; /* requests left now; after this one, if it was admitted by all */
    uint64_t reset_ms;  /* until more quota is there (RateLimit t=); 0: all of it is */
    uint64_t retry_ms;  /* refused: a request after this many ms is admitted if no other comes;
                           one second earlier it is not */
};

/* The hashed key of `who` (bytes) under a limit: XXH3-64 with the table's secret; never 0. Keys may
 * be remembered until the running values have a new generation: see limit_reset_all(). */
uint64_t limit_key(const struct limit_table *table, uint64_t limit_id, const void *who, size_t len);

/* Charges all n, or none if one refuses. verdict[n] is filled for each. dry_run limits are charged
 * and reported in verdict[i].admitted = false, but never refuse. Returns true if admitted. now_ms:
 * monotonic; processes whose clocks differ do no harm, the latest counts. Limits are looked at
 * before any is charged; if the last place of one is taken in between, the others get back what
 * they were charged (for that instant they may refuse another request). Killed in between: they
 * keep it. */
bool limit_charge(const struct limit_caller *caller, const struct limit_charge *charge, size_t n,
                  uint64_t now_ms, struct limit_verdict *verdict);
/* What a charge would say, without charging. */
void limit_peek(const struct limit_caller *caller, const struct limit_charge *charge,
                uint64_t now_ms, struct limit_verdict *verdict);
/* Forgets the counts of one key; true if it had any. */
bool limit_reset_key(const struct limit_caller *caller, uint64_t key);
/* Forgets all counts of a limit: from now on its keys hash differently. O(1). Publish a new
 * generation of the running values afterwards, so that no process goes on with remembered keys. */
void limit_reset_all(struct limit_table *table, uint64_t limit_id);

/* Requests in flight (`concurrent`): counted by each process in a row of its own, so that a process
 * that dies takes its counts with it and nothing can leak. One more request of the key begins, if
 * fewer than `max` are under way in all processes; those of a killed process count until it is
 * reaped. It ends with limit_leave() of the same key. Exact; refused also when the process has no
 * room for the key (some ten thousand different ones at once), or its lock cannot be had within
 * 10 ms. */
bool limit_enter(const struct limit_caller *caller, uint64_t key, uint32_t max);
void limit_leave(const struct limit_caller *caller, uint64_t key);
/* The same, of no more than the upper half of *word either, and of none unless *held_for is the key;
 * both can change only under the lock of the key. */
bool limit_enter_held(const struct limit_caller *caller, uint64_t key, uint32_t max,
                      const _Atomic uint64_t *held_for, const _Atomic uint64_t *word);
uint32_t limit_inside(const struct limit_caller *caller, uint64_t key); /* under way now */

struct limit_table_stats {
    uint64_t entries, used, live, evicted_live;
    uint64_t lock_steals;   /* from dead processes */
    uint64_t lock_refusals; /* requests refused because a lock could not be had */
    uint64_t rows_full;     /* requests refused by limit_enter() because there was no room */
};
void limit_table_stats(const struct limit_table *table, uint64_t now_ms,
                       struct limit_table_stats *out);
/* The same without a look at every entry: used and live stay 0. */
void limit_table_counters(const struct limit_table *table, struct limit_table_stats *out);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit: rate limits that are exact over all processes, in one shared-memory table.
 *
 * A key (limit id + who) hashes to two buckets of eight entries; an entry has a 64-bit keyed tag, a
 * 128-bit state changed by one compare-and-swap, and a coarse time until which it must be kept. A
 * check takes no lock. Creating an entry takes a striped advisory lock {slot, incarnation} that is
 * stolen from a dead owner, so that not one request too many is admitted when processes meet a new
 * key at once. Whoever is killed at whatever instant, the promise holds: see limit.c for each step.
 *
 * sliding (RUNTIME_SLIDING): in no span of `window`, wherever it starts, are more than `requests`
 *   admitted; a used slot is free again between 1.0 and 1.2 windows later (six sub-windows of
 * window/5). fixed: aligned windows. gcra: a burst of `requests`, refilled evenly (leaky bucket in
 * counts).
 */
#ifndef POLDER_LIMIT_H
#define POLDER_LIMIT_H
#include "polder/runtime.h"
#include "polder/shm.h"
#include <stdbool.h>

#define LIMIT_ENTRIES_DEFAULT ((size_t)1 << 20)
#define LIMIT_CHARGES_MAX     8

struct limit_table;

/* Bytes of a table of that many entries (rounded up to a power of two); for shm_create. */
size_t limit_table_size(size_t entries);
uint64_t limit_table_layout(void);
/* Fills a zeroed segment: random hash secret, geometry. */
void limit_table_init(struct limit_table *table, size_t entries);

/* Who calls: identifies the process for the creation lock. alive() says whether a (slot,
 * incarnation) still runs; it reads the process table. */
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
    bool admitted;
    uint32_t remaining; /* requests left now, after this one */
    uint64_t reset_ms;  /* until more quota is there (RateLimit t=) */
    uint64_t retry_ms;  /* refused: a request after this many ms would be admitted if nobody else
                           came;  one second earlier it would not */
};

/* The hashed key of `who` (bytes) under a limit: XXH3-64 with the table's secret; never 0. */
uint64_t limit_key(const struct limit_table *table, uint64_t limit_id, const void *who, size_t len);

/* Charges all n, or none if one refuses. verdict[n] is filled for each. dry_run limits are charged
 * and reported in verdict[i].admitted = false, but refuse nobody. Returns true if admitted. now_ms:
 * monotonic. */
bool limit_charge(const struct limit_caller *caller, const struct limit_charge *charge, size_t n,
                  uint64_t now_ms, struct limit_verdict *verdict);
/* What a charge would say, without charging. */
void limit_peek(const struct limit_caller *caller, const struct limit_charge *charge,
                uint64_t now_ms, struct limit_verdict *verdict);
/* Forgets the counts of one key; true if it had any. */
bool limit_reset_key(const struct limit_caller *caller, uint64_t key);
/* Forgets all counts of a limit (the limit id is mixed into an epoch: O(1)). */
void limit_reset_all(struct limit_table *table, uint64_t limit_id);

struct limit_table_stats {
    uint64_t entries, used, live, evicted_live, lock_steals;
};
void limit_table_stats(const struct limit_table *table, uint64_t now_ms,
                       struct limit_table_stats *out);
#endif

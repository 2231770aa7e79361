/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_top: the heaviest and the most refused clients of each limit; exact while there are few.
 *
 * Each process keeps two small lists a limit (Space-Saving over LIMIT_TOP_ROWS clients) in the
 * limiter's segment. It looks at each request as long as these are few, LIMIT_TOP_EXACT a second,
 * and then at one in LIMIT_TOP_SAMPLE, which counts as so many: the hot path only decrements a
 * counter. Counts are halved each minute, so the lists cover the last minutes. Control adds up
 * the lists of all processes. A process that dies leaves its lists; its successor goes on with
 * them, unless a reload has given their place to another limit.
 */
#ifndef POLDER_LIMIT_TOP_H
#define POLDER_LIMIT_TOP_H
#include "polder/limit.h"

/* Places of lists: one a limit by config_limit.index, one of the clients of polled routes, and some
 * of those that a candidate would have refused (limit_try.h). */
#define LIMIT_TOP_POLL   RUNTIME_LIMITS_MAX
#define LIMIT_TOP_TRY    (RUNTIME_LIMITS_MAX + 1)
#define LIMIT_TOP_LISTS  (RUNTIME_LIMITS_MAX + 1 + 8)
#define LIMIT_TOP_ROWS   32
#define LIMIT_TOP_WHO    64
#define LIMIT_TOP_SAMPLE 16
#define LIMIT_TOP_EXACT  128

enum limit_top_by { LIMIT_TOP_HEAVIEST, LIMIT_TOP_REFUSED };

/* A list belongs to a limit: counts noted in its place for another limit, before a reload or by a
 * worker that still has the old configuration, are not part of it. */
struct limit_top_list {
    uint32_t place; /* config_limit.index, LIMIT_TOP_POLL, LIMIT_TOP_TRY + n */
    uint64_t id;    /* config_limit.id; 0: of no limit */
};

struct limit_top_row {
    uint64_t key;
    uint64_t requests;       /* charged or refused (HEAVIEST), refused (REFUSED) */
    uint64_t error;          /* at most so many of them may belong to others */
    uint32_t who_len;        /* of the whole key; `who` has its first bytes */
    char who[LIMIT_TOP_WHO]; /* as limitkey.h has it */
};

/* One a process, private to it; zeroed at first. */
struct limit_top_sampler {
    uint32_t left;
    uint32_t random;
    uint32_t spent;  /* of LIMIT_TOP_EXACT */
    uint32_t weight; /* requests that the last sampled one represents */
    uint32_t next;   /* ... and that the next one will; 0: 1 */
};

void limit_top_rearm(struct limit_top_sampler *sampler);
/* Each second. */
static inline void limit_top_refill(struct limit_top_sampler *sampler)
{
    sampler->spent = 0;
}

/* Whether this request is to be noted. The gaps are random, so a client that sends in step cannot
 * hide between samples. */
static inline bool limit_top_due(struct limit_top_sampler *sampler)
{
    if (__builtin_expect(sampler->left != 0, 1)) {
        sampler->left--;
        return false;
    }
    limit_top_rearm(sampler);
    return true;
}

/* weight: requests that this one represents, as the sampler says. now_ms: with a constant value
 * nothing is halved. who: the bytes that limit_key() was made of. Only for the owner of
 * caller->slot. */
void limit_top_note(const struct limit_caller *caller, struct limit_top_list list, uint64_t key,
                    const void *who, size_t len, bool refused, uint32_t weight, uint64_t now_ms);
/* At most max rows, the most requests first; how many there are. Any process; never waits for a
 * writer: a row that is being written is left out. */
size_t limit_top_read(const struct limit_table *table, struct limit_top_list list,
                      enum limit_top_by by, struct limit_top_row *rows, size_t max);
/* Empties all lists of a place. O(1). */
void limit_top_forget(struct limit_table *table, uint32_t place);
#endif

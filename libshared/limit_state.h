/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_state: what the 128 bits of a limiter entry mean to each algorithm, and the one step that
 * changes them. Private to libshared/limit*.c.
 *
 * sliding  bits 0..31: number of the newest sub-window (of window/5, rounded up); six counts of 16
 * bits follow, newest first. A span of one window always lies within six sub-windows. fixed    low
 * word: number of the window; high word: its count. gcra     low word: when the level was last
 * drained (ms); high word: level, in 1/window_ms of a request, so that `requests` of these units
 * drain each millisecond and nothing is ever rounded. Zero is a valid state of all: nothing has
 * been counted.
 */
#ifndef POLDER_LIMIT_STATE_H
#define POLDER_LIMIT_STATE_H
#include "polder/limit.h"

typedef unsigned __int128 limit_word;
struct limit_state {
    _Alignas(16) volatile limit_word word;
};

limit_word limit_state_load(struct limit_state *s);
/* On failure *seen is what was there. */
bool limit_state_swap(struct limit_state *s, limit_word *seen, limit_word mine);
void limit_state_overwrite(struct limit_state *s, limit_word mine);

/* A code of algorithm and window: equal only where states can be compared. Never UINT32_MAX. */
uint32_t limit_shape(const struct runtime_limit *limit);
/* Mono seconds until which an entry charged now matters, rounded up. */
uint32_t limit_keep_until(const struct runtime_limit *limit, uint64_t now_ms);
/* A state that counts `level` requests as if they came now. */
limit_word limit_state_fresh(const struct runtime_limit *limit, uint64_t now_ms, uint64_t level);
/* Requests that the state counts now, at least; shape says in which units. */
uint64_t limit_state_level(limit_word w, uint32_t shape, uint64_t now_ms);
/* Adds `add` if `cost` more fit; fills the verdict. */
void limit_state_charge(struct limit_state *s, const struct runtime_limit *limit, uint32_t add,
                        uint32_t cost, uint64_t now_ms, struct limit_verdict *v);
void limit_state_refund(struct limit_state *s, const struct runtime_limit *limit, uint32_t cost,
                        uint64_t now_ms);
/* What a key that has never been seen would be told. */
void limit_verdict_fresh(const struct runtime_limit *limit, uint32_t cost, struct limit_verdict *v);
#endif

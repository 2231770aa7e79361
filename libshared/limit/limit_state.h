/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_state: the 128 bits of a limiter entry, their meaning for each algorithm, and every
 * decision made from them. Private to libshared/limit*.c and its tests.
 *
 * A state describes its own format: its lowest bits are a format number, under which the table has
 * registered an algorithm and a window (0: nothing was counted yet). So a limit whose window was
 * changed finds the old counts and converts them in the same compare-and-swap that charges the
 * request, and two limits never mistake each other's states.
 *
 *            bits 0..9  10..31                     32..127
 *   sliding  format     newest sub-window's number six counts of 16 bits, the newest first
 *   fixed    format     the window's number        32..63: count
 *   gcra     format     10..63: when it was last   64..127: level, in 1/window_ms of a request: it
 *                       drained, ms                falls by `requests` each ms; nothing is rounded
 *
 * Why sliding is strict: a sub-window is window/5, rounded up, so any span of one window lies
 * within six of them. Let x be the last admitted of a set of requests, in the order of the
 * compare-and-swaps, and e the newest sub-window it saw; whatever lies in e-5..e was counted. One
 * that was not counted began before (e-5)*unit; x was decided after some process had read a clock
 * of e*unit or later: more than a window lies between them. Clocks may differ between processes: a
 * slower one never moves a state back.
 */
#ifndef POLDER_LIBSHARED_LIMIT_LIMIT_STATE_H
#define POLDER_LIBSHARED_LIMIT_LIMIT_STATE_H
#include "polder/limit.h"

__extension__ typedef unsigned __int128 limit_word;

#define LIMIT_FORMAT_BITS 10
#define LIMIT_FORMATS     (1u << LIMIT_FORMAT_BITS)

/* One limit, made ready for one check at one time. */
struct limit_rule {
    uint64_t requests;
    uint64_t window_ms;
    uint64_t unit_ms; /* sliding: of a sub-window; fixed: the window */
    uint64_t number;  /* now / unit */
    uint64_t into_ms; /* now % unit */
    uint64_t now_ms;
    uint64_t keep_ms;        /* from now, until nothing charged now matters */
    uint64_t now_s, until_s; /* now, and now + keep_ms rounded up, in seconds */
    uint32_t algorithm;
    uint32_t format;
    uint32_t header; /* sliding, fixed: the low bits of a state that was changed in this unit */
};

/* The state as it is now, and at least `level` requests counted, the lacking ones as if they came
 * now. */
limit_word limit_state_inherit(const struct limit_rule *rule, limit_word word, uint64_t level,
                               const _Atomic uint64_t *formats);
/* Takes a charge back that was added to `before` (of limit_state_charge()); false if it is
 * no longer there to be taken. Never takes more than the charge still weighs. */
bool limit_state_refund(const struct limit_rule *rule, limit_word before, limit_word *word,
                        uint32_t cost);
/* Requests that a state of any format still counts, rounded up. */
uint64_t limit_state_level(limit_word word, const _Atomic uint64_t *formats, uint64_t now_ms);
/* The same for many: reader, zeroed at first, remembers the last format. */
uint64_t limit_state_level_next(struct limit_rule *reader, limit_word word,
                                const _Atomic uint64_t *formats, uint64_t now_ms);
#endif

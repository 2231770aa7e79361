/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_algorithms: the three algorithms, as functions of a state, a limit and a time. All of it is
 * inline: a check takes 20 ns, and half a dozen calls would be a good part of that. See
 * limit_state.h for what a state is.
 */
#ifndef POLDER_LIBSHARED_LIMIT_LIMIT_ALGORITHMS_H
#define POLDER_LIBSHARED_LIMIT_LIMIT_ALGORITHMS_H
#include "libshared/limit/limit_state.h"

/* Not left to the compiler: where the rule is in memory instead of registers, a check takes a
 * quarter longer. */
#define LIMIT_HOT static inline __attribute__((always_inline))

#define SUBWINDOWS  5 /* a window has five; six are counted */
#define COUNTS      6
#define COUNT_BITS  16
#define COUNT_MAX   UINT64_C(0xffff)
#define COUNT_SHIFT 32 /* of the newest */
#define FORMAT_MASK ((UINT64_C(1) << LIMIT_FORMAT_BITS) - 1)
#define NUMBER_BITS 22
#define NUMBER_MASK ((UINT64_C(1) << NUMBER_BITS) - 1)
#define TIME_MASK   ((UINT64_C(1) << (64 - LIMIT_FORMAT_BITS)) - 1)

/* 30 days, as runtime_limit_check() has it: products of a window and `requests` fit 64 bits. */
#define WINDOW_MAX_MS UINT64_C(2592000000)

/* algorithm and window as one number, never 0: the meaning of a format */
LIMIT_HOT uint64_t limit_format_value(uint32_t algorithm, uint64_t window_ms)
{
    return window_ms << 3 | (uint64_t)(algorithm & 3) << 1 | 1;
}

LIMIT_HOT uint32_t limit_format_of(limit_word word)
{
    return (uint32_t)((uint64_t)word & FORMAT_MASK);
}

LIMIT_HOT uint64_t word_low(limit_word word)
{
    return (uint64_t)word;
}

LIMIT_HOT uint64_t word_high(limit_word word)
{
    return (uint64_t)(word >> 64);
}

LIMIT_HOT limit_word word_make(uint64_t high, uint64_t low)
{
    return (limit_word)high << 64 | low;
}

LIMIT_HOT uint64_t unit_of(uint32_t algorithm, uint64_t window_ms)
{
    return algorithm == RUNTIME_SLIDING ? (window_ms + SUBWINDOWS - 1) / SUBWINDOWS : window_ms;
}

/* Windows and requests outside the ranges of runtime_limit_check() are cut to them. */
LIMIT_HOT void rule_fill(struct limit_rule *r, uint32_t algorithm, uint64_t window_ms,
                         uint64_t requests, uint64_t now_ms)
{
    r->algorithm = algorithm;
    r->window_ms = window_ms == 0 ? 1 : window_ms > WINDOW_MAX_MS ? WINDOW_MAX_MS : window_ms;
    r->requests = algorithm == RUNTIME_SLIDING && requests > COUNT_MAX ? COUNT_MAX : requests;
    r->unit_ms = unit_of(algorithm, r->window_ms);
    r->number = algorithm == RUNTIME_GCRA ? 0 : now_ms / r->unit_ms;
    r->into_ms = now_ms - r->number * r->unit_ms;
    r->now_ms = now_ms;
    r->keep_ms = algorithm == RUNTIME_SLIDING ? COUNTS * r->unit_ms : r->window_ms;
    r->now_s = now_ms / 1000;
    r->until_s = (now_ms + r->keep_ms) / 1000 + 1;
}

LIMIT_HOT uint64_t header_of(const struct limit_rule *r, uint64_t number)
{
    return (number & NUMBER_MASK) << LIMIT_FORMAT_BITS | r->format;
}

/* format: what the table has registered limit_format_value() of the limit under. */
LIMIT_HOT void limit_rule_init(struct limit_rule *rule, const struct runtime_limit *limit,
                               uint32_t format, uint64_t now_ms)
{
    rule_fill(rule, limit->algorithm, limit->window_ms, limit->requests, now_ms);
    rule->format = format;
    rule->header = (uint32_t)header_of(rule, rule->number);
}

/* ---- numbers of windows, modulo 2^22 ---- */

LIMIT_HOT uint64_t number_of(limit_word word)
{
    return word_low(word) >> LIMIT_FORMAT_BITS & NUMBER_MASK;
}

/* How many units the state is behind the clock; negative: another process has a faster clock. */
LIMIT_HOT int32_t units_behind(const struct limit_rule *r, limit_word word)
{
    const uint32_t d = (uint32_t)(r->number - number_of(word)) << (32 - NUMBER_BITS);
    return (int32_t)d >> (32 - NUMBER_BITS);
}

/* ms from now until the unit `ahead` units after the state's own begins */
LIMIT_HOT uint64_t until_unit(const struct limit_rule *r, limit_word word, uint32_t ahead)
{
    const int64_t units = (int64_t)ahead - units_behind(r, word);
    return units <= 0 ? 0 : (uint64_t)units * r->unit_ms - r->into_ms;
}

/* ---- sliding ---- */

LIMIT_HOT uint64_t sliding_sum(limit_word word)
{
    const uint64_t high = word_high(word), low = word_low(word);
    const uint64_t pairs =
        (high & UINT64_C(0x0000ffff0000ffff)) + (high >> COUNT_BITS & UINT64_C(0x0000ffff0000ffff));
    return (pairs & UINT32_MAX) + (pairs >> 32) + (low >> 32 & COUNT_MAX) + (low >> 48);
}

LIMIT_HOT uint64_t sliding_count(limit_word word, unsigned age)
{
    return (uint64_t)(word >> (COUNT_SHIFT + age * COUNT_BITS)) & COUNT_MAX;
}

/* The time since the last request is unpredictable, so there is no branch except for very recent
 * ones: a misprediction costs more than the whole computation. */
LIMIT_HOT limit_word sliding_now(const struct limit_rule *r, limit_word word)
{
    const int32_t behind = units_behind(r, word);
    if (behind <= 0)
        return word;
    const unsigned passed = behind < COUNTS ? (unsigned)behind : COUNTS;
    return (word >> COUNT_SHIFT) << passed * COUNT_BITS << COUNT_SHIFT | header_of(r, r->number);
}

/* The age of the oldest count that is not 0. */
LIMIT_HOT unsigned sliding_oldest(limit_word word)
{
    const uint64_t high = word_high(word), low = word_low(word) >> COUNT_SHIFT;
    const uint64_t old = -(uint64_t)(high != 0); /* a mask instead of a branch */
    const uint64_t counts = (high & old) | (low & ~old) | 1;
    return (63 - (unsigned)__builtin_clzll(counts)) / COUNT_BITS + (unsigned)(old & 2);
}

/* Until the oldest of what is counted has become too old. ahead: units that the state is ahead of
 * our clock. */
LIMIT_HOT uint64_t sliding_reset(const struct limit_rule *r, limit_word word, uint32_t ahead)
{
    return (COUNTS - sliding_oldest(word) + ahead) * r->unit_ms - r->into_ms;
}

/* Until `need` of what is counted has become too old, if the oldest does not suffice. */
static __attribute__((noinline)) uint64_t sliding_until(const struct limit_rule *r, limit_word word,
                                                        uint64_t need)
{
    unsigned age = sliding_oldest(word);
    uint64_t gone = sliding_count(word, age);
    while (gone < need && age > 0)
        gone += sliding_count(word, --age);
    return gone < need ? r->window_ms : until_unit(r, word, COUNTS - age);
}

LIMIT_HOT bool sliding_try(const struct limit_rule *r, limit_word *word, uint32_t ahead,
                           uint32_t cost, struct limit_verdict *v)
{
    const uint64_t had = sliding_sum(*word), sum = had + cost;
    const bool fits = sum <= r->requests;
    v->retry_ms = 0;
    if (fits)
        *word += (uint64_t)cost << COUNT_SHIFT;
    const uint64_t counted = fits ? sum : had;
    v->remaining = counted < r->requests ? (uint32_t)(r->requests - counted) : 0;
    v->reset_ms = counted ? sliding_reset(r, *word, ahead) : 0;
    if (fits)
        return true;
    v->retry_ms = cost > r->requests       ? r->window_ms
                  : sum - r->requests == 1 ? v->reset_ms
                                           : sliding_until(r, *word, sum - r->requests);
    return false;
}

static inline bool sliding_refund(const struct limit_rule *r, limit_word before, limit_word *word,
                                  uint32_t cost)
{
    const uint64_t age = (number_of(*word) - number_of(before)) & NUMBER_MASK;
    (void)r;
    if (age >= COUNTS || sliding_count(*word, (unsigned)age) < cost)
        return false;
    *word -= (limit_word)cost << (COUNT_SHIFT + age * COUNT_BITS);
    return true;
}

/* ---- fixed ---- */

LIMIT_HOT uint64_t fixed_count(limit_word word)
{
    return word_low(word) >> COUNT_SHIFT;
}

LIMIT_HOT limit_word fixed_now(const struct limit_rule *r, limit_word word)
{
    return units_behind(r, word) > 0 ? header_of(r, r->number) : word;
}

LIMIT_HOT bool fixed_try(const struct limit_rule *r, limit_word *word, uint32_t ahead,
                         uint32_t cost, struct limit_verdict *v)
{
    uint64_t count = fixed_count(*word);
    const bool fits = count + cost <= r->requests;
    const uint64_t end_ms = (1 + ahead) * r->unit_ms - r->into_ms;
    if (fits) {
        *word += (uint64_t)cost << COUNT_SHIFT;
        count += cost;
    }
    v->remaining = count < r->requests ? (uint32_t)(r->requests - count) : 0;
    v->reset_ms = count ? end_ms : 0;
    v->retry_ms = fits ? 0 : cost > r->requests ? r->window_ms : end_ms;
    return fits;
}

static inline bool fixed_refund(const struct limit_rule *r, limit_word before, limit_word *word,
                                uint32_t cost)
{
    (void)r;
    if (number_of(*word) != number_of(before) || fixed_count(*word) < cost)
        return false;
    *word -= (limit_word)cost << COUNT_SHIFT;
    return true;
}

/* ---- gcra ---- */

LIMIT_HOT uint64_t gcra_time(limit_word word)
{
    return word_low(word) >> LIMIT_FORMAT_BITS;
}

/* From the state's time to now, modulo 2^54; negative: another process has a faster clock. */
LIMIT_HOT int64_t gcra_passed(const struct limit_rule *r, limit_word word)
{
    return (int64_t)((r->now_ms - gcra_time(word)) << LIMIT_FORMAT_BITS) >> LIMIT_FORMAT_BITS;
}

LIMIT_HOT limit_word gcra_make(const struct limit_rule *r, uint64_t time_ms, uint64_t level)
{
    return word_make(level, (time_ms & TIME_MASK) << LIMIT_FORMAT_BITS | r->format);
}

LIMIT_HOT limit_word gcra_now(const struct limit_rule *r, limit_word word, uint64_t max)
{
    const int64_t passed = gcra_passed(r, word);
    const uint64_t level = word_high(word) < max ? word_high(word) : max;
    if (passed <= 0)
        return gcra_make(r, gcra_time(word), level);
    if ((uint64_t)passed >= r->window_ms)
        return gcra_make(r, r->now_ms, 0);
    const uint64_t drained = (uint64_t)passed * r->requests;
    return gcra_make(r, r->now_ms, level > drained ? level - drained : 0);
}

/* From now until the level has fallen by `fall`; the state's clock may be ahead of ours. */
LIMIT_HOT uint64_t gcra_until(const struct limit_rule *r, limit_word word, uint64_t fall)
{
    const int64_t passed = gcra_passed(r, word);
    return (passed < 0 ? (uint64_t)-passed : 0) + fall / r->requests + (fall % r->requests != 0);
}

LIMIT_HOT bool gcra_try(const struct limit_rule *r, limit_word *word, uint32_t cost,
                        struct limit_verdict *v)
{
    const uint64_t full = r->requests * r->window_ms, add = cost * r->window_ms;
    uint64_t level = word_high(*word);
    const bool fits = cost <= r->requests && level <= full - add;
    v->retry_ms = 0;
    if (fits) {
        level += add;
        *word = word_make(level, word_low(*word));
    } else {
        v->retry_ms =
            cost > r->requests ? r->window_ms : gcra_until(r, *word, level - (full - add));
    }
    const uint64_t room = full - level;
    v->remaining = (uint32_t)(room / r->window_ms);
    /* until the next whole request fits */
    v->reset_ms = !r->requests ? r->window_ms
                  : level      ? gcra_until(r, *word, r->window_ms - room % r->window_ms)
                               : 0;
    return fits;
}

/* What the charge still weighs: while the level without it would have been zero, the drain was
 * spent on the charge itself. */
static inline bool gcra_refund(const struct limit_rule *r, limit_word before, limit_word *word,
                               uint32_t cost)
{
    const uint64_t passed = (gcra_time(*word) - gcra_time(before)) & TIME_MASK;
    const uint64_t level = word_high(*word), add = cost * r->window_ms;
    if (passed >= r->window_ms)
        return false;
    const uint64_t drained = passed * r->requests, had = word_high(before);
    const uint64_t spent = drained > had ? drained - had : 0;
    if (spent >= add || level < add - spent)
        return false;
    *word = word_make(level - (add - spent), word_low(*word));
    return true;
}

/* ---- any of them ---- */

/* A gcra level above `max` counts as that much. */
static inline limit_word state_advance(const struct limit_rule *r, limit_word word, uint64_t max)
{
    switch (r->algorithm) {
    case RUNTIME_FIXED:
        return fixed_now(r, word);
    case RUNTIME_GCRA:
        return gcra_now(r, word, max);
    default:
        return sliding_now(r, word);
    }
}

static inline uint64_t state_level(const struct limit_rule *r, limit_word word)
{
    switch (r->algorithm) {
    case RUNTIME_FIXED:
        return fixed_count(word);
    case RUNTIME_GCRA:
        return word_high(word) / r->window_ms + (word_high(word) % r->window_ms != 0);
    default:
        return sliding_sum(word);
    }
}

static inline limit_word state_raise(const struct limit_rule *r, limit_word word, uint64_t level)
{
    const uint64_t have = state_level(r, word);
    const uint64_t max = r->algorithm == RUNTIME_SLIDING ? COUNT_MAX : UINT32_MAX;
    level = level < max ? level : max;
    if (level <= have)
        return word;
    if (r->algorithm == RUNTIME_GCRA)
        return gcra_make(r, gcra_time(word), level * r->window_ms);
    return word + ((limit_word)(level - have) << COUNT_SHIFT);
}

/* A state that counts `level` requests as if they had all come now. */
static inline limit_word state_fresh(const struct limit_rule *r, uint64_t level)
{
    return state_raise(
        r, r->algorithm == RUNTIME_GCRA ? gcra_make(r, r->now_ms, 0) : header_of(r, r->number),
        level);
}

/* Rare, so a copy of the rule: then that of the caller can live in registers. */
limit_word limit_state_convert(struct limit_rule rule, limit_word word,
                               const _Atomic uint64_t *formats);

LIMIT_HOT limit_word state_own(const struct limit_rule *r, limit_word word,
                               const _Atomic uint64_t *formats)
{
    if (__builtin_expect(limit_format_of(word) != r->format, 0))
        return limit_state_convert(*r, word, formats);
    return word;
}

/* What a charge of cost makes of a state of any format: if it does not fit the same counts, in the
 * limit's own format, so that what came under another one grows old from its first refusal on, and
 * as of now, so that the next refusal has less to do.
 * *before: the state as it is now without it: old counts dropped, the level drained, another format
 * converted. formats[]: the table's registry, by format. A lowered gcra limit counts as full, not
 * as overfull: it admits again after window / requests. */
LIMIT_HOT limit_word limit_state_charge(const struct limit_rule *r, limit_word word, uint32_t cost,
                                        const _Atomic uint64_t *formats, limit_word *before,
                                        struct limit_verdict *v)
{
    limit_word own = word, now = word, next;
    uint32_t ahead = 0;
    if (r->algorithm == RUNTIME_GCRA) {
        own = state_own(r, word, formats);
        now = next = gcra_now(r, own, r->requests * r->window_ms);
        v->admitted = gcra_try(r, &next, cost, v);
    } else {
        /* One comparison says that there is nothing to convert and nothing too old. */
        if (__builtin_expect((uint32_t)word_low(word) != r->header, 0)) {
            own = state_own(r, word, formats);
            own = now = state_advance(r, own, 0);
            ahead = (uint32_t)-units_behind(r, now);
        }
        next = now;
        v->admitted = r->algorithm == RUNTIME_FIXED ? fixed_try(r, &next, ahead, cost, v)
                                                    : sliding_try(r, &next, ahead, cost, v);
    }
    if (before)
        *before = now;
    return v->admitted ? next : own;
}
#endif

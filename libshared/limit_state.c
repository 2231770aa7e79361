/* SPDX-License-Identifier: BSD-2-Clause */
/* limit_state: see limit_state.h. Pure arithmetic and one compare-and-swap; no table, no clock. */
#include "libshared/limit_state.h"

#define PARTS      5u /* sub-windows of a window */
#define COUNTS     6u /* that are counted: the newest may have just begun */
#define COUNT_BITS 16
#define COUNT_MAX  0xffffu

/* ---- the word ---- */

bool limit_state_swap(struct limit_state *s, limit_word *seen, limit_word mine)
{
    const limit_word was = __sync_val_compare_and_swap(&s->word, *seen, mine);
    const bool ok = was == *seen;
    *seen = was;
    return ok;
}

limit_word limit_state_load(struct limit_state *s)
{
    limit_word seen = s->word; /* may be torn; the swap tells */
    while (!limit_state_swap(s, &seen, seen))
        ;
    return seen;
}

void limit_state_overwrite(struct limit_state *s, limit_word mine)
{
    limit_word seen = s->word;
    while (!limit_state_swap(s, &seen, mine))
        ;
}

/* ---- windows and shapes ---- */

#define SHAPE_SECONDS (1u << 29)
#define SHAPE_VALUE   (SHAPE_SECONDS - 1)

/* A window over six days counts in whole seconds, rounded up, so that a shape fits into 32 bits. */
static uint64_t window_of(const struct runtime_limit *limit)
{
    const uint64_t w = limit->window_ms ? limit->window_ms : 1;
    return w <= SHAPE_VALUE ? w : (w + 999) / 1000 * 1000;
}

uint32_t limit_shape(const struct runtime_limit *limit)
{
    const uint64_t w = window_of(limit);
    return limit->algorithm << 30 |
           (w <= SHAPE_VALUE ? (uint32_t)w : SHAPE_SECONDS | (uint32_t)(w / 1000));
}

static uint64_t shape_window(uint32_t shape)
{
    return shape & SHAPE_SECONDS ? (uint64_t)(shape & SHAPE_VALUE) * 1000 : shape & SHAPE_VALUE;
}

/* Rounded up: five whole sub-windows are never shorter than the window. */
static uint64_t part_of(uint64_t window_ms)
{
    return (window_ms + PARTS - 1) / PARTS;
}

uint32_t limit_keep_until(const struct runtime_limit *limit, uint64_t now_ms)
{
    const uint64_t w = window_of(limit),
                   parts = limit->algorithm == RUNTIME_SLIDING ? COUNTS * part_of(w) : w;
    return (uint32_t)((now_ms + parts) / 1000 + 1);
}

/* ---- sliding ---- */

static unsigned count_of(limit_word w, unsigned i)
{
    return (unsigned)(w >> (32 + COUNT_BITS * i)) & COUNT_MAX;
}

static uint64_t sum_of(limit_word w)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < COUNTS; i++)
        sum += count_of(w, i);
    return sum;
}

/* A process with an older clock never moves the window back. */
static limit_word advance(limit_word w, uint32_t part)
{
    const uint32_t newest = (uint32_t)w, by = part - newest;
    if ((int32_t)by <= 0)
        return w;
    const limit_word counts =
        by >= COUNTS ? 0 : (w >> 32 << (COUNT_BITS * by)) & (((limit_word)1 << 96) - 1);
    return counts << 32 | part;
}

/* When count i of the state leaves the window, in ms from now. */
static uint64_t leaves_in(limit_word w, unsigned i, uint64_t part_ms, uint64_t now_ms)
{
    const uint64_t now_part = now_ms / part_ms;
    const uint64_t newest =
        now_part + (uint64_t)(int64_t)(int32_t)((uint32_t)w - (uint32_t)now_part);
    return (newest - i + COUNTS) * part_ms - now_ms;
}

/* Until `room` requests fit below the limit. */
static uint64_t sliding_wait(limit_word w, uint64_t sum, uint64_t limit, uint64_t room,
                             uint64_t part_ms, uint64_t now_ms)
{
    for (unsigned i = COUNTS; i-- > 0;) {
        if (sum + room <= limit)
            break;
        sum -= count_of(w, i);
        if (count_of(w, i) && (sum + room <= limit || i == 0))
            return leaves_in(w, i, part_ms, now_ms);
    }
    return 0;
}

static void sliding_charge(struct limit_state *s, const struct runtime_limit *limit, uint32_t add,
                           uint32_t cost, uint64_t now_ms, struct limit_verdict *v)
{
    const uint64_t part_ms = part_of(window_of(limit));
    limit_word seen = s->word, mine;
    uint64_t sum;
    do {
        mine = advance(seen, (uint32_t)(now_ms / part_ms));
        sum = sum_of(mine);
        v->admitted = sum + cost <= limit->requests && count_of(mine, 0) + cost <= COUNT_MAX;
        if (v->admitted)
            mine += (limit_word)add << 32;
        else
            mine = seen; /* prove that what we judged by was whole */
    } while (!limit_state_swap(s, &seen, mine));
    mine = advance(mine, (uint32_t)(now_ms / part_ms));
    sum = sum_of(mine);
    v->remaining = (uint32_t)(sum < limit->requests ? limit->requests - sum : 0);
    v->retry_ms = v->admitted ? 0 : sliding_wait(mine, sum, limit->requests, cost, part_ms, now_ms);
    v->reset_ms = 0;
    for (unsigned i = COUNTS; i-- > 0 && !v->reset_ms;)
        if (count_of(mine, i))
            v->reset_ms = leaves_in(mine, i, part_ms, now_ms);
}

/* ---- fixed ---- */

static limit_word pair(uint64_t low, uint64_t high)
{
    return (limit_word)high << 64 | low;
}

static void fixed_charge(struct limit_state *s, const struct runtime_limit *limit, uint32_t add,
                         uint32_t cost, uint64_t now_ms, struct limit_verdict *v)
{
    const uint64_t window = window_of(limit);
    limit_word seen = s->word, mine;
    uint64_t number, count;
    do {
        number = now_ms / window;
        count = (uint64_t)(seen >> 64);
        if ((uint64_t)seen > number)
            number = (uint64_t)seen; /* somebody's clock is ahead of ours */
        else if ((uint64_t)seen < number)
            count = 0;
        v->admitted = count + cost <= limit->requests;
        mine = v->admitted ? pair(number, count + add) : seen;
    } while (!limit_state_swap(s, &seen, mine));
    count += v->admitted ? add : 0;
    v->remaining = (uint32_t)(count < limit->requests ? limit->requests - count : 0);
    v->reset_ms = (number + 1) * window - now_ms;
    v->retry_ms = v->admitted ? 0 : v->reset_ms;
}

/* ---- gcra ---- */

/* One request is window_ms units, and `requests` units drain each ms. */
static uint64_t drained(limit_word w, const struct runtime_limit *limit, uint64_t now_ms)
{
    const uint64_t level = (uint64_t)(w >> 64), since = (uint64_t)w;
    if (now_ms <= since)
        return level;
    const limit_word gone = (limit_word)(now_ms - since) * limit->requests;
    return gone >= level ? 0 : level - (uint64_t)gone;
}

static uint64_t drain_time(limit_word units, uint64_t per_ms)
{
    return (uint64_t)((units + per_ms - 1) / per_ms);
}

static void gcra_charge(struct limit_state *s, const struct runtime_limit *limit, uint32_t add,
                        uint32_t cost, uint64_t now_ms, struct limit_verdict *v)
{
    const uint64_t unit = window_of(limit);
    const limit_word full = (limit_word)limit->requests * unit, need = (limit_word)cost * unit;
    limit_word seen = s->word, mine;
    uint64_t level;
    do {
        level = drained(seen, limit, now_ms);
        v->admitted = level + need <= full;
        if (v->admitted) {
            level += (uint64_t)add * unit;
            mine = pair((uint64_t)seen > now_ms ? (uint64_t)seen : now_ms, level);
        } else {
            mine = seen;
        }
    } while (!limit_state_swap(s, &seen, mine));
    v->remaining = level >= full ? 0 : (uint32_t)((full - level) / unit);
    v->retry_ms = v->admitted ? 0 : drain_time(level + need - full, limit->requests);
    v->reset_ms = drain_time(level % unit ? level % unit : level ? unit : 0, limit->requests);
}

/* ---- all of them ---- */

limit_word limit_state_fresh(const struct runtime_limit *limit, uint64_t now_ms, uint64_t level)
{
    const uint64_t window = window_of(limit);
    if (level > limit->requests)
        level = limit->requests;
    switch (limit->algorithm) {
    case RUNTIME_FIXED:
        return pair(now_ms / window, level);
    case RUNTIME_GCRA:
        return pair(now_ms, level * window);
    default:
        return (limit_word)(level < COUNT_MAX ? level : COUNT_MAX) << 32 |
               (uint32_t)(now_ms / part_of(window));
    }
}

uint64_t limit_state_level(limit_word w, uint32_t shape, uint64_t now_ms)
{
    const uint64_t window = shape_window(shape);
    if (w == 0 || window == 0)
        return 0;
    switch (shape >> 30) {
    case RUNTIME_SLIDING:
        return sum_of(advance(w, (uint32_t)(now_ms / part_of(window))));
    case RUNTIME_FIXED:
        return (uint64_t)w >= now_ms / window ? (uint64_t)(w >> 64) : 0;
    case RUNTIME_GCRA: /* how fast it drains is not known here: as it was at the last request,
                          within a window */
        return now_ms > (uint64_t)w + window ? 0 : ((uint64_t)(w >> 64) + window - 1) / window;
    default:
        return UINT64_MAX - 2; /* being moved: not to be preferred */
    }
}

void limit_state_charge(struct limit_state *s, const struct runtime_limit *limit, uint32_t add,
                        uint32_t cost, uint64_t now_ms, struct limit_verdict *v)
{
    switch (limit->algorithm) {
    case RUNTIME_FIXED:
        fixed_charge(s, limit, add, cost, now_ms, v);
        break;
    case RUNTIME_GCRA:
        gcra_charge(s, limit, add, cost, now_ms, v);
        break;
    default:
        sliding_charge(s, limit, add, cost, now_ms, v);
        break;
    }
}

static limit_word refunded(limit_word w, const struct runtime_limit *limit, uint32_t cost,
                           uint64_t now_ms)
{
    const uint64_t window = window_of(limit);
    if (limit->algorithm == RUNTIME_GCRA) {
        const uint64_t level = (uint64_t)(w >> 64), back = (uint64_t)cost * window;
        return pair((uint64_t)w, level > back ? level - back : 0);
    }
    if (limit->algorithm == RUNTIME_FIXED) {
        const uint64_t count = (uint64_t)(w >> 64);
        return (uint64_t)w == now_ms / window && count >= cost ? pair((uint64_t)w, count - cost)
                                                               : w;
    }
    /* the part it was charged to, if the window has not left it behind */
    const uint32_t back = (uint32_t)w - (uint32_t)(now_ms / part_of(window));
    const unsigned i = (int32_t)back < 0 ? 0 : back;
    return i < COUNTS && count_of(w, i) >= cost ? w - ((limit_word)cost << (32 + COUNT_BITS * i))
                                                : w;
}

void limit_state_refund(struct limit_state *s, const struct runtime_limit *limit, uint32_t cost,
                        uint64_t now_ms)
{
    limit_word seen = limit_state_load(s);
    while (!limit_state_swap(s, &seen, refunded(seen, limit, cost, now_ms)))
        ;
}

void limit_verdict_fresh(const struct runtime_limit *limit, uint32_t cost, struct limit_verdict *v)
{
    *v = (struct limit_verdict){.admitted = cost <= limit->requests,
                                .remaining = limit->requests,
                                .retry_ms = cost <= limit->requests ? 0 : limit->window_ms};
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* limit_state: rarely used functions of a state: how much it counts, and what a new key inherits.
 */
#include "libshared/limit/limit_state.h"
#include "libshared/limit/limit_algorithms.h"

uint64_t limit_state_level_next(struct limit_rule *r, limit_word word,
                                const _Atomic uint64_t *formats, uint64_t now_ms)
{
    const uint32_t format = limit_format_of(word);
    if (format == 0)
        return 0;
    if (format != r->format) {
        const uint64_t value = atomic_load_explicit(&formats[format], memory_order_relaxed);
        rule_fill(r, (uint32_t)(value >> 1 & 3), value >> 3, 0, now_ms);
        r->format = format;
    }
    /* The rate of a gcra limit is not known here: what has not gone within a window counts in
     * full. */
    if (r->algorithm != RUNTIME_GCRA)
        return state_level(r, state_advance(r, word, 0));
    return gcra_passed(r, word) >= (int64_t)r->window_ms ? 0 : state_level(r, word);
}

uint64_t limit_state_level(limit_word word, const _Atomic uint64_t *formats, uint64_t now_ms)
{
    struct limit_rule reader = {.format = 0};
    return limit_state_level_next(&reader, word, formats, now_ms);
}

limit_word limit_state_convert(struct limit_rule rule, limit_word word,
                               const _Atomic uint64_t *formats)
{
    return state_fresh(&rule, limit_state_level(word, formats, rule.now_ms));
}

limit_word limit_state_inherit(const struct limit_rule *rule, limit_word word, uint64_t level,
                               const _Atomic uint64_t *formats)
{
    return state_raise(rule, state_advance(rule, state_own(rule, word, formats), UINT64_MAX),
                       level);
}

bool limit_state_refund(const struct limit_rule *rule, limit_word before, limit_word *word,
                        uint32_t cost)
{
    if (limit_format_of(*word) != rule->format)
        return false;
    switch (rule->algorithm) {
    case RUNTIME_FIXED:
        return fixed_refund(rule, before, word, cost);
    case RUNTIME_GCRA:
        return gcra_refund(rule, before, word, cost);
    default:
        return sliding_refund(rule, before, word, cost);
    }
}

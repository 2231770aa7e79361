/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guard_experiment: does the content depend on the identity fields?
 *
 * One difference proves nothing: content changes, has time stamps, comes from servers that do not
 * agree. So requests with and without the fields alternate, and the answers prove a dependence only
 * if one of the two kinds always gets the same content and the other kind never gets that. Their
 * order is the Thue-Morse sequence (with, without, without, with, without, with, with, ...), which
 * no periodic change of content can follow; a content that changes once or at random breaks the
 * pattern within a few answers, and then the trial is over.
 *
 * A time, a count or a token in each answer would hide everything else. So the answers are also
 * compared without the words in which the first two to the same request differ (guard_words.h): if
 * the rest is equal with and without the fields, it is the same for all. That misses what changes
 * more slowly than the answers follow each other: so they are also compared without words that
 * contain a digit.
 *
 * Where the content depends on them, each field alone is left out twice, to find which one it is.
 *
 * A request without any of the fields cannot be compared like that. But if the backend refuses it
 * repeatedly, serving the copy discloses protected content.
 */
#include "polder/leak_guard.h"

#include <assert.h>
#include <string.h>

#define TURNS_A_FIELD 2
#define REFUSALS      3 /* for an anonymous request */

void guard_experiment_start(struct guard_experiment *t, uint32_t n_fields, uint32_t pairs)
{
    assert(n_fields <= GUARD_FIELDS_MAX && pairs >= 2 && pairs <= GUARD_PAIRS_MAX);
    memset(t, 0, sizeof *t);
    t->fields = (1u << n_fields) - 1;
    t->pairs = (uint8_t)pairs;
}

static bool is_with(unsigned turn)
{
    return __builtin_popcount(turn) % 2 == 0;
}

static bool is_naming(const struct guard_experiment *t)
{
    return t->fields && t->requested >= 2 * t->pairs;
}

bool guard_experiment_is_proven(const struct guard_experiment *t)
{
    return t->verdict == GUARD_DIFFERS || (t->verdict == GUARD_OPEN && is_naming(t));
}

uint32_t guard_experiment_omits(const struct guard_experiment *t)
{
    if (is_naming(t))
        return 1u << t->field;
    return is_with(t->requested) ? 0 : t->fields;
}

static void note(struct guard_level *l, bool with, uint64_t print)
{
    if (with && !l->any_with) {
        l->with = print;
        l->any_with = l->with_same = true;
    } else if (!with && !l->any_without) {
        l->without = print;
        l->any_without = l->without_same = true;
    }
    if (with) {
        l->with_same &= print == l->with;
        l->without_met |= l->any_without && print == l->without;
    } else {
        l->without_same &= print == l->without;
        l->with_met |= print == l->with;
    }
}

static bool tells_apart(const struct guard_level *l)
{
    return (l->with_same && !l->with_met) || (l->without_same && !l->without_met);
}

/* Is this the answer to requests that lack a field that matters? */
static bool is_other(const struct guard_level *l, uint64_t print)
{
    return l->with_same && !l->with_met ? print != l->with : print == l->without;
}

static void conclude(struct guard_experiment *t)
{
    if (!t->named)
        t->named = t->fields; /* each of them is enough, or only several together */
    t->verdict = GUARD_DIFFERS;
}

/* Two answers with the fields, and then one without, are needed. */
static bool may_be_learned(const struct guard_experiment *t)
{
    return t->requested < GUARD_LEARNS + 2 || (t->learned.any_with && tells_apart(&t->learned));
}

static bool is_same_but_for_changes(const struct guard_level *l)
{
    return l->any_with && l->any_without && l->with_same && l->without_same && l->with_met;
}

static void hear_compared(struct guard_experiment *t, const struct guard_print *print)
{
    const bool with = is_with(t->requested++);
    note(&t->content, with, print->content);
    note(&t->masked, with, print->masked);
    note(&t->shape, with, print->shape);
    if (print->is_learned)
        note(&t->learned, with, print->learned);
    if (t->requested < 2)
        return;
    if (t->requested == 2 && t->content.with == t->content.without)
        t->verdict = GUARD_SAME;
    else if (!tells_apart(&t->content) && !tells_apart(&t->masked) && !tells_apart(&t->shape) &&
             !may_be_learned(t))
        t->verdict = is_same_but_for_changes(&t->learned) ? GUARD_SAME : GUARD_UNSTABLE;
    else if (is_naming(t) && t->fields == 1)
        conclude(t);
}

static void hear_named(struct guard_experiment *t, const struct guard_print *print)
{
    if (tells_apart(&t->content))
        t->hits += is_other(&t->content, print->content);
    else if (print->is_learned && tells_apart(&t->learned))
        t->hits += is_other(&t->learned, print->learned);
    else if (tells_apart(&t->masked))
        t->hits += is_other(&t->masked, print->masked);
    else
        t->hits += is_other(&t->shape, print->shape);
    t->requested++;
    if ((t->requested - 2 * t->pairs) % TURNS_A_FIELD)
        return;
    if (t->hits == TURNS_A_FIELD)
        t->named |= 1u << t->field;
    t->hits = 0;
    if (!(t->fields >> ++t->field))
        conclude(t);
}

/* The copy answers every request; does the backend? */
static void hear_bare(struct guard_experiment *t, const struct guard_print *print)
{
    if (!print->refused)
        t->verdict = GUARD_SAME;
    else if (++t->requested == REFUSALS)
        t->verdict = GUARD_DIFFERS;
}

void guard_experiment_hear(struct guard_experiment *t, const struct guard_print *print)
{
    assert(t->verdict == GUARD_OPEN);
    const bool naming = is_naming(t);
    if (!print->usable && naming)
        conclude(t); /* that it differs is known */
    else if (!print->usable)
        t->verdict = GUARD_FAILED;
    else if (!t->fields)
        hear_bare(t, print);
    else if (naming)
        hear_named(t, print);
    else
        hear_compared(t, print);
}

/* ---- masking ---- */

#define MIX UINT64_C(0x9E3779B97F4A7C15)

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * MIX;
    return hash ^ hash >> 29;
}

void guard_mask_start(struct guard_mask *m, uint64_t seed)
{
    *m = (struct guard_mask){.hash = seed};
}

static void word_end(struct guard_mask *m)
{
    if (m->in_word)
        m->hash = mix(m->hash, m->has_digit ? '#' : m->word);
    m->in_word = m->has_digit = false;
    m->word = 0;
}

void guard_mask_add(struct guard_mask *m, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)bytes[i];
        const bool digit = c >= '0' && c <= '9';
        if (!digit && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && c < 0x80) {
            word_end(m);
            m->hash = mix(m->hash, c);
            continue;
        }
        m->in_word = true;
        m->has_digit |= digit;
        m->word = mix(m->word, c);
    }
}

uint64_t guard_mask_end(struct guard_mask *m)
{
    word_end(m);
    return m->hash;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* guard_words: see guard_words.h. */
#include "polder/guard_words.h"

#define WINDOW  32 /* words that two answers may be apart until they agree again */
#define RUN     3  /* words that have to agree then */
#define SLACK   2  /* words that a gap may be longer than those that were seen */
#define GAP_MAX 250
#define GAP_ANY 255 /* whatever follows */
#define STEPS   (64u * GUARD_WORDS)

/* ---- words ---- */

static uint32_t mix(uint32_t hash, uint32_t value)
{
    hash = (hash ^ value) * UINT32_C(0x9E3779B1);
    return hash ^ hash >> 15;
}

static bool is_of_name(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c >= 0x80;
}

static void word_end(struct guard_words *w)
{
    if (!w->in_word)
        return;
    if (w->n < GUARD_WORDS)
        w->hash[w->n++] = (w->word & ~1u) | w->is_name;
    else /* all that follows is one */
        w->hash[GUARD_WORDS - 1] = mix(w->hash[GUARD_WORDS - 1], w->word) & ~1u;
    w->in_word = false;
    w->word = 0;
}

void guard_words_start(struct guard_words *w, uint64_t seed)
{
    w->n = 1;
    w->in_word = false;
    w->word = 0;
    w->hash[0] = mix((uint32_t)seed, (uint32_t)(seed >> 32)) & ~1u;
}

void guard_words_add(struct guard_words *w, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)bytes[i];
        const bool name = is_of_name(c);
        if (name != w->is_name)
            word_end(w);
        w->is_name = name;
        w->in_word = true;
        w->word = mix(w->word, c + 1u);
    }
}

void guard_words_end(struct guard_words *w)
{
    word_end(w);
}

/* ---- pattern ---- */

/* Do they agree from there on, for a while or to their ends? */
static bool agree(const uint32_t *a, uint32_t n_a, const uint32_t *b, uint32_t n_b)
{
    for (uint32_t k = 0; k < RUN; k++) {
        if (k == n_a || k == n_b)
            return k == n_a && k == n_b;
        if (a[k] != b[k])
            return false;
    }
    return true;
}

/* How many words of each to leave out until they agree again; false: they do not. */
static bool resume(const struct guard_words *a, uint32_t i, const struct guard_words *b, uint32_t j,
                   uint32_t *skip_a, uint32_t *skip_b, uint32_t *steps)
{
    for (uint32_t d = 1; d <= WINDOW; d++)
        for (uint32_t x = 0; x <= d; x++) {
            if (i + x > a->n || j + d - x > b->n)
                continue;
            if (++*steps > STEPS)
                return false;
            if (!agree(a->hash + i + x, a->n - i - x, b->hash + j + d - x, b->n - j - (d - x)))
                continue;
            *skip_a = x;
            *skip_b = d - x;
            return true;
        }
    return false;
}

static void lay_beside(struct guard_pattern *p, const struct guard_words *a,
                       const struct guard_words *b)
{
    uint32_t i = 0, j = 0, steps = 0, skip_a, skip_b;
    p->n = p->names = p->gap[0] = 0;
    while (i < a->n || j < b->n) {
        if (i < a->n && j < b->n && a->hash[i] == b->hash[j]) {
            p->names += a->hash[i] & 1;
            p->hash[p->n++] = a->hash[i];
            p->gap[p->n] = 0;
            i++, j++;
            continue;
        }
        if (!resume(a, i, b, j, &skip_a, &skip_b, &steps)) {
            p->gap[p->n] = GAP_ANY;
            return;
        }
        const uint32_t gap = p->gap[p->n] + (skip_a > skip_b ? skip_a : skip_b) + SLACK;
        p->gap[p->n] = (uint8_t)(gap < GAP_MAX ? gap : GAP_MAX);
        i += skip_a;
        j += skip_b;
    }
}

/* Words of the pattern from there to its next gap, but no more than have to agree. */
static uint32_t run_of(const struct guard_pattern *p, uint32_t at)
{
    uint32_t n = at < p->n;
    while (n && n < RUN && at + n < p->n && !p->gap[at + n])
        n++;
    return n;
}

static bool stands_at(const struct guard_pattern *p, uint32_t at, uint32_t run,
                      const struct guard_words *w, uint32_t i)
{
    if (!run) /* the end of the pattern */
        return i == w->n;
    for (uint32_t k = 0; k < run; k++)
        if (i + k >= w->n || p->hash[at + k] != w->hash[i + k])
            return false;
    return true;
}

bool guard_pattern_fits(const struct guard_pattern *p, const struct guard_words *w)
{
    uint32_t i = 0, steps = 0;
    for (uint32_t at = 0; at <= p->n; at++, i++) {
        const uint32_t run = p->gap[at] ? run_of(p, at) : at < p->n;
        if (at == p->n && p->gap[at] == GAP_ANY)
            return true;
        uint32_t skipped = 0;
        while (!stands_at(p, at, run, w, i))
            if (skipped++ >= p->gap[at] || ++i > w->n || ++steps > STEPS)
                return false;
    }
    return true;
}

bool guard_pattern_learn(struct guard_pattern *p, const struct guard_words *a,
                         const struct guard_words *b)
{
    lay_beside(p, a, b);
    return p->names && guard_pattern_fits(p, a) && guard_pattern_fits(p, b);
}

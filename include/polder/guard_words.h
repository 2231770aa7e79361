/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guard_words: which parts of an answer change by themselves, and whether the rest equals another
 * answer.
 *
 * An answer is a list of words: runs of letters and digits, and the runs between them. Two answers
 * to the same request are aligned; the words that both have, in order, are a pattern, with gaps
 * where they differ (a time, a counter, a token). A third answer matches if it has the words of the
 * pattern in order, and about as many words in the gaps.
 *
 * Time and memory are bounded, linear in the answer: GUARD_WORDS words are told apart, what follows
 * counts as one, and answers that differ too much have nothing in common.
 */
#ifndef POLDER_GUARD_WORDS_H
#define POLDER_GUARD_WORDS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUARD_WORDS 32768

struct guard_words {
    uint32_t n, word;
    bool in_word, is_name;      /* of letters and digits */
    uint32_t hash[GUARD_WORDS]; /* the lowest bit is set in names */
};
/* seed: what the answer is beside its body. The pieces may end anywhere. */
void guard_words_start(struct guard_words *w, uint64_t seed);
void guard_words_add(struct guard_words *w, const char *bytes, size_t len);
void guard_words_end(struct guard_words *w);

struct guard_pattern {
    uint32_t n, names; /* words of it; and how many of these are of letters and digits */
    uint32_t hash[GUARD_WORDS];
    uint8_t gap[GUARD_WORDS + 1]; /* at most so many words may precede this one; at its end */
};
/* False: nothing is left to compare. */
bool guard_pattern_learn(struct guard_pattern *p, const struct guard_words *a,
                         const struct guard_words *b);
bool guard_pattern_fits(const struct guard_pattern *p, const struct guard_words *w);
#endif

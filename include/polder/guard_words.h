/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * guard_words: what of an answer changes by itself, and whether the rest is the same in another.
 *
 * An answer is a list of words: runs of letters and digits, and the runs between them. Two answers
 * to the same request are laid beside each other; the words that both have, in order, are a
 * pattern, with gaps of so many words where they differ (a time, a counter, a token). A third
 * answer fits if it has the words of the pattern in order, and in its gaps about as many words.
 *
 * Time and memory are bounded, linear in the answer: GUARD_WORDS words are told apart, what follows
 * counts as one, and who differs too much has nothing in common.
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
    uint8_t
        gap[GUARD_WORDS + 1]; /* so many words, at most, may stand before this one; at its end */
};
/* False: nothing is left that could be compared. */
bool guard_pattern_learn(struct guard_pattern *p, const struct guard_words *a,
                         const struct guard_words *b);
bool guard_pattern_fits(const struct guard_pattern *p, const struct guard_words *w);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_guard_words: three bodies, divided by NULs. Whatever they are, what is learned from two fits
 * both, the pieces that a body comes in do not matter, and nothing is read or written beyond.
 */
#include "polder/guard_words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static struct guard_words body[3], again;
static struct guard_pattern pattern;

static void read_whole(struct guard_words *w, const char *at, size_t len, size_t piece)
{
    guard_words_start(w, 1);
    for (size_t i = 0; i < len; i += piece)
        guard_words_add(w, at + i, len - i < piece ? len - i : piece);
    guard_words_end(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *at = (const char *)data;
    for (int i = 0; i < 3; i++) {
        const char *end = size && i < 2 ? memchr(at, 0, size) : NULL;
        const size_t len = end ? (size_t)(end - at) : size;
        read_whole(&body[i], at, len, 1 + len);
        read_whole(&again, at, len, 3);
        must(again.n == body[i].n &&
             !memcmp(again.hash, body[i].hash, again.n * sizeof *again.hash));
        at += len + (end != NULL);
        size -= len + (end != NULL);
    }
    if (guard_pattern_learn(&pattern, &body[0], &body[1])) {
        must(pattern.n <= body[0].n && pattern.names && pattern.names <= pattern.n);
        must(guard_pattern_fits(&pattern, &body[0]) && guard_pattern_fits(&pattern, &body[1]));
    }
    guard_pattern_fits(&pattern, &body[2]);
    return 0;
}

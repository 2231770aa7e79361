/* SPDX-License-Identifier: BSD-2-Clause */
/* random: see random.h. */
#include "polder/random.h"

#include <sys/random.h>

void random_fill(void *to, size_t len)
{
    for (size_t have = 0; have < len;) {
        const ssize_t n = getrandom((char *)to + have, len - have, 0);
        have += n > 0 ? (size_t)n : 0;
    }
}

/* xorshift64* */
uint64_t random_next(struct random_numbers *numbers)
{
    while (!numbers->state)
        random_fill(&numbers->state, sizeof numbers->state);
    numbers->state ^= numbers->state >> 12;
    numbers->state ^= numbers->state << 25;
    numbers->state ^= numbers->state >> 27;
    return numbers->state * 0x2545f4914f6cdd1du;
}

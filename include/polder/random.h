/* SPDX-License-Identifier: BSD-2-Clause */
/* random: bytes of the kernel for secrets, and numbers that spread timers and make ids. */
#ifndef POLDER_RANDOM_H
#define POLDER_RANDOM_H
#include <stddef.h>
#include <stdint.h>

/* Fills all of it or does not return: a predictable secret would let clients aim at hash slots. */
void random_fill(void *to, size_t len);

/* Pseudo-random numbers, not secret. 0: seeded by the first call.
 */
struct random_numbers {
    uint64_t state;
};
uint64_t random_next(struct random_numbers *numbers);
#endif

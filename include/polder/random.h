/* SPDX-License-Identifier: BSD-2-Clause */
/* random: bytes of the kernel for secrets, and numbers that spread timers and make ids. */
#ifndef POLDER_RANDOM_H
#define POLDER_RANDOM_H
#include <stddef.h>
#include <stdint.h>

/* All of it, or it does not return: a secret that is none would let clients aim. */
void random_fill(void *to, size_t len);

/* Numbers that look random; nothing may depend on nobody knowing them. 0: seeded by the first call.
 */
struct random_numbers {
    uint64_t state;
};
uint64_t random_next(struct random_numbers *numbers);
#endif

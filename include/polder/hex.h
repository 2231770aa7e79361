/* SPDX-License-Identifier: BSD-2-Clause */
/* hex: a number in 16 lower-case digits, as each hit writes it. */
#ifndef POLDER_HEX_H
#define POLDER_HEX_H
#include <stdint.h>
#include <string.h>

#define HEX_DIGITS 16 /* of a number */

typedef uint8_t hex_bytes __attribute__((vector_size(HEX_DIGITS)));

/* All at once: a nibble a byte, then each to its letter. */
static inline void hex_put(uint64_t n, char out[HEX_DIGITS])
{
    const hex_bytes v =
        (hex_bytes)(__attribute__((vector_size(16))) uint64_t){__builtin_bswap64(n), 0};
    const hex_bytes high = v >> 4, low = v & 15;
    const hex_bytes nibble =
        __builtin_shufflevector(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const hex_bytes text = nibble + '0' + ((hex_bytes)(nibble > 9) & ('a' - '0' - 10));
    memcpy(out, &text, sizeof text);
}
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* access_bits: see access_bits.h. */
#include "polder/access_bits.h"

#include <math.h>

/* Steps of 1, a, a^2, ... reads, a = 2^(1/4). */
uint64_t access_bits_reads(uint8_t byte)
{
    const double a = 1.189207115002721;
    return (uint64_t)((pow(a, byte >> 2) - 1) / (a - 1) + 0.5);
}

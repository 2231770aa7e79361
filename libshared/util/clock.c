/* SPDX-License-Identifier: BSD-2-Clause */
/* clock: what time it is, asked of the kernel's vDSO. */
#include "polder/clock.h"
#include <time.h>

static uint64_t clock_read_ms(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t clock_mono_ms(void)
{
    return clock_read_ms(CLOCK_MONOTONIC_COARSE);
}

uint64_t clock_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t clock_real_ms(void)
{
    return clock_read_ms(CLOCK_REALTIME_COARSE);
}

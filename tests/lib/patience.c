/* SPDX-License-Identifier: BSD-2-Clause */
/* patience: see patience.h. */
#include "patience.h"

#include <stdlib.h>
#include <time.h>

uint64_t mono_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void nap_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

bool harness_sanitized(void)
{
#ifdef __SANITIZE_ADDRESS__
    return true;
#else
    return getenv("POLDER_SANITIZED") != NULL;
#endif
}

unsigned harness_patience(unsigned ms)
{
    return harness_sanitized() ? ms * 4 : ms;
}

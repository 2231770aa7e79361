/* SPDX-License-Identifier: BSD-2-Clause */
/* random: numbers that spread timers and make ids. */
#include "daemons/supervisor/supervisor.h"

#include <sys/random.h>
#include <unistd.h>

/* xorshift64*, seeded by the kernel: spreads timers and makes ids; no secret depends on it. */
uint64_t supervisor_random(struct supervisor *s)
{
    while (!s->random)
        if (getrandom(&s->random, sizeof s->random, 0) < 0)
            s->random = (uint64_t)getpid() * 0x9e3779b97f4a7c15u;
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return s->random * 0x2545f4914f6cdd1du;
}

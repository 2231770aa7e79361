/* SPDX-License-Identifier: BSD-2-Clause */
/* backoff: the pause before a process that keeps failing is started again. */
#include "daemons/master/master.h"

#define RESPAWN_FIRST_MS 100
#define RESPAWN_MAX_MS   5000

uint64_t respawn_delay_ms(uint32_t failures)
{
    if (failures <= 1)
        return 0;
    const uint32_t doublings = failures - 2;
    if (doublings > 6)
        return RESPAWN_MAX_MS;
    const uint64_t delay = (uint64_t)RESPAWN_FIRST_MS << doublings;
    return delay < RESPAWN_MAX_MS ? delay : RESPAWN_MAX_MS;
}

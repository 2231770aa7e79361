/* SPDX-License-Identifier: BSD-2-Clause */
/* refresh: see refresh.h. */
#include "polder/refresh.h"

#define FETCH_MIN_NS 100000 /* so that reads count where misses cost next to nothing */

uint64_t refresh_from_ms(const struct cache_record *record)
{
    if (record->fresh_until_ms < record->received_ms + REFRESH_LIFE_MS ||
        record->flags & (CACHE_FROM_POST | CACHE_NO_CACHE | CACHE_VARY_RECORD))
        return UINT64_MAX;
    const uint64_t life = record->fresh_until_ms - record->received_ms;
    const uint64_t tenth = (record->obj_id * UINT64_C(0x9e3779b97f4a7c15) >> 60) % 10;
    const uint64_t before = life / 100 * (REFRESH_PERCENT - 9 + tenth);
    return record->fresh_until_ms - before;
}

uint64_t refresh_value_ns(const struct cache_record *record, uint64_t reads)
{
    const uint64_t ns = record->fetch_ns > FETCH_MIN_NS ? record->fetch_ns : FETCH_MIN_NS;
    return ns > UINT64_MAX / (reads + 1) ? UINT64_MAX : ns * reads;
}

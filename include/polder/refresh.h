/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * refresh: which stored responses are worth fetching again before they expire, and from when on.
 * One rule for the workers that do it and for `cache why` that tells.
 *
 *   - its life is a second at least, and it may be used without asking;
 *   - it was read twice in this life, or more often;
 *   - it is in the last 5 to 14 % of that life: which of them hangs on the object, so that what was
 *     stored together is not fetched together.
 *
 * Whoever reads it then has shown that it is still wanted. Where not all can be fetched, the most
 * valuable goes first: reads in this life, times what a miss had cost.
 */
#ifndef POLDER_REFRESH_H
#define POLDER_REFRESH_H
#include "polder/cache.h"

#define REFRESH_LIFE_MS 1000 /* what is good for less is not worth it */
#define REFRESH_READS   2
#define REFRESH_PERCENT 14 /* of its life, at most */

/* Real ms from when on; UINT64_MAX: never. */
uint64_t refresh_from_ms(const struct cache_record *record);
/* Nanoseconds that readers do not wait for in a life like this one. */
uint64_t refresh_value_ns(const struct cache_record *record, uint64_t reads);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * refresh: which stored responses are fetched again before they expire, and when. One rule for the
 * workers that do it and for `cache why` that shows it.
 *
 *   - its lifetime is a second at least, and it may be used without validation;
 *   - it was read at least twice in this lifetime;
 *   - it is in the last 5 to 14 % of that lifetime, depending on the object, so that objects stored
 *   together are not fetched together.
 *
 * A read at that time shows that it is still wanted. If not all can be fetched, the most valuable
 * goes first: reads in this lifetime, times the cost of a miss.
 */
#ifndef POLDER_REFRESH_H
#define POLDER_REFRESH_H
#include "polder/cache.h"

#define REFRESH_LIFE_MS 1000 /* shorter lifetimes are not worth it */
#define REFRESH_READS   2
#define REFRESH_PERCENT 14 /* of its lifetime, at most */

/* Real ms from which on it is due; UINT64_MAX: never. */
uint64_t refresh_from_ms(const struct cache_record *record);
/* Nanoseconds of waiting that readers save in a lifetime like this one. */
uint64_t refresh_value_ns(const struct cache_record *record, uint64_t reads);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * units: durations, sizes and shares for people, in one notation for all tables, messages and
 * pages.
 *
 *   durations  two units at most: "36 us", "2.1 ms", "58 s", "4 min 58 s", "2 h 5 min", "3 d 4 h"
 *   sizes      powers of 1024: "0 B", "1000 B", "1.5 KiB", "256 MiB"
 *   shares     "83.4%"
 */
#ifndef POLDER_UNITS_H
#define POLDER_UNITS_H
#include <stddef.h>

#define UNITS_TEXT 40 /* room for any of them */

/* Each returns its length. */
size_t units_seconds(double seconds, char out[UNITS_TEXT]);
size_t units_bytes(double bytes, char out[UNITS_TEXT]);
size_t units_share(double ratio, char out[UNITS_TEXT]);
/* Counts on a screen of limited width: "8532", "85.3k", "1.2M". */
size_t units_count(double n, char out[UNITS_TEXT]);
#endif

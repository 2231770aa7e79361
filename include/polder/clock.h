/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * clock: the only place that asks the kernel what time it is.
 *
 * Monotonic milliseconds are for everything that lives in shared memory (they do not survive a
 * boot); real milliseconds are for dates that are stored or sent. Functions elsewhere take the
 * time as a parameter, so that tests can drive it.
 */
#ifndef POLDER_CLOCK_H
#define POLDER_CLOCK_H
#include <stdint.h>

/* For tests of hours and days: if $POLDER_CLOCK names a file, both clocks of milliseconds are ahead
 * by the 64-bit number of milliseconds that stands at its beginning, at any time. Called by main()
 * before anything asks for the time; children inherit it. To all processes a jump looks like the
 * resume of a suspended machine. The clock of nanoseconds and timers of the loop do not move. */
void clock_open(void);

#define CLOCK_COARSE_MS 4
uint64_t clock_mono_ms(void); /* CLOCK_MONOTONIC_COARSE: 4 ns, steps of at most CLOCK_COARSE_MS */
uint64_t clock_mono_ns(void); /* CLOCK_MONOTONIC: 17 ns; for latencies */
uint64_t clock_real_ms(void); /* CLOCK_REALTIME_COARSE, Unix time in ms */

#endif

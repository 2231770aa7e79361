/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * route_use: when a route was used last. Workers only count and keep the time of the last hit;
 * control polls the counts, and remembers when they have grown. A new control has no times from
 * before its own start, only the totals.
 */
#ifndef POLDER_CONTROL_ROUTE_USE_H
#define POLDER_CONTROL_ROUTE_USE_H
#include "polder/stats.h"
#include <stdint.h>

struct config_route;
struct control;
struct route_use;

struct route_use *route_use_new(void); /* NULL: no memory; then only hits are known */
void route_use_free(struct route_use *u);
void route_use_follow(struct control *c); /* each second; looks each ten */

/* Answers, of all kinds. */
uint64_t route_use_requests(const struct stats_route *sums);
/* Real time, to about ten seconds; 0: never, as far as is known. */
uint64_t route_use_last_ms(struct control *c, const struct config_route *route,
                           const struct stats_route *sums);
#endif

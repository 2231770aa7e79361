/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_limits: takes requests of limits from the store for this host (polder/fleet_grants.h).
 *
 * Workers ask in queues; all that has come while one call is under way goes into the next. Beside
 * that this host renews its share of the limits, twice a second and more: it is for the time when the
 * store cannot be reached.
 */
#ifndef POLDER_CONTROL_FLEET_LIMITS_H
#define POLDER_CONTROL_FLEET_LIMITS_H
#include "polder/config.h"
#include <ev.h>

struct fleet;
struct fleet_limits;
struct shared;

/* NULL: no memory. */
struct fleet_limits *fleet_limits_new(struct ev_loop *loop, struct fleet *fleet,
                                      const struct config_fleet *config, struct shared *shared);
/* After its fleet is gone. */
void fleet_limits_free(struct fleet_limits *l);
/* Whether there are limits of the fleet; where there are none the store hears nothing. */
void fleet_limits_use(struct fleet_limits *l, bool wanted);
/* After a reload: what was counted of limits that have become the fleet's counts there. */
void fleet_limits_carry_over(struct shared *shared, const struct config *before,
                             const struct config *config);
/* What is due by now, each 50 ms. */
void fleet_limits_look(struct fleet_limits *l);
/* Takes what workers have asked. */
void fleet_limits_take(struct fleet_limits *l);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limits_fleet: limits that hold over all hosts of the fleet (polder/fleet_grants.h).
 *
 * A request is charged to what this host has been granted, and beside that to the limiter of this
 * host, which refuses nothing then but knows the counts when the store is gone. Where nothing is
 * granted yet the request waits (limits_wait.h).
 */
#ifndef POLDER_WORKER_REQUEST_LIMITS_FLEET_H
#define POLDER_WORKER_REQUEST_LIMITS_FLEET_H
#include "daemons/worker/request/limits.h"
#include "polder/fleet_grants.h"

enum limits_fleet {
    LIMITS_FLEET_ADMITS,
    LIMITS_FLEET_REFUSES,
    LIMITS_FLEET_WAITS, /* charged to none; known: it must go the long way */
};
struct fleet_bill {
    bool of_fleet[CONFIG_ROUTE_LIMITS_MAX];
    bool open[CONFIG_ROUTE_LIMITS_MAX]; /* the limiter of this host decides */
    struct limit_verdict verdict[CONFIG_ROUTE_LIMITS_MAX];
    struct fleet_took took[CONFIG_ROUTE_LIMITS_MAX];
};

/* Of all limits of the fleet, or of none. known: only the hashed keys are. */
enum limits_fleet limits_fleet_take(struct worker *w, const struct request *r,
                                    const struct charged *ch, bool known, struct limit_bill *bill,
                                    struct fleet_bill *fb);
/* limit_charge() of all, with what was taken; or that is given back. */
bool limits_fleet_charge(struct worker *w, struct charged *ch, struct fleet_bill *fb);
/* What the limits say of a request that one of the fleet's refuses. */
void limits_fleet_look(struct worker *w, struct charged *ch, const struct fleet_bill *fb);
void limits_fleet_return(struct worker *w, const struct charged *ch, const struct fleet_bill *fb);
#endif

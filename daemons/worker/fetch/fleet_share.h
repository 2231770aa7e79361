/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_share: a miss of a route with cache.shared asks the store of the fleet before the backend
 * (polder/fleet.h; control's part is model/fleet_share.h).
 *
 * The request that holds the permit asks control, and waits: at most shared_timeout for an answer,
 * and as long as its upstream may take where another host fetches. The permit is released by the
 * keeper when the object has come from the store. What may not be given (fleet_offer.h) is only
 * looked for: a part, a head, what an identified client asks for.
 */
#ifndef POLDER_WORKER_FETCH_FLEET_SHARE_H
#define POLDER_WORKER_FETCH_FLEET_SHARE_H
#include <stdbool.h>

struct fetch;
struct worker;

/* It holds the permit. True: it waits, and goes on by itself. False: it has to fetch. */
bool fleet_share_ask(struct fetch *ex);
/* What it fetches is not given to other hosts, but what they have may answer it: it claims a permit that is
 * for looking alone, and asks. */
bool fleet_share_may_look(const struct fetch *ex);
/* It waits for another that looks for the same, and need not look itself. */
void fleet_share_looked(struct fetch *ex);
void fleet_share_wake(struct worker *w); /* the eventfd fired */
void fleet_share_init(struct worker *w);
#endif

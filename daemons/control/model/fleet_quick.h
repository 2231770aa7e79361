/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_quick: whether the store is quick enough for requests to wait for it. A worker whose request has
 * waited in vain says that it is not (fleet.page); it is again when it has renewed the lease in time. If
 * that was wrong, since objects take it longer, the next look comes twice as late, and so on.
 */
#ifndef POLDER_CONTROL_FLEET_QUICK_H
#define POLDER_CONTROL_FLEET_QUICK_H
#include "polder/fleet.h"

#define FLEET_QUICK_FIRST_MS 500 /* the first look after a request has waited in vain */
#define FLEET_QUICK_LAST_MS                                                                        \
    30000 /* the longest until a look; after so long without one all is well */

struct fleet_quick {
    struct fleet_page *page;
    uint64_t limit_ms; /* the shortest shared_timeout; 0: no route shares */
    uint64_t since_ms; /* mono: it is */
    uint64_t pause_ms, from_ms;
    bool was;
};
void fleet_quick_init(struct fleet_quick *q, struct fleet_page *page);
bool fleet_quick_is(const struct fleet_quick *q);
/* The store took so long for a small thing. */
void fleet_quick_look(struct fleet_quick *q, uint64_t took_ms, uint64_t now_ms);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_calls: what the shared cache asks of the store, and gives to it: two scripts (fleet_scripts.h). */
#ifndef POLDER_CONTROL_FLEET_CALLS_H
#define POLDER_CONTROL_FLEET_CALLS_H
#include "daemons/control/model/fleet.h"
#include "daemons/control/model/fleet_import.h"

struct fleet_calls {
    struct fleet *fleet;
    struct fleet_identity identity;
    char stored[96];
};
void fleet_calls_init(struct fleet_calls *c, struct fleet *f);
/* The object of that name, unless it is the useless one, or else its claim; claims false: or nothing. */
bool fleet_calls_get(const struct fleet_calls *c, const struct fleet_object_name *name,
                     const uint8_t useless[FLEET_MAC], bool claims, fleet_reply_fn done, void *arg);
/* e: NULL where there is nothing. claim: that ends; nothing_ms: so long others need not wait. */
bool fleet_calls_put(const struct fleet_calls *c, const struct fleet_object_name *claim,
                     const struct fleet_exported *e, uint32_t nothing_ms, fleet_reply_fn done,
                     void *arg);
#endif

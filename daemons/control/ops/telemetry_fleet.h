/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_fleet: /api/telemetry/fleet: the hosts that share a store, as this one sees them; null
 * where it is in no fleet. Not public: it names hosts and the store. */
#ifndef POLDER_CONTROL_TELEMETRY_FLEET_H
#define POLDER_CONTROL_TELEMETRY_FLEET_H
#include "daemons/control/ops/page.h"

void telemetry_fleet_make(struct control *c, page_made_fn made, void *arg);
void telemetry_fleet_page(struct control *c, const struct http_call *call);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_routes: /api/telemetry/routes: traffic of each route, and when it was used last. */
#ifndef POLDER_CONTROL_TELEMETRY_ROUTES_H
#define POLDER_CONTROL_TELEMETRY_ROUTES_H
#include "daemons/control/ops/page.h"

void telemetry_routes_make(struct control *c, page_made_fn made, void *arg);
void telemetry_routes_page(struct control *c, const struct http_call *call);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry: JSON documents under /api/telemetry; rates are 0..1, times in seconds. */
#ifndef POLDER_CONTROL_TELEMETRY_H
#define POLDER_CONTROL_TELEMETRY_H
#include "daemons/control/ops/page.h"

void telemetry_cache_make(struct control *c, page_made_fn made, void *arg);
void telemetry_websocket_make(struct control *c, page_made_fn made, void *arg);
void telemetry_cost_make(struct control *c, page_made_fn made, void *arg);

void telemetry_cache_page(struct control *c, const struct http_call *call);
void telemetry_websocket_page(struct control *c, const struct http_call *call);
void telemetry_cost_page(struct control *c, const struct http_call *call);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_upstreams: /api/telemetry/upstreams: the servers of each upstream. */
#ifndef POLDER_CONTROL_TELEMETRY_UPSTREAMS_H
#define POLDER_CONTROL_TELEMETRY_UPSTREAMS_H
#include "daemons/control/ops/page.h"

void telemetry_upstreams_make(struct control *c, page_made_fn made, void *arg);
void telemetry_upstreams_page(struct control *c, const struct http_call *call);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_limits: /api/telemetry/limits: running limits, and the clients refused most. */
#ifndef POLDER_CONTROL_TELEMETRY_LIMITS_H
#define POLDER_CONTROL_TELEMETRY_LIMITS_H
#include "daemons/control/ops/page.h"

void telemetry_limits_make(struct control *c, page_made_fn made, void *arg);
void telemetry_limits_page(struct control *c, const struct http_call *call);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* overview: the figures of the last five minutes, hour and day, connections, and what a restart would
 * cost now: /api/telemetry/overview. */
#ifndef POLDER_CONTROL_OPS_OVERVIEW_H
#define POLDER_CONTROL_OPS_OVERVIEW_H
#include "daemons/control/ops/page.h"

void overview_make(struct control *c, page_made_fn made, void *arg);
void overview_page(struct control *c, const struct http_call *call);
#endif

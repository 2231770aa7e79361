/* SPDX-License-Identifier: BSD-2-Clause */
/* alerts: the document of alerts, and their families in /metrics. */
#ifndef POLDER_CONTROL_OPS_ALERTS_H
#define POLDER_CONTROL_OPS_ALERTS_H
#include "daemons/control/ops/page.h"

void alerts_make(struct control *c, page_made_fn made, void *arg);
void alerts_page(struct control *c, const struct http_call *call);
#endif

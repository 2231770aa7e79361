/* SPDX-License-Identifier: BSD-2-Clause */
/* health: /healthz, /readyz and the conditions document. */
#ifndef POLDER_CONTROL_OPS_HEALTH_H
#define POLDER_CONTROL_OPS_HEALTH_H
#include "daemons/control/ops/page.h"
void health_alive_page(struct control *c, const struct http_call *call);
void health_ready_page(struct control *c, const struct http_call *call);
void health_conditions_make(struct control *c, page_made_fn made, void *arg);
void health_conditions_page(struct control *c, const struct http_call *call);
#endif

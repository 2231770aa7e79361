/* SPDX-License-Identifier: BSD-2-Clause */
/* alerts: the document of alerts, and their families in /metrics. */
#ifndef POLDER_CONTROL_OPS_ALERTS_H
#define POLDER_CONTROL_OPS_ALERTS_H
#include "daemons/net/http_server.h"

struct control;
void alerts_page(struct control *c, const struct http_call *call);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics: /metrics, as OpenMetrics 1.0 or as the older Prometheus text (0.0.4). */
#ifndef POLDER_CONTROL_METRICS_H
#define POLDER_CONTROL_METRICS_H
#include "daemons/control/ops/text.h"
#include "daemons/net/http_server.h"
#include <msgpack.h>

struct control;
void metrics_page(struct control *c, const struct http_call *call);
/* websocket: what ws.stats has answered; NULL: no supervisor. */
void metrics_write(const struct control *c, bool openmetrics, const msgpack_object *websocket,
                   struct text *out);
#endif

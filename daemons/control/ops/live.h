/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * live: the stream of server-sent events that feeds the dashboard (/events).
 *
 * Each message is one JSON object; its members are sections, named like the documents under
 * /api/telemetry and with the same content. A stream begins with all of them; then, once a second,
 * one message with those that have changed. Sections are made once a second for all streams, and
 * not at all while there is none.
 *
 * There are LIVE_STREAMS places, apart from those of other requests. Unsent data of a client is
 * bounded by http_server; one that lags further behind is disconnected; it reconnects by itself and
 * starts again.
 */
#ifndef POLDER_CONTROL_OPS_LIVE_H
#define POLDER_CONTROL_OPS_LIVE_H
#include "daemons/net/http_server.h"

#define LIVE_STREAMS 16

struct control;
struct live;

struct live *live_new(void);
void live_free(struct live *e); /* after the http_server of its streams */
void live_page(struct control *c, const struct http_call *call);
void live_follow(struct control *c); /* each second */
#endif

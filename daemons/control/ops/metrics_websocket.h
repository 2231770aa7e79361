/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_websocket: the supervisor's counters as metrics. */
#ifndef POLDER_CONTROL_METRICS_WEBSOCKET_H
#define POLDER_CONTROL_METRICS_WEBSOCKET_H
#include "daemons/control/ops/metrics_writer.h"
#include <msgpack.h>

/* stats: as it answers ws.stats; NULL: it does not. */
void metrics_write_websockets(struct metrics_writer *w, const msgpack_object *stats);
#endif

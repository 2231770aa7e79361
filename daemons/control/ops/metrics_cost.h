/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_cost: the families of cost and savings. */
#ifndef POLDER_CONTROL_METRICS_COST_H
#define POLDER_CONTROL_METRICS_COST_H
#include "daemons/control/ops/metrics_writer.h"
#include <msgpack.h>

/* websocket: the answer to ws.stats; NULL: there is none. */
void metrics_write_cost(struct metrics_writer *w, struct control *c,
                        const msgpack_object *websocket);
#endif

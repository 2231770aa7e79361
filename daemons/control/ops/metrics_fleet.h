/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_fleet: the families of hosts that share a store, for /metrics; all 0 without a fleet. */
#ifndef POLDER_CONTROL_METRICS_FLEET_H
#define POLDER_CONTROL_METRICS_FLEET_H
#include "daemons/control/ops/metrics_writer.h"

struct control;

void metrics_write_fleet(struct metrics_writer *w, const struct control *c);
#endif

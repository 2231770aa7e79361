/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_alerts: the families of alerts. */
#ifndef POLDER_CONTROL_METRICS_ALERTS_H
#define POLDER_CONTROL_METRICS_ALERTS_H
#include "daemons/control/ops/metrics_writer.h"

void metrics_write_alerts(struct metrics_writer *w, const struct control *c);
#endif

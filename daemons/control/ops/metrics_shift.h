/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_shift: the families of traffic that is shifted, for /metrics. */
#ifndef POLDER_CONTROL_METRICS_SHIFT_H
#define POLDER_CONTROL_METRICS_SHIFT_H
#include "daemons/control/ops/metrics_writer.h"

struct control;

void metrics_write_shifts(struct metrics_writer *w, const struct control *c);
#endif

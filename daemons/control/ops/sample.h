/* SPDX-License-Identifier: BSD-2-Clause */
/* sample: the newest second of the history, for the stream of the dashboard. */
#ifndef POLDER_CONTROL_OPS_SAMPLE_H
#define POLDER_CONTROL_OPS_SAMPLE_H
#include "daemons/control/ops/page.h"

void sample_make(struct control *c, page_made_fn made, void *arg);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* history: the document of the last 24 hours. */
#ifndef POLDER_CONTROL_OPS_HISTORY_H
#define POLDER_CONTROL_OPS_HISTORY_H
#include "daemons/net/http_server.h"

struct control;
/* ?metric=NAME[,NAME...]&since=T[&step=T]; without metric: the list of metrics. */
void history_page_show(struct control *c, const struct http_call *call);
#endif

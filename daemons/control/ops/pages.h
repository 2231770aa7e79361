/* SPDX-License-Identifier: BSD-2-Clause */
/* pages: which page a request means. */
#ifndef POLDER_CONTROL_PAGES_H
#define POLDER_CONTROL_PAGES_H
#include "daemons/net/http_server.h"

enum page_origin {
    PAGE_OPS,    /* ops.listen: every page */
    PAGE_PUBLIC, /* through a worker: public telemetry alone */
};
/* An http_handler; arg: the struct control. */
void pages_answer(void *arg, const struct http_call *call);
#endif

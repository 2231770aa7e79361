/* SPDX-License-Identifier: BSD-2-Clause */
/* page: what a page answers with. */
#ifndef POLDER_CONTROL_PAGE_H
#define POLDER_CONTROL_PAGE_H
#include "daemons/control/ops/text.h"
#include "daemons/net/http_server.h"

#define PAGE_JSON "application/json"

/* Sends the text, or 503 where it has failed; frees it. */
void page_answer(struct http_request *r, unsigned status, const char *type, struct text *t);
#endif

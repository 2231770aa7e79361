/* SPDX-License-Identifier: BSD-2-Clause */
/* page: how a page answers. */
#ifndef POLDER_CONTROL_PAGE_H
#define POLDER_CONTROL_PAGE_H
#include "daemons/control/ops/text.h"
#include "daemons/net/http_server.h"

#define PAGE_JSON "application/json"

struct control;

/* Sends the text, or 503 where it has failed; frees it. */
void page_answer(struct http_request *r, unsigned status, const char *type, struct text *t);

/* A document, for a page and for the stream of events alike: delivered once, at once or when
 * another process has answered; the receiver frees the text. */
typedef void (*page_made_fn)(void *arg, struct text *t);
typedef void (*page_make_fn)(struct control *c, page_made_fn made, void *arg);
/* Answers with such a document. */
void page_answer_made(struct control *c, const struct http_call *call, page_make_fn make);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* page: see page.h. */
#include "daemons/control/ops/page.h"

void page_answer(struct http_request *r, unsigned status, const char *type, struct text *t)
{
    if (t->failed)
        http_answer(r, 503, PAGE_JSON, "{}\n", 3);
    else
        http_answer(r, status, type, t->at ? t->at : "", t->len);
    text_free(t);
}

static void on_made(void *arg, struct text *t)
{
    page_answer(arg, 200, PAGE_JSON, t);
}

void page_answer_made(struct control *c, const struct http_call *call, page_make_fn make)
{
    make(c, on_made, call->request);
}

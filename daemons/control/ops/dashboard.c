/* SPDX-License-Identifier: BSD-2-Clause */
/* dashboard: see dashboard.h. */
#include "daemons/control/ops/dashboard.h"

#include <stdio.h>
#include <string.h>

#define TYPE_HTML "text/html; charset=utf-8"

/* Clients that refuse it with q=0 get it plain, too. */
static bool takes_gzip(const struct h1_head *head)
{
    char codings[256];
    const size_t len = h1_join(head, H1_ACCEPT_ENCODING, codings, sizeof codings - 1);
    codings[len] = 0;
    const char *gzip = strstr(codings, "gzip");
    return gzip && strncmp(gzip + 4, ";q=0", 4) != 0;
}

static void answer(const struct http_call *call, const struct dashboard_asset *asset)
{
    char fields[768];
    const bool gzip = takes_gzip(call->head);
    snprintf(fields, sizeof fields,
             "Content-Security-Policy: %s\r\nReferrer-Policy: no-referrer\r\n"
             "Cross-Origin-Opener-Policy: same-origin\r\n"
             "Cross-Origin-Resource-Policy: same-origin\r\nVary: Accept-Encoding\r\n%s",
             asset->policy, gzip ? "Content-Encoding: gzip\r\n" : "");
    http_answer_with(call->request, 200, TYPE_HTML, fields,
                     (const char *)(gzip ? asset->gzip : asset->plain),
                     gzip ? asset->gzip_len : asset->plain_len);
}

void dashboard_page(struct control *c, const struct http_call *call)
{
    (void)c;
    answer(call, &dashboard_index);
}

void dashboard_runbook_page(struct control *c, const struct http_call *call)
{
    (void)c;
    answer(call, &dashboard_runbook);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * dashboard: the page at /, and the runbook that it points to. Both are made at build time, from
 * daemons/control/dashboard/ and polder-runbook(7), and are part of the program.
 */
#ifndef POLDER_CONTROL_OPS_DASHBOARD_H
#define POLDER_CONTROL_OPS_DASHBOARD_H
#include "daemons/net/http_server.h"

struct control;

/* Written by dashboard/build.mjs: a self-contained page. */
struct dashboard_asset {
    const char *policy; /* its Content-Security-Policy */
    const unsigned char *plain, *gzip;
    size_t plain_len, gzip_len;
};
extern const struct dashboard_asset dashboard_index, dashboard_runbook;

void dashboard_page(struct control *c, const struct http_call *call);
void dashboard_runbook_page(struct control *c, const struct http_call *call);
#endif

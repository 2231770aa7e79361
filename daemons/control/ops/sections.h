/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sections: the documents of the dashboard, each made by the function of its page under
 * /api/telemetry, so that both agree.
 */
#ifndef POLDER_CONTROL_OPS_SECTIONS_H
#define POLDER_CONTROL_OPS_SECTIONS_H
#include "daemons/control/ops/page.h"

struct control;

struct section {
    const char *name;
    page_make_fn make;
    unsigned every_s;
};
extern const struct section sections[];
extern const unsigned sections_n;
#define SECTIONS_MAX 16
#endif

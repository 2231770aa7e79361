/* SPDX-License-Identifier: BSD-2-Clause */
/* alerts: see alerts.h. */
#include "daemons/control/ops/alerts.h"
#include "daemons/control/control.h"
#include "daemons/control/model/alerts.h"
#include "daemons/control/ops/page.h"

#include <inttypes.h>
#include <stdlib.h>

void alerts_make(struct control *c, page_made_fn made, void *arg)
{
    const struct alert_row *list[ALERT_ROWS];
    const size_t n = alerts_list(c, list);
    struct alert_shown shown;
    struct text t = {0};
    text_put(&t, "{\"alerts\":[");
    for (size_t i = 0; i < n; i++) {
        alerts_show(c, list[i], &shown);
        char *json = alerts_json(&shown);
        text_put(&t, "%s%s", i ? "," : "", json ? json : "null");
        free(json);
    }
    text_put(&t, "],\"lost\":%" PRIu64 "}\n", atomic_load(&c->shared->alerts->lost));
    made(arg, &t);
}

void alerts_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, alerts_make);
}

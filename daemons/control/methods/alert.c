/* SPDX-License-Identifier: BSD-2-Clause */
/* alert: what is pending, fires, or was over within the last hour. */
#include "daemons/control/model/alerts.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "polder/clock.h"

#include <math.h>

static void put_number(struct rpc_out *o, const char *key, double value)
{
    if (isfinite(value))
        rpc_out_f64(o, key, value);
    else
        rpc_out_nil(o, key);
}

static void put_alert(struct rpc_out *o, const struct alert_shown *s)
{
    const double now = (double)clock_real_ms() / 1000;
    rpc_out_map(o, NULL);
    rpc_out_str(o, "alert", s->name);
    rpc_out_str(o, "subject", s->subject);
    rpc_out_str(o, "state", s->state);
    rpc_out_str(o, "severity", s->rule ? s->rule->severity : "info");
    rpc_out_u64(o, "since_ms", now > s->since ? (uint64_t)((now - s->since) * 1000) : 0);
    put_number(o, "value", s->value);
    put_number(o, "threshold", s->threshold);
    rpc_out_str(o, "unit", s->rule ? s->rule->unit : "");
    rpc_out_str(o, "summary", s->summary);
    rpc_out_str(o, "action", s->rule ? s->rule->action : "");
    rpc_out_str(o, "runbook", s->runbook);
    rpc_out_end(o);
}

void alert_list(struct control *c, const struct rpc_call *call)
{
    const struct alert_row *list[ALERT_ROWS];
    const size_t n = alerts_list(c, list);
    struct alert_shown shown;
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_list(o, "alerts");
    for (size_t i = 0; i < n; i++) {
        alerts_show(c, list[i], &shown);
        put_alert(o, &shown);
    }
    rpc_out_end(o);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

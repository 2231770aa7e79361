/* SPDX-License-Identifier: BSD-2-Clause */
/* cost: what calls have cost, what was saved by which optimisation, and a month of it. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/shares.h"

#include <stdlib.h>

static void put_known(struct rpc_out *o, const char *key, bool known, double value)
{
    if (known)
        rpc_out_f64(o, key, value);
    else
        rpc_out_nil(o, key);
}

static void put_optimisation(struct rpc_out *o, const struct savings *s, enum cost_optimisation i)
{
    const bool websocket = i == COST_WEBSOCKET, known = !websocket || s->counts.websocket_known;
    rpc_out_map(o, NULL);
    rpc_out_str(o, "optimisation", cost_names[i]);
    put_known(o, "spared", known, s->counts.spared[i]);
    rpc_out_str(o, "unit", websocket ? "websocket hours" : "calls");
    rpc_out_f64(o, "price", websocket ? s->websocket_hour : s->upstream_call);
    put_known(o, "saved", known, s->money.saved[i]);
    rpc_out_end(o);
}

static void put_month(struct rpc_out *o, const struct savings_month *m)
{
    rpc_out_map(o, NULL);
    rpc_out_str(o, "month_from", m->name);
    rpc_out_f64(o, "over_seconds", m->seconds);
    rpc_out_f64(o, "estimated_cost", m->money.estimated);
    rpc_out_f64(o, "savings", m->money.saved_total);
    rpc_out_end(o);
}

static void put_tenants(struct rpc_out *o, const struct control *c, const struct savings *s)
{
    size_t n;
    struct share *share = shares_find(c, s, &n);
    if (!share)
        return;
    rpc_out_list(o, "by_tenant");
    for (size_t i = 0; i < n; i++) {
        rpc_out_map(o, NULL);
        rpc_out_str(o, "tenant", share[i].name);
        rpc_out_u64(o, "api_calls", (uint64_t)share[i].counts.calls);
        rpc_out_f64(o, "estimated_cost", share[i].money.estimated);
        for (int k = 0; k < COST_OPTIMISATIONS; k++)
            rpc_out_f64(o, cost_names[k], share[i].money.saved[k]);
        rpc_out_f64(o, "savings", share[i].money.saved_total);
        rpc_out_end(o);
    }
    rpc_out_end(o);
    free(share);
}

struct question {
    struct control *control;
    struct rpc_reply *reply;
};

static void answer(void *arg, const struct savings *s)
{
    struct question *q = arg;
    struct rpc_out *o = rpc_reply_result(q->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "currency", s->currency);
    rpc_out_f64(o, "counted_seconds", s->counts.seconds);
    rpc_out_u64(o, "api_calls", (uint64_t)s->counts.calls);
    rpc_out_f64(o, "estimated_cost", s->money.estimated);
    rpc_out_f64(o, "savings_realized", s->money.saved_total);
    rpc_out_f64(o, "projected_monthly", s->month[SAVINGS_SINCE_START].money.estimated);
    rpc_out_list(o, "by_optimisation");
    for (int i = 0; i < COST_OPTIMISATIONS; i++)
        put_optimisation(o, s, (enum cost_optimisation)i);
    rpc_out_end(o);
    rpc_out_list(o, "projections");
    for (int i = 0; i < SAVINGS_BASES; i++)
        if (s->month[i].name)
            put_month(o, &s->month[i]);
    rpc_out_end(o);
    put_tenants(o, q->control, s);
    rpc_out_end(o);
    rpc_reply_send(q->reply);
    free(q);
}

void cost_show(struct control *c, const struct rpc_call *call)
{
    struct question *q = malloc(sizeof *q);
    if (!q) {
        call_error(c, call->reply, RPC_FAILED, "out of memory");
        return;
    }
    *q = (struct question){c, call->reply};
    savings_ask(c, answer, q);
}

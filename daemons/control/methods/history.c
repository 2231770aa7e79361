/* SPDX-License-Identifier: BSD-2-Clause */
/* history: what a metric was like, value by value; or what all of them were like. */
#include "daemons/control/model/history.h"
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "polder/clock.h"
#include "polder/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SINCE_S 3600

static void put_f64(struct rpc_out *o, const char *key, double value)
{
    if (isnan(value))
        rpc_out_nil(o, key);
    else
        rpc_out_f64(o, key, value);
}

/* Whole seconds, or what it is where the parameter is missing. */
static bool read_seconds(const struct rpc_call *call, const char *name, uint64_t *out)
{
    char text[32];
    uint64_t ms;
    if (!rpc_in_get(call->params, name))
        return true;
    if (rpc_in_text(call->params, name, text, sizeof text) < 0 ||
        config_parse_duration(text, &ms) || !ms || ms % 1000)
        return false;
    *out = ms / 1000;
    return true;
}

static void put_unit(const struct control *c, struct rpc_out *o, size_t column)
{
    char text[32];
    const char *unit = history_column_kind(column)->unit;
    if (!strcmp(unit, "money/h")) {
        snprintf(text, sizeof text, "%.8s/h", c->config->cost.currency);
        unit = text;
    }
    rpc_out_str(o, "unit", unit);
}

/* What it was like in all, and with which values. */
static void put_column(const struct control *c, struct rpc_out *o,
                       const struct history_range *range, size_t column, bool values)
{
    const struct history_page *page = c->shared->history;
    double min = NAN, max = NAN, sum = 0, now = NAN;
    char name[HISTORY_NAME];
    unsigned n = 0;
    history_name(page, column, name, sizeof name);
    rpc_out_str(o, "metric", name);
    put_unit(c, o, column);
    if (values)
        rpc_out_list(o, "values");
    for (size_t i = 0; i < range->n; i++) {
        const double value = history_value(page, range, column, i);
        if (values)
            put_f64(o, NULL, value);
        now = value; /* of the last one, also where nothing was counted */
        if (isnan(value))
            continue;
        min = isnan(min) || value < min ? value : min;
        max = isnan(max) || value > max ? value : max;
        sum += value;
        n++;
    }
    if (values)
        rpc_out_end(o);
    put_f64(o, "now", now);
    put_f64(o, "min", min);
    put_f64(o, "avg", n ? sum / n : NAN);
    put_f64(o, "max", max);
    rpc_out_str(o, "what", history_column_kind(column)->what);
}

static void answer_one(struct control *c, const struct rpc_call *call,
                       const struct history_range *range, const char *metric)
{
    size_t column;
    if (history_find(c->shared->history, metric, strlen(metric), &column)) {
        call_error(c, call->reply, RPC_NOT_FOUND,
                   "there is no metric \"%.100s\"; history alone lists all", metric);
        return;
    }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_u64(o, "step", range->step);
    rpc_out_u64(o, "start", range->start);
    rpc_out_u64(o, "end", range->end);
    put_column(c, o, range, column, true);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

static void answer_all(struct control *c, const struct rpc_call *call,
                       const struct history_range *range)
{
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_u64(o, "start", range->start);
    rpc_out_u64(o, "end", range->end);
    rpc_out_list(o, "metrics");
    for (size_t column = 0; column < HISTORY_WIDTH; column++) {
        if (!history_column_is_used(c->shared->history, column))
            continue;
        rpc_out_map(o, NULL);
        put_column(c, o, range, column, false);
        rpc_out_end(o);
    }
    rpc_out_end(o);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void history_show(struct control *c, const struct rpc_call *call)
{
    struct history_range range;
    uint64_t since_s = SINCE_S, step = 0;
    char metric[HISTORY_NAME] = "";
    const int len = rpc_in_text(call->params, "metric", metric, sizeof metric);
    if (!read_seconds(call, "since", &since_s) || !read_seconds(call, "step", &step)) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "--since and --step are whole seconds, such as 300, 5m, 1h or 24h");
        return;
    }
    history_follow(c); /* up to now, not up to a second ago */
    if (history_range(c->shared->history, since_s, step, clock_real_ms() / 1000, &range)) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "--since is 1s to 24h, --step 1 for the last hour or a multiple of 10 seconds, "
                   "at most --since");
        return;
    }
    if (len > 0)
        answer_one(c, call, &range, metric);
    else
        answer_all(c, call, &range);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * conditions: what is wrong now and needs an operator: shown by status, as polder_condition in
 * /metrics, and logged, at most once a minute each. A condition holds while its counter has grown
 * within the last minute. Counters are in shared memory; what they were is remembered here, so a
 * respawned control starts with nothing wrong and sees it again when it goes on.
 */
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/limit.h"
#include "polder/log.h"

#define HOLDS_MS 60000

static const struct {
    const char *name, *what;
} rows[CONDITIONS] = {
    [CONDITION_LIMIT_TABLE_FULL] =
        {"limit_table_full",
         "the limiter's table is full: live entries gave way to new ones, which inherit their "
         "counts"},
    [CONDITION_LIMIT_LOCK_REFUSALS] = {"limit_lock_refusals",
                                       "requests were refused because a lock of the limiter "
                                       "could not be had within 10 ms"},
    [CONDITION_LIMIT_ROWS_FULL] = {"limit_rows_full",
                                   "requests were refused for want of room to count those under "
                                   "way"},
};

const char *condition_name(enum condition_id id)
{
    return rows[id].name;
}

static void tell(enum condition_id id, struct condition *x, uint64_t now_ms)
{
    if (x->total == x->told_total || (x->told_ms && now_ms < x->told_ms + HOLDS_MS))
        return;
    log_warning("condition %s: %s (%llu more); see polder-runbook(7)", rows[id].name, rows[id].what,
                (unsigned long long)(x->total - x->told_total));
    x->told_ms = now_ms;
    x->told_total = x->total;
}

void condition_look(enum condition_id id, struct condition *x, uint64_t total, uint64_t now_ms)
{
    if (!x->known) {
        *x = (struct condition){.known = true, .total = total, .told_total = total};
        return;
    }
    if (total != x->total) {
        if (!x->holds) {
            x->since_ms = now_ms;
            x->before = x->total;
        }
        x->holds = true;
        x->grown_ms = now_ms;
        x->total = total;
    } else if (x->holds && now_ms >= x->grown_ms + HOLDS_MS) {
        x->holds = false;
        log_info("condition %s: is over; %llu in all", rows[id].name,
                 (unsigned long long)(x->total - x->before));
    }
    tell(id, x, now_ms);
}

void conditions_look(struct control *c)
{
    struct limit_table_stats s;
    const uint64_t now_ms = clock_mono_ms();
    limit_table_counters(c->shared->limits, &s);
    const uint64_t total[CONDITIONS] = {[CONDITION_LIMIT_TABLE_FULL] = s.evicted_live,
                                        [CONDITION_LIMIT_LOCK_REFUSALS] = s.lock_refusals,
                                        [CONDITION_LIMIT_ROWS_FULL] = s.rows_full};
    for (int i = 0; i < CONDITIONS; i++)
        condition_look((enum condition_id)i, &c->condition[i], total[i], now_ms);
}

void conditions_put(const struct control *c, struct rpc_out *o)
{
    const uint64_t now_ms = clock_mono_ms();
    rpc_out_list(o, "conditions");
    for (int i = 0; i < CONDITIONS; i++) {
        const struct condition *x = &c->condition[i];
        if (!x->holds)
            continue;
        rpc_out_map(o, NULL);
        rpc_out_str(o, "condition", rows[i].name);
        rpc_out_str(o, "severity", "warning");
        rpc_out_u64(o, "since_ms", now_ms - x->since_ms);
        rpc_out_u64(o, "times", x->total - x->before);
        rpc_out_str(o, "what", rows[i].what);
        rpc_out_end(o);
    }
    rpc_out_end(o);
}

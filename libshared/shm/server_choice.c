/* SPDX-License-Identifier: BSD-2-Clause */
/* server_choice: see server_choice.h. */
#include "polder/server_choice.h"

#define LATE_MS        10000 /* overdue for this long: any request may be the trial */
#define TRIAL_SPARE_MS 1000

static bool option_is_up(const struct server_option *o)
{
    return !o->row || server_is_up(o->row);
}

/* A server that is down with a trial due; this request becomes the trial. */
static int trial(const struct server_choice *c, uint64_t *lease_ms)
{
    const struct config_upstream *u = c->upstream;
    const uint64_t lasts_ms = (uint64_t)u->connect_timeout_ms + u->timeout_ms + TRIAL_SPARE_MS;
    for (uint32_t i = 0; i < c->n; i++) {
        const struct server_option *o = &c->option[i];
        if (!option_is_up(o) && o->weight && !o->tried &&
            server_try(o->row, c->now_ms, c->repeatable ? 0 : LATE_MS, lasts_ms, lease_ms))
            return (int)i;
    }
    *lease_ms = 0;
    return -1;
}

/* One turn among the servers that were not tried; healthy: and are up, and need not be avoided. */
static int turn(const struct server_choice *c, bool healthy)
{
    int best = -1;
    int64_t total = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        const struct server_option *o = &c->option[i];
        if (!o->weight || o->tried || (healthy && (o->avoid || !option_is_up(o))))
            continue;
        const uint32_t warmth =
            o->row ? server_warmth(o->row, c->upstream->slow_start_ms, c->now_ms) : SERVER_SHARE;
        const int64_t share = (int64_t)o->weight * warmth;
        *o->turn += share;
        total += share;
        if (best < 0 || *o->turn > *c->option[best].turn)
            best = (int)i;
    }
    if (best >= 0)
        *c->option[best].turn -= total;
    return best;
}

int server_choose(const struct server_choice *choice, uint64_t *lease_ms)
{
    int i = trial(choice, lease_ms);
    if (i < 0)
        i = turn(choice, true);
    return i < 0 ? turn(choice, false) : i;
}

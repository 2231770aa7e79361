/* SPDX-License-Identifier: BSD-2-Clause */
/* stickiness: see stickiness.h. */
#include "daemons/control/model/stickiness.h"
#include "daemons/control/control.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/sticky.h"

#include <stdio.h>

#define INTERVAL_MS 60000

static bool is_sticky(void *arg, const char *subject)
{
    const struct config *config = ((const struct control *)arg)->config;
    for (uint32_t u = 0; u < config->n_upstreams; u++)
        if (config->upstreams[u].sticky.kind != CONFIG_KEY_NONE &&
            condition_subject_is(subject, config->upstreams[u].name))
            return true;
    return false;
}

static void look_at(struct control *c, const struct config_upstream *u)
{
    char reason[CONDITION_REASON];
    const uint32_t percent = sticky_top_percent(c->shared->sticky_counts, u->name);
    snprintf(reason, sizeof reason, "%u %% of its requests in the last minute had one key",
             percent);
    condition_set(c->shared->conditions, COND_STICKY_KEY_HEAVY, u->name,
                  percent > STICKY_TOP_PERCENT, reason, clock_real_ms());
}

void stickiness_follow(struct control *c)
{
    const uint64_t now_ms = clock_mono_ms();
    if (c->sticky_due_ms && now_ms < c->sticky_due_ms)
        return;
    if (c->sticky_due_ms)
        sticky_counts_turn(c->shared->sticky_counts);
    c->sticky_due_ms = now_ms + INTERVAL_MS;
    for (uint32_t u = 0; u < c->config->n_upstreams; u++)
        if (c->config->upstreams[u].sticky.kind != CONFIG_KEY_NONE)
            look_at(c, &c->config->upstreams[u]);
    condition_clear_except(c->shared->conditions, COND_STICKY_KEY_HEAVY, is_sticky, c,
                           clock_real_ms());
}

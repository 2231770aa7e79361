/* SPDX-License-Identifier: BSD-2-Clause */
/* shift_show: what is shown of traffic that is shifted; see shift.h. */
#include "daemons/control/control.h"
#include "daemons/control/model/servers.h"
#include "daemons/control/model/shift.h"
#include "polder/clock.h"

#include <inttypes.h>
#include <stdio.h>

const struct shift_state *shift_of(const struct control *c, const struct config_upstream *upstream)
{
    const struct shift_state *s = shift_find(c->shared->shift, upstream->name);
    return s && servers_find(c->config, upstream->name, s->server) ? s : NULL;
}

unsigned shift_guard_number(const struct shift_state *s)
{
    if (!shift_is_watched(s))
        return s->phase == SHIFT_ROLLED_BACK ? 4 : 0;
    if (s->phase == SHIFT_STALLED)
        return 5;
    if (s->watch.verdict == SHIFT_SUSPECT || s->watch.last[SHIFT_NEW].out != SHIFT_IN)
        return 3;
    return s->watch.verdict == SHIFT_TOO_FEW ? 2 : 1;
}

const char *shift_guard_text(const struct shift_state *s)
{
    static const char *const texts[] = {"off",      "watching",    "too little traffic",
                                        "suspects", "rolled back", "stalled"};
    return texts[shift_guard_number(s)];
}

static void describe_walk(const struct shift_state *s, char *out, size_t size)
{
    const uint64_t now_ms = clock_real_ms(), due_ms = s->watch.begun_ms + s->hold_ms;
    const uint64_t left_s = due_ms > now_ms ? (due_ms - now_ms + 999) / 1000 : 0;
    if (s->watch.last[SHIFT_NEW].out != SHIFT_IN)
        snprintf(out, size, "holds: it gets no requests, as it is down");
    else if (s->watch.since[SHIFT_NEW].requests < PROPORTION_MIN)
        snprintf(out, size, "holds: needs %" PRIu64 " more requests to be judged",
                 PROPORTION_MIN - s->watch.since[SHIFT_NEW].requests);
    else
        snprintf(out, size, "%u %% in %" PRIu64 " s if it stays good",
                 shift_next_percent(s->percent), left_s);
}

void shift_describe_next(const struct shift_state *s, char *out, size_t size)
{
    if (s->phase == SHIFT_ROLLED_BACK)
        snprintf(out, size, "nothing by itself; shift again, or --stop to end the condition");
    else if (!shift_is_watched(s))
        snprintf(out, size, "nothing by itself");
    else if (s->percent == 100)
        snprintf(out, size, "watched for failing connections and checks alone, then done");
    else if (s->phase == SHIFT_WALKING)
        describe_walk(s, out, size);
    else if (s->watch.last[SHIFT_NEW].out != SHIFT_IN)
        snprintf(out, size, "holds: it gets no requests, as it is down");
    else if (s->watch.since[SHIFT_NEW].requests < PROPORTION_MIN)
        snprintf(out, size, "holds: too little traffic to judge by");
    else
        snprintf(out, size, "stays until it is shifted further, or rolled back");
}

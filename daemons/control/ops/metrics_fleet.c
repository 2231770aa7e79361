/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_fleet: see metrics_fleet.h. */
#include "daemons/control/ops/metrics_fleet.h"
#include "daemons/control/control.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/model/fleet_share.h"

static void put(struct metrics_writer *w, enum metric metric, uint64_t value)
{
    if (metrics_family_begin(w, metric))
        metrics_u64(w, METRICS_NO_LABELS, value);
}

static uint32_t others_alive(const struct fleet_view *v)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->n; i++)
        n += v->at[i].alive && !v->at[i].self;
    return n;
}

static void put_cache(struct metrics_writer *w, const struct control *c)
{
    struct fleet_share_view v;
    fleet_member_share_view(c, &v);
    put(w, METRIC_FLEET_CACHE_IN_USE, v.quick);
    if (metrics_family_begin(w, METRIC_FLEET_CACHE_REQUESTS)) {
        metrics_u64(w, METRICS_LABELS({"result", "hit"}), v.hits);
        metrics_u64(w, METRICS_LABELS({"result", "wait"}), v.waits);
        metrics_u64(w, METRICS_LABELS({"result", "miss"}), v.misses);
    }
    put(w, METRIC_FLEET_CACHE_PUTS, v.puts);
    if (metrics_family_begin(w, METRIC_FLEET_CACHE_UNUSED)) {
        metrics_u64(w, METRICS_LABELS({"reason", "overtaken"}), v.overtaken);
        metrics_u64(w, METRICS_LABELS({"reason", "rejected"}), v.rejected);
    }
}

void metrics_write_fleet(struct metrics_writer *w, const struct control *c)
{
    static const char *const modes[] = {"serve", "revalidate", "bypass"};
    struct fleet_view v = {.connected = true};
    const bool member = fleet_member_view(c, &v);
    if (metrics_family_begin(w, METRIC_FLEET_DEGRADED))
        metrics_u64(w, METRICS_LABELS({"mode", modes[c->config->fleet.cut_off]}), !v.connected);
    put(w, METRIC_FLEET_HOSTS, member && v.connected ? 1 + others_alive(&v) : 0);
    put(w, METRIC_FLEET_APPLIED, v.applied);
    put(w, METRIC_FLEET_LAG, v.last > v.applied ? v.last - v.applied : 0);
    put(w, METRIC_FLEET_PENDING, v.pending);
    if (metrics_family_begin(w, METRIC_FLEET_ENTRIES)) {
        metrics_u64(w, METRICS_LABELS({"direction", "sent"}), v.sent);
        metrics_u64(w, METRICS_LABELS({"direction", "received"}), v.received);
    }
    put(w, METRIC_FLEET_STRANGE, v.strange);
    put_cache(w, c);
    put(w, METRIC_FLEET_GAPS, v.gaps);
}

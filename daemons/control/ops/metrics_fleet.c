/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_fleet: see metrics_fleet.h. */
#include "daemons/control/ops/metrics_fleet.h"
#include "daemons/control/control.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/model/fleet_share.h"
#include "daemons/control/model/fleet_slots.h"
#include "polder/clock.h"
#include "polder/config_keys.h"
#include "polder/fleet_grants.h"
#include "polder/fleet_slots.h"
#include "polder/shared.h"

static void put(struct metrics_writer *w, enum metric metric, uint64_t value)
{
    if (metrics_family_begin(w, metric))
        metrics_u64(w, METRICS_NO_LABELS, value);
}

static uint32_t others_alive(const struct fleet_view *v)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->n; i++)
        n += v->at[i].alive && !v->at[i].self && !v->at[i].foreign;
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
        metrics_u64(w, METRICS_LABELS({"result", "late"}), v.late);
    }
    put(w, METRIC_FLEET_CACHE_PUTS, v.puts);
    if (metrics_family_begin(w, METRIC_FLEET_CACHE_UNUSED)) {
        metrics_u64(w, METRICS_LABELS({"reason", "overtaken"}), v.overtaken);
        metrics_u64(w, METRICS_LABELS({"reason", "rejected"}), v.rejected);
    }
}

static void write_limits(struct metrics_writer *w, const struct control *c)
{
    const struct fleet_grants *g = c->shared->fleet_grants;
    const bool used = fleet_member_has_limits(c->config);
    const uint64_t late = atomic_load(&g->late), waited = atomic_load(&g->waited);
    put(w, METRIC_FLEET_LIMIT_DEGRADED, used && !fleet_grants_come(g, clock_mono_ms()));
    if (metrics_family_begin(w, METRIC_FLEET_LIMIT_SHARE))
        metrics_f64(w, METRICS_NO_LABELS, (double)atomic_load(&g->share) / FLEET_SHARE_WHOLE);
    put(w, METRIC_FLEET_LIMIT_GRANTED, atomic_load(&g->taken));
    put(w, METRIC_FLEET_LIMIT_REFUSALS, atomic_load(&g->refused));
    put(w, METRIC_FLEET_LIMIT_CALLS, atomic_load(&g->calls));
    if (metrics_family_begin(w, METRIC_FLEET_LIMIT_WAITS)) {
        metrics_u64(w, METRICS_LABELS({"result", "answered"}), waited > late ? waited - late : 0);
        metrics_u64(w, METRICS_LABELS({"result", "late"}), late);
    }
    if (metrics_family_begin(w, METRIC_FLEET_LIMIT_ALONE)) {
        metrics_u64(w, METRICS_LABELS({"result", "admitted"}), atomic_load(&g->cut_admitted));
        metrics_u64(w, METRICS_LABELS({"result", "refused"}), atomic_load(&g->cut_refused));
    }
}

static void put_kinds(struct metrics_writer *w, enum metric metric, const uint64_t n[2])
{
    if (!metrics_family_begin(w, metric))
        return;
    metrics_u64(w, METRICS_LABELS({"kind", "requests"}), n[FLEET_SLOT_REQUEST]);
    metrics_u64(w, METRICS_LABELS({"kind", "websockets"}), n[FLEET_SLOT_WEBSOCKET]);
}

static void write_slots(struct metrics_writer *w, const struct control *c)
{
    const struct fleet_slots *p = c->shared->fleet_slots;
    struct fleet_slots_view v;
    const uint64_t late = atomic_load(&p->late), waited = atomic_load(&p->waited);
    fleet_slots_view(c->shared, 0, &v);
    put(w, METRIC_FLEET_SLOTS_DEGRADED, fleet_member_has_slots(c) && !v.comes);
    put_kinds(w, METRIC_FLEET_SLOTS_HELD, v.held);
    put_kinds(w, METRIC_FLEET_SLOTS_IN_USE, v.used);
    put(w, METRIC_FLEET_SLOTS_GRANTED, atomic_load(&p->taken));
    put(w, METRIC_FLEET_SLOTS_REFUSALS, atomic_load(&p->refused));
    put(w, METRIC_FLEET_SLOTS_CALLS, atomic_load(&p->calls));
    if (metrics_family_begin(w, METRIC_FLEET_SLOTS_WAITS)) {
        metrics_u64(w, METRICS_LABELS({"result", "answered"}), waited > late ? waited - late : 0);
        metrics_u64(w, METRICS_LABELS({"result", "late"}), late);
    }
    if (metrics_family_begin(w, METRIC_FLEET_SLOTS_ALONE)) {
        metrics_u64(w, METRICS_LABELS({"result", "admitted"}), atomic_load(&p->cut_admitted));
        metrics_u64(w, METRICS_LABELS({"result", "refused"}), atomic_load(&p->cut_refused));
    }
    put(w, METRIC_FLEET_SLOTS_ENDED, atomic_load(&p->ended));
}

void metrics_write_fleet(struct metrics_writer *w, const struct control *c)
{
    const char *mode = config_word(&config_rows[CONFIG_FLEET_cut_off], c->config->fleet.cut_off);
    struct fleet_view v = {.connected = true};
    const bool member = fleet_member_view(c, &v);
    if (metrics_family_begin(w, METRIC_FLEET_DEGRADED))
        metrics_u64(w, METRICS_LABELS({"mode", mode}), !v.connected);
    put(w, METRIC_FLEET_HOSTS, member && v.connected ? 1 + others_alive(&v) : 0);
    put(w, METRIC_FLEET_APPLIED, v.applied);
    put(w, METRIC_FLEET_LAG, v.last > v.applied ? v.last - v.applied : 0);
    if (metrics_family_begin(w, METRIC_FLEET_LATE))
        metrics_f64(w, METRICS_NO_LABELS, (double)v.late_ms / 1000);
    put(w, METRIC_FLEET_PENDING, v.pending);
    if (metrics_family_begin(w, METRIC_FLEET_ENTRIES)) {
        metrics_u64(w, METRICS_LABELS({"direction", "sent"}), v.sent);
        metrics_u64(w, METRICS_LABELS({"direction", "received"}), v.received);
    }
    put(w, METRIC_FLEET_STRANGE, v.strange);
    put_cache(w, c);
    put(w, METRIC_FLEET_GAPS, v.gaps);
    write_limits(w, c);
    write_slots(w, c);
}

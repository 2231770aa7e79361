/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_fleet: see telemetry_fleet.h. */
#include "daemons/control/ops/telemetry_fleet.h"
#include "daemons/control/control.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/model/fleet_share.h"
#include "daemons/control/model/fleet_slots.h"
#include "polder/clock.h"
#include "polder/config_keys.h"
#include "polder/fleet_grants.h"
#include "polder/fleet_slots.h"
#include "polder/shared.h"

#include <inttypes.h>

static void put_text(struct text *t, const char *name, const char *value)
{
    text_put(t, ",\"%s\":\"", name);
    text_put_json(t, value);
    text_put(t, "\"");
}

static void put_place(struct text *t, const struct fleet_view *v, uint64_t applied,
                      uint64_t late_ms)
{
    text_put(t, ",\"applied\":%" PRIu64 ",\"lag\":%" PRIu64 ",\"lateSeconds\":%.6g", applied,
             v->last > applied ? v->last - applied : 0, (double)late_ms / 1000);
}

static void put_hosts(struct text *t, const struct fleet_view *v)
{
    text_put(t, ",\"hosts\":[");
    for (uint32_t i = 0; i < v->n; i++) {
        const struct fleet_host *h = &v->at[i];
        text_put(t, "%s{\"self\":%s", i ? "," : "", h->self ? "true" : "false");
        put_text(t, "host", h->name);
        put_text(t, "state", h->foreign ? "stranger" : h->alive ? "member" : "cut off");
        put_place(t, v, h->applied, h->late_ms);
        put_text(t, "version", h->program);
        text_put(t, ",\"leaseSeconds\":%.6g}", (double)h->lease_ms / 1000);
    }
    text_put(t, "]");
}

/* Empty where there is only one. */
static void put_servers(struct text *t, const struct fleet_view *v)
{
    text_put(t, ",\"servers\":[");
    for (uint32_t i = 0; i < v->n_servers; i++) {
        text_put(t, "%s{\"server\":\"", i ? "," : "");
        text_put_json(t, v->server[i].name);
        text_put(t, "\"");
        put_text(t, "state", v->server[i].state);
        put_text(t, "why", v->server[i].why ? v->server[i].why : "");
        text_put(t, "}");
    }
    text_put(t, "]");
}

static void put_cache(struct text *t, const struct control *c)
{
    struct fleet_share_view v;
    fleet_member_share_view(c, &v);
    if (!v.shares) {
        text_put(t, ",\"cache\":null");
        return;
    }
    text_put(
        t,
        ",\"cache\":{\"inUse\":%s,\"hits\":%" PRIu64 ",\"misses\":%" PRIu64 ",\"waits\":%" PRIu64
        ",\"puts\":%" PRIu64 ",\"outdated\":%" PRIu64 ",\"rejected\":%" PRIu64 "}",
        v.quick ? "true" : "false", v.hits, v.misses, v.waits, v.puts, v.overtaken, v.rejected);
}

static void put_limits(struct text *t, const struct control *c)
{
    const struct fleet_grants *g = c->shared->fleet_grants;
    if (!fleet_member_has_limits(c->config)) {
        text_put(t, ",\"limits\":null");
        return;
    }
    text_put(t,
             ",\"limits\":{\"state\":\"%s\",\"share\":%.6g,\"granted\":%" PRIu64
             ",\"refusals\":%" PRIu64 ",\"waited\":%" PRIu64 ",\"waitedInVain\":%" PRIu64
             ",\"aloneAdmitted\":%" PRIu64 ",\"aloneRefused\":%" PRIu64 "}",
             fleet_member_limits_state(c), (double)atomic_load(&g->share) / FLEET_SHARE_WHOLE,
             atomic_load(&g->taken), atomic_load(&g->refused), atomic_load(&g->waited),
             atomic_load(&g->late), atomic_load(&g->cut_admitted), atomic_load(&g->cut_refused));
}

static void put_slots(struct text *t, const struct control *c)
{
    const struct fleet_slots *p = c->shared->fleet_slots;
    struct fleet_slots_view v;
    if (!fleet_member_has_slots(c)) {
        text_put(t, ",\"slots\":null");
        return;
    }
    fleet_slots_view(c->shared, 0, &v);
    text_put(t,
             ",\"slots\":{\"state\":\"%s\",\"requestsHeld\":%" PRIu64 ",\"requestsInUse\":%" PRIu64
             ",\"websocketsHeld\":%" PRIu64 ",\"websocketsInUse\":%" PRIu64 ",\"refusals\":%" PRIu64
             ",\"ended\":%" PRIu64 "}",
             v.comes ? "granted" : "cut off", v.held[FLEET_SLOT_REQUEST],
             v.used[FLEET_SLOT_REQUEST], v.held[FLEET_SLOT_WEBSOCKET], v.used[FLEET_SLOT_WEBSOCKET],
             atomic_load(&p->refused), atomic_load(&p->ended));
}

static void put_fleet(struct text *t, const struct control *c, const struct fleet_view *v)
{
    text_put(t, "{\"since\":%" PRIu64, (clock_real_ms() - v->since_ms + 500) / 1000);
    put_text(t, "fleet", v->name);
    put_text(t, "host", v->host);
    put_text(t, "store", v->store);
    put_text(t, "state", v->connected ? "member" : "cut off");
    put_text(t, "why", v->connected ? "" : v->why);
    put_text(t, "cutOff",
             config_word(&config_rows[CONFIG_FLEET_cut_off], c->config->fleet.cut_off));
    put_place(t, v, v->applied, v->late_ms);
    text_put(t,
             ",\"sent\":%" PRIu64 ",\"received\":%" PRIu64 ",\"pending\":%" PRIu32
             ",\"gaps\":%" PRIu64 ",\"strange\":%" PRIu64,
             v->sent, v->received, v->pending, v->gaps, v->strange);
    put_cache(t, c);
    put_limits(t, c);
    put_slots(t, c);
    put_servers(t, v);
    put_hosts(t, v);
    text_put(t, "}\n");
}

void telemetry_fleet_make(struct control *c, page_made_fn made, void *arg)
{
    struct fleet_view v;
    struct text t = {0};
    if (fleet_member_view(c, &v))
        put_fleet(&t, c, &v);
    else
        text_put(&t, "null\n");
    made(arg, &t);
}

void telemetry_fleet_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, telemetry_fleet_make);
}

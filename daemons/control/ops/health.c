/* SPDX-License-Identifier: BSD-2-Clause */
/* health: see health.h. Shows what model/health.c has found. */
#include "daemons/control/ops/health.h"
#include "daemons/control/control.h"
#include "daemons/control/model/health.h"
#include "daemons/control/ops/page.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/stats.h"

#include <inttypes.h>

/* A control that answers is alive; the master watches the other processes. */
void health_alive_page(struct control *c, const struct http_call *call)
{
    static const char ok[] = "{\"status\":\"ok\"}\n";
    (void)c;
    http_answer(call->request, 200, PAGE_JSON, ok, sizeof ok - 1);
}

/* ---- ready ---- */

static void put_reason(struct text *t, const struct condition *x)
{
    const struct condition_kind *k = condition_kind(x->id);
    text_put(t, "%s", k->name);
    if (*x->subject) {
        text_put(t, " ");
        text_put_json(t, x->subject);
    }
    text_put(t, ": %s", k->meaning);
    if (*x->reason) {
        text_put(t, ": ");
        text_put_json(t, x->reason);
    }
}

static void put_reasons(struct text *t, const struct health *h)
{
    bool first = true;
    text_put(t, "[");
    if (h->expected)
        text_put(t, "\"%s\"", h->expected);
    first = !h->expected;
    for (size_t i = 0; i < h->n; i++) {
        if (condition_kind(h->condition[i].id)->readyz == CONDITION_SILENT)
            continue;
        text_put(t, first ? "\"" : ",\"");
        put_reason(t, &h->condition[i]);
        text_put(t, "\"");
        first = false;
    }
    text_put(t, "]");
}

static const char *cache_text(const struct control *c)
{
    if (stats_gauge_total(c->shared->stats, STATS_GAUGE_CACHE_READY) > 0)
        return "ok";
    return config_has_caches(c->config) ? "degraded" : "unused";
}

void health_ready_page(struct control *c, const struct http_call *call)
{
    struct text t = {0};
    struct health h;
    struct workers_count workers;
    health_get(c, &h);
    health_count_workers(c, &workers);
    text_put(&t, "{\"ready\":%s,\"cache\":\"%s\",\"workers\":%u,\"reasons\":",
             h.ready ? "true" : "false", cache_text(c), workers.ready);
    put_reasons(&t, &h);
    text_put(&t, "}\n");
    page_answer(call->request, h.ready ? 200 : 503, PAGE_JSON, &t);
}

/* ---- conditions ---- */

void health_conditions_make(struct control *c, page_made_fn made, void *arg)
{
    struct text t = {0};
    struct health h;
    health_get(c, &h);
    text_put(&t, "{\"conditions\":[");
    for (size_t i = 0; i < h.n; i++) {
        const struct condition *x = &h.condition[i];
        const struct condition_kind *k = condition_kind(x->id);
        text_put(&t, "%s{\"condition\":\"%s\",\"severity\":\"%s\",\"since\":%.3f,\"subject\":\"",
                 i ? "," : "", k->name, condition_severity_name(k->severity),
                 (double)x->since_ms / 1000);
        text_put_json(&t, x->subject);
        text_put(&t, "\",\"reason\":\"");
        text_put_json(&t, x->reason);
        text_put(&t, "\",\"what\":\"%s\"}", k->meaning);
    }
    text_put(&t, "],\"lost\":%" PRIu64 "}\n", conditions_lost(c->shared->conditions));
    made(arg, &t);
}

void health_conditions_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, health_conditions_make);
}

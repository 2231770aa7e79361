/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_limits: see telemetry_limits.h. Keys are shown as their first characters and a hash, as
 * in polder/recent.h, for they may be tokens. */
#include "daemons/control/ops/telemetry_limits.h"
#include "daemons/control/control.h"
#include "daemons/control/model/limits.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/limit_top.h"
#include "polder/limitkey.h"
#include "polder/recent.h"

#include <inttypes.h>

#define TOP_ROWS  5
#define KEY_SHOWN 64

static void put_top(struct text *t, const struct control *c, const struct config_limit *l)
{
    struct limit_top_row row[TOP_ROWS];
    char key[4 * LIMIT_TOP_WHO + 1], masked[sizeof(((struct recent_request *)0)->key)];
    const struct limit_top_list list = {l->index, l->id};
    const size_t n = limit_top_read(c->shared->limits, list, LIMIT_TOP_REFUSED, row, TOP_ROWS);
    text_put(t, ",\"refusedMost\":[");
    for (size_t i = 0; i < n; i++) {
        const size_t held = row[i].who_len < sizeof row[i].who ? row[i].who_len : sizeof row[i].who;
        const size_t len = limitkey_to_text(l, row[i].who, held, row[i].who_len, key, sizeof key);
        recent_mask_key(masked, sizeof masked, (struct str){key, len}, row[i].key);
        text_put(t, "%s{\"key\":\"", i ? "," : "");
        text_put_json(t, masked);
        text_put(t, "\",\"refused\":%" PRIu64 "}", row[i].requests);
    }
    text_put(t, "]");
}

static void put_routes(struct text *t, const struct control *c, const struct config_limit *l)
{
    bool first = true;
    text_put(t, ",\"routes\":[");
    for (uint32_t i = 0; i < c->config->n_routes; i++)
        for (uint32_t k = 0; k < c->config->routes[i].n_limits; k++)
            if (c->config->routes[i].limits[k] == l) {
                text_put(t, "%s\"", first ? "" : ",");
                text_put_json(t, c->config->routes[i].pattern);
                text_put(t, "\"");
                first = false;
            }
    text_put(t, "]");
}

static void put_limit(struct text *t, const struct control *c, const struct config_limit *l,
                      const struct runtime_limit *running)
{
    struct stats_limit sums;
    char key[512];
    stats_limit_of(c->shared->stats, l->id, l->index, &sums);
    limitkey_describe(l, key, sizeof key);
    text_put(t, "{\"name\":\"");
    text_put_json(t, l->name);
    text_put(t, "\",\"key\":\"");
    text_put_json(t, key);
    text_put(t,
             "\",\"algorithm\":\"%s\",\"requests\":%" PRIu64
             ",\"windowSeconds\":%.9g,\"dryRun\":%s,\"changed\":%s,"
             "\"checked\":%" PRIu64 ",\"admitted\":%" PRIu64 ",\"refused\":%" PRIu64
             ",\"dryRunRefused\":%" PRIu64,
             config_word(&config_rows[CONFIG_LIMIT_algorithm], running->algorithm),
             (uint64_t)running->requests, (double)running->window_ms / 1000,
             running->dry_run ? "true" : "false",
             limits_is_as_file(c, l, running) ? "false" : "true", sums.checked, sums.admitted,
             sums.refused, sums.dry_refused);
    put_routes(t, c, l);
    put_top(t, c, l);
    text_put(t, "}");
}

void telemetry_limits_make(struct control *c, page_made_fn made, void *arg)
{
    struct text t = {0};
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    text_put(&t, "{\"limits\":[");
    for (uint32_t i = 0; i < c->config->n_limits; i++) {
        const struct config_limit *l = &c->config->limits[i];
        text_put(&t, "%s", i ? "," : "");
        put_limit(&t, c, l, &values.limit[l->index]);
    }
    text_put(&t, "]}\n");
    made(arg, &t);
}

void telemetry_limits_page(struct control *c, const struct http_call *call)
{
    page_answer_made(c, call, telemetry_limits_make);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* pages: which page a path means; health, readiness and the index. */
#include "daemons/control/control.h"
#include "polder/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TYPE_JSON "application/json"
#define TYPE_HTML "text/html; charset=utf-8"
#define TYPE_OPEN "application/openmetrics-text; version=1.0.0; charset=utf-8"
#define TYPE_TEXT "text/plain; version=0.0.4; charset=utf-8"
#define TELEMETRY "/api/telemetry"

static bool page_grow(struct page_text *t)
{
    const size_t size = t->size ? t->size * 2 : 16384;
    char *at = realloc(t->at, size);
    if (!at)
        return false;
    t->at = at;
    t->size = size;
    return true;
}

void page_put(struct page_text *t, const char *format, ...)
{
    va_list ap;
    while (!t->failed) {
        if (t->size) {
            va_start(ap, format);
            const int n = vsnprintf(t->at + t->len, t->size - t->len, format, ap);
            va_end(ap);
            if (n >= 0 && (size_t)n < t->size - t->len) {
                t->len += (size_t)n;
                return;
            }
        }
        t->failed = !page_grow(t);
    }
}

void page_put_json(struct page_text *t, const char *text)
{
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            page_put(t, "\\%c", c);
        else if (c < ' ')
            page_put(t, "\\u%04x", c);
        else
            page_put(t, "%c", c);
    }
}

/* Sends the text and frees it. */
static void answer(struct ops_request *r, unsigned status, const char *type, struct page_text *t)
{
    if (t->failed)
        ops_answer(r, 503, TYPE_JSON, "{}\n", 3);
    else
        ops_answer(r, status, type, t->at ? t->at : "", t->len);
    free(t->at);
}

/* ---- health ---- */

void pages_count_workers(const struct control *c, struct workers_count *out)
{
    const struct proc_table *proc = c->shared->proc;
    const uint32_t generation = atomic_load(&proc->generation);
    *out = (struct workers_count){.wanted = c->config->workers};
    for (unsigned i = PROC_SLOT_WORKER0; i < PROC_SLOTS; i++) {
        const struct proc_slot *slot = &proc->slot[i];
        const uint32_t state = atomic_load(&slot->state);
        if (!atomic_load(&slot->pid))
            continue;
        out->draining += state == PROC_DRAINING;
        out->ready += state == PROC_READY && atomic_load(&slot->generation) == generation;
    }
}

/* Who answers is alive; the master sees to all others. */
static void show_health(struct ops_request *r)
{
    static const char ok[] = "{\"status\":\"ok\"}\n";
    ops_answer(r, 200, TYPE_JSON, ok, sizeof ok - 1);
}

static void show_readiness(struct control *c, struct ops_request *r)
{
    struct page_text t = {0}, reasons = {0};
    struct workers_count workers;
    const bool stores = stats_gauge_total(c->shared->stats, STATS_GAUGE_CACHE_READY) > 0;
    const bool ready = health_put_reasons(c, &reasons);
    pages_count_workers(c, &workers);
    page_put(&t, "{\"ready\":%s,\"cache\":\"%s\",\"workers\":%u,\"reasons\":[%s]}\n",
             ready ? "true" : "false",
             stores                         ? "ok"
             : config_has_caches(c->config) ? "degraded"
                                            : "unused",
             workers.ready, reasons.len ? reasons.at : "");
    t.failed |= reasons.failed;
    answer(r, ready ? 200 : 503, TYPE_JSON, &t);
    free(reasons.at);
}

static void show_conditions(struct control *c, struct ops_request *r)
{
    struct page_text t = {0};
    health_put_json(c, &t);
    answer(r, 200, TYPE_JSON, &t);
}

/* ---- the others ---- */

static void show_cache(const struct control *c, struct ops_request *r)
{
    struct page_text t = {0};
    telemetry_cache(c, &t);
    answer(r, 200, TYPE_JSON, &t);
}

struct scrape {
    struct control *control;
    struct ops_request *request;
    bool openmetrics;
};

static void on_websockets(void *arg, enum rpc_error code, const char *message,
                          const msgpack_object *result)
{
    struct scrape *s = arg;
    struct page_text t = {0};
    (void)message;
    metrics_write(s->control, s->openmetrics, code ? NULL : result, &t);
    answer(s->request, 200, s->openmetrics ? TYPE_OPEN : TYPE_TEXT, &t);
    free(s);
}

static void show_metrics(struct control *c, struct ops_request *r, bool openmetrics)
{
    struct scrape *s = malloc(sizeof *s);
    if (!s) {
        ops_answer(r, 503, TYPE_TEXT, "", 0);
        return;
    }
    *s = (struct scrape){c, r, openmetrics};
    rpc_client_call(&c->supervisor, "ws.stats", NULL, CONTROL_ASK_MS, on_websockets, s);
}

static void show_index(struct ops_request *r)
{
    static const char page[] =
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width\">"
        "<meta name=\"color-scheme\" content=\"light dark\"><title>Polder " POLDER_VERSION
        "</title>\n<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:2em "
        "auto;padding:0 1em}</style>\n<h1>Polder " POLDER_VERSION "</h1>\n<ul>\n"
        "<li><a href=\"/metrics\">/metrics</a>: for Prometheus\n"
        "<li><a href=\"" TELEMETRY "/cache-stats\">" TELEMETRY "/cache-stats</a>\n"
        "<li><a href=\"" TELEMETRY "/websocket-health\">" TELEMETRY "/websocket-health</a>\n"
        "<li><a href=\"" TELEMETRY "/conditions\">" TELEMETRY
        "/conditions</a>: what needs somebody\n"
        "<li><a href=\"/healthz\">/healthz</a>: is it alive?\n"
        "<li><a href=\"/readyz\">/readyz</a>: does it take traffic?\n</ul>\n";
    ops_answer(r, 200, TYPE_HTML, page, sizeof page - 1);
}

static void show_error(struct ops_request *r, unsigned status, const char *title,
                       const char *detail)
{
    struct page_text t = {0};
    page_put(&t, "{\"title\":\"%s\",\"status\":%u,\"detail\":\"%s\"}\n", title, status, detail);
    answer(r, status, "application/problem+json", &t);
}

/* ---- which ---- */

static bool is(struct field_text text, const char *wanted)
{
    return text.len == strlen(wanted) && !memcmp(text.at, wanted, text.len);
}

/* What follows the prefix and a slash. */
static bool below(struct field_text path, const char *prefix, struct field_text *rest)
{
    const size_t n = strlen(prefix);
    if (!n || path.len <= n || memcmp(path.at, prefix, n) || path.at[n] != '/')
        return false;
    *rest = (struct field_text){path.at + n + 1, path.len - n - 1};
    return true;
}

void pages_answer(struct control *c, const struct page_call *call)
{
    struct ops_request *r = call->request;
    struct field_text rest = {0};
    const bool telemetry = below(call->path, c->config->telemetry_path, &rest) ||
                           (!call->public && below(call->path, TELEMETRY, &rest));
    if (!call->get)
        show_error(r, 405, "Method Not Allowed", "Only GET and HEAD are answered here.");
    else if (telemetry && is(rest, "cache-stats"))
        show_cache(c, r);
    else if (telemetry && is(rest, "websocket-health"))
        telemetry_websocket(c, r);
    else if (telemetry && !call->public && is(rest, "conditions"))
        show_conditions(c, r);
    else if (call->public)
        show_error(r, 404, "Not Found", "There is cache-stats and websocket-health.");
    else if (is(call->path, "/metrics"))
        show_metrics(c, r, call->openmetrics);
    else if (is(call->path, "/healthz"))
        show_health(r);
    else if (is(call->path, "/readyz"))
        show_readiness(c, r);
    else if (is(call->path, "/"))
        show_index(r);
    else
        show_error(r, 404, "Not Found", "/ lists what there is.");
}

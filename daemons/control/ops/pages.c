/* SPDX-License-Identifier: BSD-2-Clause */
/* pages: the table of pages, and the index made from it. */
#include "daemons/control/ops/pages.h"
#include "daemons/control/control.h"
#include "daemons/control/ops/alerts.h"
#include "daemons/control/ops/dashboard.h"
#include "daemons/control/ops/live.h"
#include "daemons/control/ops/health.h"
#include "daemons/control/ops/host.h"
#include "daemons/control/ops/history.h"
#include "daemons/control/ops/metrics.h"
#include "daemons/control/ops/overview.h"
#include "daemons/control/ops/page.h"
#include "daemons/control/ops/telemetry.h"
#include "daemons/control/ops/telemetry_fleet.h"
#include "daemons/control/ops/telemetry_limits.h"
#include "daemons/control/ops/telemetry_openapi.h"
#include "daemons/control/ops/telemetry_routes.h"
#include "daemons/control/ops/telemetry_upstreams.h"
#include "polder/config.h"

#include <stdio.h>
#include <string.h>

#define TELEMETRY "/api/telemetry" /* where the pages have it, besides telemetry.path */

enum page_place {
    AT_ROOT,
    IN_TELEMETRY,
    IN_PUBLIC_TELEMETRY, /* workers pass it on */
};

static void show_index(struct control *c, const struct http_call *call);

/* In the order of the index. */
static const struct page {
    const char *name; /* its path, or what follows the path of telemetry */
    enum page_place place;
    void (*show)(struct control *c, const struct http_call *call);
    const char *about; /* in the index; NULL: the name says it */
} table[] = {
    {"/metrics", AT_ROOT, metrics_page, "for Prometheus"},
    {"cache-stats", IN_PUBLIC_TELEMETRY, telemetry_cache_page, NULL},
    {"websocket-health", IN_PUBLIC_TELEMETRY, telemetry_websocket_page, NULL},
    {"cost", IN_PUBLIC_TELEMETRY, telemetry_cost_page, NULL},
    {"limits", IN_PUBLIC_TELEMETRY, telemetry_limits_page, NULL},
    {"upstreams", IN_PUBLIC_TELEMETRY, telemetry_upstreams_page, NULL},
    {"routes", IN_PUBLIC_TELEMETRY, telemetry_routes_page, NULL},
    {"openapi.json", IN_PUBLIC_TELEMETRY, telemetry_openapi_page, "what there is, for programs"},
    {"overview", IN_TELEMETRY, overview_page, "the last five minutes, hour and day"},
    {"history", IN_PUBLIC_TELEMETRY, history_page_show, "the last 24 hours"},
    {"alerts", IN_PUBLIC_TELEMETRY, alerts_page, NULL},
    {"conditions", IN_TELEMETRY, health_conditions_page, "conditions that are raised"},
    {"fleet", IN_TELEMETRY, telemetry_fleet_page, "hosts that share a store with this one"},
    {"/healthz", AT_ROOT, health_alive_page, "is it alive?"},
    {"/readyz", AT_ROOT, health_ready_page, "does it take traffic?"},
    {"/", AT_ROOT, dashboard_page, "the dashboard"},
    {"/runbook", AT_ROOT, dashboard_runbook_page, "what to do about conditions and alerts"},
    {"/events", AT_ROOT, live_page, "the stream that the dashboard shows"},
    {"/pages", AT_ROOT, show_index, NULL},
};
#define NOT_OURS                                                                                   \
    "The ops pages are not known by this name; ops { hosts = {...} } in polder.conf says which "   \
    "they "                                                                                        \
    "have besides addresses and localhost."
#define PAGES (sizeof table / sizeof *table)

static void show_index(struct control *c, const struct http_call *call)
{
    struct text t = {0};
    (void)c;
    text_put(&t,
             "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">"
             "<meta name=\"viewport\" content=\"width=device-width\">"
             "<meta name=\"color-scheme\" content=\"light dark\"><title>Polder " POLDER_VERSION
             "</title>\n<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:2em "
             "auto;padding:0 1em}</style>\n<h1>Polder " POLDER_VERSION "</h1>\n<ul>\n");
    for (size_t i = 0; i < PAGES; i++) {
        const struct page *p = &table[i];
        const char *base = p->place == AT_ROOT ? "" : TELEMETRY "/";
        if (p->show == show_index)
            continue;
        text_put(&t, "<li><a href=\"%s%s\">%s%s</a>%s%s\n", base, p->name, base, p->name,
                 p->about ? ": " : "", p->about ? p->about : "");
    }
    text_put(&t, "</ul>\n");
    page_answer(call->request, 200, "text/html; charset=utf-8", &t);
}

/* "There is A, B and C." of what is public. */
static void answer_not_found(struct http_request *r, bool public)
{
    char detail[400] = "There is ";
    size_t left = 0;
    for (size_t i = 0; i < PAGES; i++)
        left += table[i].place == IN_PUBLIC_TELEMETRY;
    for (size_t i = 0; i < PAGES; i++) {
        const size_t at = strlen(detail);
        if (table[i].place != IN_PUBLIC_TELEMETRY)
            continue;
        left--;
        snprintf(detail + at, sizeof detail - at, "%s%s", table[i].name,
                 left > 1    ? ", "
                 : left == 1 ? " and "
                             : ".");
    }
    http_answer_problem(r, 404, public ? detail : "/pages lists what there is.");
}

/* ---- which ---- */

static bool path_is(struct str text, const char *wanted)
{
    return text.len == strlen(wanted) && !memcmp(text.at, wanted, text.len);
}

/* What follows the prefix and a slash. */
static bool path_below(struct str path, const char *prefix, struct str *rest)
{
    const size_t n = strlen(prefix);
    if (!n || path.len <= n || memcmp(path.at, prefix, n) || path.at[n] != '/')
        return false;
    *rest = (struct str){path.at + n + 1, path.len - n - 1};
    return true;
}

/* A client of the UNIX socket is no browser that was lured here. */
static bool is_misled(const struct control *c, const struct http_call *call)
{
    return call->origin == PAGE_OPS && c->config->ops_listen.sa.ss_family != AF_UNIX &&
           !path_is(call->head->path, "/healthz") && !host_is_ours(c->config, call->head->host);
}

void pages_answer(void *arg, const struct http_call *call)
{
    struct control *c = arg;
    const struct str path = call->head->path;
    const bool public = call->origin == PAGE_PUBLIC;
    if (is_misled(c, call)) {
        http_answer_problem(call->request, 421, NOT_OURS);
        return;
    }
    struct str rest = {0};
    const bool telemetry = path_below(path, c->config->telemetry_path, &rest) ||
                           (!public && path_below(path, TELEMETRY, &rest));
    for (size_t i = 0; i < PAGES; i++) {
        const struct page *p = &table[i];
        if (public && p->place != IN_PUBLIC_TELEMETRY)
            continue;
        if (p->place == AT_ROOT ? path_is(path, p->name) : telemetry && path_is(rest, p->name)) {
            p->show(c, call);
            return;
        }
    }
    answer_not_found(call->request, public);
}

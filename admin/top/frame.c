/* SPDX-License-Identifier: BSD-2-Clause */
/* frame: see top.h. What is not well comes first. */
#include "admin/tables/tables.h"
#include "admin/top/top.h"
#include "polder/rpc_in.h"
#include "polder/units.h"

#include <math.h>
#include <string.h>

#define LABEL     12
#define BARS      20
#define SHOWN_MAX 6 /* conditions; the rest is a number */

struct frame {
    FILE *to;
    const msgpack_object *now, *before, *last; /* last: map "now" of the answer */
    double seconds;                            /* between the two answers; 0: there is one */
    bool utf8;
};

static double value_of(const msgpack_object *map, const char *key)
{
    return rpc_in_f64(map, key, NAN);
}

static const msgpack_object *rows_of(const msgpack_object *answer, const char *key, uint32_t *n)
{
    const msgpack_object *o = rpc_in_get(answer, key);
    *n = o && o->type == MSGPACK_OBJECT_ARRAY ? o->via.array.size : 0;
    return *n ? o->via.array.ptr : NULL;
}

/* ---- values ---- */

static const char *rate(double n, char out[TABLE_CELL])
{
    char text[UNITS_TEXT];
    units_count(n, text);
    snprintf(out, TABLE_CELL, "%s/s", isnan(n) ? "-" : text);
    return isnan(n) ? "-" : out;
}

static const char *span(double s, char out[TABLE_CELL])
{
    return isnan(s) ? "-" : (units_seconds(s, out), out);
}

static const char *share(double ratio, char out[TABLE_CELL])
{
    return isnan(ratio) ? "-" : (units_share(ratio, out), out);
}

static const char *whole(double n, char out[TABLE_CELL])
{
    return isnan(n) ? "-" : (units_count(n, out), out);
}

static void put(const struct frame *f, const char *name, const char *text)
{
    fprintf(f->to, "  %s %s", name, text);
}

static void label(const struct frame *f, const char *text)
{
    fprintf(f->to, "%-*s", LABEL - 2, text);
}

static void bars(const struct frame *f, const char *series)
{
    uint32_t n;
    const msgpack_object *values = rows_of(rpc_in_get(f->now, "last_minute"), series, &n);
    double high = 0, one;
    for (uint32_t i = 0; i < n; i++)
        if (table_number(&values[i], &one) && one > high)
            high = one;
    fputs("  ", f->to);
    for (uint32_t i = n > BARS ? n - BARS : 0; i < n; i++)
        fputs(table_bar(table_number(&values[i], &one) ? one : NAN, 0, high, f->utf8), f->to);
}

/* ---- lines ---- */

static void head(const struct frame *f)
{
    char text[TABLE_CELL];
    fprintf(f->to, "polder %s", table_text_of(f->now, "version", text));
    fprintf(f->to, "  up %s", span(value_of(f->now, "uptime_ms") / 1000, text));
    fprintf(f->to, "  %s\n", rpc_in_flag(f->now, "ready") ? "ready" : "NOT READY");
}

static unsigned alerts(const struct frame *f)
{
    uint32_t n;
    const msgpack_object *row = rows_of(f->now, "alerts", &n);
    char text[TABLE_CELL];
    for (uint32_t i = 0; i < n && i < SHOWN_MAX; i++) {
        fprintf(f->to, "! alert %s", table_text_of(&row[i], "alert", text));
        if (*table_text_of(&row[i], "subject", text))
            fprintf(f->to, " %s", text);
        fprintf(f->to, " for %s", span(value_of(&row[i], "since_ms") / 1000, text));
        fprintf(f->to, ": %s\n", table_text_of(&row[i], "summary", text));
    }
    if (n > SHOWN_MAX)
        fprintf(f->to, "! and %u more: polderctl alert list\n", n - SHOWN_MAX);
    return n;
}

static void conditions(const struct frame *f)
{
    const unsigned firing = alerts(f);
    uint32_t n;
    const msgpack_object *row = rows_of(f->now, "conditions", &n);
    char text[TABLE_CELL];
    if (!n && !firing)
        fputs("all is well\n", f->to);
    for (uint32_t i = 0; i < n && i < SHOWN_MAX; i++) {
        fprintf(f->to, "! %s", table_text_of(&row[i], "severity", text));
        fprintf(f->to, " %s", table_text_of(&row[i], "condition", text));
        if (*table_text_of(&row[i], "subject", text))
            fprintf(f->to, " %s", text);
        fprintf(f->to, " for %s", span(value_of(&row[i], "since_ms") / 1000, text));
        fprintf(f->to, ": %s\n", table_text_of(&row[i], "reason", text));
    }
    if (n > SHOWN_MAX)
        fprintf(f->to, "! and %u more: polderctl status\n", n - SHOWN_MAX);
    fputc('\n', f->to);
}

static void traffic(const struct frame *f)
{
    char text[TABLE_CELL];
    label(f, "requests");
    put(f, "", rate(value_of(f->last, "requests"), text));
    bars(f, "requests");
    put(f, "errors", share(value_of(f->last, "errorRate"), text));
    put(f, "refused", rate(value_of(f->last, "limitRefused"), text));
    put(f, "clients", whole(value_of(f->last, "connections"), text));
    fputc('\n', f->to);
    label(f, "answers");
    put(f, "p50", span(value_of(f->last, "p50"), text));
    put(f, "p95", span(value_of(f->last, "p95"), text));
    bars(f, "p95");
    put(f, "p99", span(value_of(f->last, "p99"), text));
    fputc('\n', f->to);
}

static void cache(const struct frame *f)
{
    char text[TABLE_CELL];
    label(f, "cache");
    put(f, "hits", share(value_of(f->last, "hitRate"), text));
    bars(f, "hitRate");
    put(f, "backend calls", rate(value_of(f->last, "backendCalls"), text));
    put(f, "avoided", rate(value_of(f->last, "avoidedCalls"), text));
    fputc('\n', f->to);
}

static void websockets(const struct frame *f)
{
    char text[TABLE_CELL];
    if (!rpc_in_flag(f->now, "websockets"))
        return;
    label(f, "websockets");
    put(f, "open", whole(value_of(f->last, "wsOpen"), text));
    put(f, "of", whole(value_of(f->last, "wsMax"), text));
    put(f, "heartbeats", share(value_of(f->last, "heartbeatSuccess"), text));
    put(f, "refused", rate(value_of(f->last, "wsRefused"), text));
    fputc('\n', f->to);
}

static void money(const struct frame *f)
{
    char text[TABLE_CELL], currency[TABLE_CELL];
    const double cost = value_of(f->last, "cost"), savings = value_of(f->last, "savings");
    table_text_of(f->now, "currency", currency);
    label(f, "money");
    fprintf(f->to, "  cost %.3g %s/h  saved %.3g %s/h", isnan(cost) ? 0 : cost, currency,
            isnan(savings) ? 0 : savings, currency);
    const double cores = value_of(f->last, "cpu");
    if (!isnan(cores))
        snprintf(text, sizeof text, "%.2f cores", cores);
    put(f, "cpu", isnan(cores) ? "-" : text);
    put(f, "memory", share(value_of(f->last, "memoryRate"), text));
    fputc('\n', f->to);
}

/* ---- tables ---- */

/* The same row in the answer before, by its name. */
static const msgpack_object *row_before(const struct frame *f, const char *list, const char *key,
                                        const msgpack_object *row)
{
    uint32_t n;
    const msgpack_object *name = rpc_in_get(row, key), *old = rows_of(f->before, list, &n);
    for (uint32_t i = 0; i < n; i++)
        if (table_equal(rpc_in_get(&old[i], key), name))
            return &old[i];
    return NULL;
}

/* How fast a count grows; NaN: not known. */
static double growth(const struct frame *f, const msgpack_object *before, const msgpack_object *row,
                     const char *key)
{
    return before && f->seconds > 0 ? (value_of(row, key) - value_of(before, key)) / f->seconds
                                    : NAN;
}

static void limits(const struct frame *f)
{
    uint32_t n;
    const msgpack_object *row = rows_of(f->now, "limits", &n);
    char text[TABLE_CELL], window[TABLE_CELL + 64];
    if (n)
        fprintf(f->to, "\n%-24s %16s %10s %10s %10s\n", "LIMIT", "ALLOWS", "ADMITTED/S",
                "REFUSED/S", "REFUSED");
    for (uint32_t i = 0; i < n; i++, row++) {
        const msgpack_object *before = row_before(f, "limits", "limit", row);
        snprintf(window, sizeof window, "%.0f in %s", value_of(row, "requests"),
                 span(value_of(row, "window_ms") / 1000, text));
        fprintf(f->to, "%-24.24s %16s", table_text_of(row, "limit", text), window);
        fprintf(f->to, " %10s", whole(growth(f, before, row, "admitted"), text));
        fprintf(f->to, " %10s", whole(growth(f, before, row, "refused"), text));
        fprintf(f->to, " %10s\n", whole(value_of(row, "refused"), text));
    }
}

static void servers(const struct frame *f)
{
    uint32_t n;
    const msgpack_object *row = rows_of(f->now, "servers", &n);
    char text[TABLE_CELL];
    if (n)
        fprintf(f->to, "\n%-32s %8s %6s %9s %10s %8s\n", "SERVER", "STATE", "WEIGHT", "CALLS/S",
                "P95", "ERRORS");
    for (uint32_t i = 0; i < n; i++, row++) {
        fprintf(f->to, "%-32.32s", table_text_of(row, "server", text));
        fprintf(f->to, " %8s", table_text_of(row, "state", text));
        fprintf(f->to, " %6s", whole(value_of(row, "weight"), text));
        fprintf(f->to, " %9s", whole(value_of(row, "requests_per_second"), text));
        fprintf(f->to, " %10s", span(value_of(row, "p95_seconds"), text));
        fprintf(f->to, " %8s\n", share(value_of(row, "error_rate"), text));
    }
}

static void routes(const struct frame *f)
{
    uint32_t n;
    const msgpack_object *row = rows_of(f->now, "routes", &n);
    char text[TABLE_CELL];
    if (n)
        fprintf(f->to, "\n%-32s %10s %10s %9s %10s\n", "ROUTE", "REQUESTS/S", "REQUESTS", "AVOIDED",
                "P95");
    for (uint32_t i = 0; i < n; i++, row++) {
        const msgpack_object *before = row_before(f, "routes", "route", row);
        const double requests = value_of(row, "requests");
        fprintf(f->to, "%-32.32s", table_text_of(row, "route", text));
        fprintf(f->to, " %10s", whole(growth(f, before, row, "requests"), text));
        fprintf(f->to, " %10s", whole(requests, text));
        fprintf(f->to, " %9s",
                share(requests > 0 ? value_of(row, "avoided") / requests : NAN, text));
        fprintf(f->to, " %10s\n", span(value_of(row, "p95_seconds"), text));
    }
}

void frame_print(FILE *to, const msgpack_object *now, const msgpack_object *before, bool utf8)
{
    struct frame f = {
        .to = to, .now = now, .before = before, .last = rpc_in_get(now, "now"), .utf8 = utf8};
    if (before)
        f.seconds = (value_of(now, "mono_ms") - value_of(before, "mono_ms")) / 1000;
    head(&f);
    conditions(&f);
    traffic(&f);
    cache(&f);
    websockets(&f);
    money(&f);
    limits(&f);
    servers(&f);
    routes(&f);
}

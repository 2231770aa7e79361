/* SPDX-License-Identifier: BSD-2-Clause */
/* telemetry_openapi: see telemetry_openapi.h. What a backend answers is not known here: a route is
 * one GET, with the limits and what they make a client see. */
#include "daemons/control/ops/telemetry_openapi.h"
#include "daemons/control/control.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/limitkey.h"

#include <inttypes.h>
#include <string.h>

/* ---- telemetry ---- */

/* A type is a word of JSON Schema, {name:type name:type} an object, [type] an array, and <type> an
 * object whose names are not known before; '?' behind it: it may be null. */
#define PERCENTILES "p50:number? p95:number? p99:number?"
#define BY_OPTIMISATION                                                                            \
    "byOptimisation:{polling:number websocket:number? caching:number rateLimiting:number}"
#define MONTH "{seconds:number estimatedCost:number savings:number}?"

static const struct document {
    const char *name, *summary, *type;
    const char *parameters; /* "name:what it says"; of the query */
} documents[] = {
    {"cache-stats", "Hits, misses and contents of the cache",
     "{hitRate:number missRate:number hits:integer misses:integer stale:integer collapsed:integer "
     "evictions:integer items:integer bytes:integer avgResponseTime:number}",
     ""},
    {"websocket-health", "WebSockets, their heartbeats and how long they live",
     "{supervisor:string activeConnections:integer? maxConnections:integer "
     "heartbeatSuccess:number? "
     "heartbeatsSent:integer? refused:integer? reaped:integer? "
     "connectionDuration:{avg:number p50:number p95:number max:number}?}",
     ""},
    {"cost", "What calls to backends have cost, and what was saved",
     "{currency:string apiCalls:integer estimatedCost:number savingsRealized:number "
     "projectedMonthly:number " BY_OPTIMISATION " projections:{sinceStart:" MONTH " lastHour:" MONTH
     " lastDay:" MONTH "} byTenant:[{tenant:string apiCalls:integer "
     "estimatedCost:number savingsRealized:number " BY_OPTIMISATION "}]?}",
     ""},
    {"limits", "Limits as they run, and the clients refused most",
     "{limits:[{name:string key:string algorithm:string requests:integer windowSeconds:number "
     "dryRun:boolean changed:boolean checked:integer admitted:integer refused:integer "
     "dryRunRefused:integer routes:[string] refusedMost:[{key:string refused:integer}]}]}",
     ""},
    {"upstreams", "The servers of each upstream",
     "{servers:[{upstream:string server:string state:string weight:integer fileWeight:integer "
     "lastError:string? requests:integer bytesIn:integer bytesOut:integer errors:integer "
     "busy:integer ejections:integer check:string? checkPercent:integer? "
     "errorsByReason:<integer> " PERCENTILES " shiftPercent:integer? shiftGuard:string? "
     "shiftErrorRate:number? shiftP95:number?}]}",
     ""},
    {"routes", "What came to each route",
     "{routes:[{route:string upstream:string cached:boolean websocket:boolean requests:integer "
     "errors:integer refused:integer backendCalls:integer backgroundCalls:integer "
     "avoidedCalls:integer bytes:integer hits:integer misses:integer collapsed:integer "
     "bypassed:integer hitRate:number? " PERCENTILES " lastRequest:number? lastCacheHit:number?}]}",
     ""},
    {"history", "The last 24 hours; without metric, the metrics that there are",
     "{step:integer start:integer end:integer metrics:<{unit:string values:[number?] "
     "what:string}>}",
     "metric:names with commas between them,since:how far back; 5m or 24h,step:seconds from one "
     "value to the next"},
    {"alerts", "Alerts that are pending, firing or resolved",
     "{alerts:[{name:string subject:string state:string severity:string value:number? "
     "threshold:number? unit:string since:number summary:string action:string runbook:string}] "
     "lost:integer}",
     ""},
    {"openapi.json", "This description",
     "{openapi:string info:{title:string version:string description:string} "
     "tags:[{name:string}] paths:<object>}",
     ""},
};
#define DOCUMENTS (sizeof documents / sizeof *documents)

static const char *base_of(const struct config *config)
{
    return *config->telemetry_path ? config->telemetry_path : "/api/telemetry";
}

static const char *put_schema(struct text *t, const char *type);

/* Up to the brace that closes them. */
static const char *put_members(struct text *t, const char *at)
{
    for (const char *comma = ""; *at != '}'; comma = ",") {
        const size_t name = strcspn(at, ":");
        text_put(t, "%s\"%.*s\":", comma, (int)name, at);
        at = put_schema(t, at + name + 1);
        at += *at == ' ';
    }
    return at;
}

static const char *put_parts(struct text *t, const char *type)
{
    const char *at;
    text_put(t, "\"%s\":",
             *type == '{'   ? "properties"
             : *type == '[' ? "items"
                            : "additionalProperties");
    if (*type == '{') {
        text_put(t, "{");
        at = put_members(t, type + 1);
        text_put(t, "}");
    } else {
        at = put_schema(t, type + 1);
    }
    text_put(t, ",");
    return at + 1;
}

/* Returns what stands behind the type. */
static const char *put_schema(struct text *t, const char *type)
{
    const bool has_parts = *type == '{' || *type == '[' || *type == '<';
    const char *word = *type == '[' ? "array" : has_parts ? "object" : type;
    const int len = (int)strcspn(word, " ?]}>");
    text_put(t, "{");
    const char *at = has_parts ? put_parts(t, type) : type + len;
    text_put(t, *at == '?' ? "\"type\":[\"%.*s\",\"null\"]}" : "\"type\":\"%.*s\"}", len, word);
    return at + (*at == '?');
}

static void put_parameters(struct text *t, const char *parameters)
{
    text_put(t, "[");
    for (const char *at = parameters, *comma = ""; *at; comma = ",") {
        const size_t n = strcspn(at, ","), name = strcspn(at, ":");
        text_put(t,
                 "%s{\"name\":\"%.*s\",\"in\":\"query\",\"description\":\"%.*s\",\"schema\":{"
                 "\"type\":\"string\"}}",
                 comma, (int)name, at, (int)(n - name - 1), at + name + 1);
        at += n + (at[n] == ',');
    }
    text_put(t, "]");
}

static void put_document(struct text *t, const char *base, const struct document *d)
{
    text_put(t, "\"");
    text_put_json(t, base);
    text_put(t,
             "/%s\":{\"get\":{\"operationId\":\"telemetry-%s\",\"summary\":\"%s\",\"tags\":["
             "\"telemetry\"],\"parameters\":",
             d->name, d->name, d->summary);
    put_parameters(t, d->parameters);
    text_put(t,
             ",\"responses\":{\"200\":{\"description\":\"%s\",\"content\":{\"application/"
             "json\":{\"schema\":",
             d->summary);
    put_schema(t, d->type);
    text_put(t, "}}},\"404\":{\"description\":\"Telemetry is not for this client.\"}}}}");
}

/* ---- routes ---- */

static void put_limit(struct text *t, const struct config_limit *l, const struct runtime_limit *v)
{
    char key[512];
    limitkey_describe(l, key, sizeof key);
    text_put(t, "{\"name\":\"");
    text_put_json(t, l->name);
    text_put(t, "\",\"key\":\"");
    text_put_json(t, key);
    text_put(t,
             "\",\"algorithm\":\"%s\",\"requests\":%" PRIu32
             ",\"windowSeconds\":%.9g,\"concurrent\":%" PRIu32 ",\"dryRun\":%s}",
             config_word(&config_rows[CONFIG_LIMIT_algorithm], v->algorithm), v->requests,
             (double)v->window_ms / 1000, v->concurrent, v->dry_run ? "true" : "false");
}

static void put_limits(struct text *t, const struct config_route *r,
                       const struct runtime_values *values)
{
    text_put(t, "\"x-ratelimit\":[");
    for (uint32_t i = 0; i < r->n_limits; i++) {
        text_put(t, "%s", i ? "," : "");
        put_limit(t, r->limits[i], &values->limit[r->limits[i]->index]);
    }
    text_put(t, "]");
}

/* A template: braces are its own, '*' is a parameter. */
static void put_path(struct text *t, const struct config_route *r)
{
    for (const char *at = r->prefix; *at; at++) {
        const char one[2] = {*at, 0};
        if (*at == '{' || *at == '}')
            text_put(t, *at == '{' ? "%%7B" : "%%7D");
        else if ((unsigned char)*at >= 0x80)
            text_put(t, "%%%02X", (unsigned char)*at);
        else
            text_put_json(t, one);
    }
    text_put(t, r->exact ? "" : "{rest}");
}

static void put_answers(struct text *t, const struct config_route *r)
{
    text_put(t, "\"responses\":{\"default\":{\"description\":\"What the backend answers.\"}");
    if (r->n_limits)
        text_put(t, ",\"429\":{\"description\":\"A limit refuses the request.\",\"headers\":{"
                    "\"Retry-After\":{\"schema\":{\"type\":\"integer\"}},\"RateLimit-Policy\":{"
                    "\"schema\":{\"type\":\"string\"}},\"RateLimit\":{\"schema\":{\"type\":"
                    "\"string\"}}},\"content\":{\"application/problem+json\":{\"schema\":{\"type\":"
                    "\"object\"}}}}");
    text_put(t, "}");
}

static void put_route(struct text *t, const struct config_route *r,
                      const struct runtime_values *values)
{
    text_put(t, "\"");
    put_path(t, r);
    text_put(t, "\":{\"x-polder-route\":\"");
    text_put_json(t, r->pattern);
    text_put(t, "\",\"x-polder-cache\":%s,\"x-polder-websocket\":%s,", r->cache ? "true" : "false",
             r->websocket ? "true" : "false");
    put_limits(t, r, values);
    if (!r->exact)
        text_put(t, ",\"parameters\":[{\"name\":\"rest\",\"in\":\"path\",\"required\":true,"
                    "\"schema\":{\"type\":\"string\"}}]");
    text_put(t, ",\"get\":{\"operationId\":\"route-%" PRIu32 "\",\"summary\":\"Route ", r->index);
    text_put_json(t, r->pattern);
    text_put(t, "\",\"tags\":[\"routes\"],");
    put_answers(t, r);
    text_put(t, "}}");
}

/* A path of the telemetry has been described. */
static bool is_document(const char *base, const struct config_route *r)
{
    const size_t n = strlen(base);
    if (!r->exact || strncmp(r->pattern, base, n) || r->pattern[n] != '/')
        return false;
    for (size_t i = 0; i < DOCUMENTS; i++)
        if (!strcmp(r->pattern + n + 1, documents[i].name))
            return true;
    return false;
}

void telemetry_openapi_page(struct control *c, const struct http_call *call)
{
    struct text t = {0};
    struct runtime_values values;
    const char *base = base_of(c->config);
    runtime_read(c->runtime, &values);
    text_put(&t,
             "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"Polder\",\"version\":\"" POLDER_VERSION
             "\",\"description\":\"Telemetry, and the routes with their limits in force.\"},"
             "\"tags\":[{\"name\":\"telemetry\"},{\"name\":\"routes\"}],\"paths\":{");
    for (size_t i = 0; i < DOCUMENTS; i++) {
        text_put(&t, "%s", i ? "," : "");
        put_document(&t, base, &documents[i]);
    }
    for (uint32_t i = 0; i < c->config->n_routes; i++) {
        const struct config_route *r = &c->config->routes[i];
        if (is_document(base, r))
            continue;
        text_put(&t, ",");
        put_route(&t, r, &values);
    }
    text_put(&t, "}}\n");
    page_answer(call->request, 200, PAGE_JSON, &t);
}

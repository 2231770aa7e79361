/* SPDX-License-Identifier: BSD-2-Clause */
/* metrics_query: see metrics_query.h. */
#include "daemons/control/ops/metrics_query.h"
#include "daemons/control/ops/query.h"

#include <errno.h>
#include <string.h>

#define UNKNOWN_SCOPE                                                                              \
    "scope: expected some of process, clients, routes, cache, limits, upstreams, websockets, "     \
    "cost, fleet, with commas between them."
#define UNKNOWN_NAME                                                                               \
    "metrics: expected names of metrics as polder-metrics(7) lists them, with commas between "     \
    "them, a - before those to leave out, and perhaps a * at the end of a name."
#define TOO_MANY    "metrics: there are too many names."
#define TOO_LONG    "The query is too long."
#define UNKNOWN_KEY "Expected ?scope=... or ?metrics=..."
#define BAD_ESCAPE  "The query has a malformed escape."

/* ---- the query ---- */

static bool take_scope(struct metrics_query *q, struct str name)
{
    for (unsigned i = 0; i < METRICS_SCOPE_COUNT; i++)
        if (field_is(name, metrics_scope_names[i])) {
            q->scopes |= 1u << i;
            return true;
        }
    return false;
}

static bool cut_end(struct metrics_name *n, const char *end)
{
    const size_t len = strlen(end);
    if (n->len <= len || memcmp(n->at + n->len - len, end, len))
        return false;
    n->len = (uint16_t)(n->len - len);
    return true;
}

/* As the samples are called, too. */
static bool is_known(struct metrics_name *n)
{
    static const char *const suffixes[] = {"_total", "_info", "_bucket", "_count", "_sum"};
    if (metrics_family_exists(n->at, n->len))
        return true;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        struct metrics_name without = *n;
        if (cut_end(&without, suffixes[i]) && metrics_family_exists(without.at, without.len)) {
            *n = without;
            return true;
        }
    }
    return false;
}

static bool take_name(struct metrics_query *q, struct str text)
{
    struct metrics_name n = {.out = text.len && text.at[0] == '-'};
    const size_t skip = n.out;
    n.at = text.at + skip;
    n.len = (uint16_t)(text.len - skip);
    if (n.len > 7 && !memcmp(n.at, "polder_", 7)) {
        n.at += 7;
        n.len = (uint16_t)(n.len - 7);
    }
    n.any_rest = cut_end(&n, "*");
    if (!n.len || (!n.any_rest && !is_known(&n)))
        return false;
    q->chosen |= !n.out;
    q->name[q->names++] = n;
    return true;
}

static const char *take(struct metrics_query *q, struct str key, struct str values)
{
    const bool scope = field_is(key, "scope");
    struct str one;
    if (!scope && !field_is(key, "metrics"))
        return UNKNOWN_KEY;
    while (query_element(&values, &one)) {
        one = field_trim(one);
        if (!scope && q->names == METRICS_NAMES_MAX)
            return TOO_MANY;
        if (scope ? !take_scope(q, one) : !take_name(q, one))
            return scope ? UNKNOWN_SCOPE : UNKNOWN_NAME;
    }
    return NULL;
}

const char *metrics_query_parse(struct metrics_query *q, struct str query)
{
    struct str key, value;
    size_t used = 0;
    *q = (struct metrics_query){0};
    while (query_next(&query, &key, &value)) {
        char *text = q->text + used;
        const int n = query_decode(value, text, sizeof q->text - used);
        if (n < 0)
            return n == -ENOBUFS ? TOO_LONG : BAD_ESCAPE;
        const char *wrong = take(q, key, (struct str){text, (size_t)n});
        if (wrong)
            return wrong;
        used += (size_t)n + 1;
    }
    return NULL;
}

static bool matches(const struct metrics_name *n, const char *family, size_t len)
{
    return (n->any_rest ? n->len <= len : n->len == len) && !memcmp(n->at, family, n->len);
}

bool metrics_query_wants(const struct metrics_query *q, const char *family)
{
    const size_t len = strlen(family);
    bool in = !q->chosen;
    if (q->scopes && !(q->scopes >> metrics_scope_of(family) & 1))
        return false;
    for (uint32_t i = 0; i < q->names; i++)
        if (matches(&q->name[i], family, len)) {
            if (q->name[i].out)
                return false;
            in = true;
        }
    return in;
}

/* ---- the form ---- */

#define PROTOBUF_TYPE                                                                              \
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
static const char *const types[METRICS_FORMS] = {
    [METRICS_TEXT] = "text/plain; version=0.0.4; charset=utf-8",
    [METRICS_OPENMETRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8",
    [METRICS_PROTOBUF] = PROTOBUF_TYPE,
};

const char *metrics_form_type(enum metrics_form form)
{
    return types[form];
}

/* The next element up to c; false: there is none. */
static bool next_until(struct str *rest, char c, struct str *element)
{
    if (!rest->at)
        return false;
    const char *end = memchr(rest->at, c, rest->len);
    const size_t n = end ? (size_t)(end - rest->at) : rest->len;
    *element = (struct str){rest->at, n};
    *rest = end ? (struct str){end + 1, rest->len - n - 1} : (struct str){0};
    return true;
}

/* METRICS_FORMS: none of ours. Its weight in thousandths; a malformed one is none. */
static enum metrics_form form_of(struct str range, int *weight)
{
    struct str media = {0}, parameter, name, value;
    bool delimited = false, family = false;
    *weight = 1000;
    next_until(&range, ';', &media);
    media = field_trim(media);
    while (next_until(&range, ';', &parameter)) {
        field_parameter(parameter, &name, &value);
        if (field_is(name, "q"))
            *weight = field_qvalue(value);
        else if (field_is(name, "encoding"))
            delimited = field_is(value, "delimited");
        else if (field_is(name, "proto"))
            family = field_is(value, "io.prometheus.client.metricfamily");
    }
    if (field_is(media, "application/vnd.google.protobuf"))
        return delimited && family ? METRICS_PROTOBUF : METRICS_FORMS;
    if (field_is(media, "application/openmetrics-text"))
        return METRICS_OPENMETRICS;
    return field_is(media, "text/plain") || field_is(media, "text/*") || field_is(media, "*/*")
               ? METRICS_TEXT
               : METRICS_FORMS;
}

enum metrics_form metrics_form_of(struct str accept)
{
    enum metrics_form best = METRICS_TEXT;
    int best_weight = 0;
    struct str element;
    while (accept.len && field_list_next(&accept, &element)) {
        int weight;
        const enum metrics_form form = form_of(element, &weight);
        if (form != METRICS_FORMS && weight > best_weight) {
            best = form;
            best_weight = weight;
        }
    }
    return best;
}

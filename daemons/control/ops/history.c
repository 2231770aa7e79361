/* SPDX-License-Identifier: BSD-2-Clause */
/* history: see history.h. What is asked wrongly gets 400 with what was expected. */
#include "daemons/control/ops/history.h"
#include "daemons/control/control.h"
#include "daemons/control/model/history.h"
#include "daemons/control/ops/page.h"
#include "daemons/control/ops/query.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/history.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define METRICS_MAX 24
#define POINTS_MAX  100000 /* values in one document */
#define SINCE_S     3600

struct question {
    const struct history_page *page;
    size_t column[METRICS_MAX], n;
    uint64_t since_s, step; /* 0: not stated */
    struct history_range range;
    char wrong[200]; /* needs no escapes in JSON */
};

/* ---- what is asked ---- */

static bool is_plain(const char *name)
{
    static const char more[] = ":/.-_[]";
    for (; *name; name++)
        if (!strchr(more, *name) && (*name < '0' || *name > '9') && (*name < 'A' || *name > 'Z') &&
            (*name < 'a' || *name > 'z'))
            return false;
    return true;
}

/* True: something is wrong. */
static bool complain(struct question *q, const char *format, const char *name)
{
    snprintf(q->wrong, sizeof q->wrong, format, is_plain(name) ? name : "?");
    return true;
}

static bool read_metric(struct question *q, struct str raw)
{
    char name[HISTORY_NAME];
    size_t column;
    const int len = query_decode(raw, name, sizeof name);
    if (len < 0 || history_find(q->page, name, (size_t)len, &column))
        return complain(q, "there is no metric %.100s; without metric= all are listed",
                        len < 0 ? "?" : name);
    for (size_t i = 0; i < q->n; i++)
        if (q->column[i] == column)
            return complain(q, "metric %.100s is asked for twice", name);
    if (q->n == METRICS_MAX)
        return complain(q, "too many metrics; at most 24 are answered at once%.0s", "");
    q->column[q->n++] = column;
    return false;
}

static bool read_metrics(struct question *q, struct str list)
{
    struct str element;
    while (query_element(&list, &element))
        if (read_metric(q, element))
            return true;
    return false;
}

/* Whole seconds. */
static bool read_seconds(struct question *q, const char *name, struct str raw, uint64_t *out)
{
    char text[32];
    uint64_t ms;
    if (*out)
        return complain(q, "%s is stated twice", name);
    if (query_decode(raw, text, sizeof text) < 0 || config_parse_duration(text, &ms) || !ms ||
        ms % 1000)
        return complain(q, "%s is wrong; expected whole seconds, such as 300, 5m, 1h or 24h", name);
    *out = ms / 1000;
    return false;
}

static bool str_is(struct str text, const char *wanted)
{
    return text.len == strlen(wanted) && !memcmp(text.at, wanted, text.len);
}

static bool read_query(struct question *q, struct str query)
{
    struct str name, value;
    while (query_next(&query, &name, &value)) {
        if (str_is(name, "metric") && q->n)
            return complain(q, "%s is stated twice; names of a list have commas between", "metric");
        if (str_is(name, "metric")  ? read_metrics(q, value)
            : str_is(name, "since") ? read_seconds(q, "since", value, &q->since_s)
            : str_is(name, "step")
                ? read_seconds(q, "step", value, &q->step)
                : complain(q, "a parameter is not known; metric, since and step are%.0s", ""))
            return true;
    }
    return false;
}

static bool find_range(struct question *q)
{
    const uint64_t since_s = q->since_s ? q->since_s : SINCE_S;
    const int code = history_range(q->page, since_s, q->step, clock_real_ms() / 1000, &q->range);
    if (code && since_s > history_span(HISTORY_COARSE))
        return complain(q, "%s is out of range; expected 1s to 24h", "since");
    if (code)
        return complain(q,
                        "%s is out of range; expected 1, for the last hour, or a multiple of 10 "
                        "seconds, at most since",
                        "step");
    if (q->range.n * q->n > POINTS_MAX)
        return complain(q, "more than 100000 values; ask for fewer metrics or a longer %s", "step");
    return false;
}

/* ---- what is answered ---- */

/* "money/h" in the currency that the prices have. */
static void put_unit(const struct control *c, struct text *t, const char *unit)
{
    if (strcmp(unit, "money/h"))
        text_put(t, "%s", unit);
    else
        text_put(t, "%s/h", c->config->cost.currency);
}

static void put_values(const struct question *q, size_t column, struct text *t)
{
    for (size_t i = 0; i < q->range.n; i++) {
        const double value = history_value(q->page, &q->range, column, i);
        if (isnan(value))
            text_put(t, i ? ",null" : "null");
        else
            text_put(t, i ? ",%.7g" : "%.7g", value);
    }
}

static void put_metric(const struct control *c, const struct question *q, size_t column,
                       struct text *t)
{
    char name[HISTORY_NAME];
    history_name(q->page, column, name, sizeof name);
    text_put(t, "\"");
    text_put_json(t, name);
    text_put(t, "\":{\"unit\":\"");
    put_unit(c, t, history_column_kind(column)->unit);
    text_put(t, "\",\"values\":[");
    put_values(q, column, t);
    text_put(t, "]}");
}

static void put_list(const struct control *c, const struct history_page *page, struct text *t)
{
    char name[HISTORY_NAME];
    bool first = true;
    text_put(t, "{\"metrics\":{");
    for (size_t column = 0; column < HISTORY_WIDTH; column++) {
        if (!history_column_is_used(page, column))
            continue;
        history_name(page, column, name, sizeof name);
        text_put(t, first ? "\"" : ",\"");
        text_put_json(t, name);
        text_put(t, "\":{\"unit\":\"");
        put_unit(c, t, history_column_kind(column)->unit);
        text_put(t, "\",\"what\":\"%s\"}", history_column_kind(column)->what);
        first = false;
    }
    text_put(t, "}}\n");
}

static void put_document(const struct control *c, const struct question *q, struct text *t)
{
    text_put(t, "{\"step\":%" PRIu64 ",\"start\":%" PRIu64 ",\"end\":%" PRIu64 ",\"metrics\":{",
             q->range.step, q->range.start, q->range.end);
    for (size_t i = 0; i < q->n; i++) {
        text_put(t, i ? "," : "");
        put_metric(c, q, q->column[i], t);
    }
    text_put(t, "}}\n");
}

void history_page_show(struct control *c, const struct http_call *call)
{
    struct question q = {.page = c->shared->history};
    struct text t = {0};
    history_follow(c); /* up to now, not up to a second ago */
    if (read_query(&q, call->head->query) || find_range(&q)) {
        http_answer_problem(call->request, 400, q.wrong);
        return;
    }
    if (q.n)
        put_document(c, &q, &t);
    else
        put_list(c, q.page, &t);
    page_answer(call->request, 200, PAGE_JSON, &t);
}

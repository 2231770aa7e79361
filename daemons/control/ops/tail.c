/* SPDX-License-Identifier: BSD-2-Clause */
/* tail: see tail.h. */
#include "daemons/control/ops/tail.h"
#include "polder/clock.h"

#include <inttypes.h>
#include <string.h>

#define SHOWN 40 /* events that a page shows at once */

/* ---- JSON ---- */

static void put_member(struct text *t, const char *name, const char *value)
{
    if (!*value)
        return;
    text_put(t, ",\"%s\":\"", name);
    text_put_json(t, value);
    text_put(t, "\"");
}

static void put_request(struct text *t, const struct recent_request *r)
{
    text_put(t, "{\"n\":%" PRIu64 ",\"at\":%" PRIu64 ",\"us\":%" PRIu64 ",\"status\":%u", r->number,
             r->real_ms, r->us, r->status);
    if (r->stands_for > 1)
        text_put(t, ",\"standsFor\":%u", r->stands_for);
    put_member(t, "method", r->method);
    put_member(t, "target", r->target);
    put_member(t, "route", r->route);
    put_member(t, "cache", r->cache);
    put_member(t, "detail", r->detail);
    put_member(t, "limited", r->limit_decision);
    put_member(t, "limit", r->limit);
    put_member(t, "key", r->key);
    put_member(t, "client", r->client);
    text_put(t, "}");
}

static void put_event(struct text *t, const struct recent_event *e)
{
    text_put(t, "{\"n\":%" PRIu64 ",\"at\":%" PRIu64 ",\"count\":%" PRIu64, e->number, e->real_ms,
             e->count);
    put_member(t, "noun", e->noun);
    put_member(t, "what", e->what);
    put_member(t, "subject", e->subject);
    put_member(t, "detail", e->detail);
    text_put(t, "}");
}

static void put(struct text *t, const struct tail *tail, const struct recent_event *events,
                size_t n_events)
{
    text_put(t, ",\"requests\":[");
    for (size_t i = 0; i < tail->n_requests; i++) {
        text_put(t, "%s", i ? "," : "");
        put_request(t, &tail->requests[i]);
    }
    text_put(t, "],\"events\":[");
    for (size_t i = 0; i < n_events; i++) {
        text_put(t, "%s", i ? "," : "");
        put_event(t, &events[i]);
    }
    text_put(t, "]");
}

void tail_put_new(struct text *t, const struct tail *tail)
{
    if (tail->n_requests || tail->n_events)
        put(t, tail, tail->events, tail->n_events);
}

/* ---- reading ---- */

/* So many before the next one, but no earlier than `from`. */
static uint64_t begin_at(uint64_t from, uint64_t next, uint64_t max)
{
    const uint64_t last = next > max ? next - max : 0;
    return from > last && from <= next ? from : last;
}

static void read_new(struct tail *tail, struct recent_page *page)
{
    tail->request = begin_at(tail->request, recent_requests_next(page), TAIL_REQUESTS);
    tail->n_requests =
        recent_read_requests(page, &tail->request, tail->requests, TAIL_REQUESTS, NULL);
    tail->event = begin_at(tail->event, recent_events_next(page), TAIL_EVENTS);
    tail->n_events = recent_read_events(page, &tail->event, tail->events, TAIL_EVENTS, NULL);
}

void tail_follow(struct tail *tail, struct recent_page *page)
{
    if (!page)
        return;
    recent_watch(page, clock_mono_ms());
    read_new(tail, page);
}

/* Refusals come every second while there are any: before the last ones they are left out, so that
 * what is rare is seen. */
static size_t leave_floods_out(struct recent_event *events, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (n - i <= TAIL_EVENTS || strcmp(events[i].what, "refused") != 0)
            events[kept++] = events[i];
    return kept;
}

void tail_put_last(struct text *t, struct recent_page *page)
{
    static struct tail last;
    static struct recent_event events[RECENT_EVENTS];
    if (!page)
        return;
    last = (struct tail){0};
    read_new(&last, page);
    uint64_t from = begin_at(0, recent_events_next(page), RECENT_EVENTS);
    const size_t n =
        leave_floods_out(events, recent_read_events(page, &from, events, RECENT_EVENTS, NULL));
    const size_t shown = n < SHOWN ? n : SHOWN;
    put(t, &last, events + n - shown, shown);
}

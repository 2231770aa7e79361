/* SPDX-License-Identifier: BSD-2-Clause */
/* live: see live.h. */
#include "daemons/control/ops/live.h"
#include "daemons/control/control.h"
#include "daemons/control/ops/sections.h"
#include "daemons/control/ops/tail.h"
#include "polder/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define RETRY_AFTER   "Retry-After: 10\r\n"
#define FULL          "All places for streams of events are taken; close a dashboard, or try again later."
#define CROSS_SITE    "Only the dashboard of this service itself may read the stream."
#define SECTION_BYTES (96u << 10) /* a longer one is not sent, but named */

struct stream {
    struct live *live;
    struct http_request *request; /* NULL: the place is free */
    bool begun;                   /* it has had all sections */
};

/* A section as it is now. */
struct content {
    struct live *live;
    char *text; /* JSON; NULL: not made yet */
    size_t len;
    bool changed;   /* since the last message */
    bool requested; /* it is being made */
};

struct live {
    struct stream stream[LIVE_STREAMS];
    unsigned n;
    struct content content[SECTIONS_MAX];
    struct tail tail;
    uint64_t turn; /* seconds with streams */
};

struct live *live_new(void)
{
    struct live *e = calloc(1, sizeof *e);
    for (unsigned i = 0; e && i < LIVE_STREAMS; i++)
        e->stream[i].live = e;
    for (unsigned i = 0; e && i < SECTIONS_MAX; i++)
        e->content[i].live = e;
    return e;
}

void live_free(struct live *e)
{
    for (unsigned i = 0; i < SECTIONS_MAX; i++)
        free(e->content[i].text);
    free(e);
}

/* ---- sections ---- */

static void content_keep(struct content *content, const char *text, size_t len)
{
    if (content->text && content->len == len && !memcmp(content->text, text, len))
        return;
    char *copy = realloc(content->text, len);
    if (!copy)
        return; /* as it was */
    memcpy(copy, text, len);
    content->text = copy;
    content->len = len;
    content->changed = true;
}

static void on_made(void *arg, struct text *t)
{
    static const char too_long[] = "{\"tooLong\":true}";
    struct content *content = arg;
    content->requested = false;
    while (t->len && t->at[t->len - 1] == '\n')
        t->len--;
    if (t->len > SECTION_BYTES)
        content_keep(content, too_long, sizeof too_long - 1);
    else if (!t->failed && t->len)
        content_keep(content, t->at, t->len);
    text_free(t);
}

static void make_sections(struct control *c, struct live *e)
{
    for (unsigned i = 0; i < sections_n; i++) {
        struct content *content = &e->content[i];
        if (content->requested || (content->text && e->turn % sections[i].every_s))
            continue;
        content->requested = true;
        sections[i].make(c, on_made, content);
    }
    e->turn++;
}

/* ---- messages ---- */

static void put_time(struct text *t)
{
    text_put(t, "data: {\"now\":%" PRIu64, clock_real_ms());
}

static void put_section(struct text *t, const struct live *e, unsigned i)
{
    text_put(t, ",\"%s\":", sections[i].name);
    text_put_bytes(t, e->content[i].text, e->content[i].len);
}

static void put_all(struct text *t, const struct control *c, const struct live *e)
{
    text_put(t, "retry: 2000\n");
    put_time(t);
    for (unsigned i = 0; i < sections_n; i++)
        if (e->content[i].text)
            put_section(t, e, i);
    tail_put_last(t, c->shared->recent);
    text_put(t, "}\n\n");
}

static void put_changes(struct text *t, struct live *e)
{
    put_time(t);
    for (unsigned i = 0; i < sections_n; i++) {
        if (e->content[i].changed)
            put_section(t, e, i);
        e->content[i].changed = false;
    }
    tail_put_new(t, &e->tail);
    text_put(t, "}\n\n");
}

static void begin(struct control *c, struct stream *s)
{
    struct text all = {0};
    put_all(&all, c, s->live);
    if (!all.failed)
        http_stream_put(s->request, all.at, all.len);
    s->begun = !all.failed;
    text_free(&all);
}

/* The same bytes for all. */
static void send_changes(struct control *c, struct live *e)
{
    struct text changes = {0};
    put_changes(&changes, e);
    for (unsigned i = 0; i < LIVE_STREAMS; i++) {
        struct stream *s = &e->stream[i];
        if (s->request && !s->begun)
            begin(c, s);
        else if (s->request && !changes.failed)
            http_stream_put(s->request, changes.at, changes.len);
    }
    text_free(&changes);
}

void live_follow(struct control *c)
{
    struct live *e = c->live;
    if (!e || !e->n)
        return;
    make_sections(c, e);
    tail_follow(&e->tail, c->shared->recent);
    send_changes(c, e);
}

/* ---- streams ---- */

static void on_gone(void *arg)
{
    struct stream *s = arg;
    s->request = NULL;
    s->begun = false;
    s->live->n--;
}

static struct stream *free_place(struct live *e)
{
    for (unsigned i = 0; i < LIVE_STREAMS; i++)
        if (!e->stream[i].request)
            return &e->stream[i];
    return NULL;
}

/* A page of another site could not read it, but take all places. Browsers say so. */
static bool is_cross_site(const struct h1_head *head)
{
    static const char name[] = "sec-fetch-site", cross[] = "cross-site", same[] = "same-site";
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        if (f->name.len == sizeof name - 1 && !strncasecmp(f->name.at, name, f->name.len))
            return (f->value.len == sizeof cross - 1 &&
                    !memcmp(f->value.at, cross, f->value.len)) ||
                   (f->value.len == sizeof same - 1 && !memcmp(f->value.at, same, f->value.len));
    }
    return false;
}

/* What has been made for others may be old where there were no others. */
static void begin_first(struct control *c, struct live *e)
{
    for (unsigned i = 0; i < sections_n; i++) {
        free(e->content[i].text);
        e->content[i].text = NULL;
        e->content[i].len = 0;
        e->content[i].changed = false;
    }
    e->turn = 0;
    make_sections(c, e);
    tail_follow(&e->tail, c->shared->recent);
}

void live_page(struct control *c, const struct http_call *call)
{
    struct live *e = c->live;
    struct stream *s = free_place(e);
    if (is_cross_site(call->head)) {
        http_answer_problem(call->request, 403, CROSS_SITE);
    } else if (!s) {
        http_answer_problem_with(call->request, 503, RETRY_AFTER, FULL);
    } else if (http_stream_begin(call->request, "text/event-stream", on_gone, s)) {
        s->request = call->request;
        s->begun = false;
        if (e->n++ == 0)
            begin_first(c, e);
        begin(c, s);
    }
}

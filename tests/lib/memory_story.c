/* SPDX-License-Identifier: BSD-2-Clause */
/* memory_story: see memory_story.h. */
#include "memory_story.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/upstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

uint64_t story_chance(uint64_t *chance)
{
    *chance ^= *chance << 13, *chance ^= *chance >> 7, *chance ^= *chance << 17;
    return *chance;
}

static size_t cut_next(struct cut *cut, size_t from, size_t len)
{
    size_t to = len;
    if (cut->chance)
        to = from + 1 + story_chance(&cut->chance) % (story_chance(&cut->chance) & 1 ? 4 : 60);
    else if (cut->every)
        to = from + cut->every;
    else if (from < cut->at)
        to = cut->at;
    else if (from < cut->and_at)
        to = cut->and_at;
    return to < len ? to : len;
}

/* ---- reading HTTP, by other means than the worker does ---- */

static void tell(struct told *to, const char *bytes, size_t len)
{
    assert_true(to->len + len < sizeof to->text);
    memcpy(to->text + to->len, bytes, len);
    to->len += len;
    to->text[to->len] = 0;
}

/* A chunked body; its bytes, and its trailer in brackets. 0: not whole. */
static size_t tell_chunks(struct told *to, const char *at, const char *end)
{
    const char *from = at;
    for (;;) {
        char *digits_end;
        const char *line = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (!line)
            return 0;
        const size_t n = strtoul(at, &digits_end, 16);
        assert_ptr_not_equal(digits_end, at);
        at = line + 2;
        if (!n)
            break;
        if ((size_t)(end - at) < n + 2)
            return 0;
        tell(to, at, n);
        at += n + 2;
    }
    for (;;) {
        const char *line = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (!line)
            return 0;
        if (line == at)
            return (size_t)(line + 2 - from);
        tell(to, "[", 1);
        tell(to, at, (size_t)(line - at));
        tell(to, "]", 1);
        at = line + 2;
    }
}

/* One answer: its status, "name: value" of fields that tell something, and its body. */
static size_t tell_one(struct told *to, const char *at, const char *end, bool is_head, bool closed)
{
    const char *blank = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
    to->whole = false;
    if (!blank)
        return 0;
    const char *body = blank + 4;
    char head[4096];
    const size_t head_len = (size_t)(blank + 2 - at);
    assert_true(head_len < sizeof head);
    memcpy(head, at, head_len);
    head[head_len] = 0;
    const unsigned status = (unsigned)strtoul(head + 9, NULL, 10);
    const char *length = strcasestr(head, "\r\ncontent-length: ");
    tell(to, head + 9, 3);
    tell(to, " ", 1);
    if (status < 200)
        return head_len + 2;
    to->whole = true;
    if (!is_head && status != 204 && status != 304) {
        size_t n = length ? strtoul(length + 18, NULL, 10) : 0;
        if (strcasestr(head, "\r\ntransfer-encoding: chunked"))
            to->whole = (n = tell_chunks(to, body, end)) > 0;
        else if (!length)
            tell(to, body, n = (size_t)(end - body)), to->whole = closed;
        else if ((size_t)(end - body) >= n)
            tell(to, status >= 400 ? "..." : body, status >= 400 ? 3 : n);
        else
            to->whole = false;
        body += to->whole ? n : 0;
    }
    if (strcasestr(head, "\r\nconnection: close"))
        tell(to, " close", 6);
    tell(to, "; ", 2);
    return to->whole ? (size_t)(body - at) : 0;
}

static void tell_all(struct told *to, const struct memory_peer *client, bool is_head)
{
    const char *at = client->out, *end = at + client->out_len;
    const bool closed = (!client->transport && !client->breaks) || client->finished;
    to->len = 0;
    to->text[0] = 0;
    to->whole = true;
    while (at < end) {
        const size_t n = tell_one(to, at, end, is_head, closed);
        if (!n)
            return;
        at += n;
    }
}

/* The bytes of a whole request that a backend has got; 0: it is not whole yet. */
static size_t request_len(const char *at, size_t len)
{
    const char *blank = memmem(at, len, "\r\n\r\n", 4);
    if (!blank)
        return 0;
    const size_t head_len = (size_t)(blank + 4 - at);
    char head[2048];
    assert_true(head_len < sizeof head);
    memcpy(head, at, head_len);
    head[head_len] = 0;
    const char *length = strcasestr(head, "content-length: ");
    const size_t body = length ? strtoul(length + 16, NULL, 10) : 0;
    if (strcasestr(head, "transfer-encoding: chunked")) {
        static struct told skipped;
        skipped.len = 0;
        const size_t n = tell_chunks(&skipped, blank + 4, at + len);
        return n ? head_len + n : 0;
    }
    return head_len + body <= len ? head_len + body : 0;
}

/* ---- acting ---- */

static void put_in_pieces(struct memory_house *h, struct memory_peer *p, const char *bytes,
                          size_t len, struct cut cut)
{
    for (size_t at = 0; at < len;) {
        const size_t to = cut_next(&cut, at, len);
        memory_put(p, bytes + at, to - at);
        at = to;
        memory_settle(h);
    }
}

static void answer_next(struct memory_house *h, struct act *a, struct memory_peer *p)
{
    const struct story *s = a->story;
    const size_t n = request_len(p->out + p->seen, p->out_len - p->seen);
    if (!n)
        return;
    const unsigned which = s->answer[1] ? a->asked % 2 : 0;
    const char *answer = s->answer[which], *tail = s->forwarded[which];
    size_t len = strlen(answer);
    p->seen += n;
    if (tail && memcmp(p->out + p->seen - strlen(tail), tail, strlen(tail)))
        fail_msg("%s: the backend got %.*s", s->name, (int)p->out_len, p->out);
    a->asked++;
    const bool ends = a->backend_ends < len;
    if (ends)
        len = a->backend_ends;
    put_in_pieces(h, p, answer, len, a->out);
    p->eof = ends || s->closes;
}

static void backends_answer(struct memory_house *h, struct act *a)
{
    for (unsigned i = 0; i < h->n_backends; i++)
        if (h->backend[i]->transport && !h->backend[i]->eof)
            answer_next(h, a, h->backend[i]);
    memory_settle(h);
}

/* Until nothing moves. */
void story_go_on(struct memory_house *h, struct act *a)
{
    unsigned before;
    do {
        before = a->asked;
        memory_settle(h);
        backends_answer(h, a);
    } while (a->asked != before);
}

void story_perform(struct memory_house *h, struct act *a, struct told *told)
{
    const struct story *s = a->story;
    size_t len = strlen(s->request);
    const bool ends = a->client_ends <= len;
    struct cut cut = a->in;
    h->backend_takes = a->backend_takes;
    for (unsigned i = 0; i < h->n_backends; i++) {
        struct memory_peer *p = h->backend[i];
        p->takes = a->backend_takes;
        p->in_at = p->in_len = p->out_len = p->seen = 0;
    }
    struct memory_peer *client = memory_client(h);
    client->takes = a->client_takes;
    if (ends)
        len = a->client_ends;
    for (size_t at = 0; at < len && client->transport;) {
        const size_t to = cut_next(&cut, at, len);
        memory_put(client, s->request + at, to - at);
        at = to;
        story_go_on(h, a);
    }
    client->eof = ends;
    story_go_on(h, a);
    tell_all(told, client, !strncmp(s->request, "HEAD", 4));
    if (told->whole && !client->transport && client->breaks)
        told->whole = false;
    assert_true(!ends || !client->transport);
    memory_free(h, client);
    memory_forget_closed(h);
    assert_int_equal(h->w->upstreams->n_busy, 0);
    assert_int_equal(h->w->clients->n, 0);
    assert_int_equal(h->w->buffers.n_used, 0);
}

struct act story_act(const struct story *s)
{
    return (struct act){.story = s, .client_ends = SIZE_MAX, .backend_ends = SIZE_MAX};
}

void story_expect(struct memory_house *h, struct act a)
{
    static struct told told;
    const struct act as_it_was = a;
    story_perform(h, &a, &told);
    if (!told.whole || strcmp(told.text, a.story->expected))
        fail_msg(
            "%s, cut at %zu, %zu, every %zu (answer: %zu, %zu, every %zu; takes %zu, %zu): %s%s, "
            "wanted %s",
            a.story->name, as_it_was.in.at, as_it_was.in.and_at, as_it_was.in.every,
            as_it_was.out.at, as_it_was.out.and_at, as_it_was.out.every, a.client_takes,
            a.backend_takes, told.text, told.whole ? "" : " (not whole)", a.story->expected);
}

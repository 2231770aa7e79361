/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections of clients and to backends over a transport that is no socket: however the bytes of
 * requests and answers are cut into pieces, and however few are taken at a time, the same comes out;
 * and where a connection ends too early nobody takes what there is for the whole.
 */
#include "tests/unit/memory_house.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/upstream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATE "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

/* What one client asks over one connection, what the backend answers, in turn, and what the client
 * has in the end. */
struct story {
    const char *name;
    const char *request;
    const char *answer[3];
    bool closes;              /* the backend, behind its answer */
    const char *forwarded[3]; /* the last bytes of each request as the backend gets it */
    const char *expected;     /* the client's answers as told() tells them */
};

/* Where bytes are cut: at two places, every so many, or by chance. */
struct cut {
    size_t at, and_at, every;
    uint64_t chance;
};

static struct memory_house *house;

static uint64_t next_chance(uint64_t *chance)
{
    *chance ^= *chance << 13, *chance ^= *chance >> 7, *chance ^= *chance << 17;
    return *chance;
}

static size_t cut_next(struct cut *cut, size_t from, size_t len)
{
    size_t to = len;
    if (cut->chance)
        to = from + 1 + next_chance(&cut->chance) % (next_chance(&cut->chance) & 1 ? 4 : 60);
    else if (cut->every)
        to = from + cut->every;
    else if (from < cut->at)
        to = cut->at;
    else if (from < cut->and_at)
        to = cut->and_at;
    return to < len ? to : len;
}

/* ---- reading HTTP, by other means than the worker does ---- */

struct told {
    char text[16384];
    size_t len;
    bool whole; /* nothing is missing at its end */
};

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

struct act {
    const struct story *story;
    struct cut in, out; /* of what clients and backends send */
    size_t client_takes, backend_takes;
    size_t client_ends, backend_ends; /* it is gone behind so many bytes; SIZE_MAX: it is not */
    unsigned asked;                   /* requests that came to backends */
    unsigned wrong;
};

static void put_in_pieces(struct memory_peer *p, const char *bytes, size_t len, struct cut cut)
{
    for (size_t at = 0; at < len;) {
        const size_t to = cut_next(&cut, at, len);
        memory_put(p, bytes + at, to - at);
        at = to;
        memory_settle(house);
    }
}

static void answer_next(struct act *a, struct memory_peer *p)
{
    const struct story *s = a->story;
    const size_t n = request_len(p->out + p->seen, p->out_len - p->seen);
    if (!n)
        return;
    const unsigned which = a->asked < 2 && s->answer[a->asked + 1] ? a->asked : 0;
    const char *answer = s->answer[s->answer[1] ? a->asked % 2 : which];
    const char *tail = s->forwarded[s->answer[1] ? a->asked % 2 : which];
    size_t len = strlen(answer);
    p->seen += n;
    if (tail && memcmp(p->out + p->seen - strlen(tail), tail, strlen(tail)))
        fail_msg("%s: the backend got %.*s", s->name, (int)p->out_len, p->out);
    a->asked++;
    const bool ends = a->backend_ends < len;
    if (ends)
        len = a->backend_ends;
    put_in_pieces(p, answer, len, a->out);
    p->eof = ends || s->closes;
}

static void backends_answer(struct act *a)
{
    for (unsigned i = 0; i < house->n_backends; i++)
        if (house->backend[i]->transport && !house->backend[i]->eof)
            answer_next(a, house->backend[i]);
    memory_settle(house);
}

/* Until nothing moves. */
static void act_on(struct act *a)
{
    unsigned before;
    do {
        before = a->asked;
        memory_settle(house);
        backends_answer(a);
    } while (a->asked != before);
}

static void perform(struct act *a, struct told *told)
{
    const struct story *s = a->story;
    size_t len = strlen(s->request);
    const bool ends = a->client_ends <= len;
    struct cut cut = a->in;
    house->backend_takes = a->backend_takes;
    for (unsigned i = 0; i < house->n_backends; i++) {
        struct memory_peer *p = house->backend[i];
        p->takes = a->backend_takes;
        p->in_at = p->in_len = p->out_len = p->seen = 0;
    }
    struct memory_peer *client = memory_client(house);
    client->takes = a->client_takes;
    if (ends)
        len = a->client_ends;
    for (size_t at = 0; at < len && client->transport;) {
        const size_t to = cut_next(&cut, at, len);
        memory_put(client, s->request + at, to - at);
        at = to;
        act_on(a);
    }
    client->eof = ends;
    act_on(a);
    tell_all(told, client, !strncmp(s->request, "HEAD", 4));
    if (told->whole && !client->transport && client->breaks)
        told->whole = false;
    assert_true(!ends || !client->transport);
    memory_free(house, client);
    memory_forget_closed(house);
    assert_int_equal(house->w->n_busy, 0);
    assert_int_equal(house->w->n_clients, 0);
    assert_int_equal(house->w->buffers.n_used, 0);
}

static struct act plain(const struct story *s)
{
    return (struct act){.story = s, .client_ends = SIZE_MAX, .backend_ends = SIZE_MAX};
}

static void expect(struct act a)
{
    static struct told told;
    const struct act as_it_was = a;
    perform(&a, &told);
    if (!told.whole || strcmp(told.text, a.story->expected))
        fail_msg(
            "%s, cut at %zu, %zu, every %zu (answer: %zu, %zu, every %zu; takes %zu, %zu): %s%s, "
            "wanted %s",
            a.story->name, as_it_was.in.at, as_it_was.in.and_at, as_it_was.in.every,
            as_it_was.out.at, as_it_was.out.and_at, as_it_was.out.every, a.client_takes,
            a.backend_takes, told.text, told.whole ? "" : " (not whole)", a.story->expected);
}

/* ---- stories ---- */

#define GET    "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
#define HELLO  "HTTP/1.1 200 OK\r\n" DATE "Content-Length: 10\r\n\r\n0123456789"
#define TO_END "Connection: keep-alive\r\n\r\n"

static const struct story stories[] = {
    {"a length", GET, {HELLO}, false, {TO_END}, "200 0123456789; "},
    {"chunks and a trailer",
     GET,
     {"HTTP/1.1 200 OK\r\n" DATE "Transfer-Encoding: chunked\r\n\r\n"
      "4;x=y\r\nWiki\r\n6\r\npedia!\r\n00\r\nX-Sum: 1\r\n\r\n"},
     false,
     {TO_END},
     "200 Wikipedia![X-Sum: 1]; "},
    {"until the end",
     GET,
     {"HTTP/1.1 200 OK\r\n" DATE "Connection: close\r\n\r\nall of it"},
     true,
     {TO_END},
     "200 all of it; "},
    {"until the end, for an old client",
     "GET /a HTTP/1.0\r\nHost: h\r\n\r\n",
     {"HTTP/1.1 200 OK\r\n" DATE "\r\nall of it"},
     true,
     {TO_END},
     "200 all of it close; "},
    {"chunks, for an old client",
     "GET /a HTTP/1.0\r\nHost: h\r\n\r\n",
     {"HTTP/1.1 200 OK\r\n" DATE "Transfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n"},
     false,
     {TO_END},
     "200 all close; "},
    {"interim answers",
     GET,
     {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n" HELLO},
     false,
     {TO_END},
     "103 200 0123456789; "},
    {"304",
     "GET /a HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"1\"\r\n\r\n",
     {"HTTP/1.1 304 Not Modified\r\n" DATE "ETag: \"1\"\r\n\r\n"},
     false,
     {TO_END},
     "304 ; "},
    {"HEAD",
     "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n",
     {"HTTP/1.1 200 OK\r\n" DATE "Content-Length: 10\r\n\r\n"},
     false,
     {TO_END},
     "200 ; "},
    {"204",
     "DELETE /a HTTP/1.1\r\nHost: h\r\n\r\n",
     {"HTTP/1.1 204 No Content\r\n" DATE "\r\n"},
     false,
     {TO_END},
     "204 ; "},
    {"an empty body",
     GET,
     {"HTTP/1.1 200 OK\r\n" DATE "Content-Length: 0\r\n\r\n"},
     false,
     {TO_END},
     "200 ; "},
    {"a body",
     "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\nhello there",
     {HELLO},
     false,
     {"\r\n\r\nhello there"},
     "200 0123456789; "},
    {"a body in chunks, with a trailer",
     "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
     "5\r\nhello\r\n6;a=b\r\n there\r\n0\r\nX-Sum: 2\r\n\r\n",
     {HELLO},
     false,
     {"\r\n0\r\nX-Sum: 2\r\n\r\n"},
     "200 0123456789; "},
    {"two at once",
     "\r\nPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" GET,
     {HELLO, "HTTP/1.1 404 Not Found\r\n" DATE "Content-Length: 2\r\n\r\nno"},
     false,
     {"\r\n\r\nhello", TO_END},
     "200 0123456789; 404 ...; "},
    {"two hosts",
     "GET /a HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
     {""},
     false,
     {""},
     "400 ... close; "},
    {"a malformed head",
     GET,
     {"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n"},
     false,
     {TO_END},
     "502 ...; "},
};
#define STORIES (sizeof stories / sizeof *stories)

static void every_cut_of_a_request_is_the_same_request(void **state)
{
    (void)state;
    for (size_t i = 0; i < STORIES; i++) {
        struct act a = plain(&stories[i]);
        const size_t len = strlen(a.story->request);
        expect(a);
        for (a.in.at = 1; a.in.at < len; a.in.at++)
            expect(a);
        a.in = (struct cut){.every = 1};
        expect(a);
    }
}

static void every_cut_of_an_answer_is_the_same_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < STORIES; i++) {
        struct act a = plain(&stories[i]);
        const size_t len = strlen(a.story->answer[0]);
        for (a.out.at = 1; a.out.at < len; a.out.at++)
            expect(a);
        a.out = (struct cut){.every = 1};
        expect(a);
    }
}

static void two_cuts_of_an_answer_in_chunks_are_the_same_answer(void **state)
{
    (void)state;
    struct act a = plain(&stories[1]);
    const size_t len = strlen(a.story->answer[0]);
    for (a.out.at = 50; a.out.at < len; a.out.at++)
        for (a.out.and_at = a.out.at + 1; a.out.and_at < len; a.out.and_at++)
            expect(a);
}

static void random_cuts_and_few_bytes_at_a_time_change_nothing(void **state)
{
    (void)state;
    uint64_t chance = 88172645463325252u;
    for (size_t i = 0; i < STORIES * 40; i++) {
        struct act a = plain(&stories[i % STORIES]);
        a.in.chance = next_chance(&chance) | 1;
        a.out.chance = next_chance(&chance) | 1;
        a.client_takes = next_chance(&chance) % 20;
        a.backend_takes = next_chance(&chance) % 20;
        expect(a);
    }
}

/* A client that is gone before it has asked everything gets nothing that it could take for an
 * answer, and nothing is left of it. */
static void a_client_may_end_at_every_byte(void **state)
{
    (void)state;
    static struct told told;
    for (size_t i = 0; i < STORIES; i++) {
        struct act a = plain(&stories[i]);
        const size_t len = strlen(a.story->request);
        for (size_t at = 0; at <= len; at++) {
            a.client_ends = at;
            a.asked = 0;
            perform(&a, &told);
            const size_t n = strlen(told.text);
            if (strncmp(told.text, a.story->expected, n) && strncmp(told.text, "400", 3))
                fail_msg("%s, ended behind %zu bytes: %s", a.story->name, at, told.text);
            if (at < len && !a.story->answer[1])
                assert_int_equal(a.asked, 0);
        }
    }
}

/* A backend that is gone within its answer: 502 if its head was not there, else the client's
 * connection breaks. */
static void a_backend_may_end_at_every_byte(void **state)
{
    (void)state;
    static struct told told;
    for (size_t i = 0; i < STORIES; i++) {
        struct act a = plain(&stories[i]);
        const char *answer = a.story->answer[0];
        const size_t len = strlen(answer);
        const char *last = strstr(answer, "HTTP/1.1 200");
        const char *blank = strstr(last ? last : answer, "\r\n\r\n");
        if (a.story->answer[1] || !len)
            continue;
        for (size_t at = 0; at < len; at++) {
            a.backend_ends = at;
            a.asked = 0;
            perform(&a, &told);
            const bool has_head = blank && at >= (size_t)(blank - answer) + 4;
            if (!has_head && !strstr(told.text, "502 "))
                fail_msg("%s, ended behind %zu bytes: %s", a.story->name, at, told.text);
            if (has_head && told.whole != a.story->closes)
                fail_msg("%s, ended behind %zu bytes: %s %s", a.story->name, at,
                         told.whole ? "whole:" : "broken:", told.text);
        }
    }
}

/* The least that a request takes which is passed on over kept connections. */
static void a_passed_request_is_two_reads_and_two_writes(void **state)
{
    (void)state;
    struct act a = plain(&stories[0]);
    expect(a); /* now there is a kept connection */
    assert_int_equal(house->n_backends, 1);
    struct memory_peer *client = memory_client(house), *backend = house->backend[0];
    for (int i = 0; i < 3; i++) {
        client->reads = client->writes = client->peeks = 0;
        backend->reads = backend->writes = backend->peeks = 0;
        memory_put(client, GET, strlen(GET));
        act_on(&a);
        assert_int_equal(client->reads, 1);
        assert_int_equal(client->writes, 1);
        assert_int_equal(backend->reads, 1);
        assert_int_equal(backend->writes, 1);
        assert_int_equal(client->peeks + backend->peeks, 0);
    }
    assert_int_equal(house->n_backends, 1);
    memory_free(house, client);
}

/* What a backend sends behind an answer is no answer to anything, whenever it comes. */
static void what_nobody_has_asked_for_ends_a_kept_connection(void **state)
{
    (void)state;
    struct act a = plain(&stories[0]);
    expect(a);
    assert_int_equal(house->n_backends, 1);
    struct memory_peer *backend = house->backend[0];
    memory_put(backend, HELLO, strlen(HELLO)); /* it has come, but the loop has not told yet */
    struct memory_peer *client = memory_client(house);
    memory_put(client, GET, strlen(GET));
    act_on(&a);
    assert_null(backend->transport);
    assert_int_equal(backend->seen, backend->out_len); /* it was not asked once more */
    assert_int_equal(house->n_backends, 2);
    memory_free(house, client);
    memory_forget_closed(house);
}

static void a_proxy_header_may_be_cut_anywhere(void **state)
{
    (void)state;
    static const struct story v1 = {"PROXY",  "PROXY TCP4 198.51.100.9 127.0.0.1 1 2\r\n" GET,
                                    {HELLO},  false,
                                    {TO_END}, "200 0123456789; "};
    bool *proxy = &((struct config *)(uintptr_t)house->w->config)->proxy_protocol;
    struct act a = plain(&v1);
    *proxy = true;
    expect(a);
    for (a.in.at = 1; a.in.at < strlen(v1.request); a.in.at++)
        expect(a);
    a.in = (struct cut){.every = 1};
    expect(a);
    assert_non_null(strstr(house->backend[0]->out, "198.51.100.9"));
    *proxy = false;
}

static int set_up(void **state)
{
    (void)state;
    house = memory_house_open("upstream \"b\" { server \"127.0.0.1:9\" { } park = \"0s\" }\n"
                              "route \"/*\" { upstream = \"b\" }\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    memory_house_close(house);
    return 0;
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_cut_of_a_request_is_the_same_request),
        TEST(every_cut_of_an_answer_is_the_same_answer),
        TEST(two_cuts_of_an_answer_in_chunks_are_the_same_answer),
        TEST(random_cuts_and_few_bytes_at_a_time_change_nothing),
        TEST(a_client_may_end_at_every_byte),
        TEST(a_backend_may_end_at_every_byte),
        TEST(a_passed_request_is_two_reads_and_two_writes),
        TEST(what_nobody_has_asked_for_ends_a_kept_connection),
        TEST(a_proxy_header_may_be_cut_anywhere),
    };
    return cmocka_run_group_tests_name("transport", tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections of clients and to backends over a transport that is no socket: however the bytes of
 * requests and answers are cut into pieces, and however few are taken at a time, the same comes out;
 * and where a connection ends too early nobody takes what there is for the whole.
 */
#include "daemons/worker/fetch/upstream.h"
#include "memory_story.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DATE "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

static struct memory_house *house;

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
    {"a body that is asked for",
     "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
     {HELLO},
     false,
     {"\r\n\r\nhello"},
     "100 200 0123456789; "},
    {"the last request",
     "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
     {HELLO},
     false,
     {TO_END},
     "200 0123456789 close; "},
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
        struct act a = story_act(&stories[i]);
        const size_t len = strlen(a.story->request);
        story_expect(house, a);
        for (a.in.at = 1; a.in.at < len; a.in.at++)
            story_expect(house, a);
        a.in = (struct cut){.every = 1};
        story_expect(house, a);
    }
}

static void every_cut_of_an_answer_is_the_same_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < STORIES; i++) {
        struct act a = story_act(&stories[i]);
        const size_t len = strlen(a.story->answer[0]);
        for (a.out.at = 1; a.out.at < len; a.out.at++)
            story_expect(house, a);
        a.out = (struct cut){.every = 1};
        story_expect(house, a);
    }
}

static void two_cuts_of_an_answer_in_chunks_are_the_same_answer(void **state)
{
    (void)state;
    struct act a = story_act(&stories[1]);
    const size_t len = strlen(a.story->answer[0]);
    for (a.out.at = 50; a.out.at < len; a.out.at++)
        for (a.out.and_at = a.out.at + 1; a.out.and_at < len; a.out.and_at++)
            story_expect(house, a);
}

static void random_cuts_and_few_bytes_at_a_time_change_nothing(void **state)
{
    (void)state;
    uint64_t chance = 88172645463325252u;
    for (size_t i = 0; i < STORIES * 40; i++) {
        struct act a = story_act(&stories[i % STORIES]);
        a.in.chance = story_chance(&chance) | 1;
        a.out.chance = story_chance(&chance) | 1;
        a.client_takes = story_chance(&chance) % 20;
        a.backend_takes = story_chance(&chance) % 20;
        story_expect(house, a);
    }
}

/* A client that is gone before it has asked everything gets nothing that it could take for an
 * answer, and nothing is left of it. */
static void a_client_may_end_at_every_byte(void **state)
{
    (void)state;
    static struct told told;
    for (size_t i = 0; i < STORIES; i++) {
        struct act a = story_act(&stories[i]);
        const size_t len = strlen(a.story->request);
        for (size_t at = 0; at <= len; at++) {
            a.client_ends = at;
            a.asked = 0;
            story_perform(house, &a, &told);
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
        struct act a = story_act(&stories[i]);
        const char *answer = a.story->answer[0];
        const size_t len = strlen(answer);
        const char *last = strstr(answer, "HTTP/1.1 200");
        const char *blank = strstr(last ? last : answer, "\r\n\r\n");
        if (a.story->answer[1] || !len)
            continue;
        for (size_t at = 0; at < len; at++) {
            a.backend_ends = at;
            a.asked = 0;
            story_perform(house, &a, &told);
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
    struct act a = story_act(&stories[0]);
    story_expect(house, a); /* now there is a kept connection */
    assert_int_equal(house->n_backends, 1);
    struct memory_peer *client = memory_client(house), *backend = house->backend[0];
    unsigned peeks = 0;
    for (int i = 0; i < 30; i++) {
        client->reads = client->writes = client->peeks = 0;
        backend->reads = backend->writes = backend->peeks = 0;
        memory_put(client, GET, strlen(GET));
        story_go_on(house, &a);
        assert_int_equal(client->reads, 1);
        assert_int_equal(client->writes, 1);
        assert_int_equal(backend->reads, 1);
        assert_int_equal(backend->writes, 1);
        assert_int_equal(client->peeks, 0);
        peeks += backend->peeks;
    }
    assert_in_range(peeks, 0, 15); /* where the clock has ticked since the loop polled */
    assert_int_equal(house->n_backends, 1);
    memory_free(house, client);
}

/* It has asked when it is accepted, and does not wait for the loop to tell so. */
static void what_comes_with_a_connection_is_answered_at_once(void **state)
{
    (void)state;
    struct memory_peer *client = memory_client_with(house, "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_non_null(strstr(client->out, "HTTP/1.1 204 "));
    assert_int_equal(client->reads, 1);
    assert_int_equal(client->writes, 1);
    assert_int_equal(client->transport->wanted, TRANSPORT_READ);
    memory_free(house, client);
}

static void a_connection_for_one_request_is_one_read_and_one_write(void **state)
{
    (void)state;
    struct memory_peer *client =
        memory_client_with(house, "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_non_null(strstr(client->out, "HTTP/1.1 204 "));
    assert_null(client->transport);
    assert_int_equal(client->reads, 1);
    assert_int_equal(client->writes, 1);
    memory_free(house, client);
}

/* What a backend sends behind an answer is no answer to anything, whenever it comes. */
static void what_nobody_has_asked_for_ends_a_kept_connection(void **state)
{
    (void)state;
    struct act a = story_act(&stories[0]);
    story_expect(house, a);
    assert_int_equal(house->n_backends, 1);
    struct memory_peer *backend = house->backend[0];
    memory_put(backend, HELLO, strlen(HELLO)); /* it has come, but the loop has not told yet */
    struct memory_peer *client = memory_client(house);
    memory_put(client, GET, strlen(GET));
    story_go_on(house, &a);
    assert_null(backend->transport);
    assert_int_equal(backend->seen, backend->out_len); /* it was not asked once more */
    assert_int_equal(house->n_backends, 2);
    memory_free(house, client);
    memory_forget_closed(house);
}

/* The loop has had no chance to tell of it: the answer is read, something comes behind it, and the
 * next request wants a connection, all in one iteration. */
static void a_connection_that_was_just_read_is_looked_at(void **state)
{
    (void)state;
    struct memory_peer *first = memory_client(house), *second = memory_client(house);
    memory_put(first, GET, strlen(GET));
    memory_settle(house);
    assert_int_equal(house->n_backends, 1);
    struct memory_peer *backend = house->backend[0];
    const size_t asked = backend->out_len;
    memory_put(backend, HELLO, strlen(HELLO));
    backend->behind = "HTTP/1.1 200 OK\r\n" DATE "Content-Length: 5\r\n\r\nwrong";
    memory_put(second, GET, strlen(GET));
    ev_feed_event(house->w->loop, &second->transport->read,
                  EV_READ); /* the last one is told first */
    ev_feed_event(house->w->loop, &backend->transport->read, EV_READ);
    ev_run(house->w->loop, EVRUN_NOWAIT);
    assert_non_null(strstr(first->out, "0123456789"));
    assert_int_equal(backend->out_len, asked);
    memory_settle(house);
    assert_null(backend->transport);
    assert_int_equal(house->n_backends, 2);
    assert_null(strstr(second->out, "wrong"));
    memory_free(house, first);
    memory_free(house, second);
    memory_forget_closed(house);
}

/* Once is a slip of the server's that is likely to be repeated, and then to reach somebody. */
static void a_server_that_says_too_much_is_asked_over_fresh_connections(void **state)
{
    (void)state;
    struct act a = story_act(&stories[0]);
    const char *const what[] = {HELLO, "\r\n"};
    for (unsigned i = 0; i < 2; i++) {
        story_expect(house, a);
        assert_int_equal(house->n_backends, 1);
        assert_non_null(house->backend[0]->transport);
        memory_put(house->backend[0], what[i], strlen(what[i]));
        memory_settle(house);
        memory_forget_closed(house);
        assert_int_equal(house->n_backends, 0);
        story_expect(house, a); /* is answered, and its connection closed */
        memory_forget_closed(house);
        assert_int_equal(house->n_backends, 0);
        house->w->upstreams->servers[0].single_until_ms = 0; /* the time is over */
    }
    static const struct story behind = {"more behind", GET,      {HELLO HELLO},
                                        false,         {TO_END}, "200 0123456789; "};
    story_expect(house, story_act(&behind));
    memory_forget_closed(house);
    assert_true(house->w->upstreams->servers[0].single_until_ms > house->w->mono_ms);
    story_expect(house, a);
    memory_forget_closed(house);
    assert_int_equal(house->n_backends, 0);
}

static void a_proxy_header_may_be_cut_anywhere(void **state)
{
    (void)state;
    static const struct story v1 = {"PROXY",  "PROXY TCP4 198.51.100.9 127.0.0.1 1 2\r\n" GET,
                                    {HELLO},  false,
                                    {TO_END}, "200 0123456789; "};
    bool *proxy = &((struct config *)(uintptr_t)house->w->config)->proxy_protocol;
    struct act a = story_act(&v1);
    *proxy = true;
    story_expect(house, a);
    for (a.in.at = 1; a.in.at < strlen(v1.request); a.in.at++)
        story_expect(house, a);
    a.in = (struct cut){.every = 1};
    story_expect(house, a);
    assert_non_null(strstr(house->backend[0]->out, "198.51.100.9"));
    *proxy = false;
}

static int set_up(void **state)
{
    (void)state;
    house = memory_house_open("upstream \"b\" { server \"127.0.0.1:9\" { } park = \"0s\" }\n"
                              "route \"/*\" { upstream = \"b\" }\n",
                              false);
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
        TEST(what_comes_with_a_connection_is_answered_at_once),
        TEST(a_connection_for_one_request_is_one_read_and_one_write),
        TEST(what_nobody_has_asked_for_ends_a_kept_connection),
        TEST(a_connection_that_was_just_read_is_looked_at),
        TEST(a_server_that_says_too_much_is_asked_over_fresh_connections),
        TEST(a_proxy_header_may_be_cut_anywhere),
    };
    return cmocka_run_group_tests_name("transport", tests, NULL, NULL);
}

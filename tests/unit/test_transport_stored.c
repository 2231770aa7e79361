/* SPDX-License-Identifier: BSD-2-Clause */
/* Answers from the store over a transport that is no socket: requests come and answers are taken in
 * any pieces, and a hit costs one read and one write. */
#include "memory_story.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct memory_house *house;

/* A story of one answer with a body of len bytes, which may be stored, and of asking for it. */
static const struct story *stored_story(size_t len, unsigned times)
{
    static char answer[MEMORY_BYTES], expected[2 * MEMORY_BYTES], request[512];
    static struct story s;
    char body[MEMORY_BYTES / 2];
    assert_true(len < sizeof body);
    for (size_t i = 0; i < len; i++)
        body[i] = (char)('a' + (i / 7 + i * i) % 26);
    body[len] = 0;
    snprintf(
        answer, sizeof answer,
        "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=600\r\nContent-Length: %zu\r\n\r\n%s",
        len, body);
    request[0] = expected[0] = 0;
    for (unsigned i = 0; i < times; i++) {
        snprintf(request + strlen(request), 128, "GET /%zu HTTP/1.1\r\nHost: h\r\n\r\n", len);
        strcat(expected, "200 ");
        strcat(expected, body);
        strcat(expected, "; ");
    }
    s = (struct story){
        .name = "stored", .request = request, .answer = {answer}, .expected = expected};
    return &s;
}

/* Asks until the answer comes from the store. */
static void store(size_t len)
{
    static struct told told;
    struct act a = story_act(stored_story(len, 1));
    for (unsigned i = 0; i < 20000; i++) {
        a.asked = 0;
        story_perform(house, &a, &told);
        assert_true(told.whole);
        if (told.len && !a.asked)
            return;
        usleep(1000); /* the keeper works on it; meanwhile others wait */
    }
    fail_msg("the keeper stores nothing");
}

static void expect_stored(const struct act *a)
{
    struct act again = *a;
    static struct told told;
    story_perform(house, &again, &told);
    assert_int_equal(again.asked, 0);
    if (!told.whole || strcmp(told.text, a->story->expected))
        fail_msg("stored, cut at %zu, every %zu, takes %zu: %zu bytes%s", a->in.at, a->in.every,
                 a->client_takes, told.len, told.whole ? "" : " (not whole)");
}

/* Requests as fast as they come, the same again over one connection, with other pieces of them. */
static void every_cut_of_repeated_requests_is_answered_from_the_store(void **state)
{
    (void)state;
    store(300);
    struct act a = story_act(stored_story(300, 4));
    const size_t len = strlen(a.story->request);
    for (a.in.at = 0; a.in.at < len; a.in.at++)
        for (a.in.and_at = a.in.at; a.in.and_at < len; a.in.and_at += 7)
            expect_stored(&a);
    a.in = (struct cut){.every = 1};
    expect_stored(&a);
}

static void stored_answers_are_taken_in_any_pieces(void **state)
{
    static const size_t lens[] = {0, 300, 5000, 60000};
    (void)state;
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        store(lens[i]);
        struct act a = story_act(stored_story(lens[i], 2));
        expect_stored(&a);
        for (a.client_takes = 1 + lens[i] / 500; a.client_takes < lens[i] + 500;
             a.client_takes += 1 + a.client_takes / 3)
            expect_stored(&a);
        a.client_takes = lens[i] ? lens[i] : 100;
        a.in.every = 3;
        expect_stored(&a);
    }
}

static void a_hit_is_one_read_and_one_write(void **state)
{
    (void)state;
    store(5000);
    struct act a = story_act(stored_story(5000, 1));
    struct memory_peer *client = memory_client(house);
    for (int i = 0; i < 5; i++) {
        client->reads = client->writes = client->peeks = 0;
        memory_put(client, a.story->request, strlen(a.story->request));
        story_go_on(house, &a);
        assert_int_equal(client->reads, 1);
        assert_int_equal(client->writes, 1);
        assert_int_equal(client->peeks, 0);
    }
    assert_int_equal(a.asked, 0);
    memory_free(house, client);
}

static int set_up_stored(void **state)
{
    (void)state;
    house = memory_house_open("cache { max_bytes = \"16M\" compress = {\"off\"} }\n"
                              "upstream \"b\" { server \"127.0.0.1:9\" { } park = \"0s\" }\n"
                              "route \"/*\" { upstream = \"b\" cache { } }\n",
                              true);
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
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up_stored, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(every_cut_of_repeated_requests_is_answered_from_the_store),
        TEST(stored_answers_are_taken_in_any_pieces),
        TEST(a_hit_is_one_read_and_one_write),
    };
    return cmocka_run_group_tests_name("transport_stored", tests, NULL, NULL);
}

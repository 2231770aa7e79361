/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of a 304: it renews what is stored with all that it says, and is never more than it says.
 */
#include "harness.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;

#define ETAG "ETag: \"1\"\r\n"

/* What the first 200 of a target says, and then its 304; some have changed since, and their 200
 * says that too. */
static const struct {
    const char *target, *first, *then;
    bool changes;
} answers[] = {
    {"/vary", "Cache-Control: max-age=0\r\n", "Cache-Control: max-age=600\r\nVary: Cookie\r\n",
     true},
    {"/star", "Cache-Control: max-age=0\r\n", "Cache-Control: max-age=600\r\nVary: *\r\n", true},
    {"/same", "Cache-Control: max-age=0\r\nVary: Cookie\r\n",
     "Cache-Control: max-age=600\r\nVary: cookie, Accept-Encoding\r\n", false},
    {"/private", "Cache-Control: max-age=0, stale-while-revalidate=600, stale-if-error=600\r\n",
     "Cache-Control: private\r\nX-For: you\r\n", false},
    {"/session", "Cache-Control: max-age=0\r\n", "Set-Cookie: a=b\r\nX-For: you\r\n", false},
    {"/body", "Cache-Control: max-age=0\r\n", "\r\nand more", false},
    {"/date", "Cache-Control: max-age=600\r\nDate: Wed, 04 Mar 2026 10:00:00 GMT\r\n", "", false},
};

static atomic_bool renewed[sizeof answers / sizeof *answers];

#define TOGETHER 6
static atomic_uint gathered;

/* Renews for nobody before all are there. */
static bool renew_together(struct asked *a)
{
    const uint64_t end = mono_ms() + harness_patience(5000);
    atomic_fetch_add(&gathered, 1);
    while (atomic_load(&gathered) < TOGETHER && mono_ms() < end)
        nap_ms(5);
    return reply(a, "HTTP/1.1 304 Not Modified\r\n" ETAG "Cache-Control: no-cache\r\n\r\n");
}

#define WINDOW "Cache-Control: max-age=0, stale-while-revalidate=600, stale-if-error=600\r\n"
static atomic_bool over; /* what was there before is gone */

/* A page that goes, and one that members have for themselves. */
static bool answer_over(struct asked *a, const char *body)
{
    const bool member = !strcmp(body, "for member");
    if (atomic_load(&over) && !strncmp(a->target, "/over", 5))
        return reply(a, "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n");
    return reply_ok(a, member ? "Cache-Control: private\r\n" : ETAG WINDOW, body);
}

static bool answer(struct asked *a)
{
    char lines[256], body[64];
    const char *cookie = field_of(&a->m, "Cookie");
    snprintf(body, sizeof body, "for %.50s", cookie ? cookie : "nobody");
    const bool renews = field_of(&a->m, "If-None-Match") != NULL;
    if (!strncmp(a->target, "/over", 5) || !strcmp(a->target, "/members"))
        return answer_over(a, body);
    if (!strcmp(a->target, "/each"))
        return renews ? renew_together(a) : reply_ok(a, ETAG "Cache-Control: no-cache\r\n", body);
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        if (strcmp(a->target, answers[i].target))
            continue;
        if (renews) {
            atomic_store(&renewed[i], true);
            return reply(a, "HTTP/1.1 304 Not Modified\r\n" ETAG "%s\r\n", answers[i].then);
        }
        const bool changed = answers[i].changes && atomic_load(&renewed[i]);
        snprintf(lines, sizeof lines, ETAG "%s", changed ? answers[i].then : answers[i].first);
        return reply_ok(a, lines, body);
    }
    return reply(a,
                 "HTTP/1.1 404 Not Found\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n");
}

static void start(struct house *h, unsigned workers)
{
    backend = backend_start(answer, NULL);
    house_start(h, workers,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { share = \"rfc\" leak_guard = 0 } }\n",
                backend_port(backend));
    backend_forget(backend);
}

static void stop(struct house *h)
{
    house_remove(h);
    backend_stop(backend);
}

/* Asks as somebody until Cache-Status has that text; the body is for him each time. */
static void ask_until(struct house *h, const char *target, const char *who, const char *status)
{
    char lines[64], body[64];
    struct message m;
    bool seen = false;
    snprintf(lines, sizeof lines, "Cookie: %s\r\n", who);
    snprintf(body, sizeof body, "for %s", who);
    wait_until((assert_int_equal(get_with(h->port, target, lines, &m), 200),
                assert_string_equal(m.body, body),
                seen = strstr(field_of(&m, "Cache-Status"), status) != NULL, message_free(&m),
                seen),
               5000);
}

static void one_that_varies_further_is_no_renewal(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 2);
    ask_until(&h, "/vary", "alice", "stored");
    ask_until(&h, "/vary", "alice", "fwd-status=200"); /* asked with conditions, then without */
    ask_until(&h, "/vary", "bob", "stored");
    ask_until(&h, "/vary", "alice", "hit"); /* each has his own now */
    ask_until(&h, "/vary", "bob", "hit");
    ask_until(&h, "/star", "alice", "stored");
    ask_until(&h, "/star", "bob", "fwd-status=200");
    ask_until(&h, "/star", "carol", "fwd-status=200");
    /* the same names in other words, and what the backend is asked alike for all */
    ask_until(&h, "/same", "alice", "stored");
    ask_until(&h, "/same", "alice", "hit");
    assert_int_equal(get_with(h.port, "/same", "Cookie: alice\r\n", &m), 200);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "hit"));
    message_free(&m);
    stop(&h);
}

static void what_it_takes_back_is_gone(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 2);
    ask_until(&h, "/private", "alice", "stored");
    /* stale, and asked for again behind: nobody gets it any more */
    ask_until(&h, "/private", "alice", "stale-while-revalidate");
    ask_until(&h, "/private", "alice", "fwd=uri-miss");
    /* a cookie alone says nothing against it; who was meant gets it */
    ask_until(&h, "/session", "alice", "stored");
    ask_until(&h, "/session", "alice", "fwd-status=304");
    assert_int_equal(get_with(h.port, "/session", "Cookie: alice\r\n", &m), 200);
    assert_string_equal(field_of(&m, "Set-Cookie"), "a=b");
    assert_string_equal(field_of(&m, "X-For"), "you");
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "fwd=stale; fwd-status=304"));
    assert_null(strstr(field_of(&m, "Cache-Status"), "stored"));
    message_free(&m);
    stop(&h);
}

/* What may not be stored cannot take the place of what is: but that is over. */
static void what_another_answer_has_ended_does_not_come_back(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 2);
    ask_until(&h, "/over", "alice", "stored");
    ask_until(&h, "/over", "alice", "stale-while-revalidate");
    atomic_store(&over, true);
    wait_until(get_with(h.port, "/over", "Cookie: alice\r\n", NULL) == 302, 5000);
    for (int i = 0; i < 10; i++)
        assert_int_equal(get_with(h.port, "/over", "Cookie: alice\r\n", NULL), 302);
    /* what somebody else gets for himself says nothing of it */
    ask_until(&h, "/members", "alice", "stored");
    ask_until(&h, "/members", "alice", "stale-while-revalidate");
    const unsigned calls = backend_calls(backend);
    for (int i = 0; backend_calls(backend) < calls + 3; i++) {
        assert_int_equal(get_with(h.port, "/members", "Cookie: member\r\n", &m), 200);
        assert_string_equal(m.body, "for alice");
        message_free(&m);
        assert_true(i < 1000);
    }
    stop(&h);
}

static void one_without_a_date_is_of_now(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2);
    ask_until(&h, "/date", "alice", "stored");
    ask_until(&h, "/date", "alice", "fwd-status=304; stored");
    ask_until(&h, "/date", "alice", "hit");
    stop(&h);
}

/* The rest of what it should not have may still be on its way, and would be the next one's answer.
 */
static void one_with_a_body_costs_its_connection(void **state)
{
    (void)state;
    struct house h;
    start(&h, 1);
    for (unsigned i = 1; i <= 3; i++) {
        ask_until(&h, "/body", "alice", i == 1 ? "stored" : "fwd-status=304");
        assert_int_equal(get(h.port, "/other", NULL), 404);
        assert_int_equal(backend_connections(backend), i);
    }
    stop(&h);
}

static void who_asks_each_time_waits_for_nobody(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[TOGETHER];
    start(&h, 2);
    ask_until(&h, "/each", "nobody", "stored");
    wait_until(backend_calls(backend) == 1, 1000);
    for (int i = 0; i < TOGETHER; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /each HTTP/1.1\r\nHost: test.example\r\n\r\n");
    }
    wait_until(atomic_load(&gathered) == TOGETHER, 4000);
    for (int i = 0; i < TOGETHER; i++) {
        client_read(fd[i], &m, false);
        assert_string_equal(m.body, "for nobody");
        message_free(&m);
        close(fd[i]);
    }
    stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_varies_further_is_no_renewal),
        cmocka_unit_test(what_it_takes_back_is_gone),
        cmocka_unit_test(what_another_answer_has_ended_does_not_come_back),
        cmocka_unit_test(one_without_a_date_is_of_now),
        cmocka_unit_test(one_with_a_body_costs_its_connection),
        cmocka_unit_test(who_asks_each_time_waits_for_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of clients that would like to be somebody else under a limit, or nobody. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINES_MAX (80u << 10)

static struct backend *backend;
static char lines[LINES_MAX];

static bool answers(struct asked *a)
{
    return reply_ok(a, "", "ok");
}

/* One budget of three: what comes after it is refused, however it is dressed. */
static void expect_one_client(struct house *h, int i, const char *with)
{
    const int status = get_with(h->port, "/x", with, NULL);
    if (status != (i < 3 ? 200 : 429))
        fail_msg("request %d was answered %d; with %.100s", i, status, with);
}

static void start(struct house *h, const char *head, const char *limit)
{
    house_start(h, 2,
                "%s\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"l\" { requests = 3 window = \"60s\" %s }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"l\"} }\n",
                head, backend_port(backend), limit);
}

static void what_strangers_say_of_their_address_counts_for_nothing(void **state)
{
    (void)state;
    static const char *const heads[] = {"", "trusted_proxies = {\"192.0.2.0/24\", \"::1\"}"};
    static const char *const said[] = {"X-Forwarded-For: 198.51.100.%d\r\n",
                                       "Forwarded: for=198.51.100.%d\r\n",
                                       "X-Real-IP: 198.51.100.%d\r\n",
                                       "X-Forwarded-For: 127.0.0.%d\r\n",
                                       "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.%d\r\n",
                                       "True-Client-IP: 198.51.100.%d\r\n",
                                       "X-Forwarded-For: 10.9.8.%d, 10.0.0.1\r\n"};
    for (int k = 0; k < 2; k++) {
        struct house h;
        start(&h, heads[k], "exempt = {\"10.0.0.0/8\", \"192.0.2.0/24\"}");
        for (int i = 0; i < 14; i++) {
            snprintf(lines, sizeof lines, said[i % 7], i + 1); /* NOLINT: formats are those above */
            expect_one_client(&h, i, lines);
        }
        house_remove(&h);
    }
}

/* "X-Forwarded-For: " with n hops of the form, then those that proxies have added. */
static const char *hops(int n, const char *form, int salt, const char *added)
{
    size_t len = (size_t)sprintf(lines, "X-Forwarded-For: ");
    for (int i = 0; i < n; i++) {
        len += (size_t)snprintf(lines + len, sizeof lines - len, form, /* NOLINT: of our own */
                                (i + salt) % 250);
        len += (size_t)snprintf(lines + len, sizeof lines - len, ",");
    }
    snprintf(lines + len, sizeof lines - len, "%s\r\n", added);
    return lines;
}

/* Longer than most: a field that were left out for its length would make the proxy the client,
 * and that one is exempt. */
static void of_a_thousand_hops_the_last_stranger_counts(void **state)
{
    (void)state;
    struct house h;
    start(&h, "trusted_proxies = {\"127.0.0.0/8\", \"10.0.0.0/8\"}", "exempt = {\"127.0.0.0/8\"}");
    for (int i = 0; i < 6; i++)
        expect_one_client(&h, i, hops(1000, "198.51.100.%d", i, "203.0.113.9"));
    for (int i = 0; i < 6; i++)
        expect_one_client(&h, i + 3, hops(1000, "127.0.0.%d", i, "203.0.113.9,10.0.0.7"));
    for (int i = 0; i < 6; i++)
        expect_one_client(&h, i, hops(900, "nonsense %d", i, "203.0.113.10"));
    /* all of them trusted: a hundred are looked at, and the farthest of those is meant */
    for (int i = 0; i < 6; i++)
        expect_one_client(&h, i, hops(1000, "10.0.0.%d", 0, "10.0.0.200"));
    /* too long for a head */
    assert_int_equal(get_with(h.port, "/x", hops(5000, "198.51.100.%d", 0, "203.0.113.9"), NULL),
                     431);
    house_remove(&h);
}

static void long_line(const char *before, size_t n, int salt, const char *after)
{
    size_t len = (size_t)sprintf(lines, "%s%d", before, salt);
    memset(lines + len, 'k', n);
    strcpy(lines + len + n, after);
}

/* 4096 bytes of a key are told apart; whoever has more is counted by his address. */
static void a_key_that_is_longer_than_any_honest_one_is_the_client(void **state)
{
    (void)state;
    static const char *const keys[] = {"header:x-key", "cookie:sid"};
    static const char *const before[] = {"X-Key: ", "Cookie: sid="};
    struct house h;
    char more[64];
    for (int k = 0; k < 2; k++) {
        snprintf(more, sizeof more, "key = \"%s\"", keys[k]);
        start(&h, "", more);
        for (int i = 0; i < 6; i++) { /* all of them one client, at last */
            long_line(before[k], 5000 + (size_t)i, i, "\r\n");
            expect_one_client(&h, i, lines);
        }
        expect_one_client(&h, 3, ""); /* the one without a key */
        for (int i = 0; i < 6; i++) {
            long_line(before[k], 4000, 7, "\r\n");
            expect_one_client(&h, i, lines);
        }
        long_line(before[k], 64u << 10, 0, "\r\n");
        assert_int_equal(get_with(h.port, "/x", lines, NULL), 431);
        expect_one_client(&h, 0, k ? "Cookie: sid=short\r\n" : "X-Key: short\r\n");
        house_remove(&h);
    }
    start(&h, "", "key = \"query:key\"");
    for (int i = 0; i < 6; i++) {
        long_line("/x?key=", 5000, i, "");
        assert_int_equal(get(h.port, lines, NULL), i < 3 ? 200 : 429);
    }
    long_line("/x?key=", 64u << 10, 0, "");
    assert_int_equal(get(h.port, lines, NULL), 414);
    house_remove(&h);
}

static const char *const no_tokens[] = {
    "Authorization: Bearer\r\n",
    "Authorization: Bearer \r\n",
    "Authorization: Bearer .\r\n",
    "Authorization: Bearer ..\r\n",
    "Authorization: Bearer a.b.c\r\n",
    "Authorization: Bearer a.!!!!.c\r\n",
    "Authorization: Bearer eyJzdWIiOiJ1LTEifQ\r\n",             /* one part only */
    "Authorization: Bearer a.eyJzdWIiOiJ1LTE.c\r\n",            /* {"sub":"u-1 */
    "Authorization: Bearer a.eyJzdWIiOg.c\r\n",                 /* {"sub": */
    "Authorization: Bearer a.eyJzdWIi.c\r\n",                   /* {"sub" */
    "Authorization: Bearer a.eyJuIjp7InN1YiI6InUtMSJ9fQ.c\r\n", /* {"n":{"sub":"u-1"}} */
    "Authorization: Bearer a.eyJuIjoic3ViOnUtMSJ9.c\r\n",       /* {"n":"sub:u-1"} */
    "Authorization: Bearer a.InN1YiI6InUtMSI.c\r\n",            /* "sub":"u-1", no object */
    "Authorization: Bearer a.W10.c\r\n",                        /* [] */
    "Authorization: Bearer a.XFxcXFxc.c\r\n",                   /* backslashes */
    "Authorization: Bearer a.eyJc.c\r\n",                       /* ends behind a backslash */
    "Authorization: Basic a.eyJzdWIiOiJ1LTEifQ.c\r\n",
};

static void a_token_that_is_none_names_nobody(void **state)
{
    (void)state;
    struct house h;
    const int n = sizeof no_tokens / sizeof *no_tokens;
    start(&h, "", "key = \"jwt:sub\"");
    for (int i = 0; i < n; i++)
        expect_one_client(&h, i, no_tokens[i]);
    long_line("Authorization: Bearer a.eyJ", 12000, 1, ".c\r\n"); /* more than is decoded */
    expect_one_client(&h, n, lines);
    for (int i = 0; i < 4; i++) /* a token that is one has a budget of its own */
        expect_one_client(&h, i, "Authorization: Bearer a.eyJzdWIiOiJ1LTEifQ.c\r\n");
    house_remove(&h);
    start(&h, "", "key = \"jwt:sub\" missing = \"refuse\"");
    for (int i = 0; i < n; i++)
        if (get_with(h.port, "/x", no_tokens[i], NULL) < 400)
            fail_msg("%s was admitted", no_tokens[i]);
    assert_int_equal(
        get_with(h.port, "/x", "Authorization: Bearer a.eyJzdWIiOiJ1LTEifQ.c\r\n", NULL), 200);
    house_remove(&h);
}

static unsigned admitted(struct house *h, unsigned n)
{
    unsigned ok = 0;
    for (unsigned i = 0; i < n; i++)
        ok += get(h->port, "/x", NULL) == 200;
    return ok;
}

static void refuses(struct house *h, const char *what, const char *because)
{
    const char *out;
    if (ctl(h, &out, "limit set l %s", what) != 2 || !strstr(out, because))
        fail_msg("%s: %s", what, out);
}

static void limits_at_the_edges_of_what_can_be_said(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "", "");
    refuses(&h, "window=1ms", "a duration between 100ms and 30d");
    refuses(&h, "window=99ms", "100ms");
    refuses(&h, "window=31d", "30d");
    refuses(&h, "window=-1s", "a duration such as");
    refuses(&h, "window=99999999999999999999d", "a duration between");
    refuses(&h, "requests=65536", "at most 65535; fixed and gcra take up to 4294967295");
    refuses(&h, "requests=4294967296", "a whole number up to 4294967295");
    refuses(&h, "requests=-1", "a whole number");
    refuses(&h, "requests=", "a whole number");
    refuses(&h, "concurrent=1000001", "a whole number up to 1000000");
    assert_int_equal(admitted(&h, 5), 3); /* nothing of that has changed anything */
    assert_int_equal(ctl(&h, NULL, "limit set l requests=0"), 0);
    assert_int_equal(admitted(&h, 3), 0);
    static const char *const algorithm[] = {"fixed", "gcra"};
    for (int a = 0; a < 2; a++) {
        assert_int_equal(
            ctl(&h, NULL, "limit set l requests=4294967295 window=30d algorithm=%s", algorithm[a]),
            0);
        assert_int_equal(get(h.port, "/x", &m), 200);
        assert_non_null(strstr(field_of(&m, "RateLimit-Policy"), ";q=4294967295;w=2592000"));
        message_free(&m);
    }
    assert_int_equal(ctl(&h, NULL, "limit set l requests=3 window=100ms algorithm=sliding"), 0);
    wait_until(get(h.port, "/x", NULL) == 200, 5000);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_strangers_say_of_their_address_counts_for_nothing),
        cmocka_unit_test(of_a_thousand_hops_the_last_stranger_counts),
        cmocka_unit_test(a_key_that_is_longer_than_any_honest_one_is_the_client),
        cmocka_unit_test(a_token_that_is_none_names_nobody),
        cmocka_unit_test(limits_at_the_edges_of_what_can_be_said),
    };
    return run_with_backend(tests, &backend, answers);
}

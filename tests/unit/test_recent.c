/* SPDX-License-Identifier: BSD-2-Clause */
/* The last requests and events: numbers, bounds, what may be shown, and writers that die. */
#include "polder/recent.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others: it wants them */
#include <cmocka.h>

static struct recent_page *page;

static int set_up(void **state)
{
    (void)state;
    page =
        mmap(NULL, recent_page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    munmap(page, recent_page_size());
    return 0;
}

static struct str text(const char *s)
{
    return (struct str){s, strlen(s)};
}

/* ---- what may be shown ---- */

static void values_of_queries_are_masked(void **state)
{
    (void)state;
    static const struct {
        const char *target, *shown;
    } cases[] = {
        {"/", "/"},
        {"", ""},
        {"/items?page=2&token=s3cret", "/items?page=*&token=*"},
        {"/items?s3cret", "/items?*"},
        {"/items?a=1&s3cret&b=", "/items?a=*&*&b=*"},
        {"/items?a==s3cret&&", "/items?a=*&*"},
        {"/items?", "/items?"},
        {"/a?b=c?d=e", "/a?b=*"},
        {"/\x1b[2J\xc3\xa9\x7f", "/?[2J???"},
        {"*", "*"},
        {"/a;jsessionid=s3cret?b=s3cret", "/a;jsessionid=*?b=*"},
        {"/a/;v=1;t=s3cret/b;s3cret/c;/d", "/a/;v=*;t=*/b;*/c;/d"},
        {"/a%3ft=s3cret&s3cret", "/a%3Ft=*&*"},
        {"/a%3", "/a%3"},
        {"http://me:s3cret@h/a@b?c=s3cret", "http://*@h/a@b?c=*"},
        {"me:s3cret@h:80", "*@h:80"},
        {"http://h/a@b", "http://h/a@b"},
        {"/http://me@h/", "/http://me@h/"},
        {"/?1=&2=&3=&4=&5=&6=&7=&8=&9=&a=&b=&c=&d=&e=&f=&g=&h=s3cret",
         "/?1=*&2=*&3=*&4=*&5=*&6=*&7=*&8=*&9=*&a=*&b=*&c=*&d=*&e=*&f=*&g=*..."},
    };
    char out[160];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        recent_mask_target(out, sizeof out, text(cases[i].target));
        assert_string_equal(out, cases[i].shown);
    }
    char longer[400];
    memset(longer, 'x', sizeof longer);
    longer[0] = '/';
    recent_mask_target(out, sizeof out, (struct str){longer, sizeof longer});
    assert_int_equal(strlen(out), sizeof out - 1);
    assert_string_equal(out + sizeof out - 5, "x...");
}

static void of_a_key_at_most_half_is_shown(void **state)
{
    (void)state;
    static const struct {
        const char *key, *shown;
    } cases[] = {{"abcdefghijkl", "abcd~00000007"},
                 {"abcdef", "abc~00000007"},
                 {"a", "~00000007"},
                 {"", "~00000007"},
                 {"\x1b\x1b\x1b\x1b\x1b\x1b\x1b\x1b", "????~00000007"}};
    char out[16];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        recent_mask_key(out, sizeof out, text(cases[i].key), 7);
        assert_string_equal(out, cases[i].shown);
    }
}

/* ---- who watches, and how much is recorded ---- */

static void requests_are_recorded_while_somebody_asks(void **state)
{
    (void)state;
    assert_false(recent_is_watched(page, 1000));
    recent_watch(page, 1000);
    assert_true(recent_is_watched(page, 1000));
    assert_true(recent_is_watched(page, 999 + RECENT_WATCHED_MS));
    assert_false(recent_is_watched(page, 1000 + RECENT_WATCHED_MS));
}

static void a_flood_is_sampled_and_the_rest_is_stood_for(void **state)
{
    (void)state;
    struct recent_sampler s = {0};
    uint64_t recorded = 0, stood_for = 0;
    uint32_t n;
    for (uint64_t i = 0; i < 1000000; i++) /* in ten seconds */
        if (recent_due(&s, 100000 + i / 100, &n)) {
            recorded++;
            stood_for += n;
        }
    assert_in_range(recorded, 1000, 10000 / RECENT_SLICE_MS * RECENT_A_SLICE + 2 * RECENT_A_SLICE);
    assert_in_range(stood_for, 1000000 - 100 * RECENT_SLICE_MS, 1000000);
}

/* ---- the rings ---- */

static void put_event(unsigned n)
{
    struct recent_event e = {.real_ms = n, .noun = "cache", .count = 1};
    recent_put_event(page, &e);
}

static void readers_go_on_where_they_were(void **state)
{
    (void)state;
    struct recent_event out[RECENT_EVENTS + 1];
    uint64_t from = 0, lost;
    assert_int_equal(recent_read_events(page, &from, out, 8, &lost), 0);
    for (unsigned i = 0; i < 5; i++)
        put_event(100 + i);
    assert_int_equal(recent_read_events(page, &from, out, 3, &lost), 3);
    assert_int_equal(from, 3);
    assert_int_equal(out[2].real_ms, 102);
    assert_int_equal(out[2].number, 2);
    assert_int_equal(recent_read_events(page, &from, out, 8, &lost), 2);
    assert_int_equal(recent_read_events(page, &from, out, 8, &lost), 0);
    assert_int_equal(from, 5);
    assert_int_equal(from, recent_events_next(page));

    for (unsigned i = 0; i < 3 * RECENT_EVENTS; i++)
        put_event(i);
    assert_int_equal(recent_read_events(page, &from, out, RECENT_EVENTS + 1, &lost), RECENT_EVENTS);
    assert_int_equal(lost, 2 * RECENT_EVENTS);
    assert_int_equal(out[RECENT_EVENTS - 1].real_ms, 3 * RECENT_EVENTS - 1);

    from = UINT64_MAX; /* of an earlier start: begin with the oldest */
    assert_int_equal(recent_read_events(page, &from, out, RECENT_EVENTS + 1, &lost), RECENT_EVENTS);
    recent_put_event(NULL, out);
}

static void what_is_not_whole_is_skipped(void **state)
{
    (void)state;
    struct recent_event out[8];
    uint64_t from = 0, lost;
    for (unsigned i = 0; i < 3; i++)
        put_event(i);
    /* as a writer leaves it that was killed, or slept while the ring went round */
    char *bytes = (char *)page;
    const char mark[] = "torn-torn";
    struct recent_event torn = {.noun = "cache"};
    memcpy(torn.subject, mark, sizeof mark);
    recent_put_event(page, &torn);
    char *at = memmem(bytes, recent_page_size(), mark, sizeof mark);
    assert_non_null(at);
    at[2] = 'X';
    put_event(4);
    assert_int_equal(recent_read_events(page, &from, out, 8, &lost), 4);
    assert_int_equal(lost, 1);
    assert_int_equal(out[3].number, 4);
    assert_int_equal(from, 5);
}

/* Writes records in which every byte follows from the first, until it is killed. */
static void write_for_ever(unsigned seed)
{
    struct recent_request q;
    for (uint64_t i = 0;; i++) {
        memset(&q, 0, sizeof q);
        q.us = (uint64_t)seed << 32 | i;
        memset(q.target, 'a' + (int)((seed + i) % 26), sizeof q.target - 1);
        memset(q.detail, q.target[0], sizeof q.detail - 1);
        recent_put_request(page, &q);
    }
}

static bool is_consistent(const struct recent_request *q)
{
    const char c = (char)('a' + (int)((uint32_t)((q->us >> 32) + (q->us & UINT32_MAX)) % 26));
    for (size_t i = 0; i < sizeof q->target - 1; i++)
        if (q->target[i] != c)
            return false;
    return q->detail[0] == c && q->detail[sizeof q->detail - 2] == c;
}

static void writers_that_are_killed_leave_nothing_that_is_torn(void **state)
{
    (void)state;
    pid_t pid[3];
    struct recent_request *out = calloc(RECENT_REQUESTS, sizeof *out);
    uint64_t read = 0, from = 0;
    unsigned seed = 0, deaths = 0;
    for (unsigned i = 0; i < 3; i++)
        if (!(pid[i] = fork()))
            write_for_ever(++seed);
        else
            seed++;
    while (deaths < 60 || read < 100000) {
        const size_t n = recent_read_requests(page, &from, out, RECENT_REQUESTS, NULL);
        for (size_t i = 0; i < n; i++)
            assert_true(is_consistent(&out[i]));
        read += n;
        const unsigned victim = deaths++ % 3;
        kill(pid[victim], SIGKILL);
        waitpid(pid[victim], NULL, 0);
        if (!(pid[victim] = fork()))
            write_for_ever(++seed);
        seed++;
    }
    for (unsigned i = 0; i < 3; i++) {
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
    }
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_queries_are_masked),
        cmocka_unit_test(of_a_key_at_most_half_is_shown),
        cmocka_unit_test_setup_teardown(requests_are_recorded_while_somebody_asks, set_up,
                                        tear_down),
        cmocka_unit_test(a_flood_is_sampled_and_the_rest_is_stood_for),
        cmocka_unit_test_setup_teardown(readers_go_on_where_they_were, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_not_whole_is_skipped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(writers_that_are_killed_leave_nothing_that_is_torn, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

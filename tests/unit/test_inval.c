/* SPDX-License-Identifier: BSD-2-Clause */
/* The invalidation page: what it says about an object, and what deaths of writers leave. */
#include "inval_rig.h"
#include "polder/inval.h"
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct object {
    uint64_t fetch_seq;
    const char *url;
    const char *tags[3];
};

static enum inval_state state_of(const struct object *o)
{
    uint32_t tags[3];
    size_t n = 0;
    for (; n < 3 && o->tags[n]; n++)
        tags[n] = inval_tag_slot(page, o->tags[n], strlen(o->tags[n]));
    return inval_check(page, o->fetch_seq, inval_url_slot(page, o->url, strlen(o->url)), tags, n,
                       o->url, strlen(o->url));
}

static struct object object(const char *url, const char *tag, const char *other)
{
    return (struct object){inval_seq(page), url, {tag, other, NULL}};
}

static void mark_prefix(const char *prefix, bool soft, uint64_t *seq)
{
    assert_int_equal(inval_mark_prefix(page, prefix, strlen(prefix), soft, seq), 0);
}

static void only_what_was_meant_is_invalid(void **state)
{
    (void)state;
    struct object a = object("h/a", "red", "green"), b = object("h/b", "blue", NULL);
    assert_int_equal(state_of(&a), INVAL_VALID);
    inval_mark_url(page, "h/a", 3, false);
    assert_int_equal(state_of(&a), INVAL_HARD);
    assert_int_equal(state_of(&b), INVAL_VALID);
    a = object("h/a", "red", "green");
    inval_mark_tag(page, "green", 5, false);
    assert_int_equal(state_of(&a), INVAL_HARD);
    assert_int_equal(state_of(&b), INVAL_VALID);
    inval_mark_all(page, false);
    assert_int_equal(state_of(&b), INVAL_HARD);
}

/* An origin whose number is not `taken`: some share one. */
static uint32_t origin_but(uint32_t taken)
{
    char name[16];
    uint32_t origin;
    unsigned i = 0;
    do {
        assert_in_range(i, 0, 99);
        const int n = snprintf(name, sizeof name, "http://h%u", i++);
        origin = inval_origin(page, name, (size_t)n);
        assert_int_equal(inval_slot_alone(origin), 0);
        assert_int_not_equal(origin, 0);
    } while (origin == taken);
    return origin;
}

static enum inval_state state_of_tags(uint64_t fetch_seq, const uint32_t *tags, size_t n)
{
    return inval_check(page, fetch_seq, 0, tags, n, "h/x", 3);
}

static void a_group_is_marked_for_one_origin_and_a_tag_for_all(void **state)
{
    (void)state;
    const uint32_t a = origin_but(0), b = origin_but(a), red = inval_tag_slot(page, "red", 3);
    const uint32_t of_a[2] = {inval_tag_slot(page, "blue", 4) | a, red | a}, of_b = red | b;
    uint64_t fetch_seq = inval_seq(page);
    inval_mark_group(page, a, "Red", 3);
    assert_int_equal(state_of_tags(fetch_seq, of_a, 2), INVAL_VALID);
    inval_mark_group(page, a, "red", 3);
    assert_int_equal(state_of_tags(fetch_seq, of_a, 2), INVAL_HARD);
    assert_int_equal(state_of_tags(fetch_seq, &of_b, 1), INVAL_VALID);
    assert_int_equal(state_of_tags(fetch_seq, &red, 1), INVAL_VALID); /* of no origin */
    fetch_seq = inval_seq(page);
    assert_int_equal(state_of_tags(fetch_seq, of_a, 2), INVAL_VALID);
    inval_mark_tag(page, "red", 3, true);
    assert_int_equal(state_of_tags(fetch_seq, of_a, 2), INVAL_SOFT);
    assert_int_equal(state_of_tags(fetch_seq, &of_b, 1), INVAL_SOFT);
    inval_mark_tag(page, "red", 3, false);
    assert_int_equal(state_of_tags(fetch_seq, of_a, 2), INVAL_HARD);
    assert_int_equal(state_of_tags(fetch_seq, &of_b, 1), INVAL_HARD);
    assert_int_equal(state_of_tags(fetch_seq, &red, 1), INVAL_HARD);
}

static void origins_are_spread_over_their_numbers(void **state)
{
    (void)state;
    static bool seen[4096];
    unsigned numbers = 0;
    for (unsigned i = 0; i < 4096; i++) {
        char name[32];
        const int n = snprintf(name, sizeof name, "https://shop-%u.example", i);
        const uint32_t number = inval_origin(page, name, (size_t)n) >> 20;
        numbers += !seen[number];
        seen[number] = true;
    }
    assert_in_range(numbers, 2400, 2800); /* 4095 * (1 - 1/e) = 2588 */
}

static void a_path_is_marked_on_every_host(void **state)
{
    (void)state;
    const struct object one = object("h/a?q", NULL, NULL), other = object("g/a?q", NULL, NULL),
                        longer = object("h/a?qq", NULL, NULL), bare = object("h/a", NULL, NULL);
    inval_mark_path(page, "/a?q", 4, true);
    assert_int_equal(state_of(&one), INVAL_SOFT);
    inval_mark_path(page, "/a?q", 4, false);
    assert_int_equal(state_of(&one), INVAL_HARD);
    assert_int_equal(state_of(&other), INVAL_HARD);
    assert_int_equal(state_of(&longer), INVAL_VALID);
    assert_int_equal(state_of(&bare), INVAL_VALID);
    const struct object after = object("h/a?q", NULL, NULL);
    assert_int_equal(state_of(&after), INVAL_VALID);
}

static void soft_ends_freshness_and_hard_wins(void **state)
{
    (void)state;
    uint64_t seq;
    struct object a = object("h/a", "red", NULL);
    inval_mark_tag(page, "red", 3, true);
    assert_int_equal(state_of(&a), INVAL_SOFT);
    inval_mark_url(page, "h/a", 3, false);
    assert_int_equal(state_of(&a), INVAL_HARD);
    a = object("h/a", "red", NULL);
    assert_int_equal(state_of(&a), INVAL_VALID);
    mark_prefix("h/", true, &seq);
    assert_int_equal(state_of(&a), INVAL_SOFT);
    inval_mark_all(page, false);
    assert_int_equal(state_of(&a), INVAL_HARD);
    inval_retire_prefix(page, seq);
}

static void a_fetch_that_began_before_is_invalid_and_one_that_began_after_is_not(void **state)
{
    (void)state;
    struct object before = object("h/x", NULL, NULL);
    inval_mark_url(page, "h/x", 3, false);
    struct object after = object("h/x", NULL, NULL);
    assert_int_equal(state_of(&before), INVAL_HARD);
    assert_int_equal(state_of(&after), INVAL_VALID);
}

static void prefixes_match_with_a_host_or_for_all_hosts(void **state)
{
    (void)state;
    uint64_t one, two;
    struct object a = object("h/api/1", NULL, NULL), b = object("other/api/1", NULL, NULL),
                  c = object("h/ap", NULL, NULL);
    mark_prefix("h/api/", false, &one);
    assert_int_equal(state_of(&a), INVAL_HARD);
    assert_int_equal(state_of(&b), INVAL_VALID);
    mark_prefix("/api/", false, &two);
    assert_int_equal(state_of(&b), INVAL_HARD);
    assert_int_equal(state_of(&c), INVAL_VALID);
    inval_retire_prefix(page, one);
    inval_retire_prefix(page, two);
    assert_int_equal(state_of(&a), INVAL_VALID); /* the keeper deletes before it retires */
    assert_int_equal(inval_ban_floor(page), two);
    struct object late = object("h/ap", NULL, NULL);
    assert_true(late.fetch_seq >= inval_ban_floor(page));
    assert_true(a.fetch_seq < inval_ban_floor(page));
}

static void a_copy_held_while_a_ban_came_and_went_is_not_trusted(void **state)
{
    (void)state;
    uint64_t seq;
    const struct object a = object("h/a", NULL, NULL);
    const uint32_t slot = inval_url_slot(page, "h/a", 3);
    mark_prefix("h/b", false, &seq);
    inval_retire_prefix(page, seq);
    const uint64_t since = inval_seq(page); /* the copy is taken now */
    assert_int_equal(inval_check_held(page, a.fetch_seq, since, slot, NULL, 0, a.url, 3),
                     INVAL_VALID);
    mark_prefix("h/a", false, &seq);
    assert_int_equal(inval_check_held(page, a.fetch_seq, since, slot, NULL, 0, a.url, 3),
                     INVAL_HARD);
    inval_retire_prefix(page, seq);
    assert_int_equal(inval_check_held(page, a.fetch_seq, since, slot, NULL, 0, a.url, 3),
                     INVAL_HARD);
}

static void bans_are_bounded_and_their_slots_are_used_again(void **state)
{
    (void)state;
    uint64_t seq[INVAL_BANS], one;
    char long_prefix[INVAL_PREFIX_MAX + 1];
    memset(long_prefix, 'p', sizeof long_prefix);
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        char prefix[16];
        snprintf(prefix, sizeof prefix, "h/%u/", i);
        mark_prefix(prefix, false, &seq[i]);
    }
    assert_int_equal(inval_mark_prefix(page, "h/", 2, false, &one), -EAGAIN);
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        struct inval_ban ban;
        assert_true(inval_ban_read(page, i, &ban));
        inval_retire_prefix(page, seq[i]);
        assert_false(inval_ban_read(page, i, &ban));
    }
    assert_int_equal(inval_mark_prefix(page, long_prefix, sizeof long_prefix, false, &one),
                     -ENAMETOOLONG);
    assert_int_equal(inval_mark_prefix(page, long_prefix, sizeof long_prefix - 1, false, &one), 0);
    inval_retire_prefix(page, one);
    struct object a = object("h/7/x", NULL, NULL);
    assert_int_equal(inval_mark_prefix(page, "", 0, false, &one), 0); /* everything */
    assert_int_equal(state_of(&a), INVAL_HARD);
}

/* As the keeper does: what is active is retired. */
static void retire_all(void)
{
    struct inval_ban ban;
    for (unsigned i = 0; i < INVAL_BANS; i++)
        if (inval_ban_read(page, i, &ban))
            inval_retire_prefix(page, ban.seq);
}

static void deaths_of_writers_cost_no_slot_and_no_mark(void **state)
{
    (void)state;
    uint64_t seq;
    for (unsigned i = 0; i < 300; i++) {
        const pid_t pid = fork();
        if (pid == 0)
            for (;;) {
                uint64_t mine;
                inval_mark_tag(page, "tag", 3, false);
                if (inval_mark_prefix(page, "h/dying/", 8, false, &mine) == 0)
                    inval_retire_prefix(page, mine);
            }
        usleep(300 + i * 37 % 700);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        struct object a = object("h/live/1", "tag", NULL);
        mark_prefix("h/live/", false, &seq);
        assert_int_equal(state_of(&a), INVAL_HARD);
        retire_all();
        a = object("h/live/1", "tag", NULL);
        assert_int_equal(state_of(&a), INVAL_VALID);
        inval_mark_tag(page, "tag", 3, false);
        assert_int_equal(state_of(&a), INVAL_HARD);
    }
    for (unsigned i = 0; i < INVAL_BANS; i++) /* not one slot was lost */
        mark_prefix("h/all/", false, &seq);
    struct object late = object("h/all/1", NULL, NULL);
    assert_int_equal(state_of(&late), INVAL_VALID);
    late.fetch_seq--;
    assert_int_equal(state_of(&late), INVAL_HARD);
}

static void many_writers_lose_no_mark(void **state)
{
    (void)state;
    pid_t pid[4];
    for (unsigned w = 0; w < 4; w++)
        if ((pid[w] = fork()) == 0) {
            for (unsigned i = 0; i < 20000; i++) {
                char tag[16];
                const int n = snprintf(tag, sizeof tag, "t%u", i % 50);
                const struct object o = {inval_seq(page), "h/w", {tag, NULL, NULL}};
                inval_mark_tag(page, tag, (size_t)n, false);
                if (state_of(&o) != INVAL_HARD)
                    _exit(1);
            }
            _exit(0);
        }
    for (unsigned w = 0; w < 4; w++) {
        int status;
        waitpid(pid[w], &status, 0);
        assert_int_equal(status, 0);
    }
    uint64_t seq;
    assert_true(inval_settled(page, &seq));
    assert_int_equal(seq, 1 + 4 * 20000);
}

static unsigned explain(const struct object *o, struct inval_cause *out)
{
    uint32_t tags[3];
    size_t n = 0;
    for (; n < 3 && o->tags[n]; n++)
        tags[n] = inval_tag_slot(page, o->tags[n], strlen(o->tags[n]));
    return inval_explain(page, o->fetch_seq, inval_url_slot(page, o->url, strlen(o->url)), tags, n,
                         o->url, strlen(o->url), out);
}

static void each_cause_is_named_with_its_time(void **state)
{
    (void)state;
    struct inval_cause c[INVAL_CAUSES_MAX];
    struct object o = object("h/a/1", "red", "green");
    uint64_t seq[6];
    assert_int_equal(explain(&o, c), 0);
    inval_mark_tag(page, "blue", 4, false); /* not ours */
    assert_int_equal(explain(&o, c), 0);
    seq[0] = inval_mark_tag(page, "green", 5, true);
    mark_prefix("h/a/", false, &seq[1]);
    seq[2] = inval_mark_url(page, "h/a/1", 5, false);
    seq[3] = inval_mark_path(page, "/a/1", 4, false);
    seq[4] = inval_mark_all(page, true);
    mark_prefix("/a", true, &seq[5]);
    assert_int_equal(explain(&o, c), 6);
    static const enum inval_by by[] = {INVAL_BY_URL, INVAL_BY_PATH, INVAL_BY_PREFIX,
                                       INVAL_BY_ALL, INVAL_BY_TAG,  INVAL_BY_PREFIX};
    static const unsigned which[] = {2, 3, 1, 4, 0, 5};
    const uint64_t now_s = (uint64_t)time(NULL);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(c[i].by, by[i]);
        assert_int_equal(c[i].soft, i >= 3);
        assert_int_equal(c[i].seq, seq[which[i]]);
        assert_in_range(c[i].when_s, now_s - 5, now_s + 1);
    }
    assert_int_equal(c[4].tag, 1);
    assert_int_equal(c[2].len, 4);
    assert_memory_equal(c[2].prefix, "h/a/", 4);
    o.fetch_seq = seq[4];
    assert_int_equal(explain(&o, c), 1);
    for (unsigned i = 0; i < 5000; i++) /* then nobody knows when that was */
        inval_mark_tag(page, "other", 5, false);
    assert_int_equal(explain(&o, c), 1);
    assert_int_equal(c[0].when_s, 0);
}

static void a_group_and_a_tag_of_its_name_are_two_causes(void **state)
{
    (void)state;
    struct inval_cause c[INVAL_CAUSES_MAX];
    const uint32_t a = origin_but(0), b = origin_but(a);
    const uint32_t tags[2] = {inval_tag_slot(page, "blue", 4) | a,
                              inval_tag_slot(page, "red", 3) | a};
    const uint64_t fetch_seq = inval_seq(page);
    inval_mark_group(page, b, "red", 3);
    assert_int_equal(inval_explain(page, fetch_seq, 0, tags, 2, "h/x", 3, c), 0);
    inval_mark_tag(page, "red", 3, true);
    const uint64_t seq = inval_mark_group(page, a, "red", 3);
    assert_int_equal(inval_explain(page, fetch_seq, 0, tags, 2, "h/x", 3, c), 2);
    assert_int_equal(c[0].by, INVAL_BY_GROUP);
    assert_int_equal(c[0].tag, 1);
    assert_int_equal(c[0].seq, seq);
    assert_false(c[0].soft);
    assert_int_equal(c[1].by, INVAL_BY_TAG);
    assert_true(c[1].soft);
}

static void causes_are_bounded(void **state)
{
    (void)state;
    struct inval_cause c[INVAL_CAUSES_MAX];
    uint64_t seq;
    const struct object o = object("h/a/1", NULL, NULL);
    for (unsigned i = 0; i < INVAL_BANS; i++)
        mark_prefix("h/a/", i % 2, &seq);
    assert_int_equal(explain(&o, c), INVAL_CAUSES_MAX);
}

static void secrets_differ_from_page_to_page(void **state)
{
    (void)state;
    uint8_t uuid[16], secret[32];
    memcpy(uuid, inval_uuid(page), sizeof uuid);
    memcpy(secret, inval_secret(page), sizeof secret);
    tear_down(NULL);
    set_up(NULL);
    assert_memory_not_equal(uuid, inval_uuid(page), sizeof uuid);
    assert_memory_not_equal(secret, inval_secret(page), sizeof secret);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(only_what_was_meant_is_invalid),
        TEST(a_group_is_marked_for_one_origin_and_a_tag_for_all),
        TEST(origins_are_spread_over_their_numbers),
        TEST(a_path_is_marked_on_every_host),
        TEST(soft_ends_freshness_and_hard_wins),
        TEST(a_fetch_that_began_before_is_invalid_and_one_that_began_after_is_not),
        TEST(prefixes_match_with_a_host_or_for_all_hosts),
        TEST(a_copy_held_while_a_ban_came_and_went_is_not_trusted),
        TEST(bans_are_bounded_and_their_slots_are_used_again),
        TEST(deaths_of_writers_cost_no_slot_and_no_mark),
        TEST(many_writers_lose_no_mark),
        TEST(each_cause_is_named_with_its_time),
        TEST(a_group_and_a_tag_of_its_name_are_two_causes),
        TEST(causes_are_bounded),
        TEST(secrets_differ_from_page_to_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

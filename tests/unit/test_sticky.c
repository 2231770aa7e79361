/* SPDX-License-Identifier: BSD-2-Clause */
/* sticky: which part of keys a server gets, which of them move when weights change, and sessions
 * that are remembered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "polder/sticky.h"

enum { KEYS = 1000 };
static const uint64_t ids[3] = {UINT64_C(0x1234567890abcdef), UINT64_C(0xfedcba0987654321),
                                UINT64_C(0x0f1e2d3c4b5a6978)};

static uint64_t key_of(unsigned i)
{
    char text[32];
    const int n = snprintf(text, sizeof text, "198.51.%u.%u", i / 250, i % 250);
    return sticky_hash(text, (size_t)n);
}

static int server_of(unsigned key, const uint32_t weight[3])
{
    int best = -1;
    double lowest = 0;
    for (int i = 0; i < 3; i++) {
        const double score = weight[i] ? sticky_score(key_of(key), ids[i], weight[i]) : 0;
        if (weight[i] && (best < 0 || score < lowest)) {
            best = i;
            lowest = score;
        }
    }
    return best;
}

static unsigned share_of(int server, const uint32_t weight[3])
{
    unsigned n = 0;
    for (unsigned i = 0; i < KEYS; i++)
        n += server_of(i, weight) == server;
    return n;
}

static void shares_of_clients_follow_the_weights(void **state)
{
    static const uint32_t tenth[] = {90, 10, 0}, half[] = {50, 50, 0}, all[] = {0, 1, 0};
    (void)state;
    assert_in_range(share_of(1, tenth), 80, 120);
    assert_in_range(share_of(1, half), 450, 550);
    assert_int_equal(share_of(1, all), KEYS);
}

static void only_those_move_that_have_to(void **state)
{
    static const uint32_t steps[][3] = {
        {200, 0, 100}, {180, 30, 90}, {100, 150, 50}, {0, 300, 0}, {200, 0, 100}};
    (void)state;
    for (unsigned s = 0; s + 2 < sizeof steps / sizeof *steps; s++) {
        unsigned moved = 0;
        for (unsigned i = 0; i < KEYS; i++) {
            const int before = server_of(i, steps[s]), after = server_of(i, steps[s + 1]);
            if (before != after)
                assert_int_equal(after, 1); /* to the new one alone */
            moved += before != after;
        }
        assert_int_equal(moved, share_of(1, steps[s + 1]) - share_of(1, steps[s]));
    }
    for (unsigned i = 0; i < KEYS; i++) /* back: to where they came from */
        assert_int_equal(server_of(i, steps[4]), server_of(i, steps[0]));
}

static void cookies_are_read_as_written(void **state)
{
    static const char *const wrong[] = {"",
                                        "0123456789abcde",
                                        "0123456789abcdef0",
                                        "0123456789abcdeF",
                                        "0123456789abcde-",
                                        "0000000000000000"};
    char text[STICKY_VALUE];
    uint64_t back;
    (void)state;
    sticky_value_write(UINT64_C(0x0123456789abcdef), text);
    assert_memory_equal(text, "0123456789abcdef", STICKY_VALUE);
    assert_true(sticky_value_read(text, sizeof text, &back));
    assert_int_equal(back, UINT64_C(0x0123456789abcdef));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(sticky_value_read(wrong[i], strlen(wrong[i]), &back));
}

/* ---- sessions ---- */

#define MINUTE UINT64_C(60000)

static int page_new(void **state)
{
    *state = aligned_alloc(64, (sticky_page_size() + 63) / 64 * 64);
    memset(*state, 0, sticky_page_size());
    return 0;
}

static int page_free(void **state)
{
    free(*state);
    return 0;
}

static void a_session_is_known_until_it_is_idle_for_long(void **state)
{
    uint64_t now_ms = UINT64_C(1800000000000);
    assert_int_equal(sticky_recall(*state, key_of(1), now_ms), 0);
    sticky_remember(*state, key_of(1), ids[0], now_ms);
    assert_int_equal(sticky_recall(*state, key_of(1), now_ms), sticky_server_part(ids[0]));
    assert_int_equal(sticky_recall(*state, key_of(2), now_ms), 0);
    sticky_remember(*state, key_of(1), ids[1], now_ms); /* it has moved */
    assert_int_equal(sticky_recall(*state, key_of(1), now_ms), sticky_server_part(ids[1]));
    now_ms += STICKY_IDLE_MIN * MINUTE; /* a use each day keeps it */
    assert_int_equal(sticky_recall(*state, key_of(1), now_ms), sticky_server_part(ids[1]));
    now_ms += STICKY_IDLE_MIN * MINUTE;
    assert_int_equal(sticky_recall(*state, key_of(1), now_ms), sticky_server_part(ids[1]));
    now_ms += (STICKY_IDLE_MIN + 1) * MINUTE;
    assert_int_equal(sticky_recall(*state, key_of(1), now_ms), 0);
}

static void too_many_sessions_forget_the_oldest(void **state)
{
    const uint64_t now_ms = UINT64_C(1800000000000);
    unsigned known = 0;
    for (unsigned i = 0; i < 200000; i++) {
        const uint64_t hash = sticky_hash(&i, sizeof i);
        sticky_remember(*state, hash, ids[i % 3], now_ms + i * 20);
        assert_int_equal(sticky_recall(*state, hash, now_ms + i * 20),
                         sticky_server_part(ids[i % 3]));
    }
    for (unsigned i = 190000; i < 200000; i++) {
        const uint64_t hash = sticky_hash(&i, sizeof i);
        known += sticky_recall(*state, hash, now_ms + UINT64_C(4000000)) ==
                 sticky_server_part(ids[i % 3]);
    }
    assert_in_range(known, 9900, 10000); /* the youngest are there */
}

/* ---- keys with too many requests ---- */

static void one_key_with_a_third_of_the_traffic_is_seen(void **state)
{
    static struct sticky_counts counts;
    (void)state;
    assert_int_equal(sticky_top_percent(&counts, "app"), 0);
    for (unsigned i = 0; i < 3000; i++)
        sticky_count(&counts, "app", key_of(i % 3 ? i : 0));
    for (unsigned i = 0; i < 50; i++)
        sticky_count(&counts, "few", key_of(0));
    for (unsigned i = 0; i < 3000; i++)
        sticky_count(&counts, "even", key_of(i));
    assert_int_equal(sticky_top_percent(&counts, "app"), 0);
    sticky_counts_turn(&counts);
    assert_in_range(sticky_top_percent(&counts, "app"), 33, 35);
    assert_int_equal(sticky_top_percent(&counts, "few"), 0);
    assert_in_range(sticky_top_percent(&counts, "even"), 0, 5);
    sticky_counts_turn(&counts);
    assert_int_equal(sticky_top_percent(&counts, "app"), 0);
    for (unsigned i = 0; i < 100; i++) { /* more upstreams than there is room for */
        char name[16];
        snprintf(name, sizeof name, "u%u", i);
        sticky_count(&counts, name, 1);
    }
    for (int i = 0; i < 2; i++) /* those without requests make room */
        sticky_counts_turn(&counts);
    for (unsigned i = 0; i < STICKY_TOP_MIN; i++)
        sticky_count(&counts, "new", 1);
    sticky_counts_turn(&counts);
    assert_int_equal(sticky_top_percent(&counts, "new"), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_of_clients_follow_the_weights),
        cmocka_unit_test(only_those_move_that_have_to),
        cmocka_unit_test(cookies_are_read_as_written),
        cmocka_unit_test_setup_teardown(a_session_is_known_until_it_is_idle_for_long, page_new,
                                        page_free),
        cmocka_unit_test_setup_teardown(too_many_sessions_forget_the_oldest, page_new, page_free),
        cmocka_unit_test(one_key_with_a_third_of_the_traffic_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Which entries are worth a refresh, from when on, and how reads are counted in a byte. */
#include "polder/refresh.h"
#include "polder/access_bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct cache_record lives(uint64_t received_ms, uint64_t life_ms)
{
    struct cache_record r = {0};
    r.obj_id = 1;
    r.received_ms = received_ms;
    r.fresh_until_ms = received_ms + life_ms;
    r.fetch_ns = 1000000;
    return r;
}

static void due_times_lie_in_the_last_seventh_and_apart(void **state)
{
    (void)state;
    struct cache_record r = lives(1000000, 100000);
    unsigned seen = 0;
    for (r.obj_id = 1; r.obj_id < 200; r.obj_id++) {
        const uint64_t from = refresh_from_ms(&r), left = r.fresh_until_ms - from;
        assert_in_range(left, 5000, 14000);
        assert_int_equal(from, refresh_from_ms(&r));
        seen |= 1u << left / 1000;
    }
    assert_int_equal(seen, 0x7fe0); /* 5 to 14, all of them */
}

static void what_cannot_be_kept_fresh_is_never_due(void **state)
{
    (void)state;
    static const uint32_t flags[] = {CACHE_FROM_POST, CACHE_NO_CACHE, CACHE_VARY_RECORD};
    struct cache_record r = lives(1000000, 999);
    assert_true(refresh_from_ms(&r) == UINT64_MAX);
    r = lives(1000000, 0);
    r.fresh_until_ms = 5; /* stale before it came */
    assert_true(refresh_from_ms(&r) == UINT64_MAX);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        r = lives(1000000, 60000);
        assert_true(refresh_from_ms(&r) < r.fresh_until_ms);
        r.flags = flags[i];
        assert_true(refresh_from_ms(&r) == UINT64_MAX);
    }
    r = lives(1000000, UINT64_MAX - 1000000); /* for ever */
    assert_true(refresh_from_ms(&r) > UINT64_MAX / 2);
}

static void value_is_reads_times_cost(void **state)
{
    (void)state;
    struct cache_record slow = lives(0, 1000), fast = lives(0, 1000);
    slow.fetch_ns = 500000000;
    fast.fetch_ns = 5000000;
    assert_true(refresh_value_ns(&slow, 3) > refresh_value_ns(&fast, 200));
    assert_true(refresh_value_ns(&slow, 3) < refresh_value_ns(&fast, 400));
    fast.fetch_ns = 0; /* not measured: reads still count */
    assert_true(refresh_value_ns(&fast, 3) < refresh_value_ns(&fast, 4));
    slow.fetch_ns = UINT64_MAX;
    assert_true(refresh_value_ns(&slow, 1000000) == UINT64_MAX);
}

static void reads_are_counted_to_a_third_or_so(void **state)
{
    (void)state;
    uint64_t chance = 1;
    for (unsigned wanted = 1; wanted <= 100000; wanted *= 10) {
        double sum = 0;
        for (int round = 0; round < 200; round++) {
            _Atomic uint8_t byte = 0;
            for (unsigned i = 0; i < wanted; i++) {
                chance = chance * UINT64_C(0x5851f42d4c957f2d) + 1;
                access_bits_touch(&byte, (uint32_t)(chance >> 32));
            }
            sum += (double)access_bits_reads(byte);
            assert_int_equal(access_bits_used(byte), wanted < 3 ? wanted : 3);
        }
        const double mean = sum / 200;
        if (mean < wanted * 0.85 || mean > wanted * 1.15)
            fail_msg("%u reads were counted as %f", wanted, mean);
    }
}

static void the_hand_and_a_new_life_take_their_own_part(void **state)
{
    (void)state;
    _Atomic uint8_t byte = 0;
    for (int i = 0; i < 3; i++)
        access_bits_touch(&byte, 0);
    assert_int_equal(access_bits_used(byte), 3);
    const uint64_t reads = access_bits_reads(byte);
    assert_in_range(reads, 2, 5);
    access_bits_forget_used(&byte);
    assert_int_equal(access_bits_used(byte), 0);
    assert_int_equal(access_bits_reads(byte), reads);
    access_bits_begin(&byte, 2);
    assert_int_equal(access_bits_used(byte), 2);
    assert_int_equal(access_bits_reads(byte), 0);
    for (int i = 0; i < 1000; i++)
        access_bits_touch(&byte, 0);
    assert_int_equal(byte, 0xff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(due_times_lie_in_the_last_seventh_and_apart),
        cmocka_unit_test(what_cannot_be_kept_fresh_is_never_due),
        cmocka_unit_test(value_is_reads_times_cost),
        cmocka_unit_test(reads_are_counted_to_a_third_or_so),
        cmocka_unit_test(the_hand_and_a_new_life_take_their_own_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

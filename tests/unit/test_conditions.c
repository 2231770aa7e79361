/* SPDX-License-Identifier: BSD-2-Clause */
/* Conditions hold while their counter grows and a minute after, and are told once a minute. */
#include "daemons/control/control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* after the others: it wants them */
#include <cmocka.h>

#define T0 UINT64_C(1000000)

static void look(struct condition *x, uint64_t total, uint64_t now_ms)
{
    condition_look(CONDITION_LIMIT_TABLE_FULL, x, total, now_ms);
}

static void what_was_before_us_is_not_wrong_now(void **state)
{
    (void)state;
    struct condition x = {0};
    look(&x, 500, T0);
    assert_false(x.holds);
    look(&x, 500, T0 + 1000);
    assert_false(x.holds);
    look(&x, 501, T0 + 2000);
    assert_true(x.holds);
    assert_int_equal(x.total - x.before, 1);
}

static void it_holds_until_a_minute_has_passed_without_more(void **state)
{
    (void)state;
    struct condition x = {0};
    look(&x, 0, T0);
    for (uint64_t s = 1; s <= 200; s++) {
        look(&x, s / 50, T0 + s * 1000); /* 1 at 50 s, 2 at 100 s, 3 at 150 s, 4 at 200 s */
        assert_int_equal(x.holds, s >= 50);
    }
    assert_int_equal(x.since_ms, T0 + 50000);
    look(&x, 4, T0 + 259999);
    assert_true(x.holds);
    look(&x, 4, T0 + 260000);
    assert_false(x.holds);
    look(&x, 5, T0 + 300000);
    assert_true(x.holds);
    assert_int_equal(x.since_ms, T0 + 300000);
    assert_int_equal(x.total - x.before, 1);
}

static void the_log_is_told_at_once_and_then_once_a_minute(void **state)
{
    (void)state;
    struct condition x = {0};
    unsigned told = 0;
    look(&x, 0, T0);
    for (uint64_t s = 1; s <= 180; s++) {
        const uint64_t before_ms = x.told_ms;
        look(&x, 1000 * s, T0 + s * 1000);
        told += x.told_ms != before_ms;
        if (s == 1)
            assert_int_equal(told, 1);
    }
    assert_int_equal(told, 3);
    look(&x, 1000 * 180, T0 + 241000); /* and of the rest, when its time has come */
    assert_int_equal(x.told_total, x.total);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_before_us_is_not_wrong_now),
        cmocka_unit_test(it_holds_until_a_minute_has_passed_without_more),
        cmocka_unit_test(the_log_is_told_at_once_and_then_once_a_minute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

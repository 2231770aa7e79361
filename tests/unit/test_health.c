/* SPDX-License-Identifier: BSD-2-Clause */
/* A counter's condition holds while the counter grows and a minute after. */
#include "daemons/control/model/health.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* after the others: it wants them */
#include <cmocka.h>

#define T0 UINT64_C(1000000)

static void what_was_before_us_is_not_wrong_now(void **state)
{
    (void)state;
    struct growth g = {0};
    assert_false(growth_look(&g, 500, T0));
    assert_false(growth_look(&g, 500, T0 + 1000));
    assert_true(growth_look(&g, 501, T0 + 2000));
    assert_int_equal(g.total - g.before, 1);
}

static void it_holds_until_a_minute_has_passed_without_more(void **state)
{
    (void)state;
    struct growth g = {0};
    growth_look(&g, 0, T0);
    for (uint64_t s = 1; s <= 200; s++) /* 1 at 50 s, 2 at 100 s, 3 at 150 s, 4 at 200 s */
        assert_int_equal(growth_look(&g, s / 50, T0 + s * 1000), s >= 50);
    assert_int_equal(g.total - g.before, 4);
    assert_true(growth_look(&g, 4, T0 + 259999));
    assert_false(growth_look(&g, 4, T0 + 260000));
    assert_true(growth_look(&g, 5, T0 + 300000));
    assert_int_equal(g.total - g.before, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_before_us_is_not_wrong_now),
        cmocka_unit_test(it_holds_until_a_minute_has_passed_without_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

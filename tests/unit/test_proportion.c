/* SPDX-License-Identifier: BSD-2-Clause */
/* Which difference of error rates is taken for one, and how seldom chance is. */
#include "polder/proportion.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after the others: it wants them */
#include <cmocka.h>

static double z(uint64_t errors, uint64_t requests, uint64_t other_errors, uint64_t other_requests)
{
    const struct proportion a = {requests, errors}, b = {other_requests, other_errors};
    return proportion_z(&a, &b);
}

static void the_distance_is_that_of_the_textbook(void **state)
{
    (void)state;
    assert_true(fabs(z(20, 100, 10, 100) - 1.980295) < 1e-5);
    assert_true(fabs(z(10, 100, 20, 100) + 1.980295) < 1e-5);
    assert_true(fabs(z(50, 1000, 5, 9000) - 20.056494) < 1e-4);
}

static void sides_without_requests_or_differences_are_equal(void **state)
{
    (void)state;
    assert_true(z(0, 0, 1, 100) == 0);
    assert_true(z(1, 100, 0, 0) == 0);
    assert_true(z(0, 100, 0, 100) == 0);
    assert_true(z(100, 100, 100, 100) == 0);
    assert_true(z(200, 100, 100, 100) == 0); /* more errors than requests */
    const struct proportion none = {0, 3};
    assert_true(proportion_rate(&none) == 0);
}

static enum proportion_result look(struct proportion_trend *t, uint64_t errors, uint64_t requests,
                                   uint64_t other_errors, uint64_t other_requests)
{
    const struct proportion a = {requests, errors}, b = {other_requests, other_errors};
    return proportion_look(t, &a, &b);
}

static void worse_is_worse_twice_in_a_row(void **state)
{
    (void)state;
    struct proportion_trend t = {0};
    assert_int_equal(look(&t, 50, 99, 0, 1000), PROPORTION_TOO_FEW);
    assert_int_equal(look(&t, 50, 100, 0, 0), PROPORTION_TOO_FEW);
    assert_int_equal(look(&t, 50, 100, 0, 1000), PROPORTION_SUSPECT);
    assert_int_equal(look(&t, 50, 99, 0, 1000), PROPORTION_TOO_FEW); /* in between */
    assert_int_equal(look(&t, 50, 100, 0, 1000), PROPORTION_WORSE);
    assert_int_equal(look(&t, 50, 100, 0, 1000), PROPORTION_WORSE);
    assert_int_equal(look(&t, 0, 100, 0, 1000), PROPORTION_FINE);
    assert_int_equal(look(&t, 50, 100, 0, 1000), PROPORTION_SUSPECT);
    assert_int_equal(look(&t, 50, 100, 500, 1000), PROPORTION_FINE); /* so are the others */
    assert_int_equal(look(&t, 50, 100, 0, 1000), PROPORTION_SUSPECT);
}

static void of_few_errors_z_alone_says_nothing(void **state)
{
    (void)state;
    struct proportion_trend t = {0};
    assert_true(z(3, 100, 3, 900) > 3.2);
    assert_int_equal(look(&t, 3, 100, 3, 900), PROPORTION_FINE);
    assert_true(z(6, 100, 3, 900) > 3);
    assert_int_equal(look(&t, 6, 100, 3, 900), PROPORTION_SUSPECT);
    assert_int_equal(look(&t, 60000, 1000000, 250000, 9000000), PROPORTION_WORSE);
}

static void a_point_more_is_none_however_sure(void **state)
{
    (void)state;
    struct proportion_trend t = {0};
    assert_true(z(30000, 1000000, 20100, 1000000) > 30);
    assert_int_equal(look(&t, 30000, 1000000, 20100, 1000000), PROPORTION_FINE);
    assert_int_equal(look(&t, 30200, 1000000, 20100, 1000000), PROPORTION_SUSPECT);
}

/* xorshift64*: the same draws each time. */
static uint64_t seed = 88172645463325252;
static uint64_t draw(uint64_t n, double rate)
{
    uint64_t errors = 0;
    for (uint64_t i = 0; i < n; i++) {
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        errors += (double)(seed * 2685821657736338717u >> 11) / 9007199254740992. < rate;
    }
    return errors;
}

static void chance_is_seldom_taken_for_a_difference(void **state)
{
    (void)state;
    unsigned wrong = 0;
    for (int run = 0; run < 2000; run++) {
        struct proportion_trend t = {0};
        for (int i = 0; i < 6; i++)
            wrong += look(&t, draw(200, .02), 200, draw(600, .02), 600) == PROPORTION_WORSE;
    }
    assert_in_range(wrong, 0, 2);
}

static void a_real_difference_is_soon_seen(void **state)
{
    (void)state;
    unsigned seen = 0;
    for (int run = 0; run < 200; run++) {
        struct proportion_trend t = {0};
        bool worse = false;
        for (int i = 0; i < 3; i++)
            worse |= look(&t, draw(500, .1), 500, draw(500, .005), 500) == PROPORTION_WORSE;
        seen += worse;
    }
    assert_in_range(seen, 199, 200);
}

/* ---- errors alone ---- */

static double by_chance(uint64_t errors, uint64_t requests, uint64_t other_errors,
                        uint64_t other_requests)
{
    const struct proportion a = {requests, errors}, b = {other_requests, other_errors};
    return proportion_chance(&a, &b);
}

static void chance_is_that_of_the_textbook(void **state)
{
    (void)state;
    assert_true(fabs(by_chance(3, 100, 0, 900) - .001) < 1e-12);
    assert_true(fabs(by_chance(3, 100, 5, 900) - .03809179) < 1e-8);
    assert_true(fabs(by_chance(8, 50, 2, 50) - 56. / 1024) < 1e-12);
    assert_true(by_chance(1000000, 1000000, 0, 1000000) < 1e-300);
    assert_true(by_chance(20, 100, 180, 900) == 1); /* its part, or less */
    assert_true(by_chance(0, 100, 5, 900) == 1);
    assert_true(by_chance(5, 0, 5, 900) == 1);
    assert_true(by_chance(5, 100, 0, 0) == 1);
    assert_true(by_chance(200, 100, 0, 900) <= 1); /* more errors than requests */
}

static struct proportion_rise rise;

static enum proportion_result comes(uint64_t errors, uint64_t requests, uint64_t other_errors,
                                    uint64_t other_requests)
{
    const struct proportion a = {requests, errors}, b = {other_requests, other_errors};
    proportion_rise_add(&rise, &a, &b);
    return proportion_rise_look(&rise, 100);
}

static void errors_of_one_side_are_evidence_and_those_of_the_other_speak_against_it(void **state)
{
    (void)state;
    rise = (struct proportion_rise){0};
    assert_int_equal(comes(2, 10, 0, 9), PROPORTION_FINE); /* too few to be judged yet */
    assert_true(rise.evidence == 0);
    comes(0, 0, 0, 81);
    assert_true(fabs(rise.evidence - 2 * log(8 / 1.7)) < 1e-9);
    assert_int_equal(comes(0, 10, 0, 90), PROPORTION_FINE); /* less than half of the limit */
    assert_int_equal(comes(1, 10, 0, 90), PROPORTION_SUSPECT);
    assert_int_equal(comes(2, 10, 0, 90), PROPORTION_WORSE);
    assert_int_equal(comes(0, 2, 30, 18), PROPORTION_FINE); /* late errors of requests before */
    assert_true(rise.evidence == 0);                        /* and all is forgotten */
    assert_int_equal(rise.of.requests, 0);
}

static void a_few_errors_of_one_side_alone_are_no_rise(void **state)
{
    (void)state;
    rise = (struct proportion_rise){0};
    for (unsigned i = 0; i < 1000; i++)
        assert_int_not_equal(comes(i % 2, 100, 0, 100), PROPORTION_WORSE); /* 0.5 % */
    assert_true(proportion_rise_limit(0) == PROPORTION_RISE_LIMIT);
    assert_in_range(proportion_rise_limit(1000000), 15, 16); /* for ever does not make it deaf */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_distance_is_that_of_the_textbook),
        cmocka_unit_test(sides_without_requests_or_differences_are_equal),
        cmocka_unit_test(worse_is_worse_twice_in_a_row),
        cmocka_unit_test(of_few_errors_z_alone_says_nothing),
        cmocka_unit_test(a_point_more_is_none_however_sure),
        cmocka_unit_test(chance_is_seldom_taken_for_a_difference),
        cmocka_unit_test(a_real_difference_is_soon_seen),
        cmocka_unit_test(chance_is_that_of_the_textbook),
        cmocka_unit_test(errors_of_one_side_are_evidence_and_those_of_the_other_speak_against_it),
        cmocka_unit_test(a_few_errors_of_one_side_alone_are_no_rise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

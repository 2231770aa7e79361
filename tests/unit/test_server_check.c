/* SPDX-License-Identifier: BSD-2-Clause */
/* What results of checks make of a server, and what texts of checks may be. */
#include "polder/server_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* after the others: it wants them */
#include <cmocka.h>

static void a_server_is_down_after_three_and_up_after_two(void **state)
{
    (void)state;
    struct server_row row = {0};
    struct server_check_trend t = {0};
    char why[SERVER_WHY];
    assert_false(server_check_read(&row).known);
    assert_false(server_check_note(&row, &t, SERVER_CHECK_STATUS, 2, 3, 10));
    assert_true(server_check_read(&row).known);
    assert_false(server_check_note(&row, &t, SERVER_CHECK_TIMEOUT, 2, 3, 20));
    assert_false(server_check_note(&row, &t, SERVER_CHECK_PASSED, 2, 3, 30)); /* not in a row */
    for (uint64_t i = 0; i < 2; i++)
        assert_false(server_check_note(&row, &t, SERVER_CHECK_STATUS, 2, 3, 40 + i));
    assert_true(server_is_up(&row));
    assert_int_equal(server_check_read(&row).since_ms, 10);
    assert_true(server_check_note(&row, &t, SERVER_CHECK_BODY, 2, 3, 50));
    assert_false(server_is_up(&row));
    assert_int_equal(server_check_read(&row).since_ms, 50);
    assert_string_equal(server_why_down(&row, why), "health check: unexpected body");
    assert_false(server_check_note(&row, &t, SERVER_CHECK_PASSED, 2, 3, 60));
    assert_false(server_check_note(&row, &t, SERVER_CHECK_STATUS, 2, 3, 70));
    assert_false(server_check_note(&row, &t, SERVER_CHECK_PASSED, 2, 3, 80));
    assert_false(server_is_up(&row));
    assert_true(server_check_note(&row, &t, SERVER_CHECK_PASSED, 2, 3, 90));
    assert_true(server_is_up(&row));
    assert_int_equal(atomic_load(&row.checks[SERVER_CHECK_PASSED]), 4);
    assert_int_equal(atomic_load(&row.checks[SERVER_CHECK_STATUS]), 4);
}

static void a_server_that_fails_checks_gets_no_trial(void **state)
{
    (void)state;
    struct server_row row = {0};
    struct server_check_trend t = {0};
    uint64_t lease_ms;
    server_note_failure(&row, SERVER_REFUSED, false, 1000);
    assert_true(server_check_note(&row, &t, SERVER_CHECK_CONNECT, 1, 1, 1000));
    assert_false(server_try(&row, 9000, 0, 50, &lease_ms));
    assert_true(server_check_end(&row));
    assert_true(server_try(&row, 9000, 0, 50, &lease_ms));
    assert_false(server_check_end(&row));
}

static bool weight(const char *text, uint32_t *percent, bool *drain)
{
    return server_check_parse_weight((struct str){text, strlen(text)}, percent, drain);
}

static void a_weight_is_a_percentage_or_drain(void **state)
{
    (void)state;
    static const char *const bad[] = {"",     "%",    "101",           "-1",     "40 %",
                                      "4O",   "0040", "40%%",          "drain ", "drained",
                                      "0x10", "1e1",  "99999999999999"};
    uint32_t percent;
    bool drain;
    assert_true(weight("40", &percent, &drain) && percent == 40 && !drain);
    assert_true(weight("7%", &percent, &drain) && percent == 7 && !drain);
    assert_true(weight("100", &percent, &drain) && percent == 100 && !drain);
    assert_true(weight("DRAIN", &percent, &drain) && percent == 100 && drain);
    assert_true(weight("0", &percent, &drain) && drain);
    assert_true(weight("000", &percent, &drain) && drain);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (weight(bad[i], &percent, &drain))
            fail_msg("taken: %s", bad[i]);
}

static void a_weight_stays_beside_the_state(void **state)
{
    (void)state;
    struct server_row row = {0};
    struct server_check_trend t = {0};
    assert_int_equal(server_percent(&row), 100);
    assert_true(server_check_set_weight(&row, 40, false));
    assert_false(server_check_set_weight(&row, 40, false));
    assert_int_equal(server_percent(&row), 40);
    server_check_note(&row, &t, SERVER_CHECK_STATUS, 1, 1, 5);
    assert_int_equal(server_percent(&row), 40);
    assert_true(server_check_set_weight(&row, 100, true));
    assert_true(server_drains(&row));
    assert_false(server_is_up(&row));
    assert_int_equal(server_check_read(&row).since_ms, 5);
    assert_true(server_check_set_weight(&row, 1, false));
    assert_false(server_drains(&row));
    assert_int_equal(server_check_read(&row).percent, 1);
}

static void statuses_are_numbers_and_ranges(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",    " ",  "2xx",  "200-", "-200",    "200,",     ",200",        "300-200",  "099",
        "600", "20", "2000", "200;", "200 204", "200--204", "200-204-208", "200, ,204"};
    struct server_check_statuses list;
    char many[17 * 4 + 1] = "";
    assert_true(server_check_parse_statuses("200-299", &list));
    assert_true(server_check_passes(&list, 200) && server_check_passes(&list, 299));
    assert_false(server_check_passes(&list, 199) || server_check_passes(&list, 300));
    assert_true(server_check_parse_statuses(" 204 , 301-303,401 ", &list));
    assert_int_equal(list.n, 3);
    assert_true(server_check_passes(&list, 302) && server_check_passes(&list, 401));
    assert_false(server_check_passes(&list, 200));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (server_check_parse_statuses(bad[i], &list))
            fail_msg("taken: %s", bad[i]);
    for (int i = 0; i < 17; i++)
        strcat(many, i < 16 ? "200," : "200");
    assert_false(server_check_parse_statuses(many, &list));
    many[16 * 4 - 1] = 0;
    assert_true(server_check_parse_statuses(many, &list));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_is_down_after_three_and_up_after_two),
        cmocka_unit_test(a_server_that_fails_checks_gets_no_trial),
        cmocka_unit_test(a_weight_is_a_percentage_or_drain),
        cmocka_unit_test(a_weight_stays_beside_the_state),
        cmocka_unit_test(statuses_are_numbers_and_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* shift: rows of the page of shifts: found again, taken when there is no free one, and not believed
 * where the file is damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "polder/shift.h"

static struct shift_page *page;

static int set_up(void **state)
{
    (void)state;
    page = aligned_alloc(64, (shift_page_size() + 63) / 64 * 64);
    memset(page, 0, shift_page_size());
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(page);
    return 0;
}

static struct shift_state state_of(unsigned i, uint32_t percent)
{
    struct shift_state s = {.server = "a:1", .percent = percent, .moved_ms = 1000 - i};
    snprintf(s.upstream, sizeof s.upstream, "u%u", i);
    return s;
}

static void a_row_is_found_until_it_is_forgotten(void **state)
{
    (void)state;
    struct shift_state s = state_of(1, 10);
    assert_null(shift_find(page, "u1"));
    assert_true(shift_write(page, &s));
    s.percent = 50;
    assert_true(shift_write(page, &s)); /* the same row */
    assert_int_equal(shift_find(page, "u1")->percent, 50);
    assert_null(shift_find(page, "u"));
    assert_non_null(shift_at(page, 0));
    assert_null(shift_at(page, 1));
    shift_forget(page, "u1");
    assert_null(shift_find(page, "u1"));
    assert_null(shift_at(page, 0));
}

static void a_full_page_gives_up_what_ended_first(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SHIFT_ROWS; i++) {
        const struct shift_state s = state_of(i, i < 2 ? 100 : 10);
        assert_true(shift_write(page, &s));
    }
    const struct shift_state one = state_of(100, 10), two = state_of(101, 10),
                             three = state_of(102, 10);
    assert_true(shift_write(page, &one));
    assert_null(shift_find(page, "u1")); /* over since before the other one */
    assert_non_null(shift_find(page, "u0"));
    assert_true(shift_write(page, &two));
    assert_null(shift_find(page, "u0"));
    assert_false(shift_write(page, &three)); /* all are under way */
    assert_non_null(shift_find(page, "u2"));
}

static void what_is_damaged_is_no_shift(void **state)
{
    (void)state;
    struct shift_state s = state_of(1, 101);
    assert_true(shift_write(page, &s));
    assert_null(shift_find(page, "u1"));
    s.percent = 10;
    s.phase = SHIFT_PHASES;
    assert_true(shift_write(page, &s));
    assert_null(shift_find(page, "u1"));
    s.phase = SHIFT_SET;
    s.n_base = SHIFT_SERVERS + 1;
    assert_true(shift_write(page, &s));
    assert_null(shift_find(page, "u1"));
    s.n_base = 0;
    memset(s.server, 'x', sizeof s.server); /* without an end */
    assert_true(shift_write(page, &s));
    assert_null(shift_find(page, "u1"));
    const struct shift_state good = state_of(1, 10);
    assert_true(shift_write(page, &good));
    assert_non_null(shift_find(page, "u1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_row_is_found_until_it_is_forgotten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_page_gives_up_what_ended_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_damaged_is_no_shift, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

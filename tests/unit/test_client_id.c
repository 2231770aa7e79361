/* SPDX-License-Identifier: BSD-2-Clause */
/* What a WebSocket's client is called, made of the last segment of its path. */
#include "daemons/supervisor/supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect(const char *segment, const char *id)
{
    char *got = client_id_make(segment, strlen(segment));
    if (!id)
        assert_null(got);
    else
        assert_string_equal(got, id);
    free(got);
}

static void it_is_what_the_application_reads(void **state)
{
    (void)state;
    expect("dash-7", "dash-7");
    expect("a%22b%5c", "a\"b\\");
    expect("%C3%A9t%c3%a9", "\xc3\xa9t\xc3\xa9");
    expect("a%2Fb%20c", "a/b c");
    expect("", NULL);
}

static void what_has_no_reading_stays_as_it_is(void **state)
{
    (void)state;
    expect("100%", "100%");
    expect("a%2", "a%2");
    expect("a%zz", "a%zz");
    expect("a%00b", "a%00b");
    expect("%ff", "%ff");
    expect("%C3", "%C3");
    expect("\xff", NULL);
}

static void a_long_one_is_seen_to_be_cut(void **state)
{
    (void)state;
    char segment[600], want[200];
    memset(segment, 'x', 129);
    segment[129] = 0;
    memset(want, 'x', 125);
    strcpy(want + 125, "\xe2\x80\xa6");
    expect(segment, want);
    segment[128] = 0; /* that one fits */
    expect(segment, segment);
    for (int i = 0; i < 100; i++) /* not within a character */
        memcpy(segment + 6 * i, "%C3%A9", 6);
    char *got = client_id_make(segment, 600);
    assert_int_equal(strlen(got), 124 + 3);
    assert_true(frames_utf8_valid((const uint8_t *)got, strlen(got)));
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_what_the_application_reads),
        cmocka_unit_test(what_has_no_reading_stays_as_it_is),
        cmocka_unit_test(a_long_one_is_seen_to_be_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

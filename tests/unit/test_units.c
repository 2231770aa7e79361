/* SPDX-License-Identifier: BSD-2-Clause */
/* Durations, sizes and shares in the one notation of tables and screens. */
#include "polder/units.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* after the others: it wants them */
#include <cmocka.h>

static void durations_have_two_units_at_most(void **state)
{
    (void)state;
    static const struct {
        double s;
        const char *text;
    } cases[] = {
        {0, "0 s"},          {0.000036, "36 us"}, {0.00099949, "999 us"}, {0.0009996, "1 ms"},
        {0.0021, "2.1 ms"},  {0.5, "500 ms"},     {0.216742, "217 ms"},   {0.9996, "1 s"},
        {1, "1 s"},          {2.25, "2.25 s"},    {59.9, "59.9 s"},       {59.96, "1 min"},
        {60, "1 min"},       {298, "4 min 58 s"}, {3599, "59 min 59 s"},  {3600, "1 h"},
        {7500, "2 h 5 min"}, {86400, "1 d"},      {93784, "1 d 2 h"},     {-298, "-4 min 58 s"},
        {-0.5, "-500 ms"},   {NAN, "-"},          {INFINITY, "-"}};
    char out[UNITS_TEXT];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(units_seconds(cases[i].s, out), strlen(cases[i].text));
        assert_string_equal(out, cases[i].text);
    }
}

static void sizes_are_powers_of_1024(void **state)
{
    (void)state;
    static const struct {
        double n;
        const char *text;
    } cases[] = {{0, "0 B"},
                 {1000, "1000 B"},
                 {1024, "1 KiB"},
                 {1536, "1.5 KiB"},
                 {1023.9 * 1024, "1 MiB"},
                 {256 << 20, "256 MiB"},
                 {3.5 * 1024 * 1024 * 1024, "3.5 GiB"},
                 {5e15, "4547 TiB"}};
    char out[UNITS_TEXT];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        units_bytes(cases[i].n, out);
        assert_string_equal(out, cases[i].text);
    }
}

static void counts_and_shares_are_short(void **state)
{
    (void)state;
    static const struct {
        double n;
        const char *text;
    } cases[] = {{0, "0"},       {0.25, "0.25"},     {12, "12"},       {8532, "8532"},
                 {9999, "9999"}, {10000, "10k"},     {85321, "85.3k"}, {999499, "999k"},
                 {1e6, "1M"},    {1234567, "1.23M"}, {7e12, "7T"}};
    char out[UNITS_TEXT];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        units_count(cases[i].n, out);
        assert_string_equal(out, cases[i].text);
    }
    units_share(0.834, out);
    assert_string_equal(out, "83.4%");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_have_two_units_at_most),
        cmocka_unit_test(sizes_are_powers_of_1024),
        cmocka_unit_test(counts_and_shares_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

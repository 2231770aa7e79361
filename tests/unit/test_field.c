/* SPDX-License-Identifier: BSD-2-Clause */
/* field: each value as its RFC says, and what is garbled to the safe side. */
#include "polder/field.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static struct str text(const char *s)
{
    return (struct str){s, strlen(s)};
}

static void assert_text(struct str t, const char *wanted)
{
    if (t.len != strlen(wanted) || memcmp(t.at, wanted, t.len) != 0)
        fail_msg("'%.*s' is not '%s'", (int)t.len, t.at ? t.at : "", wanted);
}

/* RFC 9110 5.6.1 */
static void lists_have_commas_outside_quotes_only(void **state)
{
    (void)state;
    static const char *const wanted[] = {"a", "b=\"x, \\\"y\"", "c d"};
    struct str rest = text(" ,a,, b=\"x, \\\"y\" ,\tc d,"), element;
    for (int i = 0; i < 3; i++) {
        assert_true(field_list_next(&rest, &element));
        assert_text(element, wanted[i]);
    }
    assert_false(field_list_next(&rest, &element));
    rest = text("");
    assert_false(field_list_next(&rest, &element));
}

static void a_quote_never_closed_hides_nothing(void **state)
{
    (void)state;
    struct field_cc cc = {0};
    field_cc_add(&cc, text("extension=\"max-age=3600, no-store"));
    assert_int_equal(cc.flags, FIELD_CC_NO_STORE | FIELD_CC_UNREADABLE);
    cc = (struct field_cc){0};
    field_cc_add(&cc, text("a=\"\\\", private, b=\\\""));
    assert_int_equal(cc.flags, FIELD_CC_PRIVATE | FIELD_CC_UNREADABLE);
}

/* CPU time of walking a list of 16 KB, made of the element, that begins with a quote. */
static clock_t walk(const char *element)
{
    static char value[16384];
    const size_t len = strlen(element), times = (sizeof value - 1) / len;
    const clock_t start = clock();
    value[0] = '"';
    for (size_t i = 0; i < times; i++)
        memcpy(value + 1 + i * len, element, len);
    for (unsigned i = 0; i < 50; i++) {
        struct str rest = {value, 1 + times * len}, one;
        unsigned n = 0;
        while (field_list_next(&rest, &one))
            n++;
        assert_int_equal(n, times);
    }
    return clock() - start;
}

/* Nobody may make us look for the end of each of thousands of quotes anew. */
static void quotes_never_closed_cost_little(void **state)
{
    (void)state;
    const clock_t plain = walk("\\a,"), quoted = walk("\\\",");
    assert_true(quoted < 200 * plain + CLOCKS_PER_SEC / 20);
}

static void parameters_are_split_and_unquoted(void **state)
{
    (void)state;
    struct str name, value;
    field_parameter(text("max-age=5"), &name, &value);
    assert_text(name, "max-age");
    assert_text(value, "5");
    field_parameter(text("a = \"b\\\"c\""), &name, &value);
    assert_text(name, "a");
    assert_text(value, "b\\\"c");
    field_parameter(text("a="), &name, &value);
    assert_non_null(value.at);
    assert_text(value, "");
    field_parameter(text("a"), &name, &value);
    assert_null(value.at);
    field_parameter(text("a=\"b\"c"), &name, &value);
    assert_text(value, "\"b\"c");
}

static void names_are_compared_without_regard_to_case(void **state)
{
    (void)state;
    assert_true(field_is(text("No-Store"), "no-store"));
    assert_false(field_is(text("no-stor"), "no-store"));
    assert_false(field_is(text("no-store2"), "no-store"));
    assert_false(field_is(text(""), "a"));
    assert_true(field_is_token(text("!#$%&'*+-.^_`|~09azAZ")));
    assert_false(field_is_token(text("")));
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        bool token = c && c < 128 &&
                     (strchr("!#$%&'*+-.^_`|~", c) || (c >= '0' && c <= '9') ||
                      (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
        assert_int_equal(field_is_token((struct str){&byte, 1}), token);
    }
}

/* RFC 9110 5.6.7 */
static void dates_have_three_forms(void **state)
{
    (void)state;
    static const char *const same[] = {"Sun, 06 Nov 1994 08:49:37 GMT",
                                       "Sunday, 06-Nov-94 08:49:37 GMT",
                                       "Sun Nov  6 08:49:37 1994"};
    int64_t seconds;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(field_date(text(same[i]), &seconds), 0);
        assert_int_equal(seconds, 784111777);
    }
    assert_int_equal(field_date(text("Thu, 01 Jan 1970 00:00:00 GMT"), &seconds), 0);
    assert_int_equal(seconds, 0);
    assert_int_equal(field_date(text("Thu, 29 Feb 2024 23:59:60 GMT"), &seconds), 0);
    assert_int_equal(seconds, 1709251200);
    assert_int_equal(field_date(text("Tue, 19 Jan 2038 14:14:08 GMT"), &seconds), 0);
    assert_int_equal(seconds, 2147523248);
    assert_int_equal(field_date(text("Sun Nov 16 08:49:37 1994"), &seconds), 0);
    assert_int_equal(field_date(text("Mon, 01 Jan 0001 00:00:00 GMT"), &seconds), 0);
    assert_int_equal(seconds, -62135596800);
}

/* RFC 9110 5.6.7: a two-digit year is at most fifty years ahead */
static void two_digit_years_are_the_nearest(void **state)
{
    (void)state;
    int64_t seconds;
    assert_int_equal(field_date(text("Thursday, 18-Aug-50 02:01:18 GMT"), &seconds), 0);
    assert_int_equal(seconds, 2544400878);
    assert_int_equal(field_date(text("Friday, 01-Jan-99 00:00:00 GMT"), &seconds), 0);
    assert_int_equal(seconds, 915148800);
}

/* RFC 9111 4.2: caches match names without regard to case */
static void dates_are_read_in_any_case(void **state)
{
    (void)state;
    int64_t seconds;
    assert_int_equal(field_date(text("THU, 18 aug 2050 02:01:18 gMT"), &seconds), 0);
}

static void garbled_dates_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "0",
        "-1",
        "Thu",
        "Thu, 18 Aug 2050 02:01:18",
        "Thu, 18 Aug 2050 02:01:18 AEST",
        "Thu, 18 Aug 2050 02:01:18 UTC",
        "Thu, 18 Aug 2050 02:01:18 +0000",
        "Thu, 18 Aug 50 02:01:18 GMT",
        "Thu 18 Aug 2050 02:01:18 GMT",
        "Thu, 18  Aug  2050 02:01:18 GMT",
        "Thu, 18-Aug-2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 02.01.18 GMT",
        "Thu, 18 Aug 2050 2:01:18 GMT",
        "Thu, 18 Aug 2050 02:01:18 GMT ",
        "Thu, 00 Aug 2050 02:01:18 GMT",
        "Thu, 32 Aug 2050 02:01:18 GMT",
        "Thu, 31 Jun 2050 02:01:18 GMT",
        "Thu, 29 Feb 2023 02:01:18 GMT",
        "Mon, 29 Feb 2100 02:01:18 GMT",
        "Thu, 18 Aug 2050 24:01:18 GMT",
        "Thu, 18 Aug 2050 02:60:18 GMT",
        "Thu, 18 Aug 2050 02:01:61 GMT",
        "Thu, 18 Foo 2050 02:01:18 GMT",
        "Xyz, 18 Aug 2050 02:01:18 GMT",
        "Thursday, 18 Aug 2050 02:01:18 GMT",
        "Thu Aug  8 02:01:18 2050 GMT",
        "Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:18 GMT"};
    int64_t seconds;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (field_date(text(bad[i]), &seconds) != -EINVAL)
            fail_msg("'%s' is accepted", bad[i]);
    const char *good = "Sunday, 06-Nov-94 08:49:37 GMT";
    for (size_t len = 0; len < strlen(good); len++)
        assert_int_equal(field_date((struct str){good, len}, &seconds), -EINVAL);
}

static void dates_written_are_read_back(void **state)
{
    (void)state;
    char out[FIELD_DATE_LEN + 1];
    field_date_format(784111777, out);
    assert_string_equal(out, "Sun, 06 Nov 1994 08:49:37 GMT");
    for (int64_t t = 0; t < INT64_C(253402300799); t += 86400 * 13 + 12347) {
        int64_t back;
        field_date_format(t, out);
        assert_int_equal(field_date(text(out), &back), 0);
        assert_int_equal(back, t);
    }
    field_date_format(INT64_MAX, out);
    assert_string_equal(out, "Fri, 31 Dec 9999 23:59:59 GMT");
    field_date_format(-5, out);
    assert_string_equal(out, "Thu, 01 Jan 1970 00:00:00 GMT");
}

/* RFC 9111 1.2.2 */
static void seconds_are_digits_and_saturate(void **state)
{
    (void)state;
    uint32_t n;
    assert_int_equal(field_seconds(text("003600"), &n), 0);
    assert_int_equal(n, 3600);
    assert_int_equal(field_seconds(text("2147483648"), &n), 0);
    assert_int_equal(n, 2147483648);
    assert_int_equal(field_seconds(text("99999999999999999999999999999999"), &n), 0);
    assert_int_equal(n, 2147483648);
    static const char *const bad[] = {"", "-1", "+1", "1.0", "1 ", "a1", "'1'", "0x1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(field_seconds(text(bad[i]), &n), -EINVAL);
}

/* RFC 9111 5.1 */
static void an_age_is_the_first_number_of_a_list(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        uint32_t age;
    } good[] = {{"30", 30},  {"7200,0", 7200}, {"0, 7200", 0}, {"0, 0", 0},
                {"5, a", 5}, {", 7", 7},       {"007", 7},     {"2147483649", 2147483648}};
    static const char *const bad[] = {"",   ",",    "abc",          "-7200",        "7200.0",
                                      "+1", "a, 0", "7200;foo=bar", "7200;foo=111", "\"1\"",
                                      "1 2"};
    uint32_t age;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(field_age(text(good[i].value), &age), 0);
        assert_int_equal(age, good[i].age);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (field_age(text(bad[i]), &age) != -EINVAL)
            fail_msg("'%s' is accepted", bad[i]);
}

static struct field_cc cc_of(const char *value)
{
    struct field_cc cc = {0};
    field_cc_add(&cc, text(value));
    return cc;
}

/* RFC 9111 5.2 */
static void every_directive_is_known(void **state)
{
    (void)state;
    struct field_cc cc =
        cc_of("No-Store, no-cache, private, PUBLIC, must-revalidate, proxy-revalidate,"
              "must-understand, no-transform, only-if-cached, immutable, max-age=1,"
              "s-maxage=2, max-stale=3, min-fresh=4, stale-while-revalidate=5,"
              "stale-if-error=6, foo, bar=baz, qux=\"a, no-x\"");
    assert_int_equal(cc.flags, ((1u << 18) - 1) &
                                   ~(uint32_t)(FIELD_CC_NO_CACHE_FIELDS | FIELD_CC_PRIVATE_FIELDS));
    assert_int_equal(cc.max_age, 1);
    assert_int_equal(cc.s_maxage, 2);
    assert_int_equal(cc.max_stale, 3);
    assert_int_equal(cc.min_fresh, 4);
    assert_int_equal(cc.swr, 5);
    assert_int_equal(cc.sie, 6);
    assert_int_equal(cc_of("max-stale").max_stale, UINT32_MAX);
    assert_int_equal(cc_of("foobar").flags, 0);
    assert_int_equal(cc_of("").flags, 0);
}

/* RFC 9111 4.2.1: invalid freshness is staleness */
static void lifetimes_that_are_no_numbers_are_invalid(void **state)
{
    (void)state;
    static const char *const bad[] = {"max-age='3600'",
                                      "max-age=-3600",
                                      "max-age=3600.0",
                                      "max-age=a3600",
                                      "max-age=3600a",
                                      "max-age =3600",
                                      "max-age= 3600",
                                      "max-age",
                                      "max-age=",
                                      "s-maxage=x",
                                      "max-age=\"\"",
                                      "max-age=1 2",
                                      "max-age=1, max-age=1800",
                                      "max-age=1800, max-age=1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!(cc_of(bad[i]).flags & FIELD_CC_INVALID))
            fail_msg("'%s' is accepted", bad[i]);
    assert_int_equal(cc_of("max-age=\"3600\"").flags, FIELD_CC_MAX_AGE);
    assert_int_equal(cc_of("max-age=5, max-age=05").flags, FIELD_CC_MAX_AGE);
    assert_int_equal(cc_of("stale-if-error=x").flags, FIELD_CC_SIE); /* it permits nothing */
    assert_int_equal(cc_of("stale-if-error=x").sie, 0);
    assert_int_equal(cc_of("stale-while-revalidate=5, stale-while-revalidate=x").swr, 0);
    assert_int_equal(cc_of("max-age=99999999999").max_age, 2147483648);
}

static void an_argument_that_is_no_list_of_names_does_not_narrow_a_directive(void **state)
{
    static const char *const whole[] = {"private=\"x",       "private=x\"",        "private=\"\"",
                                        "private=\"x y\"",   "private=\"x:\"",     "private=\"x\"y",
                                        "private=\"x\\-y\"", "private=\"x, \"y\"", "private='x",
                                        "private='x'",       "private=\"'x', y\""};
    (void)state;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (!(cc_of(whole[i]).flags & FIELD_CC_PRIVATE))
            fail_msg("'%s' is read as if it named fields", whole[i]);
    assert_int_equal(cc_of("private=\"x, y\"").flags, FIELD_CC_PRIVATE_FIELDS);
    assert_int_equal(cc_of("no-cache=x").flags, FIELD_CC_NO_CACHE_FIELDS);
    assert_true(cc_of("no-cache=\"x").flags & FIELD_CC_NO_CACHE);
}

/* A word that was meant may stand in it. */
static void what_is_no_directive_cannot_be_read(void **state)
{
    static const char *const bad[] = {
        "no-store;",          "private;max-age=60", "private max-age=60", "max-age=60; no-store",
        "max-age=60 private", "\"no-store\"",       "'no-store'",         "{no-store}",
        "=no-store",          "no-store: x",        "no-store\x80",       "pri vate",
        "x=(no-store)",       "x=\"a\"no-store",    "x=\"no-store",       "no-cache=x; no-store"};
    static const char *const good[] = {"",
                                       "no-store",
                                       "max-age=60 , public",
                                       "x=y, z=\"a, b;c\"",
                                       "max-age = 60",
                                       "max-age=",
                                       "max-age=3600.0",
                                       "no-cache=\"a, b\"",
                                       ", ,"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (!(cc_of(bad[i]).flags & FIELD_CC_UNREADABLE))
            fail_msg("'%s' is taken for a directive", bad[i]);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (cc_of(good[i]).flags & FIELD_CC_UNREADABLE)
            fail_msg("'%s' is not read", good[i]);
}

static void only_so_many_directives_are_read(void **state)
{
    char many[2048] = "";
    size_t n = 0;
    (void)state;
    for (int i = 0; i < FIELD_CC_MAX; i++)
        n += (size_t)snprintf(many + n, sizeof many - n, "x%d, ", i);
    assert_int_equal(cc_of(many).flags, 0);
    snprintf(many + n, sizeof many - n, "no-store");
    assert_int_equal(cc_of(many).flags, FIELD_CC_TOO_MANY);
}

static void quoted_text_is_no_directive(void **state)
{
    (void)state;
    struct field_cc cc = cc_of("extension=\"max-age=3600\", max-age=1");
    assert_int_equal(cc.flags, FIELD_CC_MAX_AGE);
    assert_int_equal(cc.max_age, 1);
    cc = cc_of("max-age=\"1\", extension=\"a, max-age=3600\"");
    assert_int_equal(cc.flags, FIELD_CC_MAX_AGE);
    assert_int_equal(cc.max_age, 1);
}

/* RFC 9111 5.2.2.4, 5.2.2.7 */
static void qualified_directives_name_fields(void **state)
{
    (void)state;
    struct field_cc cc = cc_of("no-cache=\"a, b\", private=x");
    assert_int_equal(cc.flags, FIELD_CC_NO_CACHE_FIELDS | FIELD_CC_PRIVATE_FIELDS);
    assert_text(cc.no_cache_fields, "a, b");
    assert_text(cc.private_fields, "x");
    assert_int_equal(cc_of("no-cache=\"\"").flags, FIELD_CC_NO_CACHE);
    assert_int_equal(cc_of("no-cache =\"a\"").flags, FIELD_CC_NO_CACHE);
    assert_true(cc_of("private=\"a\", private=\"b\"").flags & FIELD_CC_PRIVATE);
    assert_int_equal(cc_of("private=\"a\", private").flags,
                     FIELD_CC_PRIVATE | FIELD_CC_PRIVATE_FIELDS);
}

/* RFC 9213 2.1 */
static void a_targeted_field_is_a_dictionary(void **state)
{
    (void)state;
    struct field_cc cc;
    assert_true(field_cdn_cc(text("foobar, max-age=3600;x=1, must-revalidate, no-cache=?0"), &cc));
    assert_int_equal(cc.flags, FIELD_CC_MAX_AGE | FIELD_CC_MUST_REVALIDATE);
    assert_int_equal(cc.max_age, 3600);
    assert_true(field_cdn_cc(text("max-age=1, max-age=2"), &cc)); /* the last one counts */
    assert_int_equal(cc.max_age, 2);
    assert_true(field_cdn_cc(text("max-age=99999999999"), &cc));
    assert_int_equal(cc.max_age, 2147483648);
    assert_true(field_cdn_cc(text("private, no-store, stale-while-revalidate=5"), &cc));
    assert_int_equal(cc.flags, FIELD_CC_PRIVATE | FIELD_CC_NO_STORE | FIELD_CC_SWR);
    static const char *const stale[] = {"max-age=60.5", "max-age=-1", "max-age=\"10\"", "max-age"};
    for (size_t i = 0; i < sizeof stale / sizeof *stale; i++) {
        assert_true(field_cdn_cc(text(stale[i]), &cc));
        assert_int_equal(cc.flags, FIELD_CC_INVALID);
    }
    static const char *const bad[] = {"",
                                      "  ",
                                      "max-age=10000, &&&&&",
                                      "max-age =100",
                                      "max-age= 100",
                                      "MaX-aGe=3600",
                                      "max-age=1,",
                                      "max-age=1 2",
                                      ",a"};
    cc.flags = 77;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (field_cdn_cc(text(bad[i]), &cc))
            fail_msg("'%s' is accepted", bad[i]);
        assert_int_equal(cc.flags, 77);
    }
}

/* RFC 9651 4.2 */
static void structured_items_are_checked_to_the_letter(void **state)
{
    (void)state;
    static const char *const good[] = {"a=1",
                                       "a=-999999999999999",
                                       "a=123456789012.123",
                                       "a=\"\\\\ \\\"\"",
                                       "a=*x/y:z",
                                       "a=:aGk=:",
                                       "a=::",
                                       "a=?1",
                                       "a=@1659578233",
                                       "a=%\"%c3%bc\"",
                                       "a=()",
                                       "a=( 1 \"b\";c  d )",
                                       "*a",
                                       "a-b_c.d*e=1",
                                       "a;b;c=1; d=?0",
                                       "a,\t b",
                                       "  a  "};
    static const char *const bad[] = {"a=",
                                      "a=1234567890123456",
                                      "a=1.",
                                      "a=1.1234",
                                      "a=1234567890123.1",
                                      "a=--1",
                                      "a=\"x",
                                      "a=\"\\x\"",
                                      "a=\"\x01\"",
                                      "a=\"\x80\"",
                                      "a=:a b:",
                                      "a=:a",
                                      "a=?2",
                                      "a=?",
                                      "a=@1.5",
                                      "a=%\"%C3\"",
                                      "a=%x",
                                      "a=(1",
                                      "a=(1\"b\")",
                                      "A=1",
                                      "1=1",
                                      "a;B",
                                      "a;b=",
                                      "a b",
                                      "a,\xc3",
                                      "a=(1,2)",
                                      "a=()x",
                                      "a;=1",
                                      "a=-",
                                      "a=.5",
                                      "a=%\"%c\"",
                                      "\ta"};
    struct field_cc cc;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!field_cdn_cc(text(good[i]), &cc))
            fail_msg("'%s' is refused", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (field_cdn_cc(text(bad[i]), &cc))
            fail_msg("'%s' is accepted", bad[i]);
}

static void surrogate_directives_for_others_are_skipped(void **state)
{
    (void)state;
    struct field_cc cc = {0};
    assert_true(field_surrogate_cc(text("MaX-aGe=3600, foobar"), &cc));
    assert_int_equal(cc.max_age, 3600);
    cc = (struct field_cc){0};
    assert_false(field_surrogate_cc(text("max-age=3600;not-for-you, content=\"ESI/1.0\""), &cc));
    cc = (struct field_cc){0};
    assert_true(field_surrogate_cc(text("no-store; polder, max-age=1;other"), &cc));
    assert_int_equal(cc.flags, FIELD_CC_NO_STORE);
    cc = (struct field_cc){0};
    assert_false(field_surrogate_cc(text(";polder"), &cc));
    assert_false(field_surrogate_cc(text("no-store max-age=1;other"), &cc));
    /* what is meant is not known */
    assert_true(field_surrogate_cc(text("no-store max-age=1"), &cc));
    assert_int_equal(cc.flags, FIELD_CC_UNREADABLE);
}

static char strings[256];

static void collect(void *arg, struct str t)
{
    ++*(int *)arg;
    snprintf(strings + strlen(strings), sizeof strings - strlen(strings), "[%.*s]", (int)t.len,
             t.at);
}

/* RFC 9875 2 */
static void groups_are_a_list_of_strings(void **state)
{
    (void)state;
    int n = 0;
    strings[0] = '\0';
    assert_true(field_sf_strings(text(" \"a\", \"b c\";x=1,\t\"d\\\"\" "), collect, &n));
    assert_string_equal(strings, "[a][b c][d\"]");
    assert_true(field_sf_strings(text(""), collect, &n));
    assert_int_equal(n, 3);
    static const char *const bad[] = {"\"a\", b", "\"a\",",   "\"a\" \"b\"", "\"a",
                                      "(\"a\")",  "\"a\", 1", "\"a\";",      ", \"a\""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (field_sf_strings(text(bad[i]), collect, &n))
            fail_msg("'%s' is accepted", bad[i]);
    assert_int_equal(n, 3);
}

/* RFC 9110 8.8.3 */
static void entity_tags_are_compared_strongly_and_weakly(void **state)
{
    (void)state;
    assert_true(field_etag_listed(text("\"a\", \"b\""), text("\"b\""), false));
    assert_true(field_etag_listed(text("\"a\",\"b\""), text("W/\"b\""), true));
    assert_false(field_etag_listed(text("\"a\", \"b\""), text("W/\"b\""), false));
    assert_false(field_etag_listed(text("W/\"b\""), text("W/\"b\""), false));
    assert_true(field_etag_listed(text("W/\"b\""), text("W/\"b\""), true));
    assert_true(field_etag_listed(text(" * "), text("\"b\""), false));
    assert_false(field_etag_listed(text("\"a, b\""), text("\"b\""), true));
    assert_true(field_etag_listed(text("\"a,b\""), text("\"a,b\""), true));
    assert_true(field_etag_listed(text("\"a\\\", \"b\""), text("\"b\""), true));
    assert_true(field_etag_listed(text("junk, w/\"x\", \"b\""), text("\"b\""), true));
    assert_false(field_etag_listed(text("b"), text("\"b\""), true));
    assert_false(field_etag_listed(text("b"), text("b"), true));
    assert_false(field_etag_listed(text("\"b"), text("\"b"), true));
    assert_false(field_etag_listed(text(""), text("\"b\""), true));
    assert_true(field_etag_listed(text("\"\xc3\xbc\""), text("\"\xc3\xbc\""), false));
    assert_true(field_etag_valid(text("\"\"")));
    assert_true(field_etag_valid(text("W/\"x\"")));
    static const char *const bad[] = {"",       "x",       "\"",      "\"x", "\"x\"y",
                                      "W\"x\"", "w/\"x\"", "\"x y\"", "W/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(field_etag_valid(text(bad[i])));
}

/* RFC 9110 14.1.2 */
static void single_byte_ranges_are_understood(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        uint64_t size;
        int rc;
        uint64_t first, last;
    } cases[] = {
        {"bytes=0-1", 11, 1, 0, 1},
        {"bytes=1-", 11, 1, 1, 10},
        {"Bytes=-1", 11, 1, 10, 10},
        {"bytes=-100", 11, 1, 0, 10},
        {"bytes=0-99", 11, 1, 0, 10},
        {"bytes= 2-3 ", 11, 1, 2, 3},
        {"bytes=2-3,", 11, 1, 2, 3},
        {"bytes=10-10", 11, 1, 10, 10},
        {"bytes=0-99999999999999999999999", 11, 1, 0, 10},
        {"bytes=11-", 11, -ERANGE, 0, 0},
        {"bytes=99999999999999999999999-", 11, -ERANGE, 0, 0},
        {"bytes=-0", 11, -ERANGE, 0, 0},
        {"bytes=0-", 0, -ERANGE, 0, 0},
        {"bytes=-5", 0, -ERANGE, 0, 0},
        {"bytes=0-1,3-4", 11, 0, 0, 0},
        {"bytes=3-2", 11, 0, 0, 0},
        {"bytes=-", 11, 0, 0, 0},
        {"bytes=a-b", 11, 0, 0, 0},
        {"bytes=1", 11, 0, 0, 0},
        {"bytes=1-2x", 11, 0, 0, 0},
        {"bytes", 11, 0, 0, 0},
        {"bytes=", 11, 0, 0, 0},
        {"items=0-1", 11, 0, 0, 0},
        {"", 11, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t first = 0, last = 0;
        int rc = field_range(text(cases[i].value), cases[i].size, &first, &last);
        if (rc != cases[i].rc || first != cases[i].first || last != cases[i].last)
            fail_msg("%s: %d %lu-%lu", cases[i].value, rc, (unsigned long)first,
                     (unsigned long)last);
    }
}

/* RFC 9110 14.4 */
static void a_content_range_is_consistent_or_invalid(void **state)
{
    (void)state;
    struct field_span s;
    assert_int_equal(field_content_range(text("bytes 4-9/10"), &s), 0);
    assert_true(s.first == 4 && s.last == 9 && s.size == 10);
    assert_int_equal(field_content_range(text("Bytes 0-0/1"), &s), 0);
    static const char *const bad[] = {"",
                                      "bytes",
                                      "bytes ",
                                      "bytes 4-9/*",
                                      "bytes */10",
                                      "bytes 4-10/10",
                                      "bytes 5-4/10",
                                      "bytes=4-9/10",
                                      "bytes 4-9",
                                      "bytes 4-/10",
                                      "bytes -9/10",
                                      "bytes 4 - 9/10",
                                      "bytes 4-9/10 ",
                                      "bytes  4-9/10",
                                      "bytes 4-9/10, bytes 0-1/10",
                                      "items 4-9/10",
                                      "bytes 0-9/99999999999999999999",
                                      "bytes 0-99999999999999999999/99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (field_content_range(text(bad[i]), &s) != -EINVAL)
            fail_msg("'%s' is accepted", bad[i]);
}

static void spans_join_where_they_touch(void **state)
{
    (void)state;
    static const struct {
        struct field_span a, b, joined; /* size 0: they do not */
    } cases[] = {
        {{0, 4, 10}, {5, 9, 10}, {0, 9, 10}}, {{5, 9, 10}, {0, 4, 10}, {0, 9, 10}},
        {{0, 6, 10}, {2, 9, 10}, {0, 9, 10}}, {{0, 9, 10}, {3, 4, 10}, {0, 9, 10}},
        {{3, 4, 10}, {0, 9, 10}, {0, 9, 10}}, {{0, 4, 10}, {6, 9, 10}, {0, 0, 0}},
        {{6, 9, 10}, {0, 4, 10}, {0, 0, 0}},  {{0, 4, 10}, {5, 9, 11}, {0, 0, 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct field_span s = {0};
        assert_int_equal(field_span_join(&cases[i].a, &cases[i].b, &s), cases[i].joined.size != 0);
        if (cases[i].joined.size)
            assert_memory_equal(&s, &cases[i].joined, sizeof s);
    }
}

static void tags_made_weak_are_known_again(void **state)
{
    (void)state;
    static const struct {
        const char *tag, *opaque;
    } c[] = {{"W/\"v7~polder\"", "v7"},
             {"W/\"~polder\"", ""},
             {"\"v7~polder\"", NULL},
             {"W/\"v7\"", NULL},
             {"W/\"v7~polde\"", NULL},
             {"W/~polder\"", NULL},
             {"", NULL}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        struct str opaque;
        assert_int_equal(field_etag_unmark(text(c[i].tag), &opaque), c[i].opaque != NULL);
        if (c[i].opaque) {
            assert_int_equal(opaque.len, strlen(c[i].opaque));
            assert_memory_equal(opaque.at, c[i].opaque, opaque.len);
        }
    }
    assert_true(field_etag_listed(text("\"x\", W/\"v7~polder\""), text("\"v7\""), true));
    assert_false(field_etag_listed(text("W/\"v7~polder\""), text("\"v7\""), false));
    assert_false(field_etag_listed(text("W/\"v7~polder\""), text("W/\"v7\""), true));
    assert_false(field_etag_listed(text("W/\"v8~polder\""), text("\"v7\""), true));
    struct str rest = text("junk, \"a\" ,, W/\"b\"x, \"c"), tag;
    assert_true(field_etag_next(&rest, &tag));
    assert_memory_equal(tag.at, "\"a\"", tag.len);
    assert_true(field_etag_next(&rest, &tag));
    assert_memory_equal(tag.at, "W/\"b\"", tag.len);
    assert_false(field_etag_next(&rest, &tag));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_have_commas_outside_quotes_only),
        cmocka_unit_test(a_quote_never_closed_hides_nothing),
        cmocka_unit_test(quotes_never_closed_cost_little),
        cmocka_unit_test(parameters_are_split_and_unquoted),
        cmocka_unit_test(names_are_compared_without_regard_to_case),
        cmocka_unit_test(dates_have_three_forms),
        cmocka_unit_test(two_digit_years_are_the_nearest),
        cmocka_unit_test(dates_are_read_in_any_case),
        cmocka_unit_test(garbled_dates_are_refused),
        cmocka_unit_test(dates_written_are_read_back),
        cmocka_unit_test(seconds_are_digits_and_saturate),
        cmocka_unit_test(an_age_is_the_first_number_of_a_list),
        cmocka_unit_test(every_directive_is_known),
        cmocka_unit_test(lifetimes_that_are_no_numbers_are_invalid),
        cmocka_unit_test(an_argument_that_is_no_list_of_names_does_not_narrow_a_directive),
        cmocka_unit_test(what_is_no_directive_cannot_be_read),
        cmocka_unit_test(only_so_many_directives_are_read),
        cmocka_unit_test(quoted_text_is_no_directive),
        cmocka_unit_test(qualified_directives_name_fields),
        cmocka_unit_test(a_targeted_field_is_a_dictionary),
        cmocka_unit_test(structured_items_are_checked_to_the_letter),
        cmocka_unit_test(surrogate_directives_for_others_are_skipped),
        cmocka_unit_test(groups_are_a_list_of_strings),
        cmocka_unit_test(entity_tags_are_compared_strongly_and_weakly),
        cmocka_unit_test(single_byte_ranges_are_understood),
        cmocka_unit_test(a_content_range_is_consistent_or_invalid),
        cmocka_unit_test(spans_join_where_they_touch),
        cmocka_unit_test(tags_made_weak_are_known_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* limitkey: what an operator writes means the client that workers count. */
#include "polder/limitkey.h"
#include "polder/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
/* after the others: it wants them */
#include <cmocka.h>

#define SEPARATOR "\x1f"

static const struct config_limit by_client = {.key = {{CONFIG_KEY_CLIENT, ""}}, .n_key = 1};
static const struct config_limit by_header = {.key = {{CONFIG_KEY_HEADER, "x-api-key"}},
                                              .n_key = 1};
static const struct config_limit by_both = {
    .key = {{CONFIG_KEY_CLIENT, ""}, {CONFIG_KEY_COOKIE, "sid"}, {CONFIG_KEY_ROUTE, ""}},
    .n_key = 3};

static void an_address_is_sixteen_bytes_of_its_group(void **state)
{
    (void)state;
    char who[64], other[64];
    static const char v4[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, (char)192, 0, 2, 7};
    assert_int_equal(limitkey_from_text(&by_client, "192.0.2.7", who, sizeof who), 16);
    assert_memory_equal(who, v4, 16);
    assert_int_equal(limitkey_client("192.0.2.7", other, sizeof other), 16);
    assert_memory_equal(who, other, 16);
    /* one /64 is one client */
    assert_int_equal(limitkey_client("2001:db8::1", who, sizeof who), 16);
    assert_int_equal(limitkey_client("2001:db8::ffff:1", other, sizeof other), 16);
    assert_memory_equal(who, other, 16);
    assert_int_equal(limitkey_client("2001:db8:0:1::1", other, sizeof other), 16);
    assert_memory_not_equal(who, other, 16);
}

static void other_values_are_taken_as_they_are(void **state)
{
    (void)state;
    char who[64];
    assert_int_equal(limitkey_from_text(&by_header, "a+b c", who, sizeof who), 5);
    assert_memory_equal(who, "a+b c", 5);
    assert_int_equal(limitkey_from_text(&by_header, "", who, sizeof who), 0);
}

static void parts_are_joined_by_plus(void **state)
{
    (void)state;
    char who[64];
    assert_int_equal(limitkey_from_text(&by_both, "192.0.2.7+s1+/a+b", who, sizeof who),
                     16 + 1 + 2 + 1 + 4);
    assert_memory_equal(who + 16, SEPARATOR "s1" SEPARATOR "/a+b", 8);
}

static void too_little_and_too_much_is_refused(void **state)
{
    (void)state;
    char who[20];
    assert_int_equal(limitkey_from_text(&by_client, "nobody", who, sizeof who), -EINVAL);
    assert_int_equal(limitkey_from_text(&by_both, "192.0.2.7+s1", who, sizeof who), -EINVAL);
    assert_int_equal(limitkey_from_text(&by_both, "192.0.2.7+s1+/long", who, sizeof who), -ENOBUFS);
    assert_int_equal(limitkey_from_text(&by_header, "12345678901234567890x", who, sizeof who),
                     -ENOBUFS);
    assert_int_equal(limitkey_client("192.0.2.7", who, 15), -ENOBUFS);
}

static void a_key_is_described_as_the_file_has_it(void **state)
{
    (void)state;
    char text[64], little[8];
    limitkey_describe(&by_both, text, sizeof text);
    assert_string_equal(text, "client+cookie:sid+route");
    limitkey_describe(&by_header, text, sizeof text);
    assert_string_equal(text, "header:x-api-key");
    limitkey_describe(&by_both, little, sizeof little);
    assert_string_equal(little, "client+");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_sixteen_bytes_of_its_group),
        cmocka_unit_test(other_values_are_taken_as_they_are),
        cmocka_unit_test(parts_are_joined_by_plus),
        cmocka_unit_test(too_little_and_too_much_is_refused),
        cmocka_unit_test(a_key_is_described_as_the_file_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

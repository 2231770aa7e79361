/* SPDX-License-Identifier: BSD-2-Clause */
/* Entries of the fleet's log as bytes: what is not signed is not believed. */
#include "daemons/control/model/fleet_entry.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static struct fleet_key key;
static uint8_t bytes[FLEET_ENTRY_MAX];

static size_t sample(enum fleet_kind kind, const char *text)
{
    const struct fleet_entry e = {.kind = kind,
                                  .soft = kind == FLEET_TAG,
                                  .instance = 0x1122334455667788u,
                                  .host = "amber",
                                  .text = text,
                                  .len = strlen(text)};
    fleet_key_make(&key, "prod", "a secret of sixteen");
    return fleet_entry_write(&e, &key, bytes);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    for (int kind = 0; kind < FLEET_KINDS; kind++) {
        struct fleet_entry e;
        const char *text = kind == FLEET_ALL ? "" : "example.org/a?b";
        const size_t len = sample((enum fleet_kind)kind, text);
        assert_int_equal(fleet_entry_read(bytes, len, &key, &e), 0);
        assert_int_equal(e.kind, kind);
        assert_int_equal(e.soft, kind == FLEET_TAG);
        assert_true(e.instance == 0x1122334455667788u);
        assert_string_equal(e.host, "amber");
        assert_int_equal(e.len, strlen(text));
        assert_memory_equal(e.text, text, e.len);
    }
}

static void each_changed_byte_and_each_cut_is_a_strangers(void **state)
{
    (void)state;
    struct fleet_entry e;
    const size_t len = sample(FLEET_URL, "example.org/a");
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 1;
        assert_int_equal(fleet_entry_read(bytes, len, &key, &e), -EPERM);
        bytes[i] ^= 1;
        assert_int_equal(fleet_entry_read(bytes, i, &key, &e), -EPERM);
    }
    assert_int_equal(fleet_entry_read(bytes, len, &key, &e), 0);
}

static void another_fleet_or_secret_is_a_stranger(void **state)
{
    (void)state;
    struct fleet_entry e;
    struct fleet_key other;
    const size_t len = sample(FLEET_URL, "example.org/a");
    fleet_key_make(&other, "test", "a secret of sixteen");
    assert_int_equal(fleet_entry_read(bytes, len, &other, &e), -EPERM);
    fleet_key_make(&other, "prod", "a secret of sixteem");
    assert_int_equal(fleet_entry_read(bytes, len, &other, &e), -EPERM);
}

static void what_is_too_long_is_not_written(void **state)
{
    (void)state;
    static char text[FLEET_TEXT_MAX + 2];
    struct fleet_entry e;
    memset(text, 'a', sizeof text - 1);
    assert_int_equal(sample(FLEET_URL, text), 0);
    text[FLEET_TEXT_MAX] = 0;
    const size_t len = sample(FLEET_URL, text);
    assert_int_equal(fleet_entry_read(bytes, len, &key, &e), 0);
    assert_int_equal(e.len, FLEET_TEXT_MAX);
}

/* Signed right, of a newer version: it is not a stranger's, and may mean anything. */
static void a_newer_version_is_not_understood(void **state)
{
    (void)state;
    struct fleet_entry e = {.kind = FLEET_KINDS, .host = "amber", .text = ""};
    fleet_key_make(&key, "prod", "a secret of sixteen");
    const size_t len = fleet_entry_write(&e, &key, bytes);
    assert_true(len > 0);
    assert_int_equal(fleet_entry_read(bytes, len, &key, &e), -ENOTSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(each_changed_byte_and_each_cut_is_a_strangers),
        cmocka_unit_test(another_fleet_or_secret_is_a_stranger),
        cmocka_unit_test(what_is_too_long_is_not_written),
        cmocka_unit_test(a_newer_version_is_not_understood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* verify: whose token is good, for how long, and what a probe says with it. */
#include "polder/verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct verify_probe look(const struct verify_lease *lease, uint64_t now_ms, const char *text)
{
    return verify_look(lease, now_ms, (struct str){text, strlen(text)});
}

static void a_token_is_good_for_a_while(void **state)
{
    (void)state;
    struct verify_lease lease = {0};
    char token[VERIFY_TOKEN_SIZE], second[VERIFY_TOKEN_SIZE];
    assert_int_equal(look(&lease, 5, "00000000000000000000000000000000").kind, VERIFY_NONE);
    assert_int_equal(verify_begin(&lease, 1000, token), 0);
    assert_int_equal(strlen(token), VERIFY_TOKEN_SIZE - 1);
    const struct verify_probe p = look(&lease, 1000, token);
    assert_int_equal(p.kind, VERIFY_REQUEST);
    assert_int_equal(p.client, 1);
    assert_int_not_equal(p.run, 0);
    assert_int_equal(verify_begin(&lease, 2000, second), -EBUSY);
    assert_int_equal(look(&lease, 999 + VERIFY_LEASE_MS, token).kind, VERIFY_REQUEST);
    assert_int_equal(look(&lease, 1000 + VERIFY_LEASE_MS, token).kind, VERIFY_NONE);
    assert_true(verify_keep(&lease, 2000, (struct str){token, strlen(token)}));
    assert_int_equal(look(&lease, 1999 + VERIFY_LEASE_MS, token).kind, VERIFY_REQUEST);
    assert_int_equal(verify_expired(&lease, 1999 + VERIFY_LEASE_MS), 0);
    assert_int_equal(verify_expired(&lease, 2000 + VERIFY_LEASE_MS), p.run);
    assert_false(verify_keep(&lease, 2000 + VERIFY_LEASE_MS, (struct str){token, strlen(token)}));
    assert_int_equal(verify_begin(&lease, 2000 + VERIFY_LEASE_MS, second), 0);
    assert_string_not_equal(token, second);
    assert_int_equal(look(&lease, 2000 + VERIFY_LEASE_MS, token).kind, VERIFY_NONE);
    assert_int_not_equal(look(&lease, 2000 + VERIFY_LEASE_MS, second).run, p.run);
    verify_end(&lease);
    assert_int_equal(look(&lease, 2001 + VERIFY_LEASE_MS, second).kind, VERIFY_NONE);
    assert_int_equal(verify_expired(&lease, UINT64_MAX), 0);
}

static void words_behind_it_say_what_kind_it_is(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        enum verify_kind kind;
        int client;
    } rows[] = {
        {"", VERIFY_REQUEST, 1},
        {";client=7", VERIFY_REQUEST, 7},
        {";client=254", VERIFY_REQUEST, 254},
        {";limit", VERIFY_LIMIT, 1},
        {";client=3;limit", VERIFY_LIMIT, 3},
        {";local;client=99", VERIFY_LOCAL, 99},
        {";client=255", VERIFY_NONE, 0},
        {";client=0", VERIFY_NONE, 0},
        {";client=1000", VERIFY_NONE, 0},
        {";client=", VERIFY_NONE, 0},
        {";client=-1", VERIFY_NONE, 0},
        {";client=1x", VERIFY_NONE, 0},
        {";", VERIFY_NONE, 0},
        {";;limit", VERIFY_NONE, 0},
        {";limits", VERIFY_NONE, 0},
        {"limit", VERIFY_NONE, 0},
        {" ;limit", VERIFY_NONE, 0},
        {"0", VERIFY_NONE, 0},
    };
    struct verify_lease lease = {0};
    char token[VERIFY_TOKEN_SIZE], text[80];
    assert_int_equal(verify_begin(&lease, 1, token), 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(text, sizeof text, "%s%s", token, rows[i].words);
        const struct verify_probe p = look(&lease, 2, text);
        assert_int_equal(p.kind, rows[i].kind);
        if (p.kind)
            assert_int_equal(p.client, rows[i].client);
    }
}

static void no_other_token_is_good(void **state)
{
    (void)state;
    struct verify_lease lease = {0};
    char token[VERIFY_TOKEN_SIZE], other[VERIFY_TOKEN_SIZE];
    assert_int_equal(verify_begin(&lease, 1, token), 0);
    for (size_t i = 0; i < VERIFY_TOKEN_SIZE - 1; i++) {
        memcpy(other, token, sizeof other);
        other[i] = other[i] == 'a' ? 'b' : 'a';
        assert_int_equal(look(&lease, 2, other).kind, VERIFY_NONE);
        other[i] = 'A'; /* upper case is none of ours */
        assert_int_equal(look(&lease, 2, other).kind, VERIFY_NONE);
        other[i] = 0; /* too short */
        assert_int_equal(look(&lease, 2, other).kind, VERIFY_NONE);
        assert_false(verify_keep(&lease, 2, (struct str){other, strlen(other)}));
    }
    assert_int_equal(look(&lease, 2, "").kind, VERIFY_NONE);
}

static void copies_of_probes_are_told_by_their_host(void **state)
{
    (void)state;
    char host[VERIFY_HOST_SIZE], url[VERIFY_HOST_SIZE + 8];
    assert_int_equal(verify_host(UINT64_C(0x1f), host), VERIFY_HOST_SIZE - 1);
    assert_string_equal(host, "verify-000000000000001f.invalid");
    snprintf(url, sizeof url, "%s/a", host);
    assert_true(verify_is_url(url, strlen(url)));
    assert_false(verify_is_url(host, strlen(host)));
    assert_false(verify_is_url("verify-1.invalid/a", 18));
    assert_false(verify_is_url("verify-000000000000001f.invalie/a", 33));
    assert_false(verify_is_url("", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_good_for_a_while),
        cmocka_unit_test(words_behind_it_say_what_kind_it_is),
        cmocka_unit_test(no_other_token_is_good),
        cmocka_unit_test(copies_of_probes_are_told_by_their_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

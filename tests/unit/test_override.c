/* SPDX-License-Identifier: BSD-2-Clause */
/* Fields by which a client would say another URL, method, host or address than its request does. */
#include "polder/override.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct str text(const char *t)
{
    return (struct str){t, strlen(t)};
}

static void every_spelling_of_a_default_is_found(void **state)
{
    (void)state;
    static const char *const yes[] = {
        "X-Original-URL",  "x_original_url",    "X-Rewrite-Url",    "X-HTTP-Method-Override",
        "X-HTTP-Method",   "X-Method_Override", "X-Host",           "X-HTTP-Host-Override",
        "X-Real-IP",       "True-Client-IP",    "CF-Connecting-IP", "Proxy",
        "X-Forwarded",     "CLIENT_IP",         "X-Scheme",         "X-Url-Scheme",
        "Front-End-Https", "X-Script-Name",     "X-Matched-Path",   "X-Middleware-Subrequest"};
    static const char *const no[] = {"X-Original-URL-2", "Host", "X-Hos",  "X-Requested-With",
                                     "Proxy-Status",     "",     "Accept", "X-Forwarded-For"};
    uint32_t n;
    const struct str *list = override_defaults(&n);
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        assert_true(override_is_listed(text(yes[i]), list, n));
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_false(override_is_listed(text(no[i]), list, n));
}

static void what_replaces_a_request_is_told_from_what_says_who_asks(void **state)
{
    (void)state;
    assert_true(override_replaces_request(text("X_HTTP_Method_Override")));
    assert_true(override_replaces_request(text("X-Host")));
    assert_true(override_replaces_request(text("x-now-route-matches")));
    assert_false(override_replaces_request(text("X-Scheme")));
    assert_false(override_replaces_request(text("X-Real-IP")));
    assert_false(override_replaces_request(text("Content-Type")));
}

static void a_pattern_stands_for_all_that_begin_like_it(void **state)
{
    (void)state;
    const struct str list[] = {text("x-shop-*"), text("x-a")};
    assert_true(override_is_listed(text("X_Shop_Id"), list, 2));
    assert_true(override_is_listed(text("x-shop-"), list, 2));
    assert_true(override_is_listed(text("X-A"), list, 2));
    assert_false(override_is_listed(text("x-sho"), list, 2));
    assert_false(override_is_listed(text("x-ab"), list, 2));
    assert_false(override_is_listed(text("x-a"), list, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_of_a_default_is_found),
        cmocka_unit_test(what_replaces_a_request_is_told_from_what_says_who_asks),
        cmocka_unit_test(a_pattern_stands_for_all_that_begin_like_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

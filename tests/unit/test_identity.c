/* SPDX-License-Identifier: BSD-2-Clause */
/* identity: which fields and cookies say who asks, and which of them a key holds. */
#include "polder/identity.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const usual[] = {"_ga*", "_gid", "consent"};
static const char *const own[] = {"x-shop-*", "customer"};
static const struct config_key keys[] = {{CONFIG_KEY_HEADER, "x-tenant"},
                                         {CONFIG_KEY_COOKIE, "_ga_tenant"}};
static const struct config config = {.identity_keys = keys, .n_identity_keys = 2};

static struct config_cache cache(void)
{
    return (struct config_cache){.ignore_cookies = usual,
                                 .n_ignore_cookies = 3,
                                 .identity_headers = own,
                                 .n_identity_headers = 2};
}

static struct str text(const char *s)
{
    return (struct str){s, strlen(s)};
}

static void names_are_known_configured_or_counted_by(void **state)
{
    (void)state;
    static const char *const yes[] = {"Authorization",
                                      "proxy-authorization",
                                      "X-API-Key",
                                      "Api-Key",
                                      "APIKEY",
                                      "X-Auth-Token",
                                      "x-auth-",
                                      "X-Access-Token",
                                      "X-Token",
                                      "X-Session-Id",
                                      "Private-Token",
                                      "Remote-User",
                                      "X-Forwarded-User",
                                      "X-Forwarded-Email",
                                      "X-Forwarded-Client-Cert",
                                      "X-SSL-Client-S-DN",
                                      "X-Amzn-Oidc-Data",
                                      "Cf-Access-Jwt-Assertion",
                                      "X-Shop-Id",
                                      "CUSTOMER",
                                      "X-Goog-Iap-Jwt-Assertion",
                                      "X-Tenant",
                                      "X_Api_Key",
                                      "X_Auth_User"};
    static const char *const no[] = {"Accept",  "User-Agent",   "X-Auth",      "X-Tokens", "X-Shop",
                                     "Cookies", "Accept-Token", "X-Tenant-Id", "X"};
    const struct config_cache c = cache();
    struct identity_filter filter;
    identity_filter_make(&config, &c, &filter);
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        assert_true(identity_names_header(&config, &c, text(yes[i])));
        assert_true(identity_filter_lets(&filter, text(yes[i])));
    }
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_false(identity_names_header(&config, &c, text(no[i])));
    static const char *const cheap[] = {"Sec-Fetch-Mode", "Accept-Language", "DNT",
                                        "Upgrade-Insecure-Requests", "X-Requested-With"};
    for (size_t i = 0; i < sizeof cheap / sizeof *cheap; i++)
        assert_false(identity_filter_lets(&filter, text(cheap[i])));
}

static void a_filter_lets_all_pass_that_a_pattern_may_name(void **state)
{
    (void)state;
    static const char *const patterns[] = {"z*", "yy*", "q", "-a-*", "k__x"};
    static const char *const names[] = {"Z", "zzz",  "z-any", "YY",   "yyany",
                                        "Q", "_A_b", "-a-",   "k--X", "K_-x"};
    const struct config_cache c = {.identity_headers = patterns, .n_identity_headers = 5};
    struct identity_filter filter;
    identity_filter_make(&config, &c, &filter);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_true(identity_names_header(&config, &c, text(names[i])));
        assert_true(identity_filter_lets(&filter, text(names[i])));
    }
}

/* "name" of those that say who asks, '?' for what cannot be read, joined by a space. */
static const char *asks(const char *value)
{
    static char out[256];
    const struct config_cache c = cache();
    struct str rest = text(value);
    struct identity_cookie cookie;
    size_t n = 0;
    out[0] = 0;
    while (identity_cookie_next(&rest, &cookie))
        if (!identity_ignores_cookie(&config, &c, &cookie))
            n += (size_t)snprintf(out + n, sizeof out - n, "%s%.*s%s", n ? " " : "",
                                  (int)cookie.name.len, cookie.name.at ? cookie.name.at : "",
                                  cookie.readable ? "" : "?");
    return out;
}

static void cookies_say_who_asks_unless_they_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *value, *asks;
    } rows[] = {{"", ""},
                {" ; ;; ", ""},
                {"sid=1", "sid"},
                {"_ga=GA1.2.3; _gid=x; _ga_9=y; consent=yes", ""},
                {"_ga=1; sid=alice;_gid=2", "sid"},
                {"_gidx=1", "_gidx"},
                {"_GA=1", "_GA"},               /* names are what they are, byte by byte */
                {"_ga_tenant=1", "_ga_tenant"}, /* a limit counts by it */
                {"_ga", "?"},
                {"=1", "?"},
                {"sid", "?"},
                {"_ga =1", "?"},
                {"_ga=\"1; sid=alice\"", "_ga? sid?"},
                {"_ga=1, sid=alice", "_ga?"},
                {"_ga=1 sid=alice", "_ga?"},
                {"_ga=a\\b", "_ga?"},
                {"_ga=\xc3\xa9", "_ga?"},
                {"_ga=1\tx", "_ga?"},
                {"\xc2\xa0_ga=1", "?"},
                {"_ga=", ""},
                {"sid=", "sid"},
                {"a=b=c", "a"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(asks(rows[i].value), rows[i].asks);
}

static bool covers(struct config_key part, const char *header, const char *cookie)
{
    struct config_cache c = cache();
    struct identity_cookie parsed;
    struct str rest = text(cookie ? cookie : "");
    c.partition[0] = part;
    c.n_partition = 1;
    if (!cookie)
        return identity_covers_header(&c, text(header));
    assert_true(identity_cookie_next(&rest, &parsed));
    return identity_covers_cookie(&c, &parsed);
}

static void a_key_holds_what_it_is_made_of(void **state)
{
    (void)state;
    const struct config_key sid = {CONFIG_KEY_COOKIE, "sid"}, token = {CONFIG_KEY_JWT, "sub"},
                            tenant = {CONFIG_KEY_HEADER, "x-tenant"},
                            all = {CONFIG_KEY_IDENTITY, ""}, client = {CONFIG_KEY_CLIENT, ""},
                            cookies = {CONFIG_KEY_HEADER, "cookie"};
    assert_true(covers(sid, NULL, "sid=1"));
    assert_true(covers(sid, NULL, "sid="));
    assert_false(covers(sid, NULL, "SID=1"));
    assert_false(covers(sid, NULL, "sid =1"));
    assert_false(covers(sid, NULL, "sid"));
    assert_false(covers(sid, NULL, "side=1"));
    assert_false(covers(sid, "Authorization", NULL));
    assert_true(covers(token, "AUTHORIZATION", NULL));
    assert_false(covers(token, "X-Tenant", NULL));
    assert_true(covers(tenant, "X-Tenant", NULL));
    assert_false(covers(tenant, "X_Tenant", NULL)); /* another one to most backends */
    assert_false(covers(tenant, NULL, "x-tenant=1"));
    assert_true(covers(cookies, NULL, "any=1"));
    assert_false(covers(client, "Authorization", NULL));
    assert_false(covers(client, NULL, "sid=1"));
    assert_true(covers(all, "Authorization", NULL));
    assert_true(covers(all, NULL, "garbage"));
}

static void other_rules_have_another_number(void **state)
{
    (void)state;
    static const char *const fewer[] = {"_ga*", "_gid"};
    static const struct config_key said[] = {{CONFIG_KEY_HEADER, "x-tenant"},
                                             {CONFIG_KEY_COOKIE, "_ga_tenant"},
                                             {CONFIG_KEY_HEADER, "authorization"},
                                             {CONFIG_KEY_HEADER, "x-shop-id"},
                                             {CONFIG_KEY_COOKIE, "sid"}};
    const struct config same = {.identity_keys = said, .n_identity_keys = 5},
                        less = {.identity_keys = said, .n_identity_keys = 1};
    const struct config_cache c = cache();
    const uint32_t number = identity_rules_number(&config, &c);
    assert_int_equal(identity_rules_number(&same, &c), number);
    assert_int_not_equal(identity_rules_number(&less, &c), number);
    struct config_cache other = c;
    other.share = CONFIG_SHARE_ALL;
    assert_int_not_equal(identity_rules_number(&config, &other), number);
    other = c;
    other.ignore_cookies = fewer;
    other.n_ignore_cookies = 2;
    assert_int_not_equal(identity_rules_number(&config, &other), number);
    other = c;
    other.n_identity_headers = 1;
    assert_int_not_equal(identity_rules_number(&config, &other), number);
    other = c;
    other.store_set_cookie = true;
    assert_int_not_equal(identity_rules_number(&config, &other), number);
}

/* Of two partitions the keys may be the same text: the value 7 of one field, and of another. */
static void other_keys_have_another_number(void **state)
{
    (void)state;
    static const char *const names[] = {"user"};
    static const struct config_key parts[][2] = {
        {{CONFIG_KEY_COOKIE, "sid"}},
        {{CONFIG_KEY_COOKIE, "user"}},
        {{CONFIG_KEY_HEADER, "sid"}},
        {{CONFIG_KEY_IDENTITY, ""}},
        {{CONFIG_KEY_COOKIE, "sid"}, {CONFIG_KEY_COOKIE, "user"}},
        {{CONFIG_KEY_COOKIE, "user"}, {CONFIG_KEY_COOKIE, "sid"}},
    };
    static const uint32_t n_parts[] = {1, 1, 1, 1, 2, 2};
    const struct config_cache c = cache();
    uint32_t seen[10] = {identity_rules_number(&config, &c)};
    struct config_cache other = c;
    for (size_t i = 0; i < 6; i++) {
        memcpy(other.partition, parts[i], sizeof parts[i]);
        other.n_partition = n_parts[i];
        seen[i + 1] = identity_rules_number(&config, &other);
    }
    other = c;
    other.ignore_query = names;
    other.n_ignore_query = 1;
    seen[7] = identity_rules_number(&config, &other);
    other = c;
    other.only_query = names;
    other.n_only_query = 1;
    seen[8] = identity_rules_number(&config, &other);
    other.sort_query = true;
    seen[9] = identity_rules_number(&config, &other);
    for (size_t i = 0; i < 10; i++)
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(seen[i], seen[k]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_known_configured_or_counted_by),
        cmocka_unit_test(a_filter_lets_all_pass_that_a_pattern_may_name),
        cmocka_unit_test(cookies_say_who_asks_unless_they_are_named),
        cmocka_unit_test(other_rules_have_another_number),
        cmocka_unit_test(other_keys_have_another_number),
        cmocka_unit_test(a_key_holds_what_it_is_made_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

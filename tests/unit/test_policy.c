/* SPDX-License-Identifier: BSD-2-Clause */
/* policy: each rule of RFC 9111 (and 5861, 9213) by itself. */
#include "polder/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NOW_S  INT64_C(1800000000)
#define NOW_MS ((uint64_t)NOW_S * 1000)

static struct str text(const char *s)
{
    return (struct str){s, strlen(s)};
}

/* ttl 300 s, stale windows 30 s and 3600 s, stated by the operator */
static struct policy_settings settings(void)
{
    return (struct policy_settings){.swr_is_stated = true,
                                    .value = {.ttl_ms = 300000,
                                              .ttl_negative_ms = 5000,
                                              .max_body = 8 << 20,
                                              .stale_while_revalidate_ms = 30000,
                                              .stale_if_error_ms = 3600000}};
}

static struct policy_settings heuristic(void)
{
    struct policy_settings s = settings();
    s.value.ttl_ms = RUNTIME_TTL_HEURISTIC;
    return s;
}

static const struct policy_request get = {.is_get = true};

static struct policy_response response(uint16_t status, const char *cc)
{
    struct policy_response r = {.status = status, .has_date = true, .date = NOW_S};
    field_cc_add(&r.cc, text(cc));
    return r;
}

static enum policy_store stores(uint16_t status, const char *cc)
{
    struct policy_response r = response(status, cc);
    struct policy_settings s = settings();
    return policy_may_store(&get, &r, &s);
}

static struct policy_freshness freshness(const struct policy_response *r, struct policy_settings s)
{
    struct policy_freshness f;
    policy_freshness_of(&get, r, &s, NOW_MS, NOW_MS, &f);
    return f;
}

/* Seconds from receipt to staleness; negative: stale before. */
static int64_t life(const struct policy_response *r, struct policy_settings s)
{
    return ((int64_t)freshness(r, s).fresh_until_ms - (int64_t)NOW_MS) / 1000;
}

static int64_t life_of(uint16_t status, const char *cc)
{
    struct policy_response r = response(status, cc);
    return life(&r, settings());
}

/* ---- RFC 9111 3: storing ---- */

static void answers_to_get_are_stored_and_to_others_not(void **state)
{
    (void)state;
    struct policy_response r = response(200, "max-age=60");
    struct policy_settings s = settings();
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
    struct policy_request head = {.is_head = true}, put = {0};
    assert_int_equal(policy_may_store(&head, &r, &s), POLICY_NO_METHOD);
    assert_int_equal(policy_may_store(&put, &r, &s), POLICY_NO_METHOD);
}

/* RFC 9110 9.3.3 */
static void answers_to_post_need_freshness_and_their_own_location(void **state)
{
    (void)state;
    struct policy_request post = {.is_post = true};
    struct policy_settings s = settings();
    struct policy_response r = response(200, "max-age=60");
    assert_int_equal(policy_may_store(&post, &r, &s), POLICY_NO_METHOD);
    r.content_location_is_target = true;
    assert_int_equal(policy_may_store(&post, &r, &s), POLICY_STORE);
    r.cc = (struct field_cc){0};
    assert_int_equal(policy_may_store(&post, &r, &s), POLICY_NO_METHOD);
}

static void directives_that_forbid_storing_are_obeyed(void **state)
{
    (void)state;
    assert_int_equal(stores(200, "max-age=60, no-store"), POLICY_NO_STORE);
    assert_int_equal(stores(200, "max-age=60, private"), POLICY_NO_PRIVATE);
    assert_int_equal(stores(200, "max-age=60, private=\"a\""), POLICY_STORE);
    assert_int_equal(stores(200, "public, max-age=60"), POLICY_STORE);
}

/* 5.2.2.3 */
static void must_understand_overrides_no_store_for_known_statuses(void **state)
{
    (void)state;
    assert_int_equal(stores(200, "max-age=60, no-store, must-understand"), POLICY_STORE);
    assert_int_equal(stores(599, "max-age=60, no-store, must-understand"), POLICY_NO_STORE);
    assert_int_equal(stores(599, "max-age=60, must-understand"), POLICY_NO_STORE);
    assert_int_equal(stores(599, "max-age=60"), POLICY_STORE);
}

static void any_final_status_is_stored_with_stated_freshness(void **state)
{
    (void)state;
    static const uint16_t statuses[] = {200, 203, 204, 299, 301, 302, 303, 307, 308,
                                        400, 404, 410, 499, 500, 502, 503, 504, 599};
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        assert_int_equal(stores(statuses[i], "max-age=60"), POLICY_STORE);
    static const uint16_t never[] = {100, 103, 206, 304, 428, 429, 431, 511};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        assert_int_equal(stores(never[i], "max-age=60, public"), POLICY_NO_STATUS);
}

/* RFC 9110 15.1 */
static void only_some_statuses_are_stored_without_it(void **state)
{
    (void)state;
    static const uint16_t yes[] = {200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        struct policy_settings s = heuristic();
        struct policy_response r = response(yes[i], "");
        r.has_last_modified = true;
        r.last_modified = NOW_S - 1000;
        assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
        assert_int_equal(life(&r, s), 100);
    }
    static const uint16_t no[] = {201, 202, 302, 307, 400, 403, 500, 502, 503, 504, 599};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        assert_int_equal(stores(no[i], ""), POLICY_NO_STATUS);
        assert_int_equal(stores(no[i], "public"), no[i] < 400 ? POLICY_STORE : POLICY_NO_ERROR);
    }
}

static void what_is_neither_fresh_nor_can_be_validated_is_not_stored(void **state)
{
    (void)state;
    struct policy_settings s = heuristic();
    struct policy_response r = response(200, "");
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_NO_FRESHNESS);
    r.has_etag = true;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
    r = response(200, "");
    r.has_last_modified = true;
    r.last_modified = NOW_S;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
    assert_int_equal(stores(200, "max-age=0"), POLICY_NO_FRESHNESS);
    assert_int_equal(stores(200, "max-age=60, no-cache"), POLICY_NO_FRESHNESS);
    assert_int_equal(stores(200, "max-age=x"), POLICY_NO_FRESHNESS);
    r = response(200, "no-cache");
    r.has_etag = true;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
}

/* 3.5 */
static void authorization_needs_permission_or_a_partition(void **state)
{
    (void)state;
    struct policy_request req = {.is_get = true, .has_authorization = true};
    struct policy_settings s = settings();
    static const char *const allowed[] = {"max-age=60, public", "max-age=60, must-revalidate",
                                          "s-maxage=60"};
    for (int i = 0; i < 3; i++) {
        struct policy_response r = response(200, allowed[i]);
        assert_int_equal(policy_may_store(&req, &r, &s), POLICY_STORE);
        assert_true(freshness(&r, s).flags & CACHE_AUTH_OK);
    }
    struct policy_response r = response(200, "max-age=60, proxy-revalidate");
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_NO_AUTHORIZATION);
    assert_false(freshness(&r, s).flags & CACHE_AUTH_OK);
    s.partitioned_by_authorization = true;
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_STORE);
    assert_true(freshness(&r, s).flags & CACHE_AUTH_OK);
}

static void cookies_are_shared_only_by_permission(void **state)
{
    (void)state;
    struct policy_settings s = settings();
    static const struct {
        const char *cc;
        enum policy_store plain, allowed;
    } cases[] = {
        {"max-age=60", POLICY_NO_SET_COOKIE, POLICY_STORE},
        {"", POLICY_NO_SET_COOKIE, POLICY_NO_SET_COOKIE},
        {"public", POLICY_STORE, POLICY_STORE},
        {"s-maxage=60", POLICY_STORE, POLICY_STORE},
        {"max-age=60, no-cache=\"Set-Cookie\"", POLICY_STORE, POLICY_STORE},
        {"max-age=60, private", POLICY_NO_PRIVATE, POLICY_NO_PRIVATE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct policy_response r = response(200, cases[i].cc);
        r.has_set_cookie = true;
        s.store_set_cookie = false;
        assert_int_equal(policy_may_store(&get, &r, &s), cases[i].plain);
        s.store_set_cookie = true;
        assert_int_equal(policy_may_store(&get, &r, &s), cases[i].allowed);
    }
}

static void variants_without_end_and_large_bodies_are_not_stored(void **state)
{
    (void)state;
    struct policy_settings s = settings();
    struct policy_response r = response(200, "max-age=60");
    r.vary_star = true;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_NO_VARY_STAR);
    r.vary_star = false;
    r.complete_length_known = true;
    r.length = 8 << 20;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
    r.length++;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_NO_TOO_LARGE);
}

static void what_cannot_be_read_may_forbid_it(void **state)
{
    struct policy_settings s = settings();
    struct policy_response r;
    (void)state;
    assert_int_equal(stores(200, "private; max-age=60"), POLICY_NO_UNREADABLE);
    assert_int_equal(stores(200, "public, max-age=60, \"private\""), POLICY_NO_UNREADABLE);
    r = response(200, "max-age=60; private");
    r.has_etag = true;
    s.min_interval_ms = 30000;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_NO_UNREADABLE);
    assert_false(policy_states_shared_lifetime(&r, NOW_MS));
    r = response(200, "public, max-age=60, private;");
    assert_false(policy_states_shared_lifetime(&r, NOW_MS));
}

/* RFC 9213 2.1: it is ignored. What is supposed where nothing is stated is not for it. */
static void a_targeted_field_that_cannot_be_read_states_something(void **state)
{
    struct policy_settings s = settings();
    struct policy_response r = response(200, "");
    (void)state;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
    r.cdn_cc_unreadable = true;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_NO_UNREADABLE);
    r = response(200, "max-age=60");
    r.cdn_cc_unreadable = true;
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
}

static void every_refusal_has_a_reason(void **state)
{
    (void)state;
    for (int why = POLICY_STORE; why <= POLICY_NO_TOO_LARGE; why++)
        assert_true(strlen(policy_store_reason((enum policy_store)why)) > 3);
    assert_string_equal(policy_store_reason((enum policy_store)99), "");
}

/* 3.1, 5.2.2.4, 5.2.2.7 */
static void fields_named_by_qualified_directives_are_left_out(void **state)
{
    (void)state;
    struct policy_response r = response(200, "no-cache=\"a, B\", private=\"c\", max-age=60");
    assert_true(policy_omits(&r, text("A")) && policy_omits(&r, text("b")));
    assert_true(policy_omits(&r, text("C")));
    assert_false(policy_omits(&r, text("d")) || policy_omits(&r, text("aa")));
    r = response(200, "no-cache");
    assert_false(policy_omits(&r, text("a")));
}

/* ---- 4.2: freshness ---- */

/* 4.2.1 */
static void lifetimes_are_taken_from_the_most_specific_source(void **state)
{
    (void)state;
    assert_int_equal(life_of(200, "max-age=60"), 60);
    assert_int_equal(life_of(200, "max-age=60, s-maxage=5"), 5);
    assert_int_equal(life_of(200, "s-maxage=500, max-age=0"), 500);
    struct policy_response r = response(200, "max-age=60");
    r.has_expires = r.expires_valid = true;
    r.expires = NOW_S - 7200;
    assert_int_equal(life(&r, settings()), 60);
    r.cc = (struct field_cc){0};
    assert_int_equal(life(&r, settings()), 0);
    r.expires = NOW_S + 70;
    assert_int_equal(life(&r, settings()), 70);
    r.date = NOW_S + 10; /* a fast clock: what counts is the difference */
    assert_int_equal(life(&r, settings()), 60);
    r.expires_valid = false;
    assert_int_equal(life(&r, settings()), 0);
}

static void invalid_lifetimes_are_stale(void **state)
{
    (void)state;
    assert_int_equal(life_of(200, "max-age=-1"), 0);
    assert_int_equal(life_of(200, "max-age=1800, max-age=1"), 0);
    assert_int_equal(life_of(200, "max-age=99999999999"), INT64_C(1) << 31);
}

/* RFC 9213 2.1 */
static void a_targeted_field_replaces_cache_control_and_expires(void **state)
{
    (void)state;
    struct policy_settings s = settings();
    struct policy_response r = response(200, "no-store, max-age=1");
    r.has_expires = r.expires_valid = true;
    r.expires = NOW_S + 9999;
    r.has_cdn_cc = field_cdn_cc(text("max-age=10000"), &r.cdn_cc);
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
    assert_int_equal(life(&r, s), 10000);
    r = response(200, "max-age=10000, public");
    r.has_cdn_cc = field_cdn_cc(text("private"), &r.cdn_cc);
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_NO_PRIVATE);
    r.has_cdn_cc = field_cdn_cc(text("must-revalidate"), &r.cdn_cc);
    r.has_expires = r.expires_valid = true;
    r.expires = NOW_S + 9999;
    assert_int_equal(life(&r, s), 300); /* states none: ttl */
    assert_true(freshness(&r, s).flags & CACHE_MUST_REVALIDATE);
}

static void ttl_is_for_cacheable_responses_that_state_none(void **state)
{
    (void)state;
    assert_int_equal(life_of(200, ""), 300);
    assert_int_equal(life_of(302, "public"), 300);
    assert_int_equal(life_of(599, "public"), 0);
    assert_int_equal(life_of(599, ""), 0);
    assert_int_equal(life_of(200, "max-age=7"), 7);
}

/* A ttl is for content; that there is none is only good for a moment, with nothing stale behind. */
static void errors_have_a_lifetime_of_their_own(void **state)
{
    (void)state;
    static const uint16_t negative[] = {404, 410}, other[] = {405, 414, 501};
    struct policy_settings s = settings();
    for (size_t i = 0; i < 2; i++) {
        struct policy_response r = response(negative[i], "");
        const struct policy_freshness f = freshness(&r, s);
        assert_int_equal(stores(negative[i], ""), POLICY_STORE);
        assert_int_equal(f.fresh_until_ms, NOW_MS + 5000);
        assert_int_equal(f.swr_until_ms, f.fresh_until_ms);
        assert_int_equal(f.sie_until_ms, f.fresh_until_ms);
        assert_int_equal(life_of(negative[i], "max-age=60"), 60);
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        struct policy_response r = response(other[i], "");
        assert_int_equal(stores(other[i], ""), POLICY_NO_ERROR);
        assert_int_equal(stores(other[i], "max-age=60"), POLICY_STORE);
        r.has_etag = true; /* a validator is no lifetime */
        assert_int_equal(policy_may_store(&get, &r, &s), POLICY_NO_ERROR);
    }
    struct policy_response gone = response(404, "");
    gone.has_etag = true;
    s.value.ttl_negative_ms = 0;
    assert_int_equal(policy_may_store(&get, &gone, &s), POLICY_NO_ERROR);
}

static void a_ttl_may_be_less_than_a_second(void **state)
{
    (void)state;
    struct policy_settings s = settings();
    struct policy_response r = response(200, "");
    struct policy_freshness f;
    s.value.ttl_ms = 1500;
    policy_freshness_of(&get, &r, &s, NOW_MS, NOW_MS, &f);
    assert_int_equal(f.fresh_until_ms, NOW_MS + 1500);
    s.value.ttl_ms = 250;
    policy_freshness_of(&get, &r, &s, NOW_MS, NOW_MS, &f);
    assert_int_equal(f.fresh_until_ms, NOW_MS + 250);
    assert_int_equal(policy_may_store(&get, &r, &s), POLICY_STORE);
}

/* 4.2.2 */
static void a_heuristic_lifetime_is_a_tenth_of_the_age(void **state)
{
    (void)state;
    struct policy_response r = response(200, "");
    assert_int_equal(life(&r, heuristic()), 0);
    r.has_last_modified = true;
    r.last_modified = NOW_S - 3600;
    assert_int_equal(life(&r, heuristic()), 360);
    r.last_modified = NOW_S - 9;
    assert_int_equal(life(&r, heuristic()), 0);
    r.last_modified = NOW_S + 9999;
    assert_int_equal(life(&r, heuristic()), 0);
    r.last_modified = 0;
    assert_int_equal(life(&r, heuristic()), 86400);
    r.last_modified = NOW_S - 3600;
    r.status = 502;
    assert_int_equal(life(&r, heuristic()), 0);
    r.status = 599;
    field_cc_add(&r.cc, text("public"));
    assert_int_equal(life(&r, heuristic()), 360);
}

/* 4.2.3 */
static void age_is_what_others_and_we_have_counted(void **state)
{
    (void)state;
    struct policy_settings s = settings();
    struct policy_freshness f;
    struct policy_response r = response(200, "max-age=3600");
    r.has_age = true;
    r.age = 7200;
    assert_int_equal(freshness(&r, s).age_s, 7200);
    assert_int_equal(life(&r, s), -3600);
    policy_freshness_of(&get, &r, &s, NOW_MS - 5500, NOW_MS, &f); /* response_delay */
    assert_int_equal(f.age_s, 7205);
    r.has_age = false;
    r.date = NOW_S - 100; /* apparent_age */
    policy_freshness_of(&get, &r, &s, NOW_MS - 5500, NOW_MS, &f);
    assert_int_equal(f.age_s, 100);
    assert_int_equal((f.fresh_until_ms - NOW_MS) / 1000, 3500);
    r.date = NOW_S + 100; /* a fast clock counts nothing */
    assert_int_equal(freshness(&r, s).age_s, 0);
    r.has_age = true;
    r.age = UINT32_C(1) << 31;
    r.date = -62135596800;
    assert_int_equal(freshness(&r, s).age_s, INT32_MAX);
    policy_freshness_of(&get, &r, &s, 0, 1, &f); /* a clock at the epoch */
    assert_int_equal(f.fresh_until_ms, 0);
}

/* RFC 5861, RFC 9111 4.2.4 */
static void stale_windows_are_the_responses_own_or_the_settings(void **state)
{
    (void)state;
    static const struct {
        const char *cc;
        uint64_t swr_s, sie_s;
    } cases[] = {
        {"max-age=60", 30, 3600},
        {"max-age=60, stale-while-revalidate=5, stale-if-error=7", 5, 7},
        {"max-age=60, stale-while-revalidate=0, stale-if-error=0", 0, 0},
        {"max-age=60, must-revalidate", 0, 0},
        {"max-age=60, proxy-revalidate, stale-while-revalidate=5", 0, 0},
        {"s-maxage=60, stale-if-error=7", 0, 0},
        {"max-age=60, no-cache", 0, 0},
        {"max-age=0", 0, 3600}, /* wants to be asked about each time */
        {"max-age=0, stale-while-revalidate=9", 9, 3600},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct policy_response r = response(200, cases[i].cc);
        struct policy_freshness f = freshness(&r, settings());
        if (f.swr_until_ms - f.fresh_until_ms != cases[i].swr_s * 1000 ||
            f.sie_until_ms - f.fresh_until_ms != cases[i].sie_s * 1000)
            fail_msg("%s", cases[i].cc);
    }
}

/* RFC 9111 4.2.4: the default is no permission that a backend has given. */
static void the_default_window_is_for_lifetimes_of_our_own(void **state)
{
    (void)state;
    struct policy_settings s = settings();
    s.swr_is_stated = false;
    struct policy_response r = response(200, "max-age=60");
    struct policy_freshness f = freshness(&r, s);
    assert_int_equal(f.swr_until_ms - f.fresh_until_ms, 0);
    r = response(200, "max-age=60, stale-while-revalidate=5");
    f = freshness(&r, s);
    assert_int_equal(f.swr_until_ms - f.fresh_until_ms, 5000);
    r = response(200, "public");
    f = freshness(&r, s);
    assert_int_equal(f.swr_until_ms - f.fresh_until_ms, 30000);
    s.value.ttl_ms = RUNTIME_TTL_HEURISTIC;
    r.has_last_modified = true;
    r.last_modified = NOW_S - 1000;
    f = freshness(&r, s);
    assert_int_equal(f.swr_until_ms - f.fresh_until_ms, 0);
}

/* ---- 4: using ---- */

/* Received at NOW, fresh for 100 s, stale-while-revalidate 30 s, stale-if-error 3600 s. */
static struct cache_record record(uint32_t flags)
{
    return (struct cache_record){.status = 200,
                                 .received_ms = NOW_MS,
                                 .fresh_until_ms = NOW_MS + 100000,
                                 .swr_until_ms = NOW_MS + 130000,
                                 .sie_until_ms = NOW_MS + 3700000,
                                 .age_s = 20,
                                 .flags = flags};
}

static enum policy_use use_at(const struct policy_request *req, uint32_t flags, uint64_t after_ms)
{
    struct cache_record r = record(flags);
    return policy_use_of(req, &r, false, NOW_MS + after_ms);
}

static void fresh_is_served_stale_only_in_its_window(void **state)
{
    (void)state;
    assert_int_equal(use_at(&get, 0, 0), POLICY_FRESH);
    assert_int_equal(use_at(&get, 0, 99999), POLICY_FRESH);
    assert_int_equal(use_at(&get, 0, 100000), POLICY_STALE_OK);
    assert_int_equal(use_at(&get, 0, 129999), POLICY_STALE_OK);
    assert_int_equal(use_at(&get, 0, 130000), POLICY_REVALIDATE);
    assert_int_equal(use_at(&get, CACHE_MUST_REVALIDATE, 99999), POLICY_FRESH);
    assert_int_equal(use_at(&get, CACHE_MUST_REVALIDATE, 100000), POLICY_REVALIDATE);
    assert_int_equal(use_at(&get, CACHE_NO_CACHE, 0), POLICY_REVALIDATE);
}

/* A clock that was wrong then, or is now, says nothing of how old it is. */
static void what_was_received_in_the_future_is_validated(void **state)
{
    (void)state;
    struct cache_record r = record(0);
    r.received_ms = NOW_MS + POLICY_CLOCK_SLACK_MS;
    assert_int_equal(policy_use_of(&get, &r, false, NOW_MS), POLICY_FRESH);
    r.received_ms++;
    assert_int_equal(policy_use_of(&get, &r, false, NOW_MS), POLICY_REVALIDATE);
    r.fresh_until_ms = NOW_MS - 1;
    assert_int_equal(policy_use_of(&get, &r, false, NOW_MS), POLICY_REVALIDATE);
}

static void what_is_softly_invalidated_is_stale(void **state)
{
    (void)state;
    struct cache_record r = record(0), strict = record(CACHE_MUST_REVALIDATE);
    assert_int_equal(policy_use_of(&get, &r, true, NOW_MS), POLICY_STALE_OK);
    assert_int_equal(policy_use_of(&get, &strict, true, NOW_MS), POLICY_REVALIDATE);
    r.swr_until_ms = r.fresh_until_ms = NOW_MS;
    assert_int_equal(policy_use_of(&get, &r, true, NOW_MS), POLICY_REVALIDATE);
}

/* 3.5 */
static void requests_with_authorization_get_only_what_permits_it(void **state)
{
    (void)state;
    struct policy_request req = {.is_get = true, .has_authorization = true};
    struct cache_record no = record(0), yes = record(CACHE_AUTH_OK);
    assert_int_equal(policy_use_of(&req, &no, false, NOW_MS), POLICY_UNUSABLE);
    assert_int_equal(policy_use_of(&req, &yes, false, NOW_MS), POLICY_FRESH);
    assert_false(policy_stale_if_error(&req, &no, NOW_MS + 200000));
    assert_true(policy_stale_if_error(&req, &yes, NOW_MS + 200000));
}

/* 5.2.1: advisory, and obeyed only where a route wants that */
static void request_directives_count_where_they_are_obeyed(void **state)
{
    (void)state;
    static const struct {
        const char *cc;
        uint64_t after_ms;
        enum policy_use ignored, obeyed;
    } cases[] = {
        {"no-cache", 0, POLICY_FRESH, POLICY_REVALIDATE},
        {"max-age=0", 0, POLICY_FRESH, POLICY_REVALIDATE},
        {"max-age=20", 0, POLICY_FRESH, POLICY_REVALIDATE}, /* it came 20 s old */
        {"max-age=21", 0, POLICY_FRESH, POLICY_FRESH},
        {"max-age=25", 5000, POLICY_FRESH, POLICY_REVALIDATE},
        {"min-fresh=100", 0, POLICY_FRESH, POLICY_FRESH},
        {"min-fresh=101", 0, POLICY_FRESH, POLICY_REVALIDATE},
        {"max-stale", 500000, POLICY_REVALIDATE, POLICY_STALE_OK},
        {"max-stale=60", 159999, POLICY_REVALIDATE, POLICY_STALE_OK},
        {"max-stale=60", 160000, POLICY_REVALIDATE, POLICY_REVALIDATE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct policy_request req = {.is_get = true};
        field_cc_add(&req.cc, text(cases[i].cc));
        if (use_at(&req, 0, cases[i].after_ms) != cases[i].ignored)
            fail_msg("%s counts", cases[i].cc);
        req.obey_directives = true;
        if (use_at(&req, 0, cases[i].after_ms) != cases[i].obeyed)
            fail_msg("%s does not count", cases[i].cc);
    }
    struct policy_request req = {.is_get = true, .obey_directives = true};
    field_cc_add(&req.cc, text("max-stale"));
    assert_int_equal(use_at(&req, CACHE_MUST_REVALIDATE, 100000), POLICY_REVALIDATE);
    struct policy_settings s = settings();
    struct policy_response r = response(200, "max-age=60");
    req.cc.flags = FIELD_CC_NO_STORE;
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_NO_STORE);
    req.obey_directives = false;
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_STORE);
}

/* RFC 5861 4 */
static void a_failed_backend_is_replaced_within_the_window(void **state)
{
    (void)state;
    struct cache_record r = record(0);
    assert_true(policy_stale_if_error(&get, &r, NOW_MS + 3699999));
    assert_false(policy_stale_if_error(&get, &r, NOW_MS + 3700000));
    r = record(CACHE_MUST_REVALIDATE);
    assert_false(policy_stale_if_error(&get, &r, NOW_MS + 200000));
    r = record(CACHE_NO_CACHE);
    assert_false(policy_stale_if_error(&get, &r, NOW_MS));
}

/* 4.4 */
static void unsafe_methods_invalidate_unless_they_fail(void **state)
{
    (void)state;
    static const char *const unsafe[] = {"POST",     "PUT", "DELETE", "PATCH",
                                         "M-SEARCH", "get", "GETT"};
    for (size_t i = 0; i < sizeof unsafe / sizeof *unsafe; i++) {
        assert_true(policy_invalidates(unsafe[i], strlen(unsafe[i]), 200));
        assert_true(policy_invalidates(unsafe[i], strlen(unsafe[i]), 303));
        assert_false(policy_invalidates(unsafe[i], strlen(unsafe[i]), 404));
        assert_false(policy_invalidates(unsafe[i], strlen(unsafe[i]), 500));
    }
    static const char *const safe[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT"};
    for (size_t i = 0; i < sizeof safe / sizeof *safe; i++)
        assert_false(policy_invalidates(safe[i], strlen(safe[i]), 200));
}

/* 3.2, 4.3.4 */
static void a_304_replaces_all_but_what_describes_the_bytes(void **state)
{
    (void)state;
    static const char *const kept[] = {
        "Content-Length", "content-encoding", "Content-Range",    "Content-MD5",
        "ETag",           "Connection",       "Transfer-Encoding"};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        assert_false(policy_freshens(text(kept[i])));
    static const char *const replaced[] = {
        "Cache-Control", "Content-Type", "Expires",         "Date",
        "Set-Cookie",    "X-Anything",   "Content-Location"};
    for (size_t i = 0; i < sizeof replaced / sizeof *replaced; i++)
        assert_true(policy_freshens(text(replaced[i])));
}

static struct policy_validators validators(const char *etag, int64_t date)
{
    struct policy_validators v = {.has_last_modified = date != 0, .last_modified = date};
    if (etag)
        v.etag = text(etag);
    return v;
}

/* 4.3.4 */
static void a_304_is_about_what_has_its_validators(void **state)
{
    (void)state;
    static const struct {
        const char *stored;
        int64_t stored_date;
        const char *got;
        int64_t got_date;
        bool agrees;
    } cases[] = {
        {"\"a\"", 7, "\"a\"", 7, true},
        {"\"a\"", 7, "\"a\"", 8, true}, /* the stronger one counts */
        {"\"a\"", 7, "\"b\"", 7, false},
        {"\"a\"", 0, "W/\"a\"", 0, true},
        {"W/\"a\"", 0, "W/\"a\"", 0, true},
        {"W/\"a\"", 0, "\"a\"", 0, false}, /* not the same strong validator */
        {"\"a\"", 0, "W/\"b\"", 0, false},
        {NULL, 7, "\"a\"", 7, false},
        {"\"a\"", 7, NULL, 7, true},
        {"\"a\"", 7, NULL, 8, false},
        {"\"a\"", 0, NULL, 8, false},
        {"\"a\"", 7, NULL, 0, true}, /* only that one was asked about */
        {"a", 0, "a", 0, true},
        {"a", 0, "*", 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct policy_validators stored = validators(cases[i].stored, cases[i].stored_date),
                                       got = validators(cases[i].got, cases[i].got_date);
        if (policy_304_agrees(&stored, &got) != cases[i].agrees)
            fail_msg("case %zu", i);
    }
}

/* 4.3.5 */
static void a_head_response_is_about_what_agrees_in_all_it_says(void **state)
{
    (void)state;
    struct policy_validators stored = validators("\"a\"", 7), got = validators(NULL, 0);
    stored.has_length = true;
    stored.length = 10;
    assert_false(policy_head_agrees(&stored, &got)); /* it says nothing that could agree */
    got.has_length = true;
    got.length = 10;
    assert_false(policy_head_agrees(&stored, &got)); /* nor does a length alone */
    got = validators(NULL, 7);
    assert_true(policy_head_agrees(&stored, &got));
    got = validators("\"a\"", 7);
    assert_true(policy_head_agrees(&stored, &got));
    got.has_length = true;
    got.length = 10;
    assert_true(policy_head_agrees(&stored, &got));
    got.length = 11;
    assert_false(policy_head_agrees(&stored, &got));
    got = validators("\"a\"", 8);
    assert_false(policy_head_agrees(&stored, &got));
    got = validators("\"b\"", 7);
    assert_false(policy_head_agrees(&stored, &got));
    stored = validators(NULL, 7);
    got = validators("\"a\"", 7);
    assert_false(policy_head_agrees(&stored, &got));
}

/* ---- who asks ---- */

static struct policy_request asking(enum policy_identity identity)
{
    return (struct policy_request){.is_get = true, .identity = (uint8_t)identity};
}

static enum policy_store stores_for(enum policy_identity identity, const char *cc)
{
    const struct policy_request req = asking(identity);
    struct policy_response r = response(200, cc);
    struct policy_settings s = settings();
    r.has_etag = true;
    return policy_may_store(&req, &r, &s);
}

static void somebody_shares_only_what_is_stated_to_be_for_all(void **state)
{
    (void)state;
    static const char *const shared[] = {"s-maxage=1", "public, max-age=1",
                                         "max-age=0, s-maxage=5"};
    static const char *const personal[] = {"",
                                           "max-age=60",
                                           "public",
                                           "must-revalidate, max-age=60",
                                           "s-maxage=0",
                                           "public, max-age=0",
                                           "public, s-maxage=0, max-age=60",
                                           "public, max-age=x",
                                           "public, max-age=60, no-cache",
                                           "public, max-age=60, max-age=61"};
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        assert_int_equal(stores_for(POLICY_SHARED, shared[i]), POLICY_STORE);
    for (size_t i = 0; i < sizeof personal / sizeof *personal; i++) {
        assert_int_equal(stores_for(POLICY_SHARED, personal[i]), POLICY_NO_IDENTITY);
        assert_int_not_equal(stores_for(POLICY_ANONYMOUS, personal[i]), POLICY_NO_IDENTITY);
        assert_int_not_equal(stores_for(POLICY_PARTITION, personal[i]), POLICY_NO_IDENTITY);
    }
    assert_int_equal(stores_for(POLICY_SHARED, "s-maxage=9, private"), POLICY_NO_PRIVATE);
}

static void a_targeted_lifetime_and_a_date_are_statements_too(void **state)
{
    (void)state;
    const struct policy_request req = asking(POLICY_SHARED);
    struct policy_settings s = settings();
    struct policy_response r = response(200, "");
    r.has_cdn_cc = true;
    r.cdn_cc = (struct field_cc){.flags = FIELD_CC_MAX_AGE, .max_age = 60};
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_STORE);
    r.cdn_cc.max_age = 0;
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_NO_IDENTITY);
    r = response(200, "public");
    r.has_expires = r.expires_valid = true;
    r.expires = NOW_S + 60;
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_STORE);
    r.expires = NOW_S;
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_NO_IDENTITY);
    r.expires_valid = false;
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_NO_IDENTITY);
    r = response(200, "max-age=60");
    r.varies_by_identity = true;
    assert_int_equal(policy_may_store(&req, &r, &s), POLICY_STORE);
}

static uint64_t supposed_ms(enum policy_identity identity, uint64_t min_interval_ms, bool rfc)
{
    const struct policy_request req = asking(identity);
    const struct policy_response r = response(200, "");
    struct policy_settings s = settings();
    struct policy_freshness f;
    s.min_interval_ms = min_interval_ms;
    s.rfc = rfc;
    policy_freshness_of(&req, &r, &s, NOW_MS, NOW_MS, &f);
    return f.fresh_until_ms - NOW_MS;
}

static void what_we_suppose_is_for_anonymous_requests(void **state)
{
    (void)state;
    assert_int_equal(supposed_ms(POLICY_ANONYMOUS, 0, false), 300000);
    assert_int_equal(supposed_ms(POLICY_OPEN, 0, false), 300000);
    assert_int_equal(supposed_ms(POLICY_SHARED, 0, false), 0);
    assert_int_equal(supposed_ms(POLICY_PARTITION, 0, false), 0);
    assert_int_equal(supposed_ms(POLICY_PARTITION, 30000, false), 30000);
    assert_int_equal(supposed_ms(POLICY_PARTITION, 900000, false), 300000);
    assert_int_equal(supposed_ms(POLICY_PARTITION, 0, true), 300000);
}

static void of_others_copies_only_what_is_fresh_is_given(void **state)
{
    (void)state;
    const struct policy_request all = asking(POLICY_ANONYMOUS);
    struct policy_request one = asking(POLICY_SHARED);
    const struct cache_record rec = {.flags = CACHE_FOR_OTHERS | CACHE_AUTH_OK,
                                     .received_ms = NOW_MS,
                                     .fresh_until_ms = NOW_MS + 1000,
                                     .swr_until_ms = NOW_MS + 9000,
                                     .sie_until_ms = NOW_MS + 9000};
    assert_int_equal(policy_use_of(&one, &rec, false, NOW_MS), POLICY_FRESH);
    assert_int_equal(policy_use_of(&one, &rec, true, NOW_MS), POLICY_REVALIDATE);
    assert_int_equal(policy_use_of(&one, &rec, false, NOW_MS + 2000), POLICY_REVALIDATE);
    assert_int_equal(policy_use_of(&all, &rec, false, NOW_MS + 2000), POLICY_STALE_OK);
    one.obey_directives = true;
    one.cc.flags = FIELD_CC_MAX_STALE;
    one.cc.max_stale = UINT32_MAX;
    assert_int_equal(policy_use_of(&one, &rec, false, NOW_MS + 2000), POLICY_REVALIDATE);
    assert_false(policy_poll_holds(&one, &rec, 9000, NOW_MS + 2000));
    assert_true(policy_poll_holds(&all, &rec, 9000, NOW_MS + 2000));
    assert_false(policy_stale_if_error(&one, &rec, NOW_MS + 2000));
    assert_true(policy_stale_if_error(&all, &rec, NOW_MS + 2000));
}

static void a_public_response_is_kept_without_its_cookies(void **state)
{
    (void)state;
    struct policy_response r = response(200, "public, max-age=60");
    r.has_set_cookie = true;
    assert_false(policy_omits(&r, text("set-cookie")));
    r.omits_set_cookie = true;
    assert_true(policy_omits(&r, text("Set-Cookie")));
    assert_false(policy_omits(&r, text("etag")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_to_get_are_stored_and_to_others_not),
        cmocka_unit_test(answers_to_post_need_freshness_and_their_own_location),
        cmocka_unit_test(directives_that_forbid_storing_are_obeyed),
        cmocka_unit_test(must_understand_overrides_no_store_for_known_statuses),
        cmocka_unit_test(any_final_status_is_stored_with_stated_freshness),
        cmocka_unit_test(only_some_statuses_are_stored_without_it),
        cmocka_unit_test(what_is_neither_fresh_nor_can_be_validated_is_not_stored),
        cmocka_unit_test(authorization_needs_permission_or_a_partition),
        cmocka_unit_test(cookies_are_shared_only_by_permission),
        cmocka_unit_test(variants_without_end_and_large_bodies_are_not_stored),
        cmocka_unit_test(what_cannot_be_read_may_forbid_it),
        cmocka_unit_test(a_targeted_field_that_cannot_be_read_states_something),
        cmocka_unit_test(every_refusal_has_a_reason),
        cmocka_unit_test(fields_named_by_qualified_directives_are_left_out),
        cmocka_unit_test(lifetimes_are_taken_from_the_most_specific_source),
        cmocka_unit_test(invalid_lifetimes_are_stale),
        cmocka_unit_test(a_targeted_field_replaces_cache_control_and_expires),
        cmocka_unit_test(ttl_is_for_cacheable_responses_that_state_none),
        cmocka_unit_test(errors_have_a_lifetime_of_their_own),
        cmocka_unit_test(a_ttl_may_be_less_than_a_second),
        cmocka_unit_test(a_heuristic_lifetime_is_a_tenth_of_the_age),
        cmocka_unit_test(age_is_what_others_and_we_have_counted),
        cmocka_unit_test(stale_windows_are_the_responses_own_or_the_settings),
        cmocka_unit_test(the_default_window_is_for_lifetimes_of_our_own),
        cmocka_unit_test(fresh_is_served_stale_only_in_its_window),
        cmocka_unit_test(what_was_received_in_the_future_is_validated),
        cmocka_unit_test(what_is_softly_invalidated_is_stale),
        cmocka_unit_test(requests_with_authorization_get_only_what_permits_it),
        cmocka_unit_test(request_directives_count_where_they_are_obeyed),
        cmocka_unit_test(a_failed_backend_is_replaced_within_the_window),
        cmocka_unit_test(unsafe_methods_invalidate_unless_they_fail),
        cmocka_unit_test(a_304_replaces_all_but_what_describes_the_bytes),
        cmocka_unit_test(a_304_is_about_what_has_its_validators),
        cmocka_unit_test(a_head_response_is_about_what_agrees_in_all_it_says),
        cmocka_unit_test(somebody_shares_only_what_is_stated_to_be_for_all),
        cmocka_unit_test(a_targeted_lifetime_and_a_date_are_statements_too),
        cmocka_unit_test(what_we_suppose_is_for_anonymous_requests),
        cmocka_unit_test(of_others_copies_only_what_is_fresh_is_given),
        cmocka_unit_test(a_public_response_is_kept_without_its_cookies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

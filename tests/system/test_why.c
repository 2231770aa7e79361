/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of `polderctl cache why`: which invalidation it was, what is under way, what became of
 * what is gone; and that the next request gets what it foretold, as Cache-Status says. */
#include "harness.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct backend *backend;
static atomic_bool held, failing;

static bool answers(struct asked *a)
{
    const char *t = a->target;
    while (!strncmp(t, "/held", 5) && atomic_load(&held))
        nap_ms(5);
    if (atomic_load(&failing))
        return reply(a, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    if (!strncmp(t, "/no-store", 9))
        return reply_ok(a, "Cache-Control: no-store\r\n", "x");
    if (strstr(t, "/short"))
        return reply_ok(a, "Cache-Control: max-age=1\r\nETag: \"1\"\r\n", "x");
    if (strstr(t, "/zero"))
        return reply_ok(a, "Cache-Control: max-age=0\r\nETag: \"1\"\r\n", "x");
    if (strstr(t, "/no-cache"))
        return reply_ok(a, "Cache-Control: no-cache, max-age=60\r\nETag: \"1\"\r\n", "x");
    if (strstr(t, "/vary"))
        return reply_ok(a, "Cache-Control: max-age=60\r\nVary: Accept-Language\r\n", "x");
    return reply_ok(
        a,
        "Cache-Control: max-age=60\r\nCache-Groups: \"group one\", \"items\"\r\n"
        "Surrogate-Key: key-one key-two\r\nxkey: x-one\r\nCache-Tag: tag-one,tag-two\r\n",
        "x");
}

static void start(struct house *h, const char *cache)
{
    house_start(h, 2,
                "cache { %s }\nupstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"l\" { requests = 60000 }\n"
                "route \"/swr/*\" { upstream = \"u\" cache { stale_while_revalidate = \"60s\" } }\n"
                "route \"/poll/*\" { upstream = \"u\" cache { } poll { min_interval = \"60s\" } }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"l\"} cache { stale_while_revalidate = "
                "\"0s\" } }\n",
                cache, backend_port(backend));
    atomic_store(&held, false);
    atomic_store(&failing, false);
}

static json_t *why(struct house *h, const char *path)
{
    const char *out;
    json_error_t e;
    assert_int_equal(ctl(h, &out, "--json cache why 'http://test.example%s'", path), 0);
    json_t *j = json_loads(out, 0, &e);
    if (!j)
        fail_msg("cache why %s: %s", path, out);
    return j;
}

static json_t *variant(const json_t *j)
{
    return json_array_get(json_object_get(j, "variants"), 0);
}

static const char *text_of(const json_t *j, const char *member)
{
    const char *text = json_string_value(json_object_get(j, member));
    return text ? text : "";
}

static bool is_stored(struct house *h, const char *path)
{
    json_t *j = why(h, path);
    const bool there = variant(j) != NULL;
    json_decref(j);
    return there;
}

static void store(struct house *h, const char *path)
{
    assert_int_equal(get(h->port, path, NULL), 200);
    wait_until(is_stored(h, path), 3000);
}

/* ---- invalidations ---- */

static const struct {
    const char *command, *by;
} kinds[] = {
    {"http://test.example/a/1?b", "its URL"},
    {"'/a/1?b'", "its path on all hosts"},
    {"--prefix test.example/a/", "prefix test.example/a/"},
    {"--prefix /a", "prefix /a"},
    {"--tag 'group one'", "tag group one"},
    {"--tag items", "tag items"},
    {"--tag key-two", "tag key-two"},
    {"--tag x-one", "tag x-one"},
    {"--tag tag-two", "tag tag-two"},
    {"--all", "everything"},
};

static void soft_ones_are_named_on_what_is_stored(void **state)
{
    (void)state;
    struct house h;
    start(&h, "");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        store(&h, "/a/1?b");
        json_t *j = why(&h, "/a/1?b");
        assert_int_equal(json_array_size(json_object_get(variant(j), "invalidated_by")), 0);
        assert_int_equal(json_array_size(json_object_get(variant(j), "tag_names")), 7);
        json_decref(j);
        assert_int_equal(ctl(&h, NULL, "cache invalidate --soft %s", kinds[i].command), 0);
        j = why(&h, "/a/1?b");
        const json_t *one = json_array_get(json_object_get(variant(j), "invalidated_by"), 0);
        assert_string_equal(text_of(one, "by"), kinds[i].by);
        assert_true(json_is_false(json_object_get(one, "hard")));
        assert_true(json_integer_value(json_object_get(one, "sequence")) > 0);
        const json_int_t when = json_integer_value(json_object_get(one, "when"));
        assert_in_range(when, time(NULL) - 60, time(NULL) + 1);
        assert_non_null(strstr(text_of(variant(j), "next"), kinds[i].by));
        assert_non_null(strstr(text_of(variant(j), "next"), "softly"));
        json_decref(j);
        assert_int_equal(ctl(&h, NULL, "cache invalidate --all"), 0);
    }
    house_remove(&h);
}

static void hard_ones_are_named_even_when_the_copy_is_gone(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, "");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        store(&h, "/a/1?b");
        assert_int_equal(ctl(&h, NULL, "cache invalidate %s", kinds[i].command), 0);
        json_t *j = why(&h, "/a/1?b"); /* the keeper may have deleted it, or not yet */
        const json_t *v = variant(j), *from = v ? v : j;
        const json_t *by = v ? json_array_get(json_object_get(v, "invalidated_by"), 0)
                             : json_object_get(j, "removed");
        assert_string_equal(text_of(by, "by"), kinds[i].by);
        assert_non_null(strstr(text_of(from, "next"), kinds[i].by));
        assert_string_equal(text_of(from, "cache_status"), "fwd=uri-miss");
        json_decref(j);
        wait_until(!is_stored(&h, "/a/1?b"), 8000);
        j = why(&h, "/a/1?b");
        assert_string_equal(text_of(json_object_get(j, "removed"), "how"), "invalidated");
        assert_string_equal(text_of(json_object_get(j, "removed"), "by"), kinds[i].by);
        json_decref(j);
    }
    assert_int_equal(ctl(&h, &out, "cache why 'http://test.example/a/1?b'"), 0);
    assert_non_null(strstr(out, "a copy was removed: invalidated by everything"));
    house_remove(&h);
}

static void what_was_evicted_is_told_so(void **state)
{
    (void)state;
    struct house h;
    char path[32];
    start(&h, "max_items = 20");
    store(&h, "/a/first");
    for (unsigned i = 0; i < 100; i++) {
        snprintf(path, sizeof path, "/n/%u", i);
        get(h.port, path, NULL);
    }
    wait_until(!is_stored(&h, "/a/first"), 5000);
    json_t *j = why(&h, "/a/first");
    assert_string_equal(text_of(json_object_get(j, "removed"), "how"), "evicted");
    assert_non_null(strstr(text_of(j, "next"), "evicted"));
    json_decref(j);
    house_remove(&h);
}

/* ---- what is under way ---- */

static void *get_held(void *arg)
{
    struct message m;
    get(*(const unsigned *)arg, "/held/1", &m);
    char *status = strdup(field_of(&m, "Cache-Status"));
    message_free(&m);
    return status;
}

static bool flag(struct house *h, const char *path, const char *member)
{
    json_t *j = why(h, path);
    const bool on = json_is_true(json_object_get(j, member));
    json_decref(j);
    return on;
}

static void fetches_limits_and_the_warm_list_are_shown(void **state)
{
    (void)state;
    struct house h;
    pthread_t first;
    void *status;
    const char *out;
    start(&h, "warm = {\"test.example/w/1\", \"/w/bare\"}");
    assert_true(flag(&h, "/w/1", "in_warm_list"));
    assert_true(flag(&h, "/w/bare", "in_warm_list"));
    assert_false(flag(&h, "/w/2", "in_warm_list"));
    assert_false(flag(&h, "/held/1", "being_fetched"));
    atomic_store(&held, true);
    pthread_create(&first, NULL, get_held, &h.port);
    wait_until(flag(&h, "/held/1", "being_fetched"), 3000);
    atomic_store(&held, false);
    pthread_join(first, &status);
    free(status);
    wait_until(!flag(&h, "/held/1", "being_fetched"), 3000);
    json_t *j = why(&h, "/no-store");
    assert_int_equal(json_integer_value(json_object_get(j, "hit_for_miss_ms")), 0);
    assert_string_equal(json_string_value(json_array_get(json_object_get(j, "limits"), 0)), "l");
    json_decref(j);
    get(h.port, "/no-store", NULL);
    j = why(&h, "/no-store");
    assert_in_range(json_integer_value(json_object_get(j, "hit_for_miss_ms")), 1000, 31000);
    json_decref(j);
    store(&h, "/a/1");
    j = why(&h, "/a/1");
    assert_non_null(strstr(text_of(variant(j), "refresh"), "not yet"));
    assert_true(json_integer_value(json_object_get(variant(j), "refresh_from")) > time(NULL) + 30);
    assert_true(json_is_integer(json_object_get(variant(j), "reads")));
    assert_non_null(strstr("small main", text_of(variant(j), "queue")));
    json_decref(j);
    assert_int_equal(ctl(&h, &out, "cache why http://test.example/a/1"), 0);
    assert_non_null(strstr(out, "refresh from"));
    assert_non_null(strstr(out, "UTC"));
    house_remove(&h);
}

/* ---- what it foretells ---- */

static void split_ttl(const char *text, long *ttl, char *rest, size_t size)
{
    char *end;
    assert_int_equal(strncmp(text, "hit; ttl=", 9), 0);
    *ttl = strtol(text + 9, &end, 10);
    snprintf(rest, size, "%s", end);
}

/* Asks why, then for it, and compares. wanted: what both have to say. */
static void expect_as_foretold(struct house *h, const char *path, const char *wanted)
{
    char foretold[160], rest[2][160];
    struct message m;
    long ttl[2];
    json_t *j = why(h, path);
    snprintf(foretold, sizeof foretold, "%s", text_of(variant(j) ? variant(j) : j, "cache_status"));
    json_decref(j);
    assert_int_equal(get(h->port, path, &m), 200);
    char status[200];
    snprintf(status, sizeof status, "%s", field_of(&m, "Cache-Status"));
    message_free(&m);
    assert_int_equal(strncmp(status, "polder; ", 8), 0);
    assert_null(strstr(status, "key="));
    if (strncmp(foretold, wanted, strlen(wanted)) || strncmp(status + 8, wanted, strlen(wanted)))
        fail_msg("%s: why says \"%s\", the answer \"%s\"; wanted \"%s\"", path, foretold, status,
                 wanted);
    if (strncmp(foretold, "hit", 3))
        return;
    split_ttl(foretold, &ttl[0], rest[0], sizeof rest[0]);
    split_ttl(status + 8, &ttl[1], rest[1], sizeof rest[1]);
    assert_string_equal(rest[0], rest[1]);
    assert_in_range(ttl[0] - ttl[1] + 1, 0, 3); /* a second may have passed between */
}

static bool has_ended(struct house *h, const char *path)
{
    json_t *j = why(h, path);
    const bool stale = json_real_value(json_object_get(variant(j), "ttl")) < 0;
    json_decref(j);
    return stale;
}

static void the_next_request_gets_what_why_foretold(void **state)
{
    (void)state;
    struct house h;
    start(&h, "stale_if_error = \"1h\"");
    expect_as_foretold(&h, "/a/1", "fwd=uri-miss");
    wait_until(is_stored(&h, "/a/1"), 3000);
    expect_as_foretold(&h, "/a/1", "hit; ttl=5");
    assert_int_equal(ctl(&h, NULL, "cache invalidate --soft --tag items"), 0);
    expect_as_foretold(&h, "/a/1", "fwd=stale");
    assert_int_equal(ctl(&h, NULL, "cache invalidate --tag items"), 0);
    expect_as_foretold(&h, "/a/1", "fwd=uri-miss");
    store(&h, "/swr/1");
    assert_int_equal(ctl(&h, NULL, "cache invalidate --soft http://test.example/swr/1"), 0);
    expect_as_foretold(&h, "/swr/1", "hit; ttl=0; detail=stale-while-revalidate");
    store(&h, "/swr/short");
    wait_until(has_ended(&h, "/swr/short"), 4000);
    expect_as_foretold(&h, "/swr/short", "hit; ttl=-");
    store(&h, "/short");
    wait_until(has_ended(&h, "/short"), 4000);
    expect_as_foretold(&h, "/short", "fwd=stale");
    store(&h, "/zero");
    expect_as_foretold(&h, "/zero", "fwd=stale");
    store(&h, "/no-cache");
    expect_as_foretold(&h, "/no-cache", "fwd=stale");
    store(&h, "/poll/zero");
    wait_until(has_ended(&h, "/poll/zero"), 4000);
    expect_as_foretold(&h, "/poll/zero", "hit; ttl=-");
    json_t *j = why(&h, "/poll/zero");
    assert_non_null(strstr(text_of(variant(j), "cache_status"), "; detail=poll-interval"));
    assert_non_null(strstr(text_of(variant(j), "next"), "within the poll's interval"));
    json_decref(j);
    store(&h, "/vary");
    j = why(&h, "/vary"); /* a vary_record and a variant */
    assert_int_equal(json_array_size(json_object_get(j, "variants")), 2);
    json_decref(j);
    const char *out;
    get_with(h.port, "/vary", "Accept-Language: nl\r\n", NULL);
    wait_until(ctl(&h, &out, "cache show http://test.example/vary") == 0 &&
                   strstr(out, "accept-language: nl"),
               3000);
    assert_non_null(strstr(out, "vary record: names"));
    house_remove(&h);
}

static void cache_status_says_why_stale_content_was_given(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, "stale_if_error = \"1h\"");
    store(&h, "/short");
    wait_until(has_ended(&h, "/short"), 4000);
    atomic_store(&failing, true);
    assert_int_equal(get(h.port, "/short", &m), 200);
    assert_string_equal(field_of(&m, "Cache-Status"),
                        "polder; fwd=stale; fwd-status=503; detail=stale-if-error");
    message_free(&m);
    house_remove(&h);
}

static void cache_status_says_what_a_collapsed_request_had_waited_for(void **state)
{
    (void)state;
    struct house h;
    pthread_t t[4];
    static const char *const wanted[] = {"fwd=uri-miss", "fwd=stale"};
    start(&h, "");
    for (int round = 0; round < 2; round++) {
        unsigned collapsed = 0;
        atomic_store(&held, true);
        for (int i = 0; i < 4; i++)
            pthread_create(&t[i], NULL, get_held, &h.port);
        wait_until(flag(&h, "/held/1", "being_fetched"), 3000);
        nap_ms(100); /* the others arrive */
        atomic_store(&held, false);
        for (int i = 0; i < 4; i++) {
            void *status;
            pthread_join(t[i], &status);
            assert_non_null(strstr(status, wanted[round]));
            collapsed += strstr(status, "; collapsed") != NULL;
            free(status);
        }
        assert_true(collapsed >= 1);
        wait_until(is_stored(&h, "/held/1"), 3000);
        assert_int_equal(ctl(&h, NULL, "cache invalidate --soft http://test.example/held/1"), 0);
    }
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(soft_ones_are_named_on_what_is_stored),
        cmocka_unit_test(hard_ones_are_named_even_when_the_copy_is_gone),
        cmocka_unit_test(what_was_evicted_is_told_so),
        cmocka_unit_test(fetches_limits_and_the_warm_list_are_shown),
        cmocka_unit_test(the_next_request_gets_what_why_foretold),
        cmocka_unit_test(cache_status_says_why_stale_content_was_given),
        cmocka_unit_test(cache_status_says_what_a_collapsed_request_had_waited_for),
    };
    return run_with_backend(tests, &backend, answers);
}

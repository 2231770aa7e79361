/* SPDX-License-Identifier: BSD-2-Clause */
/* Three daemons and a real Redis: variants, renewals, negative answers and background fetches of one host
 * are those of all. One fleet for all stories. */
#include "fleet_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STALE_MS 2100 /* after so long what has max-age=2 is stale */

static struct backend *backend;
static struct fleet fleet = {
    .sharing = "shared = true shared_timeout = 10s ttl = 60s ttl_negative = 60s",
    .routes = "trusted_proxies = {\"127.0.0.1\"}\n"
              "route \"/poll/*\" { upstream = \"u\" cache { } poll { min_interval = 60s } }"};
static _Atomic unsigned version = 1, delay_ms, whole, renewals;

static bool has(const struct asked *ask, const char *text)
{
    return strstr(ask->target, text) != NULL;
}

/* 304 to a request with the validator of now. */
static bool answers_validated(struct asked *ask, const char *lines, const char *body)
{
    char etag[32], all[256];
    const char *sent = field_of(&ask->m, "If-None-Match");
    snprintf(etag, sizeof etag, "\"v%u\"", atomic_load(&version));
    snprintf(all, sizeof all, "%sETag: %s\r\n", lines, etag);
    if (sent && !strcmp(sent, etag)) {
        atomic_fetch_add(&renewals, 1);
        return reply(ask, "HTTP/1.1 304 Not Modified\r\n%s\r\n", all);
    }
    atomic_fetch_add(&whole, 1);
    return reply_ok(ask, all, body);
}

static bool answers(struct asked *ask)
{
    char body[100001];
    const char *kind = field_of(&ask->m, "X-Kind");
    if (!strcmp(ask->method, "POST")) {
        atomic_fetch_add(&version, 1);
        return reply(ask, "HTTP/1.1 204 No Content\r\n\r\n");
    }
    int len = snprintf(body, 100, "%u %s", atomic_load(&version), kind ? kind : "none");
    nap_ms(atomic_load(&delay_ms));
    if (has(ask, "/vary"))
        return reply_ok(ask, "Cache-Control: max-age=300\r\nVary: X-Kind\r\n", body);
    if (has(ask, "/gone"))
        return reply(ask, "HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\nno",
                     has(ask, "410") ? "410 Gone" : "404 Not Found");
    if (has(ask, "/moved"))
        return reply(ask, "HTTP/1.1 301 Moved Permanently\r\nCache-Control: max-age=300\r\n"
                          "Location: /a\r\nContent-Length: 0\r\n\r\n");
    if (has(ask, "/poll"))
        return reply_ok(ask, "Cache-Control: no-cache\r\n", body);
    if (has(ask, "/swr"))
        return reply_ok(ask, "Cache-Control: max-age=2, stale-while-revalidate=60\r\n", body);
    if (has(ask, "/ahead"))
        return reply_ok(ask, "Cache-Control: max-age=3\r\n", body);
    if (has(ask, "long")) {
        memset(body + len, 'x', 100000 - (size_t)len);
        body[100000] = 0;
    }
    return answers_validated(ask, "Cache-Control: max-age=2\r\n", body);
}

static void wait_stale(void)
{
    const uint64_t until = mono_ms() + STALE_MS;
    while (mono_ms() < until)
        nap_ms(20);
}

static unsigned version_of(int host, const char *path, const char *fields)
{
    struct message m;
    assert_int_equal(fleet_get(&fleet.host[host], path, fields, &m), 200);
    const unsigned n = (unsigned)atoi(m.body);
    message_free(&m);
    return n;
}

/* How many objects it has given to the store. */
static unsigned given(int host)
{
    return fleet_number(&fleet.host[host], "puts");
}

static bool from_fleet(int host, const char *path, const char *fields)
{
    return fleet_answers(&fleet.host[host], path, fields, 200, "detail=fleet");
}

/* ---- variants ---- */

static void all_variants_are_shared_and_end_together(void **state)
{
    (void)state;
    const unsigned calls = backend_calls(backend), objects = fleet_keys(&fleet, 'o');
    version_of(0, "/vary", "X-Kind: 1\r\n");
    wait_until(fleet_keys(&fleet, 'o') == objects + 2, 5000);
    assert_true(from_fleet(1, "/vary", "X-Kind: 1\r\n"));
    assert_true(fleet_answers(&fleet.host[1], "/vary", "X-Kind: 1\r\n", 200, "hit"));
    version_of(1, "/vary", "X-Kind: 2\r\n");
    version_of(1, "/vary", "");
    wait_until(fleet_keys(&fleet, 'o') == objects + 4, 5000);
    assert_true(from_fleet(2, "/vary", "X-Kind: 2\r\n"));
    assert_true(from_fleet(2, "/vary", "X-Kind: 1\r\n"));
    assert_true(from_fleet(0, "/vary", "X-Kind: 2\r\n"));
    assert_true(from_fleet(0, "/vary", ""));
    assert_int_equal(backend_calls(backend) - calls, 3);
    const unsigned n = atomic_fetch_add(&version, 1) + 1;
    const char *out;
    assert_int_equal(ctl(&fleet.host[2], &out, "cache invalidate http://example.org/vary"), 0);
    for (int i = 0; i < FLEET_HOSTS; i++) {
        wait_until(version_of(i, "/vary", "X-Kind: 1\r\n") == n, 5000);
        assert_int_equal(version_of(i, "/vary", "X-Kind: 2\r\n"), n);
        assert_int_equal(version_of(i, "/vary", ""), n);
    }
}

static void variants_of_a_url_are_bounded(void **state)
{
    (void)state;
    char fields[32];
    const unsigned objects = fleet_keys(&fleet, 'o'), stored = fleet_keys(&fleet, 'v');
    for (int i = 0; i < 70; i++) {
        snprintf(fields, sizeof fields, "X-Kind: %d\r\n", i);
        version_of(i % FLEET_HOSTS, "/vary-much", fields);
    }
    wait_until(fleet_keys(&fleet, 'o') == objects + 65, 5000); /* and by which fields it varies */
    assert_int_equal(fleet_keys(&fleet, 'v'), stored + 1);
}

static void ask_all(const char *path, const char *const *fields, int n)
{
    int fd[FLEET_HOSTS * 3];
    for (int i = 0; i < FLEET_HOSTS * n; i++) {
        fd[i] = client_connect(fleet.host[i / n].port);
        client_send(fd[i], "GET %s HTTP/1.1\r\nHost: example.org\r\n%s\r\n", path, fields[i % n]);
    }
    for (int i = 0; i < FLEET_HOSTS * n; i++) {
        struct message m;
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
        close(fd[i]);
    }
}

static void each_cold_variant_is_fetched_once_by_all_hosts(void **state)
{
    (void)state;
    static const char *const kinds[] = {"X-Kind: 1\r\n", "X-Kind: 2\r\n", "X-Kind: 3\r\n"};
    const unsigned calls = backend_calls(backend);
    atomic_store(&delay_ms, 150);
    ask_all("/vary-cold", kinds, 3);
    atomic_store(&delay_ms, 0);
    assert_int_equal(backend_calls(backend) - calls, 3);
}

/* ---- renewals ---- */

/* Fetched by the first host and given to the store; taken by the others, up to that one. */
static void prepare(const char *path, int others)
{
    const unsigned puts = given(0);
    version_of(0, path, "");
    wait_until(given(0) == puts + 1, 5000);
    for (int i = 1; i <= others; i++)
        assert_true(from_fleet(i, path, ""));
}

/* What the next stories need, so that all of them wait but once. */
static void what_is_to_be_stale(void **state)
{
    (void)state;
    prepare("/etag", 1);
    prepare("/etag-long", 1);
    prepare("/old", 0);
    prepare("/old-long", 0);
    prepare("/same", 2);
    prepare("/swr", 2);
    wait_stale();
}

static void a_renewal_is_that_of_all_hosts(void **state)
{
    (void)state;
    static const char *const paths[] = {"/etag", "/etag-long"};
    const unsigned calls = backend_calls(backend), old = atomic_load(&renewals), puts = given(0);
    for (int i = 0; i < 2; i++) {
        assert_true(fleet_answers(&fleet.host[0], paths[i], "", 200, "fwd-status=304"));
        wait_until(given(0) == puts + (unsigned)i + 1, 5000);
        assert_true(
            fleet_answers(&fleet.host[1], paths[i], "", 200, "fwd=stale; collapsed; detail=fleet"));
        assert_true(from_fleet(2, paths[i], "")); /* it had nothing */
        assert_int_equal(backend_calls(backend) - calls, i + 1);
    }
    assert_int_equal(atomic_load(&renewals) - old, 2);
}

static void what_is_stale_in_the_store_is_validated(void **state)
{
    (void)state;
    static const char *const paths[] = {"/old", "/old-long"};
    const unsigned fetched = atomic_load(&whole), old = atomic_load(&renewals);
    for (int i = 0; i < 2; i++)
        assert_true(fleet_answers(&fleet.host[2], paths[i], "", 200, "fwd-status=304"));
    assert_int_equal(atomic_load(&whole) - fetched, 0);
    assert_int_equal(atomic_load(&renewals) - old, 2);
}

static void hosts_validate_the_same_once(void **state)
{
    (void)state;
    static const char *const none[] = {""};
    const unsigned calls = backend_calls(backend);
    atomic_store(&delay_ms, 150);
    ask_all("/same", none, 1);
    atomic_store(&delay_ms, 0);
    assert_int_equal(backend_calls(backend) - calls, 1);
}

static void a_stale_answer_is_refreshed_once_by_all_hosts(void **state)
{
    (void)state;
    const unsigned calls = backend_calls(backend), n = atomic_fetch_add(&version, 1) + 1;
    atomic_store(&delay_ms, 200);
    for (int i = 0; i < FLEET_HOSTS; i++)
        assert_int_equal(version_of(i, "/swr", ""), n - 1);
    for (int i = 0; i < FLEET_HOSTS; i++)
        wait_until(version_of(i, "/swr", "") == n, 800);
    atomic_store(&delay_ms, 0);
    assert_int_equal(backend_calls(backend) - calls, 1);
}

/* ---- negative answers ---- */

static void negative_answers_are_shared_until_they_change(void **state)
{
    (void)state;
    const unsigned puts = given(0), calls = backend_calls(backend);
    assert_true(fleet_answers(&fleet.host[0], "/gone/1", "", 404, "fwd=uri-miss"));
    assert_true(fleet_answers(&fleet.host[0], "/gone/410", "", 410, "fwd=uri-miss"));
    assert_true(fleet_answers(&fleet.host[0], "/moved", "", 301, "fwd=uri-miss"));
    wait_until(given(0) == puts + 3, 5000);
    assert_true(fleet_answers(&fleet.host[1], "/gone/1", "", 404, "detail=fleet"));
    assert_true(fleet_answers(&fleet.host[1], "/gone/410", "", 410, "detail=fleet"));
    assert_true(fleet_answers(&fleet.host[1], "/moved", "", 301, "detail=fleet"));
    assert_int_equal(backend_calls(backend) - calls, 3);
    fleet_post(&fleet.host[2], "/gone"); /* the collection: what is below it ends, too */
    fleet_answers(&fleet.host[2], "/gone/1", "", 404, "fwd=uri-miss");
    assert_int_equal(backend_calls(backend) - calls, 5);
}

/* ---- fetches that no client waits for ---- */

/* Read all the time, by all hosts, over the end of its lifetime. */
static void what_is_refreshed_ahead_is_so_once_by_all_hosts(void **state)
{
    (void)state;
    const unsigned puts = given(0), calls = backend_calls(backend);
    unsigned ahead = 0, seen = 0;
    version_of(0, "/ahead", "");
    wait_until(given(0) == puts + 1, 5000);
    const unsigned n = atomic_fetch_add(&version, 1) + 1;
    for (int i = 0; i < FLEET_HOSTS; i++)
        ahead -= fleet_metric(&fleet.host[i], "polder_cache_refreshed_total");
    for (const uint64_t until = mono_ms() + 6000; seen < FLEET_HOSTS && mono_ms() < until;) {
        seen = 0;
        for (int i = 0; i < FLEET_HOSTS; i++)
            seen += version_of(i, "/ahead", "") == n;
        nap_ms(10);
    }
    for (int i = 0; i < FLEET_HOSTS; i++)
        ahead += fleet_metric(&fleet.host[i], "polder_cache_refreshed_total");
    assert_int_equal(seen, FLEET_HOSTS);
    assert_int_equal(backend_calls(backend) - calls, 2);
    assert_true(ahead >= 1);
}

static void a_poll_holds_on_all_hosts(void **state)
{
    (void)state;
    const unsigned puts = given(0), calls = backend_calls(backend);
    version_of(0, "/poll/a", "");
    wait_until(given(0) == puts + 1, 5000);
    assert_true(from_fleet(1, "/poll/a", ""));
    assert_true(from_fleet(2, "/poll/a", ""));
    assert_int_equal(backend_calls(backend) - calls, 1);
}

/* ---- behind a proxy ---- */

static void origins_are_kept_apart(void **state)
{
    (void)state;
    static const char https[] = "X-Forwarded-Proto: https\r\n", http[] = "";
    const unsigned puts = given(0), calls = backend_calls(backend);
    version_of(0, "/vary-origin", https);
    wait_until(given(0) == puts + 1, 5000);
    assert_true(from_fleet(1, "/vary-origin", https));
    version_of(0, "/vary-origin", http);
    wait_until(given(0) == puts + 2, 5000);
    assert_true(from_fleet(1, "/vary-origin", http));
    assert_int_equal(backend_calls(backend) - calls, 2);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(variants_of_a_url_are_bounded),
        cmocka_unit_test(each_cold_variant_is_fetched_once_by_all_hosts),
        cmocka_unit_test(what_is_to_be_stale),
        cmocka_unit_test(a_renewal_is_that_of_all_hosts),
        cmocka_unit_test(what_is_stale_in_the_store_is_validated),
        cmocka_unit_test(hosts_validate_the_same_once),
        cmocka_unit_test(a_stale_answer_is_refreshed_once_by_all_hosts),
        cmocka_unit_test(negative_answers_are_shared_until_they_change),
        cmocka_unit_test(what_is_refreshed_ahead_is_so_once_by_all_hosts),
        cmocka_unit_test(a_poll_holds_on_all_hosts),
        cmocka_unit_test(origins_are_kept_apart),
        cmocka_unit_test(all_variants_are_shared_and_end_together),
    };
    return run_with_fleet(stories, &fleet, &backend, answers, NULL);
}

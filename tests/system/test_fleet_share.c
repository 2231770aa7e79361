/* SPDX-License-Identifier: BSD-2-Clause */
/* Three daemons and a real Redis: what one host has fetched the others need not fetch. */
#include "fleet_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct backend *backend;
static struct fleet fleet = {.sharing = "shared = true shared_timeout = 10s leak_guard = 0",
                             .routes = "route \"/all/*\" { upstream = \"u\" cache { share = true "
                                       "leak_guard = 0 } }"}; /* of all stories */
static _Atomic unsigned version = 1, delay_ms;

/* The version of now; of some URLs a body that is long. */
static bool answers(struct asked *ask)
{
    char body[100001];
    if (!strcmp(ask->method, "POST")) {
        atomic_fetch_add(&version, 1);
        return reply(ask, "HTTP/1.1 204 No Content\r\n\r\n");
    }
    nap_ms(atomic_load(&delay_ms));
    memset(body, 'x', sizeof body - 1);
    body[strstr(ask->target, "long") ? 100000 : 1000] = 0;
    body[snprintf(body, 12, "%u", atomic_load(&version))] = ' ';
    if (strstr(ask->target, "aged"))
        return reply_ok(ask, "Cache-Control: max-age=300\r\nAge: 100\r\n", body);
    if (strstr(ask->target, "varies"))
        return reply_ok(ask, "Cache-Control: max-age=300\r\nVary: X-Lang\r\n", body);
    if (strstr(ask->target, "public"))
        return reply_ok(ask, "Cache-Control: public, max-age=300\r\n", body);
    if (strstr(ask->target, "etag"))
        return reply_ok(ask, "Cache-Control: max-age=300\r\nETag: \"e\"\r\n", body);
    return reply_ok(ask, "Cache-Control: max-age=300\r\nCache-Tag: t\r\n", body);
}

/* The version that the client sees; with a field of Cache-Status where that is wanted. */
static unsigned see(struct house *h, const char *path, const char *fields, const char *status)
{
    struct message m;
    assert_int_equal(fleet_get(h, path, fields, &m), 200);
    const char *says_it = field_of(&m, "Cache-Status");
    if (status && (!says_it || !strstr(says_it, status)))
        fail_msg("Cache-Status is %s and not %s", says_it ? says_it : "missing", status);
    const unsigned n = (unsigned)atoi(m.body);
    assert_int_equal(m.body_len, strstr(path, "long") ? 100000 : 1000);
    assert_int_equal(strspn(m.body + 12, "x"), m.body_len - 12);
    message_free(&m);
    return n;
}

/* Fetched by that host, and in the store. */
static void share(int host, const char *path, const char *fields)
{
    const unsigned puts = fleet_number(&fleet.host[host], "puts");
    see(&fleet.host[host], path, fields, "fwd=");
    wait_until(fleet_number(&fleet.host[host], "puts") == puts + 1, 5000);
}

/* Many clients of all hosts ask at once: FLEET_CLIENTS (100) of each. */
static void all_ask(struct fleet *f, const char *path)
{
    const char *text = getenv("FLEET_CLIENTS");
    const int n = FLEET_HOSTS * (text ? atoi(text) : 100);
    int *fd = calloc((size_t)n, sizeof *fd);
    assert_true(fd && n);
    for (int i = 0; i < n; i++)
        fd[i] = client_connect(f->host[i % FLEET_HOSTS].port);
    for (int i = 0; i < n; i++)
        client_send(fd[i], "GET %s HTTP/1.1\r\nHost: example.org\r\n\r\n", path);
    for (int i = 0; i < n; i++) {
        struct message m;
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
        close(fd[i]);
    }
    free(fd);
}

static void a_cold_url_is_fetched_once_by_all_hosts(void **state)
{
    (void)state;
    atomic_store(&delay_ms, 500);
    const unsigned calls = backend_calls(backend);
    all_ask(&fleet, "/cold");
    assert_int_equal(backend_calls(backend) - calls, 1);
    atomic_store(&delay_ms, 0);
    all_ask(&fleet, "/cold-and-quick");
    assert_int_equal(backend_calls(backend) - calls, 2);
}

static void what_one_host_has_the_others_take_from_the_store(void **state)
{
    (void)state;
    const char *out;
    const unsigned calls = backend_calls(backend);
    share(0, "/a", "");
    see(&fleet.host[1], "/a", "", "detail=fleet");
    see(&fleet.host[1], "/a", "", "hit");
    share(0, "/long", ""); /* in chunks */
    see(&fleet.host[1], "/long", "", "detail=fleet");
    see(&fleet.host[1], "/long", "", "hit");
    assert_int_equal(backend_calls(backend) - calls, 2);
    assert_int_equal(ctl(&fleet.host[1], &out, "cache why http://example.org/a"), 0);
    assert_non_null(strstr(out, "another host of the fleet"));
}

static void what_was_invalidated_is_not_taken(void **state)
{
    (void)state;
    static const char *const ways[] = {"http://example.org/b", "/b",    "--tag t",
                                       "--prefix /",           "--all", "/b --soft"};
    const char *out;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const unsigned n = atomic_load(&version);
        wait_until(see(&fleet.host[0], "/b", "", NULL) == n, 5000);
        atomic_fetch_add(&version, 1);
        assert_int_equal(ctl(&fleet.host[i % FLEET_HOSTS], &out, "cache invalidate %s", ways[i]),
                         0);
        assert_int_equal(see(&fleet.host[1], "/b", "", NULL), n + 1);
        wait_until(see(&fleet.host[2], "/b", "", NULL) == n + 1, 5000);
    }
    /* nor on the host itself that has changed it, before the others hear of it */
    for (int i = 0; i < 20; i++) {
        see(&fleet.host[1], "/c", "", NULL);
        fleet_post(&fleet.host[0], "/c");
        assert_int_equal(see(&fleet.host[0], "/c", "", NULL), atomic_load(&version));
    }
}

/* What it was fetched after is on its way to the other hosts, which wait for that. */
static void what_is_ahead_of_the_log_is_waited_for(void **state)
{
    (void)state;
    char path[32];
    const unsigned before = backend_calls(backend);
    const unsigned changes = 8, urls = 20;
    for (unsigned i = 0; i < urls; i++) {
        for (unsigned k = 0; k < changes; k++)
            fleet_post(&fleet.host[k % 2], "/elsewhere");
        snprintf(path, sizeof path, "/ahead/%u", i);
        see(&fleet.host[0], path, "", NULL);
        for (int host = 1; host < FLEET_HOSTS; host++)
            see(&fleet.host[host], path, "", NULL);
    }
    assert_int_equal(backend_calls(backend) - before, urls * (changes + 1));
}

/* ---- requests that are more than a plain GET ---- */

static int ask(int host, const char *method, const char *path, const char *fields,
               struct message *m)
{
    const int fd = client_connect(fleet.host[host].port);
    client_send(fd, "%s %s HTTP/1.1\r\nHost: example.org\r\n%sConnection: close\r\n\r\n", method,
                path, fields);
    client_read(fd, m, !strcmp(method, "HEAD"));
    close(fd);
    return m->status;
}

static void conditions_and_ranges_hold_for_what_is_taken(void **state)
{
    (void)state;
    struct message m;
    share(0, "/etag", "");
    const unsigned calls = backend_calls(backend);
    assert_int_equal(ask(1, "GET", "/etag", "If-None-Match: \"e\"\r\n", &m), 304);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "detail=fleet"));
    message_free(&m);
    assert_int_equal(ask(1, "GET", "/etag", "Range: bytes=0-9\r\n", &m), 206);
    assert_int_equal(m.body_len, 10);
    message_free(&m);
    assert_int_equal(ask(1, "HEAD", "/etag", "", &m), 200);
    assert_string_equal(field_of(&m, "Content-Length"), "1000");
    message_free(&m);
    assert_int_equal(ask(2, "GET", "/etag", "If-None-Match: \"other\"\r\n", &m), 200);
    assert_int_equal(m.body_len, 1000);
    message_free(&m);
    assert_int_equal(backend_calls(backend) - calls, 0);
}

static void heads_and_ranges_are_of_what_another_host_has(void **state)
{
    (void)state;
    static const char *const paths[] = {"/whole", "/whole-long"};
    struct message m;
    for (size_t i = 0; i < 2; i++) {
        share(0, paths[i], "");
        const unsigned calls = backend_calls(backend);
        assert_int_equal(ask(1, "HEAD", paths[i], "", &m), 200);
        assert_int_equal(atoi(field_of(&m, "Content-Length")), i ? 100000 : 1000);
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "detail=fleet"));
        message_free(&m);
        assert_int_equal(ask(2, "GET", paths[i], "Range: bytes=900-\r\n", &m), 206);
        assert_int_equal(m.body_len, i ? 99100 : 100);
        message_free(&m);
        assert_int_equal(backend_calls(backend) - calls, 0);
    }
}

/* One of them looks, and the others wait for that; of what varies twice. */
static void many_ranges_look_once(void **state)
{
    (void)state;
    enum { MANY = 40 };
    static const char *const paths[] = {"/looked-at", "/looked-at/varies"};
    for (int k = 0; k < 2; k++) {
        int fd[MANY];
        struct message m;
        share(0, paths[k], "X-Lang: en\r\n");
        const unsigned calls = backend_calls(backend);
        const unsigned hits = fleet_number(&fleet.host[1], "hits");
        for (int i = 0; i < MANY; i++)
            fd[i] = client_connect(fleet.host[1].port);
        for (int i = 0; i < MANY; i++)
            client_send(fd[i],
                        "GET %s HTTP/1.1\r\nHost: example.org\r\nX-Lang: en\r\n"
                        "Range: bytes=%d-\r\n\r\n",
                        paths[k], i);
        for (int i = 0; i < MANY; i++) {
            client_read(fd[i], &m, false);
            assert_int_equal(m.status, 206);
            assert_int_equal(m.body_len, 1000 - i);
            message_free(&m);
            close(fd[i]);
        }
        assert_int_equal(backend_calls(backend) - calls, 0);
        assert_int_equal(fleet_number(&fleet.host[1], "hits") - hits, 1);
    }
}

/* Nor does a look claim what it does not find: who asks for the whole then is not waited for. */
static void a_look_in_vain_costs_nobody_else(void **state)
{
    (void)state;
    struct message m;
    const unsigned calls = backend_calls(backend);
    assert_int_equal(ask(1, "HEAD", "/cold-head", "", &m), 200);
    assert_string_equal(field_of(&m, "Content-Length"), "1000");
    message_free(&m);
    assert_int_equal(ask(1, "GET", "/cold-head", "Range: bytes=0-9\r\n", &m), 200);
    message_free(&m);
    assert_int_equal(ask(1, "HEAD", "/cold-head/2", "Authorization: Bearer a\r\n", &m), 200);
    message_free(&m);
    assert_int_equal(fleet_keys(&fleet, 'f'), 0);
    assert_int_equal(backend_calls(backend) - calls, 3);
}

static void identified_requests_take_what_is_for_all(void **state)
{
    (void)state;
    static const char *const fields[] = {"Authorization: Bearer a\r\n", "Cookie: session=b\r\n"};
    static const char *const paths[] = {"/public", "/all"};
    struct message m;
    share(0, "/public", "");
    share(0, "/all/of/them", "");
    share(0, "/its-own", "");
    const unsigned calls = backend_calls(backend);
    see(&fleet.host[1], "/public", fields[0], "detail=fleet");
    see(&fleet.host[2], "/public", fields[1], "detail=fleet");
    assert_int_equal(ask(2, "HEAD", "/all/of/them", fields[0], &m), 200);
    message_free(&m);
    see(&fleet.host[1], "/all/of/them", fields[1], "detail=fleet");
    assert_int_equal(backend_calls(backend) - calls, 0);
    /* what says nothing of others is not given to it, wherever it comes from */
    for (int i = 0; i < 2; i++)
        see(&fleet.host[1], "/its-own", fields[i], "fwd=bypass");
    assert_int_equal(backend_calls(backend) - calls, 2);
    /* and what it brings stays here */
    const unsigned objects = fleet_keys(&fleet, 'o');
    for (int i = 0; i < 2; i++) { /* of both requests each */
        char path[32];
        snprintf(path, sizeof path, "%s/by-%d", paths[i], i);
        see(&fleet.host[1], path, fields[i], NULL);
        see(&fleet.host[2], path, "", "fwd=uri-miss; fwd-status=200");
    }
    wait_until(fleet_keys(&fleet, 'o') == objects + 2, 5000); /* of host 2 alone */
    assert_int_equal(backend_calls(backend) - calls, 6);
}

/* ---- clocks ---- */

static unsigned age_at(int host, const char *path)
{
    struct message m;
    assert_int_equal(fleet_get(&fleet.host[host], path, "", &m), 200);
    const unsigned age = (unsigned)atoi(field_of(&m, "Age"));
    message_free(&m);
    return age;
}

static void ages_are_right_where_clocks_differ(void **state)
{
    (void)state;
    const uint64_t began = mono_ms();
    house_stop(&fleet.host[1]); /* a clock that jumps while it runs is something else */
    house_advance(&fleet.host[1], 2000);
    house_run(&fleet.host[1]);
    wait_until(fleet_says(&fleet.host[1], "cache     in use"), 8000);
    share(0, "/aged-0", "");
    share(1, "/aged-1", "");
    for (int host = 0; host < FLEET_HOSTS; host++)
        for (int i = 0; i < 2; i++) {
            const unsigned age = age_at(host, i ? "/aged-1" : "/aged-0");
            assert_in_range(age, 100, 101 + (mono_ms() - began) / 1000);
        }
    const unsigned calls = backend_calls(backend);
    see(&fleet.host[2], "/aged-1", "", "hit");
    assert_int_equal(backend_calls(backend) - calls, 0);
}

/* ---- whoever can write to the store ---- */

#define EACH "EVAL for\t_,k\tin\tipairs(redis.call('KEYS','*:o:*'))\tdo\t"

static void only_objects(const char *a, const char *b)
{
    redis_do(&fleet.redis, EACH "redis.call('DEL',k)\tend 0");
    share(0, a, "");
    if (b)
        share(0, b, "");
}

static unsigned rejected(int host)
{
    return fleet_number(&fleet.host[host], "rejected");
}

static void objects_under_another_name_are_not_taken(void **state)
{
    (void)state;
    only_objects("/mine", "/long-yours");
    const unsigned calls = backend_calls(backend), before = rejected(1);
    redis_do(&fleet.redis, "EVAL local\tk=redis.call('KEYS','*:o:*')\t"
                           "local\ta,b=redis.call('GET',k[1]),redis.call('GET',k[2])\t"
                           "redis.call('SET',k[1],b)\tredis.call('SET',k[2],a) 0");
    see(&fleet.host[1], "/mine", "", "fwd=uri-miss; fwd-status=200");
    see(&fleet.host[1], "/long-yours", "", "fwd=uri-miss; fwd-status=200");
    assert_int_equal(backend_calls(backend) - calls, 2);
    assert_int_equal(rejected(1) - before, 2);
}

/* No host claims a fetch for an hour. */
static void claims_of_strangers_are_not_waited_for(void **state)
{
    (void)state;
    const unsigned calls = backend_calls(backend), puts = fleet_number(&fleet.host[0], "puts");
    const uint64_t began = mono_ms();
    atomic_store(&delay_ms, 300);
    const int first = client_connect(fleet.host[0].port);
    client_send(first, "GET /claimed HTTP/1.1\r\nHost: example.org\r\n\r\n");
    wait_until(fleet_keys(&fleet, 'f') == 1, 5000);
    redis_do(&fleet.redis, "EVAL for\t_,k\tin\tipairs(redis.call('KEYS','*:f:*'))\tdo\t"
                           "redis.call('SET',k,'abc','PX',3600000)\tend 0");
    see(&fleet.host[1], "/claimed", "", "fwd=uri-miss; fwd-status=200");
    assert_true(mono_ms() - began < harness_patience(10000)); /* and not the backend's timeout */
    assert_int_equal(backend_calls(backend) - calls, 2);
    atomic_store(&delay_ms, 0);
    struct message m;
    client_read(first, &m, false);
    message_free(&m);
    close(first);
    wait_until(fleet_number(&fleet.host[0], "puts") == puts + 1,
               5000); /* no later story counts it */
}

static void damaged_and_foreign_objects_are_not_taken(void **state)
{
    (void)state;
    static const char *const damage[] = {
        "redis.call('SETRANGE',k,40,'damage')", "redis.call('SET',k,string.rep('x',400000))",
        "redis.call('SET',k,string.sub(redis.call('GET',k),1,-2))", "redis.call('SET',k,'')",
        "redis.call('SET',k,redis.call('GET',k)..'x')",
        /* the numbers of the log are signed, too */
        "redis.call('SETRANGE',k,24,string.rep('z',8))"};
    const char *out;
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        char path[32];
        snprintf(path, sizeof path, "/damaged/%zu", i);
        only_objects(path, NULL);
        const unsigned calls = backend_calls(backend), before = rejected(1);
        redis_do(&fleet.redis, EACH "%s\tend 0", damage[i]);
        see(&fleet.host[1], path, "", "fwd=uri-miss; fwd-status=200");
        assert_int_equal(backend_calls(backend) - calls, 1);
        assert_int_equal(rejected(1) - before, 1);
    }
    wait_until(ctl(&fleet.host[1], &out, "status") == 0 && strstr(out, "fleet_strangers"), 5000);
    /* of another type, as are claims */
    only_objects("/typed", NULL);
    redis_do(&fleet.redis, EACH "redis.call('DEL',k)\tredis.call('LPUSH',k,'a')\tend 0");
    see(&fleet.host[2], "/typed", "", "fwd=uri-miss; fwd-status=200");
    redis_do(&fleet.redis, EACH "redis.call('DEL',k)\tend 0");
    for (int i = 0; i < FLEET_HOSTS; i++)
        assert_false(house_logged(&fleet.host[i], "died"));
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(a_cold_url_is_fetched_once_by_all_hosts),
        cmocka_unit_test(what_one_host_has_the_others_take_from_the_store),
        cmocka_unit_test(what_was_invalidated_is_not_taken),
        cmocka_unit_test(what_is_ahead_of_the_log_is_waited_for),
        cmocka_unit_test(conditions_and_ranges_hold_for_what_is_taken),
        cmocka_unit_test(heads_and_ranges_are_of_what_another_host_has),
        cmocka_unit_test(many_ranges_look_once),
        cmocka_unit_test(a_look_in_vain_costs_nobody_else),
        cmocka_unit_test(identified_requests_take_what_is_for_all),
        cmocka_unit_test(objects_under_another_name_are_not_taken),
        cmocka_unit_test(claims_of_strangers_are_not_waited_for),
        cmocka_unit_test(damaged_and_foreign_objects_are_not_taken),
        cmocka_unit_test(ages_are_right_where_clocks_differ),
    };
    return run_with_fleet(stories, &fleet, &backend, answers, NULL);
}

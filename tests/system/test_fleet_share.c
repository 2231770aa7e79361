/* SPDX-License-Identifier: BSD-2-Clause */
/* Three daemons and a real Redis: what one host has fetched the others need not fetch. */
#include "fleet_rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENT "shared = true shared_timeout = 10s"

static struct backend *backend;
static _Atomic unsigned version = 1, delay_ms;
static _Atomic bool forbids;

/* The version of now; of some URLs a body that is long, or that varies. */
static bool answers(struct asked *ask)
{
    static char body[300000];
    const bool is_long = strstr(ask->target, "long") != NULL;
    if (!strcmp(ask->method, "POST")) {
        atomic_fetch_add(&version, 1);
        return reply(ask, "HTTP/1.1 204 No Content\r\n\r\n");
    }
    nap_ms(atomic_load(&delay_ms));
    memset(body, 'x', sizeof body - 1);
    body[strstr(ask->target, "longest") ? sizeof body - 1 : is_long ? 100000 : 1000] = 0;
    body[snprintf(body, 12, "%u", atomic_load(&version))] = ' ';
    if (atomic_load(&forbids))
        return reply_ok(ask, "Cache-Control: no-store\r\n", body);
    if (strstr(ask->target, "vary"))
        return reply_ok(ask, "Cache-Control: max-age=300\r\nVary: X-Kind\r\n", body);
    return reply_ok(ask, "Cache-Control: max-age=300\r\nCache-Tag: t\r\n", body);
}

static void start(struct fleet *f, const char *sharing)
{
    *f = (struct fleet){.sharing = sharing,
                        .routes = "route \"/own/*\" { upstream = \"u\" "
                                  "cache { partition = \"header:X-Tenant\" } }",
                        .port = backend_port(backend)};
    fleet_start(f);
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
    assert_int_equal(m.body_len, strstr(path, "longest") ? 299999
                                 : strstr(path, "long")  ? 100000
                                                         : 1000);
    assert_int_equal(strspn(m.body + 12, "x"), m.body_len - 12);
    message_free(&m);
    return n;
}

static unsigned objects(struct fleet *f)
{
    return fleet_keys(f, 'o');
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
    struct fleet f;
    start(&f, PATIENT);
    atomic_store(&delay_ms, 500);
    const unsigned calls = backend_calls(backend);
    all_ask(&f, "/a");
    assert_int_equal(backend_calls(backend) - calls, 1);
    atomic_store(&delay_ms, 0);
    all_ask(&f, "/b");
    assert_int_equal(backend_calls(backend) - calls, 2);
    fleet_stop(&f);
}

static void what_one_host_has_the_others_take_from_the_store(void **state)
{
    (void)state;
    struct fleet f;
    const char *out;
    start(&f, PATIENT);
    const unsigned calls = backend_calls(backend);
    see(&f.host[0], "/a", "", "fwd=uri-miss");
    wait_until(objects(&f) == 1, 5000);
    see(&f.host[1], "/a", "", "detail=fleet");
    see(&f.host[1], "/a", "", "hit");
    see(&f.host[0], "/vary", "X-Kind: 1\r\n", NULL);
    wait_until(objects(&f) == 3, 5000); /* with what says that it varies */
    see(&f.host[1], "/vary", "X-Kind: 1\r\n", "detail=fleet");
    see(&f.host[1], "/vary", "X-Kind: 1\r\n", "hit");
    assert_int_equal(backend_calls(backend) - calls, 2);
    see(&f.host[0], "/long", "", "fwd=uri-miss"); /* in chunks */
    wait_until(objects(&f) == 4, 5000);
    see(&f.host[1], "/long", "", "detail=fleet");
    see(&f.host[1], "/long", "", "hit");
    assert_int_equal(backend_calls(backend) - calls, 3);
    see(&f.host[1], "/vary", "X-Kind: 2\r\n", NULL);
    see(&f.host[2], "/vary", "X-Kind: 3\r\n", NULL);
    assert_int_equal(backend_calls(backend) - calls, 5);
    assert_int_equal(ctl(&f.host[1], &out, "cache why http://example.org/a"), 0);
    assert_non_null(strstr(out, "another host of the fleet"));
    fleet_stop(&f);
}

static void what_was_invalidated_is_not_taken(void **state)
{
    (void)state;
    static const char *const ways[] = {"http://example.org/a", "/a",    "--tag t",
                                       "--prefix /",           "--all", "/a --soft"};
    struct fleet f;
    const char *out;
    start(&f, PATIENT);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const unsigned n = atomic_load(&version);
        wait_until(see(&f.host[0], "/a", "", NULL) == n, 5000);
        wait_until(objects(&f) == 1, 5000);
        atomic_fetch_add(&version, 1);
        assert_int_equal(ctl(&f.host[i % FLEET_HOSTS], &out, "cache invalidate %s", ways[i]), 0);
        assert_int_equal(see(&f.host[1], "/a", "", NULL), n + 1);
        wait_until(see(&f.host[2], "/a", "", NULL) == n + 1, 5000);
    }
    /* nor on the host itself that has changed it, before the others hear of it */
    for (int i = 0; i < 20; i++) {
        see(&f.host[1], "/c", "", NULL);
        fleet_post(&f.host[0], "/c");
        assert_int_equal(see(&f.host[0], "/c", "", NULL), atomic_load(&version));
    }
    fleet_stop(&f);
}

static void what_is_for_one_client_never_leaves_the_host(void **state)
{
    (void)state;
    struct fleet f;
    start(&f, PATIENT);
    see(&f.host[0], "/a", "Authorization: Bearer one\r\n", NULL);
    see(&f.host[0], "/b", "Cookie: session=one\r\n", NULL);
    see(&f.host[0], "/own/a", "X-Tenant: one\r\n", NULL);
    see(&f.host[0], "/longest", "", NULL); /* nor what is too long */
    atomic_store(&forbids, true);
    see(&f.host[0], "/d", "", NULL);
    const unsigned calls = backend_calls(backend);
    see(&f.host[1], "/d", "", NULL); /* it does not wait for the other's claim */
    assert_int_equal(backend_calls(backend) - calls, 1);
    atomic_store(&forbids, false);
    see(&f.host[0], "/e", "", NULL);
    wait_until(objects(&f) >= 1, 5000); /* all before it has been looked at */
    assert_int_equal(objects(&f), 1);
    fleet_stop(&f);
}

static void damaged_and_foreign_objects_are_not_taken(void **state)
{
    (void)state;
    struct fleet f;
    const char *out;
    start(&f, PATIENT);
    see(&f.host[0], "/a", "", NULL);
    wait_until(objects(&f) == 1, 5000);
    redis_do(&f.redis, "EVAL for\t_,k\tin\tipairs(redis.call('KEYS','*:o:*'))\tdo\t"
                       "redis.call('SETRANGE',k,40,'damage')\tend 0");
    unsigned calls = backend_calls(backend);
    see(&f.host[1], "/a", "", NULL);
    assert_int_equal(backend_calls(backend) - calls, 1);
    wait_until(fleet_says(&f.host[1], "rejected  1"), 5000);
    wait_until(ctl(&f.host[1], &out, "status") == 0 && strstr(out, "fleet_strangers"), 5000);
    redis_do(&f.redis, "EVAL for\t_,k\tin\tipairs(redis.call('KEYS','*:o:*'))\tdo\t"
                       "redis.call('SET',k,string.rep('x',3000000))\tend 0");
    see(&f.host[2], "/a", "", NULL);
    assert_int_equal(backend_calls(backend) - calls, 2);
    for (int i = 0; i < FLEET_HOSTS; i++)
        assert_false(house_logged(&f.host[i], "died"));
    fleet_stop(&f);
}

static void a_store_that_hangs_costs_one_request_its_time_and_no_other(void **state)
{
    (void)state;
    struct fleet f;
    start(&f, "shared = true shared_timeout = 700ms");
    kill(f.redis.pid, SIGSTOP);
    uint64_t began = mono_ms();
    see(&f.host[0], "/a", "", "fwd=uri-miss");
    assert_true(mono_ms() - began >= 690);
    began = mono_ms();
    for (int i = 0; i < 3; i++)
        see(&f.host[0], i == 0 ? "/b" : i == 1 ? "/c" : "/d", "", "fwd=uri-miss");
    assert_true(mono_ms() - began < 700);
    kill(f.redis.pid, SIGCONT);
    wait_until(fleet_says(&f.host[0], "cache     in use"), 15000);
    fleet_stop(&f);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(a_cold_url_is_fetched_once_by_all_hosts),
        cmocka_unit_test(what_one_host_has_the_others_take_from_the_store),
        cmocka_unit_test(what_was_invalidated_is_not_taken),
        cmocka_unit_test(what_is_for_one_client_never_leaves_the_host),
        cmocka_unit_test(damaged_and_foreign_objects_are_not_taken),
        cmocka_unit_test(a_store_that_hangs_costs_one_request_its_time_and_no_other),
    };
    return run_with_backend(stories, &backend, answers);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of `polderctl cache warm`: what it says of each URL, what it costs the backend, and what
 * it does with bad input. */
#include "harness.h"

#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct backend *backend;
static atomic_uint now, most;
static atomic_bool held;

static bool answers(struct asked *a)
{
    const char *t = a->target;
    const unsigned at_once = atomic_fetch_add(&now, 1) + 1;
    unsigned seen = atomic_load(&most);
    while (seen < at_once && !atomic_compare_exchange_weak(&most, &seen, at_once)) {
    }
    while (!strncmp(t, "/held", 5) && atomic_load(&held))
        nap_ms(5);
    if (!strncmp(t, "/some", 5))
        nap_ms(10);
    atomic_fetch_sub(&now, 1);
    if (!strncmp(t, "/no-store", 9))
        return reply_ok(a, "Cache-Control: no-store\r\n", "x");
    if (!strncmp(t, "/broken", 7))
        return reply(a, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    if (!strncmp(t, "/at-once", 8))
        return reply_ok(a, "Cache-Control: max-age=0\r\nETag: \"1\"\r\n", "x");
    if (!strncmp(t, "/vary", 5))
        return reply_ok(a, "Cache-Control: max-age=60\r\nVary: Accept-Language\r\n", "x");
    if (!strncmp(t, "/large", 6)) {
        static char large[100001];
        memset(large, 'a', sizeof large - 1);
        return reply_ok(a, "Cache-Control: max-age=60\r\n", large);
    }
    return reply_ok(a, "Cache-Control: max-age=60\r\n", t);
}

static void start(struct house *h, unsigned workers)
{
    house_start(
        h, workers,
        "cache { max_body = \"64K\" }\n"
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
        "upstream \"gone\" { server \"127.0.0.1:%u\" { } connect_timeout = \"300ms\" park = "
        "\"0s\" }\n"
        "route \"/plain/*\" { upstream = \"u\" }\n"
        "route \"/gone/*\" { upstream = \"gone\" cache { } }\n"
        "route \"/held/*\" { upstream = \"u\" cache { } }\n"
        "route \"/some/*\" { upstream = \"u\" cache { } }\n"
        "route \"/one\" { upstream = \"u\" cache { } }\n"
        "route \"/no-store\" { upstream = \"u\" cache { } }\n"
        "route \"/broken\" { upstream = \"u\" cache { } }\n"
        "route \"/at-once\" { upstream = \"u\" cache { } }\n"
        "route \"/vary\" { upstream = \"u\" cache { } }\n"
        "route \"/large\" { upstream = \"u\" cache { } }\n",
        backend_port(backend), free_port());
    backend_forget(backend);
    atomic_store(&most, 0);
    atomic_store(&held, false);
}

/* Long lists do not fit on a command line of the harness. Returns what the shell makes of it. */
static const char *listed(const struct house *h, const char *prefix, unsigned n)
{
    static char text[200];
    char path[160];
    snprintf(path, sizeof path, "%s/urls", h->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (unsigned i = 0; i < n; i++)
        fprintf(f, "%s/%u ", prefix, i);
    fclose(f);
    snprintf(text, sizeof text, "$(cat %s)", path);
    return text;
}

static json_t *warm(struct house *h, int status, const char *urls)
{
    const char *out;
    json_error_t e;
    const int got = ctl(h, &out, "--json cache warm %s", urls);
    json_t *j = json_loads(out, 0, &e);
    if (!j || got != status)
        fail_msg("cache warm %s: status %d: %s", urls, got, out);
    return j;
}

/* What it said of URL number i. */
static const char *said(const json_t *j, size_t i, const char *member)
{
    return json_string_value(
        json_object_get(json_array_get(json_object_get(j, "urls"), i), member));
}

static void expect(struct house *h, const char *url, const char *result, const char *detail)
{
    json_t *j = warm(h, !strcmp(result, "not stored"), url);
    assert_int_equal(json_array_size(json_object_get(j, "urls")), 1);
    assert_string_equal(said(j, 0, "result"), result);
    if (!strstr(said(j, 0, "detail"), detail))
        fail_msg("%s: it said \"%s\", not \"%s\"", url, said(j, 0, "detail"), detail);
    json_decref(j);
}

static void each_url_is_told_what_became_of_it(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h, 3);
    expect(&h, "http://test.example/one", "stored", "for ");
    assert_int_equal(backend_calls(backend), 1);
    for (int i = 0; i < 12; i++)
        assert_true(served_from_store(h.port, "/one")); /* on every worker, and nobody had asked */
    expect(&h, "HTTP://test.example:80/one#top", "fresh already", "s more");
    expect(&h, "test.example/one", "fresh already", "s more");
    assert_int_equal(backend_calls(backend), 1);
    assert_int_equal(ctl(&h, NULL, "cache invalidate test.example/one"), 0);
    expect(&h, "test.example/one", "stored", "for ");
    assert_int_equal(ctl(&h, NULL, "cache invalidate --soft test.example/one"), 0);
    expect(&h, "test.example/one", "stored", "for ");
    assert_int_equal(backend_calls(backend), 3);
    expect(&h, "test.example/vary", "stored", "for ");
    expect(&h, "test.example/at-once", "stored", "before each use");
    expect(&h, "test.example/no-store", "not stored", "no-store");
    expect(&h, "test.example/no-store", "not stored", "no-store"); /* nobody remembers */
    expect(&h, "test.example/large", "not stored", "max_body");
    expect(&h, "test.example/nowhere", "not stored", "no route");
    expect(&h, "test.example/plain/x", "not stored", "/plain/* has no cache section");
    expect(&h, "test.example/broken", "not stored", "503");
    expect(&h, "test.example/gone/1", "not stored", "502");
    expect(&h, "test.example/gone/2", "not stored", "in trouble");
    assert_int_equal(ctl(&h, &out, "cache warm test.example/one test.example/nowhere"), 1);
    assert_non_null(strstr(out, "fresh already"));
    assert_non_null(strstr(out, "no route"));
    assert_true(house_logged(&h, "cache.warm"));
    house_remove(&h);
}

static void a_bare_path_is_fetched_for_the_host_of_each_listener(void **state)
{
    (void)state;
    struct house h;
    char lines[64];
    struct message m;
    start(&h, 2);
    json_t *j = warm(&h, 0, "/one");
    snprintf(lines, sizeof lines, "127.0.0.1:%u/one", h.port);
    assert_string_equal(said(j, 0, "url"), lines);
    json_decref(j);
    const int fd = client_connect(h.port);
    client_send(fd, "GET /one HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n", h.port);
    client_read(fd, &m, false);
    assert_non_null(strstr(field_of(&m, "Cache-Status"), "polder; hit"));
    message_free(&m);
    close(fd);
    house_remove(&h);
}

static void many_are_fetched_at_the_bounded_share(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2);
    const char *urls = listed(&h, "test.example/some", 1000);
    json_t *j = warm(&h, 0, urls);
    assert_int_equal(json_integer_value(json_object_get(j, "stored")), 1000);
    json_decref(j);
    assert_int_equal(backend_calls(backend), 1000);
    assert_int_equal(atomic_load(&most), 1); /* nobody else asks: one at a time */
    j = warm(&h, 0, urls);
    assert_int_equal(json_integer_value(json_object_get(j, "fresh_already")), 1000);
    json_decref(j);
    assert_int_equal(backend_calls(backend), 1000);
    house_remove(&h);
}

/* ---- what hangs, what dies ---- */

static void *warm_held(void *arg)
{
    struct house *h = arg;
    char command[400];
    snprintf(command, sizeof command,
             "%s -s %s --timeout 20s cache warm test.example/held/1 >/dev/null 2>&1",
             built("polderctl"), h->sock);
    return (void *)(intptr_t)WEXITSTATUS(system(command));
}

static void control_waits_for_nothing_and_a_killed_worker_is_told_of(void **state)
{
    (void)state;
    struct house h;
    pthread_t caller;
    void *status;
    pid_t pid[4];
    start(&h, 2);
    for (int kills = 0; kills < 2; kills++) {
        atomic_store(&held, true);
        const unsigned calls = backend_calls(backend);
        assert_int_equal(pthread_create(&caller, NULL, warm_held, &h), 0);
        wait_until(backend_calls(backend) == calls + 1, 5000);
        const uint64_t before = mono_ms();
        assert_int_equal(ctl(&h, NULL, "status"), 0);
        assert_int_equal(ctl(&h, NULL, "cache invalidate /some/1"), 0);
        assert_true(mono_ms() - before < harness_patience(1500));
        if (kills) {
            assert_int_equal(house_children(&h, "polderd: worker 0", pid, 4), 1);
            kill(pid[0], SIGKILL);
        } else {
            atomic_store(&held, false);
        }
        pthread_join(caller, &status);
        assert_int_equal((intptr_t)status, kills);
        atomic_store(&held, false);
        assert_int_equal(ctl(&h, NULL, "cache invalidate --all"), 0);
    }
    wait_until(ctl(&h, NULL, "cache warm test.example/one") == 0, 5000);
    house_remove(&h);
}

static void it_goes_on_after_a_reload(void **state)
{
    (void)state;
    struct house h;
    start(&h, 2);
    expect(&h, "test.example/one", "stored", "for ");
    assert_int_equal(ctl(&h, NULL, "reload --wait"), 0);
    wait_until(ctl(&h, NULL, "cache warm test.example/vary") == 0, 10000);
    house_remove(&h);
}

/* ---- bad input ---- */

/* One call on the admin socket whose list of URLs is these bytes. */
static void expect_refused(struct house *h, const char *list, size_t len, const char *why)
{
    static const char head[] = "\x94\x00\x01\xaa"
                               "cache.warm\x81\xa3url";
    char buf[4096];
    size_t n = 0;
    const int fd = house_admin_connect(h);
    client_send_bytes(fd, head, sizeof head - 1);
    client_send_bytes(fd, list, len);
    while (n + 1 < sizeof buf) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, (int)harness_patience(3000)) <= 0)
            fail_msg("no answer where \"%s\" was to be said", why);
        const ssize_t got = recv(fd, buf + n, sizeof buf - 1 - n, 0);
        assert_true(got > 0);
        n += (size_t)got;
        if (memmem(buf, n, why, strlen(why)))
            break;
    }
    assert_true(memmem(buf, n, "bad_argument", 12) || memmem(buf, n, "argument", 8));
    close(fd);
}

static void bad_input_is_refused_with_what_is_wrong(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    static char text[9000], long_list[9100];
    start(&h, 1);
    expect_refused(&h, "\x91\xa4/a\0b", 6, "NUL");
    expect_refused(&h, "\x91\xa0", 2, "URL 1 is empty");
    expect_refused(&h, "\x92\xa2/a\x07", 5, "URL 2 is empty, no text");
    expect_refused(&h, "\x90", 1, "url");
    expect_refused(&h, "\xa2/a", 3, "url");
    memset(text, 'a', 8500);
    text[0] = '/';
    memcpy(long_list, "\x91\xda\x21\x34", 4);
    memcpy(long_list + 4, text, 8500);
    expect_refused(&h, long_list, 8504, "URL 1 has 8500 bytes");
    assert_int_equal(ctl(&h, &out, "cache warm %s", listed(&h, "/some", 1001)), 2);
    assert_non_null(strstr(out, "1001 URLs; at most 1000"));
    assert_int_equal(ctl(&h, &out, "cache warm"), 2);
    assert_int_equal(ctl(&h, &out, "cache warm nonsense"), 2);
    assert_non_null(strstr(out, "URL 1"));
    assert_int_equal(ctl(&h, &out, "cache warm /one '/o n e'"), 2);
    assert_non_null(strstr(out, "URL 2"));
    assert_int_equal(ctl(&h, &out, "cache warm \"$(printf '/one HTTP/1.1\\r\\nX: y')\""), 2);
    expect(&h, "test.example/some/%zz", "not stored", "malformed");
    expect(&h, "'bad/host@/one'", "not stored", "no route");
    expect(&h, "'bad\\host/one'", "not stored", "malformed");
    snprintf(long_list, sizeof long_list, "test.example/some/%s", text + 200);
    expect(&h, listed(&h, long_list, 1), "not stored", "over 8192");
    assert_int_equal(backend_calls(backend), 0);
    expect(&h, "test.example/one", "stored", "for ");
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_url_is_told_what_became_of_it),
        cmocka_unit_test(a_bare_path_is_fetched_for_the_host_of_each_listener),
        cmocka_unit_test(many_are_fetched_at_the_bounded_share),
        cmocka_unit_test(control_waits_for_nothing_and_a_killed_worker_is_told_of),
        cmocka_unit_test(it_goes_on_after_a_reload),
        cmocka_unit_test(bad_input_is_refused_with_what_is_wrong),
    };
    return run_with_backend(tests, &backend, answers);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Three daemons and a real Redis: what one host invalidates no other serves. */
#include "harness.h"
#include "redis.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOSTS 3

static struct backend *backend;
static _Atomic unsigned version = 1;

/* The version of now, in every answer; unsafe methods change it, and may name a group. */
static bool answers(struct asked *ask)
{
    char body[32];
    if (!strcmp(ask->method, "POST")) {
        atomic_fetch_add(&version, 1);
        return reply(ask, "HTTP/1.1 204 No Content\r\n%s\r\n",
                     strstr(ask->target, "group") ? "Cache-Group-Invalidation: \"g\"\r\n" : "");
    }
    snprintf(body, sizeof body, "%u", atomic_load(&version));
    return reply_ok(ask, "Cache-Control: max-age=300\r\nCache-Groups: \"g\"\r\nCache-Tag: t\r\n",
                    body);
}

struct fleet {
    struct redis redis;
    struct house host[HOSTS];
};

static void start_host(struct fleet *f, int i, const char *name, const char *secret,
                       const char *cut_off)
{
    house_start(&f->host[i], 1,
                "fleet { store = {\"unix:%s\"} name = \"test\" host = \"%s\" secret = \"%s\" "
                "cut_off = %s }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                f->redis.sock, name, secret, cut_off, backend_port(backend));
}

static bool says(struct house *h, const char *text)
{
    const char *out;
    return ctl(h, &out, "fleet") == 0 && strstr(out, text);
}

static bool is_member(struct house *h)
{
    return says(h, "state     member");
}

#define SECRET "a secret of sixteen or more"

static void start(struct fleet *f, const char *cut_off)
{
    static const char *const names[HOSTS] = {"amber", "birch", "cedar"};
    *f = (struct fleet){0};
    redis_start(&f->redis);
    for (int i = 0; i < HOSTS; i++)
        start_host(f, i, names[i], SECRET, cut_off);
    for (int i = 0; i < HOSTS; i++)
        wait_until(is_member(&f->host[i]), 5000);
}

static void stop(struct fleet *f)
{
    for (int i = 0; i < HOSTS; i++)
        if (f->host[i].pid)
            house_remove(&f->host[i]);
    redis_remove(&f->redis);
}

static unsigned ask_for(struct house *h, const char *method, const char *path, unsigned status)
{
    struct message m;
    const int fd = client_connect(h->port);
    client_send(fd, "%s %s HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n", method,
                path);
    client_read(fd, &m, false);
    close(fd);
    assert_int_equal(m.status, status);
    const unsigned n = m.body ? (unsigned)atoi(m.body) : 0;
    message_free(&m);
    return n;
}

static unsigned seen(struct house *h, const char *path)
{
    return ask_for(h, "GET", path, 200);
}

static void assert_all_see(struct fleet *f, unsigned n)
{
    for (int i = 0; i < HOSTS; i++)
        assert_int_equal(seen(&f->host[i], "/a"), n);
}

/* All hold what the backend said before it changed. */
static void change(struct fleet *f)
{
    const unsigned n = atomic_load(&version);
    for (int i = 0; i < HOSTS; i++)
        wait_until(seen(&f->host[i], "/a") == n, 5000);
    atomic_fetch_add(&version, 1);
    assert_all_see(f, n);
}

static void what_one_invalidates_no_other_serves(void **state)
{
    (void)state;
    static const char *const ways[] = {"http://example.org/a", "/a", "--tag t", "--prefix /",
                                       "--all"};
    struct fleet f;
    const char *out;
    start(&f, "serve");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        change(&f);
        assert_int_equal(ctl(&f.host[i % HOSTS], &out, "cache invalidate %s", ways[i]), 0);
        assert_non_null(strstr(out, "hosts        2"));
        assert_all_see(&f, atomic_load(&version));
    }
    change(&f);
    assert_int_equal(ctl(&f.host[0], &out, "cache invalidate http://example.org/a --soft"), 0);
    assert_int_equal(ctl(&f.host[1], &out, "--json cache why http://example.org/a"), 0);
    assert_non_null(strstr(out, "\"host\": \"amber\""));
    assert_non_null(strstr(out, "\"fleet_id\":"));
    stop(&f);
}

static void nor_what_an_unsafe_method_has_changed(void **state)
{
    (void)state;
    struct fleet f;
    start(&f, "serve");
    for (int group = 0; group < 2; group++) {
        const unsigned n = atomic_load(&version);
        for (int i = 0; i < HOSTS; i++)
            wait_until(seen(&f.host[i], "/a") == n, 5000);
        ask_for(&f.host[0], "POST", group ? "/group" : "/a", 204);
        for (int i = 0; i < HOSTS; i++)
            wait_until(seen(&f.host[i], "/a") == n + 1, 5000);
    }
    stop(&f);
}

static void who_is_cut_off_knows_and_hears_of_it_when_it_is_back(void **state)
{
    (void)state;
    struct fleet f;
    const char *out;
    start(&f, "serve");
    change(&f);
    redis_kill(&f.redis);
    for (int i = 0; i < HOSTS; i++)
        wait_until(says(&f.host[i], "state     cut off"), 8000);
    wait_until(ctl(&f.host[1], &out, "status") == 0 && strstr(out, "fleet_cut_off"), 8000);
    assert_int_equal(ctl(&f.host[0], &out, "cache invalidate /a"), 0);
    assert_non_null(strstr(out, "cut off"));
    assert_int_equal(seen(&f.host[0], "/a"), atomic_load(&version));
    /* what was received a moment ago serves on, for 60 s */
    assert_int_equal(seen(&f.host[1], "/a"), atomic_load(&version) - 1);
    redis_run(&f.redis);
    for (int i = 0; i < HOSTS; i++)
        wait_until(is_member(&f.host[i]), 8000);
    assert_all_see(&f, atomic_load(&version));
    stop(&f);
}

static void a_store_that_has_lost_its_data_is_noticed(void **state)
{
    (void)state;
    struct fleet f;
    const char *out;
    start(&f, "serve");
    change(&f);
    redis_do(&f.redis, "FLUSHALL");
    assert_int_equal(ctl(&f.host[0], &out, "cache invalidate /a"), 0);
    for (int i = 0; i < HOSTS; i++)
        wait_until(is_member(&f.host[i]) && seen(&f.host[i], "/a") == atomic_load(&version), 8000);
    stop(&f);
}

static void while_it_is_cut_off_a_host_does_what_the_file_says(void **state)
{
    (void)state;
    static const char *const modes[] = {"revalidate", "bypass"};
    for (int k = 0; k < 2; k++) {
        struct fleet f;
        start(&f, modes[k]);
        change(&f);
        redis_kill(&f.redis);
        for (int i = 0; i < HOSTS; i++)
            wait_until(says(&f.host[i], "state     cut off"), 8000);
        assert_all_see(&f, atomic_load(&version));
        stop(&f);
    }
}

static void strangers_and_namesakes_are_named(void **state)
{
    (void)state;
    struct fleet f = {0};
    const char *out;
    redis_start(&f.redis);
    start_host(&f, 0, "amber", SECRET, "serve");
    wait_until(is_member(&f.host[0]), 5000);
    start_host(&f, 1, "amber", SECRET, "serve");
    wait_until(says(&f.host[1], "another host of the fleet is called amber"), 8000);
    start_host(&f, 2, "birch", "another secret of the same length", "serve");
    wait_until(is_member(&f.host[2]), 5000);
    seen(&f.host[0], "/a");
    assert_int_equal(ctl(&f.host[2], &out, "cache invalidate --all --local"), 0);
    wait_until(says(&f.host[0], "strange   1"), 5000);
    wait_until(ctl(&f.host[0], &out, "status") == 0 && strstr(out, "fleet_strangers"), 5000);
    const unsigned calls = backend_calls(backend);
    seen(&f.host[0], "/a"); /* it was not invalidated */
    assert_int_equal(backend_calls(backend), calls);
    redis_do(&f.redis, "XADD polder:{test}:log * by hand");
    assert_int_equal(ctl(&f.host[0], &out, "cache invalidate /a --local"), 0);
    wait_until(is_member(&f.host[0]) && says(&f.host[0], "pending   0"), 8000);
    stop(&f);
}

/* What hosts say of themselves, and to each other, takes no more room; what would is refused. */
static void a_store_without_memory_keeps_its_hosts(void **state)
{
    (void)state;
    struct fleet f;
    const char *out;
    start(&f, "serve");
    redis_do(&f.redis, "CONFIG SET maxmemory 1");
    assert_non_null(strstr(redis_do(&f.redis, "SET x y"), "OOM"));
    house_stop(&f.host[2]);
    house_run(&f.host[2]);
    wait_until(is_member(&f.host[2]), 10000);
    for (int i = 0; i < HOSTS; i++)
        seen(&f.host[i], "/a");
    const unsigned now = atomic_fetch_add(&version, 1) + 1;
    assert_int_equal(ctl(&f.host[0], &out, "cache invalidate /a"), 0);
    assert_non_null(strstr(out, "hosts        2"));
    for (int i = 0; i < HOSTS; i++)
        assert_int_equal(seen(&f.host[i], "/a"), now);
    stop(&f);
}

/* What it says to whatever it is asked. */
static const char *_Atomic nonsense;

static void says_nonsense(int fd)
{
    char in[4096];
    while (read(fd, in, sizeof in) > 0) {
        const char *text = atomic_load(&nonsense);
        if (strcmp(text, "without end") != 0) {
            if (write(fd, text, strlen(text)) < 0)
                return;
            continue;
        }
        memset(in, 'x', sizeof in);
        if (write(fd, "$500000000\r\n", 12) < 0)
            return;
        for (int i = 0; i < 100000; i++) /* 400 MB, unless it is left before */
            if (write(fd, in, sizeof in) < 0)
                return;
    }
}

static void a_store_that_is_none_is_left_and_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } stores[] = {
        {"HTTP/1.1 400 Bad Request\r\n\r\n", "Protocol error"},
        {"+PONG\r\n", "it answers ROLE as no Redis does"},
        {"-NOAUTH Authentication required.\r\n", "NOAUTH Authentication required."},
        {"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "OOM command"},
        {"*3\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n", "it is not the master"},
        {"*1000000000000\r\n", "out of range"},
        {"without end", "a reply is too long"},
        {"", "it does not answer"},
    };
    struct house h;
    const char *out;
    atomic_store(&nonsense, "");
    signal(SIGPIPE, SIG_IGN);
    struct backend *store = backend_start_raw(says_nonsense, 0);
    house_start(&h, 1,
                "fleet { store = {\"redis://localhost:%u\"} secret = \"" SECRET "\" }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(store), backend_port(backend));
    for (size_t i = 0; i < sizeof stores / sizeof *stores; i++) {
        atomic_store(&nonsense, stores[i].text);
        wait_until(says(&h, stores[i].why), 15000);
    }
    seen(&h, "/a");
    assert_int_equal(ctl(&h, &out, "cache invalidate /a"), 0);
    pid_t control;
    assert_int_equal(house_children(&h, "polderd: control", &control, 1), 1);
    if (!harness_sanitized()) /* which keeps what is freed */
        assert_true(resident_kib(control) < 64 * 1024);
    assert_false(house_logged(&h, "died"));
    assert_false(house_logged(&h, SECRET));
    house_remove(&h);
    backend_stop(store);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(what_one_invalidates_no_other_serves),
        cmocka_unit_test(nor_what_an_unsafe_method_has_changed),
        cmocka_unit_test(who_is_cut_off_knows_and_hears_of_it_when_it_is_back),
        cmocka_unit_test(a_store_that_has_lost_its_data_is_noticed),
        cmocka_unit_test(while_it_is_cut_off_a_host_does_what_the_file_says),
        cmocka_unit_test(strangers_and_namesakes_are_named),
        cmocka_unit_test(a_store_without_memory_keeps_its_hosts),
        cmocka_unit_test(a_store_that_is_none_is_left_and_named),
    };
    return run_with_backend(stories, &backend, answers);
}

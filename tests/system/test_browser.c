/* SPDX-License-Identifier: BSD-2-Clause */
/* The dashboard in a real browser, while things happen to the service: tests/clients/dashboard. */
#include "fleet_host.h"
#include "harness.h"
#include "redis.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool answer(struct asked *ask, const char *lines)
{
    return reply_ok(ask, lines, "hello");
}

static bool backend(struct asked *ask)
{
    return answer(ask, strstr(ask->target, "/items/") ? "Cache-Control: max-age=300\r\n"
                                                      : "Cache-Control: no-store\r\n");
}

/* Somebody who looks, and who is told when to look again. */
struct browser {
    pid_t pid;
    FILE *says;
    int hears;
    char said[8192];
};

static void browser_start(struct browser *b, unsigned ops_port, const char *const *steps)
{
    int in[2], out[2];
    char url[64];
    const char *argv[16] = {"node", "tests/clients/dashboard/look.mjs", url};
    snprintf(url, sizeof url, "http://127.0.0.1:%u", ops_port);
    for (int i = 0; steps[i]; i++)
        argv[3 + i] = steps[i];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    b->pid = fork();
    if (b->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(in[1]);
        close(out[0]);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    b->hears = in[1];
    b->says = fdopen(out[0], "r");
}

/* What it has seen and asked for, up to this line. */
static void expect_said(struct browser *b, const char *line)
{
    char one[4096];
    while (fgets(one, sizeof one, b->says)) {
        one[strcspn(one, "\n")] = 0;
        if (!strcmp(one, line))
            return;
        snprintf(b->said, sizeof b->said, "%s", one);
        if (strstr(one, "wrong:"))
            break;
    }
    fail_msg("the browser did not say \"%s\": %s", line, b->said);
}

static void tell(struct browser *b)
{
    assert_int_equal(write(b->hears, "\n", 1), 1);
}

static void browser_end(struct browser *b)
{
    int status;
    fclose(b->says);
    close(b->hears);
    assert_int_equal(waitpid(b->pid, &status, 0), b->pid);
    assert_int_equal(status, 0);
}

static void some_traffic(struct house *h)
{
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(get(h->port, i % 2 ? "/items/1" : "/items/2?token=secret", NULL), 200);
    house_advance(h, 500); /* of many at once only some are recorded */
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(get(h->port, "/few", NULL), i < 2 ? 200 : 429);
}

static void the_dashboard_says_what_is_so(void **state)
{
    (void)state;
    static const char *const steps[] = {"open", "empty",  "traffic",  "numbers", "span", "keys",
                                        "copy", "loaded", "alerting", "lost",    NULL};
    struct browser b = {0};
    struct house h;
    struct backend *peer = backend_start(backend, NULL);
    house_start(&h, 1,
                "cost { currency = EUR  upstream_call = 0.01 }\n"
                "alert \"cache_hit_rate\" { below = 99  unit = percent  for = 1s }\n"
                "upstream \"api\" { server \"127.0.0.1:%u\" { } }\n"
                "upstream \"gone\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"few\" { requests = 2  window = \"60s\"  key = \"client\" }\n"
                "route \"/items/*\" { upstream = \"api\"  cache { } }\n"
                "route \"/few\" { upstream = \"api\"  limits = {\"few\"} }\n"
                "route \"/gone\" { upstream = \"gone\" }\n"
                "route \"/unused\" { upstream = \"api\" }\n",
                backend_port(peer), free_port());
    browser_start(&b, h.ops_port, steps);
    expect_said(&b, "send traffic");
    some_traffic(&h);
    tell(&b);
    expect_said(&b, "break something");
    assert_int_equal(get(h.port, "/gone", NULL), 502);
    tell(&b);
    expect_said(&b, "kill it");
    house_kill(&h);
    tell(&b);
    expect_said(&b, "bring it back");
    house_run(&h);
    tell(&b);
    expect_said(&b, "all ok");
    browser_end(&b);
    house_remove(&h);
    backend_stop(peer);
}

/* A member of the fleet that applies nothing, and is called what a page must not take for markup. */
static _Atomic(struct redis *) hostile_store;

static void *be_hostile(void *arg)
{
    const struct fleet_host_is host = {.fleet = "test",
                                       .secret = "hidden from all others",
                                       .host = "<img src=x onerror='broken=1'>",
                                       .instance = 0xabc};
    for (struct redis *r; (r = atomic_load(&hostile_store)); nap_ms(200))
        fleet_host_put(r, &host);
    return arg;
}

static void the_dashboard_shows_the_fleet(void **state)
{
    (void)state;
    static const char *const steps[] = {"open", "fleet", NULL};
    struct browser b = {0};
    struct redis r = {0};
    struct house h;
    const char *out;
    struct backend *peer = backend_start(backend, NULL);
    redis_start(&r);
    house_start(
        &h, 1,
        "fleet { store = {\"unix:%s\"} name = \"test\" host = \"amber\" "
        "secret = \"hidden from all others\" }\n"
        "upstream \"api\" { server \"127.0.0.1:%u\" { } }\n"
        "limit \"few\" { requests = 100  window = \"60s\"  key = \"client\"  scope = fleet }\n"
        "cache { shared = true }\n"
        "route \"/*\" { upstream = \"api\"  limits = {\"few\"}  cache { } }\n",
        r.sock, backend_port(peer));
    wait_until(ctl(&h, &out, "fleet") == 0 && strstr(out, "member"), 10000);
    pthread_t hostile;
    atomic_store(&hostile_store, &r);
    assert_int_equal(pthread_create(&hostile, NULL, be_hostile, NULL), 0);
    browser_start(&b, h.ops_port, steps);
    expect_said(&b, "invalidate");
    assert_int_equal(ctl(&h, &out, "cache invalidate /items/1 --local"), 0);
    tell(&b);
    expect_said(&b, "kill the store");
    atomic_store(&hostile_store, NULL);
    pthread_join(hostile, NULL);
    redis_kill(&r);
    tell(&b);
    expect_said(&b, "all ok");
    browser_end(&b);
    house_remove(&h);
    redis_remove(&r);
    backend_stop(peer);
}

static int status_of(unsigned port, const char *target, const char *host)
{
    struct message m;
    const int fd = client_connect(port);
    client_send(fd, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target, host);
    client_read(fd, &m, false);
    const int status = m.status;
    message_free(&m);
    close(fd);
    return status;
}

/* Whose heads have come: its body has no end. */
static int open_stream(unsigned port)
{
    char head[12] = "";
    const int fd = client_connect(port);
    client_send(fd, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for (size_t n = 0; n < sizeof head;) {
        const ssize_t got = read(fd, head + n, sizeof head - n);
        assert_true(got > 0);
        n += (size_t)got;
    }
    assert_memory_equal(head, "HTTP/1.1 200", 12);
    return fd;
}

static void names_and_places_are_bounded(void **state)
{
    (void)state;
    struct house h;
    int fd[16];
    house_start(&h, 1, "%s", "");
    assert_int_equal(status_of(h.ops_port, "/", "evil.example"), 421);
    assert_int_equal(status_of(h.ops_port, "/metrics", "evil.example"), 421);
    assert_int_equal(status_of(h.ops_port, "/healthz", "evil.example"), 200);
    assert_int_equal(status_of(h.ops_port, "/", "localhost"), 200);
    for (int i = 0; i < 16; i++)
        fd[i] = open_stream(h.ops_port);
    assert_int_equal(status_of(h.ops_port, "/events", "localhost"), 503);
    assert_int_equal(status_of(h.ops_port, "/metrics", "localhost"), 200);
    for (int i = 0; i < 16; i++)
        close(fd[i]);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_and_places_are_bounded),
                                       cmocka_unit_test(the_dashboard_shows_the_fleet),
                                       cmocka_unit_test(the_dashboard_says_what_is_so)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

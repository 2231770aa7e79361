/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of polling: one call an interval, a truthful max-age, and pollers that are told instead
 * (Prefer: wait). */
#include "harness.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_uint version, broken, closed;
static struct backend *backend;

static bool answers(struct asked *a)
{
    char body[128];
    while (!strncmp(a->target, "/late", 5) && atomic_load(&closed))
        nap_ms(5);
    if (atomic_load(&broken))
        return reply(a, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    const char *who = field_of(&a->m, "Authorization");
    snprintf(body, sizeof body, "version %u for %s", atomic_load(&version), who ? who : "all");
    if (!strcmp(a->method, "POST"))
        return reply_ok(a, "", "done");
    if (!strncmp(a->target, "/lazy", 5)) /* says that nobody may use it without asking */
        return reply_ok(a, "Cache-Control: no-cache\r\nExpires: 0\r\nAge: 3\r\n", body);
    if (!strcmp(a->target, "/large")) {
        static char large[24001];
        while (atomic_load(&closed))
            nap_ms(5);
        memset(large, 'x', sizeof large - 1);
        return reply_ok(a, "Cache-Control: no-cache\r\n", large);
    }
    if (!strncmp(a->target, "/secret", 7))
        return reply_ok(a, "Cache-Control: no-store\r\n", body);
    return reply_ok(a, "", body);
}

static void start(struct house *h, unsigned workers, const char *cache, const char *poll)
{
    atomic_store(&version, 1);
    atomic_store(&broken, 0);
    house_start(h, workers,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "cache { stale_while_revalidate = \"0s\" }\n"
                "route \"/*\" { upstream = \"u\" cache { %s } poll { %s } }\n",
                backend_port(backend), cache, poll);
    backend_forget(backend);
}

/* The entity tag that the store has for the target, once it is there. */
static void etag_of(struct house *h, const char *target, const char *lines, char etag[64])
{
    struct message m;
    const char *found = NULL;
    get_with(h->port, target, lines, NULL);
    uint64_t end = mono_ms() + harness_patience(3000);
    etag[0] = 0;
    while (!etag[0] && mono_ms() < end) {
        get_with(h->port, target, lines, &m);
        if ((found = field_of(&m, "ETag")))
            snprintf(etag, 64, "%s", found);
        message_free(&m);
        nap_ms(5);
    }
    assert_int_not_equal(etag[0], 0);
}

static unsigned max_age(const struct message *m)
{
    const char *cc = field_of(m, "Cache-Control"), *at = cc ? strstr(cc, "max-age=") : NULL;
    return at ? (unsigned)atoi(at + 8) : 9999;
}

static unsigned metric(struct house *h, const char *name)
{
    struct message m;
    unsigned n = 0;
    get(h->ops_port, "/metrics", &m);
    const char *at = m.body ? strstr(m.body, name) : NULL;
    if (at)
        n = (unsigned)atoi(at + strlen(name));
    message_free(&m);
    return n;
}

#define MISSES "\npolder_cache_lookups_total{result=\"miss\"} "

static unsigned held(struct house *h)
{
    return metric(h, "\npolder_poll_held ");
}

static void wait_for_change(int fd, const char *target, const char *etag, unsigned seconds)
{
    client_send(
        fd, "GET %s HTTP/1.1\r\nHost: test.example\r\nIf-None-Match: %s\r\nPrefer: wait=%u\r\n\r\n",
        target, etag, seconds);
}

static void the_backend_is_asked_once_an_interval(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 2, "", "min_interval = \"2s\"");
    for (int i = 0; i < 2; i++) { /* whatever the backend says of freshness */
        const char *target = i ? "/lazy" : "/plain";
        char etag[64];
        backend_forget(backend);
        const uint64_t began = mono_ms();
        etag_of(&h, target, "", etag);
        for (int n = 0; n < 40; n++) {
            assert_int_equal(get(h.port, target, &m), 200);
            assert_true(max_age(&m) <= 2);
            assert_null(field_of(&m, "Age"));
            assert_null(field_of(&m, "Expires"));
            message_free(&m);
        }
        if (mono_ms() - began < 2000)
            assert_int_equal(backend_calls(backend), 1);
        if (i) /* its interval ends, and it is asked again */
            wait_until((get(h.port, target, NULL), backend_calls(backend) == 2), 4000);
    }
    house_remove(&h);
}

static void unchanged_is_304_and_the_rest_of_the_interval(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char etag[64], lines[128];
    start(&h, 2, "", "min_interval = \"30s\"");
    etag_of(&h, "/lazy", "", etag);
    snprintf(lines, sizeof lines, "If-None-Match: %s\r\n", etag);
    assert_int_equal(get_with(h.port, "/lazy", lines, &m), 304);
    assert_true(max_age(&m) <= 30 && max_age(&m) >= 20);
    message_free(&m);
    house_remove(&h);
}

static void what_was_invalidated_is_never_served_within_the_interval(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const char *out;
    char etag[64];
    start(&h, 2, "", "min_interval = \"30s\"");
    for (unsigned v = 2; v < 12; v++) {
        char want[64];
        etag_of(&h, "/lazy", "", etag);
        atomic_store(&version, v);
        if (v % 3 == 0) {
            assert_int_equal(request(h.port, "POST", "/lazy", "", "x", NULL), 200);
        } else {
            assert_int_equal(
                ctl(&h, &out, "cache invalidate test.example/lazy %s", v % 3 == 1 ? "--soft" : ""),
                0);
        }
        snprintf(want, sizeof want, "version %u for all", v);
        assert_int_equal(get(h.port, "/lazy", &m), 200);
        assert_string_equal(m.body, want);
        message_free(&m);
    }
    house_remove(&h);
}

static void each_identity_has_an_interval_of_its_own(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char etag[64];
    start(&h, 2, "partition = \"header:Authorization\"", "min_interval = \"30s\"");
    etag_of(&h, "/lazy", "Authorization: Bearer a\r\n", etag);
    etag_of(&h, "/lazy", "Authorization: Bearer b\r\n", etag);
    assert_int_equal(backend_calls(backend), 2);
    assert_int_equal(get_with(h.port, "/lazy", "Authorization: Bearer a\r\n", &m), 200);
    assert_string_equal(m.body, "version 1 for Bearer a");
    assert_non_null(strstr(field_of(&m, "Cache-Control"), "private"));
    message_free(&m);
    assert_int_equal(backend_calls(backend), 2);
    house_remove(&h);
}

static void what_may_not_be_stored_is_not(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h, 1, "", "min_interval = \"30s\"");
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(get(h.port, "/secret", &m), 200);
        assert_string_equal(field_of(&m, "Cache-Control"), "no-store");
        message_free(&m);
        assert_int_equal(backend_calls(backend), i);
    }
    house_remove(&h);
}

static void who_waits_is_told_of_a_change(void **state)
{
    (void)state;
    enum { N = 200 };
    struct house h;
    struct message m;
    const char *out;
    char etag[64];
    int fd[N];
    start(&h, 4, "", "min_interval = \"30s\"");
    etag_of(&h, "/lazy", "", etag);
    backend_forget(backend);
    for (int i = 0; i < N; i++) {
        fd[i] = client_connect(h.port);
        wait_for_change(fd[i], "/lazy", etag, 60);
    }
    wait_until(held(&h) == N, 5000);
    assert_int_equal(backend_calls(backend), 0);
    /* an invalidation without a change disturbs nobody but the backend, once */
    assert_int_equal(ctl(&h, &out, "cache invalidate --prefix /lazy"), 0);
    wait_until(backend_calls(backend) == 1, 5000);
    etag_of(&h, "/lazy", "", etag); /* stored */
    wait_until(held(&h) == N, 5000);
    assert_int_equal(backend_calls(backend), 1);
    /* a change reaches all, at the cost of one call */
    atomic_store(&version, 2);
    assert_int_equal(ctl(&h, &out, "cache invalidate --prefix /lazy"), 0);
    for (int i = 0; i < N; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        assert_string_equal(m.body, "version 2 for all");
        assert_string_equal(field_of(&m, "Preference-Applied"), "wait=60");
        snprintf(etag, sizeof etag, "%s", field_of(&m, "ETag"));
        message_free(&m);
    }
    assert_int_equal(backend_calls(backend), 2);
    wait_until(held(&h) == 0, 2000);
    /* the same connections wait again, and an unsafe method through Polder wakes them */
    for (int i = 0; i < N; i++)
        wait_for_change(fd[i], "/lazy", etag, 60);
    wait_until(held(&h) == N, 5000);
    atomic_store(&version, 3);
    assert_int_equal(request(h.port, "POST", "/lazy", "", "x", NULL), 200);
    for (int i = 0; i < N; i++) {
        client_read(fd[i], &m, false);
        assert_string_equal(m.body, "version 3 for all");
        message_free(&m);
        close(fd[i]);
    }
    house_remove(&h);
}

static void who_waits_in_vain_is_told_304_in_time(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char etag[64];
    start(&h, 2, "", "min_interval = \"30s\" max_wait = \"2s\"");
    etag_of(&h, "/lazy", "", etag);
    backend_forget(backend);
    int fd = client_connect(h.port), longer = client_connect(h.port);
    const uint64_t began = mono_ms();
    wait_for_change(fd, "/lazy", etag, 1);
    wait_for_change(longer, "/lazy", etag, 600); /* more than the route grants */
    client_read(fd, &m, true);
    assert_int_equal(m.status, 304);
    assert_string_equal(field_of(&m, "Preference-Applied"), "wait=1");
    assert_true(mono_ms() - began >= 950);
    message_free(&m);
    client_read(longer, &m, true);
    assert_int_equal(m.status, 304);
    assert_string_equal(field_of(&m, "Preference-Applied"), "wait=2");
    assert_true(mono_ms() - began >= 1950);
    message_free(&m);
    assert_int_equal(backend_calls(backend), 0);
    /* no preference, another tag, no tag: answered at once */
    assert_int_equal(get_with(h.port, "/lazy", "Prefer: wait=60\r\n", NULL), 200);
    assert_int_equal(
        get_with(h.port, "/lazy", "Prefer: wait=60\r\nIf-None-Match: \"other\"\r\n", NULL), 200);
    close(fd);
    close(longer);
    house_remove(&h);
}

/* What was true when the request came is not any more when it is answered. */
static void who_waited_is_told_what_its_limits_leave_now(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char etag[64], lines[128];
    atomic_store(&version, 1);
    house_start(&h, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "limit \"few\" { requests = 10 window = \"1s\" algorithm = \"gcra\" }\n"
                "route \"/*\" { upstream = \"u\" limits = {\"few\"} cache { } poll { } }\n",
                backend_port(backend));
    etag_of(&h, "/lazy", "", etag);
    snprintf(lines, sizeof lines, "If-None-Match: %s\r\nPrefer: wait=2\r\n", etag);
    get_with(h.port, "/lazy", lines, &m);
    assert_int_equal(m.status, 304);
    assert_string_equal(field_of(&m, "RateLimit-Policy"), "\"few\";q=10;w=1");
    assert_string_equal(field_of(&m, "RateLimit"), "\"few\";r=10;t=0");
    message_free(&m);
    house_remove(&h);
}

static void who_polls_too_fast_is_named(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const char *out;
    char line[256];
    start(&h, 2, "", "min_interval = \"30s\"");
    get(h.port, "/lazy/a", NULL);
    int fd = client_connect(h.port);
    for (int i = 0; i < 2000; i++) {
        client_send(fd, "GET /lazy/a HTTP/1.1\r\nHost: test.example\r\n\r\n");
        client_read(fd, &m, false);
        message_free(&m);
    }
    assert_int_equal(ctl(&h, &out, "--json poll top"), 0);
    snprintf(line, sizeof line, "%s", out);
    assert_non_null(strstr(line, "127.0.0.1"));
    assert_non_null(strstr(line, "/lazy/a"));
    assert_non_null(strstr(line, "\"overcount\":"));
    const char *at = strstr(line, "\"requests\":");
    assert_non_null(at);
    const int about = atoi(at + 11);
    assert_true(about > 1000 && about < 3000);
    assert_int_equal(get(h.ops_port, "/metrics", &m), 200);
    at = strstr(m.body, "\npolder_poll_kept_total ");
    assert_non_null(at);
    assert_true(atoi(at + 24) >= 1990);
    message_free(&m);
    close(fd);
    house_remove(&h);
}

static void bad_preferences_hold_nobody(void **state)
{
    (void)state;
    static const char *const bad[] = {"wait",      "wait=",    "wait=-1",    "wait=x",
                                      "wait=\"\"", "await=60", "x; wait=60", "wait=0",
                                      "=60",       ",,,",      "wait=1e9",   "wait=\"60"};
    struct house h;
    char etag[64], lines[256];
    start(&h, 1, "", "min_interval = \"30s\"");
    etag_of(&h, "/lazy", "", etag);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(lines, sizeof lines, "If-None-Match: %s\r\nPrefer: %s\r\n", etag, bad[i]);
        assert_int_equal(get_with(h.port, "/lazy", lines, NULL), 304);
    }
    static const char *const good[] = {"wait=60", "respond-async, wait = \"60\"; x=y",
                                       "WAIT=99999999999999999999"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int fd = client_connect(h.port);
        client_send(
            fd,
            "GET /lazy HTTP/1.1\r\nHost: test.example\r\nIf-None-Match: %s\r\nPrefer: %s\r\n\r\n",
            etag, good[i]);
        wait_until(held(&h) == 1, 3000);
        close(fd); /* and who leaves is forgotten */
        wait_until(held(&h) == 0, 3000);
    }
    house_remove(&h);
}

static void a_stale_answer_is_looked_after_while_its_client_waits(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char etag[64];
    start(&h, 2, "", "min_interval = \"500ms\"");
    etag_of(&h, "/lazy", "", etag);
    house_advance(&h, 600); /* the interval is over */
    backend_forget(backend);
    int same = client_connect(h.port);
    wait_for_change(same, "/lazy", etag, 60); /* asked once: nothing new, goes on waiting */
    wait_until(backend_calls(backend) == 1 && held(&h) == 1, 3000);
    atomic_store(&version, 2);
    nap_ms(600);
    int other = client_connect(h.port); /* somebody else's request finds the change */
    wait_for_change(other, "/lazy", etag, 60);
    client_read(other, &m, false);
    assert_string_equal(m.body, "version 2 for all");
    message_free(&m);
    client_read(same, &m, false);
    assert_string_equal(m.body, "version 2 for all");
    message_free(&m);
    close(same);
    close(other);
    house_remove(&h);
}

/* One failure is an answer too: for an interval, in each worker, nobody asks again. */
static void a_backend_that_fails_is_not_asked_more_often_either(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    char etag[64];
    unsigned counts[1000] = {0};
    start(&h, 2, "ttl = \"0s\"", "min_interval = \"2s\"");
    etag_of(&h, "/plain", "", etag);
    house_advance(&h, 2100); /* the interval is over */
    atomic_store(&broken, 1);
    backend_forget(backend);
    const uint64_t began = mono_ms();
    for (int i = 0; i < 40; i++) {
        assert_int_equal(get(h.port, "/plain", &m), 200);
        assert_string_equal(m.body, "version 1 for all");
        assert_true(max_age(&m) >= 1 && max_age(&m) <= 2);
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "detail=stale-if-error"));
        message_free(&m);
    }
    storm(h.port, "/plain", 200, 20, counts, NULL);
    assert_int_equal(counts[200], 200);
    if (mono_ms() - began < 2000)
        assert_in_range(backend_calls(backend), 1, 2);
    wait_until((get(h.port, "/plain", NULL), mono_ms() - began > 2000), 5000);
    wait_until((get(h.port, "/plain", NULL), backend_calls(backend) > 2), 5000);
    atomic_store(&broken, 0); /* an invalidation ends it */
    atomic_store(&version, 2);
    assert_int_equal(ctl(&h, NULL, "cache invalidate /plain --soft"), 0);
    get(h.port, "/plain", &m);
    assert_string_equal(m.body, "version 2 for all");
    message_free(&m);
    house_remove(&h);
}

/* Who waited for the fetch that failed need not try it one by one. */
static void of_many_who_wait_for_what_fails_nobody_asks_again(void **state)
{
    (void)state;
    enum { WAITERS = 60 };
    struct house h;
    struct message m;
    int fd[WAITERS];
    atomic_store(&version, 1);
    atomic_store(&broken, 0);
    house_start(&h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "cache { ttl = \"1s\" stale_while_revalidate = \"0s\" }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(backend));
    wait_until(served_from_store(h.port, "/late"), 3000);
    house_advance(&h, 1200); /* it is stale */
    atomic_store(&closed, 1);
    atomic_store(&broken, 1);
    backend_forget(backend);
    const unsigned misses = metric(&h, MISSES);
    for (int i = 0; i < WAITERS; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /late HTTP/1.1\r\nHost: test.example\r\n\r\n");
    }
    wait_until(metric(&h, MISSES) == misses + WAITERS, 5000);
    atomic_store(&closed, 0);
    for (int i = 0; i < WAITERS; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        assert_non_null(strstr(field_of(&m, "Cache-Status"), "detail=stale-if-error"));
        message_free(&m);
        close(fd[i]);
    }
    assert_in_range(backend_calls(backend), 1, 4); /* one a worker, and who came too late */
    atomic_store(&broken, 0);
    wait_until(get(h.port, "/late", NULL) == 200 && served_from_store(h.port, "/late"), 5000);
    house_remove(&h);
}

/* Each of them has found the stale response, and needs it no more. */
static void who_waits_for_a_fetch_that_is_under_way_keeps_no_copy(void **state)
{
    (void)state;
    enum { WAITERS = 200 };
    struct house h;
    struct message m;
    char etag[64];
    int fd[WAITERS];
    pid_t worker;
    start(&h, 1, "", "min_interval = \"200ms\"");
    etag_of(&h, "/large", "", etag);
    assert_int_equal(house_children(&h, "polderd: worker", &worker, 1), 1);
    house_advance(&h, 300); /* the interval is over */
    atomic_store(&closed, 1);
    backend_forget(backend);
    fd[0] = client_connect(h.port);
    wait_for_change(fd[0], "/large", etag, 60);
    wait_until(backend_calls(backend) == 1, 3000);
    const long before = resident_kib(worker);
    for (int i = 1; i < WAITERS; i++) {
        fd[i] = client_connect(h.port);
        wait_for_change(fd[i], "/large", etag, 60);
    }
    wait_until(held(&h) == WAITERS, 5000);
    if (!harness_sanitized()) /* else it is told at the end */
        assert_in_range(resident_kib(worker), 0, before + WAITERS * 12);
    atomic_store(&closed, 0);
    assert_int_equal(backend_calls(backend), 1);
    assert_int_equal(house_stop(&h), 0);
    for (int i = 0; i < WAITERS; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 304);
        message_free(&m);
        close(fd[i]);
    }
    assert_false(house_logged(&h, "LeakSanitizer"));
    house_remove(&h);
}

static void a_backend_that_fails_is_told_to_who_waits(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const char *out;
    char etag[64];
    start(&h, 2, "", "min_interval = \"30s\"");
    etag_of(&h, "/plain", "", etag);
    int fd = client_connect(h.port);
    wait_for_change(fd, "/plain", etag, 60);
    wait_until(held(&h) == 1, 3000);
    atomic_store(&broken, 1);
    assert_int_equal(ctl(&h, &out, "cache invalidate --prefix /plain"), 0);
    client_read(fd, &m, false);
    assert_int_equal(m.status, 503);
    message_free(&m);
    close(fd);
    house_remove(&h);
}

static void holders_survive_a_reload_and_a_stop_answers_them(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const char *out;
    char etag[64];
    start(&h, 2, "", "min_interval = \"30s\"");
    etag_of(&h, "/lazy", "", etag);
    int first = client_connect(h.port);
    wait_for_change(first, "/lazy", etag, 60);
    wait_until(held(&h) == 1, 3000);
    assert_int_equal(ctl(&h, &out, "reload"), 0);
    wait_until(house_logged(&h, "generation 2 serves"), 5000);
    pid_t workers[8]; /* the old one stays for whom it holds */
    wait_until(house_children(&h, "polderd: worker", workers, 8) == 3, 5000);
    int second = client_connect(h.port);
    wait_for_change(second, "/lazy", etag, 60);
    wait_until(held(&h) == 2, 5000);
    atomic_store(&version, 2);
    assert_int_equal(ctl(&h, &out, "cache invalidate --prefix /lazy"), 0);
    client_read(first, &m, false); /* held by a worker of the generation that leaves */
    assert_string_equal(m.body, "version 2 for all");
    message_free(&m);
    client_read(second, &m, false);
    assert_string_equal(m.body, "version 2 for all");
    snprintf(etag, sizeof etag, "%s", field_of(&m, "ETag"));
    message_free(&m);
    wait_for_change(second, "/lazy", etag, 60);
    wait_until(held(&h) == 1, 5000);
    kill(h.pid, SIGTERM);
    client_read(second, &m, true);
    assert_int_equal(m.status, 304);
    message_free(&m);
    close(first);
    close(second);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_backend_is_asked_once_an_interval),
        cmocka_unit_test(unchanged_is_304_and_the_rest_of_the_interval),
        cmocka_unit_test(what_was_invalidated_is_never_served_within_the_interval),
        cmocka_unit_test(each_identity_has_an_interval_of_its_own),
        cmocka_unit_test(what_may_not_be_stored_is_not),
        cmocka_unit_test(who_waits_is_told_of_a_change),
        cmocka_unit_test(who_waits_in_vain_is_told_304_in_time),
        cmocka_unit_test(who_waited_is_told_what_its_limits_leave_now),
        cmocka_unit_test(who_polls_too_fast_is_named),
        cmocka_unit_test(bad_preferences_hold_nobody),
        cmocka_unit_test(a_stale_answer_is_looked_after_while_its_client_waits),
        cmocka_unit_test(a_backend_that_fails_is_not_asked_more_often_either),
        cmocka_unit_test(of_many_who_wait_for_what_fails_nobody_asks_again),
        cmocka_unit_test(who_waits_for_a_fetch_that_is_under_way_keeps_no_copy),
        cmocka_unit_test(a_backend_that_fails_is_told_to_who_waits),
        cmocka_unit_test(holders_survive_a_reload_and_a_stop_answers_them),
    };
    return run_with_backend(tests, &backend, answers);
}

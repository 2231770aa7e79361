/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of servers that answer badly, or get more than they can take: ejection, second tries,
 * max_connections and its queue, the choice by requests under way. */
#include "harness.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum mood { WELL, ERRORS, SOME_ERRORS, HANGS, CLOSES };
/* A backend, what it does, and how much it has to do at once. */
struct place {
    struct backend *backend;
    _Atomic int mood, hold_ms;
    atomic_uint now, most, errors;
};
static struct place good, bad;
static struct house house;

static bool work(struct asked *a, struct place *p)
{
    const unsigned n = atomic_fetch_add(&p->now, 1) + 1;
    unsigned most = atomic_load(&p->most);
    while (n > most && !atomic_compare_exchange_weak(&p->most, &most, n))
        ;
    for (int i = 0; atomic_load(&p->mood) == HANGS && i < 4000; i++)
        nap_ms(5);
    nap_ms((unsigned)atomic_load(&p->hold_ms));
    atomic_fetch_sub(&p->now, 1);
    const int mood = atomic_load(&p->mood);
    if (mood == CLOSES)
        return false;
    if (mood != ERRORS && (mood != SOME_ERRORS || a->number % 4))
        return reply_ok(a, "", "well");
    atomic_fetch_add(&p->errors, 1);
    return reply(a, "HTTP/1.1 503 Unwell\r\nContent-Length: 0\r\n\r\n");
}

static bool works(struct asked *a)
{
    return work(a, a->arg);
}

static void place_open(struct place *p)
{
    atomic_store(&p->mood, WELL);
    atomic_store(&p->hold_ms, 0);
    atomic_store(&p->now, 0);
    atomic_store(&p->most, 0);
    atomic_store(&p->errors, 0);
    p->backend = backend_start(works, p);
}

static int begin(void **state)
{
    (void)state;
    place_open(&good);
    place_open(&bad);
    return 0;
}

static int end(void **state)
{
    (void)state;
    atomic_store(&good.mood, WELL);
    atomic_store(&bad.mood, WELL);
    house_remove(&house);
    backend_stop(good.backend);
    backend_stop(bad.backend);
    return 0;
}

static void servers(const char *of_bad, const char *of_good, const char *keys)
{
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { %s } server \"127.0.0.1:%u\" { %s }\n"
                "%s }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(bad.backend), of_bad, backend_port(good.backend), of_good, keys);
}

static void one_server(const char *of_server, const char *keys)
{
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { %s }\n%s }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(good.backend), of_server, keys);
}

static unsigned listed(const char *what)
{
    const char *out;
    unsigned n = 0;
    assert_int_equal(ctl(&house, &out, "upstream list --json"), 0);
    while ((out = strstr(out, what))) {
        out++;
        n++;
    }
    return n;
}

static unsigned long metric(const char *name)
{
    struct message m;
    char line[96];
    snprintf(line, sizeof line, "\n%s ", name);
    assert_int_equal(get(house.ops_port, "/metrics", &m), 200);
    const char *at = strstr(m.body, line);
    assert_non_null(at);
    const unsigned long n = strtoul(at + strlen(line), NULL, 10);
    message_free(&m);
    return n;
}

/* How many of these GETs get 503. */
static unsigned refused(unsigned n, unsigned parallel)
{
    unsigned counts[1000] = {0};
    storm(house.port, "/", n, parallel, counts, NULL);
    assert_int_equal(counts[200] + counts[503], n);
    return counts[503];
}

/* ---- ejection ---- */

static void a_server_with_five_errors_is_ejected_and_returns_slowly(void **state)
{
    (void)state;
    servers("", "", "");
    atomic_store(&bad.mood, ERRORS);
    assert_in_range(refused(200, 4), 5, 5 + 4); /* those under way */
    assert_int_equal(listed("\"ejected\""), 1);
    assert_int_equal(listed("\"error status\""), 1);
    assert_int_equal(refused(100, 4), 0);
    for (int i = 0; i < 2; i++) { /* each failed trial costs one, and makes it longer */
        house_advance(&house, 12000 * (unsigned)(i + 1));
        assert_in_range(refused(40, 1), 1, 1);
        assert_int_equal(refused(40, 4), 0);
    }
    atomic_store(&bad.mood, WELL);
    house_advance(&house, 40000);
    backend_forget(bad.backend);
    assert_int_equal(refused(100, 4), 0);
    assert_int_equal(listed("\"slow start\""), 1);
    assert_in_range(backend_calls(bad.backend), 1, 45);
    house_advance(&house, 11000);
    backend_forget(bad.backend);
    assert_int_equal(refused(100, 4), 0);
    assert_in_range(backend_calls(bad.backend), 48, 52);
    assert_int_equal(listed("\"up\""), 2);
}

static void errors_of_posts_count_too(void **state)
{
    (void)state;
    servers("", "", "");
    atomic_store(&bad.mood, ERRORS);
    unsigned failed = 0;
    for (int i = 0; i < 30; i++)
        failed += request(house.port, "POST", "/", "", "x", NULL) == 503;
    assert_int_equal(failed, 5);
    assert_int_equal(atomic_load(&bad.errors), 5); /* each was sent once */
}

static void a_server_with_more_errors_than_the_other_is_ejected(void **state)
{
    (void)state;
    servers("", "", "");
    atomic_store(&bad.mood, SOME_ERRORS);
    for (int i = 0; i < 20 && !listed("\"ejected\""); i++) {
        refused(250, 4);
        house_advance(&house, 10000);
        nap_ms(1100); /* control looks each second */
    }
    assert_int_equal(listed("\"ejected\""), 1);
    assert_true(house_logged(&house, "is ejected: 2"));
    assert_true(house_logged(&house, "% of its requests failed, 0.0 % of those of the others"));
    assert_int_equal(refused(100, 4), 0);
}

static void the_last_server_is_never_ejected(void **state)
{
    (void)state;
    servers("", "", "");
    atomic_store(&bad.mood, ERRORS);
    atomic_store(&good.mood, ERRORS);
    assert_int_equal(refused(100, 4), 100); /* all are asked */
    assert_int_equal(atomic_load(&bad.errors) + atomic_load(&good.errors), 100);
    assert_int_equal(listed("\"ejected\""), 1);
    assert_int_equal(listed("\"up\""), 1);
}

static void with_eject_off_errors_pass(void **state)
{
    (void)state;
    servers("", "", "eject = off");
    atomic_store(&bad.mood, ERRORS);
    assert_in_range(refused(100, 4), 48, 52);
    assert_int_equal(listed("\"up\""), 2);
}

static void with_eject_off_by_a_reload_it_is_back(void **state)
{
    char text[512];
    (void)state;
    servers("", "", "");
    atomic_store(&bad.mood, ERRORS);
    assert_true(refused(100, 4) >= 5);
    assert_int_equal(listed("\"ejected\""), 1);
    snprintf(text, sizeof text,
             "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { }\n"
             "eject = off }\nroute \"/*\" { upstream = \"u\" }\n",
             backend_port(bad.backend), backend_port(good.backend));
    house_write_conf(&house, 2, text);
    assert_int_equal(ctl(&house, NULL, "reload"), 0);
    wait_until(listed("\"ejected\"") == 0, 10000);
    house_advance(&house, 11000); /* slow start */
    assert_in_range(refused(100, 4), 45, 55);
}

/* ---- second tries ---- */

static void second_tries_are_few_at_once(void **state)
{
    (void)state;
    unsigned counts[1000] = {0};
    servers("", "backup = true", "retry_budget = 0 timeout = \"2s\"");
    atomic_store(&bad.mood, HANGS);
    atomic_store(&good.hold_ms, 20);
    storm(house.port, "/", 24, 24, counts, NULL);
    assert_int_equal(counts[200], 24); /* they wait for each other */
    assert_in_range(atomic_load(&good.most), 1, 3);
    assert_true(metric("polder_upstream_queued_total") > 0);
    assert_int_equal(metric("polder_upstream_retries_refused_total"), 0);
}

static void a_second_try_without_room_is_refused(void **state)
{
    (void)state;
    unsigned counts[1000] = {0};
    servers("", "backup = true", "retry_budget = 0 queue = 0 timeout = \"2s\"");
    atomic_store(&bad.mood, HANGS);
    atomic_store(&good.hold_ms, 300);
    storm(house.port, "/", 24, 24, counts, NULL);
    assert_int_equal(counts[200] + counts[504], 24);
    assert_true(counts[200] >= 3);
    assert_in_range(atomic_load(&good.most), 1, 3);
    assert_int_equal(metric("polder_upstream_retries_refused_total"), counts[504]);
}

/* ---- max_connections ---- */

static void a_server_gets_as_many_as_it_takes_and_the_others_wait(void **state)
{
    (void)state;
    one_server("max_connections = 3", "");
    atomic_store(&good.hold_ms, 5);
    assert_int_equal(refused(300, 16), 0);
    assert_int_equal(atomic_load(&good.most), 3);
    assert_true(metric("polder_upstream_queued_total") > 0);
    assert_int_equal(listed("\"busy\": 0"), 1);
}

static void what_finds_no_room_gets_503_and_is_told_when_to_come(void **state)
{
    (void)state;
    struct message m;
    one_server("max_connections = 1", "queue = 2 queue_timeout = \"10s\"");
    atomic_store(&good.mood, HANGS);
    int fd[3];
    for (int i = 0; i < 3; i++) {
        fd[i] = client_connect(house.port);
        client_send(fd[i], "GET /%d HTTP/1.1\r\nHost: h\r\n\r\n", i);
    }
    wait_until(metric("polder_upstream_queued_total") == 2, 5000);
    const int status = get(house.port, "/more", &m);
    assert_int_equal(status, 503);
    assert_string_equal(field_of(&m, "Retry-After"), "1");
    message_free(&m);
    house_advance(&house, 10000);
    wait_until(metric("polder_upstream_queue_timeouts_total") == 2, 5000);
    assert_in_range(metric("polder_upstream_queue_refused_total"), 1, 1);
    atomic_store(&good.mood, WELL);
    unsigned answered[2] = {0};
    for (int i = 0; i < 3; i++) {
        client_read(fd[i], &m, false);
        answered[m.status == 200]++;
        message_free(&m);
        close(fd[i]);
    }
    assert_int_equal(answered[1], 1);
    assert_int_equal(get(house.port, "/", NULL), 200);
}

/* More wait for a server that hangs than are looked at at once: those of others are not behind them. */
static void a_full_server_holds_up_no_other_upstream(void **state)
{
    (void)state;
    int hung[80];
    unsigned counts[1000] = {0};
    house_start(&house, 1,
                "upstream \"a\" { server \"127.0.0.1:%u\" { max_connections = 1 } queue_timeout = "
                "\"60s\" timeout = \"60s\" }\n"
                "upstream \"b\" { server \"127.0.0.1:%u\" { max_connections = 1 } queue_timeout = "
                "\"60s\" }\n"
                "route \"/a/*\" { upstream = \"a\" }\nroute \"/b/*\" { upstream = \"b\" }\n",
                backend_port(bad.backend), backend_port(good.backend));
    atomic_store(&bad.mood, HANGS);
    for (size_t i = 0; i < 80; i++) {
        hung[i] = client_connect(house.port);
        client_send(hung[i], "GET /a/%zu HTTP/1.1\r\nHost: h\r\n\r\n", i);
    }
    wait_until(metric("polder_upstream_queued_total") == 79, 10000);
    atomic_store(&good.hold_ms, 20);
    const uint64_t from = mono_ms();
    storm(house.port, "/b/", 8, 4, counts, NULL);
    assert_int_equal(counts[200], 8);
    assert_true(mono_ms() < from + harness_patience(5000));
    for (size_t i = 0; i < 80; i++)
        close(hung[i]);
    atomic_store(&bad.mood, WELL);
    wait_until(listed("\"busy\": 0") == 2, 10000);
}

/* It waits for the server that it has not tried; others go to the one that it has. */
static void a_second_try_that_waits_for_room_holds_up_no_other_request(void **state)
{
    (void)state;
    int fd[2];
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { max_connections = 1 } server "
                "\"127.0.0.1:%u\" { max_connections = 1 }\nqueue_timeout = \"60s\" timeout = "
                "\"60s\" }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(bad.backend), backend_port(good.backend));
    atomic_store(&bad.mood, HANGS);
    atomic_store(&good.mood, HANGS);
    for (int i = 0; i < 2; i++) {
        fd[i] = client_connect(house.port);
        client_send(fd[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    wait_until(atomic_load(&bad.now) + atomic_load(&good.now) == 2, 10000);
    atomic_store(&bad.mood, CLOSES);
    wait_until(metric("polder_upstream_queued_total") == 1, 10000);
    atomic_store(&bad.mood, WELL);
    const uint64_t from = mono_ms();
    assert_int_equal(refused(8, 2), 0);
    assert_true(mono_ms() < from + harness_patience(5000));
    atomic_store(&good.mood, WELL);
    for (int i = 0; i < 2; i++) {
        struct message m;
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
        close(fd[i]);
    }
}

static void the_places_of_a_dead_worker_are_free_again(void **state)
{
    (void)state;
    one_server("max_connections = 4", "");
    atomic_store(&good.mood, HANGS);
    int fd[4];
    for (int i = 0; i < 4; i++) {
        fd[i] = client_connect(house.port);
        client_send(fd[i], "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    wait_until(listed("\"busy\": 4") == 1, 5000);
    pid_t pid[2];
    const size_t n = house_children(&house, "polderd: worker", pid, 2);
    for (size_t i = 0; i < n; i++)
        kill(pid[i], SIGKILL);
    wait_until(listed("\"busy\": 0") == 1, 10000);
    atomic_store(&good.mood, WELL);
    for (int i = 0; i < 4; i++)
        close(fd[i]);
    wait_until(get(house.port, "/", NULL) == 200, 10000);
    wait_until(atomic_load(&good.now) == 0, 10000); /* the backend has noticed, too */
    atomic_store(&good.most, 0);
    atomic_store(&good.hold_ms, 5);
    assert_int_equal(refused(100, 12), 0);
    assert_int_equal(atomic_load(&good.most), 4);
}

static void the_one_with_less_to_do_is_asked(void **state)
{
    (void)state;
    servers("", "", "balance = least_conn");
    atomic_store(&bad.hold_ms, 60);
    atomic_store(&good.hold_ms, 2);
    assert_int_equal(refused(200, 6), 0);
    assert_true(backend_calls(good.backend) > 3 * backend_calls(bad.backend));
    assert_true(backend_calls(bad.backend) > 0);
}

/* ---- restarts ---- */

static atomic_uint answered;

static void answers_all(int fd)
{
    char in[4096];
    size_t n = 0;
    for (ssize_t got; (got = recv(fd, in + n, sizeof in - 1 - n, 0)) > 0;) {
        n += (size_t)got;
        in[n] = 0;
        if (!strstr(in, "\r\n\r\n"))
            continue;
        n = 0;
        atomic_fetch_add(&answered, 1);
        client_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell");
    }
}

static unsigned counts_of_storm[1000];

static void *storms(void *arg)
{
    (void)arg;
    storm(house.port, "/", 64, 8, counts_of_storm, NULL);
    return NULL;
}

static void two_servers_that_restart_cost_nothing_and_are_back_within_a_second(void **state)
{
    (void)state;
    pthread_t thread;
    const unsigned port[2] = {free_port(), free_port()};
    struct backend *b[2];
    memset(counts_of_storm, 0, sizeof counts_of_storm);
    for (int i = 0; i < 2; i++)
        b[i] = backend_start_raw(answers_all, port[i]);
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { } park = "
                "\"30s\" }\nroute \"/*\" { upstream = \"u\" }\n",
                port[0], port[1]);
    assert_int_equal(refused(20, 4), 0);
    for (int i = 0; i < 2; i++)
        backend_stop(b[i]);
    pthread_create(&thread, NULL, storms, NULL);
    wait_until(listed("\"down\"") == 2, 10000);
    nap_ms(1500); /* the last trial was a while ago */
    for (int i = 0; i < 2; i++)
        b[i] = backend_start_raw(answers_all, port[i]);
    const uint64_t from = mono_ms();
    while (listed("\"up\"") < 2 && mono_ms() < from + harness_patience(1500))
        refused(2, 1);
    assert_int_equal(listed("\"up\""), 2);
    pthread_join(thread, NULL);
    assert_int_equal(counts_of_storm[200], 64);
    for (int i = 0; i < 2; i++)
        backend_stop(b[i]);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_server_with_five_errors_is_ejected_and_returns_slowly),
        STORY(errors_of_posts_count_too),
        STORY(a_server_with_more_errors_than_the_other_is_ejected),
        STORY(the_last_server_is_never_ejected),
        STORY(with_eject_off_errors_pass),
        STORY(with_eject_off_by_a_reload_it_is_back),
        STORY(second_tries_are_few_at_once),
        STORY(a_second_try_without_room_is_refused),
        STORY(a_server_gets_as_many_as_it_takes_and_the_others_wait),
        STORY(what_finds_no_room_gets_503_and_is_told_when_to_come),
        STORY(a_full_server_holds_up_no_other_upstream),
        STORY(a_second_try_that_waits_for_room_holds_up_no_other_request),
        STORY(the_places_of_a_dead_worker_are_free_again),
        STORY(the_one_with_less_to_do_is_asked),
        STORY(two_servers_that_restart_cost_nothing_and_are_back_within_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of workers that a reload has replaced: what they finish, for how long, and how they end. */
#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct backend *backend;
static atomic_bool let_go;
static atomic_uint waiting; /* requests at the backend that wait for it */

static void hold(void)
{
    atomic_fetch_add(&waiting, 1);
    while (!atomic_load(&let_go))
        nap_ms(5);
    atomic_fetch_sub(&waiting, 1);
}

/* An event stream that is whole only with its last event. */
static bool stream(struct asked *a)
{
    bool ok = reply(a, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
    hold();
    ok = ok && reply(a, "9\r\ndata: 2\n\n\r\n");
    return ok && reply(a, "0\r\n\r\n");
}

static bool answers(struct asked *a)
{
    if (!strcmp(a->target, "/events"))
        return stream(a);
    if (!strcmp(a->target, "/length")) {
        const bool ok = reply(a, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        hold();
        return ok && reply(a, "last.");
    }
    if (!strcmp(a->target, "/slow"))
        hold();
    return reply_ok(a, "", a->target);
}

static void start_with(struct house *h, unsigned workers)
{
    atomic_store(&let_go, false);
    assert_int_equal(atomic_load(&waiting), 0);
    house_start(h, workers,
                "upstream \"u\" { timeout = \"1h\" stream_timeout = \"1h\"\n"
                "server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
                backend_port(backend));
}

static void start(struct house *h)
{
    start_with(h, 1);
}

static void end(struct house *h)
{
    atomic_store(&let_go, true);
    house_remove(h);
    wait_until(atomic_load(&waiting) == 0, 5000);
}

/* It is under way when the backend has it. */
static int ask(struct house *h, const char *target, const char *version)
{
    const unsigned before = atomic_load(&waiting);
    const int fd = client_connect(h->port);
    client_send(fd, "GET %s HTTP/%s\r\nHost: x\r\n\r\n", target, version);
    wait_until(atomic_load(&waiting) == before + 1, 10000);
    return fd;
}

static void reload(struct house *h)
{
    const char *out;
    assert_int_equal(ctl(h, &out, "reload"), 0);
}

static unsigned long long measured(struct house *h, const char *name)
{
    struct message m;
    unsigned long long value = 0;
    assert_int_equal(get(h->ops_port, "/metrics", &m), 200);
    const char *at = strstr(m.body, name);
    assert_non_null(at);
    assert_int_equal(sscanf(at + strlen(name), " %llu", &value), 1);
    message_free(&m);
    return value;
}

#define DRAINING "\npolder_generations{state=\"draining\"}"

/* ---- what is under way ---- */

static void long_answers_and_streams_outlive_five_reloads(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    start(&h);
    const int slow = ask(&h, "/slow", "1.1"), events = ask(&h, "/events", "1.1");
    for (int i = 0; i < 5; i++)
        reload(&h);
    house_advance(&h, 300000);
    assert_int_equal(get(h.port, "/new", NULL), 200);
    wait_until(measured(&h, DRAINING) == 1, 5000); /* those that have nothing have left */
    atomic_store(&let_go, true);
    client_read(slow, &m, false);
    assert_int_equal(m.status, 200);
    assert_string_equal(m.body, "/slow");
    assert_string_equal(field_of(&m, "Connection"), "close");
    message_free(&m);
    client_read(events, &m, false);
    assert_true(m.complete);
    assert_string_equal(m.body, "data: 1\n\ndata: 2\n\n");
    message_free(&m);
    close(slow);
    close(events);
    wait_until(measured(&h, DRAINING) == 0, 5000);
    assert_int_equal(measured(&h, "\npolder_requests_cut_total"), 0);
    end(&h);
}

/* 503, for nothing of an answer had come. */
static void was_told(int fd)
{
    struct message m;
    client_read(fd, &m, false);
    assert_int_equal(m.status, 503);
    assert_string_equal(field_of(&m, "Connection"), "close");
    assert_string_equal(field_of(&m, "Retry-After"), "1");
    message_free(&m);
    close(fd);
}

/* What came is there, and no client can take it for all. */
static void was_cut(int fd, const char *body)
{
    struct message m;
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_false(m.complete);
    assert_string_equal(m.body, body);
    message_free(&m);
    close(fd);
}

static void was_reset(int fd)
{
    char bytes[4096];
    ssize_t n;
    do
        n = recv(fd, bytes, sizeof bytes, 0);
    while (n > 0);
    assert_int_equal(n, -1);
    assert_int_equal(errno, ECONNRESET);
    close(fd);
}

static void what_takes_longer_than_drain_timeout_is_cut(void **state)
{
    (void)state;
    struct house h;
    const char *out;
    start(&h);
    const int slow = ask(&h, "/slow", "1.1"), events = ask(&h, "/events", "1.1"),
              old = ask(&h, "/events", "1.0"), length = ask(&h, "/length", "1.1");
    reload(&h);
    house_advance(&h, 590000);
    nap_ms(1200); /* a turn of each loop */
    assert_int_equal(measured(&h, DRAINING), 1);
    house_advance(&h, 20000);
    was_told(slow);
    was_cut(events, "data: 1\n\n");
    was_reset(old);
    was_cut(length, "first");
    wait_until(measured(&h, DRAINING) == 0, 10000);
    assert_int_equal(measured(&h, "\npolder_requests_cut_total"), 4);
    assert_int_equal(ctl(&h, &out, "status"), 0);
    assert_non_null(strstr(out, "requests_cut"));
    assert_non_null(strstr(out, "4 requests were cut"));
    end(&h);
}

static void a_fourth_reload_ends_the_oldest_of_the_old(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    int fd[4];
    start(&h);
    const int events = ask(&h, "/events", "1.1"), idle = client_connect(h.port);
    client_send(idle, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    client_read(idle, &m, false);
    message_free(&m);
    for (int i = 0; i < 4; i++) {
        fd[i] = ask(&h, "/slow", "1.1");
        assert_int_equal(measured(&h, "\npolder_generations_ended_total"), 0);
        reload(&h);
    }
    assert_true(client_closed(idle, 5000));
    close(idle);
    was_told(fd[0]);
    was_cut(events, "data: 1\n\n");
    wait_until(measured(&h, "\npolder_requests_cut_total") == 2, 10000);
    assert_int_equal(measured(&h, "\npolder_generations_ended_total"), 1);
    assert_int_equal(measured(&h, DRAINING), 3);
    assert_true(house_logged(&h, "generation 1 ends"));
    atomic_store(&let_go, true);
    for (int i = 1; i < 4; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
        close(fd[i]);
    }
    end(&h);
}

/* ---- the time a reload takes ---- */

static uint64_t time_of(struct house *h, int reloads, int *fd)
{
    uint64_t sum = 0;
    for (int i = 0; i < reloads; i++) {
        if (fd)
            fd[i] = ask(h, "/slow", "1.1");
        const uint64_t began = mono_ms();
        reload(h);
        sum += mono_ms() - began;
    }
    return sum;
}

static void twenty_reloads_take_twenty_times_as_long_as_one(void **state)
{
    (void)state;
    struct house h;
    int fd[20];
    start(&h);
    const uint64_t one = time_of(&h, 2, NULL) / 2, all = time_of(&h, 20, fd);
    print_message("one: %llu ms, 20 with a request under way in each: %llu ms\n",
                  (unsigned long long)one, (unsigned long long)all);
    assert_true(all < 20 * 3 * one + harness_patience(4000));
    atomic_store(&let_go, true);
    for (int i = 0; i < 20; i++) { /* whole, or a clear word */
        struct message m;
        client_read(fd[i], &m, false);
        if (i < 10 || i >= 17) /* between them, those that have their last second now */
            assert_int_equal(m.status, i < 10 ? 503 : 200);
        message_free(&m);
        close(fd[i]);
    }
    end(&h);
}

/* There is room for two generations of as many workers as there can be, and no more. */
static void where_workers_have_no_room_the_oldest_leave_at_once(void **state)
{
    (void)state;
    struct house h;
    start_with(&h, 64);
    const int slow = ask(&h, "/slow", "1.1");
    reload(&h);
    wait_until(measured(&h, "\npolder_workers_draining") == 1, 10000);
    reload(&h);
    was_told(slow);
    assert_int_equal(get(h.port, "/x", NULL), 200);
    assert_int_equal(measured(&h, "\npolder_workers"), 64);
    end(&h);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(long_answers_and_streams_outlive_five_reloads),
        cmocka_unit_test(what_takes_longer_than_drain_timeout_is_cut),
        cmocka_unit_test(a_fourth_reload_ends_the_oldest_of_the_old),
        cmocka_unit_test(where_workers_have_no_room_the_oldest_leave_at_once),
        cmocka_unit_test(twenty_reloads_take_twenty_times_as_long_as_one),
    };
    return run_with_backend(stories, &backend, answers);
}

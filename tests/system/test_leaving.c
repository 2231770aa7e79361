/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client that closes while its request waits ends it: the backend's side of it is closed at once
 * and its place under a `concurrent` limit is free, unless others wait for the answer or it will be
 * stored. A client that has closed only its own side still gets its answer where that is meant.
 */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE_US 20000
#define PATIENCE   8000 /* ms; the backend's timeout is longer */
#define TRIES      20

static struct house house;
static struct backend *backend;
static atomic_uint began, left, answered;
static atomic_ullong left_us;
static atomic_bool release_all;

static uint64_t mono_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Until the peer closes (false), or everything is released. */
static bool stays(struct asked *a)
{
    struct pollfd p = {a->fd, POLLRDHUP, 0};
    atomic_fetch_add(&began, 1);
    while (!atomic_load(&release_all))
        if (poll(&p, 1, 10) > 0) {
            atomic_store(&left_us, mono_us());
            atomic_fetch_add(&left, 1);
            return false;
        }
    return true;
}

static bool answers_late(struct asked *a)
{
    const bool streams = strstr(a->target, "stream") != NULL;
    if (!strncmp(a->target, "/quick", 6))
        return reply_ok(a, "", "quick");
    if (streams && !reply(a, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                             "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"))
        return false;
    if (!stays(a))
        return false;
    atomic_fetch_add(&answered, 1);
    if (streams)
        return reply(a, "0\r\n\r\n");
    if (strstr(a->target, "part"))
        return reply(a, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/1000\r\n"
                        "ETag: \"v1\"\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\n"
                        "late");
    return reply_ok(
        a, strstr(a->target, "/c/") ? "Cache-Control: max-age=60\r\nETag: \"v1\"\r\n" : "", "late");
}

static void forget(void)
{
    atomic_store(&began, 0);
    atomic_store(&left, 0);
    atomic_store(&answered, 0);
    atomic_store(&release_all, false);
}

static void open_house(const char *top)
{
    forget();
    backend = backend_start(answers_late, NULL);
    house_start(&house, 1,
                "%s\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } timeout = \"30s\" }\n"
                "limit \"one\" { requests = 60000 key = \"global\" concurrent = 1 }\n"
                "route \"/one/*\" { upstream = \"u\" limits = {\"one\"} }\n"
                "route \"/c/*\" { upstream = \"u\" cache { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                top, backend_port(backend));
}

static void close_house(void)
{
    atomic_store(&release_all, true);
    house_remove(&house);
    backend_stop(backend);
}

static void leave_by_reset(int fd)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
}

static int gauge(const char *name)
{
    struct message m;
    char line[80];
    snprintf(line, sizeof line, "\npolder_%s ", name);
    get(house.ops_port, "/metrics", &m);
    const char *at = m.body ? strstr(m.body, line) : NULL;
    const int n = at ? atoi(at + strlen(line)) : -1;
    message_free(&m);
    return n;
}

static int ask(const char *target, const char *more)
{
    const int fd = client_connect(house.port);
    client_send(fd, "GET %s HTTP/1.1\r\nHost: test.example\r\n\r\n%s", target, more);
    return fd;
}

/* Asks, leaves, and says how long it took the backend to see it. */
static uint64_t left_within_us(const char *target, const char *more, bool reset)
{
    const unsigned begun = atomic_load(&began), gone = atomic_load(&left);
    const int fd = ask(target, more);
    wait_until(atomic_load(&began) == begun + 1, PATIENCE);
    if (strstr(target, "stream")) {
        char bytes[4096];
        assert_true(recv(fd, bytes, sizeof bytes, 0) > 0);
    }
    const uint64_t start = mono_us();
    if (reset)
        leave_by_reset(fd);
    else
        close(fd);
    wait_until(atomic_load(&left) == gone + 1, PATIENCE);
    const uint64_t end = atomic_load(&left_us);
    return end > start ? end - start : 0;
}

/* The machine may be busy: one of many tries shows whether anything waits for a timer. */
static void expect_at_once(const char *target, const char *more, bool reset)
{
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < TRIES && best > AT_ONCE_US; i++) {
        const uint64_t us = left_within_us(target, more, reset);
        best = us < best ? us : best;
    }
    print_message("%s%s: %llu us\n", target, reset ? ", reset" : "", (unsigned long long)best);
    if (best > AT_ONCE_US)
        fail_msg("%s: the backend sees it after %llu us at best", target, (unsigned long long)best);
}

static void a_client_that_closes_ends_its_request_at_the_backend(void **state)
{
    (void)state;
    open_house("");
    for (int reset = 0; reset < 2; reset++) {
        expect_at_once("/silent", "", reset);
        expect_at_once("/stream", "", reset);
    }
    close_house();
}

static void what_is_pipelined_behind_a_request_hides_no_end(void **state)
{
    static const char next[] = "GET /quick HTTP/1.1\r\nHost: test.example\r\n\r\n";
    static char many[40000];
    (void)state;
    open_house("");
    for (size_t i = 0; i + sizeof next < sizeof many; i += sizeof next - 1)
        memcpy(many + i, next, sizeof next - 1);
    for (int reset = 0; reset < 2; reset++) {
        expect_at_once("/silent", next, reset);
        expect_at_once("/silent", "GET /qu", reset);
        expect_at_once("/silent", many, reset); /* more than is read ahead */
        expect_at_once("/stream", next, reset);
    }
    close_house();
}

static void several_leave_and_one_stays(void **state)
{
    enum { CLIENTS = 12 };
    int fd[CLIENTS];
    struct message m;
    (void)state;
    open_house("");
    for (unsigned i = 0; i < CLIENTS; i++)
        fd[i] = ask(i % 2 ? "/stream" : "/silent", "");
    wait_until(atomic_load(&began) == CLIENTS, PATIENCE);
    for (unsigned i = 1; i < CLIENTS; i++)
        close(fd[i]);
    wait_until(atomic_load(&left) == CLIENTS - 1, PATIENCE);
    atomic_store(&release_all, true);
    client_read(fd[0], &m, false);
    assert_int_equal(m.status, 200);
    assert_string_equal(m.body, "late");
    message_free(&m);
    close(fd[0]);
    close_house();
}

static void a_place_under_a_concurrent_limit_is_free_again(void **state)
{
    (void)state;
    open_house("");
    const int fd = ask("/one/silent", "");
    wait_until(atomic_load(&began) == 1, PATIENCE);
    assert_int_equal(get(house.port, "/one/quick", NULL), 429);
    close(fd);
    wait_until(atomic_load(&left) == 1, PATIENCE);
    const int again = ask("/one/silent", "");
    wait_until(atomic_load(&began) == 2, PATIENCE);
    close(again);
    close_house();
}

/* The second of three requests waits when FIN and the answer to the first have come together. */
static void one_that_was_read_ahead_leaves_too(void **state)
{
    static const char silent[] = "GET /silent HTTP/1.1\r\nHost: test.example\r\n\r\n";
    (void)state;
    open_house("");
    for (unsigned i = 0; i < 10; i++) {
        const unsigned gone = atomic_load(&left);
        const int fd = client_connect(house.port);
        client_send(fd, "GET /quick HTTP/1.1\r\nHost: test.example\r\n\r\n%s%s", silent, silent);
        close(fd);
        wait_until(gauge("client_connections_open") == 0, PATIENCE);
        wait_until(atomic_load(&left) - gone == atomic_load(&began) - gone, PATIENCE);
    }
    close_house();
}

/* Its body is waited for, and no backend knows of it. */
static void one_that_sends_its_body_leaves(void **state)
{
    (void)state;
    open_house("");
    for (int reset = 0; reset < 2; reset++) {
        const int fd = client_connect(house.port);
        client_send(fd, "POST /silent HTTP/1.1\r\nHost: test.example\r\n"
                        "Content-Length: 100\r\n\r\npart");
        wait_until(gauge("client_connections_open") == 1, PATIENCE);
        if (reset)
            leave_by_reset(fd);
        else
            close(fd);
        wait_until(gauge("client_connections_open") == 0, PATIENCE);
        assert_int_equal(backend_connections(backend), 0);
    }
    close_house();
}

/* A backend that takes connections, by its kernel, and nothing else: the body gets stuck. */
static void one_whose_body_is_stuck_leaves(void **state)
{
    static char part[1 << 20];
    struct scripted deaf;
    (void)state;
    scripted_open(&deaf);
    house_start(
        &house, 1,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
        deaf.port);
    const int fd = client_connect(house.port);
    client_send(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n\r\n");
    uint64_t last_ms = mono_ms();
    while (mono_ms() < last_ms + 300) /* until nobody takes any more */
        if (send(fd, part, sizeof part, MSG_DONTWAIT) > 0)
            last_ms = mono_ms();
        else
            nap_ms(5);
    assert_int_equal(gauge("upstream_connections{state=\"busy\"}"), 1);
    leave_by_reset(fd);
    wait_until(gauge("upstream_connections{state=\"busy\"}") == 0, PATIENCE);
    house_remove(&house);
    close(deaf.fd);
}

static int send_change(const char *target)
{
    const int fd = client_connect(house.port);
    client_send(fd, "POST %s HTTP/1.1\r\nHost: test.example\r\nContent-Length: 4\r\n\r\nbody",
                target);
    wait_until(atomic_load(&began) == 1, PATIENCE);
    return fd;
}

static void one_whose_body_has_come_leaves_too(void **state)
{
    (void)state;
    open_house("");
    close(send_change("/silent"));
    wait_until(atomic_load(&left) == 1, PATIENCE);
    close_house();
}

/* What it ends of what is stored has to be known. */
static void a_change_on_a_cached_route_is_awaited(void **state)
{
    (void)state;
    open_house("");
    atomic_store(&release_all, true);
    wait_until(served_from_store(house.port, "/c/changed"), PATIENCE);
    forget();
    close(send_change("/c/changed"));
    wait_until(gauge("client_connections_open") == 0, PATIENCE);
    nap_ms(50);
    assert_int_equal(atomic_load(&left), 0);
    assert_true(served_from_store(house.port, "/c/changed"));
    atomic_store(&release_all, true);
    wait_until(atomic_load(&answered) == 1, PATIENCE);
    wait_until(!served_from_store(house.port, "/c/changed"), PATIENCE);
    close_house();
}

/* ---- others want it ---- */

static void a_fetch_that_others_wait_for_goes_on(void **state)
{
    struct message m;
    (void)state;
    open_house("");
    const int first = ask("/c/shared", "");
    wait_until(atomic_load(&began) == 1, PATIENCE);
    const int second = ask("/c/shared", ""), third = ask("/c/shared", "");
    nap_ms(50); /* not for a result: they should be parked before the first leaves */
    close(first);
    close(third);
    nap_ms(50);
    assert_int_equal(atomic_load(&left), 0);
    atomic_store(&release_all, true);
    client_read(second, &m, false);
    assert_string_equal(m.body, "late");
    message_free(&m);
    close(second);
    assert_int_equal(atomic_load(&began), 1);
    close_house();
}

static void a_part_that_others_wait_for_goes_on(void **state)
{
    static const char part[] =
        "GET /c/part HTTP/1.1\r\nHost: test.example\r\nRange: bytes=0-3\r\n\r\n";
    struct message m;
    (void)state;
    open_house("");
    const int first = client_connect(house.port), second = client_connect(house.port);
    client_send(first, "%s", part);
    wait_until(atomic_load(&began) == 1, PATIENCE);
    client_send(second, "%s", part);
    nap_ms(50);
    close(first);
    nap_ms(50);
    assert_int_equal(atomic_load(&left), 0);
    atomic_store(&release_all, true);
    client_read(second, &m, false);
    assert_int_equal(m.status, 206);
    assert_string_equal(m.body, "late");
    message_free(&m);
    close(second);
    assert_int_equal(atomic_load(&began), 1);
    close_house();
}

static void a_fetch_that_will_be_stored_goes_on(void **state)
{
    (void)state;
    open_house("");
    close(ask("/c/stored", ""));
    wait_until(atomic_load(&began) == 1, PATIENCE);
    nap_ms(50);
    assert_int_equal(atomic_load(&left), 0);
    atomic_store(&release_all, true);
    wait_until(served_from_store(house.port, "/c/stored"), PATIENCE);
    close_house();
}

static void a_stream_on_a_cached_route_ends(void **state)
{
    (void)state;
    open_house("");
    expect_at_once("/c/stream", "", false);
    close_house();
}

/* Nobody is asked for one that has left while it was parked. */
static void a_follower_that_leaves_is_forgotten(void **state)
{
    (void)state;
    open_house("");
    const int first = ask("/c/shared", "");
    wait_until(atomic_load(&began) == 1, PATIENCE);
    for (int i = 0; i < 5; i++)
        close(ask("/c/shared", ""));
    leave_by_reset(first);
    atomic_store(&release_all, true);
    wait_until(served_from_store(house.port, "/c/shared"), PATIENCE);
    assert_int_equal(atomic_load(&began), 1);
    close_house();
}

/* ---- half a close ---- */

static void half_close(const char *request, bool wanted)
{
    struct message m;
    const unsigned begun = atomic_load(&began), gone = atomic_load(&left);
    atomic_store(&release_all, false);
    const int fd = client_connect(house.port);
    client_send_bytes(fd, request, strlen(request));
    wait_until(atomic_load(&began) == begun + 1, PATIENCE);
    shutdown(fd, SHUT_WR);
    if (!wanted) {
        assert_true(client_closed(fd, PATIENCE));
        wait_until(atomic_load(&left) == gone + 1, PATIENCE);
        close(fd);
        return;
    }
    nap_ms(50);
    assert_int_equal(atomic_load(&left), gone);
    atomic_store(&release_all, true);
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_string_equal(m.body, "late");
    message_free(&m);
    close(fd);
}

#define PLAIN  "GET /silent HTTP/1.1\r\nHost: test.example\r\n\r\n"
#define CLOSES "GET /silent HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n"
#define UPGRADE                                                                                    \
    "GET /silent HTTP/1.1\r\nHost: test.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
#define OLD "GET /silent HTTP/1.0\r\nHost: test.example\r\n\r\n"
#define UPLOAD                                                                                     \
    "POST /silent HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\nContent-Length: "         \
    "2\r\n\r\nab"

static void half_a_close_is_answered_where_it_is_meant(void **state)
{
    (void)state;
    open_house("");
    half_close(PLAIN, false);
    half_close(PLAIN PLAIN, false);
    half_close(CLOSES, true);
    half_close(UPGRADE, true);
    half_close(OLD, true);
    half_close(UPLOAD, true);
    close_house();
    open_house("client_half_close = answer");
    half_close(PLAIN, true);
    close_house();
    open_house("client_half_close = abort");
    half_close(CLOSES, false);
    half_close(OLD, false);
    close_house();
}

/* What was there whole when the client closed its side is answered, if nobody has to be asked. */
static void half_a_close_behind_a_hit_is_answered(void **state)
{
    struct message m;
    (void)state;
    open_house("");
    atomic_store(&release_all, true);
    wait_until(served_from_store(house.port, "/c/stored"), PATIENCE);
    const int fd = ask("/c/stored", "");
    shutdown(fd, SHUT_WR);
    client_read(fd, &m, false);
    assert_string_equal(m.body, "late");
    message_free(&m);
    close(fd);
    close_house();
}

/* ---- no backend is asked ---- */

static void one_that_is_held_leaves(void **state)
{
    (void)state;
    forget();
    atomic_store(&release_all, true);
    backend = backend_start(answers_late, NULL);
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/c/*\" { upstream = \"u\" cache { } poll { } }\n",
                backend_port(backend));
    assert_int_equal(get(house.port, "/c/held", NULL), 200);
    for (int i = 0; i < 4; i++) {
        const int fd = client_connect(house.port);
        client_send(fd,
                    "GET /c/held HTTP/1.1\r\nHost: test.example\r\nPrefer: wait=60\r\n"
                    "If-None-Match: \"v1\"\r\n\r\n%s",
                    i & 1 ? "GET /c/held HTTP/1.1\r\nHost: test.example\r\n\r\n" : "");
        wait_until(gauge("poll_held") == 1, PATIENCE);
        if (i & 2)
            leave_by_reset(fd);
        else
            close(fd);
        wait_until(gauge("poll_held") == 0 && gauge("client_connections_open") == 0, PATIENCE);
    }
    close_house();
}

static void one_that_waits_for_a_restart_leaves(void **state)
{
    (void)state;
    forget();
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } park = \"60s\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                free_port());
    for (int i = 0; i < 4; i++) {
        const int fd = ask("/a", i & 1 ? "GET /b HTTP/1.1\r\nHost: test.example\r\n\r\n" : "");
        wait_until(gauge("client_connections_open") == 1, PATIENCE);
        if (i & 2)
            leave_by_reset(fd);
        else
            close(fd);
        wait_until(gauge("client_connections_open") == 0, PATIENCE);
    }
    house_remove(&house);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_closes_ends_its_request_at_the_backend),
        cmocka_unit_test(what_is_pipelined_behind_a_request_hides_no_end),
        cmocka_unit_test(several_leave_and_one_stays),
        cmocka_unit_test(a_place_under_a_concurrent_limit_is_free_again),
        cmocka_unit_test(one_that_was_read_ahead_leaves_too),
        cmocka_unit_test(one_that_sends_its_body_leaves),
        cmocka_unit_test(one_whose_body_is_stuck_leaves),
        cmocka_unit_test(one_whose_body_has_come_leaves_too),
        cmocka_unit_test(a_change_on_a_cached_route_is_awaited),
        cmocka_unit_test(a_fetch_that_others_wait_for_goes_on),
        cmocka_unit_test(a_part_that_others_wait_for_goes_on),
        cmocka_unit_test(a_fetch_that_will_be_stored_goes_on),
        cmocka_unit_test(a_stream_on_a_cached_route_ends),
        cmocka_unit_test(a_follower_that_leaves_is_forgotten),
        cmocka_unit_test(half_a_close_is_answered_where_it_is_meant),
        cmocka_unit_test(half_a_close_behind_a_hit_is_answered),
        cmocka_unit_test(one_that_is_held_leaves),
        cmocka_unit_test(one_that_waits_for_a_restart_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

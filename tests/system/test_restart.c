/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of backends that restart: who asks meanwhile waits, within bounds, instead of 502. */
#include "harness.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { N = 200 };

/* Answers n requests, each on a connection of its own. */
static void answer(struct scripted *u, unsigned n)
{
    static const char ok[] = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    for (unsigned i = 0; i < n; i++)
        close(scripted_answer(u, ok, sizeof ok - 1));
}

static void start(struct house *h, unsigned port, const char *park)
{
    house_start(h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } %s }\n"
                "cache { stale_while_revalidate = \"0s\" }\n"
                "route \"/cached/*\" { upstream = \"u\" cache { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                port, park);
}

static unsigned long waits(struct house *h)
{
    struct message m;
    unsigned long n = 0;
    get(h->ops_port, "/metrics", &m);
    const char *at = m.body ? strstr(m.body, "\npolder_upstream_waits_total ") : NULL;
    if (at)
        n = strtoul(at + 29, NULL, 10);
    message_free(&m);
    return n;
}

static void requests_wait_for_a_backend_that_restarts(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const unsigned port = free_port();
    int fd[N];
    start(&h, port, "park = \"30s\"");
    for (int i = 0; i < N; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    wait_until(waits(&h) == N, 5000);
    struct scripted u;
    scripted_open_at(&u, port);
    answer(&u, N);
    for (int i = 0; i < N; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        assert_string_equal(m.body, "ok");
        message_free(&m);
        close(fd[i]);
    }
    close(u.fd);
    house_remove(&h);
}

static void a_cold_key_waits_as_one(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const unsigned port = free_port();
    int fd[20];
    start(&h, port, "park = \"30s\"");
    for (int i = 0; i < 20; i++) {
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /cached/x HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    wait_until(waits(&h) == 1, 5000);
    struct scripted u;
    scripted_open_at(&u, port);
    answer(&u, 1);
    for (int i = 0; i < 20; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
        close(fd[i]);
    }
    close(u.fd);
    house_remove(&h);
}

static void what_may_not_be_repeated_does_not_wait(void **state)
{
    (void)state;
    struct house h;
    const unsigned port = free_port();
    start(&h, port, "park = \"30s\"");
    assert_int_equal(request(h.port, "POST", "/x", "", "body", NULL), 502);
    static char longer[200001]; /* than what is kept of a body */
    memset(longer, 'x', sizeof longer - 1);
    assert_int_equal(request(h.port, "PUT", "/x", "", longer, NULL), 502);
    assert_int_equal(waits(&h), 0);
    house_remove(&h);
}

static void the_wait_has_bounds(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const unsigned port = free_port();
    int fd[5];
    start(&h, port, "park = \"1s\" park_requests = 2");
    const uint64_t began = mono_ms();
    for (int i = 0; i < 5; i++) { /* two workers: five cannot all wait */
        fd[i] = client_connect(h.port);
        client_send(fd[i], "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    for (int i = 0; i < 5; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 502);
        message_free(&m);
        close(fd[i]);
    }
    assert_true(mono_ms() - began >= 900);
    assert_in_range(waits(&h), 2, 4);
    house_remove(&h);
    start(&h, port, "park = 0");
    assert_int_equal(get(h.port, "/x", NULL), 502);
    assert_int_equal(waits(&h), 0);
    house_remove(&h);
}

/* Somebody comes, waits if there is a place, and leaves with a reset. */
static bool somebody_waited(struct house *h)
{
    const struct linger reset = {1, 0};
    const unsigned long before = waits(h);
    const int fd = client_connect(h->port);
    struct pollfd answered = {fd, POLLIN, 0};
    client_send(fd, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    while (waits(h) == before && poll(&answered, 1, 5) == 0)
        continue;
    const bool waited = waits(h) > before;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    return waited;
}

static void who_leaves_while_it_waits_is_forgotten(void **state)
{
    (void)state;
    struct house h;
    struct message m;
    const unsigned port = free_port();
    start(&h, port, "park = \"30s\" park_requests = 1");
    for (int i = 0; i < 8; i++) /* a place is free again for each */
        wait_until(somebody_waited(&h), 3000);
    struct scripted u;
    scripted_open_at(&u, port);
    int fd = client_connect(h.port); /* and who had left asks the backend nothing */
    client_send(fd, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
    answer(&u, 1);
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    message_free(&m);
    close(fd);
    close(u.fd);
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_wait_for_a_backend_that_restarts),
        cmocka_unit_test(a_cold_key_waits_as_one),
        cmocka_unit_test(what_may_not_be_repeated_does_not_wait),
        cmocka_unit_test(the_wait_has_bounds),
        cmocka_unit_test(who_leaves_while_it_waits_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

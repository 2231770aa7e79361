/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of connections to a backend that are kept: how many requests go over them, and that a
 * backend that closes them loses no request. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS  100
#define WORKERS  4
#define REQUESTS 20000

static struct house house;

/* ---- the share of requests over kept connections ---- */

static atomic_uint together;

/* "/together" is answered when all clients wait for it: the most that are ever under way. */
static bool says_well(struct asked *a)
{
    if (!strcmp(a->target, "/together")) {
        const uint64_t end = mono_ms() + 20000;
        atomic_fetch_add(&together, 1);
        while (atomic_load(&together) % CLIENTS && mono_ms() < end)
            nap_ms(1);
    }
    return reply_ok(a, "", "well");
}

struct visitor {
    pthread_barrier_t *begin, *warm, *counted;
    unsigned failed;
};

static void ask(int fd, const char *target, unsigned *failed)
{
    struct message m;
    client_send(fd, "GET %s HTTP/1.1\r\nHost: test.example\r\n\r\n", target);
    client_read(fd, &m, false);
    *failed += m.status != 200 || !m.complete;
    message_free(&m);
}

static void *visitor_run(void *arg)
{
    struct visitor *v = arg;
    const int fd = client_connect(house.port);
    pthread_barrier_wait(v->begin);
    ask(fd, "/together", &v->failed);
    pthread_barrier_wait(v->warm);
    pthread_barrier_wait(v->counted);
    for (unsigned i = 0; i < REQUESTS / CLIENTS; i++)
        ask(fd, "/one", &v->failed);
    close(fd);
    return NULL;
}

static void nearly_all_requests_go_over_kept_connections(void **state)
{
    (void)state;
    struct backend *b = backend_start(says_well, NULL);
    pthread_barrier_t begin, warm, counted;
    static struct visitor visitor[CLIENTS];
    pthread_t thread[CLIENTS];
    unsigned failed = 0;
    house_start(&house, WORKERS,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(b));
    atomic_store(&together, 0);
    pthread_barrier_init(&begin, NULL, CLIENTS);
    pthread_barrier_init(&warm, NULL, CLIENTS + 1);
    pthread_barrier_init(&counted, NULL, CLIENTS + 1);
    for (unsigned i = 0; i < CLIENTS; i++) {
        visitor[i] = (struct visitor){&begin, &warm, &counted, 0};
        assert_int_equal(pthread_create(&thread[i], NULL, visitor_run, &visitor[i]), 0);
    }
    pthread_barrier_wait(&warm);
    const unsigned peak = backend_connections(b);
    backend_forget(b);
    pthread_barrier_wait(&counted);
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(thread[i], NULL);
        failed += visitor[i].failed;
    }
    const unsigned opened = backend_connections(b), open = backend_open(b);
    printf("reuse: %u requests after the first %u, %u connections opened: %.3f %% over kept ones; "
           "%u connections at %u requests at once\n",
           REQUESTS, CLIENTS, opened, 100. * (REQUESTS - opened) / REQUESTS, open, peak);
    assert_int_equal(failed, 0);
    assert_int_equal(backend_calls(b), REQUESTS);
    assert_true(opened * 1000 <= REQUESTS);
    assert_true(open <= CLIENTS + WORKERS);
    house_remove(&house);
    backend_stop(b);
}

/* ---- backends that close what is kept ---- */

#define EDGE_CLIENTS 50
#define EDGE_ROUNDS  4 /* 200 requests after a pause, in all */

static unsigned close_after_ms; /* exactly this long after an answer */
static char said_lines[128];
static atomic_uint posts;

static void closes_in_time(int fd)
{
    char head[4096];
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        size_t len = 0;
        if (poll(&p, 1, (int)close_after_ms) <= 0) {
            nap_ms(30); /* it has decided to close, and its loop is busy */
            return;
        }
        do {
            const ssize_t n = recv(fd, head + len, sizeof head - 1 - len, 0);
            if (n <= 0)
                return;
            len += (size_t)n;
            head[len] = 0;
        } while (!strstr(head, "\r\n\r\nx")); /* of each request the body is one letter */
        atomic_fetch_add(&posts, 1);
        client_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok", said_lines);
    }
}

struct poster {
    unsigned answered[1000];
};

/* Pauses that end just before, and while the backend is about to close. */
static void *poster_run(void *arg)
{
    static const int off_ms[EDGE_ROUNDS + 1] = {-400, -2, 2, 10, 20};
    struct poster *p = arg;
    const int fd = client_connect(house.port);
    for (unsigned i = 0; i <= EDGE_ROUNDS; i++) {
        struct message m;
        const uint64_t due = mono_ms() + (uint64_t)((int)close_after_ms + off_ms[i]);
        while (i && mono_ms() < due)
            nap_ms(1);
        client_send(fd, "POST /p HTTP/1.1\r\nHost: test.example\r\nContent-Length: 1\r\n\r\nx");
        client_read(fd, &m, false);
        p->answered[m.complete ? m.status : 0]++;
        message_free(&m);
    }
    close(fd);
    return NULL;
}

static void no_post_meets_a_connection_that_is_closed_in_time(void **state)
{
    (void)state;
    static struct poster poster[EDGE_CLIENTS];
    pthread_t thread[EDGE_CLIENTS];
    unsigned well = 0;
    close_after_ms = 1000;
    strcpy(said_lines, "Keep-Alive: timeout=1\r\n");
    struct backend *b = backend_start_raw(closes_in_time, 0);
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(b));
    for (unsigned i = 0; i < EDGE_CLIENTS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, poster_run, &poster[i]), 0);
    for (unsigned i = 0; i < EDGE_CLIENTS; i++) {
        pthread_join(thread[i], NULL);
        well += poster[i].answered[200];
    }
    assert_int_equal(well, EDGE_CLIENTS * (EDGE_ROUNDS + 1));
    assert_int_equal(atomic_load(&posts), well); /* each once */
    house_remove(&house);
    backend_stop(b);
}

static bool says_lines(struct asked *a)
{
    return reply_ok(a, a->arg ? a->arg : "", "well");
}

/* Connections that ten requests, one after the other, need. */
static unsigned connections_of(const char *lines, const char *keys)
{
    struct backend *b = backend_start(says_lines, (void *)(uintptr_t)lines);
    struct message m;
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } %s }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(b), keys);
    const int fd = client_connect(house.port);
    for (unsigned i = 0; i < 10; i++) {
        client_send(fd, "GET / HTTP/1.1\r\nHost: test.example\r\n\r\n");
        client_read(fd, &m, false);
        assert_int_equal(m.status, 200);
        message_free(&m);
    }
    close(fd);
    const unsigned n = backend_connections(b);
    house_remove(&house);
    backend_stop(b);
    return n;
}

static void what_a_backend_states_of_its_connections_is_heeded(void **state)
{
    (void)state;
    assert_int_equal(connections_of("Keep-Alive: timeout=0\r\n", ""), 10);
    assert_int_equal(connections_of("Keep-Alive: timeout=5, max=0\r\n", ""), 10);
    assert_int_equal(connections_of("", "idle_timeout = \"0s\""), 10);
    assert_int_equal(connections_of("Keep-Alive: timeout=99999999999999999999\r\n", ""), 1);
    assert_int_equal(connections_of("Keep-Alive: timeout=never, =, max\r\n", ""), 1);
}

static bool closes_after_three(struct asked *a)
{
    reply_ok(a, "", "well");
    return a->number % 3 != 0;
}

/* Without a word: GET is sent again, and is answered. */
static void a_backend_that_closes_after_some_requests_loses_none(void **state)
{
    (void)state;
    unsigned counts[1000] = {0};
    struct backend *b = backend_start(closes_after_three, NULL);
    house_start(&house, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(b));
    storm(house.port, "/x", 600, 6, counts, NULL);
    assert_int_equal(counts[200], 600);
    house_remove(&house);
    backend_stop(b);
}

/* ---- what is shown ---- */

static void connections_and_reuses_are_shown(void **state)
{
    (void)state;
    const char *out;
    unsigned counts[1000] = {0};
    struct message m;
    char line[160];
    struct backend *b = backend_start(says_lines, NULL);
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(b));
    storm(house.port, "/x", 20, 1, counts, NULL);
    assert_int_equal(counts[200], 20);
    assert_int_equal(ctl(&house, &out, "upstream list --json"), 0);
    assert_non_null(strstr(out, "\"connects\": 1"));
    assert_non_null(strstr(out, "\"reuses\": 19"));
    assert_int_equal(get(house.ops_port, "/metrics", &m), 200);
    snprintf(line, sizeof line,
             "polder_upstream_server_connects_total{upstream=\"u\",server=\"127.0.0.1:%u\"} 1\n",
             backend_port(b));
    assert_non_null(strstr(m.body, line));
    snprintf(line, sizeof line,
             "polder_upstream_server_reuses_total{upstream=\"u\",server=\"127.0.0.1:%u\"} 19\n",
             backend_port(b));
    assert_non_null(strstr(m.body, line));
    message_free(&m);
    house_remove(&house);
    backend_stop(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearly_all_requests_go_over_kept_connections),
        cmocka_unit_test(no_post_meets_a_connection_that_is_closed_in_time),
        cmocka_unit_test(what_a_backend_states_of_its_connections_is_heeded),
        cmocka_unit_test(a_backend_that_closes_after_some_requests_loses_none),
        cmocka_unit_test(connections_and_reuses_are_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

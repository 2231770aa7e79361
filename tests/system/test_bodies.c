/* SPDX-License-Identifier: BSD-2-Clause */
/* Bodies on their way: how they are cut, how much of them is held, and for how long. */
#include "harness.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE 8000
#define SEEN     (256u << 10)

/* ---- a backend that shows the bytes it gets ---- */

static struct {
    struct backend *b;
    atomic_bool stop, deaf; /* deaf: it reads nothing */
    atomic_ullong bytes;
    char seen[SEEN + 1]; /* of the first connection that brought any */
    atomic_size_t seen_len;
} raw;

static void raw_keep(const char *bytes, size_t len)
{
    const size_t had = atomic_load(&raw.seen_len), n = len < SEEN - had ? len : SEEN - had;
    memcpy(raw.seen + had, bytes, n);
    raw.seen[had + n] = 0;
    atomic_store(&raw.seen_len, had + n);
    atomic_fetch_add(&raw.bytes, len);
}

/* Answers once what has come ends as a whole chunked body does, or with "END". */
static void raw_visit(int fd)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
    char tail[5] = "", *bytes = malloc(1 << 16);
    while (!atomic_load(&raw.stop)) {
        struct pollfd p = {fd, POLLIN, 0};
        if (atomic_load(&raw.deaf) || poll(&p, 1, 20) <= 0) {
            if (atomic_load(&raw.deaf))
                nap_ms(5);
            continue;
        }
        const ssize_t n = recv(fd, bytes, 1 << 16, 0);
        if (n <= 0)
            break;
        raw_keep(bytes, (size_t)n);
        for (ssize_t i = n > 5 ? n - 5 : 0; i < n; i++) {
            memmove(tail, tail + 1, 4);
            tail[4] = bytes[i];
        }
        if ((!memcmp(tail, "0\r\n\r\n", 5) || !memcmp(tail + 2, "END", 3)) &&
            send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
            break;
    }
    free(bytes);
}

static void raw_forget(void)
{
    if (raw.b)
        backend_forget(raw.b);
    atomic_store(&raw.bytes, 0);
    atomic_store(&raw.seen_len, 0);
    raw.seen[0] = 0;
}

static void raw_start(unsigned port)
{
    raw_forget();
    atomic_store(&raw.stop, false);
    atomic_store(&raw.deaf, false);
    raw.b = backend_start_raw(raw_visit, port);
}

static void raw_stop(void)
{
    atomic_store(&raw.stop, true);
    backend_stop(raw.b);
    raw.b = NULL;
}

static struct house house;

static void open_house(const char *top)
{
    raw_start(0);
    house_start(&house, 1,
                "%s\nupstream \"u\" { server \"127.0.0.1:%u\" { } timeout = \"60s\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                top, backend_port(raw.b));
}

static void close_house(void)
{
    house_remove(&house);
    raw_stop();
}

static unsigned count_of(const char *text, const char *what)
{
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    return n;
}

static void expect_done(int fd)
{
    struct message m;
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_string_equal(m.body, "done");
    message_free(&m);
}

/* ---- small pieces ---- */

#define PIECES 4000

/* PIECES chunks of one byte. */
static size_t small_chunks(char *out)
{
    size_t n = 0;
    for (unsigned i = 0; i < PIECES; i++)
        n += (size_t)sprintf(out + n, "1\r\nx\r\n");
    return n + (size_t)sprintf(out + n, "0\r\n\r\n");
}

static void small_chunks_of_a_request_travel_together(void **state)
{
    static char chunks[PIECES * 6 + 8];
    (void)state;
    open_house("");
    const int fd = client_connect(house.port);
    const size_t n = small_chunks(chunks);
    client_send(fd, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client_send_bytes(fd, chunks, n);
    expect_done(fd);
    const char *body = strstr(raw.seen, "\r\n\r\n");
    assert_non_null(body);
    assert_int_equal(count_of(body, "x"), PIECES);
    assert_in_range(count_of(body, "x\r\n"), 1, 20); /* a few reads, a chunk each */
    close(fd);
    close_house();
}

static bool answers_in_small_chunks(struct asked *a)
{
    static char chunks[PIECES * 6 + 8];
    const size_t n = small_chunks(chunks);
    return reply(a, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") &&
           reply_bytes(a, chunks, n);
}

static void small_chunks_of_a_response_travel_together(void **state)
{
    static char seen[PIECES * 8];
    size_t len = 0;
    (void)state;
    struct backend *b = backend_start(answers_in_small_chunks, NULL);
    house_start(
        &house, 1,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
        backend_port(b));
    const int fd = client_connect(house.port);
    client_send(fd, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    while (!strstr(seen, "0\r\n\r\n")) {
        const ssize_t n = recv(fd, seen + len, sizeof seen - 1 - len, 0);
        assert_true(n > 0);
        len += (size_t)n;
        seen[len] = 0;
    }
    const char *body = strstr(seen, "\r\n\r\n");
    assert_int_equal(count_of(body, "x"), PIECES);
    assert_in_range(count_of(body, "x\r\n"), 1, 20);
    close(fd);
    house_remove(&house);
    backend_stop(b);
}

static bool answers_in_one_write(struct asked *a)
{
    if (!strcmp(a->target, "/empty"))
        return reply(a, "HTTP/1.1 200 OK\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n");
    if (!strcmp(a->target, "/chunked"))
        return reply(a, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n"
                        "4\r\nbody\r\n0\r\nX-End: 1\r\n\r\n");
    return reply(a, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nX-End: 1\r\n");
}

/* What comes together goes on together: head, body and the end of it in one write. */
static void a_short_response_is_one_write(void **state)
{
    static const char *const target[] = {"/length", "/chunked", "/empty"};
    (void)state;
    struct backend *b = backend_start(answers_in_one_write, NULL);
    house_start(
        &house, 1,
        "upstream \"u\" { server \"127.0.0.1:%u\" { } }\nroute \"/*\" { upstream = \"u\" }\n",
        backend_port(b));
    const int fd = client_connect(house.port);
    for (int i = 0; i < 60; i++) {
        char bytes[2000];
        client_send(fd, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", target[i % 3]);
        const ssize_t n = recv(fd, bytes, sizeof bytes - 1, 0);
        assert_true(n > 0);
        bytes[n] = 0;
        assert_non_null(strstr(bytes, "X-End: 1\r\n"));
        assert_string_equal(bytes + n - 2, "\r\n");
    }
    close(fd);
    house_remove(&house);
    backend_stop(b);
}

/* ---- who sends slowly holds no backend ---- */

static pid_t worker_of(struct house *h)
{
    pid_t pid = 0;
    assert_int_equal(house_children(h, "polderd: worker", &pid, 1), 1);
    return pid;
}

static void expect_no_connection(void)
{
    nap_ms(100); /* it could have come long since */
    assert_int_equal(backend_connections(raw.b), 0);
}

static void a_backend_is_asked_when_the_whole_body_is_there(void **state)
{
    (void)state;
    open_house("");
    int fd = client_connect(house.port);
    client_send(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nfirst-");
    expect_no_connection();
    client_send(fd, "END");
    expect_done(fd);
    assert_non_null(strstr(raw.seen, "\r\n\r\nfirst-END"));
    assert_int_equal(backend_connections(raw.b), 1);
    raw_forget();
    backend_forget(raw.b); /* the kept connection is used again */
    client_send(fd,
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
                "5\r\nhello\r\n");
    expect_no_connection();
    assert_int_equal(atomic_load(&raw.bytes), 0);
    client_send(fd, "1;x=y\r\n!\r\n0\r\nX-T: END\r\n\r\n");
    wait_until(strstr(raw.seen, "\r\n\r\n6\r\nhello!\r\n0\r\nX-T: END\r\n\r\n"), PATIENCE);
    close(fd);
    close_house();
}

static void a_backend_is_asked_when_the_first_part_is_there(void **state)
{
    static char part[9000];
    (void)state;
    open_house("request_buffer = 8K");
    const int fd = client_connect(house.port);
    memset(part, 'p', sizeof part);
    client_send(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 27003\r\n\r\n");
    client_send_bytes(fd, part, 8000);
    expect_no_connection();
    client_send_bytes(fd, part, 1000);
    wait_until(atomic_load(&raw.bytes) > 9000, PATIENCE);
    client_send_bytes(fd, part, sizeof part);
    wait_until(atomic_load(&raw.bytes) > 18000, PATIENCE); /* the rest goes on as it comes */
    client_send_bytes(fd, part, sizeof part);
    client_send(fd, "END");
    expect_done(fd);
    assert_int_equal(count_of(strstr(raw.seen, "\r\n\r\n"), "p"), 27000);
    close(fd);
    close_house();
}

static void a_backend_is_asked_at_once_where_that_is_wanted(void **state)
{
    (void)state;
    open_house("request_buffer = 0");
    const int fd = client_connect(house.port);
    client_send(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n");
    wait_until(strstr(raw.seen, "\r\n\r\n"), PATIENCE);
    client_send(fd, "END");
    expect_done(fd);
    close(fd);
    close_house();
}

static void a_body_that_is_announced_is_asked_for(void **state)
{
    struct message m;
    (void)state;
    open_house("");
    const int fd = client_connect(house.port);
    client_send(fd,
                "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    client_read(fd, &m, true);
    assert_int_equal(m.status, 100);
    message_free(&m);
    expect_no_connection();
    client_send(fd, "END");
    expect_done(fd);
    close(fd);
    close_house();
}

/* Where the memory for bodies is used up, backends are asked at once. */
static void all_bodies_that_wait_are_bounded(void **state)
{
    enum { CLIENTS = 40, KEPT = 16 };
    int fd[CLIENTS];
    (void)state;
    open_house("request_buffers_total = 64K");
    for (unsigned i = 0; i < CLIENTS; i++) {
        fd[i] = client_connect(house.port);
        client_send(fd[i], "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\nx");
        if (i < KEPT)
            expect_no_connection();
    }
    wait_until(backend_connections(raw.b) == CLIENTS - KEPT, PATIENCE);
    for (unsigned i = 0; i < CLIENTS; i++)
        close(fd[i]);
    wait_until(backend_open(raw.b) == 0, PATIENCE);
    raw_forget();
    const int again = client_connect(house.port);
    client_send(again, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\nx");
    expect_no_connection(); /* it is given back when they leave */
    close(again);
    close_house();
}

static void slow_bodies_hold_no_backend_and_end(void **state)
{
    enum { SLOW = 300 };
    static int fd[SLOW];
    struct message m;
    (void)state;
    open_house("max_connections_per_client = 400 request_buffer = 1M");
    for (unsigned i = 0; i < SLOW; i++) {
        fd[i] = client_connect(house.port);
        client_send(fd[i], i % 2 ? "POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\n"
                                 : "POST /slow HTTP/1.1\r\nHost: h\r\n"
                                   "Transfer-Encoding: chunked\r\n\r\n");
    }
    const int steady = client_connect(house.port);
    client_send(steady, "POST /steady HTTP/1.1\r\nHost: h\r\nContent-Length: 600003\r\n\r\n");
    const uint64_t start = mono_ms();
    size_t sent = 0;
    for (unsigned tick = 0; mono_ms() < start + 13000; tick++) {
        char bytes[4000];
        memset(bytes, 's', sizeof bytes);
        client_send_bytes(steady, bytes, sizeof bytes); /* some 20000 bytes a second */
        sent += sizeof bytes;
        for (unsigned i = 0; i < SLOW && tick % 20 == 0 && mono_ms() < start + 8000; i++)
            client_send(fd[i], i % 2 ? "x" : "1\r\nx\r\n");
        nap_ms(200);
        assert_int_equal(backend_connections(raw.b), 0);
    }
    for (unsigned i = 0; i < SLOW; i++) {
        client_read(fd[i], &m, false);
        assert_int_equal(m.status, 408);
        message_free(&m);
        close(fd[i]);
    }
    for (; sent < 600000; sent++)
        client_send(steady, "s");
    client_send(steady, "END");
    expect_done(steady);
    assert_non_null(strstr(raw.seen, "/steady"));
    assert_null(strstr(raw.seen, "/slow"));
    close(steady);
    close_house();
}

/* The first part was quick, the rest is not: the backend's connection is given up too. */
static void a_body_that_becomes_slow_ends(void **state)
{
    struct message m;
    (void)state;
    open_house("request_buffer = 1");
    const int fd = client_connect(house.port);
    client_send(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999\r\n\r\nxx");
    wait_until(backend_open(raw.b) == 1, PATIENCE);
    for (int i = 0; i < 8; i++) {
        client_send(fd, "x");
        nap_ms(1000); /* as slow as it is */
    }
    client_read(fd, &m, false);
    assert_int_equal(m.status, 408);
    message_free(&m);
    wait_until(backend_open(raw.b) == 0, PATIENCE);
    close(fd);
    close_house();
}

/* ---- large ones ---- */

#define LARGE (20u << 20)

struct upload {
    bool chunked;
    atomic_bool done;
    atomic_size_t sent;
    pthread_t thread;
};

static void *upload_run(void *arg)
{
    static char piece[1 << 16];
    struct upload *u = arg;
    const int fd = client_connect(house.port);
    memset(piece, 'L', sizeof piece);
    if (u->chunked)
        client_send(fd, "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    else
        client_send(fd, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %u\r\n\r\n", LARGE + 3);
    while (atomic_load(&u->sent) < LARGE) {
        if (u->chunked)
            client_send(fd, "%zx\r\n", sizeof piece);
        client_send_bytes(fd, piece, sizeof piece);
        if (u->chunked)
            client_send(fd, "\r\n");
        atomic_fetch_add(&u->sent, sizeof piece);
    }
    client_send(fd, u->chunked ? "3\r\nEND\r\n0\r\n\r\n" : "END");
    expect_done(fd);
    atomic_store(&u->done, true);
    close(fd);
    return NULL;
}

static void large_bodies_stream_with_bounded_memory(void **state)
{
    enum { UPLOADS = 4 };
    static struct upload u[UPLOADS];
    (void)state;
    open_house("");
    const pid_t worker = worker_of(&house);
    atomic_store(&raw.deaf, true);
    const long before = resident_kib(worker);
    for (unsigned i = 0; i < UPLOADS; i++) {
        u[i].chunked = i % 2;
        pthread_create(&u[i].thread, NULL, upload_run, &u[i]);
    }
    wait_until(backend_connections(raw.b) == UPLOADS, PATIENCE);
    size_t sum = 0, last = 1;
    while (sum != last) { /* until nobody takes any more */
        last = sum;
        nap_ms(300);
        sum = 0;
        for (unsigned i = 0; i < UPLOADS; i++)
            sum += atomic_load(&u[i].sent);
    }
    assert_true(sum < (size_t)UPLOADS * LARGE);
    if (!harness_sanitized())
        assert_in_range(resident_kib(worker), 0, (unsigned long)before + 4096);
    atomic_store(&raw.deaf, false);
    for (unsigned i = 0; i < UPLOADS; i++) {
        wait_until(atomic_load(&u[i].done), 60000);
        pthread_join(u[i].thread, NULL);
    }
    assert_true(atomic_load(&raw.bytes) >= (size_t)UPLOADS * LARGE);
    close_house();
}

/* ---- once more ---- */

static bool closes_first(struct asked *a)
{
    static atomic_uint calls;
    if (atomic_fetch_add(&calls, 1) % 2 == 0)
        return false;
    return reply_ok(a, "", a->m.body);
}

static void a_request_is_sent_once_more_with_the_body_that_is_kept(void **state)
{
    struct message m;
    (void)state;
    struct backend *one = backend_start(closes_first, NULL),
                   *two = backend_start(closes_first, NULL);
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                backend_port(one), backend_port(two));
    assert_int_equal(request(house.port, "PUT", "/", "", "whole", &m), 200);
    assert_string_equal(m.body, "whole");
    message_free(&m);
    const int fd = client_connect(house.port);
    client_send(fd, "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "3\r\nwho\r\n2\r\nle\r\n0\r\n\r\n");
    client_read(fd, &m, false);
    assert_int_equal(m.status, 200);
    assert_string_equal(m.body, "whole");
    message_free(&m);
    close(fd);
    assert_int_equal(request(house.port, "POST", "/", "", "once", NULL), 502);
    house_remove(&house);
    backend_stop(one);
    backend_stop(two);
}

static void a_request_waits_for_a_restart_with_its_body(void **state)
{
    (void)state;
    const unsigned port = free_port();
    house_start(&house, 1,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } park = \"60s\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                port);
    const int fd = client_connect(house.port);
    client_send(fd, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nEND");
    nap_ms(200); /* the backend is not there yet */
    raw_start(port);
    expect_done(fd);
    close(fd);
    close_house();
}

/* ---- a body from the store ---- */

enum { STORED = 12 << 20 };

static bool answers_with_much(struct asked *a)
{
    char *body = malloc(STORED + 1);
    assert_non_null(body);
    memset(body, 's', STORED);
    body[STORED] = 0;
    reply(a, "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: %d\r\n\r\n", STORED);
    const bool kept = reply_bytes(a, body, STORED);
    free(body);
    return kept;
}

static bool a_client_has_timed_out(void)
{
    struct message m;
    assert_int_equal(get(house.ops_port, "/metrics", &m), 200);
    const bool timed_out = strstr(m.body, "\npolder_client_timeouts_total 1\n") != NULL;
    message_free(&m);
    return timed_out;
}

/* The rest of it lies in the store, and not in a buffer of the connection's. */
static void a_reader_that_pauses_is_cut_and_told_nothing_in_between(void **state)
{
    struct backend *b = backend_start(answers_with_much, NULL);
    char bytes[65536];
    size_t seen = 0;
    ssize_t n;
    (void)state;
    house_start(&house, 1,
                "client_timeout = 3s\ncache { max_bytes = 128M max_body = 16M }\n"
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(b));
    assert_int_equal(get(house.port, "/much", NULL), 200);
    wait_until(served_from_store(house.port, "/much"), PATIENCE);
    const int fd = client_connect_small(house.port, 65536);
    client_send(fd, "GET /much HTTP/1.1\r\nHost: test.example\r\n\r\n");
    wait_until(a_client_has_timed_out(), PATIENCE);
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0) {
        const char *head_end = seen ? NULL : memmem(bytes, (size_t)n, "\r\n\r\n", 4);
        const char *at = head_end ? head_end + 4 : bytes;
        for (; at < bytes + n; at++)
            assert_int_equal(*at, 's');
        seen += (size_t)n;
    }
    assert_true(seen < STORED);
    close(fd);
    house_remove(&house);
    backend_stop(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_chunks_of_a_request_travel_together),
        cmocka_unit_test(small_chunks_of_a_response_travel_together),
        cmocka_unit_test(a_short_response_is_one_write),
        cmocka_unit_test(a_backend_is_asked_when_the_whole_body_is_there),
        cmocka_unit_test(a_backend_is_asked_when_the_first_part_is_there),
        cmocka_unit_test(a_backend_is_asked_at_once_where_that_is_wanted),
        cmocka_unit_test(a_body_that_is_announced_is_asked_for),
        cmocka_unit_test(all_bodies_that_wait_are_bounded),
        cmocka_unit_test(slow_bodies_hold_no_backend_and_end),
        cmocka_unit_test(a_body_that_becomes_slow_ends),
        cmocka_unit_test(large_bodies_stream_with_bounded_memory),
        cmocka_unit_test(a_request_is_sent_once_more_with_the_body_that_is_kept),
        cmocka_unit_test(a_request_waits_for_a_restart_with_its_body),
        cmocka_unit_test(a_reader_that_pauses_is_cut_and_told_nothing_in_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

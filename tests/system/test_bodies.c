/* SPDX-License-Identifier: BSD-2-Clause */
/* Bodies on their way: how they are cut, how much of them is held, and for how long. */
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
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
    int fd;
    unsigned port;
    pthread_t thread;
    atomic_bool stop, deaf; /* deaf: it reads nothing */
    atomic_uint connections, open;
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
static void *raw_visit(void *arg)
{
    const int fd = *(int *)arg;
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";
    char tail[5] = "", *bytes = malloc(1 << 16);
    free(arg);
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
    close(fd);
    atomic_fetch_sub(&raw.open, 1);
    return NULL;
}

static void *raw_accept(void *arg)
{
    (void)arg;
    while (!atomic_load(&raw.stop)) {
        struct pollfd p = {raw.fd, POLLIN, 0};
        pthread_t thread;
        if (poll(&p, 1, 20) <= 0)
            continue;
        int *fd = malloc(sizeof *fd);
        *fd = accept(raw.fd, NULL, NULL);
        atomic_fetch_add(&raw.connections, 1);
        atomic_fetch_add(&raw.open, 1);
        pthread_create(&thread, NULL, raw_visit, fd);
        pthread_detach(thread);
    }
    return NULL;
}

static void raw_forget(void)
{
    atomic_store(&raw.connections, 0);
    atomic_store(&raw.bytes, 0);
    atomic_store(&raw.seen_len, 0);
    raw.seen[0] = 0;
}

static void raw_start(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    raw_forget();
    atomic_store(&raw.stop, false);
    atomic_store(&raw.deaf, false);
    raw.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(raw.fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(raw.fd, 512), 0);
    assert_int_equal(getsockname(raw.fd, (struct sockaddr *)&sa, &len), 0);
    raw.port = ntohs(sa.sin_port);
    pthread_create(&raw.thread, NULL, raw_accept, NULL);
}

static void raw_stop(void)
{
    atomic_store(&raw.stop, true);
    pthread_join(raw.thread, NULL);
    wait_until(atomic_load(&raw.open) == 0, PATIENCE);
    close(raw.fd);
}

static struct house house;

static void open_house(const char *top)
{
    raw_start();
    house_start(&house, 1,
                "%s\nupstream \"u\" { server \"127.0.0.1:%u\" { } timeout = \"60s\" }\n"
                "route \"/*\" { upstream = \"u\" }\n",
                top, raw.port);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_chunks_of_a_request_travel_together),
        cmocka_unit_test(small_chunks_of_a_response_travel_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The small HTTP server with a page and a stream of its own, without any daemon. */
#include "daemons/net/http_server.h"
#include "polder/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
/* after the others: it wants them */
#include <cmocka.h>

#define PATIENCE_MS 20000

struct rig {
    struct ev_loop *loop;
    struct http_server *server;
    struct http_request *stream; /* the last one that has begun; NULL: gone or ended */
    unsigned gone;
    unsigned parts, made; /* of the next answer in parts; how many of them were made */
    bool fails;           /* in the middle */
    char seen[8192];
    size_t len;
};

static void on_gone(void *arg)
{
    struct rig *r = arg;
    r->stream = NULL;
    r->gone++;
}

static bool next_part(void *arg, const char **part, size_t *len)
{
    static char text[HTTP_PART_MAX];
    struct rig *r = arg;
    if (r->fails && r->made == r->parts / 2)
        return false;
    memset(text, 'a' + (int)(r->made % 26), sizeof text);
    *part = text;
    *len = r->made < r->parts ? sizeof text : 0;
    r->made += *len > 0;
    return true;
}

static void on_done(void *arg)
{
    ((struct rig *)arg)->gone++;
}

static void on_request(void *arg, const struct http_call *call)
{
    struct rig *r = arg;
    char body[64];
    if (field_is(call->head->path, "/events")) {
        r->stream = http_stream_begin(call->request, "text/event-stream", on_gone, r)
                        ? call->request
                        : NULL;
        return;
    }
    if (field_is(call->head->path, "/long")) {
        r->made = 0;
        http_answer_parts(call->request, "text/plain", next_part, on_done, r);
        return;
    }
    const int n = snprintf(body, sizeof body, "origin %u\n", call->origin);
    http_answer(call->request, 200, "text/plain", body, (size_t)n);
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    r->loop = ev_loop_new(EVBACKEND_EPOLL);
    r->server = http_server_new(r->loop, on_request, r);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    if (r->server)
        http_server_free(r->server);
    ev_loop_destroy(r->loop);
    free(r);
    return 0;
}

/* A client's end of a connection that the server has accepted, with this request on it. */
static int ask(struct rig *r, unsigned origin, const char *request)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(send(pair[0], request, strlen(request), 0), strlen(request));
    http_server_add(r->server, pair[1], origin);
    return pair[0];
}

static int ask_for_events(struct rig *r)
{
    const uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    const int fd = ask(r, 0, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    r->stream = NULL;
    while (!r->stream && clock_mono_ms() < until_ms)
        ev_run(r->loop, EVRUN_NOWAIT);
    assert_non_null(r->stream);
    return fd;
}

/* Runs the loop until `wanted` has come, or the end where it is NULL. */
static void see(struct rig *r, int fd, const char *wanted)
{
    const uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    r->len = 0;
    for (;;) {
        ev_run(r->loop, EVRUN_NOWAIT);
        const ssize_t n = recv(fd, r->seen + r->len, sizeof r->seen - 1 - r->len, MSG_DONTWAIT);
        if (n > 0)
            r->len += (size_t)n;
        r->seen[r->len] = 0;
        if (wanted ? strstr(r->seen, wanted) != NULL : n == 0)
            return;
        if (n == 0 || (n < 0 && errno != EAGAIN) || clock_mono_ms() > until_ms)
            fail_msg("no %s in: %s", wanted ? wanted : "end", r->seen);
    }
}

static void the_handler_learns_where_a_request_came_in(void **state)
{
    struct rig *r = *state;
    const int fd = ask(r, 7, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    see(r, fd, "origin 7\n");
    assert_non_null(strstr(r->seen, "Content-Length: 9\r\n"));
    close(fd);
}

static void a_stream_comes_as_its_parts_come(void **state)
{
    struct rig *r = *state;
    const int fd = ask_for_events(r);
    see(r, fd, "\r\n\r\n");
    assert_non_null(strstr(r->seen, "Content-Type: text/event-stream\r\n"));
    assert_non_null(strstr(r->seen, "Connection: close\r\n"));
    assert_null(strstr(r->seen, "Content-Length"));
    http_stream_put(r->stream, "data: 1\n\n", 9);
    http_stream_put(r->stream, "data: 2\n\n", 9);
    see(r, fd, "data: 1\n\ndata: 2\n\n");
    http_stream_put(r->stream, "data: 3\n\n", 9);
    see(r, fd, "data: 3\n\n");
    assert_int_equal(r->gone, 0);
    close(fd);
}

static void a_stream_ends_where_its_client_leaves(void **state)
{
    struct rig *r = *state;
    const uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    close(ask_for_events(r));
    while (!r->gone && clock_mono_ms() < until_ms)
        ev_run(r->loop, EVRUN_NOWAIT);
    assert_int_equal(r->gone, 1);
}

static void a_client_that_does_not_keep_up_is_hung_up(void **state)
{
    struct rig *r = *state;
    static const char part[10000];
    const int fd = ask_for_events(r);
    struct http_request *slow = r->stream;
    for (unsigned i = 0; i < 10000 && !r->gone; i++) {
        http_stream_put(slow, part, sizeof part);
        http_stream_put(slow, part, sizeof part);
        assert_int_equal(r->gone, 0); /* never from within */
        ev_run(r->loop, EVRUN_NOWAIT);
    }
    assert_int_equal(r->gone, 1);
    close(fd);
}

static void a_head_alone_begins_no_stream(void **state)
{
    struct rig *r = *state;
    const int fd = ask(r, 0, "HEAD /events HTTP/1.1\r\nHost: a\r\n\r\n");
    see(r, fd, "\r\n\r\n");
    assert_non_null(strstr(r->seen, "text/event-stream"));
    assert_null(r->stream);
    close(fd);
}

/* However many others come, and however many streams there are. */
static void streams_and_others_keep_their_places(void **state)
{
    struct rig *r = *state;
    int fd[64], other[70];
    for (unsigned i = 0; i < 64; i++)
        fd[i] = ask_for_events(r);
    for (unsigned i = 0; i < 70; i++)
        other[i] = ask(r, 1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    see(r, other[69], "origin 1\n");
    assert_int_equal(r->gone, 0);
    http_server_free(r->server);
    r->server = NULL;
    assert_int_equal(r->gone, 64);
    for (unsigned i = 0; i < 64; i++)
        close(fd[i]);
    for (unsigned i = 0; i < 70; i++)
        close(other[i]);
}

/* Reads to the end of the connection; how many bytes were body, without the frames of chunks.
 * cut: it ends before its last chunk. */
static size_t read_chunks(struct rig *r, int fd, bool *cut)
{
    const size_t room = 8u << 20;
    char *all = malloc(room), *at;
    size_t len = 0, sum = 0, n = 1;
    const uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    for (;;) {
        ev_run(r->loop, EVRUN_NOWAIT);
        const ssize_t got = recv(fd, all + len, room - 1 - len, MSG_DONTWAIT);
        len += got > 0 ? (size_t)got : 0;
        if (!got || (got < 0 && errno != EAGAIN))
            break;
        assert_true(clock_mono_ms() < until_ms);
    }
    all[len] = 0;
    at = strstr(all, "\r\n\r\n");
    assert_non_null(at);
    assert_non_null(strstr(all, "Transfer-Encoding: chunked\r\n"));
    for (at += 4; at < all + len && n; at += n + 2) {
        n = strtoul(at, &at, 16);
        assert_memory_equal(at, "\r\n", 2);
        at += 2;
        sum += n;
        if (at + n > all + len)
            break;
    }
    *cut = n != 0;
    free(all);
    return sum;
}

static void a_long_answer_is_made_as_it_is_taken(void **state)
{
    struct rig *r = *state;
    bool cut;
    r->parts = 40;
    const int slow = ask(r, 0, "GET /long HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 100; i++)
        ev_run(r->loop, EVRUN_NOWAIT);
    assert_true(r->made >= 1 && r->made < 10); /* nothing was taken: the socket holds the rest */
    const int other = ask(r, 3, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    see(r, other, "origin 3\n");
    assert_int_equal(read_chunks(r, slow, &cut), 40u * HTTP_PART_MAX);
    assert_false(cut);
    assert_int_equal(r->gone, 1);
    close(slow);
    close(other);
}

static void a_connection_goes_on_after_an_answer_in_parts(void **state)
{
    struct rig *r = *state;
    r->parts = 0;
    const int fd =
        ask(r, 5, "GET /long HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    see(r, fd, "origin 5\n");
    assert_non_null(strstr(r->seen, "\r\n\r\n0\r\n\r\nHTTP/1.1 200"));
    assert_int_equal(r->gone, 1);
    close(fd);
}

static void an_old_client_gets_parts_to_the_end_of_its_connection(void **state)
{
    struct rig *r = *state;
    r->parts = 0;
    const int fd = ask(r, 5, "GET /long HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    see(r, fd, NULL);
    assert_null(strstr(r->seen, "Transfer-Encoding"));
    assert_non_null(strstr(r->seen, "Connection: close\r\n\r\n"));
    assert_int_equal(r->gone, 1);
    close(fd);
}

static void an_answer_that_fails_in_the_middle_is_seen_to(void **state)
{
    struct rig *r = *state;
    bool cut;
    r->parts = 4;
    r->fails = true;
    const int fd = ask(r, 0, "GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(read_chunks(r, fd, &cut), 2u * HTTP_PART_MAX);
    assert_true(cut);
    assert_int_equal(r->gone, 1);
    close(fd);
}

static void parts_end_where_their_client_leaves(void **state)
{
    struct rig *r = *state;
    r->parts = 1000000;
    const int fd = ask(r, 0, "GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    const int head = ask(r, 0, "HEAD /long HTTP/1.1\r\nHost: a\r\n\r\n");
    see(r, head, "\r\n\r\n");
    assert_int_equal(r->gone, 1); /* of the HEAD */
    close(head);
    close(fd);
    const uint64_t until_ms = clock_mono_ms() + PATIENCE_MS;
    while (r->gone < 2 && clock_mono_ms() < until_ms)
        ev_run(r->loop, EVRUN_NOWAIT);
    assert_int_equal(r->gone, 2);
    assert_true(r->made < 1000000);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_handler_learns_where_a_request_came_in),
        TEST(a_stream_comes_as_its_parts_come),
        TEST(a_stream_ends_where_its_client_leaves),
        TEST(a_client_that_does_not_keep_up_is_hung_up),
        TEST(a_head_alone_begins_no_stream),
        TEST(streams_and_others_keep_their_places),
        TEST(a_long_answer_is_made_as_it_is_taken),
        TEST(a_connection_goes_on_after_an_answer_in_parts),
        TEST(an_old_client_gets_parts_to_the_end_of_its_connection),
        TEST(an_answer_that_fails_in_the_middle_is_seen_to),
        TEST(parts_end_where_their_client_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

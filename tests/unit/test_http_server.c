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
    char seen[8192];
    size_t len;
};

static void on_gone(void *arg)
{
    struct rig *r = arg;
    r->stream = NULL;
    r->gone++;
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
    http_stream_end(r->stream); /* what was put still goes out */
    see(r, fd, NULL);
    assert_string_equal(r->seen, "data: 3\n\n");
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The MessagePack-RPC server and client over a real socket, driven by one loop. */
#include "daemons/rpc/client.h"
#include "daemons/rpc/server.h"
#include "polder/clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
/* after the others: it wants them */
#include <cmocka.h>

struct rig {
    char dir[64], path[80];
    struct ev_loop *loop;
    struct rpc_server *server;
    struct rpc_reply *kept[128]; /* of "later" */
    unsigned n_kept, calls;
    struct rpc_peer peer;
};
static struct rig rig;

static bool is(const struct rpc_call *call, const char *method)
{
    return call->method_len == strlen(method) && !memcmp(call->method, method, call->method_len);
}

static void handle(void *arg, const struct rpc_call *call)
{
    struct rig *r = arg;
    r->calls++;
    r->peer = call->peer;
    if (is(call, "echo")) {
        rpc_out_object(rpc_reply_result(call->reply), NULL, call->params);
        rpc_reply_send(call->reply);
    } else if (is(call, "later")) {
        r->kept[r->n_kept++] = call->reply;
    } else if (is(call, "large")) {
        struct rpc_out *o = rpc_reply_result(call->reply);
        rpc_out_list(o, NULL);
        for (int i = 0; i < 900; i++)
            rpc_out_str(o, NULL,
                        "................................................................"
                        "................................................................");
        rpc_out_end(o);
        rpc_reply_send(call->reply);
    } else if (is(call, "checked")) {
        if (!rpc_call_check(call, RPC_METHOD_CACHE_INVALIDATE))
            return;
        rpc_out_str(rpc_reply_result(call->reply), NULL, "good");
        rpc_reply_send(call->reply);
    } else {
        rpc_reply_error(call->reply, RPC_NO_METHOD, "no method %.*s", (int)call->method_len,
                        call->method);
    }
}

static int set_up(void **state)
{
    memset(&rig, 0, sizeof rig);
    strcpy(rig.dir, "/tmp/polder-rpc.XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    snprintf(rig.path, sizeof rig.path, "%s/s", rig.dir);
    rig.loop = ev_loop_new(EVBACKEND_EPOLL);
    assert_int_equal(rpc_server_new(&rig.server, rig.loop, rig.path, 0600, (gid_t)-1, handle, &rig),
                     0);
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < rig.n_kept; i++)
        if (rig.kept[i])
            rpc_reply_error(rig.kept[i], RPC_FAILED, "the end");
    rpc_server_free(rig.server);
    assert_int_equal(access(rig.path, F_OK), -1);
    ev_loop_destroy(rig.loop);
    rmdir(rig.dir);
    return 0;
}

static int dial(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    strcpy(sa.sun_path, rig.path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    return fd;
}

static void say(int fd, const void *bytes, size_t len)
{
    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void say_often(int fd, const char *bytes, size_t len, size_t times)
{
    char all[16384];
    assert_true(len * times <= sizeof all);
    for (size_t i = 0; i < times; i++)
        memcpy(all + i * len, bytes, len);
    say(fd, all, len * times);
}

/* Runs the loop until `want` bytes are there, the peer has closed, or nothing happens for long. */
static size_t hear(int fd, uint8_t *buf, size_t size, size_t want, bool *closed)
{
    size_t n = 0;
    const uint64_t end = clock_mono_ms() + 3000;
    *closed = false;
    while (n < want && !*closed && clock_mono_ms() < end) {
        ev_run(rig.loop, EVRUN_NOWAIT);
        const ssize_t got = recv(fd, buf + n, size - n, MSG_DONTWAIT);
        if (got > 0)
            n += (size_t)got;
        else if (got == 0 || errno != EAGAIN)
            *closed = true;
    }
    return n;
}

static void run_until(bool (*done)(void))
{
    const uint64_t end = clock_mono_ms() + 3000;
    while (!done() && clock_mono_ms() < end)
        ev_run(rig.loop, EVRUN_NOWAIT);
    assert_true(done());
}

/* ---- stories ---- */

static void a_request_is_answered_with_its_number(void **state)
{
    (void)state;
    uint8_t buf[256];
    bool closed;
    const int fd = dial();
    say(fd,
        "\x94\x00\x07\xa4"
        "echo\x91\x81\xa1"
        "a\x01",
        13);
    static const char want[] = "\x94\x01\x07\xc0\x81\xa1"
                               "a\x01";
    assert_int_equal(hear(fd, buf, sizeof buf, 8, &closed), 8);
    assert_memory_equal(buf, want, 8);
    assert_int_equal(rig.peer.uid, getuid());
    assert_int_equal(rig.peer.pid, getpid());
    close(fd);
}

static void parameters_may_be_a_map_or_an_empty_list_or_nil(void **state)
{
    (void)state;
    static const char *const params[] = {"\x80", "\x90", "\xc0", "\x91\x80"};
    static const size_t len[] = {1, 1, 1, 2};
    uint8_t buf[64];
    bool closed;
    const int fd = dial();
    for (size_t i = 0; i < 4; i++) {
        say(fd,
            "\x94\x00\x01\xa4"
            "echo",
            8);
        say(fd, params[i], len[i]);
        assert_int_equal(hear(fd, buf, sizeof buf, 5, &closed), 5);
        assert_memory_equal(buf, "\x94\x01\x01\xc0\x80", 5);
    }
    close(fd);
}

static void a_message_may_come_byte_by_byte(void **state)
{
    (void)state;
    static const char text[] = "\x94\x00\x07\xa4"
                               "echo\x81\xa1"
                               "a\xdc\x00\x01\xc4\x01\x00";
    uint8_t buf[64];
    bool closed;
    const int fd = dial();
    for (size_t i = 0; i < sizeof text - 1; i++) {
        say(fd, text + i, 1);
        ev_run(rig.loop, EVRUN_NOWAIT);
    }
    assert_true(hear(fd, buf, sizeof buf, 10, &closed) >= 10);
    assert_memory_equal(buf,
                        "\x94\x01\x07\xc0\x81\xa1"
                        "a",
                        7);
    close(fd);
}

static void answers_go_out_in_the_order_they_are_made(void **state)
{
    (void)state;
    uint8_t buf[256];
    bool closed;
    const int fd = dial();
    say(fd,
        "\x94\x00\x01\xa5"
        "later\x80\x94\x00\x02\xa5"
        "later\x80\x94\x00\x03\xa4"
        "echo\x80",
        29);
    assert_int_equal(hear(fd, buf, sizeof buf, 5, &closed), 5);
    assert_int_equal(buf[2], 3);
    assert_int_equal(rig.n_kept, 2);
    for (int i = 1; i >= 0; i--) {
        rpc_out_bool(rpc_reply_result(rig.kept[i]), NULL, true);
        rpc_reply_send(rig.kept[i]);
        rig.kept[i] = NULL;
    }
    assert_int_equal(hear(fd, buf, sizeof buf, 10, &closed), 10);
    assert_int_equal(buf[2], 2);
    assert_int_equal(buf[7], 1);
    close(fd);
}

static bool one_kept(void)
{
    return rig.n_kept == 1;
}

static void a_reply_outlives_its_connection(void **state)
{
    (void)state;
    const int fd = dial();
    struct linger hard = {1, 0};
    say(fd,
        "\x94\x00\x01\xa5"
        "later\x80",
        10);
    run_until(one_kept);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
    for (int i = 0; i < 20; i++)
        ev_run(rig.loop, EVRUN_NOWAIT);
    rpc_out_nil(rpc_reply_result(rig.kept[0]), NULL);
    rpc_reply_send(rig.kept[0]);
    rig.kept[0] = NULL;
    for (int i = 0; i < 20; i++)
        ev_run(rig.loop, EVRUN_NOWAIT);
}

static void one_who_has_said_all_still_gets_his_answers(void **state)
{
    (void)state;
    uint8_t buf[64];
    bool closed;
    const int fd = dial();
    say(fd,
        "\x94\x00\x01\xa5"
        "later\x80\x94\x00\x02\xa4"
        "echo\x80",
        19);
    shutdown(fd, SHUT_WR);
    assert_int_equal(hear(fd, buf, sizeof buf, 5, &closed), 5);
    rpc_out_nil(rpc_reply_result(rig.kept[0]), NULL);
    rpc_reply_send(rig.kept[0]);
    rig.kept[0] = NULL;
    assert_int_equal(hear(fd, buf, sizeof buf, 6, &closed), 5);
    assert_true(closed);
    close(fd);
}

static bool called(void)
{
    return rig.calls > 0;
}

static void notifications_are_executed_without_an_answer(void **state)
{
    (void)state;
    uint8_t buf[64];
    bool closed;
    const int fd = dial();
    say(fd,
        "\x93\x02\xa4"
        "echo\x80",
        8);
    run_until(called);
    say(fd,
        "\x94\x00\x05\xa4"
        "echo\x80",
        9);
    assert_int_equal(hear(fd, buf, sizeof buf, 5, &closed), 5);
    assert_int_equal(buf[2], 5);
    close(fd);
}

static void malformed_messages_get_an_error_and_cost_their_connection(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        unsigned id; /* 0xc0: nil */
    } bad[] = {
        {"\xc1", 1, 0xc0},
        {"\xdd\x08\x00\x00\x00", 5, 0xc0},
        {"\xdf\xff\xff\xff\xff", 5, 0xc0},
        {"\x94\x00\x01\xdb\x7f\xff\xff\xff", 8, 0xc0},
        {"\x93\x00\x01\xa6status", 10, 1},
        {"\x94\x05\x01\xa6status\x80", 11, 0xc0},
        {"\x94\x00\xa1x\xa6status\x80", 12, 0xc0},
        {"\x94\x00\x09\x01\x80", 5, 9},
        {"\x94\x00\x09\xa1x\xa1y", 7, 9},
        {"\x94\x00\x09\xa1x\x92\x80\x80", 8, 9},
        {"\x94\x01\x01\xc0\xc0", 5, 1},
        {"\x90", 1, 0xc0},
        {"GET / HTTP/1.1\r\n\r\n", 18, 0xc0},
        {"\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91", 20,
         0xc0},
    };
    uint8_t buf[4096];
    bool closed;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const int fd = dial();
        say(fd, bad[i].bytes, bad[i].len);
        const size_t n = hear(fd, buf, sizeof buf, sizeof buf, &closed);
        if (n < 8 || memcmp(buf, "\x94\x01", 2) || buf[2] != bad[i].id || buf[3] != 0x82 || !closed)
            fail_msg("bad message %zu: %zu bytes, id %x, closed %d", i, n, buf[2], closed);
        assert_non_null(memmem(buf, n, "bad-message", 11));
        close(fd);
    }
    assert_int_equal(rig.calls, 0);
}

static void a_message_of_more_than_a_mebibyte_is_refused_before_it_is_read(void **state)
{
    (void)state;
    uint8_t buf[256];
    bool closed;
    const int fd = dial();
    say(fd, "\x94\x00\x01\xc6\x00\x10\x00\x00", 8);
    assert_true(hear(fd, buf, sizeof buf, sizeof buf, &closed) > 8);
    assert_true(closed);
    assert_non_null(memmem(buf, 100, "1 MiB", 5));
    close(fd);
}

static void unknown_parameters_are_named(void **state)
{
    (void)state;
    uint8_t buf[256];
    bool closed;
    const int fd = dial();
    say(fd,
        "\x94\x00\x01\xa7"
        "checked\x82\xa3"
        "all\xc3\xa6"
        "colour\x01",
        25);
    size_t n = hear(fd, buf, sizeof buf, 60, &closed);
    assert_non_null(memmem(buf, n, "colour", 6));
    assert_non_null(memmem(buf, n, "bad-argument", 12));
    close(fd);
}

static void many_requests_in_one_go_are_all_answered(void **state)
{
    (void)state;
    static uint8_t buf[16384];
    bool closed;
    const int fd = dial();
    say_often(fd,
              "\x94\x00\x01\xa4"
              "echo\x80",
              9, 1000);
    assert_int_equal(hear(fd, buf, sizeof buf, 5000, &closed), 5000);
    assert_int_equal(rig.calls, 1000);
    close(fd);
}

static void a_client_that_does_not_read_holds_up_itself_only(void **state)
{
    (void)state;
    uint8_t buf[64];
    bool closed;
    const int slow = dial(), fd = dial();
    say_often(slow,
              "\x94\x00\x01\xa5"
              "large\x80",
              10, 500);
    for (int i = 0; i < 100; i++)
        ev_run(rig.loop, EVRUN_NOWAIT);
    assert_true(rig.calls < 20); /* 500 answers would be 60 MB */
    say(fd,
        "\x94\x00\x05\xa4"
        "echo\x80",
        9);
    assert_int_equal(hear(fd, buf, sizeof buf, 5, &closed), 5);
    close(slow);
    close(fd);
}

static void silent_clients_do_not_lock_others_out(void **state)
{
    (void)state;
    int fd[200];
    uint8_t buf[64];
    bool closed;
    for (int i = 0; i < 200; i++) {
        fd[i] = dial();
        say(fd[i], "\x94\x00", 2);
        ev_run(rig.loop, EVRUN_NOWAIT);
    }
    const int last = dial();
    say(last,
        "\x94\x00\x05\xa4"
        "echo\x80",
        9);
    assert_int_equal(hear(last, buf, sizeof buf, 5, &closed), 5);
    for (int i = 0; i < 200; i++)
        close(fd[i]);
    close(last);
}

static void strangers_are_told_so_and_shown_the_door(void **state)
{
    (void)state;
    if (getuid() != 0)
        skip();
    uint8_t buf[256];
    bool closed;
    chmod(rig.dir, 0755);
    chmod(rig.path, 0666);
    const int stay = dial();
    assert_int_equal(setegid(65534), 0);
    assert_int_equal(seteuid(65534), 0);
    const int fd = dial();
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(setegid(0), 0);
    const size_t n = hear(fd, buf, sizeof buf, sizeof buf, &closed);
    assert_true(closed);
    assert_non_null(memmem(buf, n, "denied", 6));
    say(fd, "\x94\x00\x05\xa4", 4); /* who writes after it sees no broken pipe */
    say(stay,
        "\x94\x00\x05\xa4"
        "echo\x80",
        9);
    assert_int_equal(hear(stay, buf, sizeof buf, 5, &closed), 5);
    close(fd);
    close(stay);
}

static void a_living_servers_socket_is_not_taken_a_dead_ones_is(void **state)
{
    (void)state;
    struct rpc_server *second;
    struct stat st;
    char path[96];
    assert_int_equal(rpc_server_new(&second, rig.loop, rig.path, 0600, (gid_t)-1, handle, &rig),
                     -EADDRINUSE);
    snprintf(path, sizeof path, "%s/dead", rig.dir);
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    strcpy(sa.sun_path, path);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(listen(fd, 1), 0);
    close(fd); /* the file stays */
    assert_int_equal(rpc_server_new(&second, rig.loop, path, 0660, getgid(), handle, &rig), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    rpc_server_free(second);
    assert_int_equal(access(path, F_OK), -1);
}

/* ---- the client ---- */

struct heard {
    unsigned calls;
    enum rpc_error code;
    char message[128];
    uint64_t number;
};

static void hear_answer(void *arg, enum rpc_error code, const char *message,
                        const msgpack_object *result)
{
    struct heard *h = arg;
    h->calls++;
    h->code = code;
    snprintf(h->message, sizeof h->message, "%s", message);
    if (result)
        rpc_in_u64(result, "n", UINT64_MAX, &h->number);
}

static void wait_for(struct heard *h, unsigned ms)
{
    const uint64_t end = clock_mono_ms() + ms;
    while (!h->calls && clock_mono_ms() < end)
        ev_run(rig.loop, EVRUN_ONCE);
    assert_int_equal(h->calls, 1);
}

static void the_client_gets_results_and_errors(void **state)
{
    (void)state;
    struct rpc_client client;
    struct rpc_out params;
    struct heard h = {0};
    rpc_client_init(&client, rig.loop, rig.path);
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_u64(&params, "n", 42);
    rpc_out_end(&params);
    rpc_client_call(&client, "echo", &params, 2000, hear_answer, &h);
    wait_for(&h, 2000);
    assert_int_equal(h.code, RPC_OK);
    assert_int_equal(h.number, 42);
    memset(&h, 0, sizeof h);
    rpc_client_call(&client, "nothing", NULL, 2000, hear_answer, &h);
    wait_for(&h, 2000);
    assert_int_equal(h.code, RPC_NO_METHOD);
    assert_string_equal(h.message, "no method nothing");
    rpc_client_fini(&client);
}

static void the_client_gives_up_on_who_does_not_answer(void **state)
{
    (void)state;
    struct rpc_client client;
    struct heard h = {0};
    char nobody[96];
    rpc_client_init(&client, rig.loop, rig.path);
    rpc_client_call(&client, "later", NULL, 50, hear_answer, &h);
    wait_for(&h, 2000);
    assert_int_equal(h.code, RPC_UNAVAILABLE);
    rpc_client_fini(&client);
    snprintf(nobody, sizeof nobody, "%s/nobody", rig.dir);
    memset(&h, 0, sizeof h);
    rpc_client_init(&client, rig.loop, nobody);
    rpc_client_call(&client, "echo", NULL, 50, hear_answer, &h);
    wait_for(&h, 2000);
    assert_int_equal(h.code, RPC_UNAVAILABLE);
    rpc_client_fini(&client);
}

static void calls_under_way_end_with_their_client(void **state)
{
    (void)state;
    struct rpc_client client;
    struct heard h = {0};
    rpc_client_init(&client, rig.loop, rig.path);
    rpc_client_call(&client, "later", NULL, 5000, hear_answer, &h);
    run_until(one_kept);
    rpc_client_fini(&client);
    assert_int_equal(h.calls, 1);
    assert_int_equal(h.code, RPC_UNAVAILABLE);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_request_is_answered_with_its_number),
        STORY(parameters_may_be_a_map_or_an_empty_list_or_nil),
        STORY(a_message_may_come_byte_by_byte),
        STORY(answers_go_out_in_the_order_they_are_made),
        STORY(a_reply_outlives_its_connection),
        STORY(one_who_has_said_all_still_gets_his_answers),
        STORY(notifications_are_executed_without_an_answer),
        STORY(malformed_messages_get_an_error_and_cost_their_connection),
        STORY(a_message_of_more_than_a_mebibyte_is_refused_before_it_is_read),
        STORY(unknown_parameters_are_named),
        STORY(many_requests_in_one_go_are_all_answered),
        STORY(a_client_that_does_not_read_holds_up_itself_only),
        STORY(silent_clients_do_not_lock_others_out),
        STORY(strangers_are_told_so_and_shown_the_door),
        STORY(a_living_servers_socket_is_not_taken_a_dead_ones_is),
        STORY(the_client_gets_results_and_errors),
        STORY(the_client_gives_up_on_who_does_not_answer),
        STORY(calls_under_way_end_with_their_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

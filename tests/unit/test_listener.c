/* SPDX-License-Identifier: BSD-2-Clause */
/* A listener takes a few connections a turn, pauses without descriptors and goes on with them. */
#include "daemons/net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define CLIENTS 6

struct rig {
    struct ev_loop *loop;
    struct listener listener;
    char dir[64], path[108];
    int client[CLIENTS], taken[CLIENTS];
    unsigned n_taken, n_exhausted;
    int reserve;
    sa_family_t family; /* of the last one */
    struct rlimit files;
};

static void on_accepted(void *arg, int fd, const struct sockaddr *peer)
{
    struct rig *r = arg;
    assert_true(r->n_taken < CLIENTS);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    r->family = peer->sa_family;
    r->taken[r->n_taken++] = fd;
}

static void on_exhausted(void *arg)
{
    struct rig *r = arg;
    r->n_exhausted++;
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    strcpy(r->dir, "/tmp/polder-listener-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->path, sizeof r->path, "%s/s", r->dir);
    r->loop = ev_loop_new(EVBACKEND_EPOLL);
    r->reserve = -1;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &r->files), 0);
    for (int i = 0; i < CLIENTS; i++)
        r->client[i] = -1;
    listener_init(&r->listener, r->loop, on_accepted, r);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    setrlimit(RLIMIT_NOFILE, &r->files);
    listener_close(&r->listener);
    for (unsigned i = 0; i < r->n_taken; i++)
        close(r->taken[i]);
    for (int i = 0; i < CLIENTS; i++)
        if (r->client[i] >= 0)
            close(r->client[i]);
    if (r->reserve >= 0)
        close(r->reserve);
    ev_loop_destroy(r->loop);
    assert_int_equal(rmdir(r->dir), 0); /* the path is gone */
    free(r);
    return 0;
}

static void connect_all(struct rig *r, int type)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    snprintf(sa.sun_path, sizeof sa.sun_path, "%s", r->path);
    for (int i = 0; i < CLIENTS; i++) {
        r->client[i] = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(r->client[i], (struct sockaddr *)&sa, sizeof sa), 0);
    }
}

static void a_turn_takes_as_many_as_are_said(void **state)
{
    struct rig *r = *state;
    r->listener.at_once = 2;
    assert_int_equal(listener_open_path(&r->listener, r->path, SOCK_STREAM, 0600, (gid_t)-1), 0);
    connect_all(r, SOCK_STREAM);
    for (unsigned turn = 1; turn <= CLIENTS / 2; turn++) {
        ev_run(r->loop, EVRUN_ONCE);
        assert_int_equal(r->n_taken, turn * 2);
    }
    assert_int_equal(r->family, AF_UNIX);
}

static void what_waits_at_the_end_is_taken(void **state)
{
    struct rig *r = *state;
    assert_int_equal(listener_open_path(&r->listener, r->path, SOCK_SEQPACKET, 0600, (gid_t)-1), 0);
    connect_all(r, SOCK_SEQPACKET);
    listener_drain(&r->listener, 4);
    assert_int_equal(r->n_taken, 4);
    listener_drain(&r->listener, 100);
    assert_int_equal(r->n_taken, CLIENTS);
    listener_close(&r->listener);
    listener_drain(&r->listener, 100);
}

static void a_path_is_taken_from_the_dead_alone(void **state)
{
    struct rig *r = *state;
    struct listener other;
    assert_int_equal(listener_open_path(&r->listener, r->path, SOCK_SEQPACKET, 0600, (gid_t)-1), 0);
    listener_init(&other, r->loop, on_accepted, r);
    assert_int_equal(listener_open_path(&other, r->path, SOCK_SEQPACKET, 0600, (gid_t)-1),
                     -EADDRINUSE);
    assert_false(other.open);
    ev_io_stop(r->loop, &r->listener.io);
    close(r->listener.fd); /* as its death would */
    r->listener.open = false;
    assert_int_equal(listener_open_path(&other, r->path, SOCK_SEQPACKET, 0600, (gid_t)-1), 0);
    listener_close(&other);
}

/* All descriptors that this process may have are in use. */
static void use_up(struct rig *r)
{
    const int next = dup(0);
    const struct rlimit few = {(rlim_t)next, r->files.rlim_max};
    assert_true(next > 0);
    close(next);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
}

static void without_descriptors_it_pauses(void **state)
{
    struct rig *r = *state;
    char byte;
    r->reserve = listener_reserve_open();
    r->listener.reserve = &r->reserve;
    r->listener.exhausted = on_exhausted;
    r->listener.at_once = 100;
    r->listener.pause_s = 0.01;
    assert_int_equal(listener_open_path(&r->listener, r->path, SOCK_STREAM, 0600, (gid_t)-1), 0);
    connect_all(r, SOCK_STREAM);
    use_up(r);
    ev_run(r->loop, EVRUN_ONCE);
    assert_int_equal(r->n_taken, 0);
    assert_int_equal(r->n_exhausted, 1);
    assert_true(r->reserve >= 0);
    assert_false(ev_is_active(&r->listener.io));
    assert_int_equal(recv(r->client[0], &byte, 1, 0), 0); /* one was turned away */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &r->files), 0);
    while (r->n_taken < CLIENTS - 1)
        ev_run(r->loop, EVRUN_ONCE);
    assert_true(ev_is_active(&r->listener.io));
    assert_int_equal(recv(r->client[1], &byte, 1, MSG_DONTWAIT), -1);
}

static int listen_tcp(struct sockaddr_in *sa)
{
    socklen_t len = sizeof *sa;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *sa = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)sa, sizeof *sa), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)sa, &len), 0);
    return fd;
}

static void connect_tcp(struct rig *r, int i, const struct sockaddr_in *sa)
{
    r->client[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(r->client[i], (const struct sockaddr *)sa, sizeof *sa), 0);
}

static void a_socket_that_listens_already_is_taken_over(void **state)
{
    struct rig *r = *state;
    struct sockaddr_in sa;
    listener_open_socket(&r->listener, listen_tcp(&sa));
    connect_tcp(r, 0, &sa);
    while (!r->n_taken)
        ev_run(r->loop, EVRUN_ONCE);
    assert_int_equal(r->family, AF_INET);
}

/* Also those that had come before it was opened. */
static void small_pieces_are_sent_at_once(void **state)
{
    struct rig *r = *state;
    struct sockaddr_in sa;
    const int fd = listen_tcp(&sa);
    for (int i = 0; i < CLIENTS / 2; i++)
        connect_tcp(r, i, &sa);
    listener_open_socket(&r->listener, fd);
    for (int i = CLIENTS / 2; i < CLIENTS; i++)
        connect_tcp(r, i, &sa);
    while (r->n_taken < CLIENTS)
        ev_run(r->loop, EVRUN_ONCE);
    for (int i = 0; i < CLIENTS; i++) {
        int on = 0;
        socklen_t len = sizeof on;
        assert_int_equal(getsockopt(r->taken[i], IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
        assert_true(on);
    }
}

static void a_turn_takes_what_is_there(void **state)
{
    struct rig *r = *state;
    struct sockaddr_in sa;
    r->listener.at_once = CLIENTS - 1;
    listener_open_socket(&r->listener, listen_tcp(&sa));
    for (int i = 0; i < CLIENTS; i++)
        connect_tcp(r, i, &sa);
    ev_run(r->loop, EVRUN_ONCE);
    assert_int_equal(r->n_taken, CLIENTS - 1);
    ev_run(r->loop, EVRUN_ONCE);
    assert_int_equal(r->n_taken, CLIENTS);
    ev_run(r->loop, EVRUN_NOWAIT);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_turn_takes_as_many_as_are_said),
        TEST(what_waits_at_the_end_is_taken),
        TEST(a_path_is_taken_from_the_dead_alone),
        TEST(without_descriptors_it_pauses),
        TEST(a_socket_that_listens_already_is_taken_over),
        TEST(small_pieces_are_sent_at_once),
        TEST(a_turn_takes_what_is_there),
    };
    return cmocka_run_group_tests_name("listener", tests, NULL, NULL);
}

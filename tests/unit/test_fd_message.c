/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors beside a message: all of them arrive, or none is left open. */
#include "polder/fd_message.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int pair[2], file;
static char bytes[64];

static int set_up(void **state)
{
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
                     0);
    file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    close(pair[0]);
    if (pair[1] >= 0)
        close(pair[1]);
    close(file);
    return 0;
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Two parts, and the same file n times. */
static void send_files(size_t n)
{
    int fds[FD_MESSAGE_MAX];
    const struct iovec iov[2] = {{(void *)(uintptr_t) "he", 2}, {(void *)(uintptr_t) "llo", 3}};
    for (size_t i = 0; i < n; i++)
        fds[i] = file;
    assert_int_equal(fd_message_send(pair[0], iov, 2, fds, n), 5);
}

static void expect_files(int flags, size_t n)
{
    int fds[FD_MESSAGE_MAX];
    struct stat sent, came;
    size_t n_fds = 99;
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(
        fd_message_receive(pair[1], bytes, sizeof bytes, flags, fds, FD_MESSAGE_MAX, &n_fds), 5);
    assert_string_equal(bytes, "hello");
    assert_int_equal(n_fds, n);
    assert_int_equal(fstat(file, &sent), 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(fstat(fds[i], &came), 0);
        assert_int_equal(came.st_rdev, sent.st_rdev);
        assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    }
    fd_message_close(fds, n);
}

static ssize_t receive(size_t size, size_t max, size_t *n_fds)
{
    int fds[FD_MESSAGE_MAX];
    const ssize_t n = fd_message_receive(pair[1], bytes, size, MSG_DONTWAIT, fds, max, n_fds);
    fd_message_close(fds, *n_fds);
    return n;
}

static void as_many_arrive_as_were_sent(void **state)
{
    static const size_t some[] = {0, 1, 2, 3, FD_MESSAGE_MAX};
    const unsigned before = open_fds();
    (void)state;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        send_files(some[i]);
        expect_files(MSG_PEEK, some[i]); /* and stay there */
        expect_files(MSG_DONTWAIT, some[i]);
    }
    assert_int_equal(open_fds(), before);
}

static void what_is_longer_leaves_nothing_open(void **state)
{
    const unsigned before = open_fds();
    size_t n_fds = 99;
    (void)state;
    send_files(2);
    assert_int_equal(receive(4, 2, &n_fds), -EMSGSIZE);
    assert_int_equal(n_fds, 0);
    assert_int_equal(open_fds(), before);
    assert_int_equal(receive(5, 2, &n_fds), -EAGAIN); /* and is read */
}

static void more_than_there_is_room_for_are_none(void **state)
{
    const unsigned before = open_fds();
    size_t n_fds = 99;
    (void)state;
    for (size_t max = 0; max < 8; max++) {
        memset(bytes, 0, sizeof bytes);
        send_files(max + 1);
        assert_int_equal(receive(sizeof bytes, max, &n_fds), -EMFILE);
        assert_int_equal(n_fds, 0);
        assert_string_equal(bytes, "hello"); /* what it says is there */
        assert_int_equal(open_fds(), before);
    }
}

static void of_too_many_open_files_none_is_kept(void **state)
{
    struct rlimit was, one_more;
    size_t n_fds = 99;
    (void)state;
    send_files(3);
    const unsigned before = open_fds();
    const int next = fcntl(file, F_DUPFD, 0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    one_more = (struct rlimit){(rlim_t)next + 1, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &one_more), 0);
    const ssize_t n = receive(sizeof bytes, 3, &n_fds);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(n, -EMFILE);
    assert_int_equal(n_fds, 0);
    assert_int_equal(open_fds(), before);
}

static void an_end_and_an_empty_queue_differ(void **state)
{
    const struct iovec iov = {bytes, 1};
    size_t n_fds = 99;
    (void)state;
    assert_int_equal(receive(sizeof bytes, 1, &n_fds), -EAGAIN);
    assert_int_equal(n_fds, 0);
    shutdown(pair[0], SHUT_WR);
    assert_int_equal(receive(sizeof bytes, 1, &n_fds), 0);
    close(pair[1]);
    pair[1] = -1;
    assert_int_equal(fd_message_send(pair[0], &iov, 1, &file, 1), -EPIPE); /* and no signal */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(as_many_arrive_as_were_sent, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_longer_leaves_nothing_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(more_than_there_is_room_for_are_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(of_too_many_open_files_none_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_end_and_an_empty_queue_differ, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

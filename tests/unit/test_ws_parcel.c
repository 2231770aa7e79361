/* SPDX-License-Identifier: BSD-2-Clause */
/* A state block and its descriptors in the queue of a socket: all of it is there or nothing, reading
 * it takes nothing away, and what is not understood is refused. */
#include "daemons/supervisor/carry/parcel.h"
#include "polder/fd_message.h"
#include "polder/state_block.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PAIRS 2100 /* more descriptors than fit into one tray */

static int box[2], pair[PAIRS][2];
static char why[300];

static bool is_odd(const void *arg, int fd)
{
    (void)arg;
    for (int i = 1; i < PAIRS; i += 2)
        if (pair[i][0] == fd)
            return true;
    return false;
}

static int make_block(void)
{
    struct state_writer w;
    state_writer_open(&w, STATE_OF_SUPERVISOR, "1.2.3");
    for (int i = 0; i < PAIRS; i++) {
        state_record(&w, 1, 0);
        state_put_fd(&w, pair[i][0], STATE_FD_SOCKET);
        state_put_fd(&w, -1, STATE_FD_SOCKET);
    }
    const int fd = state_writer_close(&w);
    assert_true(fd >= 0);
    return fd;
}

static int set_up(void **state)
{
    (void)state;
    struct rlimit files;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    for (int i = 0; i < PAIRS; i++)
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair[i]), 0);
    return parcel_box(box);
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++)
        for (int k = 0; k < 2; k++)
            if (pair[i][k] >= 0)
                close(pair[i][k]);
    close(box[0]);
    if (box[1] >= 0)
        close(box[1]);
    return 0;
}

/* Our own copies go, as those of a process that ends. */
static void pack(void)
{
    const int block = make_block();
    const struct parcel_sending p = {.block = block, .intake = -1, .rpc = block, .at_rest = is_odd};
    assert_int_equal(parcel_send(box[1], &p), 0);
    close(block);
    close(box[1]);
    box[1] = -1;
}
static void let_go(void)
{
    for (int i = 0; i < PAIRS; i++) {
        close(pair[i][0]);
        pair[i][0] = -1;
    }
}

static bool is_connected(int fd, int i)
{
    const char sent = (char)i;
    char got = 0;
    return send(fd, &sent, 1, MSG_NOSIGNAL) == 1 && recv(pair[i][1], &got, 1, MSG_DONTWAIT) == 1 &&
           got == sent;
}

static void all_of_it_can_be_read_again_until_it_is_taken(void **state)
{
    (void)state;
    struct parcel p;
    struct parcel_items items;
    int number[PAIRS];
    for (int i = 0; i < PAIRS; i++)
        number[i] = pair[i][0];
    assert_int_equal(parcel_look(box[0], &p, why, sizeof why), 0);
    pack();
    let_go();
    for (int round = 0; round < 2; round++) {
        assert_true(parcel_is_there(box[0]));
        assert_int_equal(parcel_look(box[0], &p, why, sizeof why), 1);
        assert_true(p.rpc >= 0 && p.intake < 0);
        assert_int_equal(parcel_open(&p, &items, why, sizeof why), 0);
        for (int i = 0; i < PAIRS; i++) {
            const int fd = items.moved[number[i]];
            assert_true(is_connected(fd, i));
            assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
            close(fd);
        }
        parcel_forget(&items);
        parcel_close(&p);
    }
    parcel_take(box[0]);
    assert_false(parcel_is_there(box[0]));
    assert_int_equal(parcel_look(box[0], &p, why, sizeof why), 0);
    char byte;
    for (int i = 0; i < PAIRS; i++) /* nobody holds them any more */
        assert_int_equal(recv(pair[i][1], &byte, 1, MSG_DONTWAIT), 0);
}

static void the_block_is_read_with_the_numbers_of_now(void **state)
{
    (void)state;
    struct parcel p;
    struct parcel_items items;
    struct state_reader r;
    pack();
    assert_int_equal(parcel_look(box[0], &p, why, sizeof why), 1);
    assert_int_equal(parcel_open(&p, &items, why, sizeof why), 0);
    assert_int_equal(state_reader_open(&r, p.block, STATE_OF_SUPERVISOR, 1), 0);
    r.moved = items.moved;
    r.n_moved = items.n;
    for (int i = 0; i < PAIRS; i++) {
        assert_int_equal(state_next(&r), 1);
        const int fd = state_get_fd(&r, STATE_FD_SOCKET);
        assert_int_not_equal(fd, pair[i][0]);
        assert_true(is_connected(fd, i));
        assert_int_equal(state_get_fd(&r, STATE_FD_SOCKET), -1);
    }
    assert_true(state_good(&r));
    state_reader_close(&r);

    /* and one that has not come */
    close(items.moved[pair[0][0]]);
    items.moved[pair[0][0]] = -1;
    assert_int_equal(state_reader_open(&r, p.block, STATE_OF_SUPERVISOR, 1), 0);
    r.moved = items.moved;
    r.n_moved = items.n;
    assert_int_equal(state_next(&r), 1);
    assert_int_equal(state_get_fd(&r, STATE_FD_SOCKET), -1);
    assert_non_null(strstr(r.why, "has not come with it"));
    state_reader_close(&r);
    parcel_refuse(&items);
    parcel_close(&p);
}

static void clients_at_rest_are_told_1012_where_nothing_comes_of_it(void **state)
{
    (void)state;
    struct parcel p;
    struct parcel_items items;
    uint8_t got[8];
    pack();
    let_go();
    assert_int_equal(parcel_look(box[0], &p, why, sizeof why), 1);
    assert_int_equal(parcel_open(&p, &items, why, sizeof why), 0);
    parcel_take(box[0]);
    parcel_close(&p);
    assert_int_equal(parcel_refuse(&items), PAIRS / 2);
    for (int i = 0; i < PAIRS; i++) {
        const ssize_t n = recv(pair[i][1], got, sizeof got, MSG_DONTWAIT);
        assert_int_equal(n, i % 2 ? 4 : 0);
        if (n)
            assert_memory_equal(got, "\x88\x02\x03\xf4", 4);
    }
}

/* The head of parcel.c, which other versions read. */
struct head {
    uint64_t magic;
    uint32_t format, n_trays, n_items;
    uint8_t intake, rpc, unused[2];
};

static void put_head(const struct head *h, size_t len, size_t n)
{
    const struct iovec iov = {(void *)(uintptr_t)h, len};
    int fds[PARCEL_TRAYS_MAX];
    for (size_t i = 0; i < n; i++)
        fds[i] = pair[i][0];
    assert_int_equal(fd_message_send(box[1], &iov, 1, fds, n), len);
}

static void expect_refused(const struct head *h, size_t len, size_t n, const char *text)
{
    struct parcel p;
    put_head(h, len, n);
    assert_int_equal(parcel_look(box[0], &p, why, sizeof why), -EPROTO);
    if (!strstr(why, text))
        fail_msg("\"%s\" does not say \"%s\"", why, text);
    parcel_take(box[0]);
}

static void what_is_no_parcel_is_refused(void **state)
{
    (void)state;
    const uint64_t magic = UINT64_C(0x315358574c4f50);
    struct head h = {.magic = magic, .format = PARCEL_FORMAT};
    expect_refused(&h, 5, 1, "no parcel");
    expect_refused(&h, sizeof h, 0, "0 descriptors came");
    expect_refused(&h, sizeof h, 2, "2 descriptors came");
    h.n_trays = PARCEL_TRAYS_MAX + 1;
    expect_refused(&h, sizeof h, 1, "trays");
    h = (struct head){.magic = magic, .format = PARCEL_FORMAT + 1};
    expect_refused(&h, sizeof h, 1, "format 2");
    h = (struct head){.magic = magic + 1, .format = PARCEL_FORMAT};
    expect_refused(&h, sizeof h, 1, "no parcel");
}

static void one_that_is_not_whole_is_refused(void **state)
{
    (void)state;
    struct parcel p;
    struct parcel_items items;
    pack();
    assert_int_equal(parcel_look(box[0], &p, why, sizeof why), 1);
    char byte;
    assert_true(recv(p.tray[0], &byte, 1, MSG_DONTWAIT) > 0); /* its first message is gone */
    assert_int_not_equal(parcel_open(&p, &items, why, sizeof why), 0);
    assert_non_null(strstr(why, "descriptors can be had"));
    assert_null(items.moved);
    parcel_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_of_it_can_be_read_again_until_it_is_taken, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_block_is_read_with_the_numbers_of_now, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(clients_at_rest_are_told_1012_where_nothing_comes_of_it,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_parcel_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_is_not_whole_is_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

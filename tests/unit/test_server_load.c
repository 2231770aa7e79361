/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts over all processes, and their bounds, while processes race and die. */
#include "polder/server_load.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others: it wants them */
#include <cmocka.h>

#define PROCESSES 4
#define MAX       5
static struct server_table *table;
static struct board {
    _Atomic uint32_t inside, most, turns; /* inside: a byte for each process */
} * board;

static int set_up(void **state)
{
    (void)state;
    table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return table == MAP_FAILED || board == MAP_FAILED;
}

static int tear_down(void **state)
{
    (void)state;
    munmap(table, sizeof *table);
    munmap(board, sizeof *board);
    return 0;
}

static struct server_loads opened(uint32_t slot)
{
    struct server_loads l;
    server_load_open(&l, table, server_claim(table, 7, 1), slot, NULL);
    return l;
}

static void counts_are_sums_over_all_processes(void **state)
{
    (void)state;
    const struct server_loads a = opened(0), b = opened(SERVER_LOADS - 1);
    for (int i = 0; i < 3; i++) {
        assert_true(server_load_enter(&a, 0));
        assert_true(server_load_enter(&b, 0));
    }
    assert_int_equal(server_load_busy(&a), 6);
    assert_false(server_load_enter(&b, 6));
    assert_true(server_load_enter(&b, 7));
    server_load_leave(&a);
    assert_int_equal(server_load_busy(&b), 6);
    server_load_clear(table, SERVER_LOADS - 1); /* it has died */
    assert_int_equal(server_load_busy(&a), 2);
    server_load_leave(&b); /* or had not */
    assert_int_equal(server_load_busy(&a), 2);
}

static void a_server_without_a_row_is_counted_alone(void **state)
{
    (void)state;
    struct server_row row = {0};
    struct server_load own = {0};
    struct server_loads l;
    uint32_t slot;
    server_load_open(&l, table, &row, 3, &own);
    assert_true(server_load_enter(&l, 1));
    assert_false(server_load_enter(&l, 1));
    assert_int_equal(server_load_busy(&l), 1);
    server_load_waits_since(&l, 9);
    assert_int_equal(server_load_oldest(&l, &slot), 9);
    assert_int_equal(slot, 3);
}

static void retries_are_a_share_of_requests_and_three_more(void **state)
{
    (void)state;
    const struct server_loads a = opened(0), b = opened(1);
    unsigned n = 0;
    while (server_load_retry(n & 1 ? &a : &b, 20))
        n++;
    assert_int_equal(n, SERVER_RETRIES_FREE);
    for (int i = 0; i < 14; i++)
        server_load_begin(i & 1 ? &a : &b);
    while (server_load_retry(n & 1 ? &a : &b, 20))
        n++;
    assert_int_equal(n, SERVER_RETRIES_FREE + 2);
    server_load_retried(&b);
    assert_true(server_load_retry(&a, 20));
    assert_false(server_load_retry(&a, 20));
    for (int i = 0; i < 14; i++)
        server_load_end(i & 1 ? &a : &b);
    server_load_retried(&a);
    assert_false(server_load_retry(&b, 20)); /* 4 of 3 */
    assert_int_equal(server_load_retries(&a), 4);
}

static void a_queue_is_bounded_and_its_oldest_is_known(void **state)
{
    (void)state;
    const struct server_loads a = opened(4), b = opened(2);
    uint32_t slot;
    assert_int_equal(server_load_oldest(&a, &slot), 0);
    assert_true(server_load_wait(&a, 2));
    assert_true(server_load_wait(&b, 2));
    assert_false(server_load_wait(&a, 2));
    server_load_waits_since(&a, 100);
    server_load_waits_since(&b, 90);
    assert_int_equal(server_load_oldest(&a, &slot), 90);
    assert_int_equal(slot, 2);
    server_load_waited(&b);
    server_load_waits_since(&b, 0);
    assert_int_equal(server_load_oldest(&b, &slot), 100);
    assert_int_equal(slot, 4);
}

/* Counts itself where all can see it, beside what is tested. */
static void enters_and_leaves(unsigned n)
{
    const struct server_loads l = opened(n);
    for (;;) {
        atomic_fetch_add(&board->turns, 1);
        if (!server_load_enter(&l, MAX))
            continue;
        const uint32_t all = atomic_fetch_add(&board->inside, 1u << 8 * n) + (1u << 8 * n);
        uint32_t sum = 0, own = all >> 8 * n & 255;
        for (unsigned i = 0; i < PROCESSES; i++)
            sum += all >> 8 * i & 255;
        uint32_t most = atomic_load(&board->most);
        while (sum > most && !atomic_compare_exchange_weak(&board->most, &most, sum))
            ;
        if (own < 3 && atomic_load(&board->turns) % 3)
            continue; /* stays */
        for (; own; own--) {
            atomic_fetch_sub(&board->inside, 1u << 8 * n);
            server_load_leave(&l);
        }
    }
}

/* What it had is no longer inside before others may have its places. */
static void end(pid_t pid, unsigned n)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    atomic_fetch_and(&board->inside, ~(255u << 8 * n));
    server_load_clear(table, n);
}

static void a_bound_is_kept_whoever_dies(void **state)
{
    (void)state;
    pid_t pid[PROCESSES] = {0};
    for (unsigned i = 0; i < 60; i++) {
        const unsigned n = i % PROCESSES;
        if (pid[n]) {
            const uint32_t then = atomic_load(&board->turns);
            while (atomic_load(&board->turns) - then < 2000)
                usleep(100);
            end(pid[n], n);
        }
        if ((pid[n] = fork()) == 0)
            enters_and_leaves(n);
    }
    for (unsigned n = 0; n < PROCESSES; n++)
        end(pid[n], n);
    const struct server_loads l = opened(0);
    assert_int_equal(atomic_load(&board->most), MAX);
    assert_int_equal(server_load_busy(&l), 0);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(counts_are_sums_over_all_processes),
        STORY(a_server_without_a_row_is_counted_alone),
        STORY(retries_are_a_share_of_requests_and_three_more),
        STORY(a_queue_is_bounded_and_its_oldest_is_known),
        STORY(a_bound_is_kept_whoever_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

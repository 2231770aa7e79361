/* SPDX-License-Identifier: BSD-2-Clause */
/* Tries: counted by each worker for itself, so that no death loses any; one at a time of a limit.
 */
#include "polder/limit_try.h"
#include "polder/limit_top.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "limit_rig.h"

#define T0 UINT64_C(1000000)

static struct limit_try_board *board;

static int setup(void **state)
{
    (void)state;
    table = shared_memory(limit_table_size(1024));
    board = shared_memory(sizeof *board);
    limit_table_init(table, 1024);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap(table, limit_table_size(1024));
    munmap(board, sizeof *board);
    return 0;
}

static struct limit_try_terms terms_of(uint64_t limit_id, uint64_t started_ms, uint64_t for_ms)
{
    return (struct limit_try_terms){.limit_id = limit_id,
                                    .started_ms = started_ms,
                                    .until_ms = started_ms + for_ms,
                                    .candidate = {.requests = 10, .window_ms = 60000}};
}

static int begin(uint64_t limit_id, uint64_t started_ms, uint64_t for_ms)
{
    const struct limit_try_terms terms = terms_of(limit_id, started_ms, for_ms);
    return limit_try_begin(board, table, &terms);
}

static uint64_t requests_of(int slot)
{
    struct limit_try_counts n;
    limit_try_counts(&board->slot[slot], &n);
    return n.requests;
}

static const struct limit_try_counts one = {1, 0, 1};

static void it_lasts_its_time_and_keeps_its_report(void **state)
{
    (void)state;
    struct limit_try_terms terms;
    assert_int_equal(limit_try_find(board, 7), -1);
    const int slot = begin(7, T0, 1000);
    assert_int_equal(limit_try_find(board, 7), slot);
    assert_int_equal(limit_try_find(board, 8), -1);
    const uint64_t run = limit_try_read(&board->slot[slot], T0, &terms);
    assert_int_equal(run, 1);
    assert_int_equal(terms.candidate.requests, 10);
    assert_true(limit_try_add(&board->slot[slot], run, 3, &one));
    assert_true(limit_try_add(&board->slot[slot], run, 4, &one));
    assert_int_equal(limit_try_read(&board->slot[slot], T0 + 999, &terms), run);
    assert_int_equal(limit_try_read(&board->slot[slot], T0 + 1000, &terms), 0);
    assert_int_equal(requests_of(slot), 2);
}

static void the_second_of_a_limit_replaces_the_first(void **state)
{
    (void)state;
    struct limit_try_terms terms;
    struct limit_top_row row;
    const struct limit_caller caller = {table, NULL, PROC_SLOT_WORKER0, 1};
    const int slot = begin(7, T0, 1000);
    const uint64_t first = limit_try_read(&board->slot[slot], T0, &terms);
    const struct limit_top_list list = {LIMIT_TOP_TRY + (uint32_t)slot, 0};
    limit_try_add(&board->slot[slot], first, 3, &one);
    limit_try_add(&board->slot[slot], first, 4, &one);
    limit_top_note(&caller, list, 1, "x", 1, true, 1, T0);
    assert_int_equal(limit_top_read(table, list, LIMIT_TOP_REFUSED, &row, 1), 1);
    assert_int_equal(begin(7, T0 + 500, 1000), slot);
    const uint64_t second = limit_try_read(&board->slot[slot], T0 + 1200, &terms);
    assert_true(second > first);
    assert_int_equal(requests_of(slot), 0);
    assert_int_equal(limit_top_read(table, list, LIMIT_TOP_REFUSED, &row, 1), 0);
    /* a worker that is late counts for nobody, and then for the second */
    assert_false(limit_try_add(&board->slot[slot], first, 3, &one));
    assert_true(limit_try_add(&board->slot[slot], second, 3, &one));
    assert_int_equal(requests_of(slot), 1);
    /* keys of one are not those of the other, nor the limit's own */
    assert_int_not_equal(limit_try_key(table, first, 5), limit_try_key(table, second, 5));
    assert_int_not_equal(limit_try_key(table, first, 5), 5);
}

static void as_many_as_there_are_slots_run_at_once(void **state)
{
    (void)state;
    for (int i = 0; i < LIMIT_TRY_SLOTS; i++)
        assert_int_equal(begin(100 + (uint64_t)i, T0, 1000 + 100 * (uint64_t)(i ^ 5)), i);
    assert_int_equal(begin(200, T0 + 1, 1000), -EBUSY);
    assert_int_equal(begin(103, T0 + 1, 5000), 3);    /* in its own place */
    assert_int_equal(begin(200, T0 + 1100, 1000), 5); /* the first that is over */
    assert_int_equal(limit_try_find(board, 105), -1);
    assert_int_equal(limit_try_find(board, 200), 5);
}

/* Whoever is killed, what was counted stays; control begins new ones meanwhile. */
static void no_count_is_lost_when_workers_die(void **state)
{
    (void)state;
    _Atomic uint64_t *told = shared_memory(4096);
    const int slot = begin(7, T0, 1000000);
    struct limit_try_terms terms;
    const uint64_t run = limit_try_read(&board->slot[slot], T0, &terms);
    for (int round = 0; round < 100; round++) {
        const pid_t worker = fork();
        if (worker == 0)
            for (;;) {
                limit_try_add(&board->slot[slot], run, (uint32_t)round % 3, &one);
                atomic_fetch_add(told, 1);
            }
        const uint64_t before = atomic_load(told);
        while (atomic_load(told) < before + 1000)
            ;
        kill(worker, SIGKILL);
        waitpid(worker, NULL, 0);
    }
    /* counted, and killed before it told us: once a round at most */
    assert_in_range(requests_of(slot), atomic_load(told), atomic_load(told) + 100);
    munmap(told, 4096);
}

/* The terms are never a mixture of two tries, though who writes them dies. */
static void terms_are_whole(void **state)
{
    (void)state;
    struct limit_try_terms terms;
    for (int round = 0; round < 40; round++) {
        const pid_t control = fork();
        if (control == 0)
            for (uint32_t n = 1;; n++) {
                struct limit_try_terms t = terms_of(7, T0, 1000);
                t.candidate.requests = t.live.requests = n;
                memset(t.name, (int)(n % 100) + 1, sizeof t.name);
                limit_try_begin(board, table, &t);
            }
        for (int i = 0, seen = 0; seen < 300 && i < 1000000; i++) {
            if (!limit_try_read(&board->slot[0], T0, &terms))
                continue;
            seen++;
            assert_int_equal(terms.candidate.requests, terms.live.requests);
            for (size_t k = 0; k < sizeof terms.name; k++)
                assert_int_equal(terms.name[k], terms.live.requests % 100 + 1);
        }
        kill(control, SIGKILL);
        waitpid(control, NULL, 0);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(it_lasts_its_time_and_keeps_its_report),
        TEST(the_second_of_a_limit_replaces_the_first),
        TEST(as_many_as_there_are_slots_run_at_once),
        TEST(no_count_is_lost_when_workers_die),
        TEST(terms_are_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests in flight: never more than allowed, and nothing is left behind by the dead. */
#include "polder/limit.h"
#include "polder/proc.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "limit_rig.h"

#define ENTRIES 1024
#define WORKERS 4
#define MOST    3
#define KILLS   200

static struct limit_caller me;

static int setup(void **state)
{
    (void)state;
    table = shared_memory(limit_table_size(ENTRIES));
    limit_table_init(table, ENTRIES);
    proc = shared_memory(sizeof *proc);
    me = process_born(WORKERS);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap(table, limit_table_size(ENTRIES));
    munmap(proc, sizeof *proc);
    return 0;
}

static uint64_t key_of(uint64_t who)
{
    return limit_key(table, 1, &who, sizeof who);
}

/* How many of the key are under way: with room for one more, one more is let in. */
static uint32_t inside_of(const struct limit_caller *c, uint64_t key)
{
    uint32_t n = 0;
    while (n < 100 && !limit_enter(c, key, n + 1))
        n++;
    limit_leave(c, key);
    return n;
}

static void as_many_as_allowed_are_under_way_at_once(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(limit_enter(&me, key_of(1), MOST), i < MOST);
    assert_int_equal(inside_of(&me, key_of(1)), MOST);
    assert_true(limit_enter(&me, key_of(2), MOST)); /* somebody else */
    limit_leave(&me, key_of(1));
    assert_true(limit_enter(&me, key_of(1), MOST));
    assert_false(limit_enter(&me, key_of(1), MOST));
    assert_true(limit_enter(&me, key_of(1), MOST + 1)); /* the limit was raised */
    limit_leave(&me, key_of(1));
    assert_false(limit_enter(&me, key_of(1), 1)); /* and lowered */
    assert_false(limit_enter(&me, key_of(3), 0));
}

static void leaving_too_often_frees_no_place(void **state)
{
    (void)state;
    limit_leave(&me, key_of(1));
    assert_true(limit_enter(&me, key_of(1), 1));
    limit_leave(&me, key_of(1));
    limit_leave(&me, key_of(1));
    assert_int_equal(inside_of(&me, key_of(1)), 0);
    assert_true(limit_enter(&me, key_of(1), 1));
    assert_false(limit_enter(&me, key_of(1), 1));
}

static void thousands_of_keys_can_be_under_way(void **state)
{
    (void)state;
    struct limit_table_stats s;
    for (uint64_t k = 0; k < 5000; k++)
        assert_true(limit_enter(&me, key_of(k), 1));
    for (uint64_t k = 0; k < 5000; k++)
        assert_int_equal(inside_of(&me, key_of(k)), 1);
    uint64_t refused = 0;
    for (uint64_t k = 5000; k < 100000; k++)
        refused += !limit_enter(&me, key_of(k), 1);
    limit_table_stats(table, 0, &s);
    assert_int_equal(s.rows_full, refused);
    assert_true(refused > 60000); /* no room: refused, not forgotten */
    for (uint64_t k = 0; k < 100000; k++)
        limit_leave(&me, key_of(k));
    for (uint64_t k = 0; k < 5000; k++)
        assert_true(limit_enter(&me, key_of(k), 1));
}

static void the_sum_over_all_processes_counts(void **state)
{
    (void)state;
    const struct limit_caller other = process_born(0);
    assert_true(limit_enter(&other, key_of(1), MOST));
    assert_true(limit_enter(&me, key_of(1), MOST));
    assert_true(limit_enter(&other, key_of(1), MOST));
    assert_false(limit_enter(&me, key_of(1), MOST));
    assert_false(limit_enter(&other, key_of(1), MOST));
    limit_leave(&other, key_of(1));
    assert_true(limit_enter(&me, key_of(1), MOST));
}

static void what_a_dead_process_had_under_way_is_gone_with_it(void **state)
{
    (void)state;
    const struct limit_caller first = process_born(0);
    for (int i = 0; i < MOST; i++)
        assert_true(limit_enter(&first, key_of(1), MOST));
    assert_false(limit_enter(&me, key_of(1), MOST));
    process_died(0);
    assert_int_equal(inside_of(&me, key_of(1)), 0);
    assert_true(limit_enter(&me, key_of(1), MOST));
    const struct limit_caller second = process_born(0); /* inherits nothing either */
    limit_leave(&second, key_of(1));
    assert_int_equal(inside_of(&me, key_of(1)), 1);
    assert_true(limit_enter(&second, key_of(1), MOST));
    assert_true(limit_enter(&second, key_of(1), MOST));
    assert_false(limit_enter(&second, key_of(1), MOST));
}

/* ---- processes that are killed ---- */

struct storm {
    _Atomic uint64_t
        inside; /* 16 bits a process: 1 from after it has entered to before it leaves */
    _Atomic uint64_t entered, too_many;
};

static void storm_run(struct limit_caller caller, uint32_t n, struct storm *s)
{
    uint64_t i = 0;
    for (;; i++) {
        if (!limit_enter(&caller, key_of(i % 2), MOST))
            continue;
        if (i % 2 == 0) {
            const uint64_t mine = UINT64_C(1) << 16 * n;
            const uint64_t all = atomic_fetch_or(&s->inside, mine) | mine;
            atomic_fetch_add(&s->too_many, __builtin_popcountll(all) > MOST);
            atomic_fetch_add(&s->entered, 1);
            atomic_fetch_and(&s->inside, ~mine);
        }
        limit_leave(&caller, key_of(i % 2));
    }
}

static void never_too_many_while_processes_are_killed_and_nothing_leaks(void **state)
{
    (void)state;
    struct storm *s = shared_memory(sizeof *s);
    pid_t pid[WORKERS] = {0};
    for (uint32_t i = 0; i < KILLS; i++) {
        const uint32_t n = i % WORKERS;
        if (pid[n]) {
            kill(pid[n], SIGKILL);
            waitpid(pid[n], NULL, 0);
            atomic_fetch_and(&s->inside, ~(UINT64_C(1) << 16 * n));
            process_died(n);
        }
        const struct limit_caller caller = process_born(n);
        if ((pid[n] = fork()) == 0)
            storm_run(caller, n, s);
        atomic_store(&proc->slot[caller.slot].pid, (uint32_t)pid[n]);
        usleep(200 + i % 7 * 200);
    }
    for (uint32_t n = 0; n < WORKERS; n++) {
        kill(pid[n], SIGKILL);
        waitpid(pid[n], NULL, 0);
        process_died(n);
    }
    assert_int_equal(atomic_load(&s->too_many), 0);
    assert_true(atomic_load(&s->entered) > 1000);
    for (uint64_t k = 0; k < 2; k++) {
        assert_int_equal(inside_of(&me, key_of(k)), 0);
        for (uint32_t i = 0; i < 5; i++)
            assert_int_equal(limit_enter(&me, key_of(k), MOST), i < MOST);
    }
    munmap(s, sizeof *s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(as_many_as_allowed_are_under_way_at_once),
        TEST(leaving_too_often_frees_no_place),
        TEST(thousands_of_keys_can_be_under_way),
        TEST(the_sum_over_all_processes_counts),
        TEST(what_a_dead_process_had_under_way_is_gone_with_it),
        TEST(never_too_many_while_processes_are_killed_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

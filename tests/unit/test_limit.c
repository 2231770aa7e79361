/* SPDX-License-Identifier: BSD-2-Clause */
/* The limiter: what each algorithm admits, over several processes, while they are killed, when the
 * table is full. */
#include "polder/limit.h"
#include "polder/proc.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct proc_table *proc;

static void *share(size_t size)
{
    void *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(m, MAP_FAILED);
    return m;
}

static struct limit_caller open_table(size_t entries)
{
    struct limit_caller c = {.slot = PROC_SLOT_WORKER0, .incarnation = 1};
    c.table = share(limit_table_size(entries));
    limit_table_init(c.table, entries);
    proc = share(sizeof *proc);
    c.proc = proc;
    for (unsigned i = 0; i < PROC_SLOTS; i++)
        atomic_store(&proc->slot[i].state, PROC_READY);
    atomic_store(&proc->slot[c.slot].incarnation, 1);
    atomic_store(&proc->slot[c.slot].pid, (uint32_t)getpid());
    return c;
}

static void close_table(struct limit_caller *c, size_t entries)
{
    munmap(c->table, limit_table_size(entries));
    munmap(proc, sizeof *proc);
}

/* Forks a process with a slot of its own. */
static pid_t fork_caller(struct limit_caller *c, unsigned n)
{
    const uint32_t slot = PROC_SLOT_WORKER0 + 1 + n;
    const uint32_t incarnation = atomic_fetch_add(&proc->slot[slot].incarnation, 1) + 1;
    atomic_store(&proc->slot[slot].state, PROC_READY);
    const pid_t pid = fork();
    if (pid == 0) {
        atomic_store(&proc->slot[slot].pid, (uint32_t)getpid());
        c->slot = slot;
        c->incarnation = incarnation;
    } else {
        atomic_store(&proc->slot[slot].pid, (uint32_t)pid);
    }
    return pid;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool charge(const struct limit_caller *c, const struct runtime_limit *l, uint64_t who,
                   uint64_t now_ms, struct limit_verdict *v)
{
    struct limit_verdict own;
    const struct limit_charge one = {limit_key(c->table, 7, &who, sizeof who), l, 1};
    return limit_charge(c, &one, 1, now_ms, v ? v : &own);
}

static unsigned charge_many(const struct limit_caller *c, const struct runtime_limit *l,
                            uint64_t who, uint64_t now_ms, unsigned n)
{
    unsigned ok = 0;
    while (n--)
        ok += charge(c, l, who, now_ms, NULL);
    return ok;
}

static struct runtime_limit limit_of(enum runtime_algorithm a, uint32_t requests,
                                     uint64_t window_ms)
{
    return (struct runtime_limit){.requests = requests, .algorithm = a, .window_ms = window_ms};
}

#define T0 UINT64_C(1000000)

static void each_algorithm_admits_exactly_as_many_at_once(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    for (int a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++) {
        static const uint32_t counts[] = {0, 1, 20, 1000, 65535};
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            const struct runtime_limit l = limit_of((enum runtime_algorithm)a, counts[i], 60000);
            assert_int_equal(charge_many(&c, &l, (uint64_t)a * 100 + i, T0, counts[i] + 50),
                             counts[i]);
        }
    }
    close_table(&c, 1024);
}

static void four_billion_a_month_do_not_overflow(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    for (int a = RUNTIME_FIXED; a <= RUNTIME_GCRA; a++) {
        const struct runtime_limit l =
            limit_of((enum runtime_algorithm)a, UINT32_MAX, UINT64_C(2592000000));
        struct limit_charge big = {limit_key(c.table, 1, &a, sizeof a), &l, UINT32_MAX};
        struct limit_verdict v;
        assert_true(limit_charge(&c, &big, 1, T0, &v));
        assert_int_equal(v.remaining, 0);
        big.cost = 1;
        assert_false(limit_charge(&c, &big, 1, T0, &v));
        assert_true(v.retry_ms >= 1 && v.retry_ms <= UINT64_C(2592000000));
    }
    close_table(&c, 1024);
}

/* Who obeys retry_ms is admitted; a second earlier he is not. */
static void the_time_to_retry_is_true(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    for (int a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++)
        for (uint64_t start = T0; start < T0 + 60000; start += 7919) {
            const struct runtime_limit l = limit_of((enum runtime_algorithm)a, 5, 30000);
            struct limit_verdict v;
            const uint64_t who = (uint64_t)a << 40 | start;
            for (unsigned i = 0; i < 5; i++)
                if (!charge(&c, &l, who, start + i * 100, &v))
                    break;
            if (charge(&c, &l, who, start + 600, &v))
                continue; /* a fixed window began in between */
            assert_true(v.retry_ms > 0);
            struct limit_verdict early;
            if (v.retry_ms > 1000)
                assert_false(charge(&c, &l, who, start + 600 + v.retry_ms - 1000, &early));
            assert_true(charge(&c, &l, who, start + 600 + v.retry_ms, &early));
        }
    close_table(&c, 1024);
}

static void a_used_slot_is_free_again_between_one_and_one_point_two_windows_later(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    for (uint64_t start = T0; start < T0 + 1300; start += 13) {
        const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 1, 1000);
        assert_true(charge(&c, &l, start, start, NULL));
        uint64_t t = start;
        while (!charge(&c, &l, start, ++t, NULL))
            ;
        assert_in_range(t - start, 1000, 1200);
    }
    close_table(&c, 1024);
}

static void a_changed_limit_keeps_the_counts(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    for (int a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++) {
        struct runtime_limit l = limit_of((enum runtime_algorithm)a, 100, 60000);
        const uint64_t who = (uint64_t)a + 1;
        assert_int_equal(charge_many(&c, &l, who, T0, 300), 100);
        l.requests = 150;
        assert_int_equal(charge_many(&c, &l, who, T0, 300), 50);
        l.requests = 50;
        assert_int_equal(charge_many(&c, &l, who, T0, 300), 0);
        l.requests = 160;
        l.window_ms = 90000; /* other units: the counts are carried over */
        assert_int_equal(charge_many(&c, &l, who, T0, 300), 10);
        l.algorithm = (uint32_t)(a + 1) % 3;
        l.requests = 170;
        assert_int_equal(charge_many(&c, &l, who, T0, 300), 10);
    }
    close_table(&c, 1024);
}

static void several_limits_are_charged_all_or_none(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    const struct runtime_limit wide = limit_of(RUNTIME_SLIDING, 10, 60000),
                               narrow = limit_of(RUNTIME_FIXED, 3, 60000),
                               dry = {.requests = 1, .window_ms = 60000, .dry_run = 1};
    const struct limit_charge all[] = {{limit_key(c.table, 1, "a", 1), &wide, 1},
                                       {limit_key(c.table, 2, "a", 1), &narrow, 1},
                                       {limit_key(c.table, 3, "a", 1), &dry, 1}};
    struct limit_verdict v[3];
    unsigned ok = 0;
    for (int i = 0; i < 20; i++)
        ok += limit_charge(&c, all, 3, T0, v);
    assert_int_equal(ok, 3);
    assert_false(v[1].admitted);
    limit_peek(&c, &all[0], T0, &v[0]);
    assert_int_equal(v[0].remaining, 7);
    assert_true(limit_charge(&c, &all[2], 1, T0, v)); /* dry_run refuses nobody, and says so */
    assert_false(v[0].admitted);
    close_table(&c, 1024);
}

static void costs_are_charged_in_full(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 10, 60000);
    const struct limit_charge three = {limit_key(c.table, 1, "a", 1), &l, 3},
                              eleven = {limit_key(c.table, 1, "b", 1), &l, 11};
    struct limit_verdict v;
    unsigned ok = 0;
    for (int i = 0; i < 9; i++)
        ok += limit_charge(&c, &three, 1, T0, &v);
    assert_int_equal(ok, 3);
    assert_int_equal(v.remaining, 1);
    assert_false(limit_charge(&c, &eleven, 1, T0, &v));
    close_table(&c, 1024);
}

static void counts_can_be_forgotten(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 5, 60000);
    const uint64_t who = 9;
    assert_int_equal(charge_many(&c, &l, who, T0, 10), 5);
    assert_true(limit_reset_key(&c, limit_key(c.table, 7, &who, sizeof who)));
    assert_int_equal(charge_many(&c, &l, who, T0, 10), 5);
    limit_reset_all(c.table, 7);
    assert_int_equal(charge_many(&c, &l, who, T0, 10), 5);
    assert_false(limit_reset_key(&c, limit_key(c.table, 8, &who, sizeof who)));
    close_table(&c, 1024);
}

static void a_slower_clock_never_moves_a_window_back(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    for (int a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++) {
        const struct runtime_limit l = limit_of((enum runtime_algorithm)a, 10, 1000);
        const uint64_t who = (uint64_t)a + 50;
        assert_int_equal(charge_many(&c, &l, who, T0, 5), 5);
        assert_int_equal(charge_many(&c, &l, who, T0 - 5000, 10), 5);
        assert_int_equal(charge_many(&c, &l, who, T0, 10), 0);
    }
    close_table(&c, 1024);
}

static void a_flood_of_keys_frees_nobody(void **state)
{
    (void)state;
    struct limit_caller c = open_table(4096);
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 100, 60000);
    const uint64_t heavy = 1;
    assert_int_equal(charge_many(&c, &l, heavy, T0, 200), 100);
    unsigned extra = 0;
    for (uint64_t k = 1000; k < 1000 + 8 * 4096; k++) {
        charge(&c, &l, k, T0, NULL);
        if (k % 64 == 0)
            extra += charge(&c, &l, heavy, T0, NULL);
    }
    assert_int_equal(extra, 0);
    struct limit_table_stats stats;
    limit_table_stats(c.table, T0, &stats);
    assert_true(stats.evicted_live > 0);
    assert_true(stats.live <= stats.entries);
    close_table(&c, 4096);
}

static void idle_entries_are_used_again(void **state)
{
    (void)state;
    struct limit_caller c = open_table(1024);
    const struct runtime_limit l = limit_of(RUNTIME_GCRA, 3, 1000);
    struct limit_table_stats stats;
    for (uint64_t round = 0; round < 20; round++)
        for (uint64_t k = 0; k < 500; k++)
            assert_int_equal(charge_many(&c, &l, round << 32 | k, T0 + round * 5000, 5), 3);
    limit_table_stats(c.table, T0 + 200000, &stats);
    assert_int_equal(stats.evicted_live, 0);
    assert_int_equal(stats.live, 0);
    close_table(&c, 1024);
}

/* ---- processes ---- */

struct tally {
    _Atomic uint64_t admitted, done, n;
    uint64_t log[1 << 20];
};

static void processes_meeting_new_keys_admit_exactly_as_many(void **state)
{
    (void)state;
    enum { KEYS = 4000, LIMIT = 3 };
    struct limit_caller c = open_table(65536);
    struct tally *t = share(sizeof *t);
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, LIMIT, 3600000);
    for (unsigned p = 0; p < 4; p++)
        if (fork_caller(&c, p) == 0) {
            uint64_t ok = 0;
            for (uint64_t k = 0; k < KEYS; k++)
                ok += charge_many(&c, &l, k, T0, LIMIT);
            atomic_fetch_add(&t->admitted, ok);
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    assert_int_equal(atomic_load(&t->admitted), KEYS * LIMIT);
    munmap(t, sizeof *t);
    close_table(&c, 65536);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Four processes hammer one key by the real clock; no span of a window holds more than the limit
 * (for fixed: two, for gcra: what a burst and a refill give). */
static void no_window_holds_more_than_promised(void **state)
{
    (void)state;
    enum { LIMIT = 300, WINDOW = 150 };
    for (int a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++) {
        struct limit_caller c = open_table(1024);
        struct tally *t = share(sizeof *t);
        const struct runtime_limit l = limit_of((enum runtime_algorithm)a, LIMIT, WINDOW);
        for (unsigned p = 0; p < 4; p++)
            if (fork_caller(&c, p) == 0) {
                for (uint64_t at, end = now_ns() + 700000000; (at = now_ns()) < end;)
                    if (charge(&c, &l, 1, at / 1000000, NULL))
                        t->log[atomic_fetch_add(&t->n, 1)] = at / 1000000;
                _exit(0);
            }
        while (wait(NULL) > 0)
            ;
        uint64_t n = atomic_load(&t->n), most = 0;
        qsort(t->log, n, sizeof *t->log, by_value);
        for (uint64_t i = 0, j = 0; i < n; i++) {
            while (t->log[i] - t->log[j] >= WINDOW)
                j++;
            most = i - j + 1 > most ? i - j + 1 : most;
        }
        assert_true(n >= LIMIT);
        assert_true(most <= (a == RUNTIME_SLIDING ? LIMIT : 2 * LIMIT));
        munmap(t, sizeof *t);
        close_table(&c, 1024);
    }
}

static void the_limit_holds_whoever_is_killed(void **state)
{
    (void)state;
    enum { KEYS = 300, LIMIT = 40 };
    const int kills = getenv("POLDER_KILLS") ? atoi(getenv("POLDER_KILLS")) : 300;
    struct limit_caller c =
        open_table(256); /* far too small: entries are taken over all the time */
    struct tally *t = share(sizeof *t);
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, LIMIT, 3600000);
    pid_t pid[3] = {0};
    unsigned seed = 1;
    for (int i = 0; i < kills; i++) {
        const unsigned p = (unsigned)i % 3;
        if (pid[p]) {
            kill(pid[p], SIGKILL);
            waitpid(pid[p], NULL, 0);
        }
        pid[p] = fork_caller(&c, p);
        if (pid[p] == 0)
            for (uint64_t k = now_ns();; k = k * 6364136223846793005u + 1) {
                /* logged before: what a victim was admitted but could not log is at most one */
                if (charge(&c, &l, (k >> 33) % KEYS, T0, NULL))
                    atomic_fetch_add(&t->log[(k >> 33) % KEYS], 1);
            }
        const struct timespec nap = {0, 300000 + rand_r(&seed) % 1500000};
        nanosleep(&nap, NULL);
    }
    for (unsigned p = 0; p < 3; p++) {
        kill(pid[p], SIGKILL);
        waitpid(pid[p], NULL, 0);
    }
    for (uint64_t k = 0; k < KEYS; k++)
        if (t->log[k] > LIMIT)
            fail_msg("key %llu was admitted %llu times", (unsigned long long)k,
                     (unsigned long long)t->log[k]);
    /* and nothing is stuck: a new key still gets its own answer within the patience of a lock */
    uint64_t began = now_ns();
    for (uint64_t k = 0; k < KEYS; k++)
        charge(&c, &l, k, T0, NULL);
    assert_true(now_ns() - began < 2000000000u);
    munmap(t, sizeof *t);
    close_table(&c, 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_algorithm_admits_exactly_as_many_at_once),
        cmocka_unit_test(four_billion_a_month_do_not_overflow),
        cmocka_unit_test(the_time_to_retry_is_true),
        cmocka_unit_test(a_used_slot_is_free_again_between_one_and_one_point_two_windows_later),
        cmocka_unit_test(a_changed_limit_keeps_the_counts),
        cmocka_unit_test(several_limits_are_charged_all_or_none),
        cmocka_unit_test(costs_are_charged_in_full),
        cmocka_unit_test(counts_can_be_forgotten),
        cmocka_unit_test(a_slower_clock_never_moves_a_window_back),
        cmocka_unit_test(a_flood_of_keys_frees_nobody),
        cmocka_unit_test(idle_entries_are_used_again),
        cmocka_unit_test(processes_meeting_new_keys_admit_exactly_as_many),
        cmocka_unit_test(no_window_holds_more_than_promised),
        cmocka_unit_test(the_limit_holds_whoever_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

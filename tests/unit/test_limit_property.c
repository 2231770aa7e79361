/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Four processes send random schedules, some of them are killed, and what was
 * admitted is held against the promise of each algorithm.
 *
 * The clock is a shared number that the processes themselves push forward. Each
 * admitted request is logged with the clock as it was passed in and as it was
 * when the answer had come: the request was admitted somewhere between. More
 * than the promise must never lie with certainty in one span.
 */
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

#define PROCESSES 4
#define KEYS      6
#define CHECKS    40000 /* a process */
#define LOG_MAX   (2 * PROCESSES * CHECKS)
#define START     UINT64_C(777777)
#define ENTRIES   1024

struct admission {
    uint64_t before, after; /* the clock */
    uint32_t key;
    _Atomic uint32_t cost; /* written last; 0: its process was killed before */
};

struct world {
    _Atomic uint64_t clock;
    _Atomic uint64_t logged;
    struct admission log[LOG_MAX];
};

static struct world *world;

static int setup(void **state)
{
    (void)state;
    world = shared_memory(sizeof *world);
    table = shared_memory(limit_table_size(ENTRIES));
    proc = shared_memory(sizeof *proc);
    limit_table_init(table, ENTRIES);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap(world, sizeof *world);
    munmap(table, limit_table_size(ENTRIES));
    munmap(proc, sizeof *proc);
    return 0;
}

static uint64_t random_below(uint64_t *state, uint64_t n)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*state >> 33) % n;
}

/* ---- a process ---- */

static uint32_t cost_of(uint64_t *random, const struct runtime_limit *l)
{
    return random_below(random, 4) ? 1 : 1 + (uint32_t)random_below(random, l->requests);
}

/* Bursts, trickles and pauses, so that all parts of a window are filled and
 * emptied. */
static void clock_push(uint64_t *random, const struct runtime_limit *l)
{
    const uint64_t dice = random_below(random, 1000);
    const uint64_t step = dice == 0   ? random_below(random, 2 * l->window_ms)
                          : dice < 4  ? random_below(random, l->window_ms / 4)
                          : dice < 80 ? random_below(random, l->window_ms / 50 + 2)
                                      : 0;
    if (step)
        atomic_fetch_add(&world->clock, step);
}

static void admission_log(uint32_t key, uint32_t cost, uint64_t before)
{
    struct admission *a = &world->log[atomic_fetch_add(&world->logged, 1)];
    a->before = before;
    a->after = atomic_load(&world->clock);
    a->key = key;
    atomic_store(&a->cost, cost);
}

/* l[0] for each key; l[1], where there is one, for all even and all odd keys
 * together. */
static void process_run(const struct limit_caller *caller, const struct runtime_limit *l, size_t n,
                        uint64_t seed)
{
    uint64_t random = seed;
    for (uint32_t i = 0; i < CHECKS; i++) {
        const uint32_t key[2] = {(uint32_t)random_below(&random, KEYS), KEYS + i % 2};
        const uint32_t cost = cost_of(&random, l);
        struct limit_charge charge[2];
        struct limit_verdict verdict[2];
        for (size_t k = 0; k < n; k++)
            charge[k] = (struct limit_charge){
                .key = limit_key(table, 1, &key[k], sizeof key[k]), .limit = &l[k], .cost = cost};
        const uint64_t before = atomic_load(&world->clock);
        if (random_below(&random, 500) == 0)
            usleep(50); /* its clock is old when it comes to charge */
        if (limit_charge(caller, charge, n, before, verdict))
            for (size_t k = 0; k < n; k++)
                admission_log(key[k], cost, before);
        clock_push(&random, l);
    }
}

static void processes_run(const struct runtime_limit *l, size_t limits, uint64_t seed, bool kills)
{
    pid_t pid[PROCESSES];
    atomic_store(&world->clock, START);
    atomic_store(&world->logged, 0);
    memset(world->log, 0, sizeof world->log);
    limit_reset_all(table, 1);
    for (uint32_t n = 0; n < PROCESSES; n++) {
        struct proc_slot *s = &proc->slot[PROC_SLOT_WORKER0 + n];
        const uint32_t incarnation = atomic_load(&s->incarnation) + 1;
        const struct limit_caller caller = {table, proc, PROC_SLOT_WORKER0 + n, incarnation};
        atomic_store(&s->incarnation, incarnation);
        atomic_store(&s->state, PROC_READY);
        if ((pid[n] = fork()) == 0) {
            process_run(&caller, l, limits, seed + n * 1000003);
            _exit(0);
        }
        atomic_store(&s->pid, (uint32_t)pid[n]);
    }
    if (kills) {
        usleep(1000 + (useconds_t)(seed % 3000));
        kill(pid[0], SIGKILL);
        usleep((useconds_t)(seed % 5000));
        kill(pid[1], SIGKILL);
    }
    for (uint32_t n = 0; n < PROCESSES; n++) {
        waitpid(pid[n], NULL, 0);
        atomic_store(&proc->slot[PROC_SLOT_WORKER0 + n].state, PROC_DEAD);
        atomic_store(&proc->slot[PROC_SLOT_WORKER0 + n].pid, 0);
    }
}

/* ---- the reference ---- */

static int by_key_and_time(const void *a, const void *b)
{
    const struct admission *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->before < y->before ? -1 : x->before > y->before;
}

/* Most that lies with certainty in a span of length ms that begins with
 * log[from]. */
static uint64_t in_span(const struct admission *log, size_t n, size_t from, uint64_t length)
{
    uint64_t sum = 0;
    for (size_t i = from; i < n && log[i].before - log[from].before < length; i++)
        if (log[i].after - log[from].before < length)
            sum += log[i].cost;
    return sum;
}

static void check_sliding(const struct admission *log, size_t n, const struct runtime_limit *l)
{
    for (size_t from = 0; from < n; from++)
        assert_true(in_span(log, n, from, l->window_ms) <= l->requests);
}

static void check_fixed(const struct admission *log, size_t n, const struct runtime_limit *l)
{
    uint64_t sum = 0, window = 0;
    for (size_t i = 0; i < n; i++) {
        if (log[i].before / l->window_ms != window)
            sum = 0;
        window = log[i].before / l->window_ms;
        if (log[i].after / l->window_ms == window)
            sum += log[i].cost;
        assert_true(sum <= l->requests);
    }
}

/* In any span: a burst, and what is refilled in it. */
static void check_gcra(const struct admission *log, size_t n, const struct runtime_limit *l)
{
    for (size_t from = 0; from < n; from++) {
        uint64_t sum = 0, latest = 0;
        for (size_t i = from; i < n && i < from + 400; i++) {
            sum += log[i].cost;
            latest = log[i].after > latest ? log[i].after : latest;
            const uint64_t span = latest - log[from].before;
            assert_true(sum * l->window_ms <= l->requests * (l->window_ms + span));
        }
    }
}

static void check_one(const struct admission *log, size_t n, const struct runtime_limit *l)
{
    if (l->algorithm == RUNTIME_SLIDING)
        check_sliding(log, n, l);
    else if (l->algorithm == RUNTIME_FIXED)
        check_fixed(log, n, l);
    else
        check_gcra(log, n, l);
}

static void check(const struct runtime_limit *l)
{
    size_t n = 0;
    for (size_t i = 0; i < atomic_load(&world->logged); i++)
        if (world->log[i].cost)
            world->log[n++] = world->log[i];
    qsort(world->log, n, sizeof world->log[0], by_key_and_time);
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from; to < n && world->log[to].key == world->log[from].key; to++)
            ;
        check_one(&world->log[from], to - from, &l[world->log[from].key >= KEYS]);
    }
}

/* The other side of the promise: quota is not lost either. A key that is asked
 * for all the time gets its requests in each 1.2 windows (sliding), or each
 * window. */
static void check_plenty(const struct runtime_limit *l)
{
    const uint64_t passed = atomic_load(&world->clock) - START;
    const uint64_t rounds = passed / (l->window_ms * 12 / 10 + 6);
    uint64_t sum = 0;
    for (size_t i = 0; i < atomic_load(&world->logged); i++)
        sum += world->log[i].cost;
    assert_true(rounds > 20);
    assert_true(sum > KEYS * l->requests * rounds / 2); /* there are pauses of up to two windows */
}

static void algorithm_holds(enum runtime_algorithm algorithm)
{
    const uint64_t windows[] = {100, 1000, 60000, 101};
    for (uint64_t round = 0; round < 8; round++) {
        const struct runtime_limit l = {.requests = (uint32_t)(1 + round * 7),
                                        .algorithm = algorithm,
                                        .window_ms = windows[round % 4]};
        processes_run(&l, 1, round * 7919 + algorithm, round >= 4);
        if (round < 4)
            check_plenty(&l);
        check(&l);
    }
}

static void in_no_span_of_a_window_are_more_than_requests_admitted(void **state)
{
    (void)state;
    algorithm_holds(RUNTIME_SLIDING);
}

static void in_no_aligned_window_are_more_than_requests_admitted(void **state)
{
    (void)state;
    algorithm_holds(RUNTIME_FIXED);
}

static void in_no_span_is_more_than_a_burst_and_its_refill_admitted(void **state)
{
    (void)state;
    algorithm_holds(RUNTIME_GCRA);
}

/* Two limits of any kind on each request, now the one and now the other the
 * narrower. */
static void several_limits_hold_at_once(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 12; round++) {
        const struct runtime_limit l[2] = {
            {.requests = 4 + round % 5, .algorithm = round % 3, .window_ms = 1000},
            {.requests = 6 + round * 2,
             .algorithm = round / 3 % 3,
             .window_ms = 500 + round * 100}};
        processes_run(l, 2, round * 104729, round % 4 == 3);
        assert_true(atomic_load(&world->logged) > 100);
        check(l);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(in_no_span_of_a_window_are_more_than_requests_admitted),
        TEST(in_no_aligned_window_are_more_than_requests_admitted),
        TEST(in_no_span_is_more_than_a_burst_and_its_refill_admitted),
        TEST(several_limits_hold_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

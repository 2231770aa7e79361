/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a limiter check costs: one hot key, a million live keys, one and two processes, and while
 * somebody floods the table with eight times as many new keys as it holds. CPU time; no clock call
 * is in it: the time is passed in, as in a worker.
 *
 * usage: bench_limit [checks]
 */
#include "polder/config_keys.h"
#include "polder/limit.h"
#include "polder/proc.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS       1000000
#define PROCESSES  2
#define START_MS   UINT64_C(3600000)
#define HOT_CHECKS 20 /* times as many for one key */

static struct limit_table *table;
static struct proc_table *proc;
static uint64_t *ns_of; /* [PROCESSES] ns of all checks of a process */
static uint64_t checks = 2000000;

static void *shared_memory(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

static struct limit_caller caller_of(uint32_t n)
{
    return (struct limit_caller){table, proc, PROC_SLOT_WORKER0 + n, 1};
}

/* Of this process only: other work on the machine should not count. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

/* As good as limit_key(), without memory to look it up in. */
static uint64_t key_of(uint64_t client)
{
    uint64_t x = (client + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void table_new(size_t entries)
{
    if (table)
        munmap(table, limit_table_size(entries));
    table = shared_memory(limit_table_size(entries));
    limit_table_init(table, entries);
}

static void checks_run(uint32_t process, const struct runtime_limit *limit, uint64_t n_keys,
                       uint64_t n)
{
    const struct limit_caller caller = caller_of(process);
    struct limit_charge charge = {.limit = limit, .cost = 1};
    struct limit_verdict verdict;
    uint64_t random = process + 1;
    const uint64_t start_ns = cpu_ns();
    for (uint64_t i = 0; i < n; i++) {
        charge.key = key_of(n_keys == 1 ? 0 : random_next(&random) % n_keys);
        limit_charge(&caller, &charge, 1, START_MS + (i >> 9), &verdict);
    }
    ns_of[process] = cpu_ns() - start_ns;
}

/* ns a check, as each of `processes` that run at once sees it */
static double measure(unsigned processes, const struct runtime_limit *limit, uint64_t n_keys)
{
    const uint64_t n = n_keys == 1 ? checks * HOT_CHECKS : checks;
    uint64_t sum = 0;
    for (unsigned p = 0; p < processes; p++)
        if (fork() == 0) {
            checks_run(p, limit, n_keys, n);
            _exit(0);
        }
    for (unsigned p = 0; p < processes; p++)
        wait(NULL);
    for (unsigned p = 0; p < processes; p++)
        sum += ns_of[p];
    return (double)sum / processes / (double)n;
}

static void fill(const struct runtime_limit *limit)
{
    const struct limit_caller caller = caller_of(0);
    struct limit_verdict verdict;
    for (uint64_t i = 0; i < KEYS; i++) {
        const struct limit_charge charge = {.key = key_of(i), .limit = limit, .cost = 1};
        limit_charge(&caller, &charge, 1, START_MS, &verdict);
    }
}

static void bench_algorithm(enum runtime_algorithm algorithm)
{
    const struct runtime_limit limit = {
        .requests = 60000, .algorithm = algorithm, .window_ms = 60000};
    /* 512 checks a millisecond: all are admitted, or none but one a minute */
    const struct runtime_limit hot = {.requests = 65535, .algorithm = algorithm, .window_ms = 100};
    const struct runtime_limit full = {.requests = 1, .algorithm = algorithm, .window_ms = 60000};
    table_new(LIMIT_ENTRIES_DEFAULT);
    printf("%-8s one key        %6.1f ns\n",
           config_word(&config_rows[CONFIG_LIMIT_algorithm], algorithm), measure(1, &hot, 1));
    printf("%-8s one key, full  %6.1f ns\n", "", measure(1, &full, 1));
    printf("%-8s one key        %6.1f ns  two processes\n", "", measure(2, &hot, 1));
    fill(&limit);
    measure(1, &limit, KEYS); /* pages of the table, once a process */
    printf("%-8s 1 M keys       %6.1f ns\n", "", measure(1, &limit, KEYS));
    printf("%-8s 1 M keys       %6.1f ns  two processes\n", "", measure(2, &limit, KEYS));
}

#define KNOWN_COUNTS 40 /* of each known client: more than a newcomer inherits from the others */

/* ns for each of n new keys; known: with a check of a known client behind it. */
static double flood_run(const struct runtime_limit *limit, uint64_t *next, uint64_t n, bool known)
{
    const struct limit_caller caller = caller_of(0);
    struct limit_charge charge = {.limit = limit, .cost = 1};
    struct limit_verdict verdict;
    uint64_t random = *next;
    const uint64_t start_ns = cpu_ns();
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t who = (*next)++;
        charge.key = limit_key(table, 1, &who, sizeof who);
        limit_charge(&caller, &charge, 1, START_MS, &verdict);
        if (known) {
            charge.key = key_of(random_next(&random) % KEYS);
            limit_charge(&caller, &charge, 1, START_MS, &verdict);
        }
    }
    return (double)(cpu_ns() - start_ns) / (double)n;
}

static void bench_flood(void)
{
    const struct runtime_limit limit = {
        .requests = 1000, .algorithm = RUNTIME_SLIDING, .window_ms = 600000};
    const struct limit_caller caller = caller_of(0);
    struct limit_charge heavy = {.key = key_of(KEYS), .limit = &limit, .cost = 1};
    struct limit_verdict verdict;
    struct limit_table_stats stats;
    uint64_t next = (uint64_t)1 << 40, washed = 0;
    table_new(LIMIT_ENTRIES_DEFAULT);
    for (unsigned i = 0; i < KNOWN_COUNTS; i++)
        fill(&limit);
    while (limit_charge(&caller, &heavy, 1, START_MS, &verdict))
        ;
    const double calm_ns = measure(1, &limit, KEYS);
    const double new_ns = flood_run(&limit, &next, 8 * LIMIT_ENTRIES_DEFAULT, false);
    const double alone_ns = flood_run(&limit, &next, KEYS, false);
    const double known_ns = flood_run(&limit, &next, KEYS, true) - alone_ns;
    for (unsigned i = 0; i < 1000; i++)
        washed += limit_charge(&caller, &heavy, 1, START_MS, &verdict);
    limit_table_stats(table, START_MS, &stats);
    printf("flood    a known client %6.1f ns  before it\n", calm_ns);
    printf("         a known client %6.1f ns  in it, %.1f times\n", known_ns, known_ns / calm_ns);
    printf("         a new key      %6.1f ns  (hashed; an entry made or taken over)\n", new_ns);
    printf("         a client at its limit was admitted %llu times; %llu live entries inherited\n",
           (unsigned long long)washed, (unsigned long long)stats.evicted_live);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        checks = strtoull(argv[1], NULL, 10);
    proc = shared_memory(sizeof *proc);
    ns_of = shared_memory(PROCESSES * sizeof *ns_of);
    for (unsigned p = 0; p < PROCESSES; p++) {
        atomic_store(&proc->slot[PROC_SLOT_WORKER0 + p].incarnation, 1);
        atomic_store(&proc->slot[PROC_SLOT_WORKER0 + p].state, PROC_READY);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++)
        bench_algorithm((enum runtime_algorithm)a);
    bench_flood();
    return 0;
}

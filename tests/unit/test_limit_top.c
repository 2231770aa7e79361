/* SPDX-License-Identifier: BSD-2-Clause */
/* The heaviest clients are found among many, whichever process serves them. */
#include "polder/limit_top.h"
#include "polder/proc.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define T0 UINT64_C(1000000)

static struct limit_table *table;

static int setup(void **state)
{
    (void)state;
    table = mmap(NULL, limit_table_size(1024), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                 -1, 0);
    assert_ptr_not_equal(table, MAP_FAILED);
    limit_table_init(table, 1024);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap(table, limit_table_size(1024));
    return 0;
}

static struct limit_top_list list_at(uint32_t place)
{
    return (struct limit_top_list){place, 1000 + place};
}

static struct limit_caller caller_of(uint32_t n, uint32_t incarnation)
{
    return (struct limit_caller){table, NULL, PROC_SLOT_WORKER0 + n, incarnation};
}

static void note(const struct limit_caller *c, uint32_t limit, uint64_t client, bool refused,
                 uint64_t now)
{
    char who[24];
    const int n = snprintf(who, sizeof who, "client %llu", (unsigned long long)client);
    limit_top_note(c, list_at(limit), client + 1, who, (size_t)n, refused, 1, now);
}

static void each_is_counted_while_there_are_few_and_then_one_in_sixteen_for_all(void **state)
{
    (void)state;
    struct limit_top_sampler s = {0};
    uint64_t due = 0, in_step = 0, counted = 0;
    for (uint32_t i = 0; i < LIMIT_TOP_EXACT; i++) {
        assert_true(limit_top_due(&s));
        assert_int_equal(s.weight, 1);
    }
    for (uint32_t i = 0; i < 1600000; i++)
        if (limit_top_due(&s)) {
            due++;
            counted += s.weight;
            in_step += i % 16 == 3; /* one who sends every sixteenth request */
        }
    assert_in_range(due, 97000, 103000);
    assert_in_range(counted, 1560000, 1640000);
    assert_in_range(in_step, due / 16 - 700, due / 16 + 700);
    limit_top_refill(&s); /* a second later */
    counted = 0;
    for (uint32_t i = 0; i < 2 * LIMIT_TOP_SAMPLE + LIMIT_TOP_EXACT / 2; i++)
        counted += limit_top_due(&s) && s.weight == 1;
    assert_true(counted >= LIMIT_TOP_EXACT / 2);
}

static void heavy_clients_stand_out_of_a_crowd_over_all_processes(void **state)
{
    (void)state;
    struct limit_top_row rows[5];
    for (uint64_t i = 0; i < 40000; i++) {
        const struct limit_caller c = caller_of((uint32_t)(i % 4), 1);
        const uint64_t client = i % 10 == 0 ? 7 : i % 20 == 1 ? 8 : 100 + i;
        note(&c, 3, client, client == 8, T0);
    }
    assert_int_equal(limit_top_read(table, list_at(3), LIMIT_TOP_HEAVIEST, rows, 5), 5);
    assert_int_equal(rows[0].key, 8);
    assert_in_range(rows[0].requests, 4000, 4000 + rows[0].error);
    assert_int_equal(rows[0].who_len, 8);
    assert_memory_equal(rows[0].who, "client 7", 8);
    assert_int_equal(rows[1].key, 9);
    assert_int_equal(limit_top_read(table, list_at(3), LIMIT_TOP_REFUSED, rows, 5), 1);
    assert_int_equal(rows[0].key, 9);
    assert_int_equal(rows[0].requests, 2000);
    assert_int_equal(rows[0].error, 0);
    assert_int_equal(limit_top_read(table, list_at(4), LIMIT_TOP_HEAVIEST, rows, 5),
                     0); /* another limit */
}

static void what_was_long_ago_is_forgotten(void **state)
{
    (void)state;
    const struct limit_caller c = caller_of(0, 1);
    struct limit_top_row rows[2];
    for (int i = 0; i < 1000; i++)
        note(&c, 0, 1, false, T0);
    for (int i = 0; i < 600; i++)
        note(&c, 0, 2, false, T0 + 60000);
    assert_int_equal(limit_top_read(table, list_at(0), LIMIT_TOP_HEAVIEST, rows, 2), 2);
    assert_int_equal(rows[0].key, 3);
    assert_int_equal(rows[1].requests, 500);
    note(&c, 0, 2, false, T0 + 100000000);
    assert_int_equal(limit_top_read(table, list_at(0), LIMIT_TOP_HEAVIEST, rows, 2), 1);
    assert_int_equal(rows[0].requests, 1);
}

static void a_limit_can_be_emptied(void **state)
{
    (void)state;
    const struct limit_caller c = caller_of(0, 1);
    struct limit_top_row rows[2];
    note(&c, 0, 1, true, T0);
    note(&c, 1, 1, true, T0);
    limit_top_forget(table, 0);
    assert_int_equal(limit_top_read(table, list_at(0), LIMIT_TOP_HEAVIEST, rows, 2), 0);
    assert_int_equal(limit_top_read(table, list_at(1), LIMIT_TOP_REFUSED, rows, 2), 1);
    note(&c, 0, 2, false, T0);
    assert_int_equal(limit_top_read(table, list_at(0), LIMIT_TOP_HEAVIEST, rows, 2), 1);
    assert_int_equal(rows[0].key, 3);
}

/* A reload gives numbers anew, and workers of both configurations are at work for a while. */
static void a_place_that_another_limit_has_now_tells_nothing_of_the_first(void **state)
{
    (void)state;
    const struct limit_caller old = caller_of(0, 1), new = caller_of(1, 1);
    const struct limit_top_list first = {0, 77}, second = {0, 78};
    struct limit_top_row rows[2];
    limit_top_note(&old, first, 1, "secret", 6, true, 1, T0);
    limit_top_note(&new, second, 2, "other", 5, true, 1, T0);
    limit_top_note(&old, first, 1, "secret", 6, true, 1, T0);
    for (int by = 0; by < 2; by++) {
        assert_int_equal(limit_top_read(table, second, (enum limit_top_by)by, rows, 2), 1);
        assert_int_equal(rows[0].key, 2);
        assert_int_equal(limit_top_read(table, first, (enum limit_top_by)by, rows, 2), 1);
        assert_int_equal(rows[0].key, 1);
    }
    const struct limit_caller successor = caller_of(0, 2); /* a worker is respawned */
    limit_top_note(&successor, second, 3, "third", 5, false, 1, T0);
    assert_int_equal(limit_top_read(table, first, LIMIT_TOP_HEAVIEST, rows, 2), 0);
    assert_int_equal(limit_top_read(table, second, LIMIT_TOP_HEAVIEST, rows, 2), 2);
}

static void long_names_are_cut_and_wrong_numbers_ignored(void **state)
{
    (void)state;
    struct limit_caller c = caller_of(0, 1);
    struct limit_top_row rows[2];
    char who[1000];
    memset(who, 'x', sizeof who);
    limit_top_note(&c, list_at(0), 1, who, sizeof who, false, 1, T0);
    limit_top_note(&c, list_at(LIMIT_TOP_LISTS), 1, who, sizeof who, false, 1, T0);
    c.slot = PROC_SLOTS;
    limit_top_note(&c, list_at(0), 1, who, sizeof who, false, 1, T0);
    assert_int_equal(limit_top_read(table, list_at(0), LIMIT_TOP_HEAVIEST, rows, 2), 1);
    assert_int_equal(rows[0].who_len, 1000);
    assert_memory_equal(rows[0].who, who, LIMIT_TOP_WHO);
    assert_int_equal(limit_top_read(table, list_at(LIMIT_TOP_LISTS), LIMIT_TOP_HEAVIEST, rows, 2),
                     0);
    limit_top_forget(table, LIMIT_TOP_LISTS);
}

/* Names and keys always belong together, and a row that a killed process left open is not shown. */
static void readers_see_whole_rows_while_writers_are_killed(void **state)
{
    (void)state;
    struct limit_top_row rows[64];
    size_t seen = 0;
    for (uint32_t round = 1; round <= 60; round++) {
        const pid_t pid = fork();
        if (pid == 0)
            for (uint64_t i = 0;; i++) {
                const struct limit_caller c = caller_of(0, round);
                note(&c, 0, i * 2654435761u % 1000003, i % 2, T0);
            }
        /* until the writer is well under way, however long it takes to begin */
        for (int i = 0; seen < 620 * round && i < 1000000; i++) {
            const size_t n =
                limit_top_read(table, list_at(0), (enum limit_top_by)(i % 2), rows, 64);
            for (size_t r = 0; r < n; r++) {
                char who[LIMIT_TOP_WHO] = "";
                const int len =
                    snprintf(who, sizeof who, "client %llu", (unsigned long long)rows[r].key - 1);
                assert_int_equal(rows[r].who_len, len);
                assert_memory_equal(rows[r].who, who, (size_t)len);
            }
            seen += n;
        }
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    assert_true(seen >= 620 * 60);
    const struct limit_caller successor = caller_of(0, 1000); /* mends what was left open */
    note(&successor, 0, 5, true, T0);
    assert_in_range(limit_top_read(table, list_at(0), LIMIT_TOP_HEAVIEST, rows, 64), 31, 32);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_is_counted_while_there_are_few_and_then_one_in_sixteen_for_all),
        TEST(heavy_clients_stand_out_of_a_crowd_over_all_processes),
        TEST(what_was_long_ago_is_forgotten),
        TEST(a_limit_can_be_emptied),
        TEST(a_place_that_another_limit_has_now_tells_nothing_of_the_first),
        TEST(long_names_are_cut_and_wrong_numbers_ignored),
        TEST(readers_see_whole_rows_while_writers_are_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

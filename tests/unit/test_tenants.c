/* SPDX-License-Identifier: BSD-2-Clause */
/* Tenants: a row each for the first thousand, whatever their names are and whoever dies. */
#include "polder/tenants.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others: it wants them */
#include <cmocka.h>

#define BY 7

static struct tenants_page *page;
static struct tenant out[TENANTS_ROWS + 1];

static int set_up(void **state)
{
    (void)state;
    page =
        mmap(NULL, tenants_page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    munmap(page, tenants_page_size());
    return 0;
}

static uint32_t row(const char *name)
{
    return tenants_row(page, BY, (struct str){name, strlen(name)}, false);
}

static void add(uint32_t slot, const char *name, enum tenants_count what)
{
    tenants_add(page, slot, row(name), what);
}

static const struct tenant *tenant(const char *name)
{
    const size_t n = tenants_read(page, out);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(out[i].name, name))
            return &out[i];
    return NULL;
}

static void each_has_a_row_that_all_processes_count_in(void **state)
{
    (void)state;
    assert_int_equal(row("acme"), TENANTS_NONE); /* nobody is to be counted */
    assert_int_equal(tenants_read(page, out), 0);
    tenants_begin(page, BY);
    assert_int_equal(row(""), TENANTS_NONE);
    assert_int_equal(tenants_row(page, BY + 1, (struct str){"acme", 4}, false), TENANTS_NONE);
    const uint32_t acme = row("acme");
    assert_true(acme < TENANTS_ROWS);
    assert_int_equal(row("acme"), acme);
    assert_int_not_equal(row("other inc"), acme);
    assert_null(tenant("acme")); /* nothing was counted */
    add(4, "acme", TENANTS_CALLS);
    add(5, "acme", TENANTS_CALLS);
    add(5, "acme", TENANTS_HITS);
    add(5, "other inc", TENANTS_REFUSED);
    tenants_add(page, 5, TENANTS_NONE, TENANTS_CALLS);
    tenants_add(page, PROC_SLOTS, acme, TENANTS_CALLS);
    assert_int_equal(tenant("acme")->count[TENANTS_CALLS], 2);
    assert_int_equal(tenant("acme")->count[TENANTS_HITS], 1);
    assert_int_equal(tenant("other inc")->count[TENANTS_REFUSED], 1);
    tenants_begin(page, BY); /* a reload that changes nothing */
    assert_non_null(tenant("acme"));
    tenants_begin(page, BY + 1);
    assert_int_equal(tenants_read(page, out), 0);
    assert_int_equal(row("acme"), TENANTS_NONE); /* a worker of the old configuration */
}

static void what_comes_behind_the_thousandth_is_other(void **state)
{
    char name[32];
    unsigned rows = 0;
    (void)state;
    tenants_begin(page, BY);
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(name, sizeof name, "made up %u", i);
        rows += row(name) != TENANTS_OTHER;
        tenants_add(page, 4, row(name), TENANTS_CALLS);
    }
    assert_in_range(rows, TENANTS_MAX - 50, TENANTS_MAX);
    const size_t n = tenants_read(page, out);
    assert_int_equal(n, rows + 1);
    assert_int_equal(out[n - 1].row, TENANTS_OTHER);
    assert_int_equal(out[n - 1].count[TENANTS_CALLS], 100000 - rows);
    add(4, "made up 3", TENANTS_CALLS); /* keeps its row */
    assert_int_equal(tenant("made up 3")->count[TENANTS_CALLS], 2);
}

static void names_are_bounded_and_printable(void **state)
{
    char name[5000];
    (void)state;
    tenants_begin(page, BY);
    memset(name, 'x', sizeof name);
    tenants_add(page, 4, tenants_row(page, BY, (struct str){name, sizeof name}, false),
                TENANTS_CALLS);
    name[4999] = 'y'; /* another one that looks the same */
    tenants_add(page, 4, tenants_row(page, BY, (struct str){name, sizeof name}, false),
                TENANTS_CALLS);
    assert_int_equal(tenants_read(page, out), 2);
    assert_int_equal(strlen(out[0].name), TENANTS_NAME - 1);
    add(4, "\x1b[2J\"\n\xff", TENANTS_CALLS);
    assert_non_null(tenant("?[2J\"??"));
    const struct str key = {"abcds3cret", 10};
    tenants_add(page, 4, tenants_row(page, BY, key, true), TENANTS_CALLS);
    const size_t n = tenants_read(page, out);
    unsigned masked = 0;
    for (size_t i = 0; i < n; i++) {
        assert_null(strstr(out[i].name, "s3cret"));
        masked += !strncmp(out[i].name, "abcd~", 5);
    }
    assert_int_equal(masked, 1);
}

/* Many processes claim rows and are killed at any line: at most a place is lost, until control
 * counts again. */
static void killed_workers_lose_no_place_for_long(void **state)
{
    char name[32];
    (void)state;
    tenants_begin(page, BY);
    for (unsigned round = 0; round < 30; round++) {
        const pid_t pid = fork();
        if (pid == 0)
            for (unsigned i = 0;; i++) {
                snprintf(name, sizeof name, "tenant %u", i % (30 * (round + 1)));
                tenants_add(page, 4, row(name), TENANTS_CALLS);
            }
        usleep(2000);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    tenants_recount(page);
    for (unsigned i = 0; i < 900; i++) {
        snprintf(name, sizeof name, "tenant %u", i);
        assert_true(row(name) < TENANTS_ROWS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_has_a_row_that_all_processes_count_in, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_comes_behind_the_thousandth_is_other, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(names_are_bounded_and_printable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(killed_workers_lose_no_place_for_long, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

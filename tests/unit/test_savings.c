/* SPDX-License-Identifier: BSD-2-Clause */
/* A month from the last day is what the history has of that day. */
#include "daemons/control/control.h"
#include "daemons/control/model/savings.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/history.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
/* after the others: it wants them */
#include <cmocka.h>

struct rig {
    struct control control;
    struct shared shared;
    struct config config;
};

static void *zeroed(size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    return at;
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    r->shared.proc = zeroed(sizeof *r->shared.proc);
    r->shared.stats = zeroed(sizeof(struct stats_slab) * PROC_SLOTS);
    r->shared.history = zeroed(sizeof *r->shared.history);
    r->config.cost = (struct config_cost){"EUR", 0.5, 1};
    r->control.shared = &r->shared;
    r->control.config = &r->config;
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    munmap(r->shared.proc, sizeof *r->shared.proc);
    munmap(r->shared.stats, sizeof(struct stats_slab) * PROC_SLOTS);
    munmap(r->shared.history, sizeof *r->shared.history);
    free(r);
    return 0;
}

/* n samples of ten seconds up to then, each of so much money an hour. */
static void remember_until(struct rig *r, uint64_t until_s, unsigned n, float cost, float caching)
{
    float values[HISTORY_WIDTH];
    for (size_t i = 0; i < HISTORY_WIDTH; i++)
        values[i] = NAN;
    values[HISTORY_COST] = cost;
    values[HISTORY_SAVINGS_CACHING] = caching;
    for (unsigned i = n; i-- > 0;)
        history_put(r->shared.history, HISTORY_COARSE, until_s - 10 * i, values);
}

static void remember(struct rig *r, unsigned n, float cost, float caching)
{
    remember_until(r, clock_real_ms() / 10000 * 10, n, cost, caching);
}

static void a_month_from_the_last_day_needs_an_hour_of_it(void **state)
{
    struct rig *r = *state;
    const struct peers_leaked nobody = {.hours = -1};
    struct savings s;
    savings_find(&r->control, &nobody, &s);
    assert_null(s.month[SAVINGS_LAST_DAY].name);
    remember(r, 300, 2, 3);
    savings_find(&r->control, &nobody, &s);
    assert_null(s.month[SAVINGS_LAST_DAY].name);

    remember(r, 400, 2, 3);
    r->control.savings_day = (struct savings_day){0}; /* as a new control begins */
    savings_find(&r->control, &nobody, &s);
    const struct savings_month *day = &s.month[SAVINGS_LAST_DAY];
    assert_string_equal(day->name, "last day");
    assert_true(fabs(day->seconds - 4000) < 20);
    assert_true(fabs(day->money.estimated - 2 * 720) < 0.01);
    assert_true(fabs(day->money.saved[COST_CACHING] - 3 * 720) < 0.01);
    assert_true(fabs(day->money.saved_total - 3 * 720) < 0.01);
}

static double estimated(struct rig *r)
{
    const struct peers_leaked nobody = {.hours = -1};
    struct savings s;
    savings_find(&r->control, &nobody, &s);
    return s.month[SAVINGS_LAST_DAY].money.estimated / 720;
}

/* All samples of a day are many for each page that is asked for. */
static void the_day_is_looked_at_again_with_the_next_sample_alone(void **state)
{
    struct rig *r = *state;
    const uint64_t then_s = clock_real_ms() / 10000 * 10 - 10;
    remember_until(r, then_s, 8000, 2, 3);
    assert_true(fabs(estimated(r) - 2) < 0.01);
    remember_until(r, then_s, 8000, 5, 3);
    assert_true(fabs(estimated(r) - 2) < 0.01);
    remember_until(r, then_s + 10, 1, 5, 3);
    assert_true(fabs(estimated(r) - 5) < 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_month_from_the_last_day_needs_an_hour_of_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_day_is_looked_at_again_with_the_next_sample_alone,
                                        set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

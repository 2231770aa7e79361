/* SPDX-License-Identifier: BSD-2-Clause */
/* The arithmetic of cost: the worked example of polder.conf(5), what is counted once and what not
 * at all, the last hour, and for how long a reaped WebSocket counts. */
#include "daemons/control/model/cost.h"
#include "daemons/supervisor/leaked.h"
#include "polder/config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it wants them */
#include <cmocka.h>

#define HOUR_MS UINT64_C(3600000)

static const struct config_cost prices = {"EUR", 0.000024126, 0.00190972};

static double cents(double money)
{
    return round(money * 100) / 100;
}

/* In the manual, and right. */
static void is_in_the_manual(const char *page, double money, const char *text)
{
    char computed[32];
    snprintf(computed, sizeof computed, "%.2f", money);
    assert_string_equal(computed, text);
    if (!strstr(page, text))
        fail_msg("polder.conf(5) lacks %s", text);
}

static void the_worked_example_of_the_manual_is_right(void **state)
{
    (void)state;
    static char page[1 << 18];
    FILE *f = fopen("admin/man/polder.conf.5", "r");
    assert_non_null(f);
    page[fread(page, 1, sizeof page - 1, f)] = 0;
    fclose(f);
    /* a client that asks every 3 s instead of every 30 s, for a month of 30 days */
    const uint64_t polls = (uint64_t)(COST_MONTH_S / 3 - COST_MONTH_S / 30), cached = 7124264;
    struct leaked l;
    leaked_begin(&l, 0);
    for (int i = 0; i < 100; i++)
        leaked_add(&l, 0);
    const struct cost_events events = {.upstream_requests = (uint64_t)(COST_MONTH_S / 30),
                                       .poll_kept = polls,
                                       .hits = polls + cached, /* a poll is a hit too */
                                       .limit_refused = 746083,
                                       .leaked_hours = leaked_hours(&l, 720 * HOUR_MS)};
    struct cost_counts counts;
    struct cost_money money;
    cost_count(&events, &counts);
    cost_of(&prices, &counts, &money);
    assert_int_equal(polls, 777600);
    assert_true(counts.spared[COST_WEBSOCKET] == 72000);
    is_in_the_manual(page, money.saved[COST_POLLING], "18.76");
    is_in_the_manual(page, money.saved[COST_WEBSOCKET], "137.50");
    is_in_the_manual(page, money.saved[COST_CACHING], "171.88");
    is_in_the_manual(page, money.saved[COST_RATE_LIMITING], "18.00");
    is_in_the_manual(page, money.saved_total, "346.14");
    is_in_the_manual(page, money.estimated, "2.08");
    static const char *const figures[] = {"777600", "7124264",     "746083",
                                          "72000",  "0.000024126", "0.00190972"};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        if (!strstr(page, figures[i]))
            fail_msg("polder.conf(5) lacks %s", figures[i]);
}

static void nothing_is_counted_twice_or_below_nothing(void **state)
{
    (void)state;
    struct cost_counts c;
    cost_count(
        &(struct cost_events){
            .hits = 100, .collapsed = 20, .poll_kept = 30, .refreshed = 4, .guard_requests = 1},
        &c);
    assert_true(c.spared[COST_POLLING] == 30);
    assert_true(c.spared[COST_CACHING] == 85);
    assert_true(c.spared[COST_RATE_LIMITING] == 0);
    assert_true(c.websocket_known && c.spared[COST_WEBSOCKET] == 0);
    cost_count(&(struct cost_events){.hits = 3, .refreshed = 7, .leaked_hours = -1}, &c);
    assert_true(c.spared[COST_CACHING] == 0);
    assert_true(!c.websocket_known && c.spared[COST_WEBSOCKET] == 0);
}

static void a_month_goes_on_like_what_was_seen(void **state)
{
    (void)state;
    struct cost_counts c = {.seconds = 3 * 86400.,
                            .websocket_seconds = 86400,
                            .calls = 1000,
                            .spared = {[COST_POLLING] = 5, [COST_WEBSOCKET] = 7},
                            .websocket_known = true};
    struct cost_counts month = cost_month(&c);
    assert_true(cents(month.calls) == 10000);
    assert_true(cents(month.spared[COST_POLLING]) == 50);
    assert_true(cents(month.spared[COST_WEBSOCKET]) == 210); /* by the time that it was counted */
    c.seconds = c.websocket_seconds = 0; /* the first seconds are not taken for a rate */
    month = cost_month(&c);
    assert_true(month.calls == 1000 * 43200. && month.spared[COST_WEBSOCKET] == 7 * 43200.);
}

/* A call a second; hours of WebSockets from `from_s` on. */
static struct cost_counts counts_at(double seconds, double from_s)
{
    const double own = seconds < from_s ? seconds : seconds - from_s;
    return (struct cost_counts){.seconds = seconds,
                                .websocket_seconds = own,
                                .calls = seconds,
                                .spared = {[COST_WEBSOCKET] = own / 10},
                                .websocket_known = true};
}

static void the_last_hour_is_known_when_it_is_over(void **state)
{
    (void)state;
    struct cost_past *past = calloc(1, sizeof *past);
    struct cost_counts hour, now;
    assert_true(cost_past_due(past, 0));
    for (double s = 1; s < 3 * 86400; s++) {
        now = counts_at(s, 1e9);
        assert_int_equal(cost_past_hour(past, &now, &hour), s >= 3601);
        if (s >= 3601) {
            assert_true(hour.seconds >= 3600 && hour.seconds < 3660);
            assert_true(hour.calls == hour.seconds);
            assert_true(fabs(hour.spared[COST_WEBSOCKET] - hour.seconds / 10) < 1e-6);
        }
        if (cost_past_due(past, s))
            cost_past_add(past, &now);
    }
    assert_int_equal(past->taken, 3 * 86400 / 60);
    free(past);
}

static void a_supervisor_that_begins_again_or_is_away_is_no_gain(void **state)
{
    (void)state;
    struct cost_past *past = calloc(1, sizeof *past);
    struct cost_counts hour, then = counts_at(100, 1e9), now = counts_at(4000, 3990);
    cost_past_add(past, &then);
    assert_true(cost_past_hour(past, &now, &hour));
    assert_true(hour.spared[COST_WEBSOCKET] == 1); /* of its ten seconds */
    then.websocket_known = false;                  /* what it had by then is not of the last hour */
    cost_past_add(past, &then);
    assert_true(cost_past_hour(past, &now, &hour));
    assert_true(!hour.websocket_known && hour.spared[COST_WEBSOCKET] == 0);
    then.spared[COST_CACHING] = 8; /* refreshes came since, and no hit yet */
    now.spared[COST_CACHING] = 7;
    cost_past_add(past, &then);
    assert_true(cost_past_hour(past, &now, &hour));
    assert_true(hour.spared[COST_CACHING] == 0);
    free(past);
}

static void a_reaped_connection_counts_for_720_hours_at_most(void **state)
{
    (void)state;
    struct leaked *l = calloc(1, sizeof *l);
    const uint64_t start = 1000 * HOUR_MS + 600000; /* ten past */
    leaked_begin(l, start);
    assert_true(leaked_hours(l, start + 5000 * HOUR_MS) == 0);
    leaked_begin(l, start);
    leaked_add(l, start);
    leaked_add(l, start + HOUR_MS);
    assert_true(fabs(leaked_hours(l, start + 2 * HOUR_MS) - 3) < 1e-9);
    assert_true(fabs(leaked_hours(l, start + 2 * HOUR_MS) - 3) < 1e-9); /* asking adds nothing */
    assert_true(fabs(leaked_hours(l, start + HOUR_MS) - 3) < 1e-9);     /* nor does an older now */
    const double all = leaked_hours(l, start + 10000 * HOUR_MS);
    assert_true(all > 2 * 719 && all <= 2 * 720);
    assert_int_equal(l->held, 0);
    for (unsigned i = 0; i < 5000; i++) /* one each hour, for ever */
        leaked_add(l, start + (20000 + i) * HOUR_MS);
    assert_true(l->held <= 720);
    leaked_hours(l, start + 50000 * HOUR_MS);
    assert_int_equal(l->held, 0);
    for (unsigned i = 0; i < LEAKED_HOURS; i++)
        assert_int_equal(l->reaped[i], 0);
    free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_worked_example_of_the_manual_is_right),
        cmocka_unit_test(nothing_is_counted_twice_or_below_nothing),
        cmocka_unit_test(a_month_goes_on_like_what_was_seen),
        cmocka_unit_test(the_last_hour_is_known_when_it_is_over),
        cmocka_unit_test(a_supervisor_that_begins_again_or_is_away_is_no_gain),
        cmocka_unit_test(a_reaped_connection_counts_for_720_hours_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

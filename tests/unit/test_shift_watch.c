/* SPDX-License-Identifier: BSD-2-Clause */
/* shift_watch: the guard of traffic shifts, fed with counts second by second: what it finds, how
 * soon, how often it is wrong, and what it says of too little traffic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "polder/shift_watch.h"

/* ---- a service in numbers ---- */

struct side {
    double errors; /* probability */
    double ms;
};
struct run {
    struct shift_watch watch;
    struct shift_counts total[SHIFT_SIDES];
    uint64_t now_ms, seed;
    double due[SHIFT_SIDES];
};

static double chance(struct run *r)
{
    r->seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    uint64_t z = r->seed;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ z >> 31) >> 11) / 9007199254740992.;
}

static void run_begin(struct run *r, uint64_t seed)
{
    memset(r, 0, sizeof *r);
    r->seed = seed;
    r->now_ms = 1000000;
    shift_watch_begin(&r->watch, r->total, r->now_ms);
}

static void serve(struct run *r, enum shift_side at, const struct side *side, double requests)
{
    struct shift_counts *t = &r->total[at];
    for (r->due[at] += requests; r->due[at] >= 1; r->due[at]--) {
        const double ns = side->ms * 1e6 * (.5 + chance(r));
        t->requests++;
        t->errors += chance(r) < side->errors;
        t->bucket[histogram_bucket(HISTOGRAM_LATENCY, (uint64_t)ns)]++;
    }
}

/* One second of so many requests, a share of which the new side has. */
static enum shift_verdict second(struct run *r, double rate, double share, const struct side *new,
                                 const struct side *other)
{
    serve(r, SHIFT_NEW, new, rate * share);
    serve(r, SHIFT_OTHER, other, rate * (1 - share));
    r->now_ms += 1000;
    return shift_watch_look(&r->watch, r->total, r->now_ms);
}

/* Seconds until it trips; 0: it does not within 5 minutes. */
static unsigned trips_after(uint64_t seed, double rate, double share, const struct side *new,
                            const struct side *other)
{
    struct run r;
    run_begin(&r, seed);
    for (unsigned s = 1; s <= 300; s++)
        if (second(&r, rate, share, new, other) == SHIFT_WORSE)
            return s;
    return 0;
}

static int by_number(const void *a, const void *b)
{
    const unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

/* The middle one of 101 runs, all of which must trip. */
static unsigned typical(double rate, double share, const struct side *new, const struct side *other)
{
    unsigned s[101];
    for (unsigned i = 0; i < 101; i++) {
        s[i] = trips_after(1000 + i, rate, share, new, other);
        assert_int_not_equal(s[i], 0);
    }
    qsort(s, 101, sizeof *s, by_number);
    print_message("%g requests a second: trips after %u s; of 101 runs 90 within %u s\n", rate,
                  s[50], s[90]);
    return s[50];
}

static const struct side good = {.005, 20}, bad = {.05, 20};

/* ---- errors ---- */

static void ten_times_the_errors_are_found_within_a_minute_of_little_traffic(void **state)
{
    (void)state;
    assert_in_range(typical(20, .1, &bad, &good), 1, 60);
}

static void and_within_20_seconds_of_more(void **state)
{
    (void)state;
    assert_in_range(typical(100, .1, &bad, &good), 1, 20);
}

/* One request in 20 fails, and one in 200: without luck. */
static void regular_errors_are_found_in_time_each_time(void **state)
{
    (void)state;
    for (unsigned rate = 20; rate <= 100; rate += 80) {
        struct run r;
        unsigned s = 0;
        run_begin(&r, 1);
        do {
            for (unsigned i = 0; i < rate; i++) {
                struct shift_counts *t = &r.total[i % 10 == 9 ? SHIFT_NEW : SHIFT_OTHER];
                t->errors += ++t->requests % (i % 10 == 9 ? 20 : 200) == 0;
                t->bucket[40]++;
            }
            r.now_ms += 1000;
            s++;
        } while (shift_watch_look(&r.watch, r.total, r.now_ms) != SHIFT_WORSE && s < 300);
        assert_int_equal(r.watch.rule, SHIFT_RULE_ERRORS);
        assert_in_range(s, 1, rate == 20 ? 60 : 20);
    }
}

static void equal_sides_trip_at_most_8_times_of_200(void **state)
{
    static const struct {
        double rate, errors;
    } of[] = {{20, .005}, {20, .02}, {100, .005}, {100, .02}};
    unsigned wrong = 0;
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        const struct side side = {of[i % 4].errors, 20};
        wrong += trips_after(i, of[i % 4].rate, .1, &side, &side) != 0;
    }
    print_message("false alarms: %u of 200 runs of 5 minutes\n", wrong);
    assert_in_range(wrong, 0, 8);
}

static void the_first_requests_trip_at_once(void **state)
{
    static const struct side broken = {1, 20}, half = {.6, 20};
    (void)state;
    assert_in_range(trips_after(1, 20, .1, &broken, &good), 4, 5); /* the eighth request */
    assert_int_equal(trips_after(1, 1000, .1, &half, &good), 1);
    /* where both sides fail, it is not the release */
    assert_int_equal(trips_after(1, 20, .1, &half, &half), 0);
}

static void a_server_that_takes_no_connection_trips_at_once(void **state)
{
    struct run r;
    (void)state;
    run_begin(&r, 1);
    for (int i = 0; i < 4; i++) {
        r.total[SHIFT_NEW].requests++;
        r.total[SHIFT_NEW].errors++;
        r.total[SHIFT_NEW].unconnected++;
        assert_int_not_equal(second(&r, 100, 0, &good, &good), SHIFT_WORSE);
    }
    /* an answer in between: it begins anew */
    for (int i = 0; i < 3; i++)
        second(&r, 100, .1, &good, &good);
    for (int i = 0; i < 5; i++) {
        assert_int_not_equal(r.watch.verdict, SHIFT_WORSE);
        r.total[SHIFT_NEW].requests++;
        r.total[SHIFT_NEW].errors++;
        r.total[SHIFT_NEW].unconnected++;
        second(&r, 100, 0, &good, &good);
    }
    assert_int_equal(r.watch.verdict, SHIFT_WORSE);
    assert_int_equal(r.watch.rule, SHIFT_RULE_CONNECT);
}

static void an_ejected_server_trips_at_once(void **state)
{
    struct run r;
    (void)state;
    run_begin(&r, 1);
    for (int s = 0; s < 20; s++)
        second(&r, 20, .1, &good, &good);
    r.total[SHIFT_NEW].errors += 5;
    r.total[SHIFT_NEW].requests += 5;
    r.total[SHIFT_OTHER].ejections++; /* says nothing of this one */
    assert_int_not_equal(second(&r, 20, 0, &good, &good), SHIFT_WORSE);
    r.total[SHIFT_NEW].ejections++;
    assert_int_equal(second(&r, 20, 0, &good, &good), SHIFT_WORSE);
    assert_int_equal(r.watch.rule, SHIFT_RULE_EJECTED);
}

/* ---- p95 ---- */

static void a_slower_side_trips_by_its_p95(void **state)
{
    static const struct side slow = {.005, 80}, faster = {.005, 5}, fast = {.005, 2};
    struct run r;
    (void)state;
    run_begin(&r, 5);
    for (int s = 0; s < 300 && r.watch.verdict != SHIFT_WORSE; s++)
        second(&r, 100, .1, &slow, &good);
    assert_int_equal(r.watch.verdict, SHIFT_WORSE);
    assert_int_equal(r.watch.rule, SHIFT_RULE_P95);
    assert_in_range(r.now_ms - r.watch.begun_ms, 20000, 31000);   /* 200 answers, three looks */
    assert_int_equal(trips_after(5, 100, .1, &faster, &fast), 0); /* 4 ms more do not matter */
}

/* ---- too little ---- */

static void too_little_traffic_neither_passes_nor_fails(void **state)
{
    struct run r;
    (void)state;
    run_begin(&r, 3);
    for (int s = 0; s < 300; s++)
        assert_int_equal(second(&r, 2, .1, &bad, &good), SHIFT_TOO_FEW);
    assert_false(shift_watch_passes(&r.watch, 60000, r.now_ms));
}

static void a_good_side_passes_when_its_time_is_over(void **state)
{
    static const struct side spotless = {0, 20};
    struct run r;
    (void)state;
    run_begin(&r, 3);
    for (int s = 0; s < 60; s++) {
        assert_false(shift_watch_passes(&r.watch, 60000, r.now_ms));
        second(&r, 100, .1, &spotless, &good);
    }
    assert_true(shift_watch_passes(&r.watch, 60000, r.now_ms));
}

/* ---- over deaths ---- */

static void counts_that_begin_anew_are_added(void **state)
{
    struct run r;
    (void)state;
    run_begin(&r, 3);
    for (int s = 0; s < 30; s++)
        second(&r, 100, .1, &good, &good);
    const uint64_t before = r.watch.since[SHIFT_OTHER].requests;
    memset(r.total, 0, sizeof r.total); /* a new master */
    for (int s = 0; s < 10; s++)
        second(&r, 100, .1, &good, &good);
    assert_int_equal(r.watch.since[SHIFT_OTHER].requests, before + 900);
}

static void it_says_why(void **state)
{
    struct run r;
    char text[256], small[16];
    (void)state;
    run_begin(&r, 7);
    while (second(&r, 100, .1, &bad, &good) != SHIFT_WORSE)
        ;
    shift_explain(&r.watch, text, sizeof text);
    assert_non_null(strstr(text, "more errors than beside it, z "));
    assert_non_null(strstr(text, "new: "));
    assert_non_null(strstr(text, "; other: "));
    shift_explain(&r.watch, small, sizeof small);
    assert_int_equal(strlen(small), sizeof small - 1);
}

/* ---- shares ---- */

static void shares_are_exact(void **state)
{
    static const uint32_t two[] = {100, 0}, three[] = {200, 100, 7}, wide[] = {999999, 5, 1000000};
    uint32_t w[3];
    (void)state;
    shift_weights(two, 2, 1, 10, w);
    assert_int_equal(w[0], 90);
    assert_int_equal(w[1], 10);
    shift_weights(two, 2, 1, 50, w);
    assert_int_equal(w[0], w[1]);
    shift_weights(two, 2, 1, 100, w);
    assert_int_equal(w[0], 0);
    assert_int_not_equal(w[1], 0);
    shift_weights(two, 2, 1, 0, w);
    assert_int_equal(w[0], 100);
    assert_int_equal(w[1], 0);
    shift_weights(three, 3, 2, 10, w); /* the rest two to one */
    assert_int_equal(w[0], 2 * w[1]);
    assert_int_equal(9 * w[2], w[0] + w[1]);
    shift_weights(wide, 3, 1, 37, w);
    for (int i = 0; i < 3; i++)
        assert_in_range(w[i], 1, 1000000);
    assert_in_range((uint64_t)w[1] * 1000000 / ((uint64_t)w[0] + w[1] + w[2]), 369990, 370010);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_times_the_errors_are_found_within_a_minute_of_little_traffic),
        cmocka_unit_test(and_within_20_seconds_of_more),
        cmocka_unit_test(regular_errors_are_found_in_time_each_time),
        cmocka_unit_test(equal_sides_trip_at_most_8_times_of_200),
        cmocka_unit_test(the_first_requests_trip_at_once),
        cmocka_unit_test(a_server_that_takes_no_connection_trips_at_once),
        cmocka_unit_test(an_ejected_server_trips_at_once),
        cmocka_unit_test(a_slower_side_trips_by_its_p95),
        cmocka_unit_test(too_little_traffic_neither_passes_nor_fails),
        cmocka_unit_test(a_good_side_passes_when_its_time_is_over),
        cmocka_unit_test(counts_that_begin_anew_are_added),
        cmocka_unit_test(it_says_why),
        cmocka_unit_test(shares_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

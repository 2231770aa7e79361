/* SPDX-License-Identifier: BSD-2-Clause */
/* Deadlines on a wheel: none early, none lost, however far away or moved, and whatever the clock
 * does. The loop's ticks are given by hand. */
#include "daemons/net/timer_wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define START_MS 1000000

static struct timer_wheel wheel;
static uint64_t now_ms;

struct thing {
    struct timer timer;
    unsigned fired;
    uint64_t fired_ms, again_ms;
};

static void fire(struct timer *t)
{
    struct thing *x = TIMER_OWNER(t, struct thing, timer);
    assert_false(timer_is_armed(t));
    assert_true(now_ms >= t->due_ms);
    x->fired++;
    x->fired_ms = now_ms;
    if (x->again_ms)
        timer_set(&wheel, t, now_ms + x->again_ms);
}

static int begin(void **state)
{
    (void)state;
    now_ms = START_MS;
    wheel = (struct timer_wheel){.tick = 0};
    timer_wheel_init(&wheel, ev_loop_new(EVFLAG_NOENV), &now_ms, 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    ev_loop_destroy(wheel.loop);
    return 0;
}

static void tick(void)
{
    ev_invoke(wheel.loop, &wheel.ev, EV_TIMER);
}

static void pass(uint64_t ms)
{
    for (const uint64_t until = now_ms + ms; now_ms < until;) {
        now_ms += TIMER_TICK_MS;
        tick();
    }
}

static void a_timer_fires_once_within_two_ticks_of_its_time(void **state)
{
    (void)state;
    static const uint64_t after[] = {0, 1, 249, 250, 1000, 127000, 128000, 1000000};
    for (size_t i = 0; i < sizeof after / sizeof *after; i++) {
        struct thing x = {.timer.fire = fire};
        const uint64_t due_ms = now_ms + after[i];
        timer_set(&wheel, &x.timer, due_ms);
        pass(after[i] + 4 * TIMER_TICK_MS);
        assert_int_equal(x.fired, 1);
        assert_in_range(x.fired_ms - due_ms, 0, 2 * TIMER_TICK_MS);
    }
    assert_int_equal(wheel.armed, 0);
    assert_false(ev_is_active(&wheel.ev)); /* the loop may sleep */
}

static void deadlines_are_moved_both_ways(void **state)
{
    (void)state;
    struct thing x = {.timer.fire = fire}, y = {.timer.fire = fire};
    timer_set(&wheel, &x.timer, now_ms + 1000);
    timer_set(&wheel, &y.timer, now_ms + 60000);
    for (int i = 0; i < 10; i++) { /* what each request does */
        pass(750);
        timer_set(&wheel, &x.timer, now_ms + 1000);
    }
    assert_int_equal(x.fired, 0);
    timer_set(&wheel, &y.timer, now_ms + 500);
    pass(1500);
    assert_int_equal(x.fired, 1);
    assert_int_equal(y.fired, 1);
    assert_true(y.fired_ms <= x.fired_ms);
}

static void a_stopped_timer_does_not_fire_and_may_be_set_again(void **state)
{
    (void)state;
    struct thing x = {.timer.fire = fire}, y = {.timer.fire = fire, .again_ms = 1000};
    timer_set(&wheel, &x.timer, now_ms + 1000);
    timer_set(&wheel, &y.timer, now_ms + 1000);
    timer_stop(&wheel, &x.timer);
    timer_stop(&wheel, &x.timer);
    pass(5000);
    assert_int_equal(x.fired, 0);
    assert_in_range(y.fired, 3, 5);
    timer_set(&wheel, &x.timer, now_ms + 1000);
    pass(2000);
    assert_int_equal(x.fired, 1);
    timer_stop(&wheel, &y.timer);
    assert_int_equal(wheel.armed, 0);
}

static void a_crowd_is_served_in_portions_and_to_the_last(void **state)
{
    (void)state;
    static struct thing crowd[1000];
    unsigned fired = 0;
    wheel.fire_max = 300;
    for (size_t i = 0; i < 1000; i++) {
        crowd[i] = (struct thing){.timer.fire = fire};
        timer_set(&wheel, &crowd[i].timer, now_ms + 100);
    }
    now_ms += 500;
    for (unsigned turns = 1; turns <= 4; turns++) {
        tick();
        fired = 0;
        for (size_t i = 0; i < 1000; i++)
            fired += crowd[i].fired;
        assert_int_equal(fired, turns < 4 ? turns * 300 : 1000);
    }
}

/* A machine that slept for a day has one round of slots to look at, and nothing is forgotten. */
static void a_jump_of_the_clock_loses_nothing(void **state)
{
    (void)state;
    struct thing x = {.timer.fire = fire}, y = {.timer.fire = fire}, z = {.timer.fire = fire};
    timer_set(&wheel, &x.timer, now_ms + 1000);
    timer_set(&wheel, &y.timer, now_ms + 3600000);
    timer_set(&wheel, &z.timer, now_ms + UINT64_C(2) * 86400000);
    now_ms += 86400000;
    tick();
    assert_int_equal(x.fired, 1);
    assert_int_equal(y.fired, 1);
    assert_int_equal(z.fired, 0);
    now_ms += 86400000;
    tick();
    tick();
    assert_int_equal(z.fired, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_timer_fires_once_within_two_ticks_of_its_time),
        TEST(deadlines_are_moved_both_ways),
        TEST(a_stopped_timer_does_not_fire_and_may_be_set_again),
        TEST(a_crowd_is_served_in_portions_and_to_the_last),
        TEST(a_jump_of_the_clock_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

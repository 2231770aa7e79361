/* SPDX-License-Identifier: BSD-2-Clause */
/* What of a fleet needs attention, told from what it shows, and when that is over. */
#include "daemons/control/model/fleet_watch.h"
#include "daemons/control/model/fleet.h"
#include "polder/conditions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define EPOCH UINT64_C(1700000000000123456)

static struct shm_segment page;
static struct condition_table *table;
static struct fleet_watch watch;
static struct fleet_view view;
static uint64_t now_ms;

static int begin(void **state)
{
    (void)state;
    now_ms = 1000000;
    view = (struct fleet_view){.connected = true,
                               .epoch = EPOCH,
                               .store = "redis://a:6379/0",
                               .name = "prod",
                               .host = "amber",
                               .applied = 10,
                               .last = 10,
                               .n = 2,
                               .at = {{.name = "amber", .self = true, .alive = true},
                                      {.name = "birch", .alive = true, .applied = 10}}};
    fleet_watch_begin(&watch, 0);
    assert_int_equal(conditions_open(&page, NULL, CONDITIONS_OF_POLDERD), 0);
    table = conditions_of(&page);
    return 0;
}

static int end(void **state)
{
    (void)state;
    shm_close(&page);
    return 0;
}

static void look_after(uint64_t ms)
{
    now_ms += ms;
    fleet_watch_look(&watch, &view, table, now_ms, now_ms);
}

static bool holds(enum condition_id id, const char *subject)
{
    return condition_is_raised(table, id, subject, now_ms);
}

static unsigned raised(void)
{
    struct condition list[CONDITION_ROWS];
    return (unsigned)conditions_list(table, now_ms, list);
}

static const char *reason_of(enum condition_id id)
{
    static struct condition list[CONDITION_ROWS];
    const size_t n = conditions_list(table, now_ms, list);
    for (size_t i = 0; i < n; i++)
        if (list[i].id == id)
            return list[i].reason;
    return "";
}

static void a_host_that_applies_late_is_named_until_it_has_caught_up(void **state)
{
    (void)state;
    look_after(0);
    view.applied = view.last = 17;
    look_after(500); /* birch has 10 */
    view.applied = view.last = 20;
    look_after(2900);
    assert_int_equal(fleet_watch_late_ms(&watch, 10, now_ms), 2900);
    assert_int_equal(raised(), 0);
    look_after(200);
    assert_true(holds(COND_FLEET_LAG, "birch"));
    assert_string_equal(reason_of(COND_FLEET_LAG),
                        "10 entries are not applied, the oldest for 3 s");
    view.at[1].applied = 17; /* what it lacks now has been known for a shorter time */
    look_after(50);
    assert_int_equal(fleet_watch_late_ms(&watch, 17, now_ms), 250);
    assert_int_equal(raised(), 0);
    view.at[1].applied = 20;
    assert_int_equal(fleet_watch_late_ms(&watch, 20, now_ms), 0);
}

static void this_host_too_and_not_by_what_it_has_shown_the_others(void **state)
{
    (void)state;
    look_after(0);
    view.last = 11;
    view.at[1].applied = 11;
    look_after(0);
    look_after(3100);
    assert_true(holds(COND_FLEET_LAG, "amber"));
    assert_false(holds(COND_FLEET_LAG, "birch"));
    view.applied = 11; /* and at[0].applied is 0 yet */
    look_after(0);
    assert_int_equal(raised(), 0);
}

static void a_host_without_a_lease_is_not_late_but_cut_off(void **state)
{
    (void)state;
    look_after(0);
    view.applied = view.last = 30;
    look_after(0);
    view.at[1].alive = false;
    look_after(5000);
    assert_int_equal(raised(), 0);
    /* nor is any as seen from a host that is cut off itself; what it knew then is forgotten */
    view.at[1].alive = true;
    look_after(0);
    assert_true(holds(COND_FLEET_LAG, "birch"));
    view.connected = false;
    look_after(0);
    assert_int_equal(raised(), 0);
    view.connected = true;
    look_after(0);
    assert_int_equal(fleet_watch_late_ms(&watch, 10, now_ms), 0);
}

/* Older ones than are remembered do not make anybody look in time. */
static void many_entries_are_remembered_as_a_few(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        view.applied = ++view.last;
        look_after(250);
    }
    assert_int_equal(fleet_watch_late_ms(&watch, view.last - 4, now_ms), 750);
    assert_int_equal(fleet_watch_late_ms(&watch, 10, now_ms), (FLEET_WATCH_KNOWN - 1) * 250);
    assert_true(holds(COND_FLEET_LAG, "birch"));
    assert_int_equal(raised(), 1);
}

static void a_store_that_has_begun_anew_is_told_for_a_minute(void **state)
{
    (void)state;
    look_after(0);
    assert_int_equal(raised(), 0); /* the first one that this host meets */
    view.epoch += 7000000;
    view.applied = view.last = 0;
    look_after(1);
    assert_true(holds(COND_FLEET_LEARNING, "prod"));
    assert_string_equal(reason_of(COND_FLEET_LEARNING), "redis://a:6379/0");
    look_after(FLEET_ANEW_MS);
    assert_true(holds(COND_FLEET_LEARNING, "prod"));
    look_after(1);
    assert_int_equal(raised(), 0);
    /* numbers begin anew with it: nobody is late by those of before */
    assert_int_equal(fleet_watch_late_ms(&watch, 5, now_ms), 0);
    /* and control dies meanwhile */
    fleet_watch_begin(&watch, EPOCH);
    look_after(0);
    assert_true(holds(COND_FLEET_LEARNING, "prod"));
}

static void another_store_is_told_for_ten_minutes(void **state)
{
    (void)state;
    look_after(0);
    view.connected = false;
    view.store = "redis://b:6379/0"; /* it is only tried */
    look_after(1);
    assert_int_equal(raised(), 0);
    view.connected = true;
    look_after(1);
    assert_true(holds(COND_FLEET_STORE_CHANGED, "prod"));
    assert_string_equal(reason_of(COND_FLEET_STORE_CHANGED),
                        "redis://b:6379/0, before redis://a:6379/0");
    look_after(FLEET_MOVED_MS - 1);
    fleet_watch_begin(&watch, EPOCH); /* control dies meanwhile */
    look_after(1);
    assert_true(holds(COND_FLEET_STORE_CHANGED, "prod"));
    assert_string_equal(reason_of(COND_FLEET_STORE_CHANGED),
                        "redis://b:6379/0, before redis://a:6379/0");
    look_after(1);
    assert_int_equal(raised(), 0);
}

static void a_name_that_another_host_has_is_told_until_it_is_free(void **state)
{
    (void)state;
    view.connected = false;
    view.name_taken = true;
    look_after(0);
    assert_true(holds(COND_FLEET_NAME_TAKEN, "amber"));
    view.name_taken = false;
    look_after(0);
    assert_int_equal(raised(), 0);
    view.name_taken = true;
    look_after(0);
    fleet_watch_end(table, now_ms); /* the section is gone from the file */
    assert_int_equal(raised(), 0);
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(a_host_that_applies_late_is_named_until_it_has_caught_up),
        STORY(this_host_too_and_not_by_what_it_has_shown_the_others),
        STORY(a_host_without_a_lease_is_not_late_but_cut_off),
        STORY(many_entries_are_remembered_as_a_few),
        STORY(a_store_that_has_begun_anew_is_told_for_a_minute),
        STORY(another_store_is_told_for_ten_minutes),
        STORY(a_name_that_another_host_has_is_told_until_it_is_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* A store that was too slow is left out, for longer and longer where it only seems to be well. */
#include "daemons/control/model/fleet_quick.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct fleet_page *page;
static struct fleet_quick quick;

static void begin(void)
{
    atomic_store(&page->shared_is_quick, 0);
    fleet_quick_init(&quick, page);
    quick.limit_ms = 20;
}

/* From now_ms on it is looked at each 500 ms; when it is in use, or 0. */
static uint64_t in_use_at(uint64_t now_ms, uint64_t took_ms)
{
    for (uint64_t at = now_ms; at < now_ms + 120000; at += 500) {
        fleet_quick_look(&quick, took_ms, at);
        if (fleet_quick_is(&quick))
            return at;
    }
    return 0;
}

static void it_is_in_use_when_it_answers_in_time(void **state)
{
    (void)state;
    begin();
    assert_int_equal(in_use_at(1000, 21), 0);
    assert_int_equal(in_use_at(1000, 20), 1000);
    begin();
    quick.limit_ms = 0; /* no route shares */
    fleet_quick_look(&quick, 0, 1000);
    assert_false(fleet_quick_is(&quick));
}

static void pauses_grow_where_it_fails_again(void **state)
{
    (void)state;
    static const uint64_t pauses[] = {500, 1000, 2000, 4000, 8000, 16000, 30000, 30000};
    begin();
    uint64_t now = in_use_at(1000, 1);
    for (size_t i = 0; i < sizeof pauses / sizeof *pauses; i++) {
        atomic_store(&page->shared_is_quick, 0); /* a request has waited in vain */
        const uint64_t again = in_use_at(now, 1);
        assert_int_equal(again - now, pauses[i]);
        now = again;
    }
    now += 30000; /* well for so long */
    fleet_quick_look(&quick, 1, now);
    atomic_store(&page->shared_is_quick, 0);
    assert_int_equal(in_use_at(now, 1) - now, 500);
}

static int set_up(void **state)
{
    (void)state;
    page = calloc(1, sizeof *page);
    return !page;
}

static int tear_down(void **state)
{
    (void)state;
    free(page);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_in_use_when_it_answers_in_time),
        cmocka_unit_test(pauses_grow_where_it_fails_again),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

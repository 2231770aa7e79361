/* SPDX-License-Identifier: BSD-2-Clause */
/* The keeper: a real one, driven through its rings. */
#include "keeper_rig.h"

#define MIB ((uint64_t)1 << 20)

static void what_is_pushed_can_be_read(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, 1000, 32 * MIB);
    rig_start(&r);
    rig_must_store(&r, "h/a", 1, 1000);
    rig_must_store(&r, "h/b", 2, 0);
    rig_must_store(&r, "h/c", 3, 30000);
    rig_wait(rig_look(&r, "h/c") == 3);
    assert_int_equal(rig_look(&r, "h/a"), 1);
    assert_int_equal(rig_look(&r, "h/b"), 2);
    assert_int_equal(rig_look(&r, "h/none"), 0);
    rig_must_store(&r, "h/a", 7, 5000);
    rig_wait(rig_look(&r, "h/a") == 7);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 3);
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_pushed_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The stories of a fleet that try its store most, with Valkey as the store. All others can be run so, too:
 * POLDER_STORE=valkey build/system/test_fleet_limits */
#include "harness.h"
#include "redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static const char *const programs[] = {"unit/test_fleet_grants", "unit/test_fleet_slots",
                                       "system/test_fleet", "system/test_fleet_share"};
#define PROGRAMS (sizeof programs / sizeof *programs)

/* Side by side: they mostly wait. */
static void a_fleet_works_with_valkey_as_with_redis(void **state)
{
    const char *path, *name;
    FILE *run[PROGRAMS];
    struct redis store = {0};
    unsigned failed = 0;
    (void)state;
    setenv("POLDER_STORE", "valkey", 1);
    if (!redis_program(&path, &name)) {
        fprintf(stderr, "valkey: NOT TESTED: there is no %s (`make deps-test` brings it)\n", name);
        skip();
    }
    redis_start(&store);
    assert_non_null(strstr(redis_do(&store, "INFO server"), "valkey_version:"));
    redis_remove(&store);
    for (size_t i = 0; i < PROGRAMS; i++) {
        char command[256];
        snprintf(command, sizeof command, "%s 2>&1", built(programs[i]));
        run[i] = popen(command, "r");
        assert_non_null(run[i]);
    }
    for (size_t i = 0; i < PROGRAMS; i++) {
        static char text[65536];
        const size_t len = fread(text, 1, sizeof text - 1, run[i]);
        text[len] = 0;
        const int status = pclose(run[i]);
        if (status || !strstr(text, "[  PASSED  ]"))
            print_error("%s with Valkey: status %d\n%s\n", programs[i], status, text);
        failed += status != 0;
    }
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest stories[] = {
        cmocka_unit_test(a_fleet_works_with_valkey_as_with_redis),
    };
    return cmocka_run_group_tests(stories, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The public HTTP cache test suite (npm: http-cache-tests), through the real daemon. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static void the_public_suite_passes(void **state)
{
    (void)state;
    struct house h;
    char command[512], line[1024];
    unsigned origin = free_port();
    house_start(&h, 2,
                "cache { ttl = \"heuristic\" store_set_cookie = true share = \"rfc\" }\n"
                "upstream \"u\" { server \"localhost:%u\" { } }\nroute \"/*\" { upstream = \"u\" "
                "cache { } }\n",
                origin);
    snprintf(command, sizeof command,
             "node --no-warnings tests/clients/conformance/run.mjs http://127.0.0.1:%u %u 2>&1",
             h.port, origin);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    while (fgets(line, sizeof line, p))
        fputs(line, stdout);
    int status = pclose(p);
    house_remove(&h);
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_public_suite_passes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

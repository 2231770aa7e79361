/* SPDX-License-Identifier: BSD-2-Clause */
/* Names become addresses, side by side, or say why not; one hopeless name keeps nobody else. */
#include "polder/resolve.h"
#include "polder/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static void names_are_asked_for_side_by_side(void **state)
{
    (void)state;
    struct resolve_name name[3] = {{.text = "localhost:8001"},
                                   {.text = "no-such-host.invalid:8002"},
                                   {.text = "127.0.0.9:8003"}};
    char text[64];
    const uint64_t from_ms = clock_mono_ms();
    resolve_all(name, 3, 4000);
    assert_true(clock_mono_ms() - from_ms < 30000);
    assert_true(name[0].list.n >= 1);
    bool found = false;
    for (uint32_t i = 0; i < name[0].list.n; i++) {
        server_address_text(&name[0].list.at[i], text, sizeof text);
        found |= !strcmp(text, "127.0.0.1:8001") || !strcmp(text, "[::1]:8001");
        for (uint32_t k = 0; k < i; k++) /* each once */
            assert_memory_not_equal(&name[0].list.at[i], &name[0].list.at[k],
                                    sizeof *name[0].list.at);
    }
    assert_true(found);
    assert_string_equal(name[0].why, "");
    assert_int_equal(name[1].list.n, 0);
    assert_string_not_equal(name[1].why, "");
    assert_int_equal(name[2].list.n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_asked_for_side_by_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

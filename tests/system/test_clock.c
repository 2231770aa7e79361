/* SPDX-License-Identifier: BSD-2-Clause */
/* Hours and days pass in a moment: what is stored ages, limits refill, and nobody takes the jump
 * for a process that hangs. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

#define MINUTE 60000u
#define HOUR   (60 * MINUTE)

static struct backend *backend;

static bool answer(struct asked *a)
{
    return reply_ok(a, "Cache-Control: public, max-age=3600\r\n", "content");
}

static void start(struct house *h)
{
    house_start(h, 2,
                "upstream \"u\" { server \"127.0.0.1:%u\" { } }\n"
                "cache { stale_while_revalidate = \"0s\" }\n"
                "limit \"daily\" { requests = 3 window = \"1d\" algorithm = \"fixed\" }\n"
                "route \"/limited\" { upstream = \"u\" limits = {\"daily\"} }\n"
                "route \"/*\" { upstream = \"u\" cache { } }\n",
                backend_port(backend));
}

static long age_of(struct house *h)
{
    struct message m;
    assert_int_equal(get(h->port, "/x", &m), 200);
    const char *age = field_of(&m, "Age");
    const long seconds = age ? strtol(age, NULL, 10) : -1;
    message_free(&m);
    return seconds;
}

static void what_is_stored_ages_with_the_clock(void **state)
{
    (void)state;
    struct house h;
    start(&h);
    wait_until(served_from_store(h.port, "/x"), 5000);
    backend_forget(backend);
    house_advance(&h, 59 * MINUTE);
    assert_in_range(age_of(&h), 59 * 60, 59 * 60 + 30);
    assert_int_equal(backend_calls(backend), 0);
    house_advance(&h, 2 * MINUTE);
    assert_true(age_of(&h) < 30);
    assert_int_equal(backend_calls(backend), 1);
    house_remove(&h);
}

static void a_day_later_a_daily_limit_admits_again(void **state)
{
    (void)state;
    struct house h;
    unsigned counts[1000] = {0};
    start(&h);
    house_advance(&h, 1000); /* any time of the day will do */
    for (int i = 0; i < 6; i++)
        counts[get(h.port, "/limited", NULL)]++;
    assert_in_range(counts[200], 3, 6); /* 6: midnight was just now */
    assert_int_equal(counts[200] + counts[429], 6);
    house_advance(&h, 25 * HOUR);
    assert_int_equal(get(h.port, "/limited", NULL), 200);
    house_remove(&h);
}

static void nobody_takes_a_jump_for_a_process_that_hangs(void **state)
{
    (void)state;
    struct house h;
    pid_t before[16], after[16];
    start(&h);
    const size_t n = house_children(&h, "polderd: ", before, 16);
    for (int i = 0; i < 5; i++) {
        house_advance(&h, 24 * HOUR);
        for (int k = 0; k < 20; k++) {
            assert_int_equal(get(h.port, "/x", NULL), 200);
            nap_ms(20); /* the master looks meanwhile */
        }
    }
    assert_int_equal(house_children(&h, "polderd: ", after, 16), n);
    assert_memory_equal(before, after, n * sizeof *before);
    assert_false(house_logged(&h, "no heartbeat"));
    house_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_stored_ages_with_the_clock),
        cmocka_unit_test(a_day_later_a_daily_limit_admits_again),
        cmocka_unit_test(nobody_takes_a_jump_for_a_process_that_hangs),
    };
    return run_with_backend(tests, &backend, answer);
}

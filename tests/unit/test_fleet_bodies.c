/* SPDX-License-Identifier: BSD-2-Clause */
/* Long bodies on their way to the store of a fleet: whole ones alone, and the first of too many. */
#include "daemons/control/model/fleet_bodies.h"
#include "polder/fleet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PLACES 32

static struct fleet_bodies *bodies;

static struct ring_record head_of(uint64_t stream, uint32_t incarnation, size_t len)
{
    return (struct ring_record){.len = (uint32_t)len, .stream = stream, .incarnation = incarnation};
}

static void add(uint64_t stream, uint32_t incarnation, uint64_t from, const char *text, size_t len)
{
    static char note[FLEET_BODY_MAX + 16];
    const struct ring_record head = head_of(stream, incarnation, sizeof from + len);
    memcpy(note, &from, sizeof from);
    memcpy(note + sizeof from, text, len);
    fleet_bodies_add(bodies, 1, &head, note);
}

static void say(uint64_t stream, uint64_t from, const char *text)
{
    add(stream, 1, from, text, strlen(text));
}

static size_t length_of(uint64_t stream)
{
    const struct ring_record head = head_of(stream, 1, 0);
    return fleet_bodies_get(bodies, 1, &head).len;
}

static void a_body_is_what_came_in_order(void **state)
{
    (void)state;
    const struct ring_record head = head_of(1, 1, 0), reborn = head_of(1, 2, 0);
    say(1, 0, "one ");
    say(1, 4, "two");
    assert_int_equal(length_of(1), 7);
    assert_memory_equal(fleet_bodies_get(bodies, 1, &head).at, "one two", 7);
    assert_int_equal(fleet_bodies_get(bodies, 2, &head).len, 0);   /* another worker */
    assert_int_equal(fleet_bodies_get(bodies, 1, &reborn).len, 0); /* or its successor */
    say(1, 0, "again");
    assert_int_equal(length_of(1), 5);
    fleet_bodies_drop(bodies, 1, 1);
    assert_int_equal(length_of(1), 0);
}

static void a_body_with_a_gap_is_none(void **state)
{
    (void)state;
    say(2, 4, "its beginning was lost");
    assert_int_equal(length_of(2), 0);
    say(2, 0, "one");
    say(2, 4, "a byte is missing");
    assert_int_equal(length_of(2), 0);
    say(2, 3, "and what follows");
    assert_int_equal(length_of(2), 0);
    const struct ring_record cut = head_of(2, 1, 3);
    fleet_bodies_add(bodies, 1, &cut, "abc"); /* not even a number */
    assert_int_equal(length_of(2), 0);
}

static void a_body_is_no_longer_than_the_limit(void **state)
{
    (void)state;
    static char long_text[FLEET_BODY_MAX];
    memset(long_text, 'x', sizeof long_text);
    add(3, 1, 0, long_text, sizeof long_text);
    assert_int_equal(length_of(3), FLEET_BODY_MAX);
    say(3, FLEET_BODY_MAX, "y");
    assert_int_equal(length_of(3), 0);
}

static void the_first_of_too_many_are_whole(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 3 * PLACES; i++)
        say(100 + i, 0, "one");
    for (uint64_t i = 1; i <= 3 * PLACES; i++)
        say(100 + i, 3, "two");
    for (uint64_t i = 1; i <= 3 * PLACES; i++)
        assert_int_equal(length_of(100 + i), i <= PLACES ? 6 : 0);
    fleet_bodies_drop(bodies, 1, 101);
    say(200, 0, "there is room again");
    assert_int_equal(length_of(200), 19);
}

static int set_up(void **state)
{
    (void)state;
    bodies = fleet_bodies_new();
    return !bodies;
}

static int tear_down(void **state)
{
    (void)state;
    fleet_bodies_free(bodies);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_body_is_what_came_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_body_with_a_gap_is_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_body_is_no_longer_than_the_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_first_of_too_many_are_whole, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The story of a thousand updates a second: who reads after the acknowledgement of one never sees
 * what was before it, whichever way it is answered. */
#include "tests/chaos/chaos.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#define WRITERS 2

static void nobody_sees_an_older_version_than_the_acknowledged_one(void **state)
{
    (void)state;
    const unsigned seconds = chaos_count("CHAOS_SECONDS", 60, 4),
                   rate = chaos_count("CHAOS_UPDATES", 1000, 1000);
    struct board *b = board_open();
    struct backend *backend = backend_start(board_answers, b);
    struct house h;
    struct readers readers;
    pid_t writer[WRITERS];
    house_start(&h, 4, board_routes, "256M", backend_port(backend));
    atomic_store(&b->delay_us, 3000);
    b->began_ms = mono_ms();
    readers_start(&readers, b, h.port, 16);
    for (unsigned i = 0; i < WRITERS; i++)
        writer[i] =
            writer_start(b, h.sock, h.port, (struct writer_plan){.per_second = rate / WRITERS});
    for (const uint64_t end = mono_ms() + seconds * 1000; mono_ms() < end;)
        nap_ms(20);
    readers_join(&readers, b);
    for (unsigned i = 0; i < WRITERS; i++)
        waitpid(writer[i], NULL, 0);
    board_judge(b, "versions");
    assert_int_equal(b->cut, 0);
    assert_int_equal(b->refused, 0);
    assert_int_equal(b->failed, 0);
    printf("chaos: versions: backend calls %u, bad records %llu, ring full %llu, rotations %llu\n",
           backend_calls(backend), stat_of(&h, "bad_records"), stat_of(&h, "ring_full"),
           stat_of(&h, "rotations"));
    assert_int_equal(stat_of(&h, "bad_records"), 0);
    assert_int_equal(stat_of(&h, "rotations"), 0);
    house_remove(&h);
    backend_stop(backend);
    board_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_sees_an_older_version_than_the_acknowledged_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

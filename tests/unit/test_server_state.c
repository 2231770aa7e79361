/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of server states: its rows, its moves, one trial at a time over processes that die, and
 * addresses that are whole whenever they are read. */
#include "polder/server_check.h"
#include "polder/server_choice.h"
#include "polder/server_state.h"
#include "polder/stats.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define KILLS    40
#define WRITERS  3
#define LEASE_MS 50000

/* What the writers of a test share beside the table. */
struct board {
    _Atomic uint64_t turns, trials, doubles, now_ms;
    _Atomic uint64_t lease_ms; /* of the trial under way; 0 */
};
static struct server_table *table;
static struct board *board;

static void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    return memory;
}

static int set_up(void **state)
{
    (void)state;
    table = shared_memory(sizeof *table);
    board = shared_memory(sizeof *board);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    munmap(table, sizeof *table);
    munmap(board, sizeof *board);
    return 0;
}

/* ---- rows ---- */

static bool is_odd(void *arg, uint64_t id)
{
    (void)arg;
    return id & 1;
}

static void a_row_is_found_again_by_its_id(void **state)
{
    (void)state;
    assert_null(server_find(table, 7));
    struct server_row *row = server_claim(table, 7, 1000);
    assert_ptr_equal(server_claim(table, 7, 2000), row);
    assert_ptr_equal(server_find(table, 7), row);
    assert_int_equal(server_view(row).since_ms, 1000);
    assert_ptr_not_equal(server_claim(table, 8, 1000), row);
    server_sweep(table, is_odd, NULL); /* there is room: who comes back finds its own */
    assert_non_null(server_find(table, 8));
}

static void a_full_table_gives_back_what_no_configuration_has(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= SERVER_ROWS; id++)
        assert_non_null(server_claim(table, id, 1));
    assert_null(server_claim(table, SERVER_ROWS + 1, 1));
    server_note_failure(server_find(table, 2), SERVER_REFUSED, false, 5);
    atomic_store(&server_find(table, 2)->due_ms, 300000); /* of a name */
    atomic_store(&server_find(table, 2)->lookups_failed, 7);
    server_sweep(table, is_odd, NULL);
    assert_non_null(server_find(table, 1));
    assert_null(server_find(table, 2));
    struct server_row *row = server_claim(table, 5001, 9);
    assert_true(server_is_up(row));
    assert_int_equal(server_view(row).since_ms, 9);
    assert_int_equal(atomic_load(&row->due_ms), 0);
    assert_int_equal(atomic_load(&row->lookups_failed), 0);
}

/* ---- moves ---- */

static void expect(const struct server_row *row, enum server_state state, uint32_t failures,
                   uint64_t since_ms)
{
    const struct server_view v = server_view(row);
    assert_int_equal(v.state, state);
    assert_int_equal(v.failures, failures);
    assert_int_equal(v.since_ms, since_ms);
}

static void each_kind_of_failure_has_its_patience(void **state)
{
    (void)state;
    struct server_row *row = server_claim(table, 1, 100);
    assert_true(server_note_failure(row, SERVER_REFUSED, false, 200));
    expect(row, SERVER_DOWN, 1, 200);
    assert_false(server_note_failure(row, SERVER_REFUSED, false, 201)); /* it is already */
    assert_true(server_note_answer(row, true, 300));
    expect(row, SERVER_UP, 0, 300);
    assert_false(server_note_answer(row, true, 301));

    assert_false(server_note_failure(row, SERVER_TIMEOUT, false, 400));
    assert_false(server_note_answer(row, true, 401)); /* not in a row */
    assert_false(server_note_failure(row, SERVER_TIMEOUT, false, 402));
    expect(row, SERVER_UP, 1, 300);
    assert_true(server_note_failure(row, SERVER_TIMEOUT, false, 403));
    assert_true(server_note_answer(row, true, 500));

    for (int i = 0; i < 2; i++)
        assert_false(server_note_failure(row, SERVER_MALFORMED, false, 600));
    assert_true(server_note_failure(row, SERVER_CLOSED, false, 601));
    assert_true(server_note_answer(row, true, 700));
    for (int i = 0; i < 100; i++) /* a head had come each time */
        assert_false(server_note_failure(row, SERVER_CUT, false, 800));
    expect(row, SERVER_UP, 0, 700);
    assert_int_equal(server_view(row).reason, SERVER_CUT);
    assert_int_equal(atomic_load(&row->errors[SERVER_CUT]), 100);
    assert_int_equal(atomic_load(&row->errors[SERVER_TIMEOUT]), 3);
    assert_int_equal(atomic_load(&row->error_ms), 800);
}

static void the_pause_between_trials_grows_to_its_most(void **state)
{
    (void)state;
    struct server_row *row = server_claim(table, 1, 100);
    uint64_t now_ms = 1000, lease_ms, pauses[8];
    assert_false(server_try(row, now_ms, 0, 50, &lease_ms)); /* it is up */
    server_note_failure(row, SERVER_TIMEOUT, false, now_ms);
    server_note_failure(row, SERVER_TIMEOUT, false, now_ms);
    for (int i = 0; i < 8; i++) {
        const uint64_t from_ms = now_ms;
        while (!server_try(row, now_ms, 0, 50, &lease_ms))
            now_ms += 100;
        pauses[i] = now_ms - from_ms;
        assert_false(server_try(row, now_ms, 0, 50, &lease_ms));
        server_note_failure(row, SERVER_TIMEOUT, false,
                            now_ms); /* was under way before: no trial */
        server_note_failure(row, SERVER_TIMEOUT, true, now_ms);
    }
    static const uint64_t wanted[] = {1000, 2000, 4000, 8000, 16000, 32000, 32000, 32000};
    assert_memory_equal(pauses, wanted, sizeof wanted);
}

/* A server that was long away and is slow at first is not punished for both. */
static void a_long_absence_does_not_lengthen_pauses_for_another_reason(void **state)
{
    (void)state;
    struct server_row *row = server_claim(table, 1, 100);
    uint64_t now_ms = 1000, lease_ms;
    server_note_failure(row, SERVER_REFUSED, false, now_ms);
    for (int i = 0; i < 12; i++) {
        while (!server_try(row, now_ms, 0, 50, &lease_ms))
            now_ms += 100;
        server_note_failure(row, SERVER_REFUSED, true, now_ms);
    }
    assert_true(server_try(row, now_ms + 4000, 0, 50, &lease_ms));
    server_note_failure(row, SERVER_TIMEOUT, true, now_ms);
    assert_true(server_try(row, now_ms + 8000, 0, 50, &lease_ms));
}

/* How long it is away, if nothing comes meanwhile. */
static uint64_t away_ms(struct server_row *row, uint64_t now_ms)
{
    uint64_t lease_ms, ms = 0;
    while (!server_try(row, now_ms + ms, 0, 50, &lease_ms))
        ms += 100;
    return ms;
}

static void ejections_grow_longer_and_are_forgotten_with_good_time(void **state)
{
    (void)state;
    struct server_row *row = server_claim(table, 1, 100);
    uint64_t now_ms = 1000;
    for (unsigned level = 1; level <= 32; level++) {
        const unsigned n = level < 30 ? level : 30;
        if (level == 1)
            assert_true(server_eject(row, SERVER_OUTLIER, now_ms));
        else
            assert_false(server_note_error(row, true, true, now_ms)); /* of the trial */
        assert_int_equal(server_view(row).state, SERVER_EJECTED);
        assert_false(server_eject(row, SERVER_OUTLIER, now_ms));
        assert_false(server_note_answer(row, false, now_ms)); /* from before */
        const uint64_t ms = away_ms(row, now_ms);
        assert_in_range(ms, 9000 * n, 11000 * n + 100);
        now_ms += ms;
    }
    assert_int_equal(atomic_load(&row->ejections), 1);
    assert_true(server_note_answer(row, true, now_ms));
    assert_int_equal(server_warmth(row, 0, now_ms), 1);
    assert_int_equal(server_warmth(row, 0, now_ms + SERVER_RETURN_MS / 2), 50);
    assert_int_equal(server_warmth(row, 0, now_ms + SERVER_RETURN_MS), 100);
    now_ms += 25 * SERVER_GOOD_MS; /* of 30 levels, 25 are forgotten */
    for (int i = 0; i < 4; i++)
        assert_false(server_note_error(row, false, true, now_ms));
    assert_true(server_note_error(row, false, true, now_ms));
    assert_in_range(away_ms(row, now_ms), 9000 * 6, 11000 * 6 + 100);
}

static void a_trial_that_finds_nobody_makes_an_ejected_server_down(void **state)
{
    (void)state;
    struct server_row *row = server_claim(table, 1, 100);
    assert_true(server_eject(row, SERVER_OUTLIER, 1000));
    assert_false(server_note_failure(row, SERVER_REFUSED, false, 2000)); /* from before */
    assert_int_equal(server_view(row).state, SERVER_EJECTED);
    assert_false(server_note_failure(row, SERVER_REFUSED, true, 2000));
    assert_int_equal(server_view(row).state, SERVER_DOWN);
    assert_int_equal(away_ms(row, 2000), SERVER_PAUSE_MS);
    assert_false(server_note_error(row, true, true, 3000)); /* it starts, and is not ready */
    assert_int_equal(server_view(row).state, SERVER_DOWN);
    assert_int_equal(away_ms(row, 3000), 2 * SERVER_PAUSE_MS);
    assert_true(server_note_answer(row, true, 9000));
}

static void a_server_that_refuses_is_tried_each_second_and_sooner_when_it_is_seen(void **state)
{
    (void)state;
    struct server_row *row = server_claim(table, 1, 100);
    uint64_t now_ms = 1000, lease_ms;
    server_note_failure(row, SERVER_REFUSED, false, now_ms);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(away_ms(row, now_ms), 1000);
        now_ms += 1000;
        server_note_failure(row, SERVER_REFUSED, true, now_ms);
    }
    server_hurry(row, now_ms + 1);
    assert_true(server_try(row, now_ms + 1, 0, 50, &lease_ms));
    server_note_answer(row, true, now_ms + 2);
    server_eject(row, SERVER_OUTLIER, now_ms + 3);
    server_hurry(row, now_ms + 4); /* not to be trusted so soon */
    assert_false(server_try(row, now_ms + 4, 0, 50, &lease_ms));
}

static void failures_and_errors_make_one_row(void **state)
{
    (void)state;
    struct server_row *row = server_claim(table, 1, 100);
    for (int i = 0; i < 3; i++)
        assert_false(server_note_error(row, false, true, 1000));
    server_note_answer(row, false, 1001);
    assert_false(server_note_failure(row, SERVER_CLOSED, false, 1002));
    for (int i = 0; i < 3; i++)
        assert_false(server_note_error(row, false, true, 1003));
    assert_true(server_note_error(row, false, true, 1004));
    assert_int_equal(server_view(row).state, SERVER_EJECTED);
    server_readmit(row, 1005);
    assert_true(server_is_up(row));
    assert_int_equal(server_view(row).failures, 0);
    for (int i = 0; i < 100; i++) /* of the last one: counted alone */
        assert_false(server_note_error(row, false, false, 1006));
    assert_int_equal(atomic_load(&row->errors[SERVER_STATUS]), 107);
}

static void a_trial_without_an_outcome_is_anothers(void **state)
{
    (void)state;
    struct server_row *row = server_claim(table, 1, 100);
    uint64_t lease_ms, other_ms;
    server_note_failure(row, SERVER_REFUSED, false, 1000);
    assert_true(server_try(row, 2000, 0, 500, &lease_ms));
    assert_false(server_try(row, 2100, 0, 500, &other_ms));
    server_untry(row, lease_ms, 2200);
    assert_true(server_try(row, 2200, 0, 500, &other_ms));
    server_untry(row, lease_ms, 2300); /* that one is over */
    assert_false(server_try(row, 2300, 0, 500, &lease_ms));
    assert_true(server_try(row, 2700, 0, 500, &lease_ms)); /* its holder has died */
    assert_false(server_try(row, 4000, 10000, 500, &lease_ms));
    assert_true(server_try(row, 13200, 10000, 500, &lease_ms));
    assert_true(server_try(row, 90000, 0, 86400000, &lease_ms)); /* a day's timeout */
    assert_int_equal(lease_ms, 90000 + SERVER_LEASE_MS);
}

/* ---- deaths ---- */

static void kill_in_turn(void (*writer)(unsigned seed))
{
    pid_t pid[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++)
        pid[i] = 0;
    for (unsigned i = 0; i < KILLS; i++) {
        pid_t *p = &pid[i % WRITERS];
        if (*p) {
            const uint64_t then = atomic_load(&board->turns);
            while (atomic_load(&board->turns) < then + 1000)
                usleep(100);
            kill(*p, SIGKILL);
            waitpid(*p, NULL, 0);
            atomic_fetch_add(&board->now_ms, 2 * LEASE_MS); /* its lease runs out */
        }
        if ((*p = fork()) == 0) {
            writer(i + 1);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
    }
}

static void moves(unsigned seed)
{
    struct server_row *row = server_claim(table, 99, 1);
    for (;;) {
        const uint64_t now_ms = atomic_fetch_add(&board->now_ms, 1);
        const struct server_view v = server_view(row);
        if (v.state > SERVER_EJECTED || v.reason >= SERVER_REASONS)
            abort();
        seed = seed * 1103515245 + 12345;
        switch (seed >> 16 & 7) {
        case 0:
            server_note_answer(row, true, now_ms);
            break;
        case 1:
            server_note_failure(row, SERVER_REFUSED, false, now_ms);
            break;
        case 2:
            server_eject(row, SERVER_OUTLIER, now_ms);
            break;
        case 3:
            server_note_error(row, seed >> 20 & 1, true, now_ms);
            break;
        default:
            server_note_failure(row, SERVER_TIMEOUT, seed >> 20 & 1, now_ms);
        }
        atomic_fetch_add(&board->turns, 1);
    }
}

static void a_state_is_whole_whoever_dies(void **state)
{
    (void)state;
    kill_in_turn(moves);
    const struct server_row *row = server_find(table, 99);
    unsigned rows = 0;
    for (unsigned i = 0; i < SERVER_ROWS; i++)
        rows += atomic_load(&table->id[i]) == 99;
    assert_int_equal(rows, 1);
    const struct server_view v = server_view(row);
    assert_in_range(v.state, SERVER_UP, SERVER_EJECTED);
    assert_in_range(v.since_ms, 1, atomic_load(&board->now_ms));
}

/* Nobody gets a trial before the lease of the last one is over. */
static void trials(unsigned seed)
{
    struct server_row *row = server_claim(table, 99, 1);
    uint64_t lease_ms;
    (void)seed;
    for (;;) {
        atomic_fetch_add(&board->turns, 1);
        const uint64_t now_ms = atomic_load(&board->now_ms);
        if (!server_try(row, now_ms, 0, LEASE_MS, &lease_ms))
            continue;
        atomic_fetch_add(&board->trials, 1);
        const uint64_t last_ms = atomic_exchange(&board->lease_ms, lease_ms);
        if (now_ms < last_ms && last_ms - LEASE_MS <= now_ms) /* else it tells of itself late */
            atomic_fetch_add(&board->doubles, 1);
        atomic_fetch_add(&board->turns, 1);
        atomic_store(&board->lease_ms, 0);
        server_untry(row, lease_ms, atomic_load(&board->now_ms));
    }
}

static void one_process_has_the_trial_and_its_death_frees_it(void **state)
{
    (void)state;
    atomic_store(&board->now_ms, 10000);
    server_note_failure(server_claim(table, 99, 1), SERVER_REFUSED, false, 10);
    kill_in_turn(trials);
    assert_true(atomic_load(&board->trials) > KILLS);
    assert_int_equal(atomic_load(&board->doubles), 0);
}

/* ---- addresses ---- */

static struct server_addresses list_of(uint32_t n)
{
    struct server_addresses list = {.n = 1 + n % SERVER_ADDRESSES_MAX};
    for (uint32_t i = 0; i < list.n; i++) {
        list.at[i] = (struct server_address){.family = AF_INET};
        memcpy(list.at[i].addr, &n, sizeof n);
    }
    return list;
}

static void puts_lists(unsigned seed)
{
    struct server_row *row = server_claim(table, 99, 1);
    for (uint32_t n = seed * 1000000;; n++) {
        const struct server_addresses list = list_of(n);
        server_addresses_put(row, &list);
        atomic_fetch_add(&board->turns, 1);
    }
}

static void addresses_are_whole_whenever_they_are_read(void **state)
{
    struct server_row *row = server_claim(table, 99, 1);
    struct server_addresses list;
    (void)state;
    assert_false(server_addresses_get(row, &list));
    for (unsigned round = 1; round <= KILLS; round++) {
        const uint64_t then = atomic_load(&board->turns);
        const pid_t pid = fork();
        if (pid == 0) {
            puts_lists(round);
            _exit(0);
        }
        do {
            uint32_t n;
            if (!server_addresses_get(row, &list))
                continue;
            memcpy(&n, list.at[0].addr, sizeof n);
            const struct server_addresses wanted = list_of(n);
            assert_memory_equal(&list, &wanted, sizeof list);
        } while (atomic_load(&board->turns) < then + 1000);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

static void an_address_keeps_its_form(void **state)
{
    (void)state;
    struct sockaddr_storage sa;
    struct server_address a;
    char text[64];
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(81)};
    in6.sin6_addr.s6_addr[15] = 1;
    assert_true(server_address_from((struct sockaddr *)&in6, &a));
    server_address_text(&a, text, sizeof text);
    assert_string_equal(text, "[::1]:81");
    assert_int_equal(server_address_to(&a, &sa), sizeof in6);
    assert_memory_equal(&sa, &in6, sizeof in6);
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(80)};
    in.sin_addr.s_addr = htonl(0x7f000001);
    assert_true(server_address_from((struct sockaddr *)&in, &a));
    server_address_text(&a, text, sizeof text);
    assert_string_equal(text, "127.0.0.1:80");
    assert_int_equal(server_address_to(&a, &sa), sizeof in);
    assert_memory_equal(&sa, &in, sizeof in);
    in.sin_family = AF_UNIX;
    assert_false(server_address_from((struct sockaddr *)&in, &a));
}

#define STORY(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* ---- turns ---- */

enum { KEYS = 500 };

/* Which of two servers has each key? */
static void owners_of(const struct server_choice *c, struct sticky_key *key, int owner[KEYS])
{
    uint64_t lease_ms;
    for (unsigned i = 0; i < KEYS; i++) {
        key->hash = sticky_hash(&i, sizeof i);
        owner[i] = server_choose(c, &lease_ms);
    }
}

static int firsts(const int owner[KEYS])
{
    int n = 0;
    for (int i = 0; i < KEYS; i++)
        n += owner[i] == 0;
    return n;
}

static void keys_come_to_a_server_as_it_warms_up_and_leave_it_as_it_asks(void **state)
{
    struct config_upstream upstream = {.name = "u",
                                       .connect_timeout_ms = 1000,
                                       .timeout_ms = 1000,
                                       .n_servers = 2,
                                       .slow_start_ms = 10000};
    struct config_server servers[2] = {{.upstream = &upstream, .address.text = "a:1"},
                                       {.upstream = &upstream, .address.text = "b:1"}};
    struct sticky_key key = {0};
    struct server_option option[2];
    int64_t turn[2] = {0};
    int before[KEYS], now[KEYS], whole[KEYS];
    (void)state;
    upstream.servers = servers;
    for (int i = 0; i < 2; i++)
        option[i] = (struct server_option){server_claim(table, stats_server_id(&servers[i]), 1),
                                           .weight = 1, .turn = &turn[i]};
    struct server_choice c = {&upstream, option, 2, true, 20000, &key};
    owners_of(&c, &key, whole);
    assert_in_range(firsts(whole), KEYS * 4 / 10, KEYS * 6 / 10);
    server_note_failure(option[0].row, SERVER_REFUSED, false, 20000);
    assert_true(server_note_answer(option[0].row, true, 21000));
    c.now_ms = 21000;
    owners_of(&c, &key, before);
    assert_in_range(firsts(before), 0, KEYS / 20);
    for (; c.now_ms <= 31000; c.now_ms += 1000) { /* one after the other, and none leaves it */
        owners_of(&c, &key, now);
        for (int i = 0; i < KEYS; i++)
            assert_false(before[i] == 0 && now[i] == 1);
        memcpy(before, now, sizeof now);
    }
    assert_memory_equal(now, whole, sizeof now);
    server_check_set_weight(option[0].row, 25, false);
    owners_of(&c, &key, now);
    assert_in_range(firsts(now), KEYS * 14 / 100, KEYS * 26 / 100); /* 25 of 125 */
    for (int i = 0; i < KEYS; i++)
        assert_false(whole[i] == 1 && now[i] == 0);
    key.server =
        sticky_server_part(stats_server_id(&servers[0])); /* sessions that are known stay */
    owners_of(&c, &key, now);
    assert_int_equal(firsts(now), KEYS);
}

static void a_server_that_passes_its_checks_again_warms_up(void **state)
{
    struct server_row *row = server_claim(table, 1, 1);
    struct server_check_trend trend = {0};
    (void)state;
    server_check_note(row, &trend, SERVER_CHECK_PASSED, 1, 1, 50000);
    assert_int_equal(server_warmth(row, 10000, 50000), 100); /* the first one says nothing new */
    server_check_note(row, &trend, SERVER_CHECK_STATUS, 1, 1, 60000);
    server_check_note(row, &trend, SERVER_CHECK_PASSED, 1, 1, 70000);
    assert_int_equal(server_warmth(row, 10000, 70000), 1);
    server_check_note(row, &trend, SERVER_CHECK_PASSED, 1, 1, 75000);
    assert_int_equal(server_warmth(row, 10000, 75000), 50);
    assert_int_equal(server_warmth(row, 0, 75000), 100);
    assert_int_equal(server_warmth(row, 10000, 80000), 100);
    server_check_end(row);
    assert_int_equal(server_warmth(row, 100000, 100001), 100);
}

static void a_server_of_which_nothing_is_known_takes_its_turns(void **state)
{
    (void)state;
    const struct config_upstream upstream = {.connect_timeout_ms = 1000, .timeout_ms = 1000};
    struct server_row *down = server_claim(table, 1, 1);
    int64_t turn[3] = {0};
    struct server_option option[3] = {{.row = down, .weight = 8, .turn = &turn[0]},
                                      {.weight = 3, .turn = &turn[1]},
                                      {.weight = 1, .turn = &turn[2]}};
    const struct server_choice choice = {&upstream, option, 3, true, 10, NULL};
    uint64_t lease_ms;
    assert_true(server_note_failure(down, SERVER_REFUSED, false, 10));
    unsigned count[3] = {0};
    for (int i = 0; i < 40; i++) {
        count[server_choose(&choice, &lease_ms)]++;
        assert_int_equal(lease_ms, 0);
    }
    assert_int_equal(count[0], 0);
    assert_int_equal(count[1], 30);
    assert_int_equal(count[2], 10);
    option[1].avoid = true; /* there is another */
    assert_int_equal(server_choose(&choice, &lease_ms), 2);
    option[2].tried = true;
    option[0].weight = 0;
    assert_int_equal(server_choose(&choice, &lease_ms), 1); /* after all */
    option[1].tried = true;
    assert_int_equal(server_choose(&choice, &lease_ms), -1);
}

static void a_key_has_a_server_and_comes_back_to_it(void **state)
{
    (void)state;
    struct config_upstream upstream = {
        .name = "u", .connect_timeout_ms = 1000, .timeout_ms = 1000, .n_servers = 3};
    struct config_server servers[3] = {{.upstream = &upstream, .address.text = "a:1"},
                                       {.upstream = &upstream, .address.text = "b:1"},
                                       {.upstream = &upstream, .address.text = "c:1"}};
    upstream.servers = servers;
    struct sticky_key key = {.hash = 77};
    int64_t turn[3] = {0};
    struct server_option option[3];
    for (int i = 0; i < 3; i++)
        option[i] =
            (struct server_option){.row = server_claim(table, stats_server_id(&servers[i]), 1),
                                   .weight = 1,
                                   .turn = &turn[i]};
    struct server_choice choice = {&upstream, option, 3, true, 10, &key};
    uint64_t lease_ms;
    const int own = server_choose(&choice, &lease_ms);
    for (int i = 0; i < 20; i++)
        assert_int_equal(server_choose(&choice, &lease_ms), own);
    option[own].avoid = true; /* a kept connection was closed: its server is as good as before */
    assert_int_equal(server_choose(&choice, &lease_ms), own);
    option[own].avoid = false;
    option[own].full = true;
    const int next = server_choose(&choice, &lease_ms);
    assert_int_not_equal(next, own);
    option[own].full = false;
    option[next].backup = true; /* of those that are up, the first for the key is no backup */
    assert_int_equal(server_choose(&choice, &lease_ms), own);
    option[next].backup = false;
    assert_true(server_note_failure(option[own].row, SERVER_REFUSED, false, 10));
    assert_int_equal(server_choose(&choice, &lease_ms), next); /* no trial is due */
    assert_int_equal(lease_ms, 0);
    choice.now_ms = 10 + SERVER_PAUSE_MS;
    assert_int_equal(server_choose(&choice, &lease_ms),
                     own); /* it is the trial of its own server */
    assert_true(lease_ms > 0);
    assert_int_equal(server_choose(&choice, &lease_ms), next);
    server_note_answer(option[own].row, true, choice.now_ms);
    assert_int_equal(server_choose(&choice, &lease_ms), own);
    key.server = sticky_server_part(stats_server_id(&servers[3 - own - next]));
    assert_int_equal(server_choose(&choice, &lease_ms),
                     3 - own - next); /* a session that is known */
    option[3 - own - next].weight = 0;
    assert_int_equal(server_choose(&choice, &lease_ms), own);
    option[own].tried = option[next].tried = true;
    assert_int_equal(server_choose(&choice, &lease_ms), SERVER_CHOICE_NONE);
}

/* ---- the last one that is up ---- */

#define ROUNDS 20000
static struct server_option last_two[2];
static _Atomic unsigned arrived[3], passed;

/* Both begin at the same moment, and go on when both have ended. */
static void meet(_Atomic unsigned *at, unsigned round)
{
    atomic_fetch_add(at, 1);
    for (unsigned i = 0; atomic_load(at) < 2 * (round + 1); i++)
        if (i > 1000) /* the other one has no core */
            sched_yield();
}

static void *fails_alone(void *arg)
{
    static struct config_upstream upstream = {.eject = true};
    const uint32_t i = (uint32_t)(uintptr_t)arg;
    const struct server_choice choice = {&upstream, last_two, 2, false, 10, NULL};
    const struct server_name name = {last_two[i].row, NULL, "u", "s"};
    for (unsigned round = 0; round < ROUNDS; round++) {
        meet(&arrived[0], round);
        for (unsigned k = 0; k < SERVER_EJECT_ERRORS; k++)
            server_choice_error(&choice, i, &name, false);
        meet(&arrived[1], round);
        if (i)
            atomic_fetch_add(&passed,
                             server_is_up(last_two[0].row) || server_is_up(last_two[1].row));
        meet(&arrived[2], round); /* it was looked at */
        server_readmit(last_two[i].row, 10);
    }
    return NULL;
}

/* Two processes eject the last two servers at once. */
static void of_the_last_two_one_stays_up(void **state)
{
    pthread_t thread[2];
    (void)state;
    for (uintptr_t i = 0; i < 2; i++)
        last_two[i] = (struct server_option){.row = server_claim(table, i + 1, 10), .weight = 1};
    for (uintptr_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, fails_alone, (void *)i), 0);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(atomic_load(&passed), ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(keys_come_to_a_server_as_it_warms_up_and_leave_it_as_it_asks),
        STORY(a_server_that_passes_its_checks_again_warms_up),
        STORY(a_key_has_a_server_and_comes_back_to_it),
        STORY(a_server_of_which_nothing_is_known_takes_its_turns),
        STORY(a_row_is_found_again_by_its_id),
        STORY(a_full_table_gives_back_what_no_configuration_has),
        STORY(each_kind_of_failure_has_its_patience),
        STORY(the_pause_between_trials_grows_to_its_most),
        STORY(a_long_absence_does_not_lengthen_pauses_for_another_reason),
        STORY(a_trial_without_an_outcome_is_anothers),
        STORY(ejections_grow_longer_and_are_forgotten_with_good_time),
        STORY(a_trial_that_finds_nobody_makes_an_ejected_server_down),
        STORY(a_server_that_refuses_is_tried_each_second_and_sooner_when_it_is_seen),
        STORY(failures_and_errors_make_one_row),
        STORY(of_the_last_two_one_stays_up),
        STORY(a_state_is_whole_whoever_dies),
        STORY(one_process_has_the_trial_and_its_death_frees_it),
        STORY(addresses_are_whole_whenever_they_are_read),
        STORY(an_address_keeps_its_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

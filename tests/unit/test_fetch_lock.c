/* SPDX-License-Identifier: BSD-2-Clause */
/* One leader a key, over processes that are killed at any instant; nobody waits for ever. */
#include "polder/fetch_lock.h"
#include "polder/cache.h"
#include "polder/clock.h"
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define WORKERS 128
#define STORM   4 /* processes of the storm */
#define KEYS    24
#define STUCK   500 /* ms that nobody may wait */

static struct fetch_lock_table *table;
static int events[WORKERS];

static int setup(void **state)
{
    (void)state;
    table = mmap(NULL, fetch_lock_table_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                 -1, 0);
    assert_ptr_not_equal(table, MAP_FAILED);
    for (unsigned i = 0; i < WORKERS; i++)
        events[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap(table, fetch_lock_table_size());
    for (unsigned i = 0; i < WORKERS; i++)
        close(events[i]);
    return 0;
}

/* home: where its window begins; tag: what tells it from others there */
static struct cache_key key_of(uint32_t home, uint32_t tag)
{
    struct cache_key key = {{0}};
    memcpy(key.hash, &home, sizeof home);
    memcpy(key.hash + 8, &tag, sizeof tag);
    return key;
}

static bool woken(uint32_t worker)
{
    uint64_t n;
    return read(events[worker], &n, sizeof n) == (ssize_t)sizeof n;
}

static void one_leads_the_others_wait_until_it_releases(void **state)
{
    (void)state;
    const struct cache_key key = key_of(7, 1);
    struct fetch_permit lead, wait, high;
    assert_false(fetch_lock_is_claimed(table, &key, 1000));
    assert_int_equal(fetch_lock_claim(table, &key, 0, 1, 1000, &lead), FETCH_LOCK_LEAD);
    assert_true(fetch_lock_is_claimed(table, &key, 1000));
    assert_false(fetch_lock_is_awaited(table, &lead));
    assert_false(fetch_lock_is_claimed(table, &key, 1000 + FETCH_LOCK_LEASE_MS));
    assert_int_equal(fetch_lock_claim(table, &key, 1, 1, 1000, &wait), FETCH_LOCK_WAIT);
    assert_int_equal(fetch_lock_claim(table, &key, 127, 9, 1000, &high), FETCH_LOCK_WAIT);
    assert_true(fetch_lock_pending(table, &wait, 1000));
    assert_true(fetch_lock_is_awaited(table, &lead));
    fetch_lock_release(table, &lead, FETCH_LOCK_STORED, events);
    assert_false(fetch_lock_is_awaited(table, &lead));
    assert_false(fetch_lock_is_claimed(table, &key, 1000));
    assert_true(woken(1) && woken(127));
    assert_false(woken(0) || woken(2));
    assert_false(fetch_lock_pending(table, &wait, 1000));
    assert_false(fetch_lock_wait_again(table, &wait, 1));
    assert_int_equal(fetch_lock_claim(table, &key, 1, 1, 1000, &wait), FETCH_LOCK_LEAD);
}

static void a_late_release_leaves_the_next_claim_alone(void **state)
{
    (void)state;
    const struct cache_key key = key_of(7, 1);
    struct fetch_permit first, second;
    assert_int_equal(fetch_lock_claim(table, &key, 3, 1, 1000, &first), FETCH_LOCK_LEAD);
    fetch_lock_release(table, &first, FETCH_LOCK_STORED, events);
    assert_int_equal(fetch_lock_claim(table, &key, 3, 1, 1000, &second), FETCH_LOCK_LEAD);
    fetch_lock_release(table, &first, FETCH_LOCK_STORED, events); /* the keeper replays its ring */
    assert_true(fetch_lock_pending(table, &second, 1000));
}

static void an_expired_lease_is_released_and_a_renewed_one_is_not(void **state)
{
    (void)state;
    const struct cache_key key = key_of(4095, 1);
    struct fetch_permit lead, wait;
    assert_int_equal(fetch_lock_claim(table, &key, 0, 1, 1000, &lead), FETCH_LOCK_LEAD);
    assert_int_equal(fetch_lock_claim(table, &key, 1, 1, 1000, &wait), FETCH_LOCK_WAIT);
    fetch_lock_renew(table, &lead, 6000);
    assert_true(fetch_lock_pending(table, &wait, 1000 + FETCH_LOCK_LEASE_MS));
    assert_false(fetch_lock_pending(table, &wait, 6000 + FETCH_LOCK_LEASE_MS));
    assert_int_equal(fetch_lock_claim(table, &key, 1, 1, 6000 + FETCH_LOCK_LEASE_MS, &wait),
                     FETCH_LOCK_LEAD);
    fetch_lock_renew(table, &lead, 50000); /* no longer its claim */
    assert_false(fetch_lock_pending(table, &wait, 6000 + 2 * FETCH_LOCK_LEASE_MS));
}

static void what_is_with_the_keeper_is_not_waited_for_long(void **state)
{
    (void)state;
    const struct cache_key key = key_of(12, 1);
    struct fetch_permit lead, wait, next;
    assert_int_equal(fetch_lock_claim(table, &key, 0, 1, 1000, &lead), FETCH_LOCK_LEAD);
    assert_int_equal(fetch_lock_claim(table, &key, 1, 1, 1000, &wait), FETCH_LOCK_WAIT);
    fetch_lock_hand_over(table, &lead, 30000);
    assert_true(fetch_lock_pending(table, &wait, 30000 + FETCH_LOCK_STORE_MS - 1));
    assert_false(fetch_lock_pending(table, &wait, 30000 + FETCH_LOCK_STORE_MS));
    assert_int_equal(fetch_lock_claim(table, &key, 1, 1, 31500, &next), FETCH_LOCK_LEAD);
    fetch_lock_hand_over(table, &lead, 31500); /* late: it is another one's */
    assert_true(fetch_lock_pending(table, &next, 40000));
    fetch_lock_release(table, &lead, FETCH_LOCK_STORED, events);
    assert_true(fetch_lock_pending(table, &next, 40000));
}

static void a_full_window_is_reported_and_needs_no_ticket(void **state)
{
    (void)state;
    struct fetch_permit t[9];
    for (uint32_t i = 0; i < 8; i++) {
        const struct cache_key key = key_of(100, i + 1);
        assert_int_equal(fetch_lock_claim(table, &key, 0, 1, 1000, &t[i]), FETCH_LOCK_LEAD);
    }
    const struct cache_key key = key_of(100, 99);
    assert_int_equal(fetch_lock_claim(table, &key, 0, 1, 1000, &t[8]), FETCH_LOCK_FULL);
    assert_int_equal(t[8].slot, UINT32_MAX);
    assert_false(fetch_lock_pending(table, &t[8], 1000));
    fetch_lock_release(table, &t[8], FETCH_LOCK_STORED, events);
    fetch_lock_release(table, &t[3], FETCH_LOCK_STORED, events);
    assert_int_equal(fetch_lock_claim(table, &key, 0, 1, 1000, &t[8]), FETCH_LOCK_LEAD);
}

static void what_cannot_be_shared_is_remembered_for_thirty_seconds(void **state)
{
    (void)state;
    const struct cache_key key = key_of(55, 5), other = key_of(55, 6);
    struct fetch_permit t;
    assert_false(fetch_lock_is_noshare(table, &key, 1000));
    assert_int_equal(fetch_lock_claim(table, &key, 0, 1, 1000, &t), FETCH_LOCK_LEAD);
    fetch_lock_release(table, &t, FETCH_LOCK_NOSHARE, events);
    assert_true(fetch_lock_is_noshare(table, &key, 1001));
    assert_true(fetch_lock_is_noshare(table, &key, 30000));
    assert_in_range(fetch_lock_noshare_ms(table, &key, 30000), 500, 1500);
    assert_int_equal(fetch_lock_noshare_ms(table, &key, 31500), 0);
    assert_false(fetch_lock_is_noshare(table, &key, 31500));
    assert_false(fetch_lock_is_noshare(table, &other, 1001));
}

static void reaping_frees_what_the_dead_held_and_wakes_who_waited(void **state)
{
    (void)state;
    const struct cache_key a = key_of(1, 1), b = key_of(2, 2);
    struct fetch_permit ta, tb, wait;
    assert_int_equal(fetch_lock_claim(table, &a, 5, 3, 1000, &ta), FETCH_LOCK_LEAD);
    assert_int_equal(fetch_lock_claim(table, &b, 5, 4, 1000, &tb), FETCH_LOCK_LEAD);
    assert_int_equal(fetch_lock_claim(table, &a, 70, 1, 1000, &wait), FETCH_LOCK_WAIT);
    fetch_lock_reap(table, 5, 3, events);
    assert_true(woken(70));
    assert_false(fetch_lock_pending(table, &ta, 1000));
    assert_true(fetch_lock_pending(table, &tb, 1000)); /* the successor's */
}

/* ---- the storm ---- */

static struct storm {
    _Atomic uint32_t leader[KEYS]; /* who fetches: worker + 1; set and cleared by leaders */
    _Atomic uint64_t leads, doubles, stuck, waits, fulls;
} * storm;

static void storm_wait(const struct fetch_permit *permit, uint32_t me)
{
    const uint64_t end = clock_mono_ms() + STUCK;
    struct pollfd p = {events[me], POLLIN, 0};
    uint64_t n;
    storm->waits++;
    for (;;) {
        if (poll(&p, 1, 50) > 0 && read(events[me], &n, sizeof n) < 0)
            continue;
        if (!fetch_lock_wait_again(table, permit, me))
            return;
        if (clock_mono_ms() > end) {
            storm->stuck++;
            return;
        }
    }
}

static void storm_worker(uint32_t me, uint32_t incarnation)
{
    unsigned seed = me * 7919u + incarnation;
    for (;;) {
        const uint32_t k = (uint32_t)rand_r(&seed) % KEYS;
        const struct cache_key key = key_of(k / 3, k + 1); /* crowded windows */
        struct fetch_permit permit;
        switch (fetch_lock_claim(table, &key, me, incarnation, clock_mono_ms(), &permit)) {
        case FETCH_LOCK_WAIT:
            storm_wait(&permit, me);
            continue;
        case FETCH_LOCK_FULL:
            storm->fulls++;
            continue;
        case FETCH_LOCK_LEAD:
            break;
        }
        uint32_t nobody = 0, self = me + 1;
        storm->leads++;
        if (!atomic_compare_exchange_strong(&storm->leader[k], &nobody, self))
            storm->doubles++;
        if (rand_r(&seed) % 64 == 0)
            poll(NULL, 0, 1);
        atomic_compare_exchange_strong(&storm->leader[k], &self, 0);
        fetch_lock_release(table, &permit,
                           rand_r(&seed) % 8 ? FETCH_LOCK_STORED : FETCH_LOCK_NOSHARE, events);
    }
}

static pid_t storm_fork(uint32_t me, uint32_t incarnation)
{
    const pid_t pid = fork();
    if (pid == 0)
        storm_worker(me, incarnation);
    return pid;
}

/* As the master does: what the dead one held is free before its successor runs. */
static void storm_kill(pid_t *pid, uint32_t me, uint32_t *incarnation)
{
    kill(*pid, SIGKILL);
    waitpid(*pid, NULL, 0);
    for (unsigned k = 0; k < KEYS; k++) {
        uint32_t self = me + 1;
        atomic_compare_exchange_strong(&storm->leader[k], &self, 0);
    }
    fetch_lock_reap(table, me, *incarnation, events);
    *pid = storm_fork(me, ++*incarnation);
}

static void who_waits_knows_whether_the_response_has_begun(void **state)
{
    (void)state;
    const struct cache_key key = key_of(7, 1);
    struct fetch_permit lead, wait, next, late;
    fetch_lock_claim(table, &key, 0, 1, 1000, &lead);
    fetch_lock_claim(table, &key, 1, 1, 1000, &wait);
    assert_true(fetch_lock_is_silent(table, &wait));
    fetch_lock_note_answer(table, &lead);
    assert_false(fetch_lock_is_silent(table, &wait));
    fetch_lock_release(table, &lead, FETCH_LOCK_FAILED, events);
    assert_false(fetch_lock_is_silent(table, &wait));
    assert_int_equal(fetch_lock_claim(table, &key, 1, 1, 2000, &next), FETCH_LOCK_LEAD);
    fetch_lock_claim(table, &key, 2, 1, 2000, &late);
    fetch_lock_note_answer(table, &lead); /* it was released */
    assert_true(fetch_lock_is_silent(table, &late));
    fetch_lock_release(table, &next, FETCH_LOCK_FAILED, events);
    assert_true(fetch_lock_is_silent(table, &late));
}

static void who_joins_waits_and_never_leads(void **state)
{
    (void)state;
    const struct cache_key key = key_of(7, 1), other = key_of(7, 2);
    struct fetch_permit lead, wait;
    assert_false(fetch_lock_join(table, &key, 1, 1000, &wait));
    assert_int_equal(fetch_lock_claim(table, &key, 0, 1, 1000, &lead), FETCH_LOCK_LEAD);
    assert_false(fetch_lock_join(table, &other, 1, 1000, &wait));
    assert_true(fetch_lock_join(table, &key, 1, 1000, &wait));
    assert_true(fetch_lock_pending(table, &wait, 1000));
    fetch_lock_release(table, &lead, FETCH_LOCK_STORED, events);
    assert_true(woken(1));
    assert_false(fetch_lock_pending(table, &wait, 1000));
    assert_false(fetch_lock_join(table, &key, 1, 1000, &wait));
}

static void never_two_leaders_and_nobody_stuck_while_workers_die(void **state)
{
    (void)state;
    static const uint32_t who[STORM] = {0, 63, 64, 127};
    pid_t pid[STORM];
    uint32_t incarnation[STORM];
    unsigned seed = 1;
    storm = mmap(NULL, sizeof *storm, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < STORM; i++)
        pid[i] = storm_fork(who[i], incarnation[i] = 1);
    unsigned kills = 0;
    const uint64_t end = clock_mono_ms() + 2000;
    while (clock_mono_ms() < end) {
        poll(NULL, 0, 2 + (int)((unsigned)rand_r(&seed) % 4));
        const unsigned i = (unsigned)rand_r(&seed) % STORM;
        storm_kill(&pid[i], who[i], &incarnation[i]);
        kills++;
    }
    for (unsigned i = 0; i < STORM; i++) {
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
    }
    assert_true(kills > 50 && storm->leads > 1000 && storm->waits > 100);
    assert_int_equal(storm->doubles, 0);
    assert_int_equal(storm->stuck, 0);
    munmap(storm, sizeof *storm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_leads_the_others_wait_until_it_releases, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_waits_knows_whether_the_response_has_begun, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(who_joins_waits_and_never_leads, setup, teardown),
        cmocka_unit_test_setup_teardown(a_late_release_leaves_the_next_claim_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_expired_lease_is_released_and_a_renewed_one_is_not,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_with_the_keeper_is_not_waited_for_long, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_full_window_is_reported_and_needs_no_ticket, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_shared_is_remembered_for_thirty_seconds,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(reaping_frees_what_the_dead_held_and_wakes_who_waited,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(never_two_leaders_and_nobody_stuck_while_workers_die, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

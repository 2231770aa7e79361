/* SPDX-License-Identifier: BSD-2-Clause */
/* Claims that wait for the keeper: each is released, wherever the keeper dies, and none waits for work
 * that is not its own. */
#include "keeper_rig.h"

#define MIB    ((uint64_t)1 << 20)
#define CLAIMS 20

/* Writing to a full eventfd that blocks holds the keeper in the middle of the release. */
static void event_fill(int fd)
{
    const uint64_t most = UINT64_MAX - 1;
    assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
    assert_int_equal(write(fd, &most, sizeof most), sizeof most);
}

static void event_empty(int fd)
{
    uint64_t count;
    assert_int_equal(read(fd, &count, sizeof count), sizeof count);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

/* As of then: no lease runs out. */
static unsigned pending(const struct rig *r, const struct fetch_permit *permit, uint64_t now_ms)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CLAIMS; i++)
        n += fetch_lock_pending(r->sh.fetch_locks, &permit[i], now_ms);
    return n;
}

static void all_claims_are_released_although_the_keeper_dies_among_them(void **state)
{
    struct rig r;
    struct fetch_permit permit[CLAIMS], waits;
    char url[32], body[300];
    const uint64_t now_ms = clock_mono_ms();
    (void)state;
    rig_init(&r, 1000, 32 * MIB);
    rig_start(&r);
    kill(r.keeper, SIGSTOP); /* so that they are one batch */
    for (unsigned i = 0; i < CLAIMS; i++) {
        snprintf(url, sizeof url, "h/claim%u", i);
        struct cache_record record = rig_record(&r, url, 1, RIG_HEAD);
        assert_int_equal(fetch_lock_claim(r.sh.fetch_locks, &record.key, 0, 1, now_ms, &permit[i]),
                         FETCH_LOCK_LEAD);
        assert_int_equal(fetch_lock_claim(r.sh.fetch_locks, &record.key, 1, 1, now_ms, &waits),
                         FETCH_LOCK_WAIT);
        rig_body(url, 1, body, sizeof body);
        assert_int_equal(rig_store_record(&r, 0, &permit[i], &record, url, body, sizeof body), 0);
    }
    event_fill(r.sh.worker_event[1]);
    kill(r.keeper, SIGCONT);
    rig_wait(pending(&r, permit, now_ms) == CLAIMS - 1);
    rig_kill(&r);
    event_empty(r.sh.worker_event[1]);
    rig_start(&r);
    rig_wait(pending(&r, permit, now_ms) == 0);
    for (unsigned i = 0; i < CLAIMS; i++) {
        snprintf(url, sizeof url, "h/claim%u", i);
        assert_int_equal(rig_look(&r, url), 1);
    }
    rig_wait(rig_drained(&r));
    rig_free(&r);
}

/* A bound that is lowered by far is not paid for by who stores next. */
static void one_batch_does_not_evict_all_that_is_too_much(void **state)
{
    struct rig r;
    struct fetch_permit permit, waits;
    char url[32], body[100];
    const uint64_t now_ms = clock_mono_ms();
    (void)state;
    rig_init(&r, 5000, 64 * MIB);
    rig_start(&r);
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(url, sizeof url, "h/%u", i);
        rig_must_store(&r, url, 1, sizeof body);
    }
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 3000);
    kill(r.keeper, SIGSTOP);
    rig_limits(&r, 10, 64 * MIB);
    struct cache_record record = rig_record(&r, "h/next", 1, RIG_HEAD);
    fetch_lock_claim(r.sh.fetch_locks, &record.key, 0, 1, now_ms, &permit);
    fetch_lock_claim(r.sh.fetch_locks, &record.key, 1, 1, now_ms, &waits);
    rig_body("h/next", 1, body, sizeof body);
    rig_store_record(&r, 0, &permit, &record, "h/next", body, sizeof body);
    event_fill(r.sh.worker_event[1]); /* it gets as far as the release of the claim */
    kill(r.keeper, SIGCONT);
    rig_wait(rig_look(&r, "h/next") == 1);
    assert_in_range(rig_counter(&r, STATS_CACHE_EVICTIONS), 1, 500);
    event_empty(r.sh.worker_event[1]);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 10); /* in the background */
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_claims_are_released_although_the_keeper_dies_among_them),
        cmocka_unit_test(one_batch_does_not_evict_all_that_is_too_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

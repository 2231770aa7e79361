/* SPDX-License-Identifier: BSD-2-Clause */
/* Flights that wait for the keeper: each lands, wherever the keeper dies. */
#include "keeper_rig.h"

#define MIB     ((uint64_t)1 << 20)
#define FLIGHTS 20

/* Writing to a full eventfd that blocks holds the keeper in the middle of landing. */
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
static unsigned pending(const struct rig *r, const struct inflight_ticket *ticket, uint64_t now_ms)
{
    unsigned n = 0;
    for (unsigned i = 0; i < FLIGHTS; i++)
        n += inflight_pending(r->sh.inflight, &ticket[i], now_ms);
    return n;
}

static void all_flights_land_although_the_keeper_dies_among_them(void **state)
{
    struct rig r;
    struct inflight_ticket ticket[FLIGHTS], waits;
    char url[32], body[300];
    const uint64_t now_ms = clock_mono_ms();
    (void)state;
    rig_init(&r, 1000, 32 * MIB);
    rig_start(&r);
    kill(r.keeper, SIGSTOP); /* so that they are one batch */
    for (unsigned i = 0; i < FLIGHTS; i++) {
        snprintf(url, sizeof url, "h/flight%u", i);
        struct cache_record record = rig_record(&r, url, 1, RIG_HEAD);
        assert_int_equal(inflight_claim(r.sh.inflight, &record.key, 0, 1, now_ms, &ticket[i]),
                         INFLIGHT_LEAD);
        assert_int_equal(inflight_claim(r.sh.inflight, &record.key, 1, 1, now_ms, &waits),
                         INFLIGHT_WAIT);
        rig_body(url, 1, body, sizeof body);
        assert_int_equal(rig_store_record(&r, 0, &ticket[i], &record, url, body, sizeof body), 0);
    }
    event_fill(r.sh.worker_event[1]);
    kill(r.keeper, SIGCONT);
    rig_wait(pending(&r, ticket, now_ms) == FLIGHTS - 1);
    rig_kill(&r);
    event_empty(r.sh.worker_event[1]);
    rig_start(&r);
    rig_wait(pending(&r, ticket, now_ms) == 0);
    for (unsigned i = 0; i < FLIGHTS; i++) {
        snprintf(url, sizeof url, "h/flight%u", i);
        assert_int_equal(rig_look(&r, url), 1);
    }
    rig_wait(rig_drained(&r));
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_flights_land_although_the_keeper_dies_among_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

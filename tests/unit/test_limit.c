/* SPDX-License-Identifier: BSD-2-Clause */
/* Limits: exact to the request, whatever changes, whoever is killed; time is a number here. */
#include "libshared/limit/limit_table.h"
#include "polder/clock.h"
#include "polder/limit.h"
#include "polder/proc.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "limit_rig.h"

#define ENTRIES   ((size_t)1 << 14)
#define T0        UINT64_C(500000000)
#define MINUTE    UINT64_C(60000)
#define DAY       UINT64_C(86400000)
#define WORKERS   4
#define KILL_KEYS 64
#define KILLS     300

static struct limit_caller me;

static size_t table_entries;

static void table_make(size_t entries)
{
    table_entries = entries;
    table = shared_memory(limit_table_size(entries));
    limit_table_init(table, entries);
    proc = shared_memory(sizeof *proc);
    me = process_born(WORKERS);
}

static int setup(void **state)
{
    (void)state;
    table_make(ENTRIES);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap(table, limit_table_size(table_entries));
    munmap(proc, sizeof *proc);
    return 0;
}

static uint64_t key_of(uint64_t who)
{
    return limit_key(table, 1, &who, sizeof who);
}

static bool charge(uint64_t key, const struct runtime_limit *l, uint32_t cost, uint64_t now,
                   struct limit_verdict *v)
{
    const struct limit_charge c = {.key = key, .limit = l, .cost = cost};
    return limit_charge(&me, &c, 1, now, v);
}

static bool peek(uint64_t key, const struct runtime_limit *l, uint32_t cost, uint64_t now,
                 struct limit_verdict *v)
{
    const struct limit_charge c = {.key = key, .limit = l, .cost = cost};
    limit_peek(&me, &c, now, v);
    return v->admitted;
}

/* How many of `tries` are admitted at that time. */
static uint64_t admitted(uint64_t key, const struct runtime_limit *l, uint64_t tries, uint64_t now)
{
    struct limit_verdict v;
    uint64_t n = 0;
    for (uint64_t i = 0; i < tries; i++)
        n += charge(key, l, 1, now, &v);
    return n;
}

static struct runtime_limit limit_of(enum runtime_algorithm a, uint32_t requests, uint64_t window)
{
    return (struct runtime_limit){.requests = requests, .algorithm = a, .window_ms = window};
}

#define EACH_ALGORITHM(a) for (enum runtime_algorithm a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++)

/* ---- each algorithm ---- */

static void exactly_as_many_as_configured_are_admitted(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, 20, MINUTE);
        struct limit_verdict v;
        for (uint32_t i = 0; i < 25; i++) {
            assert_int_equal(charge(key_of(a), &l, 1, T0, &v), i < 20);
            assert_int_equal(v.admitted, i < 20);
            assert_int_equal(v.remaining, i < 20 ? 19 - i : 0);
            assert_int_equal(v.retry_ms == 0, i < 20);
        }
        assert_int_equal(admitted(key_of(100 + a), &l, 25, T0), 20); /* somebody else */
    }
}

static void a_slot_of_a_sliding_limit_is_free_between_one_and_one_point_two_windows_later(void **s)
{
    (void)s;
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 3, MINUTE);
    for (uint64_t at = T0; at < T0 + 24000; at += 1000) {
        const uint64_t key = key_of(at);
        assert_int_equal(admitted(key, &l, 5, at), 3);
        assert_int_equal(admitted(key, &l, 5, at + MINUTE - 1), 0);
        assert_int_equal(admitted(key, &l, 5, at + MINUTE * 12 / 10), 3);
    }
}

static void a_fixed_limit_begins_anew_with_each_aligned_window(void **state)
{
    (void)state;
    const struct runtime_limit l = limit_of(RUNTIME_FIXED, 3, MINUTE);
    const uint64_t start = T0 / MINUTE * MINUTE;
    struct limit_verdict v;
    assert_int_equal(admitted(key_of(1), &l, 5, start + 59999), 3);
    assert_int_equal(admitted(key_of(1), &l, 5, start + 60000), 3);
    assert_false(charge(key_of(1), &l, 1, start + 70000, &v));
    assert_int_equal(v.retry_ms, 50000);
    assert_int_equal(v.reset_ms, 50000);
}

static void a_gcra_limit_admits_a_burst_and_refills_evenly(void **state)
{
    (void)state;
    const struct runtime_limit l = limit_of(RUNTIME_GCRA, 60, MINUTE);
    assert_int_equal(admitted(key_of(1), &l, 100, T0), 60);
    for (uint64_t t = T0 + 1000; t < T0 + 100000; t += 1000) {
        assert_int_equal(admitted(key_of(1), &l, 3, t - 1), 0);
        assert_int_equal(admitted(key_of(1), &l, 3, t), 1);
    }
    assert_int_equal(admitted(key_of(1), &l, 100, T0 + 99000 + 30000), 30);
    assert_int_equal(admitted(key_of(1), &l, 100, T0 + DAY), 60);
}

static void gcra_rounds_nothing_away(void **state)
{
    (void)state;
    /* 7 in 100 ms: a drain of 7 units each ms from a level counted in hundredths */
    const struct runtime_limit l = limit_of(RUNTIME_GCRA, 7, 100);
    uint64_t n = 0;
    for (uint64_t t = T0; t < T0 + 100000; t++)
        n += admitted(key_of(1), &l, 2, t);
    assert_int_equal(n, 7 + 7 * 999 + 6); /* the burst, and what had drained by the last ms */
}

/* ---- what clients are told ---- */

static uint64_t random_state = 42;
static uint64_t random_below(uint64_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (random_state >> 33) % n;
}

static void who_obeys_retry_is_admitted_and_a_millisecond_earlier_is_not(void **state)
{
    (void)state;
    const uint64_t windows[] = {100, 999, 1000, 7001, MINUTE, DAY, 30 * DAY};
    EACH_ALGORITHM(a) for (size_t w = 0; w < sizeof windows / sizeof *windows; w++)
    {
        uint64_t now = T0;
        for (int round = 0; round < 300; round++) {
            const struct runtime_limit l = limit_of(a, 1 + (uint32_t)random_below(20), windows[w]);
            const uint32_t cost = 1 + (uint32_t)random_below(l.requests);
            struct limit_verdict v, then;
            now += random_below(windows[w] / 8 + 2);
            if (charge(key_of(w), &l, cost, now, &v))
                continue;
            assert_true(v.retry_ms > 0 && v.retry_ms <= windows[w] * 12 / 10 + 6);
            assert_true(peek(key_of(w), &l, cost, now + v.retry_ms, &then));
            assert_false(peek(key_of(w), &l, cost, now + v.retry_ms - 1, &then));
        }
        limit_reset_all(table, 1);
    }
}

static void reset_tells_when_more_quota_comes(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, 10, MINUTE);
        struct limit_verdict v, before, after;
        peek(key_of(a), &l, 1, T0, &v);
        assert_int_equal(v.remaining, 10);
        assert_int_equal(v.reset_ms, 0);
        for (int i = 0; i < 6; i++) {
            charge(key_of(a), &l, 1, T0 + (uint64_t)i * 5000, &v);
            peek(key_of(a), &l, 1, T0 + (uint64_t)i * 5000 + v.reset_ms - 1, &before);
            peek(key_of(a), &l, 1, T0 + (uint64_t)i * 5000 + v.reset_ms, &after);
            assert_true(after.remaining > before.remaining);
            assert_int_equal(before.remaining, v.remaining);
        }
    }
}

static void peeking_charges_nothing(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, 2, MINUTE);
        struct limit_verdict v;
        for (int i = 0; i < 10; i++)
            assert_true(peek(key_of(a), &l, 1, T0, &v));
        assert_int_equal(admitted(key_of(a), &l, 5, T0), 2);
        for (int i = 0; i < 10; i++)
            assert_false(peek(key_of(a), &l, 1, T0, &v));
    }
}

/* ---- changes while it runs ---- */

static void a_changed_number_of_requests_applies_to_the_same_count(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        struct runtime_limit l = limit_of(a, 100, MINUTE);
        assert_int_equal(admitted(key_of(a), &l, 200, T0), 100);
        l.requests = 150;
        assert_int_equal(admitted(key_of(a), &l, 200, T0), 50);
        l.requests = 50;
        assert_int_equal(admitted(key_of(a), &l, 200, T0), 0);
        l.requests = 151;
        assert_int_equal(admitted(key_of(a), &l, 200, T0), 1);
    }
}

static void counts_are_kept_over_changes_of_window_and_algorithm(void **state)
{
    (void)state;
    const uint64_t windows[] = {1000, MINUTE, DAY};
    EACH_ALGORITHM(from) EACH_ALGORITHM(to) for (int i = 0; i < 3; i++) for (int j = 0; j < 3; j++)
    {
        const uint64_t key =
            key_of((uint64_t)(from * 100 + to * 10 + (unsigned)i * 3) + 1000 * (uint64_t)j);
        struct runtime_limit l = limit_of(from, 100, windows[i]);
        assert_int_equal(admitted(key, &l, 60, T0), 60);
        l.algorithm = to;
        l.window_ms = windows[j];
        assert_int_equal(admitted(key, &l, 200, T0), 40);
        l.algorithm = from;
        l.window_ms = windows[i];
        l.requests = 101;
        assert_int_equal(admitted(key, &l, 200, T0), 1);
        assert_int_equal(admitted(key, &l, 200, T0 + windows[i] * 12 / 10), 101);
    }
}

static void refused_after_a_change(const struct runtime_limit *was, const struct runtime_limit *is,
                                   size_t limits)
{
    static uint64_t who = 1000000;
    const struct runtime_limit other = limit_of(RUNTIME_SLIDING, 100, MINUTE);
    const struct limit_charge charges[2] = {{key_of(who), is, 1}, {key_of(who + 1), &other, 1}};
    struct limit_verdict v[2], later[2];
    who += 2;
    assert_int_equal(admitted(charges[0].key, was, 20, T0), 10);
    assert_false(limit_charge(&me, charges, limits, T0, v));
    assert_true(v[0].retry_ms > 0 && v[0].retry_ms <= is->window_ms * 12 / 10 + 6);
    for (uint64_t k = 1; k < 10; k++)
        assert_false(limit_charge(&me, charges, limits, T0 + v[0].retry_ms * k / 10, later));
    assert_true(limit_charge(&me, charges, limits, T0 + v[0].retry_ms, later));
}

/* However often he asks: what he had counts as if it had come when he was first refused, not each
 * time anew. */
static void who_is_refused_after_a_change_is_admitted_when_he_was_told(void **state)
{
    (void)state;
    const uint64_t windows[] = {100, MINUTE, 30 * DAY};
    EACH_ALGORITHM(from) EACH_ALGORITHM(to) for (size_t i = 0; i < 9; i++)
    {
        const struct runtime_limit was = limit_of(from, 10, windows[i % 3]),
                                   is = limit_of(to, 5, windows[i / 3]);
        refused_after_a_change(&was, &is, 1);
        refused_after_a_change(&was, &is, 2);
    }
}

static void a_slower_clock_never_moves_a_window_back(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, 4, 1000);
        const uint64_t at = T0 / 1000 * 1000;
        struct limit_verdict v;
        assert_int_equal(admitted(key_of(a), &l, 2, at + 1000), 2);
        assert_int_equal(admitted(key_of(a), &l, 9, at + 999), 2);
        assert_int_equal(admitted(key_of(a), &l, 9, at), 0);
        assert_false(charge(key_of(a), &l, 1, at + 500, &v));
        assert_true(peek(key_of(a), &l, 1, at + 500 + v.retry_ms, &v));
    }
}

/* ---- cost, several limits, dry run ---- */

static void cost_charges_that_many_and_more_than_all_is_never_admitted(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, 10, MINUTE);
        struct limit_verdict v;
        assert_true(charge(key_of(a), &l, 7, T0, &v));
        assert_int_equal(v.remaining, 3);
        assert_false(charge(key_of(a), &l, 4, T0, &v));
        assert_int_equal(v.remaining, 3);
        assert_true(charge(key_of(a), &l, 3, T0, &v));
        assert_false(charge(key_of(a), &l, 11, T0 + DAY, &v));
        assert_int_equal(v.retry_ms, MINUTE);
        assert_false(charge(key_of(a), &l, UINT32_MAX, T0 + DAY, &v));
        assert_true(charge(key_of(a), &l, 10, T0 + DAY, &v));
    }
}

static void all_limits_are_charged_or_none(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit wide = limit_of(a, 100, MINUTE), narrow = limit_of(a, 3, MINUTE);
        struct limit_verdict v[3];
        for (unsigned order = 0; order < 2; order++) {
            const uint64_t k = a * 10 + order * 2;
            const struct limit_charge c[3] = {
                {.key = key_of(k), .limit = order ? &narrow : &wide, .cost = 1},
                {.key = key_of(k + 1), .limit = order ? &wide : &narrow, .cost = 1},
                {.key = key_of(k + 100), .limit = &wide, .cost = 2}};
            for (int i = 0; i < 10; i++)
                assert_int_equal(limit_charge(&me, c, 3, T0, v), i < 3);
            assert_int_equal(v[0].admitted, !order);
            assert_int_equal(v[1].admitted, order);
            assert_int_equal(v[0].remaining, order ? 0 : 97);
            assert_int_equal(v[1].remaining, order ? 97 : 0);
            assert_true(v[2].admitted);
            assert_int_equal(v[2].remaining, 94);
        }
    }
}

static void a_dry_run_counts_and_reports_but_refuses_nobody(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        struct runtime_limit dry = limit_of(a, 2, MINUTE), real = limit_of(a, 5, MINUTE);
        dry.dry_run = 1;
        const struct limit_charge c[2] = {{.key = key_of(a), .limit = &dry, .cost = 1},
                                          {.key = key_of(a + 10), .limit = &real, .cost = 1}};
        struct limit_verdict v[2];
        for (int i = 0; i < 8; i++) {
            assert_int_equal(limit_charge(&me, c, 2, T0, v), i < 5);
            assert_int_equal(v[0].admitted, i < 2);
            assert_int_equal(v[1].admitted, i < 5);
        }
    }
}

/* A state, and what requests make of it. */
struct world {
    struct runtime_limit limit;
    _Atomic uint64_t formats[LIMIT_FORMATS];
    limit_word state, before;
};

static bool world_charge(struct world *w, uint32_t cost, uint64_t now, struct limit_verdict *v)
{
    struct limit_rule rule;
    limit_rule_init(&rule, &w->limit, 5, now);
    w->state = limit_state_charge(&rule, w->state, cost, w->formats, &w->before, v);
    return v->admitted;
}

static void world_refund(struct world *w, limit_word before, uint32_t cost, uint64_t now)
{
    struct limit_rule rule;
    limit_rule_init(&rule, &w->limit, 5, now);
    limit_state_refund(&rule, before, &w->state, cost);
}

/* What other processes did between a charge and its return must not be undone by it. */
static void a_charge_that_is_returned_takes_nothing_else_with_it(void **state)
{
    (void)state;
    struct world with, without;
    struct limit_verdict v, o;
    EACH_ALGORITHM(a) for (int round = 0; round < 20000; round++)
    {
        uint64_t now = T0 + random_below(2000);
        with = (struct world){.limit = limit_of(a, 10, 1000)};
        with.formats[5] = limit_format_value(a, 1000);
        for (uint64_t i = random_below(5); i > 0; i--)
            world_charge(&with, 1, now += random_below(300), &v);
        without = with;
        const uint32_t cost = 1 + (uint32_t)random_below(4);
        if (!world_charge(&with, cost, now, &v))
            continue;
        const limit_word before = with.before;
        for (uint64_t i = random_below(4); i > 0; i--) /* others, admitted in both worlds */
            if (world_charge(&with, 1, now += random_below(400), &v))
                assert_true(world_charge(&without, 1, now, &o));
        world_refund(&with, before, cost, now);
        for (uint64_t t = now; t < now + 1300; t += 50) { /* never laxer than without it */
            world_charge(&with, 11, t, &v); /* too much: changes nothing, tells the rest */
            world_charge(&without, 11, t, &o);
            assert_true(v.remaining <= o.remaining);
        }
    }
}

/* ---- corners ---- */

static void a_limit_of_zero_refuses_everybody(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, 0, MINUTE);
        struct limit_verdict v;
        assert_false(charge(key_of(a), &l, 1, T0, &v));
        assert_int_equal(v.remaining, 0);
        assert_int_equal(v.retry_ms, MINUTE);
        assert_int_equal(v.reset_ms, MINUTE); /* not "all of it is there" */
    }
}

static void four_billion_requests_in_thirty_days_do_not_overflow(void **state)
{
    (void)state;
    const enum runtime_algorithm wide[] = {RUNTIME_FIXED, RUNTIME_GCRA};
    for (int i = 0; i < 2; i++) {
        const struct runtime_limit l = limit_of(wide[i], UINT32_MAX, 30 * DAY);
        struct limit_verdict v;
        assert_true(charge(key_of(wide[i]), &l, UINT32_MAX - 1, T0, &v));
        assert_int_equal(v.remaining, 1);
        assert_true(charge(key_of(wide[i]), &l, 1, T0, &v));
        assert_int_equal(v.remaining, 0);
        assert_false(charge(key_of(wide[i]), &l, 1, T0, &v));
        assert_true(v.retry_ms >= 1 && v.retry_ms <= 30 * DAY);
        assert_true(charge(key_of(wide[i]), &l, UINT32_MAX, T0 + 60 * DAY, &v));
    }
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 65535, 30 * DAY);
    struct limit_verdict v;
    assert_true(charge(key_of(9), &l, 65535, T0, &v));
    assert_false(charge(key_of(9), &l, 1, T0 + 30 * DAY - 1, &v));
    assert_true(charge(key_of(9), &l, 65535, T0 + 36 * DAY, &v));
    assert_int_equal(v.remaining, 0);
}

static void any_clock_and_any_window_hold_the_promise(void **state)
{
    (void)state;
    const uint64_t clocks[] = {
        0, 1, 999, T0, 1000000 * DAY, UINT64_MAX / 2, UINT64_MAX / 1000 - 40 * DAY};
    const uint64_t windows[] = {1, 2, 100, 101, 999, 1001, MINUTE, DAY, 30 * DAY};
    EACH_ALGORITHM(a)
    for (size_t c = 0; c < sizeof clocks / sizeof *clocks; c++)
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
            const struct runtime_limit l = limit_of(a, 5, windows[w]);
            const uint64_t key = key_of(a + 10 * c + 100 * w), later = windows[w] * 6 / 5 + 6;
            assert_int_equal(admitted(key, &l, 9, clocks[c]), 5);
            assert_int_equal(admitted(key, &l, 9, clocks[c]), 0);
            assert_int_equal(admitted(key, &l, 9, clocks[c] + later), 5);
        }
}

static void keys_of_any_length_and_limits_of_one_client_are_told_apart(void **state)
{
    (void)state;
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 1, MINUTE);
    char *who = calloc(1, 65536);
    for (size_t len = 0; len <= 65536; len = len ? len * 2 : 1) {
        assert_int_equal(admitted(limit_key(table, 7, who, len), &l, 3, T0), 1);
        assert_int_equal(admitted(limit_key(table, 8, who, len), &l, 3, T0), 1);
    }
    who[65535] = 1;
    assert_int_equal(admitted(limit_key(table, 7, who, 65536), &l, 3, T0), 1);
    free(who);
}

/* A bucket is searched by the lower half of its tags. */
static void tags_that_share_their_lower_bits_are_told_apart(void **state)
{
    (void)state;
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 3, MINUTE);
    const uint64_t one = key_of(1) & ~(UINT64_C(15) << 60);
    struct limit_verdict v;
    for (uint64_t i = 1; i < 9; i++)
        for (uint64_t k = 0; k < i; k++)
            assert_int_equal(charge(one | i << 60, &l, 1, T0, &v), k < 3);
    assert_true(limit_reset_key(&me, one | UINT64_C(5) << 60));
    assert_int_equal(admitted(one | UINT64_C(5) << 60, &l, 9, T0), 3);
    assert_int_equal(admitted(one | UINT64_C(6) << 60, &l, 9, T0), 0);
    assert_int_equal(admitted(one | UINT64_C(1) << 60, &l, 9, T0), 2);
}

static void one_key_or_all_of_a_limit_can_be_forgotten(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, 3, MINUTE);
        const uint64_t id = 50 + a, other = limit_key(table, 99, "x", 1);
        const uint64_t x = limit_key(table, id, "x", 1), y = limit_key(table, id, "y", 1);
        assert_false(limit_reset_key(&me, x));
        assert_int_equal(admitted(x, &l, 5, T0), 3);
        assert_int_equal(admitted(y, &l, 5, T0), 3);
        assert_true(limit_reset_key(&me, x));
        assert_false(limit_reset_key(&me, x));
        assert_int_equal(admitted(x, &l, 5, T0), 3);
        assert_int_equal(admitted(y, &l, 5, T0), 0);
        admitted(other, &l, 5, T0);
        limit_reset_all(table, id);
        assert_int_equal(admitted(limit_key(table, id, "x", 1), &l, 5, T0), 3);
        assert_int_equal(admitted(limit_key(table, id, "y", 1), &l, 5, T0), 3);
        assert_int_equal(admitted(other, &l, 5, T0), 0);
    }
}

/* ---- the table ---- */

static void idle_entries_are_used_again(void **state)
{
    (void)state;
    struct limit_table_stats s;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, 3, 1000);
        uint64_t now = T0 + a * DAY;
        for (uint64_t i = 0; i < 20 * ENTRIES; i++) {
            if (i % (ENTRIES / 4) == 0) /* a quarter of the table is live at a time */
                now += 10000;
            assert_int_equal(admitted(key_of(i), &l, 1, now), 1);
        }
        limit_table_stats(table, now, &s);
        assert_int_equal(s.evicted_live, 0);
        assert_true(s.live <= ENTRIES / 4 && s.live > ENTRIES / 8 && s.used > s.live);
        limit_table_stats(table, now + 100000, &s);
        assert_int_equal(s.live, 0);
        assert_in_range(s.entries, ENTRIES, ENTRIES + 168);
    }
}

static void a_half_full_table_forgets_nobody(void **state)
{
    (void)state;
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 2, MINUTE);
    for (uint64_t i = 0; i < ENTRIES / 2; i++)
        assert_int_equal(admitted(key_of(i), &l, 3, T0), 2);
    for (uint64_t i = 0; i < ENTRIES / 2; i++)
        assert_int_equal(admitted(key_of(i), &l, 3, T0), 0);
}

static void a_flood_of_new_keys_frees_no_heavy_client_and_is_counted(void **state)
{
    (void)state;
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, 50, MINUTE);
        struct limit_table_stats s;
        for (uint64_t i = 0; i < 100; i++)
            assert_int_equal(admitted(key_of(i), &l, 60, T0 + a * DAY), 50);
        for (uint64_t i = 0; i < 8 * ENTRIES; i++)
            admitted(key_of(1000000 + i), &l, 1, T0 + a * DAY);
        for (uint64_t i = 0; i < 100; i++)
            assert_int_equal(admitted(key_of(i), &l, 60, T0 + a * DAY), 0);
        limit_table_stats(table, T0 + a * DAY, &s);
        assert_true(s.evicted_live > (a + 1) * 6 * ENTRIES);
        assert_in_range(s.live, ENTRIES, ENTRIES + 168);
        assert_int_equal(admitted(key_of(1000000), &l, 60, T0 + a * DAY + 2 * MINUTE), 50);
    }
}

/* ---- those who die ---- */

static _Atomic uint64_t *stripe_of(uint64_t key)
{
    return &table->stripe[limit_slot_of(table, key).tag % LIMIT_STRIPES];
}

static void the_lock_of_a_dead_process_is_stolen(void **state)
{
    (void)state;
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 2, MINUTE);
    struct limit_caller dead = process_born(0);
    struct limit_table_stats s;
    assert_true(limit_lock(&dead, stripe_of(key_of(1))));
    process_died(0);
    assert_int_equal(admitted(key_of(1), &l, 3, T0), 2);
    dead = process_born(0);
    assert_true(limit_lock(&dead, stripe_of(key_of(2))));
    process_born(0); /* a successor in the same slot */
    assert_int_equal(admitted(key_of(2), &l, 3, T0), 2);
    limit_table_stats(table, T0, &s);
    assert_int_equal(s.lock_steals, 2);
}

static void the_lock_of_a_killed_process_that_nobody_has_reaped_is_stolen(void **state)
{
    (void)state;
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 2, MINUTE);
    const struct limit_caller child = process_born(0);
    const pid_t pid = fork();
    if (pid == 0) {
        limit_lock(&child, stripe_of(key_of(1)));
        raise(SIGKILL);
    }
    atomic_store(&proc->slot[child.slot].pid, (uint32_t)pid);
    siginfo_t info;
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT); /* a zombie now */
    assert_int_equal(admitted(key_of(1), &l, 3, T0), 2);
    waitpid(pid, NULL, 0);
}

static void who_cannot_have_the_lock_is_refused_soon(void **state)
{
    (void)state;
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 2, MINUTE);
    const struct limit_caller stopped = process_born(0);
    struct limit_verdict v;
    atomic_store(&proc->slot[stopped.slot].pid, (uint32_t)getpid()); /* it lives */
    assert_true(limit_lock(&stopped, stripe_of(key_of(1))));
    const uint64_t start_ns = clock_mono_ns();
    assert_false(charge(key_of(1), &l, 1, T0, &v));
    assert_true(clock_mono_ns() - start_ns < 500000000);
    assert_true(v.retry_ms > 0);
    limit_unlock(&stopped, stripe_of(key_of(1)));
    assert_int_equal(admitted(key_of(1), &l, 3, T0), 2);
}

static void an_entry_that_a_dead_process_was_taking_over_is_used_again(void **state)
{
    (void)state;
    const struct runtime_limit l = limit_of(RUNTIME_SLIDING, 5, MINUTE);
    const struct limit_place place = limit_slot_of(table, key_of(1));
    const struct limit_caller dead = process_born(0);
    const uint64_t busy = LIMIT_TAG_BUSY << LIMIT_UNTIL_BITS |
                          (uint64_t)dead.slot << LIMIT_BUSY_INCARNATION_BITS | dead.incarnation;
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < LIMIT_WAYS; i++)
            atomic_store(&place.bucket[k]->word[i], busy);
    assert_int_equal(admitted(key_of(1), &l, 1, T0), 0); /* sixteen entries, all in work */
    process_died(0);
    assert_int_equal(admitted(key_of(1), &l, 9, T0), 5);
}

/* ---- many processes ---- */

/* One check; again if it was refused only because the owner of a lock was not running. */
static bool charge_patiently(uint64_t key, const struct runtime_limit *l)
{
    struct limit_verdict v;
    while (!charge(key, l, 1, T0, &v))
        if (v.retry_ms > 1)
            return false;
    return true;
}

/* Each client is admitted as often as configured, whichever processes it meets, and not once more.
 */
static void sums_are_exact_over_processes(uint64_t keys, uint64_t checks)
{
    _Atomic uint64_t *sum = shared_memory(sizeof *sum);
    EACH_ALGORITHM(a)
    {
        const struct runtime_limit l = limit_of(a, keys == 1 ? 5000 : 2, 30 * DAY);
        pid_t pid[WORKERS];
        atomic_store(sum, 0);
        limit_reset_all(table, 1);
        for (uint32_t n = 0; n < WORKERS; n++) {
            me = process_born(n);
            if ((pid[n] = fork()) == 0) {
                uint64_t mine = 0;
                for (uint64_t i = 0; i < checks; i++)
                    mine += charge_patiently(key_of(i % keys), &l);
                atomic_fetch_add(sum, mine);
                _exit(0);
            }
        }
        for (uint32_t n = 0; n < WORKERS; n++)
            waitpid(pid[n], NULL, 0);
        assert_int_equal(atomic_load(sum), keys * l.requests);
    }
    munmap(sum, sizeof *sum);
}

/* POLDER_LIMIT_CHECKS: 1000000 is the full size */
static uint64_t checks_wanted(void)
{
    const char *asked = getenv("POLDER_LIMIT_CHECKS");
    return asked ? strtoull(asked, NULL, 10) : 50000;
}

static void the_sum_of_one_hot_key_is_exact(void **state)
{
    (void)state;
    sums_are_exact_over_processes(1, checks_wanted());
}

static void the_sums_of_many_keys_are_exact(void **state)
{
    (void)state;
    teardown(NULL);
    table_make(checks_wanted() * 8); /* of three algorithms: nobody has to give way */
    sums_are_exact_over_processes(checks_wanted(), checks_wanted());
    struct limit_table_stats stats;
    limit_table_stats(table, T0, &stats);
    assert_int_equal(stats.evicted_live, 0);
}

/* ---- kill -9 ---- */

/* What killed processes are admitted, they count after the fact: too little, never too much. */
struct storm {
    struct runtime_limit limit;
    uint64_t first, keys, now;
    bool in_order; /* all meet the keys in the same order: they create them at the same instant */
    _Atomic uint32_t admitted[];
};

static struct storm *storm_make(uint64_t keys)
{
    struct storm *s = shared_memory(sizeof *s + keys * sizeof s->admitted[0]);
    s->keys = keys;
    return s;
}

static void storm_free(struct storm *s)
{
    munmap(s, sizeof *s + s->keys * sizeof s->admitted[0]);
}

static void storm_run(struct limit_caller caller, struct storm *s)
{
    struct limit_verdict v;
    random_state = caller.incarnation;
    for (uint64_t k = 0;; k = s->in_order ? (k + 1) % s->keys : random_below(s->keys)) {
        const struct limit_charge c = {.key = key_of(s->first + k), .limit = &s->limit, .cost = 1};
        if (limit_charge(&caller, &c, 1, s->now, &v))
            atomic_fetch_add(&s->admitted[k], 1);
    }
}

static pid_t storm_fork(uint32_t n, struct storm *s)
{
    const struct limit_caller caller = process_born(n);
    const pid_t pid = fork();
    if (pid == 0)
        storm_run(caller, s);
    assert_true(pid > 0);
    atomic_store(&proc->slot[caller.slot].pid, (uint32_t)pid);
    return pid;
}

static void storm_reap(uint32_t n, pid_t *pid)
{
    if (*pid)
        waitpid(*pid, NULL, 0);
    process_died(n);
    *pid = 0;
}

static unsigned kills_wanted(void)
{
    const char *asked = getenv("POLDER_LIMIT_KILLS");
    return asked ? (unsigned)strtoul(asked, NULL, 10) : KILLS;
}

/* Each round has new keys, a new limit and its own time; some of the killed stay zombies while the
 * survivors need their locks. */
static void not_one_too_many_while_processes_are_killed(void **state)
{
    (void)state;
    struct storm *s = storm_make(KILL_KEYS);
    s->in_order = true;
    for (unsigned done = 0, round = 1; done < kills_wanted(); round++) {
        pid_t pid[WORKERS];
        s->limit = limit_of(round % 3, 1 + round % 7, MINUTE);
        s->first = round * (uint64_t)KILL_KEYS;
        s->now = T0 + round * 10 * MINUTE;
        for (unsigned k = 0; k < KILL_KEYS; k++)
            atomic_store(&s->admitted[k], 0);
        for (uint32_t n = 0; n < WORKERS; n++)
            pid[n] = storm_fork(n, s);
        for (uint32_t n = 0; n < WORKERS; n++, done++) {
            usleep((useconds_t)random_below(n ? 300 : 1500));
            kill(pid[n], SIGKILL);
            if (random_below(2))
                storm_reap(n, &pid[n]);
        }
        for (unsigned k = 0; k < KILL_KEYS; k++) {
            const uint64_t rest = admitted(key_of(s->first + k), &s->limit, 20, s->now);
            assert_in_range(atomic_load(&s->admitted[k]) + rest,
                            s->limit.requests > WORKERS ? s->limit.requests - WORKERS : 0,
                            s->limit.requests);
        }
        for (uint32_t n = 0; n < WORKERS; n++)
            storm_reap(n, &pid[n]);
    }
    storm_free(s);
}

/* 300 clients in 256 entries: they take each other's all the time, and are killed in the middle. */
static void not_one_too_many_in_a_table_that_is_too_small(void **state)
{
    (void)state;
    teardown(NULL);
    table_make(256);
    struct storm *s = storm_make(300);
    pid_t pid[WORKERS] = {0};
    s->limit = limit_of(RUNTIME_SLIDING, 40, 60 * MINUTE);
    s->now = T0;
    for (unsigned i = 0; i < kills_wanted() / 2; i++) {
        const uint32_t n = i % (WORKERS - 1);
        if (pid[n])
            kill(pid[n], SIGKILL);
        storm_reap(n, &pid[n]);
        pid[n] = storm_fork(n, s);
        usleep(300 + (useconds_t)random_below(1500));
    }
    for (uint32_t n = 0; n < WORKERS - 1; n++) {
        kill(pid[n], SIGKILL);
        storm_reap(n, &pid[n]);
    }
    for (unsigned k = 0; k < s->keys; k++)
        assert_in_range(atomic_load(&s->admitted[k]), 0, s->limit.requests);
    /* with room above what they have used up, all of them are admitted, though they do not fit */
    const struct runtime_limit roomy = limit_of(RUNTIME_SLIDING, 1000, 60 * MINUTE);
    for (unsigned k = 0; k < s->keys; k++)
        assert_int_equal(admitted(key_of(k), &roomy, 1, s->now), 1);
    for (unsigned k = 0; k < 100; k++) /* nothing is stuck; who fits is admitted */
        assert_int_equal(admitted(key_of(k), &s->limit, 41, T0 + DAY), 40);
    storm_free(s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(exactly_as_many_as_configured_are_admitted),
        TEST(a_slot_of_a_sliding_limit_is_free_between_one_and_one_point_two_windows_later),
        TEST(a_fixed_limit_begins_anew_with_each_aligned_window),
        TEST(a_gcra_limit_admits_a_burst_and_refills_evenly),
        TEST(gcra_rounds_nothing_away),
        TEST(who_obeys_retry_is_admitted_and_a_millisecond_earlier_is_not),
        TEST(reset_tells_when_more_quota_comes),
        TEST(peeking_charges_nothing),
        TEST(a_changed_number_of_requests_applies_to_the_same_count),
        TEST(counts_are_kept_over_changes_of_window_and_algorithm),
        TEST(who_is_refused_after_a_change_is_admitted_when_he_was_told),
        TEST(a_slower_clock_never_moves_a_window_back),
        TEST(cost_charges_that_many_and_more_than_all_is_never_admitted),
        TEST(all_limits_are_charged_or_none),
        TEST(a_dry_run_counts_and_reports_but_refuses_nobody),
        TEST(a_charge_that_is_returned_takes_nothing_else_with_it),
        TEST(a_limit_of_zero_refuses_everybody),
        TEST(four_billion_requests_in_thirty_days_do_not_overflow),
        TEST(any_clock_and_any_window_hold_the_promise),
        TEST(keys_of_any_length_and_limits_of_one_client_are_told_apart),
        TEST(tags_that_share_their_lower_bits_are_told_apart),
        TEST(one_key_or_all_of_a_limit_can_be_forgotten),
        TEST(idle_entries_are_used_again),
        TEST(a_half_full_table_forgets_nobody),
        TEST(a_flood_of_new_keys_frees_no_heavy_client_and_is_counted),
        TEST(the_lock_of_a_dead_process_is_stolen),
        TEST(the_lock_of_a_killed_process_that_nobody_has_reaped_is_stolen),
        TEST(who_cannot_have_the_lock_is_refused_soon),
        TEST(an_entry_that_a_dead_process_was_taking_over_is_used_again),
        TEST(the_sum_of_one_hot_key_is_exact),
        TEST(the_sums_of_many_keys_are_exact),
        TEST(not_one_too_many_while_processes_are_killed),
        TEST(not_one_too_many_in_a_table_that_is_too_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Eviction: the queues, and hit ratios against exact LRU on traces that hurt one or the other. */
#include "daemons/keeper/store/evict.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#define OBJECTS  40000u
#define KEYS     400000u
#define REQUESTS 200000u
#define HELD     800u

static uint64_t print_of(uint32_t key)
{
    return (key + UINT64_C(1)) * UINT64_C(0x9E3779B97F4A7C15);
}

static void everybody_leaves_once_and_in_order_where_nobody_is_used(void **state)
{
    (void)state;
    static _Atomic uint8_t use[100];
    struct evict *e = evict_new(100, use);
    for (uint32_t i = 0; i < 100; i++)
        evict_insert(e, i, print_of(i), 1);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(evict_victim(e, EVICT_ITEMS), i);
    assert_int_equal(evict_victim(e, EVICT_ITEMS), EVICT_NONE);
    evict_free(e);
}

static void the_used_survive_and_ghosts_come_back_settled(void **state)
{
    (void)state;
    static _Atomic uint8_t use[100];
    memset((void *)use, 0, sizeof use);
    struct evict *e = evict_new(100, use);
    for (uint32_t i = 0; i < 100; i++)
        evict_insert(e, i, print_of(i), 1);
    atomic_store(&use[0], 1);
    assert_int_equal(evict_victim(e, EVICT_ITEMS), 1);
    assert_true(evict_is_settled(e, 0));
    assert_int_equal(atomic_load(&use[0]), 0);
    evict_insert(e, 1, print_of(1), 1); /* just left */
    assert_true(evict_is_settled(e, 1));
    assert_int_equal(evict_victim(e, EVICT_ITEMS), 2);
    evict_insert(e, 2, print_of(1000), 1); /* never seen */
    assert_false(evict_is_settled(e, 2));
    evict_free(e);
}

static long memory_kib(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_maxrss;
}

/* Random URLs leave ghosts: no more of them than there may be objects. */
static void memory_follows_the_objects_that_there_may_be(void **state)
{
    enum { SLOTS = 1u << 24, HELD_NOW = 2000, COME = 300000 };
    (void)state;
    _Atomic uint8_t *use = calloc(SLOTS, 1);
    struct evict *e = evict_new(SLOTS, use);
    assert_non_null(use);
    evict_expect(e, HELD_NOW);
    for (uint32_t i = 0; i < HELD_NOW; i++)
        evict_insert(e, i, print_of(i), 1);
    const long before = memory_kib();
    for (uint32_t i = 0; i < COME; i++)
        evict_insert(e, evict_victim(e, EVICT_ITEMS), print_of(HELD_NOW + i), 1);
    assert_true(memory_kib() - before < 4096);
    evict_expect(e, 4 * HELD_NOW); /* and goes on */
    for (uint32_t i = 0; i < HELD_NOW; i++)
        assert_int_not_equal(evict_victim(e, EVICT_ITEMS), EVICT_NONE);
    evict_free(e);
    free((void *)use);
}

static void removal_and_resizing_keep_the_queues_whole(void **state)
{
    (void)state;
    enum { N = 500 };
    static _Atomic uint8_t use[N];
    bool there[N] = {false};
    unsigned seed = 1, left = 0;
    memset((void *)use, 0, sizeof use);
    struct evict *e = evict_new(N, use);
    for (unsigned step = 0; step < 200000; step++) {
        const uint32_t slot = (uint32_t)rand_r(&seed) % N;
        const enum evict_bound bound = step % 2 ? EVICT_SPACE : EVICT_ITEMS;
        atomic_store(&use[slot], (uint8_t)(rand_r(&seed) % 4));
        if (rand_r(&seed) % 3 == 0) {
            const uint32_t victim = evict_victim(e, bound);
            assert_true(victim == EVICT_NONE || there[victim]);
            if (victim != EVICT_NONE)
                there[victim] = false;
        } else if (!there[slot]) {
            evict_insert(e, slot, print_of((uint32_t)rand_r(&seed) % 2000), slot % 9 + 1);
            there[slot] = true;
        } else if (step % 5) {
            evict_resize(e, slot, slot % 7 + 1);
        } else {
            evict_remove(e, slot);
            there[slot] = false;
        }
    }
    for (unsigned i = 0; i < N; i++)
        left += there[i];
    for (; left; left--) {
        const uint32_t victim = evict_victim(e, EVICT_SPACE);
        assert_true(victim < N && there[victim]);
        there[victim] = false;
    }
    assert_int_equal(evict_victim(e, EVICT_SPACE), EVICT_NONE);
    evict_free(e);
}

static void a_store_full_of_used_objects_still_gives_one_up(void **state)
{
    (void)state;
    enum { N = 100000 };
    _Atomic uint8_t *use = malloc(N);
    struct evict *e = evict_new(N, use);
    for (uint32_t i = 0; i < N; i++) {
        evict_insert(e, i, print_of(i), 1);
        atomic_store(&use[i], 3);
    }
    assert_int_not_equal(evict_victim(e, EVICT_ITEMS), EVICT_NONE);
    unsigned used = 0;
    for (uint32_t i = 0; i < N; i++)
        used += atomic_load(&use[i]) > 0;
    assert_true(used > N / 2); /* it has not gone through all of them */
    evict_free(e);
    free((void *)use);
}

/* ---- against exact LRU ---- */

static uint32_t trace[REQUESTS];
static double cumulated[OBJECTS];
static unsigned trace_seed;

static double share(void)
{
    return rand_r(&trace_seed) / (RAND_MAX + 1.0);
}

static uint32_t zipf(void)
{
    const double s = share();
    uint32_t low = 0, high = OBJECTS - 1;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (cumulated[middle] < s)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint64_t lru(void)
{
    static uint32_t next[KEYS], prev[KEYS];
    static bool in[KEYS];
    const uint32_t end = KEYS - 1; /* head and tail of the ring */
    uint32_t n = 0;
    uint64_t hits = 0;
    memset(in, 0, sizeof in);
    next[end] = prev[end] = end;
    for (unsigned i = 0; i < REQUESTS; i++) {
        const uint32_t k = trace[i];
        if (in[k]) {
            hits++;
            next[prev[k]] = next[k];
            prev[next[k]] = prev[k];
        } else if (n == HELD) {
            const uint32_t old = prev[end];
            in[old] = false;
            next[prev[old]] = end;
            prev[end] = prev[old];
        } else {
            n++;
        }
        in[k] = true;
        next[k] = next[end];
        prev[k] = end;
        prev[next[k]] = k;
        next[end] = k;
    }
    return hits;
}

static uint64_t keeper(void)
{
    static _Atomic uint8_t use[HELD];
    static uint32_t slot_of[KEYS], key_of[HELD];
    struct evict *e = evict_new(HELD, use);
    uint32_t n = 0;
    uint64_t hits = 0;
    memset(slot_of, 0xff, sizeof slot_of);
    for (unsigned i = 0; i < REQUESTS; i++) {
        uint32_t slot = slot_of[trace[i]];
        if (slot != EVICT_NONE) {
            hits++;
            atomic_store(&use[slot], 1);
            continue;
        }
        slot = n < HELD ? n++ : evict_victim(e, EVICT_ITEMS);
        if (slot_of[key_of[slot]] == slot)
            slot_of[key_of[slot]] = EVICT_NONE;
        atomic_store(&use[slot], 0);
        key_of[slot] = trace[i];
        slot_of[trace[i]] = slot;
        evict_insert(e, slot, print_of(trace[i]), 1);
    }
    evict_free(e);
    return hits;
}

static void hit_ratio_is_at_least_that_of_exact_lru(void **state)
{
    (void)state;
    double sum = 0;
    for (uint32_t i = 0; i < OBJECTS; i++)
        cumulated[i] = sum += 1 / pow(i + 1, 0.9);
    for (uint32_t i = 0; i < OBJECTS; i++)
        cumulated[i] /= sum;
    for (unsigned kind = 0; kind < 4; kind++) {
        trace_seed = kind + 1;
        uint32_t fresh = OBJECTS;
        for (unsigned i = 0; i < REQUESTS; i++) {
            uint32_t key = zipf();
            if (kind == 1 && share() < 0.3) /* one-hit wonders */
                key = fresh++;
            else if (kind == 2 && i % 16000 < 3200) /* scans */
                key = OBJECTS + i % 16000;
            else if (kind == 3) /* drift */
                key = (key + i / 15) % OBJECTS;
            trace[i] = key;
        }
        const uint64_t ours = keeper(), theirs = lru();
        if (ours < theirs)
            fail_msg("trace %u: %lu hits, exact LRU has %lu", kind, (unsigned long)ours,
                     (unsigned long)theirs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_leaves_once_and_in_order_where_nobody_is_used),
        cmocka_unit_test(the_used_survive_and_ghosts_come_back_settled),
        cmocka_unit_test(memory_follows_the_objects_that_there_may_be),
        cmocka_unit_test(removal_and_resizing_keep_the_queues_whole),
        cmocka_unit_test(a_store_full_of_used_objects_still_gives_one_up),
        cmocka_unit_test(hit_ratio_is_at_least_that_of_exact_lru),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The keeper: a real one, driven through its rings. Its deaths are in test_keeper_crash.c. */
#include "keeper_rig.h"
#include "daemons/keeper/store/store.h"
#include <limits.h>

#define MIB ((uint64_t)1 << 20)

static void start(struct rig *r, uint64_t max_items, uint64_t max_bytes)
{
    rig_init(r, max_items, max_bytes);
    rig_start(r);
}

/* What lies there now; the transaction stays open. */
static const struct cache_record *record_stored(struct rig *r, const char *url)
{
    struct cache_key key;
    struct cache_view view;
    rig_key(r, url, &key);
    assert_int_equal(cache_reader_get(r->reader, &key, &view), 1);
    return view.record;
}

/* ---- storing ---- */

static void what_is_pushed_can_be_read(void **state)
{
    struct rig r;
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, "h/a", 1, 1000);
    rig_must_store(&r, "h/b", 2, 0);
    rig_must_store(&r, "h/c", 3, 30000);
    rig_wait(rig_look(&r, "h/c") == 3);
    assert_int_equal(rig_look(&r, "h/a"), 1);
    assert_int_equal(rig_look(&r, "h/b"), 2);
    assert_int_equal(rig_look(&r, "h/none"), 0);
    rig_must_store(&r, "h/a", 7, 5000);
    rig_wait(rig_look(&r, "h/a") == 7);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 3);
    rig_free(&r);
}

/* A reader remembers where a record lay; a commit moves it, and its neighbours. */
static void a_reader_that_remembers_sees_each_change_at_once(void **state)
{
    struct rig r;
    char url[16];
    (void)state;
    start(&r, 1000, 32 * MIB);
    for (unsigned version = 1; version <= 30; version++) {
        for (unsigned i = 0; i < 8; i++) {
            snprintf(url, sizeof url, "h/%u", i);
            rig_must_store(&r, url, version, 200 + (version * i * 97) % 1500);
            rig_wait(rig_look(&r, url) == (int)version);
            for (unsigned j = 0; j < 8; j++) {
                snprintf(url, sizeof url, "h/%u", j);
                const int wanted = (int)version - (j > i);
                assert_int_equal(rig_look(&r, url), wanted);
                assert_int_equal(rig_look(&r, url), wanted);
            }
        }
    }
    rig_free(&r);
}

static void records_of_every_size_come_back(void **state)
{
    struct rig r;
    char url[32];
    (void)state;
    start(&r, 1000, 64 * MIB);
    const size_t most = CACHE_VALUE_MAX - sizeof(struct cache_record) - strlen(RIG_HEAD) - 8;
    for (unsigned i = 0; i < 80; i++) {
        const size_t len = i < 40 ? i * 60 : most - (i - 40) * 411;
        snprintf(url, sizeof url, "h/%06zu", len);
        rig_must_store(&r, url, 1, len);
        rig_wait(rig_look(&r, url) == 1);
    }
    rig_free(&r);
}

static void long_bodies_stream_in_chunks(void **state)
{
    static const size_t sizes[] = {1,      CACHE_CHUNK - 1, CACHE_CHUNK, CACHE_CHUNK + 1,
                                   100000, 1000000,         3000000,     2 * CACHE_CHUNK};
    struct rig r;
    char url[32];
    (void)state;
    start(&r, 1000, 64 * MIB);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(url, sizeof url, "h/stream%u", i);
        rig_wait(rig_drained(&r));
        assert_int_equal(rig_stream(&r, 0, i + 1, url, i + 1, sizes[i]), 0);
    }
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(url, sizeof url, "h/stream%u", i);
        rig_wait(rig_look(&r, url) == (int)i + 1);
    }
    /* two at once in one ring, and what is not whole is not published */
    char *body = calloc(1, CACHE_CHUNK);
    rig_body("h/one", 1, body, CACHE_CHUNK);
    const struct iovec chunk = {body, CACHE_CHUNK};
    rig_begin(&r, 0, 50, "h/one", 1);
    rig_begin(&r, 0, 51, "h/two", 1);
    rig_begin(&r, 0, 52, "h/wrong", 1);
    rig_begin(&r, 0, 53, "h/aborted", 1);
    for (unsigned i = 50; i < 54; i++)
        rig_push(&r, 0, RING_CHUNK, i, NULL, &chunk, 1);
    rig_end(&r, 0, 50, CACHE_CHUNK);
    rig_end(&r, 0, 52, CACHE_CHUNK + 1);
    rig_push(&r, 0, RING_ABORT, 53, NULL, NULL, 0);
    rig_end(&r, 0, 53, CACHE_CHUNK);
    rig_end(&r, 0, 99, 7);
    rig_wait(rig_look(&r, "h/one") == 1);
    rig_wait(rig_drained(&r));
    assert_int_equal(rig_look(&r, "h/two"), 0);
    assert_int_equal(rig_look(&r, "h/wrong"), 0);
    assert_int_equal(rig_look(&r, "h/aborted"), 0);
    free(body);
    rig_free(&r);
}

static void a_claim_is_released_when_the_object_can_be_read(void **state)
{
    struct rig r;
    struct fetch_permit permit;
    char url[32], body[500];
    (void)state;
    start(&r, 1000, 32 * MIB);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(url, sizeof url, "h/claim%u", i);
        struct cache_record record = rig_record(&r, url, 1, RIG_HEAD);
        assert_int_equal(
            fetch_lock_claim(r.sh.fetch_locks, &record.key, 0, 1, clock_mono_ms(), &permit),
            FETCH_LOCK_LEAD);
        rig_body(url, 1, body, sizeof body);
        assert_int_equal(rig_store_record(&r, 0, &permit, &record, url, body, sizeof body), 0);
        while (fetch_lock_pending(r.sh.fetch_locks, &permit, clock_mono_ms())) {
        }
        assert_int_equal(rig_look(&r, url), 1);
    }
    rig_free(&r);
}

static void a_pinned_body_outlives_its_deletion(void **state)
{
    struct rig r;
    struct cache_key key;
    struct cache_view view;
    const char *data;
    size_t len;
    (void)state;
    start(&r, 1000, 64 * MIB);
    rig_stream(&r, 0, 1, "h/pinned", 1, 500000);
    rig_wait(rig_look(&r, "h/pinned") == 1);
    rig_key(&r, "h/pinned", &key);
    assert_int_equal(cache_reader_get(r.reader, &key, &view), 1);
    const uint64_t id = view.record->obj_id;
    for (unsigned i = 0; i < 10 * CACHE_PINS; i++) /* of one body any number may be sent */
        assert_true(cache_reader_pin(r.reader, id));
    for (unsigned i = 1; i < 10 * CACHE_PINS; i++)
        cache_reader_unpin(r.reader, id);
    cache_reader_release(r.reader);
    rig_must_store(&r, "h/pinned", 2, 10); /* replaces it */
    rig_wait(rig_look(&r, "h/pinned") == 2);
    for (unsigned i = 0; i < 50; i++) {
        rig_must_store(&r, "h/other", i + 1, 100);
        rig_wait(rig_look(&r, "h/other") == (int)i + 1);
    }
    for (uint32_t n = 0; n < 500000 / CACHE_CHUNK + 1; n++)
        assert_int_equal(cache_reader_chunk(r.reader, id, n, &data, &len), 1);
    cache_reader_release(r.reader);
    cache_reader_unpin(r.reader, id);
    rig_wait((rig_must_store(&r, "h/poke", 1, 10), cache_reader_release(r.reader),
              cache_reader_chunk(r.reader, id, 0, &data, &len) == 0));
    cache_reader_release(r.reader);
    rig_free(&r);
}

/* Who has found an object may still pin it, though the keeper that deleted it has died since. */
static void a_body_is_there_for_who_looks_at_its_record_over_a_death_of_the_keeper(void **state)
{
    struct rig r;
    const char *data;
    size_t len;
    (void)state;
    start(&r, 1000, 64 * MIB);
    rig_stream(&r, 0, 1, "h/looked-at", 1, 500000);
    rig_wait(rig_look(&r, "h/looked-at") == 1);
    const uint64_t id = record_stored(&r, "h/looked-at")->obj_id;
    rig_must_store(&r, "h/looked-at", 2, 10); /* replaces it */
    rig_wait(rig_drained(&r));
    rig_kill(&r);
    rig_start(&r);
    for (unsigned i = 0; i < 50; i++) { /* in between it deletes what it may */
        rig_must_store(&r, "h/other", i + 1, 100);
        rig_wait(rig_drained(&r));
    }
    assert_true(cache_reader_pin(r.reader, id));
    cache_reader_release(r.reader);
    assert_int_equal(cache_reader_chunk(r.reader, id, 0, &data, &len), 1);
    cache_reader_release(r.reader);
    cache_reader_unpin(r.reader, id);
    rig_free(&r);
}

static void a_worker_pins_many_bodies_at_once(void **state)
{
    struct rig r;
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_wait(rig_look(&r, "h/x") == 0 && r.reader);
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t id = 1; id <= CACHE_PINS; id++)
            assert_true(cache_reader_pin(r.reader, id));
        assert_false(cache_reader_pin(r.reader, CACHE_PINS + 1));
        assert_true(cache_reader_pin(r.reader, 7));
        cache_reader_unpin(r.reader, 7);
        for (uint64_t id = 1; id <= CACHE_PINS; id += 2) { /* places in between are taken again */
            cache_reader_unpin(r.reader, id);
            assert_true(cache_reader_pin(r.reader, 10000 + id));
            cache_reader_unpin(r.reader, 10000 + id);
        }
        for (uint64_t id = 2; id <= CACHE_PINS; id += 2)
            cache_reader_unpin(r.reader, id);
        cache_reader_unpin(r.reader, 3); /* nobody has it */
    }
    rig_free(&r);
}

/* ---- what is not believed ---- */

static void hostile_records_cost_nothing_but_themselves(void **state)
{
    struct rig r;
    char junk[2000];
    unsigned seed = 7;
    (void)state;
    start(&r, 1000, 32 * MIB);
    for (unsigned i = 0; i < 3000; i++) {
        struct cache_record record = rig_record(&r, "h/x", 1, RIG_HEAD);
        for (size_t n = 0; n < sizeof junk; n++)
            junk[n] = (char)rand_r(&seed);
        if (i % 3 == 0)
            memcpy(junk, &record, sizeof record);
        if (i % 6 == 0)
            ((uint32_t *)(void *)junk)[i / 6 % (sizeof record / 4)] ^= (uint32_t)rand_r(&seed);
        const struct iovec iov = {junk, (size_t)rand_r(&seed) % sizeof junk};
        const enum ring_type type = (enum ring_type)(1 + i % 8);
        rig_wait(rig_push(&r, i % 2, type, i % 5, NULL, &iov, 1) == 0);
    }
    rig_wait(rig_drained(&r));
    rig_must_store(&r, "h/after", 1, 100);
    rig_wait(rig_look(&r, "h/after") == 1);
    assert_int_equal(waitpid(r.keeper, NULL, WNOHANG), 0); /* the same one */
    rig_free(&r);
}

static void a_torn_ring_is_dropped_and_goes_on(void **state)
{
    struct rig r;
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, "h/a", 1, 100);
    rig_wait(rig_look(&r, "h/a") == 1);
    /* bytes that nobody published properly: flip some behind the tail while the keeper is stopped
     */
    kill(r.keeper, SIGSTOP);
    rig_store(&r, 0, "h/torn", 1, 3000);
    char *raw = (char *)r.sh.ring[0];
    for (size_t i = ring_size() - RING_BYTES; i < ring_size() - RING_BYTES + 4096; i += 37)
        raw[i] = (char)~raw[i];
    kill(r.keeper, SIGCONT);
    rig_wait(rig_drained(&r));
    rig_must_store(&r, "h/b", 2, 100);
    rig_wait(rig_look(&r, "h/b") == 2);
    assert_int_equal(rig_look(&r, "h/torn"), 0);
    rig_free(&r);
}

static void streams_of_dead_producers_are_forgotten(void **state)
{
    struct rig r;
    char *body = calloc(1, CACHE_CHUNK);
    const struct iovec chunk = {body, CACHE_CHUNK};
    const uint64_t one = 1;
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, "h/a", 1, 100);
    rig_wait(rig_look(&r, "h/a") == 1);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_BYTES) > 0); /* told a little later */
    const uint64_t before = rig_gauge(&r, STATS_GAUGE_CACHE_BYTES);
    rig_begin(&r, 1, 5, "h/never", 1);
    for (unsigned i = 0; i < 20; i++)
        rig_push(&r, 1, RING_CHUNK, 5, NULL, &chunk, 1);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_BYTES) > before);
    atomic_fetch_add(&r.sh.proc->slot[PROC_SLOT_WORKER0 + 1].incarnation, 1); /* died, is back */
    assert_int_equal(write(r.sh.keeper_event, &one, sizeof one), sizeof one);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_BYTES) == before);
    rig_end(&r, 1, 5, 20 * CACHE_CHUNK); /* of the new one: no such stream */
    rig_wait(rig_drained(&r));
    assert_int_equal(rig_look(&r, "h/never"), 0);
    free(body);
    rig_free(&r);
}

/* ---- bounds ---- */

static void the_bound_of_items_is_exact(void **state)
{
    struct rig r;
    char url[32];
    (void)state;
    start(&r, 100, 32 * MIB);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(url, sizeof url, "h/%u", i);
        rig_must_store(&r, url, 1, 50 + i);
        assert_true(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) <= 100);
    }
    rig_wait(rig_drained(&r));
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 100);
    unsigned found = 0;
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(url, sizeof url, "h/%u", i);
        found += rig_look(&r, url) == 1;
    }
    assert_int_equal(found, 100);
    assert_int_equal(rig_counter(&r, STATS_CACHE_EVICTIONS), 900);
    rig_limits(&r, 10, 32 * MIB);
    rig_must_store(&r, "h/poke", 1, 10);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 10);
    rig_limits(&r, 0, 32 * MIB);
    rig_must_store(&r, "h/nothing", 1, 10);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 0);
    rig_free(&r);
}

/* What data.mdb takes. */
static uint64_t disk_of(const struct rig *r)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/cache.%llu/data.mdb", r->dir,
             (unsigned long long)atomic_load(&r->sh.cache->epoch));
    return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 / MIB * MIB : 0;
}

static void the_bound_of_bytes_holds(void **state)
{
    struct rig r;
    char url[32];
    (void)state;
    const uint64_t most = store_units_for(store_map_for(8 * MIB)) * STORE_UNIT;
    start(&r, 100000, 8 * MIB);
    assert_true(most > 4 * MIB && most < 8 * MIB);
    for (unsigned i = 0; i < 2000; i++) {
        snprintf(url, sizeof url, "h/%u", i);
        rig_must_store(&r, url, 1, i * 7919 % 32000);
        assert_true(rig_gauge(&r, STATS_GAUGE_CACHE_BYTES) <= most);
    }
    rig_wait(rig_drained(&r));
    assert_true(rig_gauge(&r, STATS_GAUGE_CACHE_BYTES) > most - 64 * 1024);
    for (unsigned i = 0; i < 40; i++) {
        snprintf(url, sizeof url, "h/s%u", i);
        rig_wait(rig_drained(&r));
        rig_stream(&r, 0, i, url, 1, 40000 + i * 10000);
        assert_true(rig_gauge(&r, STATS_GAUGE_CACHE_BYTES) <= most);
    }
    rig_wait(rig_look(&r, "h/s39") == 1);
    rig_limits(&r, 100000, 4 * MIB);
    rig_must_store(&r, "h/poke", 1, 10);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_BYTES) <= 4 * MIB * 6 / 10);
    assert_false(rig_logged(&r, "map"));
    assert_int_equal(disk_of(&r), 8 * MIB); /* nor does it take more of the disk */
    rig_free(&r);
}

/* A bound that was changed while nobody ran: what fits is kept. */
static void the_warm_store_outlives_another_bound(void **state)
{
    static const uint64_t bounds[] = {32 * MIB, 8 * MIB, 64 * MIB, 4 * MIB};
    struct rig r;
    char url[32];
    (void)state;
    start(&r, 1000, bounds[0]);
    rig_stop(&r);
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        rig_limits(&r, 1000, bounds[b]);
        rig_start(&r);
        rig_must_store(&r, "h/last", 1, 100);
        rig_wait(rig_look(&r, "h/last") == 1);
        if (b == 0)
            for (unsigned i = 0; i < 300; i++) {
                snprintf(url, sizeof url, "h/%u", i);
                rig_must_store(&r, url, 1, 30000);
            }
        rig_wait(rig_drained(&r));
        rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_BYTES) <=
                 store_units_for(store_map_for(bounds[b])) * STORE_UNIT);
        unsigned found = 0;
        for (unsigned i = 0; i < 300; i++) {
            snprintf(url, sizeof url, "h/%u", i);
            found += rig_look(&r, url) == 1;
        }
        assert_true(b == 0 ? found == 300 : found > 30);
        assert_true(disk_of(&r) >= bounds[b] && disk_of(&r) <= 64 * MIB);
        rig_stop(&r);
    }
    assert_false(rig_logged(&r, "failed its checks"));
    rig_start(&r);
    rig_free(&r);
}

static void nothing_is_on_disk_where_no_route_caches(void **state)
{
    struct rig r;
    char path[PATH_MAX];
    (void)state;
    start(&r, 1000, 8 * MIB);
    rig_must_store(&r, "h/a", 1, 100);
    rig_wait(rig_look(&r, "h/a") == 1);
    snprintf(path, sizeof path, "%s/cache.%llu", r.dir,
             (unsigned long long)atomic_load(&r.sh.cache->epoch));
    r.config->n_routes = 0;
    rig_limits(&r, 1000, 8 * MIB);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_READY) == 0);
    rig_wait(access(path, F_OK) < 0);
    r.config->n_routes = 1;
    rig_limits(&r, 1000, 8 * MIB);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_READY) == 1);
    assert_int_equal(rig_look(&r, "h/a"), 0); /* nobody has marked what changed meanwhile */
    rig_must_store(&r, "h/a", 2, 100);
    rig_wait(rig_look(&r, "h/a") == 2);
    rig_free(&r);
}

static void a_higher_bound_takes_effect_while_it_runs(void **state)
{
    struct rig r;
    char url[32];
    (void)state;
    start(&r, 100000, 2 * MIB);
    rig_must_store(&r, "h/first", 1, 100);
    rig_wait(rig_look(&r, "h/first") == 1);
    rig_limits(&r, 100000, 64 * MIB);
    rig_wait(rig_logged(&r, "has grown to 64 MiB"));
    rig_limits(&r, 100000, 32 * MIB); /* nothing lies there yet */
    rig_wait(rig_logged(&r, "data.mdb is cut to 32 MiB"));
    rig_wait(disk_of(&r) == 32 * MIB);
    assert_int_equal(rig_look(&r, "h/first"), 1);
    rig_limits(&r, 100000, 256 * MIB); /* more than the map had room for */
    rig_wait(rig_logged(&r, "has grown to 256 MiB"));
    for (unsigned i = 0; i < 2500; i++) {
        snprintf(url, sizeof url, "h/%u", i);
        rig_must_store(&r, url, 1, 32000);
    }
    rig_wait(rig_drained(&r));
    rig_wait(rig_look(&r, "h/2499") == 1);
    assert_int_equal(rig_look(&r, "h/first"), 1);
    assert_int_equal(rig_look(&r, "h/0"), 1);
    assert_true(rig_gauge(&r, STATS_GAUGE_CACHE_BYTES) > 64 * MIB);
    rig_free(&r);
}

/* LMDB notes how large the map was at each commit: the last one may have been before the cut. */
static void a_lower_bound_keeps_what_fits_over_deaths_and_restarts(void **state)
{
    struct rig r;
    (void)state;
    start(&r, 1000, 64 * MIB);
    rig_must_store(&r, "h/a", 1, 1000);
    rig_wait(rig_look(&r, "h/a") == 1);
    rig_wait(rig_drained(&r));
    rig_limits(&r, 1000, 16 * MIB);
    rig_wait(rig_logged(&r, "data.mdb is cut to 16 MiB"));
    rig_kill(&r);
    rig_start(&r);
    assert_int_equal(rig_look(&r, "h/a"), 1);
    rig_limits(&r, 1000, 8 * MIB);
    rig_wait(rig_logged(&r, "data.mdb is cut to 8 MiB"));
    rig_restart_all(&r, 1000, 8 * MIB);
    assert_int_equal(rig_look(&r, "h/a"), 1);
    assert_false(rig_logged(&r, "failed its checks"));
    rig_free(&r);
}

static void what_is_used_stays_when_others_go(void **state)
{
    struct rig r;
    char url[32];
    (void)state;
    start(&r, 100, 32 * MIB);
    for (unsigned i = 0; i < 50; i++) {
        snprintf(url, sizeof url, "h/hot%u", i);
        rig_must_store(&r, url, 1, 100);
    }
    rig_wait(rig_look(&r, "h/hot49") == 1);
    for (unsigned i = 0; i < 50; i++) { /* as workers do at each hit */
        struct cache_key key;
        struct cache_view view;
        snprintf(url, sizeof url, "h/hot%u", i);
        rig_key(&r, url, &key);
        assert_int_equal(cache_reader_get(r.reader, &key, &view), 1);
        atomic_store(&r.sh.ref[view.record->slot], 3);
        cache_reader_release(r.reader);
    }
    for (unsigned i = 0; i < 500; i++) {
        snprintf(url, sizeof url, "h/once%u", i);
        rig_must_store(&r, url, 1, 100);
    }
    rig_wait(rig_drained(&r));
    rig_wait(rig_look(&r, "h/once499") == 1);
    for (unsigned i = 0; i < 50; i++) {
        snprintf(url, sizeof url, "h/hot%u", i);
        assert_int_equal(rig_look(&r, url), 1);
    }
    rig_free(&r);
}

/* ---- invalidation ---- */

static void sweep(struct rig *r, uint32_t kind, bool soft, const char *text)
{
    const struct ring_sweep what = {.kind = kind, .soft = soft, .len = (uint32_t)strlen(text)};
    const struct iovec iov[] = {{(void *)(uintptr_t)&what, sizeof what},
                                {(void *)(uintptr_t)text, strlen(text)}};
    const struct ring_record head = {
        .type = RING_SWEEP, .incarnation = 1, .permit = FETCH_LOCK_NONE};
    assert_int_equal(ring_push(r->sh.ring[SHARED_RING_CONTROL], &head, iov, 2, r->sh.keeper_event),
                     0);
}

static void a_fetch_older_than_the_invalidation_is_not_stored(void **state)
{
    struct rig r;
    struct fetch_permit permit;
    char body[100];
    (void)state;
    start(&r, 1000, 32 * MIB);
    for (unsigned kind = 0; kind < 5; kind++) {
        uint64_t seq;
        struct cache_record record = rig_record(&r, "h/race/x", 1, RIG_HEAD);
        record.n_tags = 1;
        record.tag_slot[0] = inval_tag_slot(r.sh.inval, "red", 3);
        assert_int_equal(
            fetch_lock_claim(r.sh.fetch_locks, &record.key, 0, 1, clock_mono_ms(), &permit),
            FETCH_LOCK_LEAD);
        if (kind == 0)
            inval_mark_url(r.sh.inval, "h/race/x", 8, false);
        else if (kind == 1)
            inval_mark_tag(r.sh.inval, "red", 3, false);
        else if (kind == 2)
            inval_mark_all(r.sh.inval, true);
        else
            inval_mark_prefix(r.sh.inval, "h/race/", 7, kind == 4, &seq);
        if (kind >= 3) /* even a ban that nobody remembers */
            inval_retire_prefix(r.sh.inval, seq);
        rig_body("h/race/x", 1, body, sizeof body);
        rig_store_record(&r, 0, &permit, &record, "h/race/x", body, sizeof body);
        rig_wait(!fetch_lock_pending(r.sh.fetch_locks, &permit, clock_mono_ms()));
        assert_int_equal(rig_look(&r, "h/race/x"), 0);
    }
    rig_must_store(&r, "h/race/x", 2, 100);
    rig_wait(rig_look(&r, "h/race/x") == 2);
    assert_int_equal(rig_state(&r, "h/race/x"), INVAL_VALID);
    rig_free(&r);
}

static void an_older_fetch_does_not_replace_a_newer_one(void **state)
{
    struct rig r;
    char body[100];
    (void)state;
    start(&r, 1000, 32 * MIB);
    struct cache_record older = rig_record(&r, "h/a", 1, RIG_HEAD);
    inval_mark_url(r.sh.inval, "h/unrelated", 11, false);
    rig_must_store(&r, "h/a", 2, 100);
    rig_wait(rig_look(&r, "h/a") == 2);
    rig_body("h/a", 1, body, sizeof body);
    rig_store_record(&r, 0, NULL, &older, "h/a", body, sizeof body);
    rig_wait(rig_drained(&r));
    assert_int_equal(rig_look(&r, "h/a"), 2);
    rig_free(&r);
}

static void sweeps_delete_what_was_invalidated_and_nothing_else(void **state)
{
    struct rig r;
    char url[64];
    uint64_t seq;
    (void)state;
    start(&r, 10000, 64 * MIB);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(url, sizeof url, "h/%s/%u", i % 2 ? "odd" : "even", i);
        rig_must_store(&r, url, 1, 100);
    }
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 1000);
    inval_mark_url(r.sh.inval, "h/odd/1", 7, false);
    sweep(&r, 0, false, "h/odd/1");
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 999);
    assert_int_equal(inval_mark_prefix(r.sh.inval, "h/even/", 7, false, &seq), 0);
    assert_int_equal(rig_state(&r, "h/even/0"), INVAL_HARD); /* at once */
    assert_int_equal(rig_state(&r, "h/odd/3"), INVAL_VALID);
    sweep(&r, 2, false, "h/even/");
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 499);
    assert_int_equal(rig_look(&r, "h/odd/3"), 1);
    assert_int_equal(inval_mark_prefix(r.sh.inval, "/odd/99", 7, false, &seq), 0);
    sweep(&r, 2, false, "/odd/99"); /* 99, 991, 993, 995, 997, 999 */
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 493);
    inval_mark_all(r.sh.inval, false);
    sweep(&r, 3, false, "");
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 0);
    assert_int_equal(rig_counter(&r, STATS_CACHE_INVALIDATED), 1000);
    rig_free(&r);
}

static void a_url_that_was_invalidated_twice_is_deleted_once(void **state)
{
    struct rig r;
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, "h/twice", 1, 100);
    rig_must_store(&r, "h/other", 1, 100);
    rig_wait(rig_look(&r, "h/twice") == 1 && rig_look(&r, "h/other") == 1);
    kill(r.keeper, SIGSTOP); /* so that it finds both at once */
    for (unsigned i = 0; i < 2; i++) {
        inval_mark_url(r.sh.inval, "h/twice", 7, false);
        sweep(&r, 0, false, "h/twice");
    }
    kill(r.keeper, SIGCONT);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 1);
    assert_int_equal(rig_counter(&r, STATS_CACHE_INVALIDATED), 1);
    assert_int_equal(rig_counter(&r, STATS_CACHE_ROTATIONS), 0);
    assert_int_equal(rig_look(&r, "h/other"), 1);
    rig_free(&r);
}

static bool retired(const struct rig *r, uint64_t seq)
{
    struct inval_ban ban;
    for (unsigned i = 0; i < INVAL_BANS; i++)
        if (inval_ban_read(r->sh.inval, i, &ban) && ban.seq == seq)
            return false;
    return true;
}

static void bans_are_retired_when_they_crowd_and_nobody_reads_what_they_banned(void **state)
{
    struct rig r;
    struct cache_key key;
    struct cache_view view;
    char prefix[16];
    uint64_t seq, first = 0;
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, "h/p0/x", 1, 100);
    rig_must_store(&r, "h/p1/x", 1, 100);
    rig_wait(rig_look(&r, "h/p1/x") == 1);
    rig_key(&r, "h/p0/x", &key);
    assert_int_equal(cache_reader_get(r.reader, &key, &view), 1); /* held */
    for (unsigned i = 0; i < 56; i++) {
        snprintf(prefix, sizeof prefix, "h/p%u/", i);
        const bool soft = i == 1;
        assert_int_equal(inval_mark_prefix(r.sh.inval, prefix, strlen(prefix), soft, &seq), 0);
        if (i == 0)
            first = seq;
    }
    sweep(&r, 2, false, "h/p0/");
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 1); /* p0 is gone, p1 softened */
    for (unsigned i = 0; i < 20; i++) {
        sweep(&r, 2, false, "h/p0/"); /* each makes it look again */
        rig_wait(rig_drained(&r));
    }
    assert_false(retired(&r, first));
    assert_int_equal(inval_check(r.sh.inval, view.record->fetch_seq, view.record->url_slot, NULL, 0,
                                 view.url, view.record->url_len),
                     INVAL_HARD);
    cache_reader_release(r.reader);
    rig_wait((sweep(&r, 2, false, "h/p0/"), retired(&r, first)));
    assert_int_equal(rig_look(&r, "h/p0/x"), 0);
    rig_key(&r, "h/p1/x", &key);
    assert_int_equal(cache_reader_get(r.reader, &key, &view), 1);
    assert_true(view.record->flags & CACHE_SOFTENED);
    assert_true(view.record->fresh_until_ms <= clock_real_ms());
    cache_reader_release(r.reader);
    assert_int_equal(rig_look(&r, "h/p1/x"), 1);
    rig_free(&r);
}

static void delete_takes_only_what_is_bad(void **state)
{
    struct rig r;
    struct cache_key key;
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, "h/a", 1, 100);
    rig_must_store(&r, "h/b", 1, 100);
    rig_wait(rig_look(&r, "h/b") == 1);
    inval_mark_url(r.sh.inval, "h/b", 3, false);
    const struct iovec iov = {&key, sizeof key};
    rig_key(&r, "h/a", &key);
    rig_push(&r, 0, RING_DELETE, 0, NULL, &iov, 1);
    rig_key(&r, "h/b", &key);
    rig_push(&r, 0, RING_DELETE, 0, NULL, &iov, 1);
    rig_wait(rig_look(&r, "h/b") == 0);
    assert_int_equal(rig_look(&r, "h/a"), 1);
    rig_free(&r);
}

static void delete_takes_an_object_that_is_still_the_one(void **state)
{
    struct rig r;
    struct cache_key key;
    struct cache_view view;
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, "h/a", 1, 100);
    rig_wait(rig_look(&r, "h/a") == 1);
    rig_key(&r, "h/a", &key);
    assert_int_equal(cache_reader_get(r.reader, &key, &view), 1);
    uint64_t id = view.record->obj_id + 1;
    cache_reader_release(r.reader);
    const struct iovec iov[2] = {{&key, sizeof key}, {&id, sizeof id}};
    rig_push(&r, 0, RING_DELETE, 0, NULL, iov, 2);
    rig_wait(rig_drained(&r));
    assert_int_equal(rig_look(&r, "h/a"), 1);
    id--;
    rig_push(&r, 0, RING_DELETE, 0, NULL, iov, 2);
    rig_wait(rig_look(&r, "h/a") == 0);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 0);
    rig_free(&r);
}

static void a_304_freshens_the_same_object_only(void **state)
{
    struct rig r;
    struct cache_key key;
    struct cache_view view;
    (void)state;
    start(&r, 1000, 64 * MIB);
    for (unsigned chunked = 0; chunked < 2; chunked++) {
        const char *url = chunked ? "h/long" : "h/short";
        if (chunked)
            rig_stream(&r, 0, 9, url, 5, 100000);
        else
            rig_must_store(&r, url, 5, 1000);
        rig_wait(rig_look(&r, url) == 5);
        rig_key(&r, url, &key);
        assert_int_equal(cache_reader_get(r.reader, &key, &view), 1);
        const uint64_t id = view.record->obj_id, body_checksum = view.record->body_checksum;
        cache_reader_release(r.reader);
        inval_mark_url(r.sh.inval, url, strlen(url), true);
        assert_int_equal(rig_state(&r, url), INVAL_SOFT);
        for (unsigned right = 0; right < 2; right++) {
            struct cache_record record = rig_record(&r, url, 5, RIG_HEAD);
            char head[] = RIG_HEAD;
            record.obj_id = right ? id : id + 1;
            record.fresh_until_ms = 4000000000000;
            const struct iovec iov[] = {{&record, sizeof record},
                                        {(void *)(uintptr_t)url, strlen(url)},
                                        {head, sizeof head - 1}};
            rig_push(&r, 0, RING_REVALIDATE, 0, NULL, iov, 3);
            rig_wait(rig_drained(&r));
            assert_int_equal(cache_reader_get(r.reader, &key, &view), 1);
            assert_int_equal(view.record->fresh_until_ms == 4000000000000, right);
            assert_int_equal(view.record->obj_id, id);
            assert_int_equal(view.record->body_checksum, body_checksum);
            cache_reader_release(r.reader);
        }
        assert_int_equal(rig_look(&r, url), 5);
        assert_int_equal(rig_state(&r, url), INVAL_VALID);
    }
    rig_free(&r);
}

/* The backend has moved the object to another group while somebody invalidated the one it was in.
 */
static void a_renewal_does_not_hide_from_an_invalidation_in_other_tags(void **state)
{
    struct rig r;
    char head[] = RIG_HEAD, body[100];
    const char *url = "h/moved";
    (void)state;
    start(&r, 1000, 32 * MIB);
    struct cache_record record = rig_record(&r, url, 1, RIG_HEAD);
    record.n_tags = 1;
    record.tag_slot[0] = inval_tag_slot(r.sh.inval, "before", 6);
    rig_body(url, 1, body, sizeof body);
    assert_int_equal(rig_store_record(&r, 0, NULL, &record, url, body, sizeof body), 0);
    rig_wait(rig_look(&r, url) == 1);
    const struct cache_record *stored = record_stored(&r, url);
    struct cache_record renewal = rig_record(&r, url, 1, RIG_HEAD);
    renewal.obj_id = stored->obj_id;
    renewal.n_tags = 1;
    renewal.tag_slot[0] = inval_tag_slot(r.sh.inval, "after", 5);
    cache_reader_release(r.reader);
    inval_mark_tag(r.sh.inval, "before", 6, false);
    const struct iovec iov[] = {
        {&renewal, sizeof renewal}, {(void *)(uintptr_t)url, strlen(url)}, {head, sizeof head - 1}};
    rig_push(&r, 0, RING_REVALIDATE, 0, NULL, iov, 3);
    rig_wait(rig_drained(&r));
    assert_int_equal(rig_state(&r, url), INVAL_HARD);
    rig_free(&r);
}

static void an_object_is_deleted_by_its_number_and_no_other(void **state)
{
    struct rig r;
    struct cache_key key;
    uint64_t obj_id;
    const char *url = "h/taken-back";
    const struct iovec iov[] = {{&key, sizeof key}, {&obj_id, sizeof obj_id}};
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, url, 1, 100);
    rig_wait(rig_look(&r, url) == 1);
    rig_key(&r, url, &key);
    obj_id = record_stored(&r, url)->obj_id;
    cache_reader_release(r.reader);
    rig_must_store(&r, url, 2, 100);
    rig_wait(rig_look(&r, url) == 2);
    rig_push(&r, 0, RING_DELETE, 0, NULL, iov, 2);
    rig_wait(rig_drained(&r));
    assert_int_equal(rig_look(&r, url), 2);
    obj_id = record_stored(&r, url)->obj_id;
    cache_reader_release(r.reader);
    rig_push(&r, 0, RING_DELETE, 0, NULL, iov, 2);
    rig_wait(rig_look(&r, url) == 0);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 0);
    rig_free(&r);
}

static void what_is_of_no_use_any_more_expires(void **state)
{
    struct rig r;
    char body[10];
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, "h/fresh", 1, 10);
    rig_body("h/old", 1, body, sizeof body);
    struct cache_record record = rig_record(&r, "h/old", 1, RIG_HEAD);
    record.received_ms = 1000;
    record.fresh_until_ms = 2000;
    rig_store_record(&r, 0, NULL, &record, "h/old", body, sizeof body);
    rig_wait(rig_counter(&r, STATS_CACHE_EXPIRED) == 1);
    assert_int_equal(rig_look(&r, "h/old"), 0);
    assert_int_equal(rig_look(&r, "h/fresh"), 1);
    rig_free(&r);
}

/* ---- quiet ---- */

static long switches(pid_t pid)
{
    char path[64], line[128];
    long n = 0, sum = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "voluntary_ctxt_switches: %ld", &n) == 1)
            sum += n;
    if (f)
        fclose(f);
    return sum;
}

static void an_idle_keeper_sleeps(void **state)
{
    struct rig r;
    (void)state;
    start(&r, 1000, 32 * MIB);
    rig_must_store(&r, "h/a", 1, 100);
    rig_wait(rig_look(&r, "h/a") == 1);
    const uint64_t until =
        rig_ms() + 1300; /* the look at everything after the start is over then */
    while (rig_ms() < until)
        rig_nap();
    const long before = switches(r.keeper);
    const uint64_t from = rig_ms();
    while (rig_ms() < from + 1000)
        rig_nap();
    assert_true(switches(r.keeper) - before <= 5);
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_pushed_can_be_read),
        cmocka_unit_test(a_reader_that_remembers_sees_each_change_at_once),
        cmocka_unit_test(records_of_every_size_come_back),
        cmocka_unit_test(long_bodies_stream_in_chunks),
        cmocka_unit_test(a_claim_is_released_when_the_object_can_be_read),
        cmocka_unit_test(a_pinned_body_outlives_its_deletion),
        cmocka_unit_test(a_worker_pins_many_bodies_at_once),
        cmocka_unit_test(a_body_is_there_for_who_looks_at_its_record_over_a_death_of_the_keeper),
        cmocka_unit_test(hostile_records_cost_nothing_but_themselves),
        cmocka_unit_test(a_torn_ring_is_dropped_and_goes_on),
        cmocka_unit_test(streams_of_dead_producers_are_forgotten),
        cmocka_unit_test(the_bound_of_items_is_exact),
        cmocka_unit_test(the_bound_of_bytes_holds),
        cmocka_unit_test(the_warm_store_outlives_another_bound),
        cmocka_unit_test(nothing_is_on_disk_where_no_route_caches),
        cmocka_unit_test(a_higher_bound_takes_effect_while_it_runs),
        cmocka_unit_test(a_lower_bound_keeps_what_fits_over_deaths_and_restarts),
        cmocka_unit_test(what_is_used_stays_when_others_go),
        cmocka_unit_test(a_fetch_older_than_the_invalidation_is_not_stored),
        cmocka_unit_test(an_older_fetch_does_not_replace_a_newer_one),
        cmocka_unit_test(sweeps_delete_what_was_invalidated_and_nothing_else),
        cmocka_unit_test(a_url_that_was_invalidated_twice_is_deleted_once),
        cmocka_unit_test(bans_are_retired_when_they_crowd_and_nobody_reads_what_they_banned),
        cmocka_unit_test(delete_takes_only_what_is_bad),
        cmocka_unit_test(delete_takes_an_object_that_is_still_the_one),
        cmocka_unit_test(a_304_freshens_the_same_object_only),
        cmocka_unit_test(a_renewal_does_not_hide_from_an_invalidation_in_other_tags),
        cmocka_unit_test(an_object_is_deleted_by_its_number_and_no_other),
        cmocka_unit_test(what_is_of_no_use_any_more_expires),
        cmocka_unit_test(an_idle_keeper_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

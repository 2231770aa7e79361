/* SPDX-License-Identifier: BSD-2-Clause */
/* The keeper's walk for prefix bans: what it deletes, in what order, and how gently. */
#include "keeper_rig.h"
#include <dlfcn.h>
#include <lmdb.h>
#include <time.h>

#define MIB     ((uint64_t)1 << 20)
#define OBJECTS 1500

static void start(struct rig *r)
{
    rig_init(r, 100000, 64 * MIB);
    rig_start(r);
}

static void ban(struct rig *r, const char *prefix, bool soft)
{
    uint64_t seq;
    assert_int_equal(inval_mark_prefix(r->sh.inval, prefix, strlen(prefix), soft, &seq), 0);
}

/* The keeper looks for bans now. */
static void hint(struct rig *r)
{
    const struct ring_sweep what = {.kind = 2, .len = 1};
    const struct iovec iov[] = {{(void *)(uintptr_t)&what, sizeof what},
                                {(void *)(uintptr_t) "x", 1}};
    const struct ring_record head = {
        .type = RING_SWEEP, .incarnation = 1, .permit = FETCH_LOCK_NONE};
    assert_int_equal(ring_push(r->sh.ring[SHARED_RING_CONTROL], &head, iov, 2, r->sh.keeper_event),
                     0);
}

/* In the order of a walk, or backwards. */
static void store_many(struct rig *r, const char *prefix, unsigned n, bool backwards)
{
    char url[64];
    const uint64_t before = rig_gauge(r, STATS_GAUGE_CACHE_ITEMS);
    for (unsigned i = 0; i < n; i++) {
        snprintf(url, sizeof url, "%s%04u", prefix, backwards ? n - 1 - i : i);
        rig_must_store(r, url, 1, 100);
    }
    rig_wait(rig_gauge(r, STATS_GAUGE_CACHE_ITEMS) == before + n);
}

static bool is_there(struct rig *r, const char *prefix, unsigned i)
{
    char url[64];
    snprintf(url, sizeof url, "%s%04u", prefix, i);
    return rig_look(r, url) == 1;
}

/* ---- what goes ---- */

enum fate { STAYS, SOFTENED, GOES };

static enum fate fate_of(struct rig *r, const char *url)
{
    struct cache_key key;
    struct cache_view view;
    enum fate fate = GOES;
    rig_key(r, url, &key);
    if (rig_reader(r) && cache_reader_get(r->reader, &key, &view) == 1)
        fate = view.record->flags & CACHE_SOFTENED ? SOFTENED : STAYS;
    cache_reader_release(r->reader);
    return fate;
}

static uint32_t dice_state;
static unsigned dice(unsigned n)
{
    dice_state = dice_state * 1664525u + 1013904223u;
    return (dice_state >> 8) % n;
}

/* Hosts and paths that are prefixes of each other, or differ by bytes on both sides of '/'; one
 * host that leaves no room for its paths in the keys of `url`. */
static void url_make(unsigned number, char *url, size_t size)
{
    static const char *const hosts[] = {"a", "a.b", "a.b:1", "b"};
    static const char some[] = "/!x0~";
    char path[8] = "/";
    const unsigned len = 1 + dice(6);
    for (unsigned i = 1; i < len; i++)
        path[i] = some[dice(5)];
    if (dice(8))
        snprintf(url, size, "%s%s?%u", hosts[dice(4)], path, number);
    else
        snprintf(url, size, "%0*u%s?%u", 393 + (int)dice(10), 7, path, number);
}

struct world {
    char url[OBJECTS][440];
    enum fate fate[OBJECTS];
};

/* A ban of the beginning of some URL, or of some path on all hosts: then nothing is passed over. */
static void ban_something(struct rig *r, struct world *w, bool all_hosts)
{
    char prefix[INVAL_PREFIX_MAX + 1];
    const char *from = w->url[dice(OBJECTS)];
    const bool soft = dice(2);
    if (all_hosts && dice(2))
        from = strchr(from, '/');
    const unsigned end = (unsigned)strcspn(from, "?");
    snprintf(prefix, sizeof prefix, "%.*s", (int)(1 + dice(end)), from);
    ban(r, prefix, soft);
    for (unsigned i = 0; i < OBJECTS; i++) {
        const enum fate fate = soft ? SOFTENED : GOES;
        if (fate > w->fate[i] &&
            inval_prefix_matches(prefix, strlen(prefix), w->url[i], strlen(w->url[i])))
            w->fate[i] = fate;
    }
}

static void what_many_bans_match_goes_and_nothing_else(void **state)
{
    struct rig r;
    struct world *w = calloc(1, sizeof *w);
    (void)state;
    const char *seed = getenv("POLDER_SEED");
    dice_state = seed ? (uint32_t)strtoul(seed, NULL, 10) : (uint32_t)time(NULL);
    print_message("seed %u\n", dice_state);
    start(&r);
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned i = 0; i < OBJECTS; i++) {
            url_make(i, w->url[i], sizeof w->url[i]);
            w->fate[i] = STAYS;
            rig_must_store(&r, w->url[i], 1, 100);
        }
        rig_wait(rig_drained(&r));
        rig_wait(rig_look(&r, w->url[OBJECTS - 1]) == 1);
        for (unsigned burst = 0; burst < 2; burst++) { /* the second one may find it at work */
            for (unsigned i = 1 + dice(5); i; i--)
                ban_something(&r, w, round % 2);
            hint(&r);
        }
        for (unsigned i = 0; i < OBJECTS; i++)
            rig_wait(fate_of(&r, w->url[i]) == w->fate[i]);
        struct inval_ban left;
        for (unsigned i = 0; i < INVAL_BANS; i++)
            if (inval_ban_read(r.sh.inval, i, &left))
                inval_retire_prefix(r.sh.inval, left.seq);
        inval_mark_all(r.sh.inval, false);
    }
    assert_int_equal(rig_counter(&r, STATS_CACHE_ROTATIONS), 0);
    free(w);
    rig_free(&r);
}

/* ---- in what order ---- */

static unsigned count(struct rig *r, const char *prefix, unsigned n)
{
    unsigned there = 0;
    for (unsigned i = 0; i < n; i++)
        there += is_there(r, prefix, i);
    return there;
}

static void one_walk_is_for_all_bans_that_were_there_when_it_began(void **state)
{
    struct rig r;
    (void)state;
    start(&r);
    store_many(&r, "h/a/", 2000, false);
    store_many(&r, "h/m/", 10, false);
    store_many(&r, "h/z/", 2000, false);
    kill(r.keeper, SIGSTOP); /* so that it finds both at once */
    ban(&r, "h/z/", false);
    ban(&r, "/a/", false);
    hint(&r);
    kill(r.keeper, SIGCONT);
    rig_wait(!is_there(&r, "h/z/", 0)); /* a walk for the first ban alone begins here */
    kill(r.keeper, SIGSTOP);
    assert_int_equal(count(&r, "h/a/", 2000), 0);
    assert_true(count(&r, "h/z/", 2000) > 0);
    ban(&r, "h/m/", true); /* the walk is behind it; and no look at everything does that */
    hint(&r);
    kill(r.keeper, SIGCONT);
    for (unsigned i = 0; i < 10; i++) {
        char url[16];
        snprintf(url, sizeof url, "h/m/%04u", i);
        rig_wait(fate_of(&r, url) == SOFTENED);
    }
    assert_int_equal(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS), 10);
    assert_int_equal(rig_counter(&r, STATS_CACHE_INVALIDATED), 4000);
    rig_free(&r);
}

static void a_walk_that_was_killed_is_begun_again(void **state)
{
    struct rig r;
    (void)state;
    start(&r);
    store_many(&r, "h/a/", 2000, false);
    store_many(&r, "h/b/", 10, false);
    store_many(&r, "h/c/", 2000, false);
    ban(&r, "h/c/", false);
    ban(&r, "/a/", false);
    for (unsigned gone = 500; gone < 4000; gone += 1000) {
        hint(&r);
        rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) < 4010 - gone);
        rig_kill(&r);
        rig_start(&r);
    }
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 10);
    assert_int_equal(count(&r, "h/b/", 10), 10);
    rig_free(&r);
}

/* Shared with the keeper: the number of the commit, counted down, that finds the map full. */
static _Atomic uint32_t *fails_in;

/* In place of LMDB's own. */
int mdb_txn_commit(MDB_txn *txn)
{
    int (*real)(MDB_txn *);
    void *symbol = dlsym(RTLD_NEXT, "mdb_txn_commit");
    memcpy(&real, &symbol, sizeof real);
    if (!fails_in || !atomic_load(fails_in) || atomic_fetch_sub(fails_in, 1) != 1)
        return real(txn);
    mdb_txn_abort(txn);
    return MDB_MAP_FULL;
}

static void what_could_not_be_deleted_is_deleted_before_the_ban_is_forgotten(void **state)
{
    struct rig r;
    struct inval_ban one;
    char prefix[16];
    (void)state;
    fails_in = rig_map(sizeof *fails_in);
    start(&r);
    store_many(&r, "h/a/", 1000, true); /* what is evicted is not what the walk has come to */
    kill(r.keeper, SIGSTOP);
    for (unsigned i = 0; i < 60; i++) { /* a crowd: none stays longer than it has to */
        snprintf(prefix, sizeof prefix, i ? "h/%u/" : "h/a/", i);
        ban(&r, prefix, false);
    }
    atomic_store(fails_in, 10);
    hint(&r);
    kill(r.keeper, SIGCONT);
    rig_wait((hint(&r), !inval_ban_read(r.sh.inval, 0, &one)));
    assert_int_equal(atomic_load(fails_in), 0);
    assert_true(rig_logged(&r, "is full; gave up a part of it"));
    assert_int_equal(count(&r, "h/a/", 1000), 0);
    assert_int_equal(rig_counter(&r, STATS_CACHE_ROTATIONS), 0);
    rig_free(&r);
    munmap(fails_in, sizeof *fails_in);
    fails_in = NULL;
}

/* ---- how gently ---- */

static uint64_t cpu_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec t;
    assert_int_equal(clock_getcpuclockid(pid, &clock), 0);
    assert_int_equal(clock_gettime(clock, &t), 0);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* How often it went to sleep by itself. */
static unsigned long sleeps(pid_t pid)
{
    char path[64], line[256];
    unsigned long n = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) && sscanf(line, "voluntary_ctxt_switches: %lu", &n) != 1) {
    }
    fclose(f);
    return n;
}

static void the_keeper_rests_between_slices_of_a_sweep(void **state)
{
    enum { MANY = 6000, A_SLICE = 48 };
    struct rig r;
    (void)state;
    start(&r);
    store_many(&r, "h/a/", MANY, false);
    ban(&r, "/a/", false);
    const unsigned long slept = sleeps(r.keeper);
    const uint64_t cpu = cpu_ns(r.keeper), began = clock_mono_ns();
    hint(&r);
    rig_wait(rig_gauge(&r, STATS_GAUGE_CACHE_ITEMS) == 0);
    const uint64_t took = clock_mono_ns() - began, used = cpu_ns(r.keeper) - cpu;
    /* a rest that others have filled needs no sleep any more */
    assert_true(sleeps(r.keeper) - slept >= MANY / A_SLICE / 2);
    assert_true(used < took * 3 / 4); /* half of it, or less where others need the core */
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_many_bans_match_goes_and_nothing_else),
        cmocka_unit_test(one_walk_is_for_all_bans_that_were_there_when_it_began),
        cmocka_unit_test(a_walk_that_was_killed_is_begun_again),
        cmocka_unit_test(what_could_not_be_deleted_is_deleted_before_the_ban_is_forgotten),
        cmocka_unit_test(the_keeper_rests_between_slices_of_a_sweep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

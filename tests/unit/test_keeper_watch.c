/* SPDX-License-Identifier: BSD-2-Clause */
/* The keeper notices who else touches its file, and takes nobody for a stranger who is none. */
#include "keeper_rig.h"
#include <sys/stat.h>

#define MIB ((uint64_t)1 << 20)

static uint64_t epoch_of(const struct rig *r)
{
    return atomic_load(&r->sh.cache->epoch);
}

static void data_path(const struct rig *r, char *path, size_t size)
{
    snprintf(path, size, "%s/cache.%llu/data.mdb", r->dir, (unsigned long long)epoch_of(r));
}

static void open_house(struct rig *r, char *path, size_t size)
{
    rig_init(r, 1000, 8 * MIB);
    rig_start(r);
    rig_must_store(r, "h/a", 1, 1000);
    rig_wait(rig_look(r, "h/a") == 1);
    data_path(r, path, size);
}

/* Another store than before, an empty one, and it works. */
static void given_up(struct rig *r, uint64_t before, const char *why)
{
    rig_wait(epoch_of(r) > before);
    assert_true(rig_logged(r, why));
    rig_must_store(r, "h/b", 2, 1000);
    rig_wait(rig_look(r, "h/b") == 2);
    assert_int_equal(rig_look(r, "h/a"), 0);
    assert_int_equal(rig_counter(r, STATS_CACHE_ROTATIONS), 1);
    assert_int_equal(waitpid(r->keeper, NULL, WNOHANG), 0); /* the same keeper */
}

static void a_byte_that_somebody_else_writes_costs_the_store(void **state)
{
    struct rig r;
    char path[256];
    (void)state;
    open_house(&r, path, sizeof path);
    const uint64_t before = epoch_of(&r);
    const int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, 5 << 20), 1); /* where nothing is yet */
    close(fd);
    given_up(&r, before, "another process has written to data.mdb");
    rig_free(&r);
}

static void a_file_that_is_taken_away_costs_the_store(void **state)
{
    struct rig r;
    char path[256];
    (void)state;
    open_house(&r, path, sizeof path);
    const uint64_t before = epoch_of(&r);
    assert_int_equal(unlink(path), 0);
    given_up(&r, before, "data.mdb was moved or removed");
    rig_free(&r);
}

/* A worker that comes later would make one of its own, and be a reader that nobody sees. */
static void a_lock_file_that_is_taken_away_costs_the_store(void **state)
{
    struct rig r;
    char path[256];
    (void)state;
    open_house(&r, path, sizeof path);
    const uint64_t before = epoch_of(&r);
    memcpy(strrchr(path, '/'), "/lock.mdb", sizeof "/lock.mdb");
    assert_int_equal(unlink(path), 0);
    given_up(&r, before, "lock.mdb was moved or removed");
    rig_free(&r);
}

static void who_looks_and_who_belongs_here_costs_nothing(void **state)
{
    struct rig r;
    char path[256], byte;
    struct stat st;
    (void)state;
    open_house(&r, path, sizeof path);
    const uint64_t before = epoch_of(&r);
    const int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, &byte, 1), 1);
    close(fd);
    assert_int_equal(chmod(path, 0640), 0);
    rig_limits(&r, 1000, 32 * MIB); /* it grows */
    rig_wait(rig_logged(&r, "the store has grown"));
    assert_int_equal(stat(path, &st), 0);
    assert_true((uint64_t)st.st_size >= 32 * MIB);
    rig_must_store(&r, "h/b", 2, 1000);
    rig_wait(rig_look(&r, "h/b") == 2);
    assert_int_equal(rig_look(&r, "h/a"), 1);
    rig_kill(&r); /* nor does a successor mind */
    rig_start(&r);
    rig_must_store(&r, "h/c", 3, 1000);
    rig_wait(rig_look(&r, "h/c") == 3);
    assert_int_equal(epoch_of(&r), before);
    assert_int_equal(rig_counter(&r, STATS_CACHE_ROTATIONS), 0);
    rig_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_byte_that_somebody_else_writes_costs_the_store),
        cmocka_unit_test(a_file_that_is_taken_away_costs_the_store),
        cmocka_unit_test(a_lock_file_that_is_taken_away_costs_the_store),
        cmocka_unit_test(who_looks_and_who_belongs_here_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

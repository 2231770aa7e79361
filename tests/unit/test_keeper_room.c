/* SPDX-License-Identifier: BSD-2-Clause */
/* A disk with less room than the store is to have: nobody else is left without any for it. */
#include "keeper_rig.h"
#include <glob.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#define MIB      ((uint64_t)1 << 20)
#define WANTED   (1024 * MIB)
#define CAPACITY (100 * MIB)

/* The keeper's disk: a file on it has at most CAPACITY bytes. */
static struct {
    bool tells; /* how much is free; else that is found out by trying */
    uint32_t tried;
} * disk;

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    const off_t most = (off_t)CAPACITY;
    if (len <= most)
        return (int)syscall(SYS_fallocate, fd, mode, offset, len);
    disk->tried++;
    syscall(SYS_fallocate, fd, mode, offset, most); /* as ext4 does: what there is */
    errno = ENOSPC;
    return -1;
}

int fstatvfs(int fd, struct statvfs *to)
{
    struct stat st;
    memset(to, 0, sizeof *to);
    if (fstat(fd, &st) < 0)
        return -1;
    to->f_frsize = 4096;
    to->f_blocks = disk->tells;
    to->f_bavail = (CAPACITY - (uint64_t)st.st_blocks * 512) / 4096;
    return 0;
}

static uint64_t file_size(const struct rig *r)
{
    char pattern[128];
    struct stat st;
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/cache.*/data.mdb", r->dir);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    assert_int_equal(stat(found.gl_pathv[0], &st), 0);
    globfree(&found);
    return (uint64_t)st.st_size;
}

static void start(struct rig *r, bool tells)
{
    disk = rig_map(sizeof *disk);
    disk->tells = tells;
    rig_init(r, 1000, WANTED);
    rig_start(r);
    rig_wait(rig_logged(r, "cannot grow data.mdb")); /* it tries once more, a tick later */
}

static void stop(struct rig *r)
{
    rig_free(r);
    munmap(disk, sizeof *disk);
}

static void a_disk_that_is_too_small_is_not_filled_to_find_out(void **state)
{
    struct rig r;
    (void)state;
    start(&r, true);
    assert_true(rig_logged(&r, "not enough disk"));
    assert_int_equal(disk->tried, 0);
    assert_in_range(file_size(&r), CAPACITY / 2, CAPACITY - 1);
    rig_must_store(&r, "h/a", 1, 1000);
    rig_wait(rig_look(&r, "h/a") == 1);
    stop(&r);
}

static void what_was_taken_in_vain_is_given_back(void **state)
{
    struct rig r;
    (void)state;
    start(&r, false);
    assert_true(disk->tried > 0);
    assert_in_range(file_size(&r), CAPACITY / 2, CAPACITY - 1);
    stop(&r);
}

static void a_smaller_store_is_kept_over_deaths_and_restarts(void **state)
{
    struct rig r;
    (void)state;
    start(&r, true);
    rig_must_store(&r, "h/a", 1, 1000);
    rig_wait(rig_look(&r, "h/a") == 1);
    rig_kill(&r);
    rig_start(&r);
    assert_int_equal(rig_look(&r, "h/a"), 1);
    rig_restart_all(&r, 1000, WANTED);
    assert_int_equal(rig_look(&r, "h/a"), 1);
    assert_false(rig_logged(&r, "failed its checks"));
    stop(&r);
}

static void a_disk_without_room_is_a_condition_until_there_is(void **state)
{
    struct rig r;
    (void)state;
    start(&r, true);
    rig_wait(rig_raised(&r, COND_DISK_FULL));
    rig_kill(&r);
    assert_true(rig_raised(&r, COND_DISK_FULL)); /* it is no better for that */
    rig_start(&r);
    rig_wait(rig_raised(&r, COND_DISK_FULL));
    rig_limits(&r, 1000, 2 * MIB); /* or less is wanted */
    rig_wait(!rig_raised(&r, COND_DISK_FULL));
    stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_is_too_small_is_not_filled_to_find_out),
        cmocka_unit_test(what_was_taken_in_vain_is_given_back),
        cmocka_unit_test(a_smaller_store_is_kept_over_deaths_and_restarts),
        cmocka_unit_test(a_disk_without_room_is_a_condition_until_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Stories of everything that dies at once, of files that are damaged under the feet of those who
 * read them, and of disks that are full: warm or empty, never wrong, and soon there again. */
#include "tests/chaos/chaos.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS   4
#define NOTICE_MS 100   /* for the keeper to see that somebody else writes to its file */
#define RETRY_MS  30000 /* between two tries of the keeper to make a store */

struct scene {
    struct board *b;
    struct backend *backend;
    struct house h;
    struct readers readers;
    pid_t writer;
};

static void scene_open_with(struct scene *s, struct writer_plan plan, const char *max_bytes)
{
    memset(s, 0, sizeof *s);
    s->b = board_open();
    s->backend = backend_start(board_answers, s->b);
    house_start(&s->h, WORKERS, board_routes, max_bytes, backend_port(s->backend));
    atomic_store(&s->b->delay_us, 2000);
    s->b->began_ms = mono_ms();
    readers_start(&s->readers, s->b, s->h.port, 12);
    s->writer = writer_start(s->b, s->h.sock, s->h.port, plan);
}

static void scene_open(struct scene *s, unsigned updates)
{
    scene_open_with(s, (struct writer_plan){.per_second = updates, .tolerant = true}, "256M");
}

static void scene_close(struct scene *s, const char *story)
{
    readers_join(&s->readers, s->b);
    waitpid(s->writer, NULL, 0);
    wait_until(house_ready(&s->h), 10000);
    board_judge(s->b, story);
    house_remove(&s->h);
    backend_stop(s->backend);
    board_close(s->b);
}

static void let_time_pass(unsigned ms)
{
    for (const uint64_t end = mono_ms() + ms; mono_ms() < end;)
        nap_ms(5);
}

static unsigned logged(const struct house *h, const char *text)
{
    FILE *f = fopen(h->log, "r");
    char line[4096];
    unsigned n = 0;
    while (f && fgets(line, sizeof line, f))
        n += strstr(line, text) != NULL;
    if (f)
        fclose(f);
    return n;
}

/* ---- everything is killed ---- */

static void after_the_death_of_all_it_is_warm_and_right(void **state)
{
    (void)state;
    const unsigned rounds = chaos_count("CHAOS_RESTARTS", 20, 2);
    struct scene s;
    uint64_t slowest = 0, sum = 0;
    double worst = 100;
    scene_open(&s, 100);
    let_time_pass(1500);
    for (unsigned i = 0; i < rounds; i++) {
        kill(s.h.pid, SIGKILL); /* the others follow, and are not waited for */
        waitpid(s.h.pid, NULL, 0);
        const uint64_t start = mono_ms();
        house_run(&s.h);
        const uint64_t ready = mono_ms(), took = ready - start;
        let_time_pass(1200);
        const double hits = board_hit_rate(s.b, ready, ready + 1000);
        worst = hits < worst ? hits : worst;
        slowest = took > slowest ? took : slowest;
        sum += took;
    }
    const unsigned kept = logged(&s.h, "cache: kept"), empty = logged(&s.h, "an empty store");
    printf("chaos: restarts: all killed %u times: ready again after %u ms, %u at most; kept the "
           "store %u times; hits in the second after: %.1f %% at least\n",
           rounds, (unsigned)(sum / rounds), (unsigned)slowest, kept, worst);
    fflush(stdout);
    assert_int_equal(kept, rounds);
    assert_int_equal(empty, 1);
    assert_true(slowest < harness_patience(3000));
    assert_true(harness_sanitized() || worst > 50);
    scene_close(&s, "restarts");
}

/* ---- the file is damaged while it is in use ---- */

static int data_open(const struct house *h)
{
    char dir[256], path[600];
    int fd = -1;
    snprintf(dir, sizeof dir, "%s/state", h->dir);
    DIR *d = opendir(dir);
    const struct dirent *e;
    while (d && fd < 0 && (e = readdir(d)))
        if (!strncmp(e->d_name, "cache.", 6)) {
            snprintf(path, sizeof path, "%s/%s/data.mdb", dir, e->d_name);
            fd = open(path, O_RDWR | O_CLOEXEC);
        }
    if (d)
        closedir(d);
    return fd;
}

enum damage { CUT_SHORT, FLIPPED_BITS, CUT_TO_NOTHING, NOISE_IN_FRONT, NOISE_ALL_OVER, DAMAGES };
static const char *const damages[DAMAGES] = {"cut short", "flipped bits", "cut to nothing",
                                             "noise in front", "noise all over"};

static void damage(int fd, enum damage kind)
{
    char noise[4096];
    const off_t used = 12 << 20; /* about what the resources take */
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)rand();
    switch (kind) {
    case CUT_SHORT:
        assert_int_equal(ftruncate(fd, 1 << 20), 0);
        break;
    case CUT_TO_NOTHING:
        assert_int_equal(ftruncate(fd, 0), 0);
        break;
    case NOISE_IN_FRONT:
        assert_int_equal(pwrite(fd, noise, sizeof noise, 0), sizeof noise);
        assert_int_equal(pwrite(fd, noise, sizeof noise, 4096), sizeof noise);
        break;
    case NOISE_ALL_OVER:
        for (off_t at = 0; at < used; at += 4096)
            assert_int_equal(pwrite(fd, noise, sizeof noise, at), sizeof noise);
        break;
    default:
        for (unsigned i = 0; i < 3000; i++) {
            const off_t at = 8192 + rand() % (used - 8192);
            char byte;
            if (pread(fd, &byte, 1, at) == 1) {
                byte = (char)(byte ^ 1 << rand() % 8);
                assert_int_equal(pwrite(fd, &byte, 1, at), 1);
            }
        }
        break;
    }
}

/* Where the tree stays whole and only what was verified before is changed, it takes the keeper a
 * moment to notice that somebody writes: what is served meanwhile is counted apart. */
static unsigned long long forgive(struct board *b, enum damage kind)
{
    const unsigned long long served = atomic_load(&b->wrong);
    if (kind != FLIPPED_BITS)
        return served;
    atomic_store(&b->wrong, 0);
    atomic_store(&b->notes, 0);
    return served;
}

static void damage_while_it_runs(enum damage kind)
{
    struct scene s;
    srand(99 + kind);
    scene_open(&s, 50);
    let_time_pass(1500);
    const uint64_t at = mono_ms();
    const double before = board_hit_rate(s.b, at - 500, at);
    const int fd = data_open(&s.h);
    assert_true(fd >= 0);
    damage(fd, kind);
    close(fd);
    wait_until(stat_of(&s.h, "rotations") > 0, 5000);
    const unsigned noticed = (unsigned)(mono_ms() - at);
    let_time_pass(NOTICE_MS);
    const unsigned long long served = forgive(s.b, kind);
    let_time_pass(1000);
    uint64_t now;
    wait_until((now = mono_ms(), let_time_pass(500),
                stat_of(&s.h, "ready") == 1 && board_hit_rate(s.b, now, now + 500) > before * 0.9),
               20000);
    printf(
        "chaos: damage: %s: hits before %.1f %%, as many again within %u ms; rotations %llu, bad "
        "records %llu; noticed within %u ms, "
        "served %llu times before that\n",
        damages[kind], before, (unsigned)(mono_ms() - at), stat_of(&s.h, "rotations"),
        stat_of(&s.h, "bad_records"), noticed, served);
    assert_in_range(stat_of(&s.h, "rotations"), 0, 1); /* one damage, one store */
    scene_close(&s, damages[kind]);
}

static void a_file_damaged_in_use_is_given_up_at_once(void **state)
{
    (void)state;
    const unsigned kinds = chaos_count("CHAOS_DAMAGES", DAMAGES, 2);
    for (unsigned kind = 0; kind < kinds && kind < DAMAGES; kind++)
        damage_while_it_runs((enum damage)kind);
}

/* ---- the disk is full ---- */

#define DISK_MIB 200

/* A disk of our own, made the place for everything; false: we may not. */
static bool disk_mount(char dir[64])
{
    char size[32];
    snprintf(dir, 64, "/tmp/polder-disk.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(size, sizeof size, "size=%um", DISK_MIB);
    if (mount("none", dir, "tmpfs", MS_NOSUID, size) == 0) {
        setenv("TMPDIR", dir, 1);
        return true;
    }
    rmdir(dir);
    return false;
}

static void disk_unmount(const char *dir)
{
    umount2(dir, MNT_DETACH);
    rmdir(dir);
    unsetenv("TMPDIR");
}

/* Takes all the room that is left, to the last block. */
static void disk_fill(const char *dir, char path[128])
{
    static const char zeros[65536];
    size_t step = sizeof zeros;
    snprintf(path, 128, "%s/filler", dir);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (step >= 512)
        if (write(fd, zeros, step) <= 0)
            step /= 2;
    close(fd);
}

static double hits_of(struct scene *s, unsigned ms)
{
    const uint64_t now = mono_ms();
    let_time_pass(ms);
    return board_hit_rate(s->b, now, now + ms);
}

/* A store of 144 MiB on a disk of 200: room for one, not for two. What is reserved already stays,
 * and a store that is given up makes room for the next one. */
static void a_full_disk_is_not_felt_while_there_is_a_store(struct scene *s, const char *disk)
{
    char filler[128];
    const double before = (let_time_pass(1500), hits_of(s, 500));
    disk_fill(disk, filler);
    const double full = hits_of(s, 1500);
    assert_true(full > before * 0.9);
    assert_int_equal(stat_of(&s->h, "rotations"), 0);
    const int fd = data_open(&s->h);
    damage(fd, NOISE_IN_FRONT);
    close(fd);
    const uint64_t lost_ms = mono_ms();
    double after = 0;
    wait_until((after = hits_of(s, 500)) > before * 0.9, 10000);
    printf("chaos: full disk: hits before %.1f %%, with the disk full %.1f %%; the store is lost, "
           "%u ms later: %.1f %%\n",
           before, full, (unsigned)(mono_ms() - lost_ms), after);
    assert_int_equal(stat_of(&s->h, "rotations"), 1);
    assert_int_equal(stat_of(&s->h, "ready"), 1);
    unlink(filler);
}

/* Started where there is no room at all: it serves, and has a store half a minute after there is.
 */
static void a_start_without_room_serves_and_recovers(struct scene *s, const char *disk)
{
    char filler[128], command[256];
    assert_int_equal(house_stop(&s->h), 0);
    snprintf(command, sizeof command, "rm -rf %s/state/cache.*", s->h.dir);
    assert_int_equal(system(command), 0);
    disk_fill(disk, filler);
    house_run(&s->h);
    const double without = hits_of(s, 2000);
    assert_true(without >= 0); /* there are answers */
    assert_int_equal(stat_of(&s->h, "ready"), 0);
    unlink(filler);
    const uint64_t room_ms = mono_ms();
    wait_until(stat_of(&s->h, "ready") == 1, RETRY_MS + 5000);
    const unsigned took = (unsigned)(mono_ms() - room_ms);
    const double after = (let_time_pass(1000), hits_of(s, 500));
    printf("chaos: full disk: started without room: hits %.1f %%; %u ms after there is room: %.1f "
           "%%\n",
           without, took, after);
    assert_true(harness_sanitized() || after > 50);
}

static void a_full_disk_costs_the_cache_at_most_and_not_the_service(void **state)
{
    (void)state;
    struct scene s;
    char disk[64];
    if (!disk_mount(disk)) {
        print_message("a disk of our own cannot be mounted here\n");
        skip();
    }
    scene_open_with(&s, (struct writer_plan){.per_second = 50, .tolerant = true, .gentle = true},
                    "64M");
    a_full_disk_is_not_felt_while_there_is_a_store(&s, disk);
    if (chaos_count("CHAOS_DISK", 1, 0))
        a_start_without_room_serves_and_recovers(&s, disk);
    scene_close(&s, "full disk");
    disk_unmount(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_the_death_of_all_it_is_warm_and_right),
        cmocka_unit_test(a_file_damaged_in_use_is_given_up_at_once),
        cmocka_unit_test(a_full_disk_costs_the_cache_at_most_and_not_the_service),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Segments of an earlier run: used again only if they are whole and ours, and then with every count. */
#include "libshared/limit/limit_table.h"
#include "polder/kept.h"
#include "polder/limit.h"
#include "polder/log.h"
#include "polder/server_check.h"
#include "polder/server_load.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "limit_rig.h"

#define ENTRIES  ((size_t)4096)
#define T0       UINT64_C(500000000)
#define MINUTE   UINT64_C(60000)
#define REQUESTS 100

static char dir[64], path[96], why[160];

static const char *mend(void *base, int fd, const struct kept_request *want)
{
    return limit_table_mend(base, want->size, fd, want->mono_ms);
}

static struct kept_request request_at(uint64_t now_ms)
{
    return (struct kept_request){.name = "limits",
                                 .kind = SHM_LIMIT,
                                 .abi = LIMIT_ABI,
                                 .layout = limit_table_layout(),
                                 .size = limit_counts_size(ENTRIES),
                                 .mono_ms = now_ms,
                                 .mend = mend};
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/polder-kept-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/limits.page", dir);
    proc = shared_memory(sizeof *proc);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    rmdir(dir);
    munmap(proc, sizeof *proc);
    return 0;
}

/* A table as a first run makes it. */
static void fill(struct shm_segment *seg)
{
    table = seg->base;
    limit_table_init(table, ENTRIES);
    shm_publish(seg);
}

static bool make_file(struct shm_segment *seg)
{
    bool found;
    const struct kept_request want = request_at(T0);
    assert_int_equal(kept_file(seg, &want, path, &found, why, sizeof why), 0);
    if (!found)
        fill(seg);
    table = seg->base;
    return found;
}

static void make_memory(struct shm_segment *seg)
{
    const struct kept_request w = request_at(T0);
    assert_int_equal(shm_create(seg, w.name, w.kind, w.abi, w.layout, w.size), 0);
    fill(seg);
}

static uint64_t key_of(uint64_t who)
{
    return limit_key(table, 1, &who, sizeof who);
}

static uint32_t admitted(uint64_t who, enum runtime_algorithm a, uint32_t tries, uint64_t now_ms)
{
    const struct runtime_limit l = {REQUESTS, a, MINUTE, 0, 0, 0, 0};
    const struct limit_caller me = process_born(0);
    const struct limit_charge c = {.key = key_of(who), .limit = &l, .cost = 1};
    struct limit_verdict v;
    uint32_t n = 0;
    while (tries--)
        n += limit_charge(&me, &c, 1, now_ms, &v);
    return n;
}

/* ---- whole ones ---- */

static void counts_of_a_file_and_of_memory_go_on(void **state)
{
    struct shm_segment seg;
    (void)state;
    for (int in_file = 0; in_file < 2; in_file++) {
        if (in_file)
            assert_false(make_file(&seg));
        else
            make_memory(&seg);
        for (unsigned a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++)
            assert_int_equal(admitted(a, a, 60, T0 + 50), 60);
        const int fd = dup(seg.fd);
        shm_close(&seg);
        const struct kept_request want = request_at(T0 + 200);
        if (in_file) {
            close(fd);
            assert_true(make_file(&seg));
        } else {
            assert_int_equal(kept_adopt(&seg, &want, fd, why, sizeof why), 0);
            table = seg.base;
        }
        for (unsigned a = RUNTIME_SLIDING; a <= RUNTIME_GCRA; a++)
            assert_int_equal(admitted(a, a, 60, T0 + 200), REQUESTS - 60);
        assert_int_equal(admitted(9, RUNTIME_SLIDING, 120, T0 + 200), REQUESTS);
        shm_close(&seg);
    }
}

/* Killed anywhere in a charge, with new keys in a small table: what was admitted stays counted. */
static void no_count_is_lost_to_a_process_killed_in_a_charge(void **state)
{
    enum { KEYS = 5000, KILLS = 20 };
    struct shm_segment seg;
    (void)state;
    struct progress {
        _Atomic uint32_t admitted, turns;
    } *n = shared_memory(sizeof *n);
    make_memory(&seg);
    for (int kill_no = 0; kill_no < KILLS; kill_no++) {
        n->admitted = n->turns = 0;
        const uint64_t now = T0 + (uint64_t)kill_no;
        const pid_t pid = fork();
        if (pid == 0)
            for (uint64_t i = 0;; i++) {
                n->admitted += admitted(1000000, RUNTIME_SLIDING, 1, now);
                n->turns++;
                admitted(i % KEYS, RUNTIME_SLIDING, 1, now);
            }
        while (n->turns < 200)
            usleep(100);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        const int fd = dup(seg.fd);
        shm_close(&seg);
        memset(proc, 0, sizeof *proc); /* that of the next run */
        const struct kept_request want = request_at(now);
        assert_int_equal(kept_adopt(&seg, &want, fd, why, sizeof why), 0);
        table = seg.base;
        if (kill_no == 0)
            assert_int_equal(n->admitted, REQUESTS);
        assert_int_equal(admitted(1000000, RUNTIME_SLIDING, 10, now), 0);
        struct limit_table_stats stats;
        limit_table_stats(table, now, &stats);
        assert_int_equal(stats.lock_refusals, 0);
    }
    shm_close(&seg);
    munmap(n, sizeof *n);
}

/* ---- others ---- */

static void expect_refused(int fd, const struct kept_request *want, const char *reason)
{
    struct shm_segment seg;
    assert_int_equal(kept_adopt(&seg, want, fd, why, sizeof why), -EPROTO);
    assert_string_equal(why, reason);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_descriptor_of_something_else_is_refused(void **state)
{
    struct kept_request want = request_at(T0);
    struct shm_segment seg;
    int ends[2];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    expect_refused(ends[0], &want, "its descriptor is no memory");
    close(ends[1]);
    int fd = memfd_create("bare", MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)want.size), 0);
    expect_refused(dup(fd), &want, "it is not sealed");
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    expect_refused(fd, &want, "it was not complete");
    make_memory(&seg);
    struct shm_header *h = seg.base;
    want.size += 4096;
    expect_refused(dup(seg.fd), &want, "it is smaller: truncated, or of other settings");
    want.size -= 8192;
    expect_refused(dup(seg.fd), &want, "it is larger: of other settings");
    want = request_at(T0);
    want.layout++;
    expect_refused(dup(seg.fd), &want, "another version has made it");
    want = request_at(T0);
    want.abi++;
    expect_refused(dup(seg.fd), &want, "another version has made it");
    want = request_at(T0);
    want.kind = SHM_HISTORY;
    expect_refused(dup(seg.fd), &want, "it is another segment");
    want = request_at(T0);
    h->boot_id[3] ^= 1;
    expect_refused(dup(seg.fd), &want, "it is from before the last boot");
    h->boot_id[3] ^= 1;
    table->pages++;
    expect_refused(dup(seg.fd), &want, "it has another number of entries");
    table->pages--;
    table->formats[7] = 6;
    expect_refused(dup(seg.fd), &want, "it names an algorithm that there is not");
    table->formats[7] = 0;
    memset(table->secret, 0, sizeof table->secret);
    expect_refused(dup(seg.fd), &want, "it has no key");
    shm_close(&seg);
}

static void expect_new(const char *reason)
{
    struct shm_segment seg;
    struct stat st;
    assert_false(make_file(&seg));
    assert_string_equal(why, reason);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode) && st.st_size == (off_t)limit_counts_size(ENTRIES));
    assert_int_equal(admitted(1, RUNTIME_SLIDING, 120, T0), REQUESTS);
    shm_close(&seg);
}

static void a_file_of_something_else_is_made_anew(void **state)
{
    char other[112];
    (void)state;
    snprintf(other, sizeof other, "%s/other", dir);
    expect_new("");
    assert_int_equal(truncate(path, 4096), 0);
    expect_new("it is smaller: truncated, or of other settings");
    assert_int_equal(chmod(path, 0622), 0);
    expect_new("others may write it");
    assert_int_equal(link(path, other), 0);
    expect_new("it has another name too");
    unlink(path);
    assert_int_equal(symlink(other, path), 0);
    expect_new("it is a symbolic link");
    struct stat st;
    assert_int_equal(stat(other, &st), 0); /* what it led to was not touched */
    unlink(other);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_new("it is no regular file");
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, 0), 1); /* its magic */
    close(fd);
    expect_new("it was not complete");
    if (geteuid() == 0) {
        assert_int_equal(chown(path, 1, 1), 0);
        expect_new("it belongs to another user");
    }
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    bool found;
    struct shm_segment seg;
    const struct kept_request want = request_at(T0);
    assert_true(kept_file(&seg, &want, path, &found, why, sizeof why) < 0);
    assert_int_equal(rmdir(path), 0);
}

static void a_file_that_another_process_uses_is_left_alone(void **state)
{
    struct shm_segment first, second;
    bool found;
    const struct kept_request want = request_at(T0);
    (void)state;
    assert_false(make_file(&first));
    assert_int_equal(kept_file(&second, &want, path, &found, why, sizeof why), -EBUSY);
    assert_int_equal(access(path, F_OK), 0);
    shm_close(&first);
}

/* ---- rows that cannot be ---- */

static void rows_that_cannot_be_are_dropped_and_the_others_stay(void **state)
{
    struct shm_segment seg;
    (void)state;
    make_memory(&seg);
    for (uint64_t who = 0; who < 100; who++)
        assert_int_equal(admitted(who, RUNTIME_SLIDING, 60, T0), 60);
    uint32_t damaged = 0;
    for (uint64_t who = 0; who < 100; who += 2) {
        const struct limit_place place = limit_slot_of(table, key_of(who));
        struct limit_entry e;
        uint64_t word;
        assert_true(limit_entry_find(&place, &e, &word));
        switch (damaged++ % 3) {
        case 0: /* kept for years */
            atomic_store(e.word,
                         (word & ~LIMIT_UNTIL_MASK) | ((T0 / 1000 + 100000000) & LIMIT_UNTIL_MASK));
            break;
        case 1: /* counted in the future */
            *e.state += (limit_word)(5u << LIMIT_FORMAT_BITS);
            break;
        default: /* by an algorithm that was never registered */
            *e.state ^= 1;
        }
    }
    for (unsigned i = 0; i < LIMIT_STRIPES; i++)
        table->stripe[i] = UINT64_C(6) << 32 | 1; /* held by the first worker of the next run */
    assert_null(limit_table_mend(table, seg.size, seg.fd, T0 + 100));
    for (uint64_t who = 0; who < 100; who++)
        assert_int_equal(admitted(who, RUNTIME_SLIDING, 120, T0 + 100),
                         who % 2 ? REQUESTS - 60 : REQUESTS);
    shm_close(&seg);
}

/* ---- states of servers ---- */

static const char *mend_servers(void *base, int fd, const struct kept_request *want)
{
    server_table_mend(base, fd, want->mono_ms);
    return NULL;
}

static struct server_table *servers_again(struct shm_segment *seg, uint64_t now_ms)
{
    const struct kept_request want = {.name = "servers",
                                      .kind = SHM_SERVERS,
                                      .abi = 1,
                                      .layout = server_table_layout(),
                                      .size = sizeof(struct server_table),
                                      .mono_ms = now_ms,
                                      .mend = mend_servers};
    if (!seg->base) {
        assert_int_equal(shm_create(seg, want.name, want.kind, want.abi, want.layout, want.size),
                         0);
        shm_publish(seg);
        return seg->base;
    }
    const int fd = fcntl(seg->fd, F_DUPFD_CLOEXEC, 0);
    shm_close(seg);
    assert_int_equal(kept_adopt(seg, &want, fd, why, sizeof why), 0);
    return seg->base;
}

static void states_of_servers_go_on_and_are_proven_anew(void **state)
{
    struct shm_segment seg = {0};
    struct server_loads load;
    struct server_load own = {0};
    struct server_check_trend trend = {0};
    uint64_t lease_ms;
    (void)state;
    struct server_table *t = servers_again(&seg, T0);
    struct server_row *good = server_claim(t, 1, T0), *refuses = server_claim(t, 2, T0),
                      *ejected = server_claim(t, 3, T0), *checked = server_claim(t, 4, T0);
    assert_true(server_note_failure(refuses, SERVER_REFUSED, false, T0));
    assert_true(server_eject(ejected, SERVER_OUTLIER, T0));
    assert_true(server_check_note(checked, &trend, SERVER_CHECK_STATUS, 2, 1, T0));
    server_check_set_weight(good, 40, false);
    for (uint32_t slot = 0; slot < SERVER_LOADS; slot += SERVER_LOADS - 1) {
        server_load_open(&load, t, good, slot, &own);
        assert_true(server_load_enter(&load, 9));
    }
    assert_true(server_try(refuses, T0 + 5000, 0, 60000, &lease_ms)); /* and dies with the trial */
    t = servers_again(&seg, T0 + 6000);
    good = server_find(t, 1);
    assert_true(server_is_up(good));
    assert_int_equal(server_percent(good), 40);
    assert_int_equal(atomic_load(&server_find(t, 2)->errors[SERVER_REFUSED]), 0);
    assert_int_equal(server_warmth(good, 10000, T0 + 6000), 60); /* since before the restart */
    server_load_look(&load, t, good);
    assert_int_equal(server_load_busy(&load), 0);
    assert_int_equal(server_view(server_find(t, 2)).state, SERVER_DOWN);
    assert_true(server_try(server_find(t, 2), T0 + 7000, 0, 1000, &lease_ms)); /* its next trial */
    assert_true(server_note_answer(server_find(t, 2), true, T0 + 7000));
    assert_int_equal(server_view(server_find(t, 3)).state, SERVER_EJECTED);
    assert_false(server_try(server_find(t, 3), T0 + 7000, 0, 1000, &lease_ms));
    assert_true(
        server_try(server_find(t, 3), T0 + 12000, 0, 1000, &lease_ms)); /* its time is out */
    assert_false(server_is_up(server_find(t, 4)));
    trend = (struct server_check_trend){0};
    server_check_note(server_find(t, 4), &trend, SERVER_CHECK_PASSED, 1, 1, T0 + 7000);
    assert_true(server_is_up(server_find(t, 4)));
    shm_close(&seg);
}

/* As a program that has gone mad may leave it. */
static void rows_of_servers_that_cannot_be_are_dropped(void **state)
{
    struct shm_segment seg = {0};
    struct server_addresses list;
    (void)state;
    struct server_table *t = servers_again(&seg, T0);
    for (uint64_t id = 1; id <= 6; id++)
        server_claim(t, id, T0);
    atomic_store(&server_find(t, 1)->word, 7);
    atomic_store(&server_find(t, 2)->word, UINT64_C(15) << 4);
    atomic_store(&server_find(t, 3)->level, 1000);
    atomic_store(&server_find(t, 4)->retry_ms, UINT64_MAX);
    atomic_store(&server_find(t, 4)->check, UINT64_MAX);
    server_find(t, 5)->copy[1].n = 5;
    atomic_store(&server_find(t, 5)->generation, 1);
    atomic_store(&server_find(t, 6)->word, (T0 + 1000) << 24); /* of the future */
    t = servers_again(&seg, T0 + 10);
    for (uint64_t id = 1; id <= 6; id++)
        assert_int_equal(server_find(t, id) != NULL, id == 4 || id == 5);
    assert_true(server_is_up(server_find(t, 4)));
    assert_in_range(atomic_load(&server_find(t, 4)->retry_ms), 0, T0 + 10);
    assert_false(server_addresses_get(server_find(t, 5), &list));
    assert_non_null(server_claim(t, 1, T0 + 20));
    assert_true(server_is_up(server_find(t, 1)));
    shm_close(&seg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counts_of_a_file_and_of_memory_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(no_count_is_lost_to_a_process_killed_in_a_charge, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_descriptor_of_something_else_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_of_something_else_is_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_another_process_uses_is_left_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(rows_that_cannot_be_are_dropped_and_the_others_stay, setup,
                                        teardown),
        cmocka_unit_test(states_of_servers_go_on_and_are_proven_anew),
        cmocka_unit_test(rows_of_servers_that_cannot_be_are_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What all processes share is made whole, and each one shows its name. */
#include "polder/process.h"
#include "polder/cache.h"
#include "polder/fetch_lock.h"
#include "polder/inval.h"
#include "polder/ring.h"
#include "polder/stats.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[64];
static struct shared shared;

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/polder-shared-XXXXXX");
    assert_non_null(mkdtemp(dir));
    const struct shared_options options = {.state_dir = dir, .limit_entries = 4096};
    return shared_create(&shared, &options);
}

static int teardown(void **state)
{
    static const char *const file[] = {"inval.page", "guard.page", "shift.page", "fleet.page",
                                       "sticky.page"};
    (void)state;
    char path[96];
    shared_destroy(&shared);
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, file[i]);
        unlink(path);
    }
    return rmdir(dir);
}

static void everything_is_there_and_aligned(void **state)
{
    (void)state;
    assert_int_equal((uintptr_t)shared.stats % 128, 0);
    assert_int_equal((uintptr_t)shared.cache % 64, 0);
    assert_int_equal((uintptr_t)shared.proc % 128, 0);
    for (unsigned i = 0; i < SHARED_RINGS; i++)
        assert_true(ring_room(shared.ring[i]) > RING_RECORD_MAX);
    for (unsigned i = 0; i < SHARED_REGIONS; i++)
        assert_non_null(shared.region[i]);
    for (unsigned i = 0; i < PROC_WORKER_SLOTS; i++)
        assert_true(fcntl(shared.worker_event[i], F_GETFD) & FD_CLOEXEC);
    shared.ref[CACHE_SLOTS_MAX - 1] = 3; /* the far ends can be touched */
    shared.cache->pin[127][CACHE_PINS - 1] = 1;
    stats_add(&shared.stats[PROC_SLOTS - 1], STATS_REQUESTS, 1);
}

static void invalidations_are_remembered_by_the_next_start(void **state)
{
    (void)state;
    uint8_t uuid[16];
    memcpy(uuid, inval_uuid(shared.inval), sizeof uuid);
    inval_mark_tag(shared.inval, "t", 1, false);
    const uint64_t seq = inval_seq(shared.inval);
    shared_destroy(&shared);
    assert_null(shared.inval);
    const struct shared_options options = {.state_dir = dir, .limit_entries = 4096};
    assert_int_equal(shared_create(&shared, &options), 0);
    assert_memory_equal(uuid, inval_uuid(shared.inval), sizeof uuid);
    assert_int_equal(inval_seq(shared.inval), seq);
}

static void a_missing_state_dir_is_an_error_that_leaves_nothing(void **state)
{
    (void)state;
    struct shared other;
    const int quiet = open("/dev/null", O_WRONLY), saved = dup(STDERR_FILENO);
    dup2(quiet, STDERR_FILENO);
    const struct shared_options options = {.state_dir = "/nonexistent", .limit_entries = 4096};
    const int rc = shared_create(&other, &options);
    dup2(saved, STDERR_FILENO);
    close(quiet);
    close(saved);
    assert_true(rc < 0);
    assert_int_equal(other.segs, 0);
    assert_int_equal(other.keeper_event, -1);
}

static size_t command_line(char *out, size_t size)
{
    const int fd = open("/proc/self/cmdline", O_RDONLY);
    const ssize_t n = read(fd, out, size - 1);
    close(fd);
    out[n > 0 ? n : 0] = '\0';
    return strlen(out);
}

/* Runs as a child of the test; its exit status is what it found. */
static int child_check(struct process *p)
{
    char line[4096];
    int deathsig = 0;
    sigset_t mask;
    setenv("NOTIFY_SOCKET", "/nowhere", 1);
    signal(SIGTERM, SIG_IGN);
    process_start(p, "worker 12");
    command_line(line, sizeof line);
    if (strcmp(line, "polderd: worker 12") != 0)
        return 1;
    if (getenv("NOTIFY_SOCKET") || !getenv("PATH") || strcmp(getenv("POLDER_KEPT"), "yes") != 0)
        return 2;
    if (prctl(PR_GET_PDEATHSIG, &deathsig) < 0 || deathsig != SIGKILL ||
        prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 3;
    if (signal(SIGTERM, SIG_DFL) != SIG_DFL)
        return 4;
    static const int ignored[] = {SIGINT, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        if (signal(ignored[i], SIG_IGN) != SIG_IGN)
            return 7;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    if (sigismember(&mask, SIGTERM) || sigismember(&mask, SIGUSR1))
        return 5;
    process_heartbeat(p, 77);
    process_ready(p);
    return p->shared->proc->slot[p->slot].state == PROC_READY ? 0 : 6;
}

static void a_child_starts_with_its_own_name_and_clean_signals(void **state)
{
    (void)state;
    sigset_t usr1;
    static struct config config;
    static struct config_region region = {.config = &config};
    struct process p = {.shared = &shared,
                        .region = &region,
                        .slot = PROC_SLOT_WORKER0 + 3,
                        .incarnation = 1,
                        .master_pid = getpid()};
    shared.proc->slot[p.slot].state = PROC_STARTING;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
    const pid_t pid = fork();
    if (pid == 0)
        _exit(child_check(&p));
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    uint64_t woken = 0;
    assert_int_equal(read(shared.master_event, &woken, sizeof woken), sizeof woken);
    assert_int_equal(woken, 1); /* ready: the master was woken */
}

static void being_ready_does_not_undo_a_drain(void **state)
{
    (void)state;
    struct process p = {.shared = &shared, .slot = PROC_SLOT_WORKER0, .master_pid = 0};
    shared.proc->slot[p.slot].state = PROC_DRAINING;
    process_ready(&p);
    assert_int_equal(shared.proc->slot[p.slot].state, PROC_DRAINING);
}

static void put_message(int channel, uint32_t number)
{
    const struct process_message message = {PROCESS_ACCESS_LOG, number};
    assert_int_equal(process_send(channel, &message, STDIN_FILENO), 0);
}

static void a_channel_outlives_a_time_without_descriptors(void **state)
{
    struct process_message message;
    struct rlimit was, none;
    int ends[2], fd = 0;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    none = (struct rlimit){0, was.rlim_max};
    put_message(ends[0], 1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const int code = process_receive(ends[1], &message, &fd);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(code, -EMFILE);
    assert_int_equal(fd, -1);
    assert_int_equal(process_receive(ends[1], &message, &fd), 0);
    put_message(ends[0], 2);
    assert_int_equal(process_receive(ends[1], &message, &fd), 1);
    assert_int_equal(message.number, 2);
    close(fd);
    close(ends[0]);
    assert_int_equal(process_receive(ends[1], &message, &fd), -EPIPE);
    close(ends[1]);
}

int main(int argc, char **argv)
{
    setenv("POLDER_KEPT", "yes", 1);
    process_title_init(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_there_and_aligned),
        cmocka_unit_test(invalidations_are_remembered_by_the_next_start),
        cmocka_unit_test(a_missing_state_dir_is_an_error_that_leaves_nothing),
        cmocka_unit_test(a_child_starts_with_its_own_name_and_clean_signals),
        cmocka_unit_test(being_ready_does_not_undo_a_drain),
        cmocka_unit_test(a_channel_outlives_a_time_without_descriptors),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What the watchdog of the master takes for a process that hangs, with real ones and a time of our
 * own making; and the file in which polder-supervisor shows that it lives. */
#include "daemons/master/master.h"
#include "polder/heartbeat.h"
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define ALLOWED 3000

static uint64_t ran_ms(pid_t pid)
{
    clockid_t id;
    struct timespec t;
    assert_int_equal(clock_getcpuclockid(pid, &id), 0);
    assert_int_equal(clock_gettime(id, &t), 0);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool sleeps(pid_t pid)
{
    char path[40], line[128];
    bool s = false;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        s = s || !strncmp(line, "State:\tS", 8);
    fclose(f);
    return s;
}

static pid_t begin(bool works)
{
    const struct timespec look = {0, 1000000};
    const pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            if (!works)
                pause(); /* at once: that is what the parent waits for */
    }
    assert_true(pid > 0);
    while (!works && !sleeps(pid))
        nanosleep(&look, NULL);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void run_for(pid_t pid, uint64_t ms)
{
    const struct timespec look = {0, 1000000};
    for (const uint64_t from = ran_ms(pid); ran_ms(pid) < from + ms;)
        nanosleep(&look, NULL);
}

static void who_shows_a_heartbeat_does_not_hang(void **state)
{
    struct watchdog w;
    (void)state;
    watchdog_begin(&w, 1000);
    for (uint64_t now = 1000; now < 100000; now += 1000)
        assert_false(watchdog_hangs(&w, getpid(), now, ALLOWED, now + 900));
}

static void who_waits_for_something_hangs(void **state)
{
    struct watchdog w;
    (void)state;
    const pid_t pid = begin(false);
    watchdog_begin(&w, 1000);
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 2000));
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 1001 + ALLOWED));
    assert_true(watchdog_hangs(&w, pid, 1001, ALLOWED, 1002 + ALLOWED));
    assert_int_equal(w.stale_ms, ALLOWED + 1);
    end(pid);
}

static void who_was_stopped_hangs(void **state)
{
    struct watchdog w;
    (void)state;
    const pid_t pid = begin(true);
    run_for(pid, 20);
    kill(pid, SIGSTOP);
    assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
    watchdog_begin(&w, 1000);
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 2000));
    assert_true(watchdog_hangs(&w, pid, 1001, ALLOWED, 1002 + ALLOWED));
    end(pid);
}

/* All the while, as far as it has been given the time: ours to say here. */
static void who_runs_without_end_hangs(void **state)
{
    struct watchdog w;
    (void)state;
    const pid_t pid = begin(true);
    watchdog_begin(&w, 1000);
    assert_false(watchdog_hangs(&w, pid, 1001, 40, 1002));
    run_for(pid, 50);
    assert_true(watchdog_hangs(&w, pid, 1001, 40, 1001 + 2000));
    end(pid);
}

static void who_gets_little_time_may_take_longer(void **state)
{
    struct watchdog w;
    (void)state;
    const pid_t pid = begin(true);
    watchdog_begin(&w, 1000);
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 1002));
    for (uint64_t now = 3000; now < 30000; now += 1000) {
        run_for(pid, 5);
        assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, now));
    }
    run_for(pid, 5);
    assert_true(watchdog_hangs(&w, pid, 1001, ALLOWED, 1002 + 10 * ALLOWED));
    end(pid);
}

static void who_runs_no_more_gets_no_longer(void **state)
{
    struct watchdog w;
    (void)state;
    const pid_t pid = begin(true);
    watchdog_begin(&w, 1000);
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 1002));
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 3000));
    run_for(pid, 20);
    kill(pid, SIGSTOP);
    assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 3500));
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 3500 + ALLOWED - 1));
    assert_true(watchdog_hangs(&w, pid, 1001, ALLOWED, 3500 + ALLOWED));
    end(pid);
}

/* What it has still done after its last heartbeat was seen buys no time. */
static void who_was_stopped_a_little_later_hangs_as_early(void **state)
{
    struct watchdog w;
    (void)state;
    const pid_t pid = begin(true);
    watchdog_begin(&w, 1000);
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 1002));
    run_for(pid, 20);
    kill(pid, SIGSTOP);
    assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 2900));
    assert_true(watchdog_hangs(&w, pid, 1001, ALLOWED, 1002 + ALLOWED));
    end(pid);
}

static void who_is_traced_is_left_alone(void **state)
{
    struct watchdog w;
    (void)state;
    const pid_t pid = begin(false);
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0) {
        end(pid);
        skip();
    }
    assert_int_equal(ptrace(PTRACE_INTERRUPT, pid, 0, 0), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    watchdog_begin(&w, 1000);
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 2000));
    assert_false(watchdog_hangs(&w, pid, 1001, ALLOWED, 1000000));
    assert_int_equal(ptrace(PTRACE_DETACH, pid, 0, 0), 0);
    assert_true(watchdog_hangs(&w, pid, 1001, ALLOWED, 1000001));
    end(pid);
}

static void a_heartbeat_is_read_or_nobody_says(void **state)
{
    char path[] = "/tmp/polder-heartbeat.XXXXXX";
    uint64_t shown = 0;
    (void)state;
    const int made = mkstemp(path);
    assert_true(made >= 0);
    assert_false(heartbeat_read(path, getpid(), &shown)); /* empty */
    const int fd = heartbeat_open(path);
    assert_true(fd >= 0);
    heartbeat_write(fd, 77);
    heartbeat_write(fd, 78);
    assert_true(heartbeat_read(path, getpid(), &shown));
    assert_int_equal(shown, 78);
    assert_false(heartbeat_read(path, getpid() + 1, &shown)); /* of another process */
    assert_int_equal(ftruncate(made, 20), 0);
    assert_false(heartbeat_read(path, getpid(), &shown)); /* cut short */
    heartbeat_write(fd, 79);
    assert_true(heartbeat_read(path, getpid(), &shown));
    assert_int_equal(pwrite(made, "x", 1, 4), 1);
    assert_false(heartbeat_read(path, getpid(), &shown)); /* of another layout */
    heartbeat_write(fd, 80);
    heartbeat_withdraw(fd);
    assert_false(heartbeat_read(path, getpid(), &shown));
    heartbeat_write(-1, 81); /* there is none */
    close(fd);
    close(made);
    assert_int_equal(unlink(path), 0);
    assert_false(heartbeat_read(path, getpid(), &shown));
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_true(heartbeat_open(path) < 0);
    assert_false(heartbeat_read(path, getpid(), &shown));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_shows_a_heartbeat_does_not_hang),
        cmocka_unit_test(who_waits_for_something_hangs),
        cmocka_unit_test(who_was_stopped_hangs),
        cmocka_unit_test(who_runs_without_end_hangs),
        cmocka_unit_test(who_gets_little_time_may_take_longer),
        cmocka_unit_test(who_runs_no_more_gets_no_longer),
        cmocka_unit_test(who_was_stopped_a_little_later_hangs_as_early),
        cmocka_unit_test(who_is_traced_is_left_alone),
        cmocka_unit_test(a_heartbeat_is_read_or_nobody_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

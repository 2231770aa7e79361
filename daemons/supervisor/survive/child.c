/* SPDX-License-Identifier: BSD-2-Clause */
/* child: see child.h. */
#include "daemons/supervisor/survive/child.h"
#include "daemons/supervisor/carry/parcel.h"
#include "daemons/supervisor/program.h"
#include "daemons/supervisor/survive/held.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILL_AFTER_MS 2000 /* of the abort, which may write a core file */
#define STILL_MS      2000 /* it has not run at all */
#define FAILURES_MAX  8    /* then what there is seems to be what kills */
#define PATIENCE      10
#ifdef __SANITIZE_ADDRESS__
#define STALE_MS 10000
#else
#define STALE_MS 3000
#endif

static void child_become(struct custodian *c, int channel, pid_t parent)
{
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup3(channel, PROGRAM_CHANNEL_FD, O_CLOEXEC) < 0)
        _exit(1);
    close(channel);
    /* others mean the custodian; it forwards */
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    held_close(&c->signals);
    held_close(&c->heartbeat);
    held_close(&c->segment_fd);
    held_close(&c->renewal.pipe);
    held_close(&c->restart.pipe);
    c->forked = true;
    c->channel = PROGRAM_CHANNEL_FD; /* where a program that replaces this one finds it */
    process_title_set(CUSTODIAN_CHILD);
}

/* True in the child. */
bool child_fork(struct custodian *c)
{
    int pair[2];
    const pid_t parent = getpid();
    const int room = 4 << 20;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        log_error("custodian: no socket pair: %s", strerror(errno));
        return false;
    }
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    c->pid = fork();
    if (c->pid == 0) {
        close(pair[0]);
        child_become(c, pair[1], parent);
        return true;
    }
    close(pair[1]);
    if (c->pid < 0) {
        log_error("custodian: cannot fork: %s", strerror(errno));
        c->pid = 0;
        close(pair[0]);
        return false;
    }
    c->channel = pair[0];
    c->ready = c->stop_notified = false;
    c->killed_ms = 0;
    c->heartbeat_seen_ms = clock_mono_ms();
    return false;
}

static void child_describe_death(struct custodian *c, int status)
{
    if (WIFEXITED(status))
        snprintf(c->death, sizeof c->death, "exit code %d", WEXITSTATUS(status));
    else
        snprintf(c->death, sizeof c->death, "signal %d (%s)%s", WTERMSIG(status),
                 strsignal(WTERMSIG(status)), c->killed_ms ? " after its heartbeat stopped" : "");
}

/* A process before us has left WebSockets, which are still there for the next child: what the one
 * that has died has made of them is not. */
static bool child_begins_anew(struct custodian *c)
{
    if (c->restart.box < 0 || !parcel_is_there(c->restart.box))
        return false;
    for (uint32_t i = 0; i < segment_used(c->segment); i++)
        held_free_slot(c, i);
    atomic_store(&c->segment->used, 0);
    c->segment->blocks_used = 0;
    c->segment->reading.slot = UINT32_MAX;
    for (unsigned i = 0; i < CUSTODIAN_LINKS; i++)
        held_close(&c->link[i]);
    held_close(&c->servers);
    return true;
}

/* -1: goes on; else the exit code. */
int child_ended(struct custodian *c, int status)
{
    held_close(&c->channel);
    const bool holds = c->was_ready || c->restart.box >= 0;
    if (c->restart.done)
        return 0;
    if (WIFEXITED(status) && (c->ready || !holds || c->own_failures == FAILURES_MAX))
        return WEXITSTATUS(status);
    child_describe_death(c, status);
    c->deaths++;
    c->died_ms = clock_mono_ms();
    log_warning("custodian: the process of the WebSockets[%d] died: %s", (int)c->pid, c->death);
    c->pid = 0;
    custodian_restart_died(c);
    if (!holds || c->blind)
        return 1;
    if (c->replaced) /* what its predecessor has left is as it was */
        custodian_let_next(c);
    c->replaced = false;
    c->failures += !c->ready;
    c->own_failures += !c->ready && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    c->give_up = c->own_failures >= FAILURES_MAX;
    c->ready = false; /* and no other program finds a custodian without one */
    if (!child_begins_anew(c))
        held_free_gone(c);
    return -1;
}

uint64_t child_pause_ms(const struct custodian *c)
{
    return c->failures < 4 ? 0 : c->failures < 10 ? 10u << (c->failures - 4) : 500;
}

/* ---- does it hang? ---- */

static uint64_t child_cpu_ms(pid_t pid)
{
    clockid_t id;
    struct timespec t;
    if (clock_getcpuclockid(pid, &id) != 0 || clock_gettime(id, &t) < 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* One that runs now and then on a busy machine gets more time than one that does not run, or that
 * does nothing else. */
static bool child_hangs(struct custodian *c, uint64_t now_ms)
{
    static uint64_t cpu_first_ms, cpu_last_ms, ran_ms;
    const uint64_t shown = atomic_load(&c->segment->heartbeats), cpu = child_cpu_ms(c->pid);
    if (cpu != cpu_last_ms)
        ran_ms = now_ms;
    cpu_last_ms = cpu;
    if (c->blind || shown != c->heartbeat_shown) {
        c->heartbeat_shown = shown;
        c->heartbeat_seen_ms = ran_ms = now_ms;
        cpu_first_ms = cpu;
        return false;
    }
    /* a program that has just become ready was seen after this look began */
    const uint64_t stale_ms = now_ms > c->heartbeat_seen_ms ? now_ms - c->heartbeat_seen_ms : 0;
    if (stale_ms < STALE_MS)
        return false;
    /* one that is not ready yet may have much to take up */
    return now_ms - ran_ms >= STILL_MS || (c->ready && cpu - cpu_first_ms >= STALE_MS) ||
           stale_ms >= (uint64_t)STALE_MS * PATIENCE;
}

void child_watch(struct custodian *c, uint64_t now_ms)
{
    if (c->killed_ms) {
        if (now_ms >= c->killed_ms + KILL_AFTER_MS)
            kill(c->pid, SIGKILL);
    } else if (child_hangs(c, now_ms)) {
        log_error("custodian: the process of the WebSockets[%d] has shown no heartbeat for %llu "
                  "ms: it is aborted, and another takes them up",
                  (int)c->pid, (unsigned long long)(now_ms - c->heartbeat_seen_ms));
        c->killed_ms = now_ms;
        kill(c->pid, SIGABRT);
        kill(c->pid, SIGCONT); /* a stopped process does not die of an abort */
    }
}

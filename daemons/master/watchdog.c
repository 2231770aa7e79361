/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * watchdog: does a process hang?
 *
 * A heartbeat that has stopped for the time allowed says so, but not alone. A machine that is busy
 * gives a process little of its time: one that runs now and then, and since its last heartbeat for
 * less than the time allowed, may be at honest work and gets ten times as long. One that does not
 * run waits for something that does not come, or was stopped; one that runs all the while is in a
 * loop. A process that a debugger holds is left alone, where /proc tells of it. That the machine
 * itself stood still is seen by the master's own turns (lenient_ms).
 */
#include "daemons/master/master.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LATE_MS  1500 /* heartbeats come each second */
#define LOOK_MS  250  /* at one that is late */
#define PATIENCE 10

/* Of all threads of another process; needs no permission. */
static uint64_t cpu_ms(pid_t pid)
{
    clockid_t id;
    struct timespec t;
    if (clock_getcpuclockid(pid, &id) != 0 || clock_gettime(id, &t) < 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

enum situation { SITUATION_UNKNOWN, SITUATION_RUNNABLE, SITUATION_TRACED };

static enum situation situation_of(pid_t pid)
{
    char path[40], line[128];
    enum situation s = SITUATION_UNKNOWN;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return s; /* it is hidden from us */
    while (fgets(line, sizeof line, f)) {
        if (!strncmp(line, "State:\tR", 8))
            s = SITUATION_RUNNABLE;
        if (!strncmp(line, "TracerPid:", 10) && strtol(line + 10, NULL, 10) > 0)
            s = SITUATION_TRACED;
    }
    fclose(f);
    return s;
}

void watchdog_begin(struct watchdog *w, uint64_t now_ms)
{
    *w = (struct watchdog){.shown_ms = now_ms};
}

/* What it has run since its last heartbeat, and when it was seen to run last. When it has run before
 * the first look at a late one is not known. */
static void cpu_follow(struct watchdog *w, pid_t pid, uint64_t now_ms)
{
    const uint64_t cpu = cpu_ms(pid);
    if (cpu > w->cpu_ms + w->ran_ms) {
        w->ran_ms = cpu - w->cpu_ms;
        w->seen_running_ms = w->is_late ? now_ms : 0;
    }
    w->is_late = true;
}

bool watchdog_hangs(struct watchdog *w, pid_t pid, uint64_t shown_ms, uint64_t allowed_ms,
                    uint64_t now_ms)
{
    if (shown_ms != w->shown_ms)
        *w = (struct watchdog){.shown_ms = shown_ms, .cpu_ms = cpu_ms(pid)};
    w->stale_ms = now_ms > shown_ms ? now_ms - shown_ms : 0;
    if (w->stale_ms > LATE_MS)
        cpu_follow(w, pid, now_ms);
    if (w->stale_ms <= allowed_ms)
        return false;
    const enum situation s = situation_of(pid);
    if (s == SITUATION_TRACED)
        return false;
    const bool runs =
        s == SITUATION_RUNNABLE || (w->seen_running_ms && now_ms - w->seen_running_ms < allowed_ms);
    return !runs || w->ran_ms >= allowed_ms || w->stale_ms > allowed_ms * PATIENCE;
}

uint64_t watchdog_deadline(const struct watchdog *w, uint64_t now_ms)
{
    return w->stale_ms > LATE_MS ? now_ms + LOOK_MS : UINT64_MAX;
}

/* ---- what follows ---- */

/* The condition is visible to all; the successor serves already. */
#define SHOW_MS 60000

void watchdog_abort(struct master *m, uint32_t slot, const char *name, pid_t pid,
                    const struct watchdog *w, uint64_t *kill_ms)
{
    char reason[CONDITION_REASON];
    snprintf(reason, sizeof reason, "no heartbeat for %.1f s, in which it has run %.1f s",
             (double)w->stale_ms / 1000, (double)w->ran_ms / 1000);
    log_error("watchdog: %s[%d] has shown %s: aborting it", name, (int)pid, reason);
    condition_raise(m->shared.conditions, COND_PROCESS_HUNG, name, reason, clock_real_ms());
    atomic_fetch_add(&m->shared.proc->slot[slot].hung, 1);
    m->hung_until_ms = m->now_ms + SHOW_MS;
    *kill_ms = m->now_ms + WATCHDOG_KILL_MS;
    kill(pid, SIGABRT);
    kill(pid, SIGCONT); /* one that was stopped would take it only then */
}

void watchdog_step(struct master *m)
{
    if (!m->hung_until_ms || m->now_ms < m->hung_until_ms)
        return;
    m->hung_until_ms = 0;
    condition_clear_except(m->shared.conditions, COND_PROCESS_HUNG, NULL, NULL, clock_real_ms());
}

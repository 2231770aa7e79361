/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * deaths: what the end of a child means: for its slot, for the store and for its successor.
 *
 * When a worker dies this happens in order: slot DEAD, gauges and pins cleared, its claims freed and
 * their waiters woken, the keeper told, and only then a successor with the next incarnation.
 */
#include "daemons/master/master.h"
#include "polder/cache.h"
#include "polder/fetch_lock.h"
#include "polder/log.h"
#include "polder/server_load.h"
#include "polder/stats.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIVED_WELL_MS       10000
#define KILLED_RESPAWN_MS   100 /* between two forks that were not the process's own fault */
#define KEEPER_CRASHES      3
#define KEEPER_CRASH_SPAN   30000
#define POISON_DEATHS       2
#define POISON_SPAN         10000
#define KEEPER_ROTATE_GRACE 5000

static void event_signal(int fd)
{
    const uint64_t one = 1;
    const ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* EAGAIN: it is set already */
}

/* Remembers a moment; true if this one is the wanted-th within the span. */
static bool crashes_note(uint64_t *times, uint32_t *count, uint64_t now_ms, uint32_t wanted,
                         uint64_t span_ms)
{
    times[*count % MASTER_CRASHES] = now_ms;
    (*count)++;
    if (*count < wanted || now_ms - times[(*count - wanted) % MASTER_CRASHES] > span_ms)
        return false;
    *count = 0; /* one answer a series */
    return true;
}

/* The store itself is suspected: the next keeper starts with an empty one. */
static void rotation_ask(struct master *m, const char *why)
{
    struct master_child *keeper = &m->child[PROC_SLOT_KEEPER];
    log_error("children: %s; asking the keeper for an empty store", why);
    atomic_fetch_add(&m->shared.cache->rotate_requested, 1);
    if (keeper->pid) { /* looks at it when it starts */
        keeper->stopping = true;
        keeper->kill_ms = m->now_ms + KEEPER_ROTATE_GRACE;
        kill(keeper->pid, SIGTERM);
    }
}

/* kill -9 from outside, by an operator or for want of memory, is not the process's fault and says
 * nothing about the store; one by the watchdog is. */
static bool death_is_from_outside(const struct master_child *c, int status)
{
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && !c->aborted;
}

static bool death_is_crash(const struct master_child *c, int status)
{
    return !c->stopping && !death_is_from_outside(c, status);
}

/* Died in the store that is in use? One damage kills every worker that reads on: deaths in a store
 * that is given up already, or gone, say nothing about the next one. */
static bool death_blames_store(struct master *m, uint32_t slot)
{
    const uint32_t poison = atomic_exchange(&shared_slot(m, slot)->poison, 0);
    if (poison == 0)
        return false;
    if (atomic_load(&m->shared.cache->rotate_requested)) {
        m->poisons = 0;
        return false;
    }
    return poison == CACHE_POISON_UNNAMED ||
           poison == cache_poison_of(atomic_load(&m->shared.cache->epoch));
}

static void death_judge_store(struct master *m, uint32_t slot, bool crash)
{
    const bool poisoned = death_blames_store(m, slot);
    if (slot == PROC_SLOT_KEEPER && crash &&
        crashes_note(m->keeper_crash_ms, &m->keeper_crashes, m->now_ms, KEEPER_CRASHES,
                     KEEPER_CRASH_SPAN))
        rotation_ask(m, "the keeper crashed three times in 30 s");
    else if (poisoned &&
             crashes_note(m->poison_ms, &m->poisons, m->now_ms, POISON_DEATHS, POISON_SPAN))
        rotation_ask(m, "two processes died while they read the store");
}

static void death_log(const struct master *m, uint32_t slot, pid_t pid, int status, bool was_ready)
{
    const struct master_child *c = &m->child[slot];
    char name[32], how[80];
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
                 c->aborted ? " after its heartbeat stopped" : "");
    else
        snprintf(how, sizeof how, "exit code %d", WEXITSTATUS(status));
    const double lived = (double)(m->now_ms - c->started_ms) / 1000;
    child_name(m, slot, name);
    /* SIGTERM ends a child that had not set its handler yet */
    if (c->stopping && (WIFEXITED(status) || WTERMSIG(status) == SIGTERM))
        log_info("children: %s[%d] left with %s after %.1f s", name, (int)pid, how, lived);
    else
        log_warning("children: %s[%d] died: %s after %.1f s%s", name, (int)pid, how, lived,
                    was_ready ? "" : ", before it was ready");
}

/* What a worker may have held in shared memory. */
static void worker_clear(struct master *m, uint32_t slot)
{
    const uint32_t worker = slot - PROC_SLOT_WORKER0;
    for (unsigned i = 0; i < CACHE_PINS; i++)
        atomic_store(&m->shared.cache->pin[worker][i], 0);
    server_load_clear(m->shared.servers, worker);
    fetch_lock_reap(m->shared.fetch_locks, worker, atomic_load(&shared_slot(m, slot)->incarnation),
                    m->shared.worker_event);
}

static void slot_end(struct master *m, uint32_t slot)
{
    struct proc_slot *s = shared_slot(m, slot);
    atomic_store(&s->state, m->child[slot].wanted ? PROC_DEAD : PROC_FREE);
    atomic_store(&s->pid, 0);
    atomic_store(&s->connections, 0);
    atomic_store(&s->holding, 0);
    for (unsigned g = 0; g < STATS_GAUGES; g++)
        stats_gauge_set(&m->shared.stats[slot], (enum stats_gauge)g, 0);
    if (slot_is_worker(slot))
        worker_clear(m, slot);
    else if (slot == PROC_SLOT_KEEPER) /* it may have died between release and waking */
        fetch_lock_reap(m->shared.fetch_locks, UINT32_MAX, 0, m->shared.worker_event);
    event_signal(m->shared.keeper_event);
    event_signal(m->shared.control_event);
}

/* Each successor would die of the same cause; a new start makes the file again. */
static void death_judge_shared(struct master *m, bool crash)
{
    if (!crash || m->broken || shared_is_whole(&m->shared))
        return;
    m->broken = true;
    log_error("children: inval.page, guard.page or shift.page in state_dir, or limits.page, was "
              "truncated "
              "while it is in use: exiting, to be started again");
}

/* What a worker that was told to leave has not answered; one that had to be killed could not say. */
static uint32_t worker_cut(const struct proc_slot *s, int status)
{
    const uint32_t cut = atomic_load(&s->cut);
    return WIFSIGNALED(status) && cut == 0 ? atomic_load(&s->connections) : cut;
}

static void child_died(struct master *m, uint32_t slot, int status)
{
    struct master_child *c = &m->child[slot];
    if (slot_is_worker(slot) && c->stopping)
        m->generation[c->region].cut += worker_cut(shared_slot(m, slot), status);
    const bool was_ready = atomic_load(&shared_slot(m, slot)->state) == PROC_READY;
    const bool crash = death_is_crash(c, status);
    const uint64_t lived_ms = m->now_ms - c->started_ms;
    death_log(m, slot, c->pid, status, was_ready || c->stopping);
    c->pid = 0;
    child_close_channel(c);
    slot_end(m, slot);
    death_judge_shared(m, crash);
    death_judge_store(m, slot, crash);
    if (!c->stopping)
        atomic_fetch_add(&shared_slot(m, slot)->crashes, 1);
    if (!c->wanted)
        return;
    if (slot_is_worker(slot) && m->generation[c->region].state == GENERATION_STARTING)
        m->generation[c->region].early_deaths++;
    if (lived_ms >= LIVED_WELL_MS)
        c->failures = 0;
    uint64_t delay = lived_ms < KILLED_RESPAWN_MS ? KILLED_RESPAWN_MS : 0;
    if (crash)
        delay = respawn_delay_ms(++c->failures);
    c->respawn_ms = m->now_ms + delay;
    if (delay >= 1000)
        log_warning("children: next try in %.1f s", (double)delay / 1000);
}

static uint32_t slot_of(const struct master *m, pid_t pid)
{
    for (uint32_t slot = 0; slot < PROC_SLOTS; slot++)
        if (m->child[slot].pid == pid)
            return slot;
    return PROC_SLOTS;
}

bool child_reaped(struct master *m, pid_t pid, int status)
{
    const uint32_t slot = slot_of(m, pid);
    if (slot == PROC_SLOTS)
        return false;
    child_died(m, slot, status);
    return true;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * children: fork, reap, respawn with back-off, heartbeats.
 *
 * A slot belongs to a role; its statistics and its ring outlive the process. When a worker dies
 * this happens in order: slot DEAD, gauges and pins cleared, its claims freed and their waiters
 * woken, the keeper told, and only then a successor with the next incarnation.
 */
#include "daemons/master/master.h"
#include "polder/cache.h"
#include "polder/config.h"
#include "polder/fetch_lock.h"
#include "polder/log.h"
#include "polder/stats.h"
#include "polder/server_load.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIVED_WELL_MS       10000
#define KILLED_RESPAWN_MS   100 /* between two forks that were not the process's own fault */
#define KEEPER_CRASHES      3
#define KEEPER_CRASH_SPAN   30000
#define POISON_DEATHS       2
#define POISON_SPAN         10000
#define KEEPER_ROTATE_GRACE 5000
#define WORKER_LATE_MS      2000 /* after it should have left by itself */

static struct proc_slot *shared_slot(const struct master *m, uint32_t slot)
{
    return &m->shared.proc->slot[slot];
}

static bool slot_is_worker(uint32_t slot)
{
    return slot >= PROC_SLOT_WORKER0;
}

static const char *child_name(const struct master *m, uint32_t slot, char buf[32])
{
    if (slot_is_worker(slot))
        snprintf(buf, 32, "worker %u", m->child[slot].index);
    else
        snprintf(buf, 32, "%s", proc_slot_name(slot));
    return buf;
}

static void event_signal(int fd)
{
    const uint64_t one = 1;
    const ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* EAGAIN: it is set already */
}

void children_init(struct master *m)
{
    struct proc_slot *self = shared_slot(m, PROC_SLOT_MASTER);
    atomic_store(&self->pid, (uint32_t)getpid());
    atomic_store(&self->incarnation, 1);
    atomic_store(&self->started_ms, m->now_ms);
    atomic_store(&self->state, PROC_READY);
    for (uint32_t slot = 0; slot < PROC_SLOTS; slot++)
        m->child[slot].channel = -1;
}

static void channel_close(struct master_child *c)
{
    if (c->channel >= 0)
        close(c->channel);
    c->channel = -1;
}

/* The child's end of a new channel; -1: without one it keeps the access log it was born with. */
static int channel_open(struct master_child *c)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) {
        log_warning("children: cannot make a socket pair: %s", strerror(errno));
        return -1;
    }
    c->channel = ends[0];
    return ends[1];
}

/* In a child: the ends that are the master's. */
static void channels_close(const struct master *m)
{
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        if (m->child[slot].channel >= 0)
            close(m->child[slot].channel);
}

/* In a child: logs that are others'. */
static void logs_close_others(const struct master *m, const struct generation *mine)
{
    for (uint32_t r = 0; r < SHARED_REGIONS; r++)
        if (&m->generation[r] != mine && m->generation[r].access_log >= 0)
            close(m->generation[r].access_log);
}

/* ---- fork ---- */

/* When memory is short the kernel shall take a child, which comes back, and not the master. */
static void oom_prefer_me(void)
{
    static const char score[] = "200";
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* else the file is root's; sandbox_begin() follows */
    const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    const ssize_t n = write(fd, score, sizeof score - 1);
    (void)n; /* it is a preference */
    close(fd);
}

/* Never returns. What the master alone needs is closed first. */
static void child_main(const struct master *m, uint32_t slot, int channel)
{
    const struct master_child *c = &m->child[slot];
    const struct generation *g = &m->generation[c->region];
    const bool is_worker = slot_is_worker(slot);
    const struct process process = {
        .shared = (struct shared *)&m->shared,
        .region = m->shared.region[c->region],
        .slot = slot,
        .incarnation = atomic_load(&shared_slot(m, slot)->incarnation),
        .index = c->index,
        .workers = g->workers,
        .listeners = is_worker ? g->listeners : NULL,
        .n_listeners = is_worker ? g->n_listeners : 0,
        .master_pid = (int)atomic_load(&shared_slot(m, PROC_SLOT_MASTER)->pid),
        .access_log = is_worker ? g->access_log : -1,
        .log_opening = atomic_load(&m->shared.proc->log_opening),
        .channel = channel,
    };
    close(m->signal_fd);
    channels_close(m);
    logs_close_others(m, is_worker ? g : NULL);
    listeners_close_others(&m->listeners, is_worker ? g : NULL);
    privileges_drop_all();
    oom_prefer_me();
    for (uint32_t i = 0; i < SHARED_REGIONS; i++) /* one may be being loaded just now */
        config_region_protect(m->shared.region[i], false);
    switch (slot) {
    case PROC_SLOT_KEEPER:
        exit(keeper_run(&process));
    case PROC_SLOT_CONTROL:
        exit(control_run(&process));
    case PROC_SLOT_RESOLVER:
        exit(resolver_run(&process));
    case PROC_SLOT_NOTIFIER:
        exit(notifier_run(&process, m->on_alert));
    default:
        exit(worker_run(&process));
    }
}

static void slot_begin(struct master *m, uint32_t slot)
{
    struct proc_slot *s = shared_slot(m, slot);
    const struct master_child *c = &m->child[slot];
    uint32_t incarnation = atomic_load(&s->incarnation) + 1;
    atomic_store(&s->incarnation, incarnation ? incarnation : 1);
    atomic_store(&s->generation, m->generation[c->region].number);
    atomic_store(&s->index, c->index);
    atomic_store(&s->started_ms, m->now_ms);
    atomic_store(&s->heartbeat_ms, m->now_ms);
    atomic_store(&s->followed, 0);
    atomic_store(&s->accepts_no_more, 0);
    atomic_store(&s->settled, 0);
    atomic_store(&s->leave_by_ms, 0);
    atomic_store(&s->cut, 0);
    atomic_store(&s->poison, 0);
    atomic_store(&s->state, PROC_STARTING);
}

static void child_fork(struct master *m, uint32_t slot)
{
    struct master_child *c = &m->child[slot];
    char name[32];
    /* Keeper and control follow the current configuration. */
    if (!slot_is_worker(slot))
        c->region = m->current;
    slot_begin(m, slot);
    const int channel = slot_is_worker(slot) ? channel_open(c) : -1;
    const pid_t pid = fork();
    if (pid == 0)
        child_main(m, slot, channel);
    c->respawn_ms = 0;
    if (channel >= 0)
        close(channel);
    if (pid < 0) {
        channel_close(c);
        c->failures++;
        const uint64_t delay = respawn_delay_ms(c->failures + 1);
        c->respawn_ms = m->now_ms + delay;
        atomic_store(&shared_slot(m, slot)->state, PROC_DEAD);
        log_error("children: cannot fork %s: %s; trying again in %llu ms",
                  child_name(m, slot, name), strerror(errno), (unsigned long long)delay);
        return;
    }
    c->pid = pid;
    c->started_ms = m->now_ms;
    c->aborted = c->stopping = c->foreign = false;
    c->kill_ms = 0;
    watchdog_begin(&c->watchdog, m->now_ms);
    atomic_store(&shared_slot(m, slot)->pid, (uint32_t)pid);
    if (slot == PROC_SLOT_KEEPER || slot == PROC_SLOT_NOTIFIER)
        privileges_note_holders(m->lock_fd, m->child[PROC_SLOT_KEEPER].pid,
                                m->child[PROC_SLOT_NOTIFIER].pid);
}

void child_start(struct master *m, uint32_t slot, uint32_t region, uint32_t index)
{
    channel_close(&m->child[slot]);
    m->child[slot] =
        (struct master_child){.wanted = true, .region = region, .index = index, .channel = -1};
    child_fork(m, slot);
}

void child_stop(struct master *m, uint32_t slot, uint64_t grace_ms)
{
    struct master_child *c = &m->child[slot];
    c->wanted = false;
    c->respawn_ms = 0;
    if (c->pid == 0) {
        atomic_store(&shared_slot(m, slot)->state, PROC_FREE);
        return;
    }
    c->stopping = true;
    c->kill_ms = m->now_ms + grace_ms + (slot_is_worker(slot) && grace_ms ? WORKER_LATE_MS : 1);
    atomic_store(&shared_slot(m, slot)->leave_by_ms, m->now_ms + grace_ms);
    atomic_store(&shared_slot(m, slot)->state, PROC_DRAINING);
    kill(c->pid, grace_ms ? SIGTERM : SIGKILL);
}

void child_replace(struct master *m, uint32_t slot, uint64_t grace_ms)
{
    struct master_child *c = &m->child[slot];
    c->stopping = true;
    c->kill_ms = m->now_ms + grace_ms;
    atomic_store(&shared_slot(m, slot)->state, PROC_DRAINING);
    kill(c->pid, SIGTERM);
}

/* What others look up of it, where the process table is a new one. */
void child_adopt(struct master *m, uint32_t slot, const struct master_child *c)
{
    struct proc_slot *s = shared_slot(m, slot);
    m->child[slot] = *c;
    watchdog_begin(&m->child[slot].watchdog, m->now_ms);
    if (!c->foreign)
        return;
    atomic_store(&s->pid, (uint32_t)c->pid);
    atomic_store(&s->generation, m->generation[c->region].number);
    atomic_store(&s->index, c->index);
    atomic_store(&s->started_ms, c->started_ms);
    atomic_store(&s->heartbeat_ms, m->now_ms);
    atomic_store(&s->log_opening, PROC_NO_LOG); /* it cannot say which log it writes to */
    atomic_store(&s->state, c->stopping ? PROC_DRAINING : c->pid ? PROC_READY : PROC_DEAD);
}

/* ---- reap ---- */

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
    channel_close(c);
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

/* ---- deadlines ---- */

static void child_watch(struct master *m, uint32_t slot)
{
    struct master_child *c = &m->child[slot];
    const struct proc_slot *s = shared_slot(m, slot);
    char name[32];
    if (c->foreign)
        return;
    const uint64_t allowed =
        atomic_load(&s->state) == PROC_STARTING ? WATCHDOG_START_MS : WATCHDOG_STALE_MS;
    const bool hangs =
        watchdog_hangs(&c->watchdog, c->pid, atomic_load(&s->heartbeat_ms), allowed, m->now_ms);
    /* A keeper that leaves is in a sync that may take longer; its own deadline runs. */
    if (!hangs || c->aborted || m->now_ms < m->lenient_ms || (c->stopping && !slot_is_worker(slot)))
        return;
    c->aborted = true;
    watchdog_abort(m, slot, child_name(m, slot, name), c->pid, &c->watchdog, &c->kill_ms);
}

void children_step(struct master *m)
{
    for (uint32_t slot = PROC_SLOT_KEEPER; slot < PROC_SLOTS; slot++) {
        struct master_child *c = &m->child[slot];
        if (c->pid == 0 && c->respawn_ms && m->now_ms >= c->respawn_ms)
            child_fork(m, slot);
        if (c->pid == 0)
            continue;
        child_watch(m, slot);
        if (c->kill_ms && m->now_ms >= c->kill_ms) {
            c->kill_ms = m->now_ms + WATCHDOG_KILL_MS; /* should it be stuck in the kernel */
            kill(c->pid, SIGKILL);
        }
    }
}

uint64_t children_deadline(const struct master *m)
{
    uint64_t deadline = UINT64_MAX;
    for (uint32_t slot = PROC_SLOT_KEEPER; slot < PROC_SLOTS; slot++) {
        const struct master_child *c = &m->child[slot];
        deadline = earlier(deadline, c->pid ? c->kill_ms : c->respawn_ms);
        if (c->pid && !c->aborted && !c->stopping)
            deadline = earlier(deadline, watchdog_deadline(&c->watchdog, m->now_ms));
    }
    return deadline;
}

/* ---- workers of a generation ---- */

bool child_ready(const struct master *m, uint32_t slot)
{
    return m->child[slot].pid && atomic_load(&shared_slot(m, slot)->state) == PROC_READY;
}

static bool worker_of(const struct master *m, uint32_t slot, uint32_t region)
{
    return m->child[slot].pid && m->child[slot].region == region;
}

uint32_t workers_living(const struct master *m, uint32_t region)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += worker_of(m, slot, region);
    return n;
}

uint32_t workers_accepting(const struct master *m)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += m->child[slot].pid && m->child[slot].region != m->current &&
             !atomic_load(&shared_slot(m, slot)->accepts_no_more);
    return n;
}

uint32_t workers_unsettled(const struct master *m)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += m->child[slot].pid && !atomic_load(&shared_slot(m, slot)->settled);
    return n;
}

uint32_t workers_ready(const struct master *m, uint32_t region)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += worker_of(m, slot, region) && child_ready(m, slot);
    return n;
}

static bool slot_is_free(const struct master *m, uint32_t slot)
{
    return m->child[slot].pid == 0 && !m->child[slot].wanted;
}

uint32_t workers_free_slots(const struct master *m)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += slot_is_free(m, slot);
    return n;
}

void workers_start(struct master *m, uint32_t region)
{
    uint32_t index = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0;
         slot < PROC_SLOTS && index < m->generation[region].workers; slot++)
        if (slot_is_free(m, slot))
            child_start(m, slot, region, index++);
}

void workers_stop(struct master *m, uint32_t region, uint64_t grace_ms)
{
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        if (m->child[slot].region == region && (m->child[slot].pid || m->child[slot].wanted))
            child_stop(m, slot, grace_ms);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * children: fork, stop, respawn when it is due, heartbeats. What the end of one means is in deaths.c.
 *
 * A slot belongs to a role; its statistics and its ring outlive the process.
 */
#include "daemons/master/master.h"
#include "polder/config.h"
#include "polder/log.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORKER_LATE_MS 2000 /* after it should have left by itself */

const char *child_name(const struct master *m, uint32_t slot, char buf[32])
{
    if (slot_is_worker(slot))
        snprintf(buf, 32, "worker %u", m->child[slot].index);
    else
        snprintf(buf, 32, "%s", proc_slot_name(slot));
    return buf;
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

void child_close_channel(struct master_child *c)
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
        child_close_channel(c);
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
    child_close_channel(&m->child[slot]);
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

bool child_ready(const struct master *m, uint32_t slot)
{
    return m->child[slot].pid && atomic_load(&shared_slot(m, slot)->state) == PROC_READY;
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

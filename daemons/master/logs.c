/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * logs: the master opens the access log of each generation and hands it to the workers, at their
 * birth and, when the logs are opened again, over their channels. So a log that cannot be
 * opened is found before anything serves, and workers need no right to open files.
 */
#include "daemons/master/master.h"
#include "polder/access_log.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void logs_init(struct master *m)
{
    for (uint32_t r = 0; r < SHARED_REGIONS; r++)
        m->generation[r].access_log = -1;
}

void logs_close(struct master *m, uint32_t region)
{
    struct generation *g = &m->generation[region];
    if (g->access_log < 0)
        return;
    close(g->access_log);
    g->access_log = -1;
    if (!m->shared.region[region]->config)
        return; /* of the program before */
    /* a process that still fails to write to it raises it again */
    condition_clear(m->shared.conditions, COND_ACCESS_LOG_FAILED,
                    m->shared.region[region]->config->access_log_path, clock_real_ms());
}

int logs_open(struct master *m, uint32_t region, char *why, size_t size)
{
    const struct config *config = m->shared.region[region]->config;
    int fd;
    const int code = access_log_open(config, &fd);
    if (code < 0) {
        access_log_explain(config, code, why, size);
        return code;
    }
    logs_close(m, region);
    m->generation[region].access_log = fd;
    return 0;
}

/* Workers of the program before an upgrade have a configuration that is not known here: theirs is the
 * current log from now on. */
static void logs_follow(struct master *m, uint32_t region)
{
    const int fd = fcntl(m->generation[m->current].access_log, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return;
    logs_close(m, region);
    m->generation[region].access_log = fd;
}

static bool logs_are_unknown(const struct master *m, uint32_t region)
{
    const enum generation_state state = m->generation[region].state;
    return (state == GENERATION_DRAINING || state == GENERATION_ENDING) &&
           !m->shared.region[region]->config;
}

static void logs_hand_out(struct master *m, uint32_t region)
{
    const struct process_message message = {PROCESS_ACCESS_LOG,
                                            atomic_load(&m->shared.proc->log_opening)};
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++) {
        const struct master_child *c = &m->child[slot];
        if (!c->pid || c->region != region || c->channel < 0)
            continue;
        const int code = process_send(c->channel, &message, m->generation[region].access_log);
        if (code < 0 && code != -EPIPE) /* one that ends writes no more lines */
            log_error("logs: cannot hand the new access log to worker %u[%d]: %s; it goes on with "
                      "the old one",
                      c->index, (int)c->pid, strerror(-code));
    }
}

void logs_reopen(struct master *m)
{
    struct proc_table *proc = m->shared.proc;
    const uint32_t requested = atomic_load(&proc->log_reopen_requested);
    char why[512];
    int failed = 0;
    atomic_fetch_add(&proc->log_opening, 1);
    for (uint32_t r = 0; r < SHARED_REGIONS; r++) {
        const bool has_own = m->generation[r].access_log >= 0 && m->shared.region[r]->config;
        const int code = has_own ? logs_open(m, r, why, sizeof why) : 0;
        if (code < 0) {
            log_error("logs: %s; going on with the old file", why);
            failed = -code;
        } else if (has_own) {
            logs_hand_out(m, r);
        }
        if (code < 0)
            condition_raise(m->shared.conditions, COND_ACCESS_LOG_FAILED,
                            m->shared.region[r]->config->access_log_path, strerror(-code),
                            clock_real_ms());
    }
    for (uint32_t r = 0; r < SHARED_REGIONS; r++)
        if (logs_are_unknown(m, r)) {
            logs_follow(m, r);
            if (m->generation[r].access_log >= 0)
                logs_hand_out(m, r);
        }
    if (!failed)
        log_info("logs: opened again");
    atomic_store(&proc->log_reopen_error, failed);
    atomic_store(&proc->log_reopen_done, requested);
    shared_wake_control(&m->shared);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * history_file: a child that saves the history into state_dir, each minute and at the end, so that
 * a restart keeps it. Only the end of the service waits for it: a hanging disk blocks this child
 * alone, which is killed in time.
 */
#include "daemons/master/master.h"
#include "polder/clock.h"
#include "polder/history.h"
#include "polder/log.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAVE_MS    60000
#define TIMEOUT_MS 5000

static void history_child(const struct master *m, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent)
        _exit(EINTR);
    const int code =
        history_save(m->shared.history, master_config(m)->state_dir, clock_real_ms() / 1000);
    _exit(code < 0 && code > -128 ? -code : code ? EIO : 0);
}

void history_file_save(struct master *m)
{
    struct history_file *h = &m->history_file;
    const pid_t parent = getpid(), pid = h->pid ? -1 : fork();
    if (pid == 0)
        history_child(m, parent);
    h->next_ms = m->now_ms + SAVE_MS;
    if (pid < 0)
        return; /* one is under way, or there is no room for one */
    h->pid = pid;
    h->kill_ms = m->now_ms + TIMEOUT_MS;
}

void history_file_step(struct master *m)
{
    struct history_file *h = &m->history_file;
    if (h->pid && m->now_ms >= h->kill_ms)
        kill(h->pid, SIGKILL);
    else if (!h->pid && !h->next_ms)
        h->next_ms = m->now_ms + SAVE_MS;
    else if (!h->pid && m->now_ms >= h->next_ms && m->phase == MASTER_RUNNING)
        history_file_save(m);
}

/* Told when it begins to fail, and when it works again. */
bool history_file_reaped(struct master *m, pid_t pid, int status)
{
    struct history_file *h = &m->history_file;
    if (!h->pid || pid != h->pid)
        return false;
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : ETIMEDOUT;
    if (code && !h->error)
        log_warning("history: cannot save it in %s: %s; a restart will lose it",
                    master_config(m)->state_dir, strerror(code));
    else if (!code && h->error)
        log_info("history: is saved again");
    h->error = code;
    h->pid = 0;
    return true;
}

uint64_t history_file_deadline(const struct master *m)
{
    const struct history_file *h = &m->history_file;
    return h->pid ? h->kill_ms : m->phase == MASTER_RUNNING ? h->next_ms : 0;
}

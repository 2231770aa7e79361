/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * names: a child that resolves names of servers without an address yet, periodically until they
 * have one. No process waits for it; it writes the addresses into the table of servers.
 */
#include "daemons/master/master.h"
#include "polder/log.h"
#include "polder/server_names.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define FIRST_MS   1000
#define MAX_MS     30000
#define TIMEOUT_MS 10000

static void names_child(const struct master *m, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent)
        _exit(1);
    log_open("resolver");
    server_names_resolve(master_config(m), m->shared.servers, m->shared.conditions, true);
    _exit(0);
}

static void names_fork(struct master *m)
{
    struct names *n = &m->names;
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        names_child(m, parent);
    if (pid < 0)
        log_error("names: cannot fork to resolve names of servers: %s", strerror(errno));
    n->pid = pid > 0 ? pid : 0;
    n->kill_ms = m->now_ms + TIMEOUT_MS;
}

void names_again(struct master *m)
{
    names_stop(m);
    m->names.pause_ms = FIRST_MS;
    m->names.next_ms = m->now_ms + FIRST_MS;
}

void names_stop(struct master *m)
{
    if (m->names.pid)
        kill(m->names.pid, SIGKILL);
    m->names.next_ms = 0;
}

void names_step(struct master *m)
{
    struct names *n = &m->names;
    if (n->pid) {
        if (m->now_ms >= n->kill_ms)
            kill(n->pid, SIGKILL);
        return;
    }
    if (!n->next_ms || m->now_ms < n->next_ms || m->phase != MASTER_RUNNING ||
        m->reload.phase == RELOAD_COMPILING)
        return;
    if (!server_names_missing(master_config(m), m->shared.servers)) {
        n->next_ms = 0;
        return;
    }
    names_fork(m);
    n->next_ms = m->now_ms + n->pause_ms;
    n->pause_ms = n->pause_ms < MAX_MS / 2 ? n->pause_ms * 2 : MAX_MS;
}

bool names_reaped(struct master *m, pid_t pid)
{
    if (!m->names.pid || pid != m->names.pid)
        return false;
    m->names.pid = 0;
    return true;
}

uint64_t names_deadline(const struct master *m)
{
    const struct names *n = &m->names;
    return n->pid ? n->kill_ms : n->next_ms;
}

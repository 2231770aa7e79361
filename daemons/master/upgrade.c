/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upgrade: another program in place of this one, in the same process.
 *
 *   REQUESTED -> PROVING  (a child executes the new program, which reads what it would be left, maps
 *                          the shared memory and reads the configuration, and says that it could)
 *             -> execve() (same pid, children and descriptors; a block of state says what is what)
 *             -> KEEPER   (the old one stores what is in the rings and leaves; the new one opens)
 *             -> CONTROL  (the same, then the notifier)
 *             -> WORKERS  (a reload: new workers of the new program, the old ones drain)
 *
 * Whatever goes wrong before execve() leaves this program as it is: the new one may crash, hang, be
 * of another architecture, lack a library or be no program at all. What goes wrong afterwards is
 * like a failed reload: the old workers serve on. If the new master itself dies, the service manager
 * starts it again, as after any death of the master.
 *
 * Keeper and control follow proc->region, and what it means differs between the programs: so they
 * are replaced before it changes.
 */
#include "daemons/master/upgrade.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/inval.h"
#include "polder/log.h"
#include "polder/state_block.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROVE_MS         15000 /* it reads the configuration within 10 s, or says that it cannot */
#define REPLACE_MS       30000
#define KEEPER_GRACE_MS  10000
#define CONTROL_GRACE_MS 2000
#define LOOK_AGAIN_MS    20
#define CANNOT_EXECUTE   126
#define ANSWER_MAX       4096

/* ---- asked, and over ---- */

bool upgrade_is_due(const struct master *m)
{
    struct program_id now;
    return program_look(&m->program, &now) && !program_same(&now, &m->program.running) &&
           !program_same(&now, &m->upgrade.refused);
}

void upgrade_ask(struct master *m)
{
    if (m->upgrade.phase == UPGRADE_IDLE)
        m->upgrade.phase = UPGRADE_REQUESTED;
}

static void block_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* One asked for meanwhile begins. */
static void upgrade_over(struct master *m, enum proc_upgrade_state state)
{
    struct proc_table *proc = m->shared.proc;
    struct upgrade *u = &m->upgrade;
    block_close(&u->text);
    atomic_fetch_add(state == PROC_UPGRADE_OK ? &proc->upgrades_ok : &proc->upgrades_failed, 1);
    atomic_store(&proc->upgrade_state, state);
    atomic_store(&proc->upgrade_done, u->requested);
    shared_wake_control(&m->shared);
    u->phase =
        atomic_load(&proc->upgrade_requested) != u->requested ? UPGRADE_REQUESTED : UPGRADE_IDLE;
    if (m->phase == MASTER_RUNNING)
        notify_ready(m); /* ends RELOADING=1 */
}

/* For one line: the first. */
static void first_line(const char *text, char *out, size_t size)
{
    snprintf(out, size, "%.*s", (int)strcspn(text, "\n"), text);
}

static void upgrade_fail(struct master *m, const char *why)
{
    struct proc_table *proc = m->shared.proc;
    char line[CONDITION_REASON];
    first_line(why, line, sizeof line);
    snprintf(proc->upgrade_message, sizeof proc->upgrade_message, "%s", why);
    log_error("upgrade: failed, polderd " POLDER_VERSION " goes on: %s", why);
    if (m->phase == MASTER_RUNNING)
        condition_raise(m->shared.conditions, COND_UPGRADE_FAILED, "polderd", line,
                        clock_real_ms());
    notify_status("upgrade failed, polderd " POLDER_VERSION " goes on: %s", line);
    upgrade_over(m, PROC_UPGRADE_FAILED);
}

static void upgrade_done(struct master *m)
{
    struct proc_table *proc = m->shared.proc;
    struct upgrade *u = &m->upgrade;
    const double took_s = (double)(m->now_ms - u->began_ms) / 1000;
    snprintf(proc->upgrade_message, sizeof proc->upgrade_message, "from %s to " POLDER_VERSION,
             u->from);
    log_info("upgrade: polderd %s has become " POLDER_VERSION " (%.1f s after the start)", u->from,
             took_s);
    condition_clear(m->shared.conditions, COND_UPGRADE_FAILED, "polderd", clock_real_ms());
    upgrade_over(m, PROC_UPGRADE_OK);
}

/* ---- the proof ---- */

static void prover_main(const struct master *m, int block, int answer)
{
    sigset_t none;
    char block_text[16], answer_text[16];
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    unsetenv("NOTIFY_SOCKET");
    snprintf(block_text, sizeof block_text, "%d", block);
    snprintf(answer_text, sizeof answer_text, "%d", answer);
    if (state_block_inherit(block, true) == 0 && fcntl(answer, F_SETFD, 0) == 0 &&
        dup2(answer, STDERR_FILENO) >= 0)
        execl(m->program.path, m->program.path, "-c", m->config_path, "--take-over", block_text,
              "--prove", answer_text, (char *)NULL);
    dprintf(answer, "cannot execute %s: %s\n", m->program.path, strerror(errno));
    _exit(CANNOT_EXECUTE);
}

static int prover_fork(struct master *m, int block)
{
    struct upgrade *u = &m->upgrade;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    const pid_t pid = fork();
    if (pid == 0)
        prover_main(m, block, ends[1]);
    const int code = pid < 0 ? -errno : 0;
    close(ends[1]);
    u->answer = ends[0];
    u->prover = pid > 0 ? pid : 0;
    if (code)
        block_close(&u->answer);
    return code;
}

static void upgrade_begin(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    char why[4400];
    if (m->phase != MASTER_RUNNING || m->reload.phase != RELOAD_IDLE || m->history_file.pid)
        return;
    u->requested = atomic_load(&m->shared.proc->upgrade_requested);
    u->began_ms = m->now_ms;
    atomic_store(&m->shared.proc->upgrade_state, PROC_UPGRADE_RUNNING);
    notify_reloading();
    if (!program_look(&m->program, &u->proven)) {
        snprintf(why, sizeof why, "there is no program %s", m->program.path);
        upgrade_fail(m, why);
        return;
    }
    log_info("upgrade: %s proves that it could take over", m->program.path);
    u->text = memfd_create("polder-config-text", MFD_CLOEXEC);
    int block = upgrade_state_write(m);
    const int code = block < 0 ? block : prover_fork(m, block);
    block_close(&block);
    if (code < 0) {
        snprintf(why, sizeof why, "cannot start a program that proves itself: %s", strerror(-code));
        upgrade_fail(m, why);
        return;
    }
    u->deadline_ms = m->now_ms + PROVE_MS;
    u->phase = UPGRADE_PROVING;
}

/* ---- execve ---- */

/* Returns only if it has failed: -errno. */
static int upgrade_execute(struct master *m)
{
    char block_text[16];
    int block = upgrade_state_write(m);
    if (block < 0)
        return block;
    snprintf(block_text, sizeof block_text, "%d", block);
    int code = state_block_inherit(block, true);
    if (code == 0) {
        notify_alive(m);
        privileges_inherit(true);
        execl(m->program.path, m->program.path, "-c", m->config_path, "--take-over", block_text,
              (char *)NULL);
        code = -errno;
        privileges_inherit(false);
    }
    state_block_inherit(block, false);
    close(block);
    return code;
}

static void upgrade_proceed(struct master *m, const char *answer)
{
    struct upgrade *u = &m->upgrade;
    struct program_id now;
    char why[4400];
    if (!program_look(&m->program, &now) || !program_same(&now, &u->proven)) {
        upgrade_fail(m, "the program on disk has changed while it proved itself; ask again");
        return;
    }
    /* Old workers do not see what the new program invalidates in a page of another layout: so they
     * take nothing of the store for good any more. It would not be used by the new one either. */
    if (strstr(answer, UPGRADE_PURGES))
        inval_mark_all(m->shared.inval, false);
    log_info("upgrade: executing %s", m->program.path);
    const int code = upgrade_execute(m);
    snprintf(why, sizeof why, "cannot execute %s: %s", m->program.path, strerror(-code));
    upgrade_fail(m, why);
}

static void answer_read(struct upgrade *u, char *out, size_t size)
{
    size_t used = 0;
    ssize_t n;
    while (used + 1 < size && (n = read(u->answer, out + used, size - 1 - used)) > 0)
        used += (size_t)n;
    while (used && out[used - 1] == '\n')
        used--;
    out[used] = '\0';
    block_close(&u->answer);
}

static const char *prover_end(int status, const char *answer, char *out, size_t size)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        snprintf(out, size, "the new program did not prove itself within %d s", PROVE_MS / 1000);
    else if (WIFSIGNALED(status))
        snprintf(out, size, "the new program was ended by signal %d (%s) while it proved itself",
                 WTERMSIG(status), strsignal(WTERMSIG(status)));
    else if (*answer)
        snprintf(out, size, "%s", answer);
    else
        snprintf(out, size, "the new program left with exit code %d and proved nothing",
                 WEXITSTATUS(status));
    return out;
}

bool upgrade_reaped(struct master *m, pid_t pid, int status)
{
    struct upgrade *u = &m->upgrade;
    char answer[ANSWER_MAX], why[ANSWER_MAX];
    if (!u->prover || pid != u->prover)
        return false;
    u->prover = 0;
    answer_read(u, answer, sizeof answer);
    if (u->phase != UPGRADE_PROVING)
        return true; /* given up meanwhile */
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && strstr(answer, UPGRADE_PROVEN)) {
        upgrade_proceed(m, answer);
    } else {
        u->refused = u->proven;
        upgrade_fail(m, prover_end(status, answer, why, sizeof why));
    }
    return true;
}

/* ---- the rest, as the new program ---- */

static void replace_begin(struct master *m, enum upgrade_phase phase, uint32_t slot,
                          uint64_t grace_ms)
{
    struct upgrade *u = &m->upgrade;
    u->phase = phase;
    u->leaving = m->child[slot].pid;
    u->deadline_ms = m->now_ms + REPLACE_MS;
    if (m->child[slot].pid)
        child_replace(m, slot, grace_ms);
}

/* The successor is ready, or will not be. */
static bool replace_is_over(struct master *m, uint32_t slot)
{
    struct upgrade *u = &m->upgrade;
    const pid_t pid = m->child[slot].pid;
    if (pid && pid != u->leaving && child_ready(m, slot))
        return true;
    if (m->now_ms < u->deadline_ms)
        return false;
    snprintf(u->failed, sizeof u->failed, "the %s of polderd " POLDER_VERSION " does not get ready",
             proc_slot_name(slot));
    return true;
}

void upgrade_go_on(struct master *m, const char *from)
{
    struct upgrade *u = &m->upgrade;
    snprintf(u->from, sizeof u->from, "%s", from);
    u->began_ms = m->now_ms;
    replace_begin(m, UPGRADE_KEEPER, PROC_SLOT_KEEPER, KEEPER_GRACE_MS);
}

static void workers_begin(struct master *m)
{
    m->upgrade.phase = UPGRADE_WORKERS;
    m->upgrade.reloads = m->reload.begun;
    atomic_store(&m->shared.proc->upgrade_state, PROC_UPGRADE_WORKERS);
    reload_ask(m);
}

/* One reload that began behind the keeper's replacement makes workers of this program; that another
 * one, which was asked for meanwhile, has found a wrong file says nothing against them. */
static void workers_look(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    const struct proc_table *proc = m->shared.proc;
    char why[sizeof proc->upgrade_message + sizeof proc->reload_message];
    if (m->reload.phase != RELOAD_IDLE)
        return;
    if (m->reload.good > u->reloads && !u->failed[0]) {
        upgrade_done(m);
        return;
    }
    if (u->failed[0])
        snprintf(why, sizeof why, "%s", u->failed);
    else
        snprintf(why, sizeof why, "the workers of polderd %s serve on: %s", u->from,
                 proc->reload_message);
    upgrade_fail(m, why);
}

void upgrade_step(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    if (u->phase == UPGRADE_REQUESTED)
        upgrade_begin(m);
    if (u->phase == UPGRADE_PROVING && m->now_ms >= u->deadline_ms) {
        kill(u->prover, SIGKILL); /* its end is the error */
        u->deadline_ms = m->now_ms + PROVE_MS;
    }
    if (u->phase == UPGRADE_KEEPER && replace_is_over(m, PROC_SLOT_KEEPER)) {
        replace_begin(m, UPGRADE_CONTROL, PROC_SLOT_CONTROL, CONTROL_GRACE_MS);
        if (m->child[PROC_SLOT_NOTIFIER].pid)
            child_replace(m, PROC_SLOT_NOTIFIER, CONTROL_GRACE_MS);
    }
    if (u->phase == UPGRADE_CONTROL && replace_is_over(m, PROC_SLOT_CONTROL))
        workers_begin(m);
    else if (u->phase == UPGRADE_WORKERS)
        workers_look(m);
}

uint64_t upgrade_deadline(const struct master *m)
{
    switch (m->upgrade.phase) {
    case UPGRADE_IDLE:
        break;
    case UPGRADE_REQUESTED:
        return m->now_ms + LOOK_AGAIN_MS;
    case UPGRADE_PROVING:
    case UPGRADE_KEEPER:
    case UPGRADE_CONTROL:
        return m->upgrade.deadline_ms;
    case UPGRADE_WORKERS:
        return reload_deadline(m);
    }
    return UINT64_MAX;
}

void upgrade_cancel(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    if (u->phase == UPGRADE_IDLE)
        return;
    if (u->prover)
        kill(u->prover, SIGKILL);
    u->requested = atomic_load(&m->shared.proc->upgrade_requested);
    upgrade_fail(m, "Polder is stopping");
}

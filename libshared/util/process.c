/* SPDX-License-Identifier: BSD-2-Clause */
/* process: titles, and the first steps every child takes before its own loop. */
#include "polder/process.h"
#include "polder/clock.h"
#include "polder/config.h"
#include "polder/fd_message.h"
#include "polder/log.h"
#include "polder/sandbox.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROCESS_TITLE_PREFIX "polderd: "

extern char **environ;

/* Where the kernel reads a process's command line from: the bytes of argv and, right behind it, of
 * the environment (which is copied away first). */
static struct {
    char *area;
    size_t size;
    char name[32];     /* log_open() keeps a reference */
    char **environ_of; /* the copies, also of what is unset later: they are not lost */
} process_context;

/* The environment must stay usable although its old place becomes the title. */
static bool process_environ_move(void)
{
    size_t n = 0;
    while (environ[n])
        n++;
    char **copy = calloc(n + 1, sizeof *copy);
    char **all = calloc(n + 1, sizeof *all);
    if (!copy || !all) {
        free(copy);
        free(all);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        copy[i] = strdup(environ[i]);
        if (!copy[i]) {
            while (i)
                free(copy[--i]);
            free(copy);
            free(all);
            return false;
        }
        all[i] = copy[i];
    }
    environ = copy; /* lives as long as the process */
    process_context.environ_of = all;
    return true;
}

void process_title_init(int argc, char **argv)
{
    if (argc < 1 || !argv[0])
        return;
    char *end = argv[0];
    for (int i = 0; i < argc; i++)
        if (argv[i] == end)
            end += strlen(argv[i]) + 1;
    char *const argv_end = end;
    for (char **e = environ; *e; e++)
        if (*e == end)
            end += strlen(*e) + 1;
    if (end != argv_end && !process_environ_move())
        end = argv_end;
    process_context.area = argv[0];
    process_context.size = (size_t)(end - argv[0]);
}

void process_title_set(const char *title)
{
    if (process_context.size < 2)
        return;
    memset(process_context.area, 0, process_context.size);
    snprintf(process_context.area, process_context.size, "%s", title);
}

static void process_signals_reset(void)
{
    sigset_t none;
    static const int inherited[] = {SIGTERM, SIGCHLD, SIGALRM};
    /* a peer that has left is an EPIPE; the others are for the master, even if sent to all */
    static const int ignored[] = {SIGPIPE, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof inherited / sizeof *inherited; i++)
        signal(inherited[i], SIG_DFL);
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A stopped process gets no other signal than SIGKILL, and would keep the lock of state_dir. The
 * keeper closes its store, and the notifier ends its program, before they leave. */
static int process_death_signal(uint32_t slot)
{
    return slot == PROC_SLOT_KEEPER || slot == PROC_SLOT_NOTIFIER ? SIGTERM : SIGKILL;
}

void process_start(const struct process *process, const char *title)
{
    const size_t prefix = strlen(PROCESS_TITLE_PREFIX);
    if (strncmp(title, PROCESS_TITLE_PREFIX, prefix) == 0)
        title += prefix;
    snprintf(process_context.name, sizeof process_context.name, "%s", title);
    char full[64];
    snprintf(full, sizeof full, PROCESS_TITLE_PREFIX "%s", process_context.name);
    process_title_set(full);
    log_open(process_context.name);
    unsetenv("NOTIFY_SOCKET"); /* only the master speaks to systemd */
    unsetenv("WATCHDOG_USEC");
    process_signals_reset();
    sandbox_begin(process->region->config->core_dumps);
    prctl(PR_SET_PDEATHSIG, process_death_signal(process->slot), 0, 0, 0);
    process_heartbeat(process, clock_mono_ms());
    /* The master may have died before PDEATHSIG was set: there would be no signal. */
    if (getppid() != process->master_pid)
        _exit(0);
}

void process_ready(const struct process *process)
{
    struct proc_slot *slot = &process->shared->proc->slot[process->slot];
    uint32_t starting = PROC_STARTING; /* a drain that was asked for meanwhile stays */
    process_heartbeat(process, clock_mono_ms());
    atomic_compare_exchange_strong(&slot->state, &starting, PROC_READY);
    if (getppid() == process->master_pid)
        shared_wake_master(process->shared);
}

void process_heartbeat(const struct process *process, uint64_t mono_ms)
{
    atomic_store_explicit(&process->shared->proc->slot[process->slot].heartbeat_ms, mono_ms,
                          memory_order_relaxed);
}

/* ---- descriptors from the master ---- */

int process_send(int channel, const struct process_message *message, int fd)
{
    const struct iovec iov = {(void *)(uintptr_t)message, sizeof *message};
    const ssize_t n = fd_message_send(channel, &iov, 1, &fd, 1);
    return n < 0 ? (int)n : 0;
}

int process_receive(int channel, struct process_message *message, int *fd)
{
    size_t n_fds;
    const ssize_t n =
        fd_message_receive(channel, message, sizeof *message, MSG_DONTWAIT, fd, 1, &n_fds);
    if (n == (ssize_t)sizeof *message && n_fds == 1)
        return 1;
    fd_message_close(fd, n_fds);
    *fd = -1;
    return n == -EAGAIN ? 0 : n < 0 ? (int)n : n == 0 ? -EPIPE : -EPROTO;
}

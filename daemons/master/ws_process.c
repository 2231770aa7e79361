/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ws_process: polder-supervisor where no systemd starts it.
 *
 * It is a daemon of its own and must outlive a killed master, so it gets its own session and no
 * PDEATHSIG. A later master finds it answering, tells it to read the configuration again, which may
 * have changed meanwhile, and watches it as its own: a descriptor of the process tells of its end
 * at once. Only the polderd that started it stops it.
 */
#include "daemons/master/master.h"
#include "polder/heartbeat.h"
#include "polder/log.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WS_PROCESS_NAME  "polder-supervisor"
#define PROBE_EVERY_MS   1000
#define PROBE_RARELY_MS  10000 /* each fills a place in the queue of a socket that nobody serves */
#define EXECUTE_AGAIN_MS 10000
#define LOOK_EVERY_MS    200 /* at most, at its heartbeat */
#define LIVED_WELL_MS    10000
#define NOT_EXECUTABLE   127

/* 0: no process answers; -1: an unknown one does. Otherwise the pid of the listener. */
static pid_t ws_process_pid(const char *runtime_dir)
{
    struct ucred who;
    socklen_t len = sizeof who;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (snprintf(un.sun_path, sizeof un.sun_path, "%s/supervisor.sock", runtime_dir) >=
        (int)sizeof un.sun_path)
        return 0;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return 0;
    const int code = connect(fd, (const struct sockaddr *)&un, sizeof un) ? errno : 0;
    pid_t pid = code == EAGAIN ? -1 : 0; /* EAGAIN: its backlog is full, so it is there */
    if (code == 0)
        pid =
            getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 && who.pid > 0 ? who.pid : -1;
    close(fd);
    return pid == 1 ? -1 : pid; /* the socket is systemd's, and nothing has accepted on it yet */
}

/* Beside our own binary, else wherever PATH finds it. */
static void ws_process_find(char *out, size_t size)
{
    char self[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = '\0';
        char *slash = strrchr(self, '/');
        if (slash) {
            *slash = '\0';
            if (snprintf(out, size, "%s/" WS_PROCESS_NAME, self) < (int)size &&
                access(out, X_OK) == 0)
                return;
        }
    }
    snprintf(out, size, WS_PROCESS_NAME);
}

void ws_process_init(struct master *m)
{
    struct ws_process *c = &m->ws_process;
    /* Under systemd it is a unit of its own, which may start a moment after us. */
    c->wanted = getenv("NOTIFY_SOCKET") == NULL;
    c->found_fd = -1;
    ws_process_find(c->binary, sizeof c->binary);
}

void ws_process_take_over(struct master *m, pid_t pid)
{
    struct ws_process *c = &m->ws_process;
    c->pid = pid;
    c->mine = pid != 0;
    c->started_ms = m->now_ms;
    watchdog_begin(&c->watchdog, m->now_ms);
}

static void ws_process_exec(const struct master *m)
{
    sigset_t none;
    setsid();
    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_IGN); /* until it has its own handlers: a signal for all may come before */
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    privileges_drop_all();
    execlp(m->ws_process.binary, WS_PROCESS_NAME, "-c", m->config_path, (char *)NULL);
    _exit(NOT_EXECUTABLE);
}

static void ws_process_fork(struct master *m)
{
    struct ws_process *c = &m->ws_process;
    const pid_t pid = fork();
    if (pid == 0)
        ws_process_exec(m);
    if (pid < 0) {
        log_error("supervisor: cannot fork " WS_PROCESS_NAME ": %s", strerror(errno));
        c->next_ms = m->now_ms + respawn_delay_ms(++c->failures + 1);
        return;
    }
    log_info("supervisor: started " WS_PROCESS_NAME
             "[%d], because no process answered on its socket",
             (int)pid);
    c->pid = pid;
    c->mine = true;
    c->aborted = false;
    c->started_ms = m->now_ms;
    watchdog_begin(&c->watchdog, m->now_ms);
}

static bool has_ended(int pidfd)
{
    struct pollfd p = {pidfd, POLLIN, 0};
    return pidfd >= 0 && poll(&p, 1, 0) == 1;
}

/* systemd holds the socket of one that has ended, and starts another one. */
static void ws_process_wait(struct master *m)
{
    struct ws_process *c = &m->ws_process;
    c->absent_ms = c->absent_ms ? c->absent_ms * 2 : PROBE_EVERY_MS;
    if (c->absent_ms > PROBE_RARELY_MS)
        c->absent_ms = PROBE_RARELY_MS;
    c->next_ms = m->now_ms + c->absent_ms;
}

/* One that was there before us. Its end is seen where the kernel can tell of it. */
static void ws_process_adopt(struct master *m, pid_t pid)
{
    struct ws_process *c = &m->ws_process;
    if (pid == c->found)
        return;
    const int fd = pidfd_open(pid, 0);
    if ((fd < 0 && errno == ESRCH) || has_ended(fd)) {
        if (fd >= 0)
            close(fd);
        ws_process_wait(m);
        return;
    }
    c->absent_ms = 0;
    c->found = pid;
    c->found_fd = fd;
    c->aborted = false;
    c->kill_ms = 0;
    c->started_ms = m->now_ms;
    watchdog_begin(&c->watchdog, m->now_ms);
    log_info("supervisor: " WS_PROCESS_NAME "[%d] was there; it reads the configuration again",
             (int)pid);
    if (kill(pid, SIGHUP) < 0)
        log_warning("supervisor: cannot tell it so: %s", strerror(errno));
}

static void ws_process_look_found(struct master *m)
{
    struct ws_process *c = &m->ws_process;
    if (!has_ended(c->found_fd))
        return;
    log_warning("supervisor: " WS_PROCESS_NAME "[%d] has ended%s", (int)c->found,
                c->aborted ? " after its heartbeat stopped" : "");
    close(c->found_fd);
    c->found_fd = -1;
    c->found = 0;
    c->kill_ms = 0;
    c->next_ms = m->now_ms;
}

static void ws_process_probe(struct master *m)
{
    struct ws_process *c = &m->ws_process;
    const struct config *config = master_config(m);
    c->next_ms = m->now_ms + PROBE_EVERY_MS;
    if (!config_has_websockets(config))
        return;
    const pid_t pid = ws_process_pid(config->runtime_dir);
    if (pid > 0)
        ws_process_adopt(m, pid);
    else if (pid == 0 && c->wanted)
        ws_process_fork(m);
}

/* Where systemd has started it, systemd watches it. Before its first heartbeat it reads its
 * configuration: what the file says then is of a predecessor with the same number. One that was
 * found and has no file is of another version. */
static void ws_process_watch(struct master *m, pid_t pid)
{
    struct ws_process *c = &m->ws_process;
    char path[4096];
    uint64_t shown_ms;
    if (!c->wanted || c->aborted || c->stopping || m->now_ms < c->look_ms)
        return;
    c->look_ms = m->now_ms + LOOK_EVERY_MS;
    snprintf(path, sizeof path, "%s/" HEARTBEAT_FILE, master_config(m)->runtime_dir);
    const bool has_file = heartbeat_read(path, pid, &shown_ms);
    const bool shown = has_file && (shown_ms >= c->started_ms || !c->pid);
    if (!has_file && !c->pid)
        return;
    if (!has_file || shown_ms < c->started_ms)
        shown_ms = c->started_ms;
    if (!watchdog_hangs(&c->watchdog, pid, shown_ms, shown ? WATCHDOG_STALE_MS : WATCHDOG_START_MS,
                        m->now_ms) ||
        m->now_ms < m->lenient_ms)
        return;
    c->aborted = true;
    watchdog_abort(m, PROC_SLOT_SUPERVISOR, WS_PROCESS_NAME, pid, &c->watchdog, &c->kill_ms);
}

static void ws_process_kill(struct master *m, pid_t pid)
{
    struct ws_process *c = &m->ws_process;
    if (!c->kill_ms || m->now_ms < c->kill_ms)
        return;
    if (!c->aborted)
        log_warning("supervisor: " WS_PROCESS_NAME "[%d] did not leave in time: killing it",
                    (int)pid);
    c->kill_ms = m->now_ms + 1000;
    kill(pid, SIGKILL);
}

void ws_process_step(struct master *m)
{
    struct ws_process *c = &m->ws_process;
    ws_process_look_found(m);
    const pid_t pid = c->pid ? c->pid : c->found_fd >= 0 ? c->found : 0;
    if (pid) {
        ws_process_watch(m, pid);
        ws_process_kill(m, pid);
    } else if (!c->stopping && m->phase <= MASTER_RUNNING && m->now_ms >= c->next_ms) {
        ws_process_probe(m);
    }
}

/* The supervisor reads the same file, however it was started. */
void ws_process_reload(struct master *m)
{
    struct ws_process *c = &m->ws_process;
    const pid_t pid = c->pid ? c->pid : ws_process_pid(master_config(m)->runtime_dir);
    if (pid > 0 && kill(pid, SIGHUP) < 0 && errno != ESRCH)
        log_warning("supervisor: cannot tell " WS_PROCESS_NAME "[%d] to read its configuration "
                    "again: %s",
                    (int)pid, strerror(errno));
    if (pid == 0)
        c->next_ms = m->now_ms; /* there may be a first WebSocket route */
}

bool ws_process_reaped(struct master *m, pid_t pid, int status)
{
    struct ws_process *c = &m->ws_process;
    if (c->pid == 0 || pid != c->pid)
        return false;
    c->pid = 0;
    c->kill_ms = 0;
    if (c->stopping)
        return true;
    if (m->now_ms - c->started_ms >= LIVED_WELL_MS)
        c->failures = 0;
    const uint64_t delay = respawn_delay_ms(++c->failures);
    c->next_ms = m->now_ms + delay;
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_EXECUTABLE) {
        log_error("supervisor: cannot execute %s; WebSocket upgrades get 503", c->binary);
        c->next_ms = m->now_ms + EXECUTE_AGAIN_MS;
    } else if (WIFSIGNALED(status)) {
        log_warning("supervisor: " WS_PROCESS_NAME "[%d] died: signal %d (%s)%s", (int)pid,
                    WTERMSIG(status), strsignal(WTERMSIG(status)),
                    c->aborted ? " after its heartbeat stopped" : "");
    } else {
        log_warning("supervisor: " WS_PROCESS_NAME "[%d] left with exit code %d", (int)pid,
                    WEXITSTATUS(status));
    }
    return true;
}

void ws_process_stop(struct master *m, uint64_t grace_ms)
{
    struct ws_process *c = &m->ws_process;
    c->wanted = false;
    if (c->pid == 0)
        return;
    const uint64_t kill_ms = m->now_ms + grace_ms;
    if (!c->stopping)
        kill(c->pid, SIGTERM);
    if (!c->stopping || kill_ms < c->kill_ms) /* told again, it gets no more time */
        c->kill_ms = kill_ms;
    c->stopping = true;
}

uint64_t ws_process_deadline(const struct master *m)
{
    const struct ws_process *c = &m->ws_process;
    if (c->kill_ms && (c->pid || c->found_fd >= 0))
        return c->kill_ms;
    if (c->pid || c->found_fd >= 0)
        return c->stopping || c->aborted ? UINT64_MAX : watchdog_deadline(&c->watchdog, m->now_ms);
    return !c->stopping && c->found_fd < 0 ? c->next_ms : UINT64_MAX;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* program: see notifier.h. */
#include "daemons/notifier/notifier.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOBODY   65534
#define READ_MAX 65536 /* a turn: a flood is not read faster than this */

/* ---- in the child ---- */

static void limit(int what, rlim_t max)
{
    struct rlimit r;
    if (getrlimit((__rlimit_resource_t)what, &r) == 0 && r.rlim_max > max) {
        r.rlim_cur = r.rlim_max = max;
        setrlimit((__rlimit_resource_t)what, &r);
    }
}

static void signals_default(void)
{
    sigset_t none;
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Becomes the user nobody if it is root. False: that failed. */
static bool privileges_give_up(void)
{
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (geteuid() != 0)
        return true;
    return !setgroups(0, NULL) && !setresgid(NOBODY, NOBODY, NOBODY) &&
           !setresuid(NOBODY, NOBODY, NOBODY);
}

static void limits_set(void)
{
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_CPU, PROGRAM_MS / 1000);
    limit(RLIMIT_FSIZE, 16 << 20);
    limit(RLIMIT_NOFILE, 256);
    if (nice(10) < 0)
        errno = 0; /* it is a preference */
}

/* PATH, and what the operator has given us under names that begin with POLDER_ALERT_. */
static char **environment(const char *mark)
{
    enum { MAX = 16 };
    static char *env[MAX + 4];
    static char prefix[] = "POLDER_ALERT_", path[] = "PATH=/usr/local/bin:/usr/bin:/bin",
                lang[] = "LANG=C.UTF-8";
    size_t n = 0;
    env[n++] = path;
    env[n++] = lang;
    env[n++] = (char *)(uintptr_t)mark;
    for (char **e = environ; e && *e && n < MAX + 3; e++)
        if (!strncmp(*e, prefix, sizeof prefix - 1))
            env[n++] = *e;
    env[n] = NULL;
    return env;
}

static void fail(const char *path)
{
    dprintf(STDERR_FILENO, "cannot run %s: %s", path, strerror(errno));
    _exit(127);
}

/* It does not outlive the notifier. Another user is another beginning: the kernel forgets. */
static void die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent)
        _exit(127);
}

static void child_main(const char *path, const char *mark, int in, int err, pid_t parent)
{
    char *argv[] = {(char *)(uintptr_t)path, NULL};
    die_with(parent);
    if (setsid() < 0)
        _exit(127);
    signals_default();
    const int null = open("/dev/null", O_WRONLY);
    if (null < 0 || dup2(err, STDERR_FILENO) < 0 || dup2(in, STDIN_FILENO) < 0 ||
        dup2(null, STDOUT_FILENO) < 0 || close_range(STDERR_FILENO + 1, ~0u, 0) || chdir("/"))
        _exit(127);
    umask(077);
    limits_set();
    if (!privileges_give_up())
        fail(path);
    die_with(parent);
    execve(path, argv, environment(mark));
    fail(path);
}

/* ---- in the notifier ---- */

static void close_both(const int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

/* The text is far smaller than a pipe: it is written at once, whether the program reads it or not. */
int program_start(struct program *p, const char *path, const char *mark, const char *text,
                  size_t len, uint64_t now_ms)
{
    int in[2], err[2];
    if (pipe2(in, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    if (pipe2(err, O_CLOEXEC)) {
        const int code = -errno;
        close_both(in);
        return code;
    }
    fcntl(in[0], F_SETFL, 0); /* the program's end waits, as programs expect */
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        child_main(path, mark, in[0], err[1], parent);
    const int code = pid < 0 ? -errno : 0;
    const ssize_t n = pid > 0 ? write(in[1], text, len) : 0;
    (void)n; /* a program that has ended already: its status tells */
    close_both(in);
    close(err[1]);
    if (code) {
        close(err[0]);
        return code;
    }
    fcntl(err[0], F_SETFL, O_NONBLOCK);
    *p = (struct program){.pid = pid, .err_fd = err[0], .kill_ms = now_ms + PROGRAM_MS};
    return 0;
}

static void keep_said(struct program *p, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n && p->len < PROGRAM_SAID; i++) {
        const char c = bytes[i];
        p->said[p->len++] = c == '\n' || c == '\t' ? ' ' : c < ' ' || c == 0x7f ? '?' : c;
    }
}

void program_read(struct program *p)
{
    char bytes[4096];
    for (size_t sum = 0; p->err_fd >= 0 && sum < READ_MAX;) {
        const ssize_t n = read(p->err_fd, bytes, sizeof bytes);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            close(p->err_fd);
            p->err_fd = -1;
            return;
        }
        keep_said(p, bytes, (size_t)n);
        sum += (size_t)n;
    }
}

void program_kill(const struct program *p)
{
    if (kill(-p->pid, SIGKILL))
        kill(p->pid, SIGKILL); /* it has not come to setsid() yet */
}

void program_end(struct program *p)
{
    kill(-p->pid, SIGKILL);
    program_read(p);
    if (p->err_fd >= 0)
        close(p->err_fd);
    p->pid = 0;
    p->err_fd = -1;
}

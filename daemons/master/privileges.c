/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * privileges: what has to be done as root, if the master was started so, and how it stops being it.
 *
 * The master keeps one capability, CAP_NET_BIND_SERVICE, so that a reload can open a low port;
 * children give it up. Nothing here happens where systemd has set the user already.
 */
#include "daemons/master/master.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include "polder/sandbox.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOCK_WAIT_MS     5000 /* children of a master that was killed need a moment to leave */
#define FILES_OF_OUR_OWN 1024
#define FILES_MIN        384 /* shared memory, events and first sockets take some 300 */

static int capabilities_set_with(uint32_t mask, uint32_t inheritable)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = mask, .permitted = mask, .inheritable = inheritable}, {0}};
    return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

static int capabilities_set(uint32_t mask)
{
    return capabilities_set_with(mask, 0);
}

static uint32_t capabilities_permitted(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}, {0}};
    return syscall(SYS_capget, &head, data) < 0 ? 0 : data[0].permitted;
}

void privileges_drop_all(void)
{
    if (geteuid() != 0)
        capabilities_set(0);
}

/* Ambient: execve() takes all others from a process that is not root's. */
void privileges_inherit(bool inherit)
{
    const uint32_t mask = capabilities_permitted() & 1u << CAP_NET_BIND_SERVICE;
    if (geteuid() == 0 || !mask)
        return;
    if (inherit && capabilities_set_with(mask, mask) == 0)
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0);
    if (!inherit) {
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        capabilities_set(mask);
    }
}

void privileges_take_over(const struct config *config)
{
    privileges_inherit(false);
    sandbox_begin(config->core_dumps);
}

/* mkdir -p; a directory that is made here belongs to the user. */
static int directory_make(const char *key, const char *path, mode_t mode, const struct passwd *pw)
{
    char part[PATH_MAX];
    const size_t len = strlen(path);
    if (len == 0 || len >= sizeof part) {
        log_error("privileges: %s \"%s\" is no usable path", key, path);
        return -1;
    }
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0')
            continue;
        const char saved = part[i];
        part[i] = '\0';
        if (mkdir(part, saved ? 0755 : mode) == 0) {
            if (pw && !saved && chown(part, pw->pw_uid, pw->pw_gid) < 0)
                log_warning("privileges: cannot give %s to %s: %s", part, pw->pw_name,
                            strerror(errno));
        } else if (errno != EEXIST) {
            log_error("privileges: cannot make %s %s: %s", key, part, strerror(errno));
            return -1;
        }
        part[i] = saved;
    }
    return 0;
}

static rlim_t files_of(uint32_t connections)
{
    return (rlim_t)connections * 2 + FILES_OF_OUR_OWN;
}

void privileges_tell_files(struct condition_table *table, const struct config *config)
{
    struct rlimit r;
    char reason[CONDITION_REASON];
    const rlim_t wanted = files_of(config->connections_wanted);
    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return;
    snprintf(reason, sizeof reason, "a process may have %llu; max_connections = %u would need %llu",
             (unsigned long long)r.rlim_cur, config->max_connections,
             (unsigned long long)files_of(config->max_connections));
    condition_set(table, COND_DESCRIPTORS_SHORT, "polderd", r.rlim_cur < wanted, reason,
                  clock_real_ms());
}

/* -1: not even shared memory could be made, with the reason logged. */
static int files_raise(const struct config *config)
{
    struct rlimit r;
    const rlim_t wanted = files_of(config->max_connections);
    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return 0;
    const rlim_t hard = r.rlim_max;
    if (r.rlim_max < wanted && geteuid() == 0)
        r.rlim_max = wanted;
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r) < 0) { /* above fs.nr_open */
        r.rlim_cur = r.rlim_max = hard;
        setrlimit(RLIMIT_NOFILE, &r);
    }
    if (r.rlim_cur >= FILES_MIN)
        return 0;
    log_error(
        "privileges: a process may have only %llu open files; at least %d are needed to start "
        "(LimitNOFILE= of the unit, ulimit -n)",
        (unsigned long long)r.rlim_cur, FILES_MIN);
    return -1;
}

static int user_become(const struct passwd *pw)
{
    prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    if (initgroups(pw->pw_name, pw->pw_gid) < 0 ||
        setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
        setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0) {
        log_error("privileges: cannot change to user %s: %s", pw->pw_name, strerror(errno));
        return -1;
    }
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    if (capabilities_set(1u << CAP_NET_BIND_SERVICE) < 0)
        capabilities_set(0); /* a container without it: low ports then cannot be opened */
    return 0;
}

/* On a file system that cannot be written the service goes on without storing, as on a full one. */
static int directory_check(const char *key, const char *path, bool may_be_read_only)
{
    if (access(path, W_OK | X_OK) == 0)
        return 0;
    const int code = errno;
    if (code == EROFS && may_be_read_only) {
        log_warning("privileges: %s %s cannot be written: %s; serving without storing", key, path,
                    strerror(code));
        return 0;
    }
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        log_error("privileges: %s %s is no directory", key, path);
    else
        log_error("privileges: %s %s is not writable for uid %u: %s", key, path,
                  (unsigned)geteuid(), strerror(code));
    return -1;
}

void privileges_note_holders(int lock_fd, pid_t keeper, pid_t notifier)
{
    char text[32];
    const int n = snprintf(text, sizeof text, "%-10d %-10d\n", (int)keeper, (int)notifier);
    if (lock_fd >= 0 && pwrite(lock_fd, text, (size_t)n, 0) < 0)
        log_warning("privileges: cannot write polderd.lock: %s", strerror(errno));
}

/* Of a master that was killed: a stopped one gets its SIGTERM only when it is continued. */
static void holders_continue(int lock_fd)
{
    char text[32] = "";
    int pid[2];
    if (pread(lock_fd, text, sizeof text - 1, 0) < 0 || sscanf(text, "%d %d", pid, pid + 1) != 2)
        return;
    for (int i = 0; i < 2; i++)
        if (pid[i] > 1)
            kill(pid[i], SIGCONT);
}

/* Children inherit the lock with the descriptor: while one of an earlier master's lives, its store
 * is not opened twice. */
static int state_lock(const char *state_dir, int *lock_fd)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/polderd.lock", state_dir) >= (int)sizeof path)
        return -1;
    *lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*lock_fd < 0 && errno == EROFS)
        return 0; /* nothing can be written that two could spoil */
    if (*lock_fd < 0) {
        log_error("privileges: cannot open %s: %s", path, strerror(errno));
        return -1;
    }
    const uint64_t deadline = clock_mono_ms() + LOCK_WAIT_MS;
    while (flock(*lock_fd, LOCK_EX | LOCK_NB) < 0) {
        if (clock_mono_ms() >= deadline) {
            log_error("privileges: another polderd uses state_dir %s (%s is locked)", state_dir,
                      path);
            return -1;
        }
        holders_continue(*lock_fd);
        poll(NULL, 0, 20);
    }
    return 0;
}

int privileges_prepare(const struct config *config, int *lock_fd)
{
    const struct passwd *pw = NULL;
    if (geteuid() == 0 && config->user[0]) {
        pw = getpwnam(config->user);
        if (!pw) {
            log_error("privileges: there is no user \"%s\" (user = in %s)", config->user,
                      config->path);
            return -1;
        }
    } else if (geteuid() == 0) {
        log_warning("privileges: running as root, for %s sets no user", config->path);
    }
    if (directory_make("state_dir", config->state_dir, 0700, pw) < 0 ||
        directory_make("runtime_dir", config->runtime_dir, 0755, pw) < 0)
        return -1;
    if (files_raise(config) < 0 || (pw && user_become(pw) < 0))
        return -1;
    if (directory_check("state_dir", config->state_dir, true) < 0 ||
        directory_check("runtime_dir", config->runtime_dir, false) < 0)
        return -1;
    sandbox_begin(config->core_dumps);
    sandbox_enter_or_warn(SANDBOX_MASTER, config->sandbox);
    return state_lock(config->state_dir, lock_fd);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_compile: reads the configuration in a child, so that no content of the file can harm the
 * master.
 *
 * The child writes the finished tree into a shared region, resolves the names of servers, and
 * exits; a crash or a hang of the parser is an error like any other. Until then no process follows
 * a pointer of the region; from then on neither the master nor any child that it forks can write to
 * it.
 */
#include "daemons/master/master.h"
#include "polder/clock.h"
#include "polder/log.h"
#include "polder/server_names.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* The configuration that the new one follows; NULL: it is the first. */
static const struct config_region *running_now(const struct shared *shared,
                                               const struct config_region *region)
{
    const struct config_region *now =
        shared ? shared->region[atomic_load(&shared->proc->region)] : NULL;
    return now && now != region && now->config ? now : NULL;
}

pid_t compile_start(const struct shared *shared, struct config_region *region, const char *path,
                    uint32_t generation)
{
    int code = config_region_protect(region, true);
    if (code < 0)
        return code;
    region->config = NULL;
    region->errors[0] = '\0';
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid != 0)
        return pid < 0 ? -errno : pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (getppid() != parent)
        _exit(1);
    log_open("config");
    if (config_region_load(region, path, generation, running_now(shared, region)) < 0)
        _exit(1);
    if (shared)
        server_names_resolve(region->config, shared->servers, shared->conditions);
    _exit(0);
}

int compile_result(struct config_region *region, int status)
{
    region->errors[sizeof region->errors - 1] = '\0';
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && region->config) {
        const int code = config_region_protect(region, false);
        if (code < 0)
            snprintf(region->errors, sizeof region->errors,
                     "cannot protect the configuration that was read: %s", strerror(-code));
        return code;
    }
    region->config = NULL;
    if (WIFSIGNALED(status))
        snprintf(region->errors, sizeof region->errors,
                 "reading the configuration was ended by signal %d (%s)", WTERMSIG(status),
                 WTERMSIG(status) == SIGKILL ? "it took too long or was killed"
                                             : strsignal(WTERMSIG(status)));
    else if (region->errors[0] == '\0')
        snprintf(region->errors, sizeof region->errors,
                 "the configuration could not be read, and no reason was given");
    return -EINVAL;
}

int compile_wait(const struct shared *shared, struct config_region *region, const char *path,
                 uint32_t generation)
{
    const pid_t pid = compile_start(shared, region, path, generation);
    if (pid < 0) {
        snprintf(region->errors, sizeof region->errors, "cannot fork to read the configuration: %s",
                 strerror(-pid));
        return pid;
    }
    const uint64_t deadline = clock_mono_ms() + COMPILE_TIMEOUT_MS;
    int status = 0;
    for (pid_t done = 0; done != pid;) {
        done = waitpid(pid, &status, WNOHANG);
        if (done < 0 && errno != EINTR) {
            const int rc = -errno;
            snprintf(region->errors, sizeof region->errors,
                     "lost the child that reads the configuration: %s", strerror(-rc));
            return rc;
        }
        if (done == 0) {
            poll(NULL, 0, 2);
            if (clock_mono_ms() >= deadline)
                kill(pid, SIGKILL);
        }
    }
    return compile_result(region, status);
}

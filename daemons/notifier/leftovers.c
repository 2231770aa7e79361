/* SPDX-License-Identifier: BSD-2-Clause */
/* leftovers: processes that programs leave behind. See notifier.h. */
#include "daemons/notifier/notifier.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENVIRONMENT_MAX 65536 /* ours comes first, and is small */

/* Bytes that were read; with a NUL behind them. */
static size_t read_file(const char *path, char *out, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n = 0;
    while (fd >= 0 && len < size - 1 && (n = read(fd, out + len, size - 1 - len)) > 0)
        len += (size_t)n;
    if (fd >= 0)
        close(fd);
    out[len] = 0;
    return len;
}

size_t leftovers_children(pid_t *pid, size_t max)
{
    char path[64], text[4096], *at = text, *end;
    size_t n = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    read_file(path, text, sizeof text);
    for (; n < max; at = end) {
        const long one = strtol(at, &end, 10);
        if (end == at)
            break;
        pid[n++] = (pid_t)one;
    }
    return n;
}

static bool is_marked(pid_t pid, const char *mark)
{
    static char text[ENVIRONMENT_MAX];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    const size_t len = read_file(path, text, sizeof text);
    for (size_t at = 0; at < len; at += strlen(text + at) + 1)
        if (!strcmp(text + at, mark))
            return true;
    return false;
}

void leftovers_end_marked(const char *mark)
{
    DIR *all = opendir("/proc");
    for (struct dirent *e; all && (e = readdir(all));) {
        const pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid > 1 && pid != getpid() && is_marked(pid, mark))
            kill(pid, SIGKILL);
    }
    if (all)
        closedir(all);
}

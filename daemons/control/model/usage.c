/* SPDX-License-Identifier: BSD-2-Clause */
/* usage: see usage.h. */
#include "daemons/control/model/usage.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- CPU ---- */

/* The clock of another process; 0: there is none. */
static uint64_t cpu_ns(uint32_t pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid((pid_t)pid, &clock) || clock_gettime(clock, &t))
        return 0;
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void look_at_process(struct usage_cpu *u, unsigned i, uint32_t pid, bool first)
{
    const uint64_t ns = pid ? cpu_ns(pid) : 0;
    const bool known = u->seen[i].pid == pid;
    if (known && ns > u->seen[i].ns)
        u->total_ns += ns - u->seen[i].ns;
    else if (!known && !first)
        u->total_ns += ns;
    if (!known || ns > u->seen[i].ns)
        u->seen[i].ns = ns;
    u->seen[i].pid = pid;
}

void usage_look_at_cpu(struct usage_cpu *u, const struct proc_table *proc, uint32_t supervisor)
{
    const bool first = !u->seen[PROC_SLOT_MASTER].pid;
    for (unsigned i = 0; i < PROC_SLOTS; i++)
        look_at_process(u, i, atomic_load(&proc->slot[i].pid), first);
    look_at_process(u, PROC_SLOTS, supervisor, !u->seen[PROC_SLOTS].pid);
}

/* ---- memory ---- */

static bool read_small_file(const char *path, char *out, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const ssize_t n = read(fd, out, size - 1);
    close(fd);
    out[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* The number behind a name at the beginning of a line; 0: it is not there. */
static uint64_t number_behind(const char *text, const char *name)
{
    const size_t n = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, name, n) && strchr(" \t:", line[n]))
            return strtoull(line + n + strspn(line + n, " \t:"), NULL, 10);
    }
    return 0;
}

/* One cgroup: false where it has no limit. */
static bool look_at_cgroup(struct usage_memory *u, const char *dir)
{
    char path[PATH_MAX], text[8192];
    if (snprintf(path, sizeof path, "%s/memory.max", dir) >= (int)sizeof path ||
        !read_small_file(path, text, sizeof text) || *text < '0' || *text > '9')
        return false;
    u->limit = strtoull(text, NULL, 10);
    if (snprintf(path, sizeof path, "%s/memory.stat", dir) >= (int)sizeof path ||
        !read_small_file(path, text, sizeof text) || !u->limit)
        return false;
    u->used =
        number_behind(text, "anon") + number_behind(text, "shmem") + number_behind(text, "kernel");
    u->known = u->of_cgroup = true;
    return true;
}

static bool is_tighter(const struct usage_memory *a, const struct usage_memory *b)
{
    return !b->known || (double)a->used / (double)a->limit > (double)b->used / (double)b->limit;
}

/* Its own and all above it; path "/a/b" as in /proc/self/cgroup. */
static void look_at_cgroups(struct usage_memory *u, const char *root, char *path)
{
    char dir[PATH_MAX];
    for (;;) {
        struct usage_memory one = {0};
        if (snprintf(dir, sizeof dir, "%s%s", root, path) < (int)sizeof dir &&
            look_at_cgroup(&one, dir) && is_tighter(&one, u))
            *u = one;
        char *slash = strrchr(path, '/');
        if (!slash)
            return;
        *slash = 0;
    }
}

static void look_at_host(struct usage_memory *u, const char *proc)
{
    char path[PATH_MAX], text[8192];
    if (snprintf(path, sizeof path, "%s/meminfo", proc) >= (int)sizeof path ||
        !read_small_file(path, text, sizeof text))
        return;
    const uint64_t total = number_behind(text, "MemTotal") * 1024,
                   left = number_behind(text, "MemAvailable") * 1024;
    if (!total || left > total)
        return;
    *u = (struct usage_memory){.known = true, .used = total - left, .limit = total};
}

void usage_look_at_memory(struct usage_memory *u, const char *proc, const char *cgroups)
{
    char path[PATH_MAX], text[PATH_MAX];
    *u = (struct usage_memory){0};
    if (snprintf(path, sizeof path, "%s/self/cgroup", proc) < (int)sizeof path &&
        read_small_file(path, text, sizeof text) && !strncmp(text, "0::/", 4)) {
        text[strcspn(text, "\n")] = 0;
        look_at_cgroups(u, cgroups, text + 3);
    }
    if (!u->known)
        look_at_host(u, proc);
}

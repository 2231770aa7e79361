/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * usage: CPU time and memory that Polder uses.
 *
 * CPU: the clocks of its processes (those of the process table, and the supervisor), in nanoseconds
 * since control began to look; a process that has come meanwhile counts from its start.
 *
 * Memory: that which cannot be reclaimed by dropping caches. Where the cgroup of this process, or
 * one above it, has a limit: anonymous, shared and kernel memory of the one that is nearest to its
 * limit. If none has one: the host's used and total memory.
 */
#ifndef POLDER_CONTROL_USAGE_H
#define POLDER_CONTROL_USAGE_H
#include "polder/proc.h"
#include <stdbool.h>
#include <stdint.h>

struct usage_cpu { /* {0} to begin with */
    uint64_t total_ns;
    struct {
        uint32_t pid;
        uint64_t ns;
    } seen[PROC_SLOTS + 1];
};
/* supervisor: its pid, 0: not known. */
void usage_look_at_cpu(struct usage_cpu *u, const struct proc_table *proc, uint32_t supervisor);

struct usage_memory {
    bool known;
    bool of_cgroup;
    uint64_t used, limit; /* bytes */
};
/* proc, cgroups: "/proc" and "/sys/fs/cgroup", or directories made by a test. */
void usage_look_at_memory(struct usage_memory *u, const char *proc, const char *cgroups);
#endif

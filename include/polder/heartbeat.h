/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * heartbeat: how a daemon with its own memory shows that its loop runs.
 *
 * Children of polderd have a word in the process table. polder-supervisor writes its process id and
 * the time into a small file of runtime_dir, which lies in memory, once a second. It is written and
 * read by system calls and not mapped, so truncating it does no harm: an incomplete file counts
 * as none.
 */
#ifndef POLDER_HEARTBEAT_H
#define POLDER_HEARTBEAT_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define HEARTBEAT_FILE     "supervisor.heartbeat" /* in runtime_dir */
#define HEARTBEAT_EVERY_MS 1000

/* A descriptor for heartbeat_write(), or a negative errno. */
int heartbeat_open(const char *path);
/* Of this process. What cannot be written is withdrawn, so that it does not look old. */
void heartbeat_write(int fd, uint64_t mono_ms);
/* Says nothing from now on. */
void heartbeat_withdraw(int fd);
/* When pid has shown it last; false: not known. */
bool heartbeat_read(const char *path, pid_t pid, uint64_t *mono_ms);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * program: what this process and its custodian may replace their program with: the binary that they
 * were started from, with its own arguments and environment, and nothing else.
 *
 * execve(2) is let through by the filters of system calls for these addresses alone, for seccomp
 * sees no paths. Paths, arguments and environment, to the last byte, lie in one mapping that is
 * read-only; the filters refuse what could change that, and it is sealed where the kernel can do
 * that (mseal(2)). It has the same address in each version, for a filter stays over execve().
 *
 * The other ways help less. A filter cannot be lifted, so execve() cannot be forbidden to the
 * custodian but in a child: the process that is replaced has to make that call itself. execveat()
 * of a descriptor that is held would be the program of the moment at which it was opened, and no
 * upgrade; and a number of a descriptor says as little of the file as an address of the path does.
 * What remains to one that has taken over the process is to execute the file that lies at that path:
 * under the filters that it has, and which its user cannot write. With core_dumps = true a process
 * can write to /proc/self/mem, also where it is read-only, on kernels before 6.12.
 */
#ifndef POLDER_SUPERVISOR_PROGRAM_H
#define POLDER_SUPERVISOR_PROGRAM_H
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Descriptors that all versions keep free, since they stand in arguments that never change. */
#define PROGRAM_BLOCK_FD   10 /* the state block */
#define PROGRAM_PIPE_FD    11 /* of a proof: what it says */
#define PROGRAM_FILE_FD    12 /* the configuration as it was proven */
#define PROGRAM_CHANNEL_FD 13 /* to the custodian (survive/) */

enum program_run {
    PROGRAM_PROVES, /* -P: reads a copy of the block and the configuration, and says what it thinks */
    PROGRAM_RESUMES, /* -R: goes on with the block */
    /* the same in the custodian, which the process of the WebSockets may not run */
    PROGRAM_HOLDS_PROVES,   /* -p */
    PROGRAM_HOLDS,          /* -r */
    PROGRAM_FOLLOWS_PROVES, /* -s: of a process that is to follow this one (survive/restart.c) */
    PROGRAM_RUNS            /* how many */
};

/* First thing in main(): takes the descriptors, remembers the path. */
void program_begin(const char *config_path);
/* Before the filter; again in a child. False: no memory; then there are no upgrades. */
bool program_pin(void);
/* "" if it is not known. */
const char *program_path(void);
/* Is another file there than the one that runs? */
bool program_differs(void);
/* Returns only if it fails: a negative errno. */
int program_run(enum program_run how);
/* The configuration as it is now, behind PROGRAM_FILE_FD: the file is read again after the proof,
 * when it may have become wrong, and this copy has not. 0 or a negative errno. */
int program_copy_file(void);
/* PROGRAM_BLOCK_FD, PROGRAM_FILE_FD: what they held lies in no file, and would stay as long as this
 * process. */
void program_forget(void);
#endif

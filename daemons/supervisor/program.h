/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * program: what this process may replace its program with: the binary that it was started from, with
 * its own arguments and environment, and nothing else.
 *
 * execve(2) is let through by the filter of system calls for these addresses alone. Paths, arguments
 * and environment lie in one mapping that is read-only, and sealed where the kernel can do that
 * (mseal(2)); it has the same address in each version, for the filter stays over execve().
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
    /* the same in the custodian, which has no filter that says what it may run */
    PROGRAM_HOLDS_PROVES, /* -p */
    PROGRAM_HOLDS         /* -r */
};
#define PROGRAM_RUNS 2 /* in the page */

/* First thing in main(): takes the descriptors, remembers the path. */
void program_begin(const char *config_path);
/* Before the filter. False: no memory; then there are no upgrades. */
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * carry: everything that polder-supervisor owns, for the program that replaces it in this process.
 *
 * What stands in the configuration is not in the block but read again: the block names routes by
 * their patterns and servers by their addresses. What can be counted from sessions (places taken,
 * descriptors held) is counted again. Sessions whose route is not in the file any more end as in a
 * reload.
 *
 *   carry_save()     the running program, between two turns of its loop
 *   carry_check()    the next one, in a child, with a copy: is all of it understood, and sound?
 *   carry_restore()  the next one, in place; carry_restore_moved(): in a process of its own
 */
#ifndef POLDER_SUPERVISOR_CARRY_H
#define POLDER_SUPERVISOR_CARRY_H
#include "daemons/supervisor/supervisor.h"

#define CARRY_PATH_MAX 128

enum carry_to {
    CARRY_PROGRAM,  /* to the next program of this process */
    CARRY_SUCCESSOR /* to another process, which has its own listening sockets and filter */
};

/* A sealed block (CLOEXEC), or a negative errno. started_ns: when messages began to wait. */
int carry_save(struct supervisor *s, enum carry_to to, uint64_t started_ns);

/* 0; else -EPROTO and why. Nothing of the block's descriptors is touched. */
int carry_check(int fd, enum carry_to to, const struct config *config, char *why, size_t size);

struct carried {
    uint64_t started_ns; /* when messages began to wait */
    uint32_t sessions, ended;
    char version[32]; /* of the program before */
};
/* Into a supervisor that has its loop and its configuration, and neither sockets nor sessions yet.
 * fd stays open. 0; or -EPROTO and why: then nothing has begun. */
int carry_restore(struct supervisor *s, int fd, struct carried *to, char *why, size_t size);
/* The same in a process of its own, which has its listening sockets: descriptor n of the block is
 * moved[n] here, or -1. */
struct carry_moved {
    const int *moved;
    size_t n;
};
int carry_restore_moved(struct supervisor *s, int fd, const struct carry_moved *moved,
                        struct carried *to, char *why, size_t size);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* redis: a real Redis server on a UNIX socket in a directory of its own, and commands to it. */
#ifndef POLDER_TEST_REDIS_H
#define POLDER_TEST_REDIS_H
#include <stdbool.h>
#include <sys/types.h>

struct redis {
    pid_t pid; /* 0: it does not run */
    char dir[64], sock[96];
    unsigned port;   /* 0: only the socket */
    unsigned master; /* port of the one that it repeats; 0: it is a master */
    bool open;       /* to other hosts too, in a network namespace */
};
/* Starts it empty and waits until it answers. */
void redis_start(struct redis *r);
/* The same again, after redis_kill(): empty. */
void redis_run(struct redis *r);
void redis_kill(struct redis *r);
void redis_remove(struct redis *r);
/* Runs a command of words parted by spaces, which stand in quotes where they have some; the reply as text, in a static buffer. */
const char *redis_do(struct redis *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * redis: a real Redis server on a UNIX socket in a directory of its own, and commands to it.
 *
 * With POLDER_STORE=valkey in the environment it is Valkey, which `make deps-test` unpacks where Debian has
 * it; all else is the same.
 */
#ifndef POLDER_TEST_REDIS_H
#define POLDER_TEST_REDIS_H
#include <stdbool.h>
#include <sys/types.h>

struct redis {
    pid_t pid; /* 0: it does not run */
    char dir[64], sock[96];
    unsigned port;           /* 0: only the socket */
    unsigned master;         /* port of the one that it repeats; 0: it is a master */
    bool open;               /* to other hosts too, in a network namespace */
    const char *master_host; /* NULL: this one */
    /* Lines of a configuration file of its own, which Sentinel may write to: redis_run() goes on with
     * what it holds by then. NULL: it has none. */
    const char *conf;
    bool sentinel; /* it is one, and no server */
};
/* The program, and the name that it has to be called by. false: it is not there. */
bool redis_program(const char **path, const char **name);
/* Starts it empty and waits until it answers. */
void redis_start(struct redis *r);
/* The same again, after redis_kill(): empty. */
void redis_run(struct redis *r);
bool redis_answers(const struct redis *r);
void redis_kill(struct redis *r);
void redis_remove(struct redis *r);
/* Runs a command of words parted by spaces, which stand in quotes where they have some; the reply as text, in a static buffer. */
const char *redis_do(struct redis *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
#endif

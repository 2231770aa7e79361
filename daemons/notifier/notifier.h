/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * notifier: the process that passes alerts on to the program of on_alert. Private to
 * daemons/notifier.
 *
 *   main.c     the loop; the next notice, retries, and when it is given up
 *   program.c  a program: its start with as little as it needs, what it says, its end
 *   leftovers.c  what programs leave behind
 *
 * The master starts it where on_alert is set, with a copy of the program's path: no process that
 * parses network input can change which program is run. It reads notices from shared memory
 * (polder/alerts.h), takes nothing from the network, and no process waits for it. Only it and the
 * master may run programs.
 *
 * Bounds: NOTIFIER_PROGRAMS at once, NOTIFIER_STARTS a minute, PROGRAM_MS each, NOTIFIER_ATTEMPTS
 * for a notice, with growing pauses. Notices of one alert are passed on in their order. A
 * program that still runs then is killed with its process group, and what it has left behind in
 * other groups too; of what it writes to stderr the beginning goes into the log. When the notifier
 * is killed, its programs are killed with it, and the next one ends what they had begun: it knows
 * them by a variable of their environment.
 */
#ifndef POLDER_NOTIFIER_H
#define POLDER_NOTIFIER_H
#include "polder/alerts.h"
#include <stdbool.h>
#include <sys/types.h>

#define NOTIFIER_PROGRAMS 4
#define NOTIFIER_STARTS   60
#define NOTIFIER_ATTEMPTS 5
#define PROGRAM_MS        10000
#define PROGRAM_SAID      200
#define NOTIFIER_MARK     "POLDER_ON_ALERT=" /* and state_dir, which only one service has */

/* ---- program.c ---- */
struct program {
    pid_t pid;  /* 0: none */
    int err_fd; /* -1: closed */
    uint64_t kill_ms;
    size_t len;
    char said[PROGRAM_SAID + 1]; /* printable */
};
/* 0 or a negative errno. mark: "NAME=VALUE", for its environment. */
int program_start(struct program *p, const char *path, const char *mark, const char *text,
                  size_t len, uint64_t now_ms);
/* Reads some of what it says. */
void program_read(struct program *p);
void program_kill(const struct program *p);
/* It has ended: what is left of its group goes too. */
void program_end(struct program *p);

/* ---- leftovers.c ---- */
/* Our children, and what programs that have ended left to us; how many, at most max. */
size_t leftovers_children(pid_t *pid, size_t max);
/* Ends all processes that have this in their environment. */
void leftovers_end_marked(const char *mark);
#endif

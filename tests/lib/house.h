/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * house: the real daemon on ephemeral loopback ports, with directories of its own; what it writes,
 * its processes, and polderctl.
 */
#ifndef POLDER_TEST_HOUSE_H
#define POLDER_TEST_HOUSE_H
#include "wire.h"

struct house {
    pid_t pid;
    unsigned port, ops_port;
    char dir[128]; /* state, runtime, configuration and log live here */
    char conf[160], log[160];
    char sock[160]; /* admin socket */
    char clock[160];
};
/* Starts polderd with a configuration made of a standard head (listen, ops, directories, workers)
 * and `routes`, in which @PORT@-style marks are printf arguments of the caller's own making. Waits
 * for ready. */
void house_start(struct house *h, unsigned workers, const char *routes_fmt, ...)
    __attribute__((format(printf, 3, 4)));
void house_write_conf(struct house *h, unsigned workers, const char *routes);
/* Time moves on at once, for all processes of the house: what was due meanwhile is due now. Only
 * timers of event loops (looks each second or less) take their time. */
void house_advance(struct house *h, unsigned ms);
/* Called in each child that becomes a daemon; NULL: nothing is. */
void house_spawned_by(void (*in_child)(void *arg), void *arg);
/* Starts again, without a wait. */
void house_spawn(struct house *h);
void house_run(struct house *h); /* start again with what is in dir; waits for ready */
int house_stop(struct house *h); /* SIGTERM; returns the exit status */
/* SIGKILL of the master, and waits until all are gone but a supervisor that it has started: that one
 * outlives it. */
void house_kill(struct house *h);
void house_remove(struct house *h); /* stop if it runs, delete dir */
bool house_ready(struct house *h);
/* pids of children by title, e.g. "polderd: worker"; count */
size_t house_children(struct house *h, const char *title, pid_t *pids, size_t max);
bool house_logged(struct house *h, const char *text);
/* How many lines of the log have it. */
unsigned house_times_logged(const struct house *h, const char *text);
long resident_kib(pid_t pid); /* VmRSS less shared memory: RssAnon + RssFile */
/* Runs polderctl; output (stdout and stderr) in a static buffer; returns the exit status. */
int ctl(struct house *h, const char **out, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Where the built programs are: $POLDER_BUILD or "build". */
const char *built(const char *program);
/* A connection to its admin socket. */
int house_admin_connect(const struct house *h);

/* ---- other programs ---- */
/* Starts one (of that script, or NULL) that gets the port as its last argument; waits until it
 * listens there. */
pid_t peer_start(const char *program, const char *script, unsigned port);
void peer_stop(pid_t pid);
unsigned free_port(void);
#endif

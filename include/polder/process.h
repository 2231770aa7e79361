/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * process: what the master gives each process it forks, and where each one starts.
 *
 * The entry functions never return to the master's code: what they return is the exit status. Each
 * one sets its title and log name, resets signals, makes its own event loop (never inherited), and
 * calls process_ready() when it serves. Stop: SIGTERM drains (a worker finishes what it has, closes
 * idle connections, and cuts what is left at proc_slot.leave_by_ms; where the whole service stops it
 * serves on until a second SIGTERM, see proc_table.draining); SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 are ignored in
 * children, because operators send them to all processes at once and mean the master; losing the
 * master (PR_SET_PDEATHSIG) is SIGKILL, or SIGTERM of the keeper and the notifier, which the next
 * master continues if they are stopped.
 */
#ifndef POLDER_PROCESS_H
#define POLDER_PROCESS_H
#include "polder/config.h"
#include "polder/shared.h"

#define PROCESS_LISTENERS_MAX 512
#define PROCESS_DRAIN_MS      30000

struct process_listener {
    int fd;
    uint32_t worker; /* which worker of the generation accepts here (index mod workers);
                        UINT32_MAX: all of them (unix sockets) */
    const struct config_address *address; /* NULL for a socket that systemd passed */
};

struct process {
    struct shared *shared;
    struct config_region *region; /* the generation's; region->config is the tree */
    uint32_t slot;                /* in the process table, PROC_SLOT_… */
    uint32_t incarnation;
    uint32_t index;   /* worker: number within its generation, from 0 */
    uint32_t workers; /* of its generation */
    const struct process_listener *listeners;
    uint32_t n_listeners;
    int master_pid;
    int access_log;       /* worker: the access log, opened for it; -1: none */
    uint32_t log_opening; /* which opening of it that is */
    int channel;          /* worker: a socket by which the master hands it descriptors; -1: none */
};

/* What comes on the channel, each with one descriptor. */
struct process_message {
    uint32_t kind; /* enum process_message_kind */
    uint32_t number;
};
enum process_message_kind { PROCESS_ACCESS_LOG = 1 /* number: log_opening */ };
/* 0 or a negative errno; never blocks. */
int process_send(int channel, const struct process_message *message, int fd);
/* 1: got *message and *fd, which the caller owns; 0: nothing there now; -EMFILE: one came, and no
 * descriptor is left for it; or another negative errno: the channel is at its end. */
int process_receive(int channel, struct process_message *message, int *fd);

int worker_run(const struct process *process);   /* daemons/worker */
int keeper_run(const struct process *process);   /* daemons/keeper */
int control_run(const struct process *process);  /* daemons/control */
int resolver_run(const struct process *process); /* daemons/resolver */
/* daemons/notifier; program: it runs */
int notifier_run(const struct process *process, const char *program);

/* libshared/util/process.c: common first steps of a child: title, log, signals, PDEATHSIG. title:
 * the short name ("worker 3", "keeper"); "polderd: " is put in front for ps. */
void process_start(const struct process *process, const char *title);
void process_ready(const struct process *process); /* state READY, wakes the master */
/* once an iteration: stores the heartbeat */
void process_heartbeat(const struct process *process, uint64_t mono_ms);
/* Before anything else in main(): remembers where argv lies, so that titles can be set. */
void process_title_init(int argc, char **argv);
void process_title_set(const char *title);
#endif

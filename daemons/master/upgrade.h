/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * upgrade: another program takes the place of this one, in the same process. Private to
 * daemons/master.
 *
 *   program.c         which program is it, and does another one lie in its place?
 *   upgrade.c         the steps
 *   upgrade_state.c   what a program leaves to the next one, and how that reads it
 *   running_values.c  what of it commands have changed
 *   take_over.c       a start with that, and its proof
 */
#ifndef POLDER_MASTER_UPGRADE_H
#define POLDER_MASTER_UPGRADE_H
#include "daemons/master/master.h"

/* ---- program.c ---- */
/* Where the program of this process lies, as it was called. argv0 is read before anything is changed
 * there. */
void program_path(const char *argv0, char *out, size_t size);
void program_init(struct program *p, const char *path);
/* The file that lies there now; false: there is none, or it is no file. */
bool program_look(const struct program *p, struct program_id *id);
bool program_same(const struct program_id *a, const struct program_id *b);

/* ---- upgrade.c ---- */
/* Is the program on disk another one, and not one that was refused already? */
bool upgrade_is_due(const struct master *m);
/* Asks for one; the caller has counted proc->upgrade_requested. */
void upgrade_ask(struct master *m);
/* The prover's end; true if pid was it. */
bool upgrade_reaped(struct master *m, pid_t pid, int status);
void upgrade_step(struct master *m);
uint64_t upgrade_deadline(const struct master *m);
/* The service stops: gives it up. */
void upgrade_cancel(struct master *m);
/* The new program has taken over: the rest is ours. */
void upgrade_go_on(struct master *m, const char *from);
#define UPGRADE_PROVEN "proven "
#define UPGRADE_PURGES "invalidates all"

/* ---- upgrade_state.c ---- */
/* Records of the block. A number stays what it is for ever: state_block.h. */
enum state_record_type {
    STATE_SERVICE = 1, /* first */
    STATE_SHARED,      /* a segment or an event */
    STATE_GENERATION,
    STATE_CHILD,
    STATE_LISTENER,
    STATE_VALUE, /* these are of running_values.c */
    STATE_WEIGHT,
    STATE_EXEMPT,
    STATE_PENDING,
    STATE_RECORDS_END
};
/* A block of state (state_block.h) with all that the next program needs; or a negative errno. */
int upgrade_state_write(const struct master *m);
/* What the program before has left. */
struct inherited {
    struct shared_left left[SHARED_LEFT_MAX];
    size_t n_left;
    struct master_child child[PROC_SLOTS];
    uint32_t incarnation[PROC_SLOTS];
    uint64_t started_ms; /* of the service */
    uint32_t log_level, file_log_level, reload_seen;
    uint32_t upgrade_requested, upgrades_requested, upgrade_done, upgrades_ok, upgrades_failed;
    bool was_ready, drained;
    pid_t ws_pid;
    char state_dir[4096], runtime_dir[4096], user[64]; /* that no upgrade changes */
    uint32_t limit_entries;                            /* the same; 0: it is not known */
    char from[UPGRADE_VERSION];
    int text; /* of the configuration, as it was proven; empty in the proof; -1: none */
};
/* Into these two; 0, or -EPROTO with the reason in why. */
int upgrade_state_read(struct master *m, struct inherited *in, int block, char *why, size_t size);

/* ---- take_over.c ---- */
/* Instead of a start. Exit status, 0: it has taken over. */
int take_over(struct master *m, int block);
/* In a child of the program before: would it work? Says so on fd. Exit status. */
int take_over_prove(const char *config_path, int block, int fd);

/* ---- running_values.c ---- */
struct state_writer;
struct state_reader;
/* What commands have changed in the running configuration, and what the file said. */
void running_values_write(const struct master *m, struct state_writer *w);
/* Into the region, unless the file says another value now. */
void running_values_read(struct config_region *region, int block);

#endif

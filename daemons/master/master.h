/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * master: the parent of all processes of polderd, and the one context it has.
 *
 * It forks, reaps, respawns, holds the listening sockets, tells systemd, and nothing else: it
 * parses no configuration (a child does), reads no socket, opens no database. Its loop wakes on
 * signals and deadlines and then lets each part look at the state and do its next step:
 *
 *   run.c             start, loop, stop; announce.c: what is said where a program has come up
 *   privileges.c      directories, user, limits, lock
 *   check.c           checks of this machine by -t
 *   config_compile.c  the child that reads the file
 *   children.c        fork, stop, respawn; backoff.c: how long a respawn waits
 *   deaths.c          what the end of one means
 *   workers.c         those of a generation
 *   watchdog.c        does a process hang?
 *   segments.c        what was passed at the start, and what systemd keeps
 *   listeners.c       the sockets
 *   reload.c          new generations of workers
 *   generations.c     the end of old ones
 *   upgrade.c         another program in place of this one: upgrade.h
 *   ws_process.c      polder-supervisor without systemd
 *   names.c           the resolver, if a server has a name
 *   history_file.c    the child that saves the history
 *   notifier_process.c  the notifier, if on_alert is set
 *   logs.c            access logs, for the workers
 *   notify.c          systemd
 */
#ifndef POLDER_MASTER_H
#define POLDER_MASTER_H
#include "polder/process.h"
#include <stdbool.h>
#include <sys/types.h>

/* What is known of a process that shows heartbeats. */
struct watchdog {
    uint64_t shown_ms;        /* the last one that was seen */
    uint64_t cpu_ms;          /* that it had run by then */
    uint64_t ran_ms;          /* that it has run since */
    uint64_t seen_running_ms; /* while it was late */
    bool is_late;
    uint64_t stale_ms; /* the age of that heartbeat at the last look */
};

/* A process that runs code of ours in a slot of the process table. */
struct master_child {
    pid_t pid;           /* 0: none */
    int channel;         /* workers: our end of process.channel; -1: none */
    bool wanted;         /* to be forked again when it dies */
    bool aborted;        /* the watchdog has sent SIGABRT */
    bool stopping;       /* was told to exit: its end is no crash */
    bool foreign;        /* of another program, and does not share our process table: not watched */
    uint32_t region;     /* workers: their generation */
    uint32_t index;      /* workers: number within it */
    uint32_t failures;   /* in a row; decides the delay before the next fork */
    uint64_t started_ms; /* of the last fork */
    uint64_t respawn_ms; /* fork then; 0: not waiting */
    uint64_t kill_ms;    /* SIGKILL then; 0: never */
    struct watchdog watchdog;
};

enum generation_state {
    GENERATION_NONE,     /* the region is free */
    GENERATION_LOADING,  /* a child compiles the configuration into it */
    GENERATION_STARTING, /* its workers are not all ready yet */
    GENERATION_CURRENT,
    GENERATION_DRAINING, /* its workers finish what they have */
    GENERATION_ENDING,   /* they have a moment left for that, as there are too many */
};

/* A configuration region and the workers started with it. */
struct generation {
    enum generation_state state;
    uint32_t number;       /* from 1 */
    uint32_t workers;      /* how many */
    uint32_t early_deaths; /* workers that died before all were ready */
    uint64_t since_ms;     /* in this state */
    bool hurried;          /* ending: they were told to leave now */
    uint32_t cut;          /* requests, by workers that have left */
    struct process_listener listeners[PROCESS_LISTENERS_MAX];
    uint32_t n_listeners;
    int access_log; /* of its configuration; -1: none */
};

/* One listening socket. Those of one address and of SO_REUSEPORT differ in `number`. */
struct master_socket {
    int fd;
    bool from_systemd;
    bool fresh;                     /* opened by the reload under way: closed if it fails */
    uint32_t number;                /* among the sockets of its address */
    struct sockaddr_storage wanted; /* as configured, where the port may be 0 */
    struct sockaddr_storage bound;
    socklen_t len;
};
struct listeners {
    struct master_socket socket[PROCESS_LISTENERS_MAX];
    uint32_t count;
    bool from_systemd; /* then `listen` of the file is not used */
};

enum reload_phase {
    RELOAD_IDLE,
    RELOAD_REQUESTED, /* waits for a free region */
    RELOAD_COMPILING, /* a child reads the file */
    RELOAD_LOADED,    /* waits for free worker slots */
    RELOAD_STARTING,  /* the new workers are not all ready yet */
    RELOAD_SERVING,   /* committed; an old worker may still accept connections */
};
struct reload {
    enum reload_phase phase;
    bool again;         /* asked once more meanwhile */
    uint32_t begun;     /* how many have */
    uint32_t good;      /* number of the last one that succeeded, as it began; 0: none */
    uint32_t requested; /* value of proc->reload_requested when it began */
    uint32_t seen;      /* value that was looked at last */
    uint32_t region;
    pid_t compiler;
    uint64_t deadline_ms;
};

struct notify {
    uint64_t watchdog_ms; /* interval of WATCHDOG=1; 0: not wanted */
    uint64_t next_ms;
    bool ready_notified;
};

/* polder-supervisor: the one that polderd had to start itself, or one that was there. */
struct ws_process {
    pid_t pid;
    pid_t found;  /* not ours; 0: none */
    int found_fd; /* readable at its end; -1 */
    bool mine;    /* started here: stopped here */
    bool wanted;  /* to be started here where there is none */
    bool stopping;
    bool aborted; /* the watchdog has sent SIGABRT */
    uint32_t failures;
    uint64_t started_ms, next_ms, kill_ms;
    uint64_t look_ms;   /* at its heartbeat */
    uint64_t absent_ms; /* between two looks for one that is away */
    struct watchdog watchdog;
    char binary[4096];
};

/* The child that saves the history. */
struct history_file {
    pid_t pid; /* 0: none now */
    uint64_t next_ms, kill_ms;
    int error; /* of the last one; 0: it has saved */
};

/* Descriptors of an earlier run. */
#define SEGMENTS_FOUND_MAX 32
struct segments {
    struct shared_found found[SEGMENTS_FOUND_MAX];
    size_t n_found;
    bool has_store; /* systemd keeps descriptors for us */
};

/* Which file it is. */
struct program_id {
    uint64_t dev, ino, size, mtime_ns;
};
struct program {
    char path[4096];
    struct program_id running;
};

enum upgrade_phase {
    UPGRADE_IDLE,
    UPGRADE_REQUESTED, /* waits until no reload is under way */
    UPGRADE_PROVING,   /* the new program looks at all that it would get, in a child */
    /* from here on we are the new program */
    UPGRADE_KEEPER,  /* the one of the program before leaves, its successor gets ready */
    UPGRADE_CONTROL, /* the same */
    UPGRADE_WORKERS, /* a reload */
};
#define UPGRADE_VERSION 32 /* bytes of a version */
struct upgrade {
    enum upgrade_phase phase;
    uint32_t requested; /* value of proc->upgrade_requested when it began */
    uint32_t seen;      /* value that was looked at last */
    pid_t prover;
    pid_t leaving; /* UPGRADE_KEEPER, UPGRADE_CONTROL: that of the program before */
    int answer;    /* of the prover: a pipe */
    int text;      /* of the configuration, as the prover has read it; -1: none */
    struct program_id proven, refused;
    char from[UPGRADE_VERSION]; /* the program before */
    char failed[160];           /* "": what went wrong on the way */
    uint32_t reloads;           /* that had begun before workers of this program were asked for */
    uint64_t began_ms, deadline_ms;
};

enum master_phase {
    MASTER_STARTING,
    MASTER_RUNNING,
    MASTER_DRAINING, /* workers finish what was there, and go on serving */
    MASTER_ENDING,   /* they accept no more */
    MASTER_STOPPING, /* control leaves */
    MASTER_SYNCING,  /* the keeper stores what is in the rings, the history is saved */
    MASTER_LEAVING,  /* the supervisor that was started here */
    MASTER_STOPPED,
};

#define MASTER_CRASHES 8

struct master {
    const char *config_path;
    struct program program;
    struct shared shared;
    struct master_child child[PROC_SLOTS];
    struct generation generation[SHARED_REGIONS];
    uint32_t current; /* region */
    uint32_t generations;
    struct segments segments;
    struct listeners listeners;
    struct reload reload;
    struct upgrade upgrade;
    struct notify notify;
    struct ws_process ws_process;
    bool names_wanted; /* the resolver, if a server has a name */
    struct history_file history_file;
    char on_alert[4096]; /* the program that the notifier runs; "": none */
    enum master_phase phase;
    int signal_fd;
    int lock_fd;
    uint64_t now_ms;        /* of this turn of the loop */
    uint64_t lenient_ms;    /* no watchdog before: the master itself had not run */
    uint64_t hung_until_ms; /* until then there is a condition of who was aborted; 0 */
    uint64_t cut_until_ms;  /* the same of requests of earlier generations that were cut */
    uint64_t deadline_ms;   /* of this phase of a stop */
    uint64_t ready_by_ms;   /* the supervisor is waited for until then; 0: children are not ready */
    unsigned stop_signals;
    uint64_t status_notified; /* to the service manager: twice the generation, + 1 if drained */
    bool reopen_logs;
    bool broken; /* shared memory is: only a new start helps */
    uint64_t keeper_crash_ms[MASTER_CRASHES], poison_ms[MASTER_CRASHES];
    uint32_t keeper_crashes, poisons;
};

/* Exit status. */
#define EXIT_DONE   0
#define EXIT_FAILED 1
#define EXIT_CONFIG 2

/* ---- run.c ---- */
/* Until it is told to stop. block: what the program before has left; -1: it is a start. Exit
 * status. */
int master_run(const char *program, const char *config_path, int block);

/* ---- announce.c ---- */
/* Logs, and publishes, what the service has come up with. */
void master_announce(const struct master *m);

/* ---- check.c ---- */
/* Checks of this machine by -t; printed to stderr. -1: a start would fail. */
int check_machine(const struct config *config);

/* ---- privileges.c ---- */
/* Makes state_dir and runtime_dir, raises the descriptor limit, changes to config->user, takes the
 * lock of state_dir. 0, or -1 with the reason logged. */
int privileges_prepare(const struct config *config, int *lock_fd);
/* Writes into the lock file which children leave by themselves when their master has died. 0: none.
 */
void privileges_note_holders(int lock_fd, pid_t keeper, pid_t notifier);
/* Raises or clears the condition that there are fewer descriptors than config needs. */
struct condition_table;
void privileges_tell_files(struct condition_table *table, const struct config *config);
/* In a child: gives up what the master kept to bind low ports. */
void privileges_drop_all(void);
/* Lets the program that execve() puts in our place keep that, or takes it back. */
void privileges_inherit(bool inherit);
/* After execve(): what that has undone. The filter of system calls has stayed. */
void privileges_take_over(const struct config *config);

/* ---- config_compile.c ---- */
/* Forks a child that loads the configuration into region, and the addresses of names into the table
 * of servers (shared NULL: only the first). pid or -errno. */
pid_t compile_start(const struct shared *shared, struct config_region *region, const char *path,
                    uint32_t generation);
/* What its end means: 0, or -EINVAL with the reason in region->errors. */
int compile_result(struct config_region *region, int status);
/* Starts, waits, and answers; for the time before the loop. */
int compile_wait(const struct shared *shared, struct config_region *region, const char *path,
                 uint32_t generation);
#define COMPILE_TIMEOUT_MS 10000

/* ---- backoff.c ---- */
/* Milliseconds to wait before the fork after `failures` failures in a row. */
uint64_t respawn_delay_ms(uint32_t failures);

/* ---- watchdog.c ---- */
/* Of a process that begins now. */
void watchdog_begin(struct watchdog *w, uint64_t now_ms);
/* Looked at with its last heartbeat, about once a second. */
bool watchdog_hangs(struct watchdog *w, pid_t pid, uint64_t shown_ms, uint64_t allowed_ms,
                    uint64_t now_ms);
/* When it is to be looked at again, if that is earlier than usual. */
uint64_t watchdog_deadline(const struct watchdog *w, uint64_t now_ms);
/* Says that a process hangs and ends it: SIGABRT now, SIGKILL by the caller when *kill_ms has come. slot: where it is
 * counted. */
void watchdog_abort(struct master *m, uint32_t slot, const char *name, pid_t pid,
                    const struct watchdog *w, uint64_t *kill_ms);
/* Clears the condition of those that were aborted some time ago. */
void watchdog_step(struct master *m);
#if defined(__SANITIZE_ADDRESS__)
#define WATCHDOG_STALE_MS 10000 /* instrumented code is slow to come round */
#else
#define WATCHDOG_STALE_MS 3000
#endif
#define WATCHDOG_START_MS 10000 /* before it is ready: opening a large store takes its time */
#define WATCHDOG_KILL_MS  1000  /* from SIGABRT to SIGKILL */

/* ---- children.c ---- */
void children_init(struct master *m);
/* A child of the program before; the other members are what they were. */
void child_adopt(struct master *m, uint32_t slot, const struct master_child *c);
/* SIGTERM now; its successor follows. SIGKILL after grace_ms. */
void child_replace(struct master *m, uint32_t slot, uint64_t grace_ms);
/* Fork into that slot now, and again whenever it dies until child_stop(). */
void child_start(struct master *m, uint32_t slot, uint32_t region, uint32_t index);
/* SIGTERM now, SIGKILL after grace_ms; not forked again. */
void child_stop(struct master *m, uint32_t slot, uint64_t grace_ms);
/* Forks that are due, a look of the watchdog, kills that are due. */
void children_step(struct master *m);
uint64_t children_deadline(const struct master *m);
bool child_ready(const struct master *m, uint32_t slot);
const char *child_name(const struct master *m, uint32_t slot, char buf[32]);
void child_close_channel(struct master_child *c);

/* ---- deaths.c ---- */
/* The end of a child in a slot; true if pid was one. */
bool child_reaped(struct master *m, pid_t pid, int status);

/* ---- workers.c ---- */
/* Workers of a region that have a process / that are ready. */
uint32_t workers_living(const struct master *m, uint32_t region);
uint32_t workers_ready(const struct master *m, uint32_t region);
/* Workers of earlier generations that have not let go of their listening sockets. */
uint32_t workers_accepting(const struct master *m);
/* Workers that have something left of what was there when the service began to stop. */
uint32_t workers_unsettled(const struct master *m);
void workers_start(struct master *m, uint32_t region);
void workers_stop(struct master *m, uint32_t region, uint64_t grace_ms);
uint32_t workers_free_slots(const struct master *m);

/* ---- segments.c ---- */
/* Takes what was passed to this process; call once, first. Returns how many sockets there are, or a
 * negative errno with the reason logged. */
int segments_adopt(struct segments *s, int *sockets, uint32_t max);
/* The shared memory has been made: stores what is new, and gives up what was found and is not used.
 */
void segments_store(struct segments *s, const struct shared *sh);

/* ---- listeners.c ---- */
/* Sockets that systemd passed; 0 or a negative errno with the reason logged. */
int listeners_adopt(struct listeners *l, const int *fds, int n);
/* Binds what config needs and is not open yet. Message into why on failure; what was opened then is
 * closed again. */
int listeners_open(struct listeners *l, const struct config *config, char *why, size_t size);
/* Could control listen where the new configuration wants its ops pages? */
int listeners_probe_ops(const struct config *now, const struct config *then, char *why,
                        size_t size);
/* Lets the bound ones take connections, just before their workers start. */
int listeners_listen(struct listeners *l, char *why, size_t size);
/* The opened ones stay. */
void listeners_keep(struct listeners *l);
/* The ones opened by the last listeners_open() go. */
void listeners_revert(struct listeners *l);
/* Fills a generation's table. */
void listeners_assign(const struct listeners *l, const struct config *config, struct generation *g);
/* Closes sockets with addresses that config does not name. */
void listeners_prune(struct listeners *l, const struct config *config);
/* In a child: closes all but those in the table (NULL: all). */
void listeners_close_others(const struct listeners *l, const struct generation *g);
/* Closes all; unlinks UNIX sockets that were made here. */
void listeners_close(struct listeners *l);
/* "127.0.0.1:8000, [::]:8000" */
void listeners_describe(const struct listeners *l, char *out, size_t size);
/* Logs that listen of the file is not used, where that is so. */
void listeners_tell(const struct listeners *l, const struct config *config);
/* For status, and in runtime_dir/listeners for polderd -t. */
void listeners_publish(const struct master *m);

/* ---- reload.c ---- */
void reload_ask(struct master *m);
/* The compiler's end; true if pid was it. */
bool reload_reaped(struct master *m, pid_t pid, int status);
void reload_step(struct master *m);
uint64_t reload_deadline(const struct master *m);
/* The service stops: gives the reload up. */
void reload_cancel(struct master *m);

/* ---- generations.c ---- */
void generation_enter(struct master *m, uint32_t region, enum generation_state state);
/* Its workers finish what they have, for at most so long, and fewer than GENERATIONS_OLD others do
 * so still: else the oldest one ends. */
void generation_drain(struct master *m, uint32_t region, uint64_t drain_ms);
/* There is a wait for a region or for slots: the oldest one leaves now. */
void generations_hurry(struct master *m);
/* Looks which have left. True: one has, and there are no others. */
bool generations_retire(struct master *m);
#define GENERATIONS_OLD 3 /* that finish what they have */

/* ---- logs.c ---- */
void logs_init(struct master *m); /* before any generation has one */
/* Opens what the region's configuration names; message into why on failure. */
int logs_open(struct master *m, uint32_t region, char *why, size_t size);
void logs_close(struct master *m, uint32_t region);
/* Opens all of them again and hands them to their workers; control, which is woken, tells the
 * supervisor to do the same. */
void logs_reopen(struct master *m);

/* ---- names.c ---- */
void names_again(struct master *m); /* a configuration has been loaded, or could not be */
void names_stop(struct master *m);  /* another child writes addresses now, or none any more */
void names_step(struct master *m);

/* ---- history_file.c ---- */
void history_file_save(struct master *m); /* now */
void history_file_step(struct master *m);
bool history_file_reaped(struct master *m, pid_t pid, int status);
uint64_t history_file_deadline(const struct master *m);

/* ---- notifier_process.c ---- */
void notifier_process_step(struct master *m);
void notifier_process_stop(struct master *m, bool now);

/* ---- notify.c ---- */
void notify_init(struct notify *n);
void notify_ready(struct master *m);
void notify_reloading(void);
void notify_stopping(void);
void notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void notify_step(struct master *m);
void notify_alive(struct master *m); /* now: what follows may take its time */

/* ---- ws_process.c ---- */
void ws_process_init(struct master *m);
/* The one that the program before had started; 0: none. */
void ws_process_take_over(struct master *m, pid_t pid);
void ws_process_step(struct master *m);
void ws_process_reload(struct master *m);
bool ws_process_reaped(struct master *m, pid_t pid, int status);
void ws_process_stop(struct master *m, uint64_t grace_ms);
uint64_t ws_process_deadline(const struct master *m);

static inline const struct config *master_config(const struct master *m)
{
    return m->shared.region[m->current]->config;
}
/* A reload waits from the proof of the new program until it has a keeper and a control of its own. */
static inline bool upgrade_holds_reload(const struct master *m)
{
    return m->upgrade.phase >= UPGRADE_PROVING && m->upgrade.phase <= UPGRADE_CONTROL;
}
static inline struct proc_slot *shared_slot(const struct master *m, uint32_t slot)
{
    return &m->shared.proc->slot[slot];
}
static inline bool slot_is_worker(uint32_t slot)
{
    return slot >= PROC_SLOT_WORKER0;
}
static inline uint64_t earlier(uint64_t a, uint64_t b)
{
    return b && b < a ? b : a; /* 0: never */
}
#endif

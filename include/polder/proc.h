/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * proc: the table of processes, in shared memory.
 *
 * A slot belongs to a role, not to a process: a respawn takes the slot of its predecessor with a
 * higher incarnation. The master writes pid, incarnation, state (but READY, which the process
 * itself stores); the process writes its heartbeat and gauges. A process may die at any instant:
 * the master resets what was its own when it reaps it.
 */
#ifndef POLDER_PROC_H
#define POLDER_PROC_H
#include "polder/shm.h"
#include "polder/verify.h"

#define PROC_WORKERS_MAX  64  /* workers of one generation */
#define PROC_WORKER_SLOTS 128 /* two generations live side by side during a reload */

enum proc_slot_index {
    PROC_SLOT_MASTER,
    PROC_SLOT_KEEPER,
    PROC_SLOT_CONTROL,
    PROC_SLOT_SUPERVISOR, /* statistics of a supervisor that polderd started itself */
    PROC_SLOT_NOTIFIER,   /* only if on_alert is set */
    PROC_SLOT_RESOLVER,   /* only if a server is given by name */
    PROC_SLOT_WORKER0,
    PROC_SLOTS = PROC_SLOT_WORKER0 + PROC_WORKER_SLOTS
};

#define PROC_LAYOUT 6 /* of the table, beside its size */

#define PROC_NO_LOG UINT32_MAX /* proc_slot.log_opening of a worker without an access log */

/* The whole service stops. */
enum proc_draining {
    PROC_DRAINING_NOT,
    PROC_DRAINING_SERVES, /* workers finish what they have, and go on serving */
    PROC_DRAINING_ENDS    /* they accept no more, and leave */
};

enum proc_state { PROC_FREE, PROC_STARTING, PROC_READY, PROC_DRAINING, PROC_DEAD };

struct proc_slot {
    _Alignas(128) _Atomic uint32_t pid; /* master; 0: free */
    _Atomic uint32_t incarnation;       /* master; +1 for each fork into this slot, never 0 */
    _Atomic uint32_t state;             /* enum proc_state */
    _Atomic uint32_t generation;        /* master: which configuration generation it serves */
    _Atomic uint64_t heartbeat_ms; /* process: mono, each loop iteration, at least each second */
    _Atomic uint64_t started_ms;   /* master, mono ms */
    _Atomic uint32_t connections;  /* process: open client connections */
    _Atomic uint32_t poison;       /* process: died of SIGBUS/SIGSEGV inside the cache map, that of
                                     cache_poison_of() */
    _Atomic uint32_t crashes;      /* master: unexpected deaths in this slot */
    _Atomic uint32_t index;        /* master: worker number within its generation */
    _Atomic uint32_t holding;      /* worker: 1 while it holds long polls */
    _Atomic uint32_t log_opening;  /* worker: proc_table.log_opening of the log it writes to */
    /* keeper, control: the generation whose region they use, stored when they have let go of the
     * one before; 0 after a start until then. A successor begins with the current one. */
    _Atomic uint32_t followed;
    _Atomic uint32_t hung; /* master: how often the watchdog has ended it */
    /* worker: 1 when it has let go of its listening sockets; master: 0 before it forks one */
    _Atomic uint32_t accepts_no_more;
    _Atomic uint32_t cut; /* worker: requests that it did not answer, or not whole, when it left */
    /* master, before it sends SIGTERM: mono ms; a worker cuts then what it has not finished. Sent
     * again with an earlier one where it shall not take so long. */
    _Atomic uint64_t leave_by_ms;
    /* worker: 1 when nothing is left of what was there when the service began to stop */
    _Atomic uint32_t settled;
    uint32_t pad1_;
    uint64_t pad_[3];
};
_Static_assert(sizeof(struct proc_slot) == 128, "one pair of cache lines a slot");

enum proc_reload_state {
    PROC_RELOAD_IDLE,
    PROC_RELOAD_RUNNING,
    PROC_RELOAD_OK,
    PROC_RELOAD_FAILED,
    PROC_RELOAD_UPGRADES /* the program on disk is another one: an upgrade was begun instead */
};

enum proc_upgrade_state {
    PROC_UPGRADE_NONE,
    PROC_UPGRADE_RUNNING,
    PROC_UPGRADE_OK,
    PROC_UPGRADE_FAILED,
    PROC_UPGRADE_WORKERS /* it runs, and all but the workers are the new program's */
};

struct proc_table {
    struct shm_header header;
    /* Which of the SHARED_REGIONS configuration regions is current. Master writes (release),
     * keeper and control follow it; a worker keeps the region it was born with. */
    _Alignas(64) _Atomic uint32_t region;
    _Atomic uint32_t generation; /* of the current configuration, from 1 */
    _Atomic uint64_t started_ms; /* mono ms of the master's start */
    /* enum proc_draining. Master: before it sends SIGTERM to the workers */
    _Atomic uint32_t draining;
    /* control: 1 while drained by an operator: readyz says so, and connections end with their next
     * answer. Reset when the master restarts. */
    _Atomic uint32_t drained;
    _Atomic uint32_t reload_state;     /* enum proc_reload_state of the last reload */
    _Atomic uint32_t reload_requested; /* control adds 1 and wakes the master */
    _Atomic uint32_t reload_done; /* master: the value of reload_requested that it has finished */
    /* control: 1 once all workers, the keeper and, where a route has WebSockets, the supervisor
     * have been ready at once; survives deaths of control. */
    _Atomic uint32_t was_ready;
    /* enum log_level of all processes: the file's at start and reload, then what control stores */
    _Atomic uint32_t log_level;
    /* Logs opened again: control adds 1 to log_reopen_requested and wakes the master, which opens
     * them, adds 1 to log_opening, passes the descriptors to the workers, and stores the request's
     * number in log_reopen_done; log_reopen_error is 0 or the errno of the opening. */
    _Atomic uint32_t log_reopen_requested, log_reopen_done, log_opening;
    _Atomic int32_t log_reopen_error;
    /* master: generations that were ended before they had finished, and what that has cut */
    _Atomic uint64_t generations_ended, requests_cut;
    /* The program is replaced (daemons/master/upgrade.c): control adds 1 to upgrade_requested and
     * wakes the master, which does the same itself where a reload or a signal asks for one. It stores
     * the value that it has finished in upgrade_done, after state and message. */
    _Atomic uint32_t upgrade_requested, upgrade_done;
    _Atomic uint32_t upgrade_state; /* enum proc_upgrade_state of the last one */
    _Atomic uint32_t upgrades_ok, upgrades_failed;
    char upgrade_message[1024]; /* why the last one failed, or from what to what */
    struct verify_lease verify; /* control */
    /* master, before it forks: the unit of systemd that it runs as, or "" */
    char unit[80];
    uint32_t sockets_from_systemd; /* 1: `listen` of the file is not used */
    char listeners[1024];          /* "127.0.0.1:8000, [::]:8000"; rewritten by a reload */
    char reload_message[4096]; /* errors of the last failed reload; valid when reload_done moved */
    _Alignas(128) struct proc_slot slot[PROC_SLOTS];
};

const char *proc_slot_name(unsigned slot); /* "keeper", "worker" */
const char *proc_state_name(enum proc_state state);
#endif

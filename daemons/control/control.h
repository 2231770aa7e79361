/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control: the process that operators and monitoring talk to. Private to daemons/control.
 *
 *   main.c       first steps, loop, last steps; follows the configuration
 *   dispatch.c   which method answers a call, and the log of changes
 *   methods/     answer the calls of admin.sock, a noun a file: methods.h
 *   ops/         pages over HTTP: ops.h
 *   model/       state and decisions shared by methods and pages; see each header
 *                  health        conditions that control sees, and whether the service is ready
 *                  limits        running limits, changes to be confirmed, candidates
 *                  servers       weights and conditions of backends
 *                  checks        active checks of backends; check: one of them
 *                  outliers      backends that fail more often than the others of their group
 *                  shift         moves traffic between them in steps; its guard
 *                  stickiness    keys with too many requests
 *                  settings      what a reload does to what was changed at run time
 *                  cache_names   names of stored objects as operators write them
 *                  invalidation  ends stored objects
 *                  quarantine    acts on findings of the leak guard
 *                  fleet_member  this host in a fleet: fleet (log, lease, others), fleet_store (the link),
 *                                fleet_entry (bytes of the log), fleet_limits (what it takes of limits)
 *                  traffic       sums that several show
 *                  events        what has happened, for live views
 *                  windows       what was counted in the last five minutes, hour and day
 *                  alerts        rules that hold, and how they are shown
 *                  history       samples of the last 24 hours: snapshot and interval, usage
 *                  route_use     when a route was asked for last
 *                  verification  the token of polderctl verify
 *                  savings       what calls have cost and what was saved; cost: its arithmetic
 *                  shares        that by tenant
 *   call.c       helpers to answer calls; passes calls on to other processes
 *   peers.c      the processes that control talks to
 *   regions.c    configurations that are served, and changes in all of them
 *   admin_socket.c
 *
 * Each line uses those below it alone (tests/layering.sh); methods and ops know nothing of each
 * other. What follows the clock or an event from the master is called by main.c and named
 * x_follow().
 *
 * A further method is a row in libshared/tables/methods.def, one in dispatch.c, and a function in
 * methods/; a further page is a row in ops/pages.c and a function beside it.
 *
 * It never touches the disk of the cache, so an invalidation is acknowledged even while the keeper
 * hangs on it. It may be killed at any instant: what it changes is changed by single stores or, in
 * runtime.mp, by a rename; all else is made again from shared memory.
 */
#ifndef POLDER_CONTROL_H
#define POLDER_CONTROL_H
#include "daemons/control/model/cost.h"
#include "daemons/control/model/health.h"
#include "daemons/control/model/savings.h"
#include "daemons/control/peers.h"
#include "polder/process.h"
#include "polder/runtime.h"
#include "polder/stats.h"
#include <ev.h>
#include <stdbool.h>
#include <sys/queue.h>

struct alerts;
struct call_wait;
struct checks;
struct outliers;
LIST_HEAD(call_waits, call_wait);
struct events;
struct fleet_member;
struct live;
struct route_use;
struct windows;
struct history;
struct settings_report;

/* What all of it sees. */
struct control {
    const struct process *process;
    struct shared *shared;
    struct stats_slab *stats;

    struct ev_loop *loop;
    uint32_t region; /* followed; UINT32_MAX: none yet */
    const struct config *config;
    const struct runtime_page *runtime;

    struct peers peers;
    struct call_waits reloads;      /* callers of reload */
    struct settings_report *report; /* of the last one; NULL: none yet */
    struct {
        struct call_waits waits; /* callers of log reopen */
        uint32_t opening;        /* proc_table.log_opening that was looked at */
        bool supervisor_there, supervisor_requested, supervisor_failed;
    } reopen;
    struct fleet_member *fleet; /* NULL: this host is in none */
    struct events *events;      /* NULL: no memory for it */
    struct history *history;
    struct alerts *alerts;
    struct growth limiter[3];
    struct cost_past cost_past; /* the last hour */
    struct savings_day savings_day;
    bool cost_requested;       /* for a sample of it, and not answered yet */
    struct checks *checks;     /* NULL: no memory for it */
    struct outliers *outliers; /* the same */
    struct route_use *route_use;
    struct windows *windows; /* the last five minutes, hour and day */
    struct live *live;       /* streams of them; of ops/ */
    uint64_t sticky_due_ms;  /* model/stickiness; 0: not begun */
    bool ws_changed;         /* by ws set without --persist, since the last reload */
};

#endif

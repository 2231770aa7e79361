/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * control: the process that operators and monitoring talk to. Private to daemons/control.
 *
 *   main.c     first steps, loop, last steps; follows the configuration
 *   admin.c    the admin socket: who calls what; logs changes; passes on to keeper and supervisor
 *   methods_*  answer the calls, a noun a file
 *   ops/       pages over HTTP: health, metrics, telemetry
 *   model/     what is found out and decided, for methods and pages alike
 *   servers.c  conditions of backends
 *   peers.c    the processes that control asks and tells
 *
 * It never touches the disk of the cache, so an invalidation is acknowledged even while the keeper
 * hangs on it. It may be killed at any instant: what it changes is changed by single stores or, in
 * runtime.mp, by a rename; all else is made again from shared memory.
 */
#ifndef POLDER_CONTROL_H
#define POLDER_CONTROL_H
#include "daemons/control/model/health.h"
#include "daemons/control/peers.h"
#include "daemons/rpc/server.h"
#include "polder/field.h"
#include "polder/process.h"
#include "polder/runtime.h"
#include "polder/settings.h"
#include "polder/stats.h"
#include <ev.h>
#include <stdbool.h>

struct config_limit;
struct config_route;
struct reload_wait;
struct reopen_wait;
struct reload_report;

struct control {
    const struct process *process;
    struct shared *shared;
    struct stats_slab *stats;

    struct ev_loop *loop;

    uint32_t region; /* followed; UINT32_MAX: none yet */
    const struct config *config;
    const struct runtime_page *runtime;

    struct rpc_server *admin;          /* NULL: could not be opened yet; tried again each second */
    const struct config *admin_config; /* whose mode and group it has */
    char admin_complaint[256];
    struct peers peers;
    struct reload_wait *reloads;  /* callers that wait for it */
    struct reload_report *report; /* of the last one; NULL: none yet */
    struct {
        struct reopen_wait *waits; /* callers of log reopen */
        uint32_t opening;          /* proc_table.log_opening that was looked at */
        bool supervisor_there, supervisor_asked, supervisor_failed;
    } reopen;
    struct growth limiter[3];
    bool ws_changed; /* by ws set without --persist, since the last reload */
};

/* ---- admin.c ---- */
void admin_follow(struct control *c); /* opens the socket, or gives it the mode and group of now */
void admin_close(struct control *c);
void admin_error(struct control *c, struct rpc_reply *reply, enum rpc_error code,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Lets another process answer. params: taken. */
void admin_forward(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                   const char *method, struct rpc_out *params);
/* The same for what takes longer than PEERS_ANSWER_MS. */
void admin_forward_for(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                       const char *method, struct rpc_out *params, unsigned timeout_ms);
/* One line of what a caller asked for, without secrets; for the log. */
void admin_describe(enum rpc_method method, const msgpack_object *params, char *out, size_t size);

/* ---- methods_*.c: each answers the call ---- */
void status_show(struct control *c, const struct rpc_call *call);
void reload_run(struct control *c, const struct rpc_call *call);
void reload_watch(struct control *c); /* answers those whose reload is over */
void log_level_run(struct control *c, const struct rpc_call *call);
void log_reopen_run(struct control *c, const struct rpc_call *call);
void logs_follow(struct control *c); /* after the logs were opened again */
/* c has just begun to follow a new configuration: what becomes of what was changed under the old.
 */
void reload_report(struct control *c, const struct config *old, const struct runtime_page *page);
void drain_run(struct control *c, const struct rpc_call *call);
void stop_run(struct control *c, const struct rpc_call *call);
void cache_stats(struct control *c, const struct rpc_call *call);
void cache_list(struct control *c, const struct rpc_call *call);
void cache_show(struct control *c, const struct rpc_call *call);
void cache_why(struct control *c, const struct rpc_call *call);
void cache_invalidate(struct control *c, const struct rpc_call *call);
void cache_warm(struct control *c, const struct rpc_call *call);
void cache_set(struct control *c, const struct rpc_call *call);
/* What a call wants a limit to be: its values, and whom it exempts; exempts false: whom the file
 * says. Says nothing of any region: value.exempt counts only where it was read. */
struct limit_wish {
    struct runtime_limit value;
    bool exempts;
    struct exempt exempt;
};
/* The limit that the call names, or NULL and the call is answered. */
const struct config_limit *limit_named(struct control *c, const struct rpc_call *call);
void limit_put_values(struct rpc_out *o, const struct runtime_limit *value);
/* list NULL: whom the file exempts, or the first of them. */
void limit_put_exempt(struct rpc_out *o, const struct config_limit *l, const struct exempt *list);
/* The candidate that is charged beside the limit now, if there is one. */
void limit_put_try(const struct control *c, struct rpc_out *o, const struct config_limit *l);
/* Changes what the call's "set" says. False: the call is answered. */
bool limit_read_wish(struct control *c, const struct rpc_call *call, struct limit_wish *wish);
void cache_revert(struct control *c, const struct rpc_call *call);
void ws_set(struct control *c, const struct rpc_call *call);
void ws_revert(struct control *c, const struct rpc_call *call);
void upstream_revert(struct control *c, const struct rpc_call *call);

/* ---- methods_settings.c: false: it failed, and the call is answered ---- */
bool settings_keep(struct control *c, const struct rpc_call *call, const struct setting *setting,
                   size_t n);
bool settings_drop(struct control *c, const struct rpc_call *call, const char *section,
                   const char *key);
bool settings_has(const struct control *c, const char *section, const char *key);

void cache_guard(struct control *c, const struct rpc_call *call);
void limit_list(struct control *c, const struct rpc_call *call);
void limit_show(struct control *c, const struct rpc_call *call);
void limit_top(struct control *c, const struct rpc_call *call);
void poll_top(struct control *c, const struct rpc_call *call);
void limit_confirm(struct control *c, const struct rpc_call *call);
void limit_trials_end(struct control *c); /* each second: those that were not confirmed in time */
void limit_set(struct control *c, const struct rpc_call *call);
void limit_revert(struct control *c, const struct rpc_call *call);
void limit_reset(struct control *c, const struct rpc_call *call);
void limit_publish_again(const struct control *c); /* the same values, as a new generation */
void limit_try(struct control *c, const struct rpc_call *call);
void limit_tries_end(struct control *c); /* each second: those whose time is over */
void upstream_list(struct control *c, const struct rpc_call *call);
void upstream_weight(struct control *c, const struct rpc_call *call);

/* Ends what is stored below a path, on all hosts; where that cannot be said so, everything. */
void cache_forget_prefix(struct control *c, const char *path);

/* ---- methods_guard.c ---- */
/* Each second, and when a worker has quarantined a route: says so once, ends what is stored of it,
 * and releases routes whose partition now holds what the content differs by. */
void guard_follow(struct control *c);
/* What cache why says of a quarantined route, in a static buffer; NULL: it is none. */
const char *guard_why(const struct control *c, const struct config_route *route);
/* The quarantined routes as texts. */
void guard_put_quarantined(const struct control *c, struct rpc_out *o, const char *key);

/* ---- servers.c ---- */
void servers_look(struct control *c); /* each second */

/* ---- main.c ---- */
/* The configurations that some process serves with: what changes at run time changes in all. */
size_t control_live_regions(const struct control *c, struct config_region *out[SHARED_REGIONS]);

#endif

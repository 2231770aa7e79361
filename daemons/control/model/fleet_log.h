/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_log: follows the log of the store and marks what other hosts wrote there. It writes `epoch` and
 * `applied` of the page, and its marks.
 */
#ifndef POLDER_CONTROL_FLEET_LOG_H
#define POLDER_CONTROL_FLEET_LOG_H
#include "daemons/control/model/fleet_base.h"

struct fleet_log_ops {
    /* moved: there were entries; waited: callers wait on other hosts until they are known to be
     * applied here. */
    void (*read)(void *arg, bool moved, bool waited);
    void (*forgot)(void *arg); /* what is applied goes on elsewhere */
};

struct fleet_log {
    const struct fleet_base *base;
    const struct fleet_log_ops *ops;
    void *arg;
    bool following;
    bool waited;
    struct fleet_pacer pacer;
    ev_timer pause;     /* before what comes next is asked for */
    char log_id[48];    /* the last entry that was read; "": the one that was applied last */
    char stored_id[48]; /* the last entry that was read of the stream of shared objects */
    uint64_t received, strange, gaps;
};

void fleet_log_init(struct fleet_log *l, const struct fleet_base *base,
                    const struct fleet_log_ops *ops, void *arg);
/* There is a new link: the stream of shared objects is followed from its end on. */
void fleet_log_begin(struct fleet_log *l);
/* Asks for what comes after what is applied, if that is not under way. */
void fleet_log_follow(struct fleet_log *l);
/* The link is down. */
void fleet_log_stop(struct fleet_log *l);
/* What was remembered of the log is worth nothing: everything is invalidated, and it is followed from
 * there on. Entries up to `remembered` were there before: they are marked for what other hosts have
 * shared. */
void fleet_log_forget(struct fleet_log *l, uint64_t epoch, uint64_t applied, uint64_t remembered,
                      const char *why);
/* Something in the store is not this fleet's. */
void fleet_log_note_strange(struct fleet_log *l, const char *what);
#endif

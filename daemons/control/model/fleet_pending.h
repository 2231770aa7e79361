/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_pending: entries that no other host is known to have, until they are in the store's log. It
 * writes `unsent` of the page, so that a control that dies is followed by one that tells everything.
 */
#ifndef POLDER_CONTROL_FLEET_PENDING_H
#define POLDER_CONTROL_FLEET_PENDING_H
#include "daemons/control/model/fleet_base.h"
#include "daemons/control/model/fleet_waiters.h"

#define FLEET_PENDING_MAX 2048
#define FLEET_SENT_MAX    64 /* batches that may be on their way back */

struct fleet_pending_entry;
struct fleet_pending {
    const struct fleet_base *base;
    /* The log ends with `last`, which is of what was sent. */
    void (*logged)(void *arg, uint64_t last);
    void *arg;
    STAILQ_HEAD(, fleet_pending_entry) list;
    uint32_t n, n_sending; /* the first ones are under way */
    size_t bytes;
    bool all;           /* more than is remembered: everything */
    bool sending_all;   /* that is under way, and none of the list */
    uint64_t sent;      /* in all */
    uint64_t logged_ms; /* mono, of the last batch that the log has taken */
    /* In the log, and not read back from it yet: up to which number, and before which marks here. */
    struct fleet_sent {
        uint64_t last, before;
    } sent_at[FLEET_SENT_MAX];
    uint32_t n_sent;
    struct fleet_pacer pacer;
    ev_timer pause; /* before what is there is sent */
};

void fleet_pending_init(struct fleet_pending *p, const struct fleet_base *base,
                        void (*logged)(void *arg, uint64_t last), void *arg);
void fleet_pending_free(struct fleet_pending *p);
/* Arguments as of fleet_tell(); waiter NULL: no caller waits. */
void fleet_pending_add(struct fleet_pending *p, const struct fleet_entry *e,
                       struct fleet_waiter *waiter);
/* Sends what is there unless some is under way; what follows it is sent when that is in the log. */
void fleet_pending_send(struct fleet_pending *p);
/* The link is down: what was under way is sent again, and nothing of it is waited for. */
void fleet_pending_lose(struct fleet_pending *p);
/* Another history of the store is entered, which began then (mono), or a little later: what the log before
 * has taken since hosts of this one have not heard. */
void fleet_pending_compare(struct fleet_pending *p, uint64_t began_ms);
/* The log is another one. */
void fleet_pending_forget_sent(struct fleet_pending *p);
bool fleet_pending_is_empty(const struct fleet_pending *p);
/* For display. */
uint32_t fleet_pending_count(const struct fleet_pending *p);
/* The number of inval.h before all marks of this host that have not been read back from the log, at most
 * `now`. False: that is not known. */
bool fleet_pending_before(const struct fleet_pending *p, uint64_t now, uint64_t *before);
#endif

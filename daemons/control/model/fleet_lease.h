/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_lease: the lease of this host in the store, which tells the others that it follows the log and
 * how far it is, and what it is told of them. It writes `until_ms` and `since_ms` of the page.
 */
#ifndef POLDER_CONTROL_FLEET_LEASE_H
#define POLDER_CONTROL_FLEET_LEASE_H
#include "daemons/control/model/fleet_base.h"
#include "daemons/control/model/fleet_hosts.h"
#include "daemons/control/model/fleet_waiters.h"

/* Another host, or this one; for display. */
struct fleet_host {
    char name[FLEET_HOST_SIZE];
    bool self, alive;
    bool foreign;     /* not signed with this fleet's secret */
    uint64_t applied; /* number of the log */
    uint64_t late_ms; /* for how long an entry is known that it has not; fleet_watch.h */
    int64_t lease_ms; /* left; negative: ran out so long ago */
    uint32_t format, entry, object;
    char program[FLEET_PROGRAM_SIZE]; /* "": it does not say */
};

struct fleet_lease_ops {
    /* The store refuses the lease: {WORD, more...}; true if that was one of its reasons. */
    bool (*refused)(void *arg, const redisReply *r);
    /* The log has the number `count`, and not what comes after what is applied here. */
    void (*missing)(void *arg, uint64_t count);
    /* The store's list of hosts has what is not this fleet's. */
    void (*strange)(void *arg, const char *what);
};

struct fleet_lease {
    const struct fleet_base *base;
    const struct fleet_lease_ops *ops;
    void *arg;
    struct fleet_waiters *waiters;
    char why[320]; /* it is cut off */
    bool connected_before;
    uint64_t sent_ms, renewed_ms; /* the renewal under way; 0: none. The last one */
    uint64_t store_now_ms;        /* the store's clock with that */
    uint64_t hold_ms;             /* no waiter is answered before; mono */
    bool elsewhere;
    uint64_t last;                   /* number of the log's last entry, as far as is known */
    uint64_t goal;                   /* to be applied before the lease holds */
    uint64_t sent_seq, sent_applied; /* of the renewal under way */
    struct fleet_hosts hosts;
};

void fleet_lease_init(struct fleet_lease *l, const struct fleet_base *base,
                      struct fleet_waiters *waiters, const struct fleet_lease_ops *ops, void *arg);
/* What this host says of itself behind the lease, in a renewal that is sent now. */
void fleet_lease_tail(struct fleet_lease *l, uint64_t epoch, uint64_t applied,
                      char out[FLEET_TAIL_SIZE]);
/* The log has an entry with that number. */
void fleet_lease_note_last(struct fleet_lease *l, uint64_t last);
/* The history of the store that is entered ends with that number. */
void fleet_lease_begin(struct fleet_lease *l, uint64_t last);
/* Renews it, which shows the others what is applied here, and shows what they have. False: a renewal
 * is under way, or the link is down. */
bool fleet_lease_renew(struct fleet_lease *l);
/* Hosts that are not known here may have a lease until then: invalidations wait for it. elsewhere: some may
 * have followed another server when the epoch began, until a host that reaches both has fenced that, which
 * takes less than a lease. */
void fleet_lease_hold(struct fleet_lease *l, uint64_t until_ms, bool elsewhere);
/* A member has applied more: the lease holds from when it was asked for, once all is applied that was
 * there before it. */
void fleet_lease_look(struct fleet_lease *l);
/* It is over if the store has not renewed it in time. */
void fleet_lease_check(struct fleet_lease *l);
/* It was over before it was renewed, as after a machine was suspended. */
bool fleet_lease_has_lapsed(const struct fleet_lease *l);
void fleet_lease_end(struct fleet_lease *l, const char *why);
/* The store's clock, or a little more. */
uint64_t fleet_lease_store_now_ms(const struct fleet_lease *l);
void fleet_lease_host(const struct fleet_lease *l, uint32_t i, struct fleet_host *out);
#endif

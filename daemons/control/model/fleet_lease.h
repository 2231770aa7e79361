/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_lease: the lease of this host in the store, which tells the others that it follows the log and
 * how far it is, and what it is told of them. It writes `until_ms` and `since_ms` of the page.
 */
#ifndef POLDER_CONTROL_FLEET_LEASE_H
#define POLDER_CONTROL_FLEET_LEASE_H
#include "daemons/control/model/fleet_base.h"
#include "daemons/control/model/fleet_waiters.h"

#define FLEET_HOSTS_MAX 64

/* Another host, or this one; for display. */
struct fleet_host {
    char name[FLEET_HOST_SIZE];
    bool self, alive;
    uint64_t applied; /* number of the log */
    uint64_t late_ms; /* for how long an entry is known that it has not; fleet_watch.h */
    int64_t lease_ms; /* left; negative: ran out so long ago */
};

struct fleet_lease {
    const struct fleet_base *base;
    struct fleet_waiters *waiters;
    char why[320]; /* it is cut off */
    bool connected_before;
    uint64_t sent_ms, renewed_ms; /* the renewal under way; 0: none. The last one */
    uint64_t store_now_ms;        /* the store's clock with that */
    uint64_t hold_ms;             /* no waiter is answered before; mono */
    bool elsewhere;
    uint64_t last; /* number of the log's last entry, as far as is known */
    uint64_t goal; /* to be applied before the lease holds */
    uint32_t n_hosts;
    struct fleet_lease_host {
        char name[FLEET_HOST_SIZE];
        uint64_t instance, epoch, applied, until_ms;
    } host[FLEET_HOSTS_MAX];
};

void fleet_lease_init(struct fleet_lease *l, const struct fleet_base *base,
                      struct fleet_waiters *waiters);
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

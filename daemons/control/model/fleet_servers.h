/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_servers: what each server of a fleet's list says of itself, queried all the time where there are
 * several. After a fail-over the old master may live on, and some hosts may reach only that one: what
 * is invalidated on one master is not heard on the other.
 *
 * Of two masters all hosts prefer the one that hosts follow (its epoch is of its own run), of two such
 * the one whose epoch began later, else the first in the list. So a fleet stays where it is for as long
 * as that is a master. One that lacks the replicas without which it takes no writes gives no leases: it is as
 * one that no hosts follow.
 *
 * A host that follows the better one fences the other: it takes its epoch away, so that every host that
 * follows it loses its lease, and forbids a new one for as long as a lease. That is renewed while both are
 * masters. So hosts follow different masters only as long as no host of the better one reaches the other.
 */
#ifndef POLDER_CONTROL_FLEET_SERVERS_H
#define POLDER_CONTROL_FLEET_SERVERS_H
#include "daemons/control/model/fleet_base.h"
#include "daemons/control/model/store_link.h"

enum fleet_role {
    FLEET_ROLE_UNKNOWN,
    FLEET_ROLE_UNREACHABLE,
    FLEET_ROLE_REPLICA,
    FLEET_ROLE_MASTER
};

#define FLEET_ID_SIZE 41
struct fleet_servers;
struct fleet_server {
    struct fleet_servers *all;
    const struct config_store *config;
    struct store_link link;
    bool pending; /* has not answered in this round */
    enum fleet_role role;
    char why[160]; /* unreachable */
    char run_id[FLEET_ID_SIZE];
    char epoch[24];     /* as it stands there; "": none */
    bool adopted;       /* that is of this run, and it takes writes: hosts follow it */
    bool needs_replica; /* it takes no writes where it hears of none (min-replicas-to-write)... */
    bool lacks_replica; /* ...and it does not */
    uint64_t fenced_ms; /* the last time; 0: never */
    uint64_t hold_ms;   /* until then hosts may live there that are not waited for */
};

struct fleet_servers_ops {
    /* A round is over: each server has answered, or cannot be reached. */
    void (*looked)(void *arg, uint64_t round);
};
struct fleet_servers {
    const struct fleet_base *base;
    struct ev_loop *loop;
    const struct fleet_servers_ops *ops;
    void *arg;
    ev_timer timer;
    uint64_t round;
    bool again; /* another one as soon as this one is over */
    uint32_t n; /* 0: there is only one server, and nothing to compare */
    struct fleet_server at[CONFIG_STORES_MAX];
};

void fleet_servers_init(struct fleet_servers *s, struct ev_loop *loop,
                        const struct fleet_base *base, const struct fleet_servers_ops *ops,
                        void *arg);
void fleet_servers_free(struct fleet_servers *s);
/* The number of the first round that begins from now on; it begins soon. */
uint64_t fleet_servers_look(struct fleet_servers *s);
/* The master to follow instead of that server, as of the last round; -1: none. */
int fleet_servers_better(const struct fleet_servers *s, uint32_t at);
/* Another server that is a master, too; -1: none. */
int fleet_servers_rival(const struct fleet_servers *s, uint32_t at);
/* No other server is a master, nor may be one unseen. */
bool fleet_servers_are_replicas(const struct fleet_servers *s, uint32_t at);
/* This host has a lease there: fences all other masters. */
void fleet_servers_fence(struct fleet_servers *s, uint32_t at);
/* Until then (mono) hosts may have a lease of another master. */
uint64_t fleet_servers_hold_ms(const struct fleet_servers *s);
/* It takes no writes without a replica. */
bool fleet_servers_needs_replica(const struct fleet_servers *s, uint32_t at);
/* Why it cannot be reached; or that it may be a master on one side of a network that is split, where three
 * servers could do without. "": neither. */
const char *fleet_servers_why(const struct fleet_servers *s, uint32_t at);
/* "unknown", "unreachable", "replica", "master"; "fenced": a master that this host has fenced. */
const char *fleet_servers_state(const struct fleet_servers *s, uint32_t at);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_hosts: the hosts of the fleet, by the store's list and by what was seen there before.
 *
 * The list is anybody's who can write to the store. So only what is signed with the fleet's secret counts,
 * a record older than one that was seen before counts for nothing, and a host that was seen with a
 * lease is waited for until that is over, whatever has become of its record.
 */
#ifndef POLDER_CONTROL_FLEET_HOSTS_H
#define POLDER_CONTROL_FLEET_HOSTS_H
#include "daemons/control/model/fleet_base.h"
#include "daemons/control/model/fleet_record.h"

#define FLEET_HOSTS_MAX 64

struct fleet_known_host {
    char name[FLEET_HOST_SIZE];
    struct fleet_record is; /* as it said last */
    uint64_t lives_ms;      /* mono: it may have a lease until then */
    uint64_t listed_seq;    /* of its record in the list of the store that was entered */
    bool ours;              /* signed */
    bool listed;
};
struct fleet_hosts {
    const struct fleet_base *base;
    struct fleet_key key;
    uint64_t looked_ms; /* mono, the last look; 0: none yet */
    uint64_t seq;       /* of the last record of this host that the store has taken; 0: none */
    bool crowded;       /* there are more than are known here */
    char wrong[160];    /* what is wrong with the list; "": nothing */
    uint32_t n;
    struct fleet_known_host at[FLEET_HOSTS_MAX];
};

void fleet_hosts_init(struct fleet_hosts *h, const struct fleet_base *base);
/* The store's list: elements NAME, VALUE... of r from `from` on, at that time of the store; and what the store
 * had of this host before its last renewal. */
void fleet_hosts_take(struct fleet_hosts *h, const redisReply *r, size_t from,
                      const redisReply *before, uint64_t store_now_ms);
/* A store is entered, whose list may be an earlier one, of a replica or a file. */
void fleet_hosts_begin(struct fleet_hosts *h);
/* Those that are in no list any more, and have no lease either. */
void fleet_hosts_drop(struct fleet_hosts *h);
/* Another host of this fleet that may have a lease now. */
bool fleet_hosts_lives(const struct fleet_hosts *h, const struct fleet_known_host *host);
bool fleet_hosts_is_self(const struct fleet_hosts *h, const struct fleet_known_host *host);
#endif

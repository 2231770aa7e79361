/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * trio: three machines, as polder.conf(5) says that a fleet may run: each has a store, a Sentinel and a host,
 * and packets between them can be lost. Stores are as documented: a master that has lost its replicas
 * takes no writes and gives no leases.
 *
 * Hosts that are cut off validate what they serve: so a reader on any host must never see what is older than
 * an acknowledgement, whichever side has given it, and hosts together never admit more than a limit.
 */
#ifndef POLDER_TEST_TRIO_H
#define POLDER_TEST_TRIO_H
#include "harness.h"
#include "nets.h"
#include "redis.h"
#include "tests/chaos/chaos.h"

#define TRIO 3

struct trio_machine {
    struct redis store, sentinel;
    struct house host;
    struct backend *backend;
    struct readers readers;
    pid_t writer, client;
};
struct trio_admitted;
struct trio {
    struct trio_machine at[TRIO];
    struct board *board;
    struct trio_admitted *admitted;
    bool limits_lapse; /* a host that comes late may exceed them, as polder-limits(7) says */
};
/* Makes the networks; false, and says so: they cannot be had, and the story is not tested. */
bool trio_prepare(const char *story);
/* The first one has the master. trio_prepare() has been called. */
void trio_start(struct trio *t);
/* Fails where a reader has seen what is older, or too much was admitted. */
void trio_stop(struct trio *t, const char *story);

/* Packets from and to that machine. */
void trio_lose_all(int machine, bool lose);
/* `polderctl --json fleet` of that host. */
bool trio_says(struct trio *t, int host, const char *text);
/* Is it a member, of the store of that machine? */
bool trio_follows(struct trio *t, int host, int master);
/* Its store says that it is a master. */
bool trio_is_master(struct trio *t, int machine);
/* The one whose store is a master, but for that one; -1: none is. */
int trio_master_but(struct trio *t, int machine);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_base: what all parts of a host's membership share; fleet_new() sets it once.
 *
 *   fleet          the states, the lease's timer, what others call
 *   fleet_log      follows the log
 *   fleet_lease    the lease, and what the other hosts have applied
 *   fleet_pending  what no other host knows yet
 *   fleet_waiters  callers that wait until the others have it
 *   fleet_servers  which server of the list is the master, and whether there are two
 */
#ifndef POLDER_CONTROL_FLEET_BASE_H
#define POLDER_CONTROL_FLEET_BASE_H
#include "daemons/control/model/fleet_entry.h"
#include "daemons/control/model/fleet_store.h"
#include "polder/config.h"
#include "polder/shared.h"

struct ring_record;

/* What its user is told. */
struct fleet_ops {
    /* Marks an entry of another host; returns its number of inval.h, 0: it has none. */
    uint64_t (*apply)(void *arg, const struct fleet_entry *e);
    /* The same where all that is stored here is younger: what other hosts have shared is not. */
    void (*remember)(void *arg, const struct fleet_entry *e);
    /* Invalidations may have been missed: invalidates everything. */
    void (*apply_all)(void *arg, const char *why);
    /* connected, or not and why. */
    void (*changed)(void *arg, bool connected, const char *why);
    /* Entries that are signed otherwise, or cannot be read. */
    void (*strange)(void *arg, const char *what);
    /* For the shared cache: a note of a worker that is not for the log (enum fleet_share_note); another
     * host has ended a fetch that was waited for; there is a lease, and the store took so long to
     * renew it; more of the log is applied. */
    void (*note)(void *arg, unsigned worker, const struct ring_record *head, const char *payload);
    void (*stored)(void *arg, const char *name);
    void (*renewed)(void *arg, uint64_t took_ms);
    void (*moved)(void *arg);
};

struct fleet_base {
    struct ev_loop *loop;
    const struct config_fleet *config;
    struct shared *shared;
    struct fleet_page *page;
    struct fleet_store *store;
    struct fleet_key key;
    const struct fleet_ops *ops;
    void *arg;
    /* Names of what is in the store; fleet_scripts.h says what that is. */
    char log[96], count[96], epoch[96], hosts[96], run[96], stored[96], fence[96];
    char instance[20]; /* of this host */
};
/* All but the store. */
void fleet_base_set(struct fleet_base *b, struct ev_loop *loop, const struct config_fleet *config,
                    struct shared *shared, const struct fleet_ops *ops, void *arg);

/* Few go at once, so that none is late; of many a second each carries more. */
struct fleet_pacer {
    uint64_t began_ms;
    uint32_t n;
};
/* Milliseconds to wait; 0: now, and it is counted. */
uint64_t fleet_pace(struct fleet_pacer *p);

static inline uint64_t fleet_base_epoch(const struct fleet_base *b)
{
    return atomic_load(&b->page->epoch);
}

static inline uint64_t fleet_base_applied(const struct fleet_base *b)
{
    return atomic_load(&b->page->applied);
}

static inline bool fleet_base_is_self(const struct fleet_base *b, uint64_t instance)
{
    return instance == atomic_load(&b->page->instance);
}

/* When an epoch began, in ms of the store's clock. */
uint64_t fleet_epoch_ms(uint64_t epoch);
/* The second part of an epoch that this host may have to make. */
void fleet_epoch_digits(char out[8]);

/* ---- replies of scripts ---- */

/* Element i of a list, as text; NULL: it is not what a script of ours returns. */
const char *fleet_reply_text(const redisReply *r, size_t i);
bool fleet_reply_number(const redisReply *r, size_t i, uint64_t *out);
/* False: it was an error, or none at all, and the link is given up. */
bool fleet_reply_is_list(struct fleet_store *store, const redisReply *r);
/* The same, of a list that begins with the epoch: another one ends the link, too. */
bool fleet_reply_is_of_epoch(const struct fleet_base *b, const redisReply *r);
#endif

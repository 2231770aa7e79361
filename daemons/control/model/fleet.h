/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet: this host among those that share a store: it follows the log, keeps its lease, and tells
 * the others what was invalidated here. polder/fleet.h says what is promised.
 *
 *   CUT_OFF   no store; the link is tried again and again
 *   ENTERING  the store has been asked for its history; then the log is read up to its end, and
 *             what the others have not heard is sent
 *   MEMBER    the lease is renewed
 *
 * It knows nothing of what an entry does here: that is done by `apply`.
 */
#ifndef POLDER_CONTROL_FLEET_MODEL_H
#define POLDER_CONTROL_FLEET_MODEL_H
#include "daemons/control/model/fleet_base.h"
#include "daemons/control/model/fleet_lease.h"
#include "daemons/control/model/fleet_waiters.h"
#include "polder/config.h"
#include <ev.h>

struct fleet;

/* NULL: no memory. config: valid as long as it. */
struct fleet *fleet_new(struct ev_loop *loop, const struct config_fleet *config,
                        struct shared *shared, const struct fleet_ops *ops, void *arg);
void fleet_free(struct fleet *f); /* those that wait are called */

/* Tells the others. before: its own mark here has a larger number of inval.h; 0: unknown. done NULL:
 * no caller waits; else it is called once, from the loop or from within this call. */
void fleet_tell(struct fleet *f, enum fleet_kind kind, bool soft, const char *text, size_t len,
                uint64_t before, fleet_done_fn done, void *arg);
/* Takes what workers have noted. */
void fleet_take_notes(struct fleet *f);

/* ---- for the shared cache ---- */
struct fleet_identity {
    const char *name;     /* of the fleet */
    const char *instance; /* of this host */
    const struct fleet_key *key;
};
void fleet_identity(const struct fleet *f, struct fleet_identity *out);
struct fleet_store *fleet_link(const struct fleet *f); /* to run scripts in */
bool fleet_is_member(const struct fleet *f);           /* it has a lease */
uint64_t fleet_store_now_ms(const struct fleet *f);    /* the store's clock, or a little more */
/* What was fetched by a host that had applied `id` in that epoch is as if it had been fetched here at
 * *seq of inval.h. False: that cannot be said. */
bool fleet_seq_of(struct fleet *f, uint64_t epoch, uint64_t id, uint64_t *seq);
/* Has this host not yet applied that much of the same history? */
bool fleet_is_behind(const struct fleet *f, uint64_t epoch, uint64_t id);
/* What is in the store is not this fleet's. */
void fleet_note_strange(struct fleet *f, const char *what);
/* What names the history of the store that this host follows; 0: it is cut off. */
uint64_t fleet_epoch(const struct fleet *f);
/* Runs another script; false: it is cut off. done: see fleet_store.h. */
bool fleet_run(struct fleet *f, enum fleet_script script, int n_keys, int argc, const char **argv,
               fleet_reply_fn done, void *arg);

/* For display. */
struct fleet_server_view {
    const char *name, *why; /* why: of fleet_servers_why() */
    const char *state;      /* "followed", "fenced", or what it says of itself */
};
struct fleet_view {
    bool connected;
    bool name_taken;         /* cut off, as another host has this one's name */
    bool other_format;       /* cut off, as the members keep the store in another format */
    uint64_t epoch;          /* the last one that was known; 0: none */
    uint64_t since_ms;       /* ago */
    const char *store, *why; /* why: it is cut off */
    const char *refusal;     /* why the store has not let it in, where one of these is true */
    const char *name, *host;
    uint64_t applied, last; /* numbers of the log; last: as far as is known */
    uint64_t late_ms;       /* as of a host */
    uint64_t sent, received, strange, gaps;
    uint32_t pending;   /* invalidations that no other host knows */
    const char *rival;  /* another server that is a master, too; NULL: none */
    uint32_t n_servers; /* 0: there is only one */
    struct fleet_server_view server[CONFIG_STORES_MAX];
    uint32_t n;
    struct fleet_host at[FLEET_HOSTS_MAX];
};
void fleet_view(const struct fleet *f, struct fleet_view *out);
#endif

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
#include "daemons/control/model/fleet_entry.h"
#include "polder/config.h"
#include <ev.h>

struct fleet;
struct shared;

struct fleet_ops {
    /* Marks an entry of another host; returns its number of inval.h, 0: it has none. */
    uint64_t (*apply)(void *arg, const struct fleet_entry *e);
    /* Invalidations may have been missed: invalidates everything. */
    void (*apply_all)(void *arg, const char *why);
    /* connected, or not and why. */
    void (*changed)(void *arg, bool connected, const char *why);
    /* Entries that are signed otherwise, or cannot be read. */
    void (*strange)(void *arg, const char *what);
};
/* NULL: no memory. config: valid as long as it. */
struct fleet *fleet_new(struct ev_loop *loop, const struct config_fleet *config,
                        struct shared *shared, const struct fleet_ops *ops, void *arg);
void fleet_free(struct fleet *f); /* those that wait are called */

/* What has become of an invalidation. */
struct fleet_result {
    bool connected;            /* else the others hear of it when the store is back */
    uint32_t hosts;            /* others that have it */
    uint32_t missing;          /* others whose lease ran out before they had it */
    const char *missing_names; /* "a, b" */
};
typedef void (*fleet_done_fn)(void *arg, const struct fleet_result *r);
/* Tells the others. done NULL: no caller waits; else it is called once, from the loop or from within
 * this call. */
void fleet_tell(struct fleet *f, enum fleet_kind kind, bool soft, const char *text, size_t len,
                fleet_done_fn done, void *arg);
/* Takes what workers have noted. */
void fleet_take_notes(struct fleet *f);

/* For display. */
struct fleet_host {
    char name[FLEET_HOST_SIZE];
    bool self, alive;
    uint64_t applied; /* number of the log */
    int64_t lease_ms; /* left; negative: ran out so long ago */
};
struct fleet_view {
    bool connected;
    uint64_t since_ms;       /* ago */
    const char *store, *why; /* why: it is cut off */
    const char *name, *host;
    uint64_t applied, last; /* numbers of the log; last: as far as is known */
    uint64_t sent, received, strange, gaps;
    uint32_t pending; /* invalidations that no other host knows */
    uint32_t n;
    struct fleet_host at[64];
};
void fleet_view(const struct fleet *f, struct fleet_view *out);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_watch: what of a fleet needs attention, from what it shows at each look: hosts that apply
 * the log late, a name that two hosts have, a store that has begun anew, and another store in use
 * than before.
 *
 * How late a host is follows from when this one knew of the entries that it has not applied yet.
 * Others show what they have applied every half second, so that a second is nothing.
 */
#ifndef POLDER_CONTROL_FLEET_WATCH_H
#define POLDER_CONTROL_FLEET_WATCH_H
#include <stdbool.h>
#include <stdint.h>

struct condition_table;
struct fleet_view;

#define FLEET_LATE_MS  3000   /* as long as a lease: then a member needs attention */
#define FLEET_ANEW_MS  60000  /* the store has begun anew; limits have learned long before */
#define FLEET_MOVED_MS 600000 /* another store is in use */

#define FLEET_WATCH_KNOWN 128
struct fleet_watch {
    /* The last number of the log, as it became known; a ring. */
    struct fleet_known {
        uint64_t at_ms, last;
    } known[FLEET_WATCH_KNOWN];
    uint32_t n_known; /* ever, since it was cleared */
    uint64_t epoch;   /* 0: none was known before */
    uint64_t anew_ms; /* when it changed; 0: not yet */
    uint64_t moved_ms;
    bool looked;                 /* once, at least */
    char store[300], moved[120]; /* the last one in use; "A, before B" */
};

/* epoch: the last one that an earlier control knew. */
void fleet_watch_begin(struct fleet_watch *w, uint64_t epoch);
/* Raises and clears conditions. real_ms: for them. */
void fleet_watch_look(struct fleet_watch *w, const struct fleet_view *v,
                      struct condition_table *table, uint64_t now_ms, uint64_t real_ms);
/* For how long an entry has been known that is not among the first `applied` ones; 0: there is none. */
uint64_t fleet_watch_late_ms(const struct fleet_watch *w, uint64_t applied, uint64_t now_ms);
/* There is no fleet any more. */
void fleet_watch_end(struct condition_table *table, uint64_t real_ms);
#endif

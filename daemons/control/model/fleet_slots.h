/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_slots: takes slots from the store for this host, and gives them back (polder/fleet_slots.h).
 *
 * Four times a second this host says that it is there (the holder); that is for how long the store
 * keeps what it holds. Rows that users have noted, and some more at each turn of the timer, are looked
 * at: what is waited for is asked for, what is spare is given back, in one call at a time.
 */
#ifndef POLDER_CONTROL_FLEET_SLOTS_H
#define POLDER_CONTROL_FLEET_SLOTS_H
#include "polder/config.h"
#include <ev.h>

struct fleet;
struct fleet_holder;
struct limit_caller;
struct shared;

/* NULL: no memory. caller: of this process. */
struct fleet_holder *fleet_holder_new(struct ev_loop *loop, struct fleet *fleet,
                                      const struct config_fleet *config, struct shared *shared,
                                      const struct limit_caller *caller);
/* After its fleet is gone. */
void fleet_holder_free(struct fleet_holder *h);
/* Whether anything is counted so; where nothing is the store hears nothing. */
void fleet_holder_use(struct fleet_holder *h, bool wanted, bool websockets, uint32_t keep_ms);
/* Looks at what users have noted. */
void fleet_holder_take(struct fleet_holder *h);

/* For display. */
struct fleet_slots_view {
    bool comes;       /* the store can be asked */
    uint64_t left_ms; /* until what is held ends; 0: it has */
    uint32_t keys;
    uint64_t held[2], used[2]; /* by enum fleet_slot_kind */
};
/* of: the id of a limit or a route; 0: of all rows. */
void fleet_slots_view(struct shared *shared, uint64_t of, struct fleet_slots_view *out);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_member: this host's part in the fleet that the configuration names: what entries of other
 * hosts do here, and conditions.
 */
#ifndef POLDER_CONTROL_FLEET_MEMBER_H
#define POLDER_CONTROL_FLEET_MEMBER_H
#include "daemons/control/model/fleet.h"
#include "daemons/control/model/fleet_forget.h"

struct control;
struct fleet_member;
struct fleet_share_view;

/* Follows the configuration, and takes what workers have noted. */
void fleet_member_follow(struct control *c);
void fleet_member_free(struct control *c);
/* See fleet_tell(). False: there is no fleet; nothing is called. */
bool fleet_member_tell(struct control *c, enum fleet_kind kind, bool soft, const char *text,
                       size_t len, uint64_t before, fleet_done_fn done, void *arg);
/* See fleet_forget.h. False: there is no fleet; nothing is called. */
bool fleet_member_forget(struct control *c, const char *host, fleet_forgot_fn done, void *arg);
/* False: there is no fleet. */
bool fleet_member_view(const struct control *c, struct fleet_view *out);
/* All zero where there is no fleet. */
void fleet_member_share_view(const struct control *c, struct fleet_share_view *out);

/* ---- limits of the fleet ---- */
bool fleet_member_has_limits(const struct config *config);
/* Whether requests under way, or WebSockets, are counted over the fleet. */
bool fleet_member_has_slots(const struct control *c);
/* "granted", else each does what its cut_off says: "learning", as the store has begun anew, or
 * "cut off". */
const char *fleet_member_limits_state(const struct control *c);
#endif

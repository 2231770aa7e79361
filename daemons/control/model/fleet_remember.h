/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_remember: what other hosts invalidated before this one had anything: a host that enters a fleet
 * reads the log from its beginning, so that it can judge what they had shared by then. No client hears of
 * it; what this host has stored while it was cut off may end by it.
 */
#ifndef POLDER_CONTROL_FLEET_REMEMBER_H
#define POLDER_CONTROL_FLEET_REMEMBER_H
#include "daemons/control/model/fleet_entry.h"

struct control;

void fleet_remember(struct control *c, const struct fleet_entry *e);
#endif

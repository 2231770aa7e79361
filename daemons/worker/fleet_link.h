/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_link: what this worker tells control for the other hosts of a fleet (polder/fleet.h): what it
 * has invalidated. The client's answer does not wait for them.
 */
#ifndef POLDER_WORKER_FLEET_LINK_H
#define POLDER_WORKER_FLEET_LINK_H
#include "polder/field.h"
#include "polder/fleet.h"

struct worker;

/* Before it is marked here: what control takes into the cache meanwhile was fetched before. The text
 * is a, then b. Without a fleet it does nothing. */
void fleet_link_tell(struct worker *w, enum fleet_kind kind, struct str a, struct str b);
/* Is this host in a fleet, and cannot know what others have invalidated? */
bool fleet_link_is_cut_off(const struct worker *w);
#endif

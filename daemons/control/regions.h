/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * regions: the configurations that some process serves with. Run-time changes apply to all of them:
 * draining workers enforce a new limit, too.
 */
#ifndef POLDER_CONTROL_REGIONS_H
#define POLDER_CONTROL_REGIONS_H
#include "polder/runtime.h"
#include "polder/shared.h"
#include <stdbool.h>
#include <stddef.h>

struct control;

size_t regions_live(const struct control *c, struct config_region *out[SHARED_REGIONS]);

/* Changes values as they run in the region. False: it does not have the item that is to be
 * changed. */
typedef bool (*regions_change_fn)(void *arg, struct config_region *region,
                                  struct runtime_values *values);
/* Publishes what change makes of the values of each live region. NULL: the same values, as a new
 * generation: workers look again at what they have remembered. */
void regions_publish(const struct control *c, regions_change_fn change, void *arg);
#endif

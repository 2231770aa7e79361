/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_notes: what workers note for the fleet in their rings (polder/fleet.h). */
#ifndef POLDER_CONTROL_FLEET_NOTES_H
#define POLDER_CONTROL_FLEET_NOTES_H
#include "daemons/control/model/fleet_base.h"

typedef void (*fleet_tell_fn)(void *arg, enum fleet_kind kind, const char *text, size_t len,
                              uint64_t before);
void fleet_notes_begin(struct shared *shared);
/* Tells what is for the log, and hands the rest to the shared cache. What was lost is told as
 * everything. */
void fleet_notes_take(const struct fleet_base *b, fleet_tell_fn tell, void *arg);
#endif

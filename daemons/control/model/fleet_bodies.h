/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_bodies: long bodies that workers hand over in chunks, for the store of the fleet, until they are
 * complete. Of more than a few at once the later ones are left out; one that is never completed makes
 * room after a while.
 */
#ifndef POLDER_CONTROL_FLEET_BODIES_H
#define POLDER_CONTROL_FLEET_BODIES_H
#include "polder/field.h"
#include "polder/ring.h"

struct fleet_bodies;
struct fleet_bodies *fleet_bodies_new(void); /* NULL: no memory */
void fleet_bodies_free(struct fleet_bodies *b);
void fleet_bodies_add(struct fleet_bodies *b, unsigned worker, const struct ring_record *head,
                      const char *chunk);
/* As long as it is; nothing: it is not known, or was too long. */
struct str fleet_bodies_get(const struct fleet_bodies *b, unsigned worker,
                            const struct ring_record *head);
void fleet_bodies_drop(struct fleet_bodies *b, unsigned worker, uint64_t stream);
#endif

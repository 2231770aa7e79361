/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_marks: where an entry of the fleet's log stands among this host's own invalidations.
 *
 * Of each of the last entries it is known which number of inval.h was the last before its own mark
 * here: a fetch that began before the entry N was written is as if it had begun here before that
 * mark. So an object that another host has fetched when it had applied F gets a fetch_seq here that
 * is smaller than the marks of all entries after F, and is checked like one of this host.
 */
#ifndef POLDER_CONTROL_FLEET_MARKS_H
#define POLDER_CONTROL_FLEET_MARKS_H
#include "polder/fleet.h"

/* Entries up to that one are not known; the next one follows it. */
void fleet_marks_begin(struct fleet_page *page, uint64_t from);
/* Entry id, before `applied` is moved on to it. before: the mark's number here is larger. */
void fleet_marks_note(struct fleet_page *page, uint64_t id, uint64_t before);
/* The largest number that is smaller than those of all marks of entries after id, up to now's.
 * False: it is not known (any more). */
bool fleet_marks_before(const struct fleet_page *page, uint64_t id, uint64_t now, uint64_t *seq);
#endif

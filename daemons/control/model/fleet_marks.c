/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fleet_marks: see fleet_marks.h. A place holds the smallest number of its entry and all later
 * ones: entries of this host come back from the log later than their marks were set.
 */
#include "daemons/control/model/fleet_marks.h"

static _Atomic uint64_t *place(struct fleet_page *page, uint64_t id)
{
    return &page->mark[id % FLEET_MARKS];
}

void fleet_marks_begin(struct fleet_page *page, uint64_t from)
{
    atomic_store(&page->marks_from, from);
}

void fleet_marks_note(struct fleet_page *page, uint64_t id, uint64_t before)
{
    uint64_t from = atomic_load(&page->marks_from);
    if (id > from + FLEET_MARKS) /* its place was that of an older one */
        atomic_store(&page->marks_from, from = id - FLEET_MARKS);
    atomic_store(place(page, id), before);
    for (uint64_t at = id - 1; at > from && atomic_load(place(page, at)) > before; at--)
        atomic_store(place(page, at), before);
}

bool fleet_marks_before(const struct fleet_page *page, uint64_t id, uint64_t now, uint64_t *seq)
{
    const uint64_t applied = atomic_load(&page->applied);
    if (id > applied || id < atomic_load(&page->marks_from))
        return false;
    const uint64_t mark = id < applied ? atomic_load(&page->mark[(id + 1) % FLEET_MARKS]) : now;
    *seq = mark < now ? mark : now;
    return true;
}

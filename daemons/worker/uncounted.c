/* SPDX-License-Identifier: BSD-2-Clause */
/* uncounted: see uncounted.h. The counts go to a slab of this worker's own that nobody reads. */
#include "daemons/worker/uncounted.h"
#include "daemons/worker/worker.h"
#include "polder/stats.h"

#include <stdlib.h>
#include <string.h>

struct stats_slab *uncounted_begin(struct worker *w)
{
    struct stats_slab *counts = w->stats;
    if (!w->unread_stats) {
        w->unread_stats = aligned_alloc(_Alignof(struct stats_slab), sizeof *w->unread_stats);
        if (!w->unread_stats)
            return counts;
        memset((void *)w->unread_stats, 0, sizeof *w->unread_stats);
    }
    w->stats = w->unread_stats;
    return counts;
}

void uncounted_end(struct worker *w, struct stats_slab *counts)
{
    w->stats = counts;
}

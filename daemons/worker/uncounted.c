/* SPDX-License-Identifier: BSD-2-Clause */
/* uncounted: see uncounted.h. The counts go to a private slab of this worker that is not read. */
#include "daemons/worker/uncounted.h"
#include "daemons/worker/worker.h"
#include "polder/stats.h"

#include <sys/mman.h>

struct stats_slab *uncounted_begin(struct worker *w)
{
    struct stats_slab *counts = w->stats;
    if (!w->unread_stats) {
        void *slab = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0); /* only what is written takes memory */
        if (slab == MAP_FAILED)
            return counts;
        w->unread_stats = slab;
    }
    w->stats = w->unread_stats;
    return counts;
}

void uncounted_end(struct worker *w, struct stats_slab *counts)
{
    w->stats = counts;
}

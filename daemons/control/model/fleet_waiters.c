/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_waiters: see fleet_waiters.h. */
#include "daemons/control/model/fleet_waiters.h"
#include "polder/clock.h"

#include <stdlib.h>

struct fleet_waiter *fleet_waiter_add(struct fleet_waiters *all, fleet_done_fn done, void *arg)
{
    struct fleet_waiter *w = calloc(1, sizeof *w);
    if (w) {
        w->done = done;
        w->arg = arg;
        TAILQ_INSERT_TAIL(all, w, entry);
    }
    return w;
}

void fleet_waiter_logged(struct fleet_waiter *w, uint64_t id)
{
    w->id = id;
    w->since_ms = clock_mono_ms();
}

void fleet_waiter_answer(struct fleet_waiters *all, struct fleet_waiter *w,
                         const struct fleet_result *r)
{
    TAILQ_REMOVE(all, w, entry);
    w->done(w->arg, r);
    free(w);
}

void fleet_waiters_end(struct fleet_waiters *all)
{
    const struct fleet_result r = {.missing_names = ""};
    for (struct fleet_waiter *w; (w = TAILQ_FIRST(all));)
        fleet_waiter_answer(all, w, &r); /* NOLINT(clang-analyzer-unix.Malloc) */
}

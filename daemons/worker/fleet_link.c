/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_link: see fleet_link.h. */
#include "daemons/worker/fleet_link.h"
#include "daemons/worker/worker.h"
#include "polder/inval.h"
#include "polder/ring.h"

void fleet_link_tell(struct worker *w, enum fleet_kind kind, struct str a, struct str b)
{
    const struct ring_record head = {.type = RING_SWEEP,
                                     .flags = (uint16_t)kind,
                                     .incarnation = w->process->incarnation,
                                     .stream = inval_seq(w->shared->inval)};
    const struct iovec iov[2] = {{(void *)(uintptr_t)a.at, a.len},
                                 {(void *)(uintptr_t)b.at, b.len}};
    if (!w->config->fleet.n_store)
        return;
    if (ring_push(shared_fleet_ring(w->shared, w->number), &head, iov, 2,
                  w->shared->control_event)) {
        atomic_store(&w->shared->fleet->overflow, 1); /* control will tell them of everything */
        shared_wake_control(w->shared);
    }
}

bool fleet_link_is_cut_off(const struct worker *w)
{
    return w->config->fleet.n_store && !fleet_is_connected(w->shared->fleet, w->mono_ms);
}

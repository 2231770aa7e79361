/* SPDX-License-Identifier: BSD-2-Clause */
/* workers: those of a generation: started and stopped together, and counted. */
#include "daemons/master/master.h"

static bool worker_of(const struct master *m, uint32_t slot, uint32_t region)
{
    return m->child[slot].pid && m->child[slot].region == region;
}

uint32_t workers_living(const struct master *m, uint32_t region)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += worker_of(m, slot, region);
    return n;
}

uint32_t workers_accepting(const struct master *m)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += m->child[slot].pid && m->child[slot].region != m->current &&
             !atomic_load(&shared_slot(m, slot)->accepts_no_more);
    return n;
}

uint32_t workers_unsettled(const struct master *m)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += m->child[slot].pid && !atomic_load(&shared_slot(m, slot)->settled);
    return n;
}

uint32_t workers_ready(const struct master *m, uint32_t region)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += worker_of(m, slot, region) && child_ready(m, slot);
    return n;
}

static bool slot_is_free(const struct master *m, uint32_t slot)
{
    return m->child[slot].pid == 0 && !m->child[slot].wanted;
}

uint32_t workers_free_slots(const struct master *m)
{
    uint32_t n = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        n += slot_is_free(m, slot);
    return n;
}

void workers_start(struct master *m, uint32_t region)
{
    uint32_t index = 0;
    for (uint32_t slot = PROC_SLOT_WORKER0;
         slot < PROC_SLOTS && index < m->generation[region].workers; slot++)
        if (slot_is_free(m, slot))
            child_start(m, slot, region, index++);
}

void workers_stop(struct master *m, uint32_t region, uint64_t grace_ms)
{
    for (uint32_t slot = PROC_SLOT_WORKER0; slot < PROC_SLOTS; slot++)
        if (m->child[slot].region == region && (m->child[slot].pid || m->child[slot].wanted))
            child_stop(m, slot, grace_ms);
}

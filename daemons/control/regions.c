/* SPDX-License-Identifier: BSD-2-Clause */
/* regions: see regions.h. */
#include "daemons/control/regions.h"
#include "daemons/control/control.h"

static bool is_served(const struct control *c, const struct config_region *region)
{
    for (unsigned i = 0; i < PROC_SLOTS; i++) {
        const struct proc_slot *slot = &c->shared->proc->slot[i];
        if (atomic_load(&slot->pid) && atomic_load(&slot->generation) == region->generation)
            return true;
    }
    return false;
}

size_t regions_live(const struct control *c, struct config_region *out[SHARED_REGIONS])
{
    size_t n = 0;
    for (uint32_t i = 0; i < SHARED_REGIONS; i++) {
        struct config_region *region = c->shared->region[i];
        if (region->config && (i == c->region || is_served(c, region)))
            out[n++] = region;
    }
    return n;
}

void regions_publish(const struct control *c, regions_change_fn change, void *arg)
{
    struct config_region *region[SHARED_REGIONS];
    struct runtime_values values;
    const size_t n = regions_live(c, region);
    for (size_t i = 0; i < n; i++) {
        runtime_read(&region[i]->runtime, &values);
        if (!change || change(arg, region[i], &values))
            runtime_publish(&region[i]->runtime, &values);
    }
}

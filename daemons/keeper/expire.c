/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * expire: deletes useless objects, after their stale windows and grace.
 *
 * They are not served, so there is no hurry: a scan goes round the table of slots, about once a
 * minute.
 */
#include "daemons/keeper/keeper.h"
#include "polder/log.h"

#define ROUND_TICKS 60
#define LOOK_MIN    4096

static int expire_found(struct keeper *k, const uint32_t *slots, unsigned n)
{
    int rc = store_begin(&k->store);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; i < n; i++) {
        if ((rc = store_remove(&k->store, slots[i])) != 0)
            return rc;
        removals_note(k->store.gone, k->store.removed_url, REMOVED_EXPIRED, k->real_ms);
    }
    if ((rc = store_commit(&k->store)) == 0)
        stats_add(k->stats, STATS_CACHE_EXPIRED, n);
    return rc;
}

struct slice_result expire_slice(struct keeper *k)
{
    const struct store *s = &k->store;
    const uint32_t now_s = (uint32_t)(k->real_ms / 1000);
    uint32_t slots[KEEPER_SLICE], look = s->slots_used / ROUND_TICKS + LOOK_MIN;
    unsigned n = 0;
    if (!s->env || s->slots_used == 0)
        return SLICE_IDLE;
    if (look > s->slots_used)
        look = s->slots_used;
    for (; look && n < KEEPER_SLICE; look--) {
        if (k->expire_at >= s->slots_used)
            k->expire_at = 0;
        const struct item *item = &s->items[k->expire_at];
        if (item->obj_id && item->expires_s < now_s)
            slots[n++] = k->expire_at;
        k->expire_at++;
    }
    if (n == 0)
        return SLICE_IDLE;
    return (struct slice_result){n == KEEPER_SLICE, expire_found(k, slots, n),
                                 "delete expired objects"};
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_quick: see fleet_quick.h. */
#include "daemons/control/model/fleet_quick.h"

void fleet_quick_init(struct fleet_quick *q, struct fleet_page *page)
{
    *q = (struct fleet_quick){.page = page, .was = atomic_load(&page->shared_is_quick) != 0};
}

bool fleet_quick_is(const struct fleet_quick *q)
{
    return q->limit_ms && atomic_load(&q->page->shared_is_quick);
}

/* A request has waited in vain. */
static void note_late(struct fleet_quick *q, uint64_t now_ms)
{
    q->pause_ms = q->pause_ms ? 2 * q->pause_ms : FLEET_QUICK_FIRST_MS;
    if (q->pause_ms > FLEET_QUICK_LAST_MS)
        q->pause_ms = FLEET_QUICK_LAST_MS;
    q->from_ms = now_ms + q->pause_ms;
    q->was = false;
}

void fleet_quick_look(struct fleet_quick *q, uint64_t took_ms, uint64_t now_ms)
{
    if (q->was && !atomic_load(&q->page->shared_is_quick)) {
        note_late(q, now_ms);
        return;
    }
    if (!q->was && took_ms <= q->limit_ms && now_ms >= q->from_ms) {
        q->was = true;
        q->since_ms = now_ms;
        atomic_store(&q->page->shared_is_quick, 1);
    }
    if (q->was && now_ms >= q->since_ms + FLEET_QUICK_LAST_MS)
        q->pause_ms = 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * generations: the end of workers that a reload has replaced.
 *
 *   CURRENT -> DRAINING (they finish what they have, for drain_timeout at most)
 *           -> ENDING   (three later ones drain too: they have a second left) -> NONE
 *
 * Each worker is told by its slot until when, and cuts what it has not finished by then. A reload
 * waits for none of them: where it needs the region or the slots of one, that one leaves at once.
 */
#include "daemons/master/master.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include <stdio.h>

#define END_MS   1000   /* for what is nearly finished */
#define HURRY_MS 1      /* 0 would kill them */
#define SHOW_MS  600000 /* the condition about what was cut */

void generation_enter(struct master *m, uint32_t region, enum generation_state state)
{
    m->generation[region].state = state;
    m->generation[region].since_ms = m->now_ms;
}

static bool is_old(const struct generation *g)
{
    return g->state == GENERATION_DRAINING || g->state == GENERATION_ENDING;
}

/* SHARED_REGIONS: there is none in that state. */
static uint32_t oldest(const struct master *m, enum generation_state state)
{
    uint32_t found = SHARED_REGIONS;
    for (uint32_t r = 0; r < SHARED_REGIONS; r++)
        if (m->generation[r].state == state &&
            (found == SHARED_REGIONS || m->generation[r].number < m->generation[found].number))
            found = r;
    return found;
}

static void generation_end(struct master *m, uint32_t region)
{
    struct generation *g = &m->generation[region];
    log_info("reload: generation %u ends, as %u later ones finish what they have", g->number,
             GENERATIONS_OLD);
    generation_enter(m, region, GENERATION_ENDING);
    atomic_fetch_add(&m->shared.proc->generations_ended, 1);
    workers_stop(m, region, END_MS);
}

void generation_drain(struct master *m, uint32_t region, uint64_t drain_ms)
{
    uint32_t n = 0;
    generation_enter(m, region, GENERATION_DRAINING);
    workers_stop(m, region, drain_ms);
    for (uint32_t r = 0; r < SHARED_REGIONS; r++)
        n += m->generation[r].state == GENERATION_DRAINING;
    for (; n > GENERATIONS_OLD; n--)
        generation_end(m, oldest(m, GENERATION_DRAINING));
}

void generations_hurry(struct master *m)
{
    uint32_t region = oldest(m, GENERATION_ENDING);
    if (region == SHARED_REGIONS) {
        region = oldest(m, GENERATION_DRAINING);
        if (region == SHARED_REGIONS)
            return;
        generation_end(m, region);
    }
    if (m->generation[region].hurried)
        return;
    m->generation[region].hurried = true;
    workers_stop(m, region, HURRY_MS);
}

/* ---- what it has cost ---- */

static void tell_cut(struct master *m, const struct generation *g)
{
    char reason[CONDITION_REASON];
    if (g->cut == 0)
        return;
    snprintf(reason, sizeof reason, "generation %u has left; %u requests were cut", g->number,
             g->cut);
    log_warning("reload: %s", reason);
    atomic_fetch_add(&m->shared.proc->requests_cut, g->cut);
    m->cut_until_ms = m->now_ms + SHOW_MS;
    condition_raise(m->shared.conditions, COND_REQUESTS_CUT, NULL, reason, clock_real_ms());
}

static void show_no_longer(struct master *m)
{
    if (!m->cut_until_ms || m->now_ms < m->cut_until_ms)
        return;
    m->cut_until_ms = 0;
    condition_clear(m->shared.conditions, COND_REQUESTS_CUT, NULL, clock_real_ms());
}

bool generations_retire(struct master *m)
{
    bool left = false, others = false;
    for (uint32_t r = 0; r < SHARED_REGIONS; r++) {
        struct generation *g = &m->generation[r];
        if (!is_old(g))
            continue;
        if (workers_living(m, r)) {
            others = true;
            continue;
        }
        tell_cut(m, g);
        generation_enter(m, r, GENERATION_NONE);
        logs_close(m, r);
        left = true;
    }
    show_no_longer(m);
    return left && !others;
}

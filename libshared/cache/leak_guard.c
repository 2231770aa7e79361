/* SPDX-License-Identifier: BSD-2-Clause */
/* leak_guard: which fields identify the caller, and the page of routes; see leak_guard.h. */
#include "polder/leak_guard.h"

#include <string.h>
#include <strings.h>

#define GAP_MS        1000 /* between two checks of a route, at least */
#define CALM_A_STEP   4    /* checks without a finding until the gap doubles */
#define STEPS_MAX     6    /* times that it doubles: 64 s */
#define FAILED_STEPS  1    /* 2 s after a check that came to nothing */
#define PAIRS_A_CHECK 2    /* more answers for each time that nothing could be said */

/* ---- names ---- */

static bool matches(struct str name, const char *pattern)
{
    const size_t len = strlen(pattern);
    if (len && pattern[len - 1] == '*')
        return name.len >= len - 1 && !strncasecmp(name.at, pattern, len - 1);
    return name.len == len && !strncasecmp(name.at, pattern, len);
}

/* Most fields of a request begin with another letter than all of ours. */
static bool may_be_listed(char first)
{
    switch (first | 0x20) {
    case 'a':
    case 'c':
    case 'r':
    case 'x':
        return true;
    default:
        return false;
    }
}

bool guard_tells_who(struct str name, const char *const *own, uint32_t n_own)
{
    static const char *const known[] = {
#define FIELD(name) name,
#include "libshared/tables/guard_fields.def"
#undef FIELD
    };
    if (!name.len)
        return false;
    if (may_be_listed(name.at[0]))
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (matches(name, known[i]))
                return true;
    for (uint32_t i = 0; i < n_own; i++)
        if (matches(name, own[i]))
            return true;
    return false;
}

/* ---- page ---- */

struct guard_page {
    struct shm_header header;
    uint8_t uuid[16]; /* of the invalidations that the gates count by */
    struct guard_route route[GUARD_ROUTES];
};

size_t guard_page_size(void)
{
    return sizeof(struct guard_page);
}

uint64_t guard_page_layout(void)
{
    return (uint64_t)offsetof(struct guard_page, route) << 32 |
           (uint64_t)offsetof(struct guard_route, scope) << 16 | sizeof(struct guard_route);
}

void guard_page_open(struct guard_page *page, const uint8_t uuid[16], uint64_t seq)
{
    const bool known = !memcmp(page->uuid, uuid, sizeof page->uuid);
    for (uint32_t i = 0; i < GUARD_ROUTES; i++) {
        struct guard_route *g = &page->route[i];
        if (!atomic_load(&g->id))
            continue;
        guard_route_begin_again(g);
        const bool narrow = guard_scopes_mend(g);
        if (guard_is_closed(g))
            continue;
        const uint64_t was = atomic_load(&g->gate) & ~GUARD_NARROW;
        const uint64_t gate = !known ? 0 : was > seq ? seq : was;
        atomic_store(&g->gate, gate | (narrow ? GUARD_NARROW : 0));
    }
    memcpy(page->uuid, uuid, sizeof page->uuid);
}

struct guard_route *guard_route_find(struct guard_page *page, uint64_t id, bool make)
{
    for (uint32_t i = 0; i < GUARD_ROUTES; i++) {
        struct guard_route *g = &page->route[(id + i) % GUARD_ROUTES];
        uint64_t there = atomic_load(&g->id);
        if (there == id)
            return g;
        if (there == 0 && !make)
            return NULL;
        if (there == 0 && (atomic_compare_exchange_strong(&g->id, &there, id) || there == id))
            return g;
    }
    return NULL;
}

/* ---- one route ---- */

bool guard_route_claim(struct guard_route *g, uint64_t now_ms)
{
    uint64_t due = atomic_load(&g->due_ms);
    return now_ms >= due &&
           atomic_compare_exchange_strong(&g->due_ms, &due, now_ms + GUARD_HOLD_MS);
}

void guard_route_renew(struct guard_route *g, uint64_t now_ms)
{
    atomic_store(&g->due_ms, now_ms + GUARD_HOLD_MS);
}

uint32_t guard_route_pairs(const struct guard_route *g)
{
    const uint64_t more = atomic_load(&g->unstable) * PAIRS_A_CHECK;
    return more < GUARD_PAIRS_MAX - GUARD_PAIRS ? GUARD_PAIRS + (uint32_t)more : GUARD_PAIRS_MAX;
}

static uint64_t gap_ms(uint64_t steps)
{
    return (uint64_t)GAP_MS << (steps < STEPS_MAX ? steps : STEPS_MAX);
}

void guard_route_settle(struct guard_route *g, enum guard_verdict verdict, uint64_t now_ms,
                        uint64_t real_ms, uint64_t min_ms)
{
    uint64_t steps = 0;
    switch (verdict) {
    case GUARD_SAME:
        atomic_fetch_add(&g->same, 1);
        steps = atomic_fetch_add(&g->calm, 1) / CALM_A_STEP;
        break;
    case GUARD_DIFFERS:
        atomic_fetch_add(&g->differs, 1);
        atomic_store(&g->calm, 0);
        break;
    case GUARD_UNSTABLE:
        steps = atomic_fetch_add(&g->unstable, 1);
        break;
    default:
        atomic_fetch_add(&g->failed, 1);
        steps = FAILED_STEPS;
        break;
    }
    atomic_store(&g->checked_ms, real_ms);
    const uint64_t gap = gap_ms(steps);
    atomic_store(&g->due_ms, now_ms + (gap > min_ms ? gap : min_ms));
}

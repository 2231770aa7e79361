/* SPDX-License-Identifier: BSD-2-Clause */
/* leak_guard: which fields say who asks, and the page of routes; see leak_guard.h. */
#include "polder/leak_guard.h"
#include "polder/inval.h"

#include <stdio.h>
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
           (uint64_t)offsetof(struct guard_route, names) << 16 | sizeof(struct guard_route);
}

static void begin_again(struct guard_route *g)
{
    atomic_store(&g->due_ms, 0);
    atomic_store(&g->same, 0);
    atomic_store(&g->differs, 0);
    atomic_store(&g->unstable, 0);
    atomic_store(&g->failed, 0);
    atomic_store(&g->calm, 0);
    atomic_store(&g->checked_ms, 0);
}

void guard_page_open(struct guard_page *page, const uint8_t uuid[16], uint64_t seq)
{
    const bool known = !memcmp(page->uuid, uuid, sizeof page->uuid);
    for (uint32_t i = 0; i < GUARD_ROUTES; i++) {
        struct guard_route *g = &page->route[i];
        begin_again(g);
        if (!guard_is_closed(g) && (!known || atomic_load(&g->gate) > seq))
            atomic_store(&g->gate, known ? seq : 0);
        atomic_store(&g->told, 0); /* said again after each start */
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
                        uint64_t real_ms, uint64_t least_ms)
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
    atomic_store(&g->due_ms, now_ms + (gap > least_ms ? gap : least_ms));
}

static void put_text(char *to, size_t size, _Atomic uint32_t *len, const char *from, size_t n)
{
    n = n < size ? n : size;
    memcpy(to, from, n);
    atomic_store_explicit(len, (uint32_t)n, memory_order_release);
}

/* Who dies between the two steps has closed nothing; the next check does. */
void guard_route_close(struct guard_route *g, const char *url, size_t len, uint64_t real_ms)
{
    uint64_t none = 0;
    if (atomic_compare_exchange_strong(&g->since_ms, &none, real_ms))
        put_text(g->url, sizeof g->url, &g->url_len, url, len);
    atomic_store(&g->gate, GUARD_CLOSED);
}

void guard_route_name(struct guard_route *g, const char *names, size_t len)
{
    if (guard_is_closed(g)) /* nobody has released it meanwhile */
        put_text(g->names, sizeof g->names, &g->names_len, names, len);
}

/* The gate becomes the number of an invalidation: all that is stored, or was asked for before, has
 * a smaller one. */
void guard_route_release(struct guard_route *g, struct inval_page *inval)
{
    char tag[64];
    const int n = snprintf(tag, sizeof tag, "\x1fguard %llu", (unsigned long long)g->id);
    atomic_store(&g->names_len, 0);
    atomic_store(&g->url_len, 0);
    atomic_store(&g->told, 0);
    begin_again(g);
    atomic_store(&g->gate, inval_mark_tag(inval, tag, (size_t)n, false));
    atomic_store(&g->since_ms, 0); /* last: now somebody else may write the texts */
}

static void get_text(const char *from, size_t size, const _Atomic uint32_t *len, char *out)
{
    const uint32_t n = atomic_load_explicit(len, memory_order_acquire);
    const size_t take = n < size ? n : size;
    memcpy(out, from, take);
    out[take] = 0;
    for (char *at = out; *at; at++) /* the page is a file, and these go into header lines */
        if (*at < ' ' || *at > '~' || *at == '"' || *at == '\\')
            *at = '?';
}

void guard_route_names(const struct guard_route *g, char out[GUARD_NAMES + 1])
{
    get_text(g->names, sizeof g->names, &g->names_len, out);
}

void guard_route_url(const struct guard_route *g, char out[GUARD_URL + 1])
{
    get_text(g->url, sizeof g->url, &g->url_len, out);
}

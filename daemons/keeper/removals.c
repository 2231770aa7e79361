/* SPDX-License-Identifier: BSD-2-Clause */
/* removals: see removals.h. */
#include "daemons/keeper/removals.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define PLACES 4096

struct removals_table {
    struct removals at[PLACES]; /* the last one of each place */
};

struct removals_table *removals_new(void)
{
    return calloc(1, sizeof(struct removals_table));
}

void removals_free(struct removals_table *t)
{
    free(t);
}

uint64_t removals_url(const char *url, size_t len)
{
    return XXH3_64bits(url, len) | 1;
}

static struct removals *place_take(struct removals_table *t, uint64_t url, enum removals_how how,
                                   uint64_t now_ms)
{
    if (!t || !url)
        return NULL;
    struct removals *g = &t->at[(url >> 1) % PLACES];
    g->url = url;
    g->when_s = now_ms / 1000;
    g->how = how;
    g->by[0] = 0;
    g->seq = 0;
    return g;
}

void removals_note(struct removals_table *t, uint64_t url, enum removals_how how, uint64_t now_ms)
{
    place_take(t, url, how, now_ms);
}

void removals_note_invalidated(struct removals_table *t, const struct inval_page *page,
                               const struct cache_record *r, uint64_t now_ms)
{
    struct inval_cause cause[INVAL_CAUSES_MAX];
    struct cache_view v;
    cache_view_of(r, &v);
    struct removals *g =
        place_take(t, removals_url(v.url, r->url_len), REMOVED_INVALIDATED, now_ms);
    if (!g || !cache_record_causes(page, r, cause))
        return;
    explain_cause(page, &v, &cause[0], g->by, sizeof g->by);
    g->seq = cause[0].seq;
}

const struct removals *removals_find(const struct removals_table *t, const char *url, size_t len)
{
    const uint64_t hash = removals_url(url, len);
    const struct removals *g = t ? &t->at[(hash >> 1) % PLACES] : NULL;
    return g && g->url == hash ? g : NULL;
}

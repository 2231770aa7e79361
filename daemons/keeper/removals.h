/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * removals: why an object was removed, for `cache why`: the last few thousand removals, by a hash
 * of their URLs. Private memory of the keeper; a crash forgets it.
 */
#ifndef POLDER_KEEPER_REMOVALS_H
#define POLDER_KEEPER_REMOVALS_H
#include "polder/cache.h"
#include "polder/inval.h"
#include <stdint.h>

enum removals_how { REMOVED_UNKNOWN, REMOVED_INVALIDATED, REMOVED_EVICTED, REMOVED_EXPIRED };

#define REMOVED_TEXT 96
struct removals {
    uint64_t url; /* removals_url(); 0: free */
    uint64_t when_s;
    enum removals_how how;
    char by[REMOVED_TEXT]; /* what it was invalidated by: "tag item-7" */
    uint64_t seq;          /* of that */
};
struct removals_table;

struct removals_table *removals_new(void); /* NULL: no memory; then nothing is remembered */
void removals_free(struct removals_table *t);
uint64_t removals_url(const char *url, size_t len);
void removals_note(struct removals_table *t, uint64_t url, enum removals_how how, uint64_t now_ms);
/* An object that inval_check() says is HARD. */
void removals_note_invalidated(struct removals_table *t, const struct inval_page *page,
                               const struct cache_record *r, uint64_t now_ms);
/* NULL: it was not there, or that was long ago. */
const struct removals *removals_find(const struct removals_table *t, const char *url, size_t len);

/* ---- explain.c: names of invalidations ---- */
/* The name of the tag in that slot, from the head that is stored. Length, 0 where it is not there.
 */
size_t explain_tag(const struct inval_page *page, const struct cache_view *v, uint32_t slot,
                   char *out, size_t size);
/* "tag item-7", "prefix host/a", "everything"; always ends in NUL. */
void explain_cause(const struct inval_page *page, const struct cache_view *v,
                   const struct inval_cause *cause, char *out, size_t size);
#endif

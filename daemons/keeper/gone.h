/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * gone: why an object is not there any more, for `cache why`: the last some thousand that were
 * removed, by a hash of their URLs. Private memory of the keeper; a crash forgets it.
 */
#ifndef POLDER_KEEPER_GONE_H
#define POLDER_KEEPER_GONE_H
#include "polder/cache.h"
#include "polder/inval.h"
#include <stdint.h>

enum gone_how { GONE_UNKNOWN, GONE_INVALIDATED, GONE_EVICTED, GONE_EXPIRED };

#define GONE_TEXT 96
struct gone {
    uint64_t url; /* gone_url(); 0: nobody */
    uint64_t when_s;
    enum gone_how how;
    char by[GONE_TEXT]; /* what it was invalidated by: "tag item-7" */
    uint64_t seq;       /* of that */
};
struct gone_table;

struct gone_table *gone_new(void); /* NULL: no memory; then nothing is remembered */
void gone_free(struct gone_table *t);
uint64_t gone_url(const char *url, size_t len);
void gone_note(struct gone_table *t, uint64_t url, enum gone_how how, uint64_t now_ms);
/* An object that inval_check() says is HARD. */
void gone_note_invalidated(struct gone_table *t, const struct inval_page *page,
                           const struct cache_record *r, uint64_t now_ms);
/* NULL: it was not there, or that was long ago. */
const struct gone *gone_find(const struct gone_table *t, const char *url, size_t len);

/* ---- explain.c: what an invalidation is called ---- */
/* The name of the tag in that slot, from the head that is stored. Length, 0 where it is not there.
 */
size_t explain_tag(const struct inval_page *page, const struct cache_view *v, uint32_t slot,
                   char *out, size_t size);
/* "tag item-7", "prefix host/a", "everything"; always ends in NUL. */
void explain_cause(const struct inval_page *page, const struct cache_view *v,
                   const struct inval_cause *cause, char *out, size_t size);
#endif

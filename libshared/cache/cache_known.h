/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache_known: what one reader remembers of the records it has seen. Private to cache_reader.c and
 * to one process; a hint that is wrong costs time, never a wrong byte.
 *
 * An entry says three things about a key:
 *   that the record with this checksum was verified, so that a hit costs no checksum;
 *   where it lay: with a million objects nearly every cache line that a hit touches comes from
 *     memory, one after the other, unless they are prefetched together;
 *   in which snapshot it lay there. While nothing was committed since, that is where it lies, and
 *     the tree need not be descended. LMDB overwrites no page of its latest snapshot.
 *
 * Two entries share a cache line. The table grows with the number of objects (the keeper hands out
 * small slot numbers first) up to KNOWN_MAX entries, 64 MiB; what does not fit is verified again.
 */
#ifndef POLDER_LIBSHARED_CACHE_CACHE_KNOWN_H
#define POLDER_LIBSHARED_CACHE_CACHE_KNOWN_H
#include "polder/cache.h"
#include "polder/shared.h"

#define KNOWN_MAX   (1u << 21) /* entries */
#define KNOWN_FIRST 1024u
#define KNOWN_WAYS  2u

struct known {
    const struct cache_record *record; /* NULL: nothing is known */
    uint64_t txn;                      /* of the snapshot */
    uint64_t word;                     /* checksum ^ obj_id */
    uint64_t tag : 20, slot : 24, url_slot : 20;
};

struct known_table {
    struct known *entry; /* [KNOWN_MAX], zero pages until used */
    uint64_t mask;       /* entries in use - 1 */
};

/* 0 or -ENOMEM. */
int known_init(struct known_table *t);
void known_fini(struct known_table *t);
/* All is forgotten; the records are about to be unmapped. */
void known_clear(struct known_table *t);

/* The entry of the key; NULL: none. */
const struct known *known_find(const struct known_table *t, const struct cache_key *key);
/* Has all that a hit touches fetched from memory at once: the record, its byte of `ref`, its URL's
 * words in the invalidation page. */
void known_prefetch(const struct known *entry, const struct shared *shared);
/* Was this very record verified? Then it is remembered where it lies now. */
bool known_verified(struct known_table *t, const struct cache_record *record, uint64_t txn);
/* It was verified just now. */
void known_add(struct known_table *t, const struct cache_record *record, uint64_t txn);
#endif

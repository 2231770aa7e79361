/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * compress_stored: copies of stored bodies in content codings, made behind the answers; by which,
 * and when, is told in compress_stored.c.
 */
#ifndef POLDER_WORKER_CACHE_COMPRESS_STORED_H
#define POLDER_WORKER_CACHE_COMPRESS_STORED_H
#include "polder/cache.h"
#include "polder/coding.h"

struct worker;

/* A copy of what lies under the key is to be made, unless somebody is at it. */
void compress_stored_want(struct worker *w, const struct cache_key *key, enum coding coding);
/* Where the copy of what lies under source lies. */
void compress_stored_copy_key(const struct worker *w, const struct cache_key *source,
                              enum coding coding, struct cache_key *key);
void compress_stored_stop(struct worker *w);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * compress_stored: encoded variants of stored bodies, made in the background; see compress_stored.c
 * for when and how.
 */
#ifndef POLDER_WORKER_CACHE_COMPRESS_STORED_H
#define POLDER_WORKER_CACHE_COMPRESS_STORED_H
#include "polder/cache.h"
#include "polder/coding.h"

struct worker;

/* Queues the object under the key for compression, unless that is under way. */
void compress_stored_want(struct worker *w, const struct cache_key *key, enum coding coding);
/* The key of the encoded variant of the object under source. */
void compress_stored_copy_key(const struct worker *w, const struct cache_key *source,
                              enum coding coding, struct cache_key *key);
void compress_stored_stop(struct worker *w);

#endif

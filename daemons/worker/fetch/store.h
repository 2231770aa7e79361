/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * store: stores a backend's response while it streams to the client.
 *
 *   store.c       begins, feeds and ends the record in the keeper's ring
 *   tags.c        the tags that it can be invalidated by, of the origin found by origin.c
 *   record.c      what the head becomes in it: record.h
 *   revalidate.c  what renews a stored response without its body
 *
 * A response is being stored while fetch.store is set. The fetch owns that.
 */
#ifndef POLDER_WORKER_FETCH_STORE_H
#define POLDER_WORKER_FETCH_STORE_H
#include "daemons/http/h1.h"
#include "polder/cache.h"
#include "polder/fetch_lock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct fetch;
struct part;
struct policy_response;
struct request;
struct stored_copy;
struct worker;

/* ---- store.c ---- */
/* Begins to store if that may be done (ex->store is set then), else releases the claim. */
void cache_store_begin(struct fetch *ex, const struct h1_head *head);
void cache_store_body(struct fetch *ex, const char *bytes, size_t len);
void cache_store_end(struct fetch *ex);
void cache_store_abort(struct fetch *ex, enum fetch_lock_result result);
/* It bypasses the store because of its identity: Cache-Status says so, and names the fields. */
void cache_store_name_identity(struct fetch *ex);
bool cache_store_compressible(
    const struct fetch *ex); /* copies in codings will be kept of what is stored */
void cache_store_free(struct fetch *ex);
bool cache_store_outlives_client(const struct fetch *ex); /* goes on being stored without it */

/* ---- tags.c ---- */
/* The slots of the tags of the response to r, as of its origin, into rec. False: more than a record
 * can name. */
bool tags_read(const struct request *r, const struct h1_head *head, struct cache_record *rec);
/* What stands above the slots: inval_origin(). */
uint32_t tags_origin(const struct request *r);

/* ---- revalidate.c ---- */
/* Is this 304 about the copy that the validators were sent for, for all clients that may get it? */
bool revalidate_agrees(const struct fetch *ex, const struct h1_head *head);
/* A 200 to HEAD renews what is stored, if it describes the same. */
void revalidate_by_head(struct fetch *ex, const struct h1_head *head);
/* What is stored (ex->stale) with this head's fields goes on being fresh, or is deleted where it
 * may not be stored any more: ex->not_stored. False: it could not be renewed. */
bool revalidate_stored(struct fetch *ex, const struct h1_head *head);
/* A stored head with the fields that a newer response brings in their place; both live until the
 * next call. NULL: it does not fit. */
const struct h1_head *revalidate_merge(struct worker *w, const struct cache_view *old,
                                       const struct h1_head *head);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * partial: parts of bodies: served, joined and stored like whole ones.
 *
 * A struct part belongs to the store that stores it.
 */
#ifndef POLDER_WORKER_FETCH_PARTIAL_H
#define POLDER_WORKER_FETCH_PARTIAL_H
#include "daemons/http/h1.h"
#include "polder/cache.h"
#include "polder/field.h"
#include "polder/policy.h"

#include <stdbool.h>
#include <stdint.h>

struct fetch;
struct hit_found;
struct request;
struct worker;

/* A part being stored: the bytes of the 206, between those of an older part around it. */
struct part {
    struct field_span span; /* in all */
    bool complete;          /* stored as a whole */
    bool joined;
    struct cache_key key; /* joined: of the whole */
    char *before, *after;
    uint64_t before_len, after_len;
};
/* Answers a range from a part of the body, if one that covers it is stored and fresh. */
bool partial_answer(const struct request *r, struct hit_found *found);
/* May others wait for what this range request fetches? Then its lock is shared by all requests of
 * the same range: *key is derived from that of the whole. */
bool partial_is_shareable(const struct request *r);
void partial_lock_key(const struct request *r, struct cache_key *key);
bool partial_is_stored(const struct fetch *ex); /* what it wants may be there, since it looked */
/* A 206 that may be stored as far as it is up to this file; then *head and *resp describe what is
 * to be stored. NULL: it may not. */
struct part *partial_begin(struct fetch *ex, const struct h1_head **head,
                           struct policy_response *resp);
/* Where it goes, from where the whole would. False: nowhere. */
bool partial_place(const struct worker *w, const struct part *part, struct cache_key *key);
void partial_free(struct part *part);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * identity: the caller's identity as the cache sees it: the class of a request (polder/policy.h),
 * the fields that decide it, and how they are passed to the backend and into keys.
 *
 * polder/identity.h has the names. A request is classified once, in prepare.c, when its route has a
 * cache; repeated ones have their class in the connection's repeat.
 */
#ifndef POLDER_WORKER_MESSAGE_IDENTITY_H
#define POLDER_WORKER_MESSAGE_IDENTITY_H
#include "daemons/http/h1.h"
#include "polder/cache.h"
#include "polder/field.h"
#include "polder/identity.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_cache;
struct request;
struct worker;

/* Of a route: made once, from the configuration. */
struct identity_rules {
    const struct config_cache *cache;
    struct identity_filter filter; /* for fields without an id */
    uint8_t tells[H1_FIELD_IDS];   /* identity fields with an id */
    uint32_t number;               /* identity_rules_number() */
    bool covers_all, covers_none;
};
void identity_prepare(struct worker *w);

/* Counts of a route's requests since they were last judged. */
struct identity_counts {
    uint32_t requests;
    uint32_t bypassed, votes; /* of `field` */
    char field[64];           /* "cookie sid" */
};
/* ---- identity_watch.c: a condition if most requests of a route bypass the cache because of one
 * field ---- */
void identity_note_bypass(const struct request *r, const char *detail); /* identity_describe()'s */
void identity_watch(struct worker *w);                                  /* now and then */
void identity_watch_begin(struct worker *w);

/* Sets policy.identity and has_identity, and what of has_authorization is left to RFC 9111. */
void identity_classify(struct request *r);

/* May a request of class POLICY_SHARED be given this? */
bool identity_may_take(const struct request *r, const struct cache_view *v);
/* Does the Vary of this response name each identity field of the request? Only meaningful for
 * POLICY_SHARED; false otherwise. */
bool identity_varies_by_all(const struct request *r, const struct h1_head *response);

/* Does one of these names, a line each, tell who asks? */
bool identity_varies_by_any(const struct request *r, const char *names, size_t len);

/* The part of a partition's key for all identity fields: a keyed hash, written into space. at NULL:
 * there are none. */
#define IDENTITY_TEXT 32
struct str identity_text(const struct request *r, char space[IDENTITY_TEXT]);

/* "identity: authorization, cookie sid": names, never values, of those that the partition does not
 * hold; fit for a quoted string. */
#define IDENTITY_DETAIL 160
void identity_describe(const struct request *r, char out[IDENTITY_DETAIL]);

/* Do some cookies of a request stay here? */
bool identity_edits_cookies(const struct request *r);
/* Does the backend get it? */
bool identity_sends_cookie(const struct request *r, const struct identity_cookie *cookie);
/* A line of Cookie as the backend gets it where the answer may be stored: without what is ignored;
 * nothing, if that is all of it. */
void identity_put_cookie(const struct request *r, struct h1_out *o, const struct h1_field *f);
/* The value of Cookie as a variant is selected by it: without what is ignored. False: absent. */
bool identity_put_selecting(const struct request *r, struct h1_out *o);
/* Removes the identity fields from a head, with all cookies. */
void identity_strip(const struct request *r, struct h1_head *head);

/* The key of the fetches that a request may wait for: those of its class. */
void identity_lock_key(const struct request *r, struct cache_key *key);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * lookup: answers from the store.
 *
 *   lookup.c   decides whether the stored response may be served
 *   stored.c   finds it, and copies what must outlive the lookup
 *   deliver.c  writes it: conditions, ranges, codings, a body chunk by chunk
 *
 * A view lies in the store's map until cache_reader_release(). hit_try() calls that itself; callers
 * of stored_find() have to. A struct stored_copy is freed by the caller.
 */
#ifndef POLDER_WORKER_CACHE_LOOKUP_H
#define POLDER_WORKER_CACHE_LOOKUP_H
#include "daemons/worker/message/request.h"
#include "polder/cache.h"
#include "polder/coding.h"
#include "polder/field.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct compress_stored;
struct guard_check;
struct hit_found;

/* Holds requests that wait for a change: long_poll_unchanged(), long_poll_for_fetch(). */
struct hold_ops {
    bool (*unchanged)(const struct request *r, const struct cache_record *rec,
                      const struct cache_key *key, struct str etag);
    bool (*for_fetch)(const struct request *r, struct hit_found *found);
};
/* Hooks for a sample of the hits. */
struct hit_ops {
    void (*soon_stale)(const struct request *r, const struct cache_record *rec); /* refresh.c */
    /* leak_guard.h: guard_look(), guard_begin(), guard_retry() */
    bool (*look)(const struct request *r, const struct cache_view *v, struct guard_check **check);
    void (*begin)(struct guard_check *check, bool answered);
    void (*retry)(const struct request *r);
};
struct worker;

struct lookups {
    const struct hit_ops *hit_ops;
    const struct hold_ops *hold_ops;
    uint64_t hit_ns; /* what a hit took when last measured */
    uint32_t hit_sample;
    uint64_t chance;                         /* a sequence of random-looking numbers, one a hit */
    struct compress_stored *compress_stored; /* NULL: nothing was yet */
};

/* ---- lookup.c ---- */
/* What lookups leave behind for the miss that may follow. */
struct hit_found {
    bool vary_miss;            /* a vary_record is there, the variant is not */
    bool partial;              /* a part is there, but not what is asked for */
    bool others;               /* stored, but not for this identity (identity_may_take()) */
    struct cache_key key;      /* where the record lies, or would lie */
    uint64_t vary_record;      /* checksum of the vary_record that led there; 0: none */
    struct stored_copy *stale; /* the caller's to free; also set where stale was answered */
};
/* Answers the request from the store if that is allowed. */
bool hit_try(const struct request *r, struct hit_found *found);

/* ---- stored.c ---- */
struct stored_copy {
    struct cache_key key;   /* under which it is stored (the variant's) */
    struct cache_view view; /* into bytes */
    size_t len;
    uint64_t since; /* inval_seq() when it was taken */
    bool pinned;    /* its chunks */
    _Alignas(8) char bytes[];
};
/* 1: a whole record that belongs to the request, in the map until cache_reader_release();
 * found->key is where it lies. 0, or -EIO. */
int stored_find(struct worker *w, const struct request *r, struct cache_view *v,
                struct hit_found *found);
/* Is its URL known to vary? Then *v is the vary_record, in the map as above. */
bool stored_varies(struct worker *w, const struct request *r, struct cache_view *v);
/* The encoded variant of the view's record. 1: *copy is in the map too; 0: none yet; body_len 0:
 * not worth compressing. */
int stored_find_encoded(struct worker *w, const struct cache_view *v, enum coding coding,
                        struct cache_view *copy);
void stored_touch(struct worker *w, const struct cache_record *rec); /* it was of use */
/* The same, by its key alone. */
int stored_at(struct worker *w, const struct request *r, const struct cache_key *key,
              struct cache_view *v);
/* NULL: no memory, or all pins are taken. */
struct stored_copy *stored_copy_of(struct worker *w, const struct request *r,
                                   const struct cache_view *v, const struct cache_key *key);
void stored_copy_free(struct worker *w, struct stored_copy *copy);
#define STORED_VARY_MAX 8192
/* The variant's selecting text "name: value\n…" for the names "a\nb\n"; length or 0 if too long. */
size_t stored_vary_text(const struct request *r, const char *names, size_t names_len, char *out,
                        size_t size);
/* A field of a stored head. name: lower case. */
bool stored_head_field(const char *head, size_t len, const char *name, struct str *value);
bool stored_field(const struct cache_view *view, const char *name, struct str *value);
/* How long the stored response of this request is still fresh, and its whole lifetime; found->stale
 * is a copy of it. False: nothing usable is stored. */
bool stored_left_ms(const struct request *r, struct hit_found *found, uint64_t *left,
                    uint64_t *life);
#define STORED_ETAG_MAX 24
/* The entity tag: the backend's, or the one made of the body's checksum (in space). */
struct str stored_etag(const struct cache_view *v, char space[STORED_ETAG_MAX]);
/* Does it look like one that was made, strong or weak? */
bool stored_etag_is_ours(struct str etag);

/* ---- deliver.c ---- */
/* From a view in the map, which is released before more than the first bytes are sent. A client
 * that has the stored response and prefers to wait for a change is held. soft: an invalidation has
 * ended its freshness; key: of the record. False: the backend has to answer. */
bool deliver_view(struct worker *w, const struct request *r, const struct cache_view *v, bool soft,
                  const struct cache_key *key);
/* Bytes first..last of the whole, which lie within the stored part. False: the backend has to
 * answer. The caller releases the view. */
bool deliver_part(struct worker *w, const struct request *r, const struct cache_view *v,
                  const struct field_span *part, uint64_t first, uint64_t last);
/* From a copy. status: what Cache-Status says after "polder; ", e.g. "hit; ttl=-3". */
void deliver_copy(const struct request *r, struct stored_copy *copy, const char *status);
void answer_continue(struct client *c); /* more of a chunked stored body */
void answer_stop(struct client *c);
/* Is its body read from the store chunk by chunk? */
static inline bool answer_needs_chunks(const struct request *r, const struct cache_record *rec)
{
    return rec->flags & CACHE_CHUNKED_BODY && !r->is_head && rec->body_len > 0;
}

#endif

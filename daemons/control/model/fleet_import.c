/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_import: see fleet_import.h. */
#include "daemons/control/model/fleet_import.h"
#include "daemons/control/control.h"
#include "daemons/control/model/fleet.h"
#include "polder/clock.h"
#include "polder/head_lines.h"
#include "polder/inval.h"
#include "polder/shared.h"
#include "polder/tags.h"

#include <errno.h>
#include <string.h>

/* What the flags of a response mean on every host. */
#define KEPT_FLAGS                                                                                 \
    (uint32_t)(CACHE_MUST_REVALIDATE | CACHE_NO_CACHE | CACHE_AUTH_OK | CACHE_ETAG_OURS |          \
               CACHE_HAS_ETAG | CACHE_HAS_LAST_MODIFIED | CACHE_SLOW | CACHE_COMPRESSIBLE |        \
               CACHE_FOR_OTHERS | CACHE_ORIGIN_OK | CACHE_CHUNKED_BODY)

#define KEPT_MIN_MS ((uint64_t)60 * 1000)   /* what can be validated, behind its lifetime */
#define KEPT_MAX_MS ((uint64_t)3600 * 1000) /* and whatever may be stale, at most */
#define NEWER_MS    100                     /* less than that is the difference of two clocks */

/* From one clock to another; 0 stays what it is. */
static void move_times(struct cache_record *r, uint64_t from_ms, uint64_t to_ms)
{
    uint64_t *const times[] = {&r->received_ms, &r->fresh_until_ms, &r->swr_until_ms,
                               &r->sie_until_ms};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        if (*times[i])
            *times[i] += to_ms - from_ms;
}

/* ---- to the store ---- */

/* What this host alone can make something of. */
static void strip(struct cache_record *r)
{
    r->checksum = r->obj_id = r->fetch_seq = 0;
    r->slot = r->url_slot = 0;
    r->flags &= KEPT_FLAGS;
    memset(&r->key, 0, sizeof r->key);
    memset(r->tag_slot, 0, sizeof r->tag_slot);
}

static uint64_t max_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool has_validators(const struct cache_record *r)
{
    return (r->flags & CACHE_HAS_ETAG && !(r->flags & CACHE_ETAG_OURS)) ||
           r->flags & CACHE_HAS_LAST_MODIFIED;
}

static uint64_t useful_until_ms(const struct cache_record *r, uint64_t interval_ms)
{
    return max_of(r->fresh_until_ms, r->received_ms + interval_ms);
}

/* From now on; 0: it is of no use to anyone. */
static uint64_t kept_ms(const struct cache_record *r, uint64_t interval_ms, uint64_t real_ms)
{
    const uint64_t until = useful_until_ms(r, interval_ms);
    uint64_t last = max_of(until, max_of(r->swr_until_ms, r->sie_until_ms));
    if (until <= real_ms)
        return 0;
    if (has_validators(r))
        last = max_of(last, until + max_of(until - real_ms, KEPT_MIN_MS));
    return (last < until + KEPT_MAX_MS ? last : until + KEPT_MAX_MS) - real_ms;
}

/* The names in the text that selects a variant: "a: 1\nb\n" is "a\nb\n". */
static size_t names_of(struct str vary, char *out)
{
    char *at = out;
    struct str line, value;
    while (head_line_next(&vary, &line)) {
        const struct str name = head_line_name(line, &value);
        at = mempcpy(at, name.at, name.len);
        *at++ = '\n';
    }
    return (size_t)(at - out);
}

/* What says by which fields its URL varies, as a worker stores it. */
static size_t export_marks(const struct fleet_object *o, const struct fleet_key *key,
                           const struct fleet_object_name *url, uint8_t out[FLEET_OBJECT_MAX])
{
    static _Alignas(8) char space[RING_RECORD_MAX];
    struct cache_record *marks = (struct cache_record *)(void *)space;
    const struct cache_record *r = o->record;
    char *texts = (char *)(marks + 1);
    *marks = *r;
    marks->flags = CACHE_VARY_RECORD;
    marks->head_len = marks->inline_len = marks->n_tags = 0;
    marks->body_len = 0;
    memcpy(texts, r + 1, r->url_len);
    marks->vary_len = (uint32_t)names_of(
        (struct str){(const char *)(r + 1) + r->url_len, r->vary_len}, texts + r->url_len);
    const struct fleet_object vary = {.epoch = o->epoch,
                                      .applied = o->applied,
                                      .record = marks,
                                      .record_len = cache_record_len(marks)};
    return fleet_object_write(&vary, key, url, out);
}

/* A worker may have written anything. */
static bool is_handed_well(const struct fleet_put *put, const struct cache_record *r, size_t len)
{
    const uint64_t texts = (uint64_t)put->partition_len + put->origin_len;
    return texts <= len - sizeof *r && cache_record_fits(r, len - texts) &&
           !(r->flags & ~KEPT_FLAGS);
}

void fleet_export(struct fleet *f, const struct fleet_key *key, const struct fleet_handed *handed,
                  struct fleet_exported *out)
{
    static _Alignas(8) char space[RING_RECORD_MAX];
    static uint8_t bytes[FLEET_OBJECT_MAX], marks[FLEET_OBJECT_MAX];
    struct fleet_put put;
    struct cache_record *r = (struct cache_record *)(void *)space;
    size_t len = handed->len;
    *out = (struct fleet_exported){.bytes = bytes, .marks = marks};
    if (len < sizeof put + sizeof *r)
        return;
    memcpy(&put, handed->payload, sizeof put);
    len -= sizeof put;
    memcpy(space, handed->payload + sizeof put, len);
    if (!is_handed_well(&put, r, len))
        return;
    const size_t record_len = len - put.partition_len - put.origin_len;
    const char *texts = (const char *)(r + 1);
    struct fleet_object_of what = {.url = {texts, r->url_len},
                                   .partition = {space + record_len, put.partition_len}};
    fleet_object_name_of(key, &what, &out->url);
    what.vary = (struct str){texts + r->url_len, r->vary_len};
    fleet_object_name_of(key, &what, &out->name);
    const uint64_t real_ms = clock_real_ms();
    out->ms = kept_ms(r, put.interval_ms, real_ms);
    if (!fleet_is_member(f) || !out->ms)
        return;
    strip(r);
    move_times(r, real_ms, fleet_store_now_ms(f));
    const struct fleet_object o = {.epoch = put.epoch,
                                   .applied = put.applied,
                                   .record = r,
                                   .record_len = record_len,
                                   .origin = space + len - put.origin_len,
                                   .origin_len = put.origin_len,
                                   .body = handed->body.at,
                                   .body_len = handed->body.len};
    out->len = fleet_object_write(&o, key, &out->name, bytes);
    if (out->len && r->vary_len && put.marks) /* now its vary text is known to be sound */
        out->marks_len = export_marks(&o, key, &out->url, marks);
}

/* ---- and back ---- */

struct tagging {
    const struct inval_page *page;
    struct cache_record *record;
    uint32_t origin, n;
};

static void add_tag(void *arg, struct str tag)
{
    struct tagging *t = arg;
    const uint32_t slot = inval_tag_slot(t->page, tag.at, tag.len) | t->origin;
    for (uint32_t i = 0; i < t->n && i < CACHE_TAGS_MAX; i++)
        if (t->record->tag_slot[i] == slot)
            return;
    if (tag.len && t->n < CACHE_TAGS_MAX)
        t->record->tag_slot[t->n] = slot;
    t->n += tag.len != 0;
}

static void tag_line(struct tagging *t, struct str line)
{
    tags_each_of_line(line, add_tag, t);
}

/* The slots of its tags here. False: not as many as it had where it was fetched. */
static bool take_tags(const struct inval_page *page, struct cache_record *r,
                      const struct fleet_object *o)
{
    struct cache_view v;
    struct str line;
    cache_view_of(r, &v);
    struct tagging t = {page, r, inval_origin(page, o->origin, o->origin_len), 0};
    struct str rest = {v.head, r->head_len};
    while (head_line_next(&rest, &line))
        tag_line(&t, line);
    return t.n == r->n_tags;
}

/* Whether invalidations have left anything of it, and where it stands among them. */
static bool has_been_kept(struct control *c, struct fleet *f, const struct fleet_object *o,
                          struct cache_record *r, bool *softened)
{
    const struct inval_page *page = c->shared->inval;
    if (!fleet_seq_of(f, o->epoch, o->applied, &r->fetch_seq) ||
        r->fetch_seq < inval_ban_floor(page))
        return false;
    const enum inval_state state = cache_record_state(page, r, r->fetch_seq);
    *softened = state == INVAL_SOFT;
    return state != INVAL_HARD;
}

struct pushing {
    struct control *c;
    uint64_t stream; /* 0: the body is in the record */
};

static bool push(const struct pushing *p, enum ring_type type, const struct fetch_permit *permit,
                 const struct iovec *iov, int n)
{
    struct control *c = p->c;
    const struct ring_record head = {.type = (uint16_t)type,
                                     .incarnation = c->process->incarnation,
                                     .stream = p->stream,
                                     .permit = permit ? *permit : FETCH_LOCK_NONE};
    return ring_push(c->shared->ring[SHARED_RING_CONTROL], &head, iov, n,
                     c->shared->keeper_event) == 0;
}

static struct iovec bytes_of(const void *at, size_t len)
{
    return (struct iovec){(void *)(uintptr_t)at, len};
}

static bool push_chunks(const struct pushing *p, const struct fetch_permit *permit,
                        const struct fleet_object *o)
{
    const uint64_t body_len = o->body_len;
    const struct iovec end = {(void *)(uintptr_t)&body_len, sizeof body_len};
    for (size_t at = 0; at < o->body_len; at += CACHE_CHUNK) {
        const size_t left = o->body_len - at;
        const struct iovec iov = bytes_of(o->body + at, left < CACHE_CHUNK ? left : CACHE_CHUNK);
        if (!push(p, RING_CHUNK, NULL, &iov, 1))
            return false;
    }
    return push(p, RING_END, permit, &end, 1);
}

static bool push_object(const struct pushing *p, const struct fetch_permit *permit,
                        const struct fleet_object *o)
{
    const struct iovec whole = bytes_of(o->record, o->record_len);
    if (!p->stream)
        return push(p, RING_STORE, permit, &whole, 1);
    if (push(p, RING_BEGIN, NULL, &whole, 1) && push_chunks(p, permit, o))
        return true;
    push(p, RING_ABORT, NULL, NULL, 0);
    return false;
}

static enum fleet_import_result hand_over(struct control *c, const struct fleet_question *q,
                                          const struct fleet_object *o,
                                          enum fleet_import_result result)
{
    static uint64_t streams;
    const struct pushing p = {c, o->body_len ? ++streams : 0};
    if (ring_room(c->shared->ring[SHARED_RING_CONTROL]) < 2 * (RING_RECORD_MAX + o->body_len))
        return FLEET_IMPORT_FULL;
    return push_object(&p, q->permit, o) ? result : FLEET_IMPORT_FULL;
}

/* Is it what was asked for? A URL of which variants are known varies: that is asked for first. */
static bool is_requested(const struct cache_record *r, const struct fleet_question *q)
{
    const char *url = (const char *)(r + 1), *vary = url + r->url_len;
    if (r->url_len != q->what.url.len || memcmp(url, q->what.url.at, r->url_len) != 0)
        return false;
    if (r->flags & CACHE_VARY_RECORD)
        return !q->what.vary.len;
    return r->vary_len == q->what.vary.len && !memcmp(vary, q->what.vary.at, r->vary_len);
}

/* From here on it is as if it had been fetched here. */
static void settle(const struct control *c, const struct fleet *f, const struct fleet_question *q,
                   struct cache_record *r)
{
    const uint64_t real_ms = clock_real_ms();
    const bool varies = r->flags & CACHE_VARY_RECORD;
    strip(r);
    r->flags |= varies ? CACHE_VARY_RECORD : CACHE_FROM_FLEET;
    move_times(r, fleet_store_now_ms(f), real_ms);
    if (r->received_ms > real_ms)
        r->received_ms = real_ms;
    r->key = q->ask->key;
    r->url_slot = inval_url_slot(c->shared->inval, q->what.url.at, q->what.url.len);
    if (q->what.vary.len)
        cache_key_variant(inval_secret(c->shared->inval), &q->ask->key, q->what.vary.at,
                          q->what.vary.len, &r->key);
}

static enum fleet_import_result judge(const struct cache_record *r, const struct fleet_ask *ask,
                                      bool softened)
{
    const uint64_t real_ms = clock_real_ms();
    if (r->flags & CACHE_VARY_RECORD)
        return FLEET_IMPORT_VARIES;
    if (r->rules != ask->rules)
        return FLEET_IMPORT_OVERTAKEN;
    if (!softened && real_ms < useful_until_ms(r, ask->interval_ms))
        return ask->newer_ms && r->fresh_until_ms <= ask->newer_ms + NEWER_MS ? FLEET_IMPORT_OLD
                                                                              : FLEET_IMPORT_TAKEN;
    if (ask->has_stale || !(has_validators(r) || real_ms < r->swr_until_ms))
        return FLEET_IMPORT_OLD;
    return FLEET_IMPORT_STALE;
}

enum fleet_import_result fleet_import(struct control *c, struct fleet *f,
                                      const struct fleet_key *key, const struct fleet_question *q,
                                      const uint8_t *bytes, size_t len)
{
    static _Alignas(8) char space[FLEET_OBJECT_PLAIN];
    struct cache_record *r = (struct cache_record *)(void *)space;
    struct fleet_object o;
    bool softened = false;
    if (fleet_object_read(bytes, len, key, q->name, space, &o) || !is_requested(r, q))
        return FLEET_IMPORT_STRANGE;
    settle(c, f, q, r);
    if (fleet_is_behind(f, o.epoch, o.applied))
        return FLEET_IMPORT_AHEAD;
    if (!take_tags(c->shared->inval, r, &o))
        return FLEET_IMPORT_STRANGE;
    if (!has_been_kept(c, f, &o, r, &softened))
        return FLEET_IMPORT_OVERTAKEN;
    const enum fleet_import_result result = judge(r, q->ask, softened);
    return result <= FLEET_IMPORT_STALE ? hand_over(c, q, &o, result) : result;
}

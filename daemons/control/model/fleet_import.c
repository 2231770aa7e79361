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

size_t fleet_export(struct fleet *f, const struct fleet_key *key, const struct fleet_handed *handed,
                    uint8_t out[FLEET_OBJECT_MAX], struct fleet_object_name *name, uint64_t *ms)
{
    static _Alignas(8) char space[RING_RECORD_MAX];
    struct fleet_put put;
    struct cache_record *r = (struct cache_record *)(void *)space;
    size_t len = handed->len;
    *name->hex = 0;
    if (len < sizeof put + sizeof *r)
        return 0;
    memcpy(&put, handed->payload, sizeof put);
    len -= sizeof put;
    memcpy(space, handed->payload + sizeof put, len);
    const uint64_t texts = (uint64_t)put.names_len + put.origin_len;
    if (texts > len - sizeof *r || !cache_record_fits(r, len - texts) || r->flags & ~KEPT_FLAGS)
        return 0;
    fleet_object_name_of(key, (const char *)(r + 1), r->url_len, name);
    const uint64_t real_ms = clock_real_ms();
    if (!fleet_is_member(f) || r->fresh_until_ms <= real_ms)
        return 0;
    *ms = r->fresh_until_ms - real_ms;
    strip(r);
    move_times(r, real_ms, fleet_store_now_ms(f));
    const struct fleet_object o = {.epoch = put.epoch,
                                   .applied = put.applied,
                                   .record = r,
                                   .record_len = len - texts,
                                   .names = space + (len - texts),
                                   .names_len = put.names_len,
                                   .origin = space + len - put.origin_len,
                                   .origin_len = put.origin_len,
                                   .body = handed->body.at,
                                   .body_len = handed->body.len};
    return fleet_object_write(&o, key, name, out);
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

static bool has_been_kept(struct control *c, struct fleet *f, const struct fleet_object *o,
                          struct cache_record *r)
{
    const struct inval_page *page = c->shared->inval;
    return fleet_seq_of(f, o->epoch, o->applied, &r->fetch_seq) &&
           r->fetch_seq >= inval_ban_floor(page) &&
           cache_record_state(page, r, r->fetch_seq) == INVAL_VALID;
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

/* As a worker does: the vary_record after its variant, with the permit. */
static bool push_all(struct control *c, const struct fleet_question *q,
                     const struct fleet_object *o)
{
    static uint64_t streams;
    const struct pushing p = {c, o->body_len ? ++streams : 0}, alone = {c, 0};
    if (ring_room(c->shared->ring[SHARED_RING_CONTROL]) < 2 * (RING_RECORD_MAX + o->body_len))
        return false;
    if (!push_object(&p, o->names_len ? NULL : q->permit, o))
        return false;
    if (!o->names_len)
        return true;
    struct cache_record vary = *o->record;
    vary.key = q->ask->key;
    vary.flags = CACHE_VARY_RECORD;
    vary.vary_len = (uint32_t)o->names_len;
    vary.head_len = vary.inline_len = vary.n_tags = 0;
    vary.body_len = 0;
    memset(vary.tag_slot, 0, sizeof vary.tag_slot);
    const struct iovec iov[] = {bytes_of(&vary, sizeof vary), bytes_of(o->record + 1, vary.url_len),
                                bytes_of(o->names, o->names_len)};
    return push(&alone, RING_STORE, q->permit, iov, 3);
}

enum fleet_import_result fleet_import(struct control *c, struct fleet *f,
                                      const struct fleet_key *key, const struct fleet_question *q,
                                      const uint8_t *bytes, size_t len)
{
    static _Alignas(8) char space[FLEET_OBJECT_PLAIN];
    const uint8_t *secret = inval_secret(c->shared->inval);
    const uint64_t real_ms = clock_real_ms();
    struct cache_record *r = (struct cache_record *)(void *)space;
    struct fleet_object o;
    if (fleet_object_read(bytes, len, key, q->name, space, &o) || r->url_len != q->url_len ||
        memcmp(r + 1, q->url, q->url_len) != 0)
        return FLEET_IMPORT_STRANGE;
    strip(r);
    move_times(r, fleet_store_now_ms(f), real_ms);
    r->flags |= CACHE_FROM_FLEET;
    r->key = q->ask->key;
    r->url_slot = inval_url_slot(c->shared->inval, q->url, q->url_len);
    if (r->vary_len)
        cache_key_variant(secret, &q->ask->key, (const char *)(r + 1) + r->url_len, r->vary_len,
                          &r->key);
    if (!take_tags(c->shared->inval, r, &o))
        return FLEET_IMPORT_STRANGE;
    if (r->rules != q->ask->rules || r->fresh_until_ms <= real_ms || !has_been_kept(c, f, &o, r))
        return FLEET_IMPORT_OVERTAKEN;
    return push_all(c, q, &o) ? FLEET_IMPORT_TAKEN : FLEET_IMPORT_FULL;
}

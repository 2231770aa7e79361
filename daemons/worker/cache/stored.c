/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * stored: what the store has for a request, and copies of it.
 *
 * A view lies in the map and lives until cache_reader_release(), in the same callback. What has to
 * outlive that (a stale answer in reserve, what a 304 will renew) is copied; of a body in chunks
 * the chunks are pinned instead.
 */
#include "daemons/worker/cache/lookup.h"
#include "daemons/http/h1.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/cache/compress_stored.h"
#include "daemons/worker/keeper_link.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/route_state.h"
#include "polder/leak_guard.h"
#include "polder/inval.h"
#include "polder/stats.h"
#include "polder/access_bits.h"
#include "polder/head_lines.h"
#include "polder/hex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void damaged(struct worker *w, const struct cache_key *key)
{
    stats_add(w->stats, STATS_CACHE_BAD_RECORDS, 1);
    keeper_link_delete(w, key);
}

/* What selects a variant by a field, as the backend would get that. */
static bool put_selecting(const struct request *r, struct str name, struct h1_out *o)
{
    return identity_edits_cookies(r) && field_is(name, "cookie") ? identity_put_selecting(r, o)
                                                                 : h1_selecting(r->head, name, o);
}

size_t stored_vary_text(const struct request *r, const char *names, size_t names_len, char *out,
                        size_t size)
{
    struct h1_out o = {out, out + size, false};
    const char *end = names + names_len;
    while (names < end) {
        const char *stop = memchr(names, '\n', (size_t)(end - names));
        if (!stop)
            break;
        const struct str name = {names, (size_t)(stop - names)};
        h1_put(&o, name.at, name.len);
        const struct h1_out absent = o;
        h1_put(&o, ": ", 2);
        if (!put_selecting(r, name, &o))
            o = absent;
        h1_put(&o, "\n", 1);
        names = stop + 1;
    }
    return o.overflow ? 0 : (size_t)(o.at - out);
}

static bool same_url(const struct request *r, const struct cache_view *v)
{
    return v->record->url_len == r->url_len && !memcmp(v->url, r->url, r->url_len);
}

/* The variant that this request selects. 1, 0, -EIO. */
static int find_variant(struct worker *w, const struct request *r, struct cache_view *v,
                        struct hit_found *found)
{
    const struct cache_record *vary_record = v->record;
    found->vary_record = vary_record->checksum;
    found->vary_miss = true;
    if (!r->head) { /* the same bytes as before select the same variant of the same vary_record */
        if (vary_record->checksum != r->vary_record)
            return 0;
        found->key = r->variant;
    } else {
        char text[STORED_VARY_MAX];
        const size_t n = stored_vary_text(r, v->vary, vary_record->vary_len, text, sizeof text);
        if (!n)
            return 0;
        cache_key_variant(inval_secret(w->shared->inval), &r->key, text, n, &found->key);
    }
    const int rc = cache_reader_get(w->reader, &found->key, v);
    found->vary_miss = rc != 1;
    return rc;
}

int stored_at(struct worker *w, const struct request *r, const struct cache_key *key,
              struct cache_view *v)
{
    const int rc = cache_reader_get(w->reader, key, v);
    if (rc < 0)
        damaged(w, key);
    return rc == 1 && same_url(r, v) ? 1 : 0;
}

static bool is_vary_record(const struct worker *w, const struct cache_record *rec, const char *url)
{
    return rec->flags & CACHE_VARY_RECORD &&
           inval_check(w->shared->inval, rec->fetch_seq, rec->url_slot, NULL, 0, url,
                       rec->url_len) != INVAL_HARD;
}

bool stored_varies(struct worker *w, const struct request *r, struct cache_view *v)
{
    return cache_reader_get(w->reader, &r->key, v) == 1 && same_url(r, v) &&
           is_vary_record(w, v->record, v->url);
}

int stored_find(struct worker *w, const struct request *r, struct cache_view *v,
                struct hit_found *found)
{
    found->key = r->key;
    int rc = cache_reader_get(w->reader, &r->key, v);
    if (rc == 1 && v->record->flags & CACHE_VARY_RECORD) {
        if (!is_vary_record(w, v->record, v->url))
            return 0;
        rc = find_variant(w, r, v, found);
    }
    if (rc < 0)
        damaged(w, &found->key);
    return rc == 1 && same_url(r, v) ? 1 : 0;
}

int stored_find_encoded(struct worker *w, const struct cache_view *v, enum coding coding,
                        struct cache_view *copy)
{
    struct cache_key key;
    compress_stored_copy_key(w, &v->record->key, coding, &key);
    const int rc = cache_reader_get(w->reader, &key, copy);
    if (rc < 0)
        damaged(w, &key);
    return rc == 1 && copy->record->source_id == v->record->obj_id;
}

void stored_touch(struct worker *w, const struct cache_record *rec)
{
    w->lookups->chance = w->lookups->chance * UINT64_C(0x5851f42d4c957f2d) + 1;
    if (rec->slot < CACHE_SLOTS_MAX)
        access_bits_touch(&w->shared->ref[rec->slot], (uint32_t)(w->lookups->chance >> 32));
}

/* ---- its fields ---- */

bool stored_head_field(const char *head, size_t len, const char *name, struct str *value)
{
    return head_lines_find((struct str){head, len}, (struct str){name, strlen(name)}, value);
}

bool stored_field(const struct cache_view *view, const char *name, struct str *value)
{
    return stored_head_field(view->head, view->record->head_len, name, value);
}

struct str stored_etag(const struct cache_view *v, char space[STORED_ETAG_MAX])
{
    const struct cache_record *rec = v->record;
    struct str t = {0};
    if (rec->flags & CACHE_ETAG_OURS) {
        const uint64_t hash = rec->flags & CACHE_CHUNKED_BODY ? rec->body_checksum : rec->etag_hash;
        memcpy(space, "\"p-", 3);
        hex_put(hash, space + 3);
        space[3 + HEX_DIGITS] = '"';
        return (struct str){space, 4 + HEX_DIGITS};
    }
    if (rec->flags & CACHE_HAS_ETAG)
        stored_field(v, "etag", &t);
    return t;
}

bool stored_etag_is_ours(struct str etag)
{
    if (etag.len > 2 && etag.at[0] == 'W') {
        etag.at += 2;
        etag.len -= 2;
    }
    if (etag.len != 20 || memcmp(etag.at, "\"p-", 3) != 0)
        return false;
    for (size_t i = 3; i < 19; i++)
        if (!memchr("0123456789abcdef", etag.at[i], 16))
            return false;
    return true;
}

/* ---- copies ---- */

struct stored_copy *stored_copy_of(struct worker *w, const struct request *r,
                                   const struct cache_view *v, const struct cache_key *key)
{
    const struct cache_record *rec = v->record;
    const size_t len = sizeof *rec + rec->url_len + rec->vary_len + rec->head_len +
                       (v->body ? rec->inline_len : 0);
    struct stored_copy *copy = malloc(sizeof *copy + len);
    if (!copy)
        return NULL;
    copy->key = *key;
    copy->len = len;
    copy->since = inval_seq(w->shared->inval);
    copy->pinned = false;
    memcpy(copy->bytes, rec, len);
    cache_view_of(copy->bytes, &copy->view);
    if (answer_needs_chunks(r, rec)) {
        copy->pinned = cache_reader_pin(w->reader, rec->obj_id);
        if (!copy->pinned) {
            free(copy);
            return NULL;
        }
    }
    return copy;
}

void stored_copy_free(struct worker *w, struct stored_copy *copy)
{
    if (copy && copy->pinned && w->reader)
        cache_reader_unpin(w->reader, copy->view.record->obj_id);
    free(copy);
}

bool stored_left_ms(const struct request *r, struct hit_found *found, uint64_t *left,
                    uint64_t *life)
{
    struct worker *w = r->worker;
    struct cache_view v;
    bool there = false;
    if (!reader_ready(w))
        return false;
    if (stored_find(w, r, &v, found) == 1) {
        const struct cache_record *rec = v.record;
        const enum inval_state state = cache_record_state(w->shared->inval, rec, rec->fetch_seq);
        uint64_t until = rec->fresh_until_ms;
        if (request_interval_ms(r) && until < rec->received_ms + request_interval_ms(r))
            until = rec->received_ms + request_interval_ms(r);
        there = state != INVAL_HARD && policy_suits_origin(&r->policy, rec) &&
                (r->policy.identity != POLICY_SHARED || identity_may_take(r, &v)) &&
                rec->rules == w->routes[r->route->index].identity.number &&
                guard_lets(w->routes[r->route->index].guard, rec->fetch_seq, r->url, r->url_len);
        if (there) {
            *left = state == INVAL_VALID && until > w->real_ms ? until - w->real_ms : 0;
            *life = until > rec->received_ms ? until - rec->received_ms : 0;
            found->stale = stored_copy_of(w, r, &v, &found->key);
        }
    }
    cache_reader_release(w->reader);
    return there;
}

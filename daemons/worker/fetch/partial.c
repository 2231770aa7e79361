/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * partial: parts of bodies, as 206 brings them (RFC 9111 3.3, 3.4; RFC 9110 15.3.7).
 *
 * Of each representation one contiguous part is kept beside where the whole would be, as the 206
 * that it is: with a Content-Range of its own, under a key that only this file knows, so that no
 * other way through the store can take it for a whole. It answers ranges within it. Another part
 * that touches it, of the same length in all and with the same strong entity tag, is joined to it;
 * any other takes its place. The part that is all of it is stored as the 200 that it is. What was
 * asked for with If-Range is not kept, for such an answer may lack fields of the whole's head.
 */
#include "daemons/worker/fetch/partial.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/message/tenants.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/route_state.h"
#include "polder/leak_guard.h"
#include "polder/inval.h"
#include "polder/stats.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define RANGE_MAX 128        /* of a Range field that others may share */
#define COPY_MAX  (1u << 20) /* bytes of the older part that are copied when two are joined */

static void part_key(const struct worker *w, const struct cache_key *whole, struct cache_key *key)
{
    static const char name[] = "\nrange"; /* no field of a variant's has such a name */
    const struct cache_key of = *whole;
    cache_key_variant(inval_secret(w->shared->inval), &of, name, sizeof name - 1, key);
}

/* The part that is stored where the whole would be found->key. The transaction stays open. */
static bool find(struct worker *w, const struct request *r, const struct hit_found *found,
                 struct cache_view *v, struct field_span *span)
{
    struct cache_key key;
    struct str range;
    part_key(w, &found->key, &key);
    if (stored_at(w, r, &key, v) != 1 || v->record->status != 206)
        return false;
    const struct cache_record *rec = v->record;
    return stored_field(v, "content-range", &range) && field_content_range(range, span) == 0 &&
           rec->body_len == span->last - span->first + 1 &&
           cache_record_state(w->shared->inval, rec, rec->fetch_seq) == INVAL_VALID &&
           policy_suits_origin(&r->policy, rec) &&
           rec->rules == w->routes[r->route->index].identity.number &&
           guard_lets(w->routes[r->route->index].guard, rec->fetch_seq, r->url, r->url_len);
}

/* ---- answering ---- */

/* Of two stored responses the newer one counts (RFC 9111 4). The clock ticks each 4 ms: of those of
 * one tick it is the one that was stored later. */
static bool is_older(const struct cache_record *a, const struct cache_record *b)
{
    return a->received_ms != b->received_ms ? a->received_ms < b->received_ms
                                            : a->obj_id < b->obj_id;
}

static bool is_for_others(const struct request *r, const struct cache_view *v)
{
    return r->policy.identity == POLICY_SHARED && !identity_may_take(r, v);
}

/* A fresh part, newer than any whole, fresh or not, that has all of the range. */
struct covering {
    struct cache_view view;
    struct field_span span;
    uint64_t first, last;
};
static bool find_covering(struct worker *w, const struct request *r, struct hit_found *partly,
                          struct covering *c)
{
    struct hit_found found = {0};
    struct cache_view whole;
    const bool has_whole = stored_find(w, r, &whole, &found) == 1;
    if (!find(w, r, &found, &c->view, &c->span))
        return false;
    if (is_for_others(r, &c->view)) {
        partly->others = true;
        return false;
    }
    if ((has_whole && is_older(c->view.record, whole.record)) ||
        policy_use_of(&r->policy, c->view.record, false, w->real_ms) != POLICY_FRESH)
        return false;
    partly->partial = true;
    return field_range(r->range, c->span.size, &c->first, &c->last) == 1 &&
           c->first >= c->span.first && c->last <= c->span.last;
}

static bool deliver_from_part(struct worker *w, const struct request *r, struct hit_found *found)
{
    struct covering c;
    if (!find_covering(w, r, found, &c))
        return false;
    stored_touch(w, c.view.record);
    return deliver_part(w, r, &c.view, &c.span, c.first, c.last);
}

bool partial_answer(const struct request *r, struct hit_found *found)
{
    struct worker *w = r->worker;
    if (!r->policy.is_get || !r->policy.has_range || !reader_ready(w))
        return false;
    const bool answered = deliver_from_part(w, r, found);
    cache_reader_release(w->reader);
    if (answered) {
        route_stats_lookup(w, r->route, STATS_LOOKUP_HIT);
        tenants_count(r, TENANTS_HITS);
    }
    return answered;
}

/* ---- sharing ---- */

/* The answer to a conditional request is for its client alone. */
bool partial_is_shareable(const struct request *r)
{
    return r->policy.is_get && r->range.len && r->range.len <= RANGE_MAX && !r->if_range.at &&
           !r->if_none_match.at && !r->if_modified_since.at && !r->route->poll;
}

void partial_lock_key(const struct request *r, struct cache_key *key)
{
    static const char name[] = "\nflight ";
    char text[sizeof name + RANGE_MAX];
    struct h1_out o = {text, text + sizeof text, false};
    const struct cache_key whole = *key;
    h1_puts(&o, name);
    h1_put(&o, r->range.at, r->range.len <= RANGE_MAX ? r->range.len : 0);
    cache_key_variant(inval_secret(r->worker->shared->inval), &whole, text, (size_t)(o.at - text),
                      key);
}

bool partial_is_stored(const struct fetch *ex)
{
    struct worker *w = ex->worker;
    struct hit_found found = {0};
    struct covering c;
    if (!reader_ready(w))
        return false;
    const bool there = find_covering(w, &ex->req, &found, &c);
    cache_reader_release(w->reader);
    return there;
}

/* ---- storing ---- */

void partial_free(struct part *part)
{
    if (!part)
        return;
    free(part->before);
    free(part->after);
    free(part);
}

/* Bytes of the stored body from `at` on. */
static bool copy_bytes(struct worker *w, const struct cache_view *v, uint64_t at, char *to,
                       size_t len)
{
    if (v->body) {
        memcpy(to, v->body + at, len);
        return true;
    }
    while (len) {
        const char *data;
        size_t n;
        const size_t skip = at % CACHE_CHUNK;
        if (cache_reader_chunk(w->reader, v->record->obj_id, (uint32_t)(at / CACHE_CHUNK), &data,
                               &n) != 1 ||
            n <= skip)
            return false;
        n = n - skip < len ? n - skip : len;
        memcpy(to, data + skip, n);
        to += n;
        at += n;
        len -= n;
    }
    return true;
}

/* A copy of len bytes; true also where there are none. */
static bool take_bytes(struct worker *w, const struct cache_view *v, uint64_t at, uint64_t len,
                       char **out)
{
    *out = len ? malloc((size_t)len) : NULL;
    return len == 0 || (*out && copy_bytes(w, v, at, *out, (size_t)len));
}

/* What the older part has before and behind the new one. */
static bool take_around(struct worker *w, const struct cache_view *v, const struct field_span *old,
                        const struct field_span *joined, struct part *part)
{
    const struct field_span *span = &part->span;
    part->before_len = span->first - joined->first;
    part->after_len = joined->last - span->last;
    return part->before_len + part->after_len <= COPY_MAX &&
           take_bytes(w, v, joined->first - old->first, part->before_len, &part->before) &&
           take_bytes(w, v, span->last + 1 - old->first, part->after_len, &part->after);
}

/* Joins an older part of the same representation to the new one. NULL: there is none that can be;
 * else the older head, as the newer one renews it (RFC 9111 3.4). */
static const struct h1_head *join(struct fetch *ex, const struct h1_head *head, struct part *part)
{
    struct worker *w = ex->worker;
    const struct policy_settings *settings = &w->routes[ex->req.route->index].settings;
    const struct str etag = h1_find(head, H1_ETAG)->value;
    struct hit_found found = {0};
    struct cache_view v;
    struct str old_etag;
    struct field_span old, joined;
    stored_find(w, &ex->req, &v, &found); /* for the key */
    if (!find(w, &ex->req, &found, &v, &old) || !stored_field(&v, "etag", &old_etag) ||
        !field_etag_listed(etag, old_etag, false) || !field_span_join(&old, &part->span, &joined) ||
        joined.last - joined.first >= settings->value.max_body)
        return NULL;
    const struct h1_head *merged =
        take_around(w, &v, &old, &joined, part) ? revalidate_merge(w, &v, head) : NULL;
    if (!merged) {
        free(part->before);
        free(part->after);
        *part = (struct part){.span = part->span};
        return NULL;
    }
    part->span = joined;
    part->joined = true;
    part->key = found.key;
    return merged;
}

/* Of several parts, whose ranges stand between them. */
static bool is_multipart(const struct h1_head *head)
{
    static const char type[] = "multipart/byteranges";
    const struct h1_field *f = h1_only(head, H1_CONTENT_TYPE);
    if (!f)
        return h1_find(head, H1_CONTENT_TYPE) != NULL; /* of two it is unknown which */
    return f->value.len >= sizeof type - 1 && !strncasecmp(f->value.at, type, sizeof type - 1);
}

/* The only Content-Range, if it is consistent with what else the head says. */
static bool read_span(const struct h1_head *head, struct field_span *span)
{
    unsigned lines = 0;
    for (uint32_t i = 0; i < head->n_fields; i++)
        lines += head->field[i].id == H1_CONTENT_RANGE;
    return lines == 1 && !is_multipart(head) &&
           field_content_range(h1_find(head, H1_CONTENT_RANGE)->value, span) == 0 &&
           (head->framing != H1_LENGTH || head->length == span->last - span->first + 1);
}

static bool is_whole(const struct field_span *span)
{
    return span->first == 0 && span->last == span->size - 1;
}

static bool has_strong_etag(const struct h1_head *head)
{
    const struct h1_field *etag = h1_only(head, H1_ETAG);
    return etag && field_etag_valid(etag->value) && *etag->value.at == '"';
}

struct part *partial_begin(struct fetch *ex, const struct h1_head **head,
                           struct policy_response *resp)
{
    struct worker *w = ex->worker;
    const struct request *r = &ex->req;
    struct field_span span;
    const bool exact = (*head)->framing == H1_LENGTH; /* else the end will show */
    if (!r->policy.is_get || !r->policy.has_range || r->if_range.at || r->route->poll ||
        !reader_ready(w) || !read_span(*head, &span))
        return NULL;
    struct part *part = calloc(1, sizeof *part);
    if (!part)
        return NULL;
    part->span = span;
    /* Fields of an older head are not for the client of this part. */
    if (!is_whole(&span) && has_strong_etag(*head) && r->policy.identity != POLICY_SHARED) {
        const struct h1_head *merged = join(ex, *head, part);
        cache_reader_release(w->reader);
        if (merged) {
            static char scratch[H1_CACHE_SCRATCH];
            h1_policy_response(merged, (int64_t)(w->real_ms / 1000), scratch, resp);
            h1_policy_age(*head, resp);
            *head = merged;
        }
    }
    part->complete = is_whole(&part->span);
    resp->status = 200; /* an incomplete one, as RFC 9111 3.3 takes it */
    resp->complete_length_known = exact;
    resp->length = part->span.last - part->span.first + 1;
    return part;
}

bool partial_place(const struct worker *w, const struct part *part, struct cache_key *key)
{
    if (part->joined && memcmp(key, &part->key, sizeof *key) != 0)
        return false; /* the answer varies by other fields than before */
    if (!part->complete)
        part_key(w, key, key);
    return true;
}

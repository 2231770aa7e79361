/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * store: what may be stored of a backend's response is copied into the ring to the keeper while it
 * streams to the client. A body that fits beside its head travels in one STORE record at its end; a
 * longer one as BEGIN, CHUNKs and END, of which nothing is visible before END. When the ring is
 * full the response is not stored, and that is all that happens. The keeper releases the claim after
 * its commit; whatever ends otherwise is released here.
 */
#include "daemons/worker/fetch/store.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/fetch/content.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/fleet_offer.h"
#include "daemons/worker/message/guard.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/fetch/invalidate.h"
#include "daemons/worker/fetch/partial.h"
#include "daemons/worker/fetch/record.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/cache/compress_stored.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/keeper_link.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "daemons/worker/message/route_state.h"
#include "polder/field.h"
#include "polder/inval.h"
#include "polder/policy.h"
#include "polder/stats.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

struct store_stream {
    struct cache_record record;
    struct cache_key primary; /* where the vary_record of a varying response goes */
    char *text;               /* url, vary, head */
    size_t text_len;
    char names[RECORD_NAMES_MAX]; /* of Vary, lower case, a line each */
    uint32_t names_len;
    bool inherits; /* they are those of what is stored */
    char *body;    /* inline body, or the chunk being filled */
    size_t body_len, room;
    uint64_t total, max_body, stream;
    uint64_t pushed;       /* of the body, in chunks */
    bool max_body_is_ours; /* the store's, and not the configuration's */
    bool shareable;        /* with other hosts */
    struct part *part;     /* NULL: the body is a whole one */
    bool streaming;
};

/* ---- life ---- */

void cache_store_name_identity(struct fetch *ex)
{
    stats_add(ex->worker->stats, STATS_IDENTITY_BYPASS, 1);
    identity_describe(&ex->req, ex->identity);
    identity_note_bypass(&ex->req, ex->identity);
    ex->not_stored = ex->identity;
    ex->fwd = FWD_BYPASS;
}

void cache_store_free(struct fetch *ex)
{
    struct store_stream *s = ex->store;
    ex->store = NULL;
    if (!s)
        return;
    partial_free(s->part);
    free(s->text);
    free(s->body);
    free(s);
}

void cache_store_abort(struct fetch *ex, enum fetch_lock_result result)
{
    if (!ex->store)
        return;
    if (ex->store->streaming)
        keeper_link_abort(ex->worker, ex->store->stream);
    cache_store_free(ex);
    fleet_offer_release(ex, result);
}

/* A part that its client has given up is not worth the backend's work: players seek. */
bool cache_store_outlives_client(const struct fetch *ex)
{
    return ex->store && !(ex->store->part && !ex->store->part->complete);
}

static void ring_full(struct fetch *ex)
{
    stats_add(ex->worker->stats, STATS_CACHE_RING_FULL, 1);
    cache_store_abort(ex, FETCH_LOCK_FAILED);
}

/* Reports it in Cache-Status and for `cache why`. */
static void cache_store_refused(struct fetch *ex, enum policy_store why)
{
    const struct worker *w = ex->worker;
    const struct request *r = &ex->req;
    ex->not_stored = policy_store_reason(why);
    if (why != POLICY_NO_METHOD) /* HEAD says nothing of what GET would get */
        cache_refusal_note(w->shared->cache, inval_secret(w->shared->inval), r->url, r->url_len,
                           why, w->real_ms);
}

/* ---- what the head says ---- */

bool cache_store_compressible(const struct fetch *ex)
{
    return ex->store && ex->store->record.flags & CACHE_COMPRESSIBLE;
}

/* A response without Vary, of a URL that is known to vary: it is stored as the variant of its
 * request, or it would replace all of them, the stored ones included (RFC 9111 4.1 prefers those).
 * That lasts as long as the vary_record, which is not renewed here: the backend may have
 * changed. */
static void inherit_vary(struct worker *w, const struct request *r, struct store_stream *s)
{
    struct cache_view v;
    if (s->names_len || !reader_ready(w))
        return;
    if (stored_varies(w, r, &v) && v.record->vary_len <= sizeof s->names) {
        memcpy(s->names, v.vary, v.record->vary_len);
        s->names_len = v.record->vary_len;
        s->inherits = true;
    }
    cache_reader_release(w->reader);
}

/* Record and text of a response that may be stored. False: it cannot be, after all. */
static bool fill(struct fetch *ex, struct store_stream *s, const struct h1_head *head,
                 const struct policy_response *resp)
{
    struct worker *w = ex->worker;
    struct cache_record *rec = &s->record;
    const struct request *r = &ex->req;
    struct h1_out o = {w->texts->scratch, w->texts->scratch + CACHE_VALUE_MAX, false};
    cache_record_init(rec);
    if (!tags_read(r, head, rec)) {
        cache_store_refused(ex, POLICY_NO_TAGS);
        return false;
    }
    if (!record_read_vary(head, request_asks_plain(r), s->names, &s->names_len)) {
        cache_store_refused(ex, POLICY_NO_VARY);
        return false;
    }
    inherit_vary(w, r, s);
    rec->key = s->primary = r->key;
    rec->status = s->part && s->part->complete ? 200 : head->status;
    rec->url_slot = inval_url_slot(w->shared->inval, r->url, r->url_len);
    rec->url_len = r->url_len;
    rec->rules = w->routes[r->route->index].identity.number;
    rec->identity = guard_identity(r);
    if (resp->has_etag)
        rec->flags = CACHE_HAS_ETAG;
    else if (!s->part || s->part->complete) /* of a part alone none can be made */
        rec->flags = CACHE_HAS_ETAG | CACHE_ETAG_OURS;
    if (r->post)
        rec->flags |= CACHE_FROM_POST;
    if (record_suits_origins(r->head, head))
        rec->flags |= CACHE_ORIGIN_OK;
    if (record_is_compressible(ex, head, resp))
        rec->flags |= CACHE_COMPRESSIBLE;
    record_set_times(rec, ex, resp);
    if (r->has_identity)
        rec->flags |= CACHE_BY_IDENTITY;
    if (r->policy.identity == POLICY_PARTITION ||
        (r->policy.identity == POLICY_SHARED && !(rec->flags & CACHE_FOR_OTHERS)))
        rec->flags |= CACHE_OF_IDENTITY;
    h1_put(&o, r->url, r->url_len);
    if (s->names_len) {
        char vary[STORED_VARY_MAX];
        const size_t n = stored_vary_text(r, s->names, s->names_len, vary, sizeof vary);
        if (!n)
            return false;
        rec->vary_len = (uint32_t)n;
        h1_put(&o, vary, n);
        cache_key_variant(inval_secret(w->shared->inval), &r->key, vary, n, &rec->key);
    }
    if (s->part && !partial_place(w, s->part, &rec->key))
        return false;
    const char *head_at = o.at;
    record_put_head(&o, w, head, resp, s->part, rec->flags & CACHE_COMPRESSIBLE);
    if (o.overflow)
        return false;
    rec->head_len = (uint32_t)(o.at - head_at);
    s->text_len = (size_t)(o.at - w->texts->scratch);
    s->room = cache_inline_room(rec);
    s->text = malloc(s->text_len);
    if (!s->text || !s->room)
        return false;
    memcpy(s->text, w->texts->scratch, s->text_len);
    return true;
}

/* Room for the body: exactly, if it is known and fits; else a chunk. */
static bool make_room(struct store_stream *s, const struct policy_response *resp)
{
    const bool fits = resp->complete_length_known && resp->length <= s->room;
    s->body = malloc(fits ? (size_t)resp->length + 1 : CACHE_CHUNK);
    return s->body != NULL;
}

/* The same one has asked the same again, and got what may not be stored: that is over then, and
 * does not come back for the rest of its stale windows. */
static void end_stored(struct fetch *ex, uint16_t status, enum policy_store why)
{
    const bool refused = !ex->req.client && (status == 401 || status == 403); /* no client */
    const bool tells = ex->for_store && ex->stale && !policy_is_failure(status) && status != 429 &&
                       status != 408 && !refused && why != POLICY_STORE &&
                       why != POLICY_NO_SET_COOKIE && ex->req.policy.identity != POLICY_SHARED;
    if (tells && ex->stale->view.record->identity == guard_identity(&ex->req))
        keeper_link_delete_object(ex->worker, &ex->stale->key, ex->stale->view.record->obj_id);
}

/* Where the store has less room than was configured, or max_bytes was lowered since. */
static bool is_too_large(const struct worker *w, const struct policy_response *resp)
{
    const uint64_t max = atomic_load_explicit(&w->shared->cache->body_max, memory_order_relaxed);
    return max && resp->complete_length_known && resp->length > max;
}

/* Only this client may have it: as if its route had no cache. */
static void pass_personal(struct fetch *ex, bool failure)
{
    route_stats_lookup(ex->worker, ex->req.route, STATS_LOOKUP_BYPASS);
    cache_store_name_identity(ex);
    fleet_offer_release(ex, failure ? FETCH_LOCK_FAILED : FETCH_LOCK_NOSHARE);
}

void cache_store_begin(struct fetch *ex, const struct h1_head *head)
{
    struct worker *w = ex->worker;
    struct policy_response resp;
    char scratch[H1_CACHE_SCRATCH];
    if (request_is_quarantined(&ex->req)) { /* since it was sent */
        ex->not_stored = guard_detail(&ex->req);
        fleet_offer_release(ex, FETCH_LOCK_NOSHARE);
        return;
    }
    const struct policy_settings *settings = &w->routes[ex->req.route->index].settings;
    h1_policy_response(head, (int64_t)(w->real_ms / 1000), scratch, &resp);
    resp.content_location_is_target =
        ex->req.post && invalidate_is_target(w, &ex->req, h1_only(head, H1_CONTENT_LOCATION));
    resp.varies_by_identity = identity_varies_by_all(&ex->req, head);
    struct part *part = head->status == 206 ? partial_begin(ex, &head, &resp) : NULL;
    enum policy_store why = policy_may_store(&ex->req.policy, &resp, settings);
    if (why == POLICY_STORE && is_too_large(w, &resp))
        why = POLICY_NO_ROOM;
    resp.omits_set_cookie = resp.has_set_cookie && !settings->store_set_cookie;
    if (why == POLICY_NO_IDENTITY && !ex->req.post) {
        cache_store_refused(ex, why);
        partial_free(part);
        pass_personal(ex, policy_is_failure(head->status));
        return;
    }
    if (ex->req.policy.identity == POLICY_SHARED && !ex->req.post)
        route_stats_lookup(w, ex->req.route,
                           why == POLICY_STORE ? STATS_LOOKUP_MISS : STATS_LOOKUP_BYPASS);
    const bool stream = content_is_event_stream(head), storable = why == POLICY_STORE && !stream;
    end_stored(ex, head->status, why);
    if (!storable && !ex->req.post)
        cache_store_refused(ex, stream ? POLICY_NO_EVENTS : why);
    struct store_stream *s = storable && reader_ready(w) ? calloc(1, sizeof *s) : NULL;
    ex->store = s;
    if (s)
        s->part = part;
    else
        partial_free(part);
    if (s && fill(ex, s, head, &resp) && make_room(s, &resp)) {
        const uint64_t max =
            atomic_load_explicit(&w->shared->cache->body_max, memory_order_relaxed);
        s->max_body_is_ours = max && max < settings->value.max_body;
        s->max_body = s->max_body_is_ours ? max : settings->value.max_body;
        s->shareable =
            !part && head->status != 206 && fleet_offer_may(ex) &&
            !(resp.complete_length_known && resp.length > ex->req.route->cache->shared_max_body) &&
            !(resp.has_set_cookie && settings->store_set_cookie);
        if (part)
            cache_store_body(ex, part->before, part->before_len);
        return;
    }
    cache_store_free(ex);
    fleet_offer_release(ex, policy_is_failure(head->status) || (storable && !ex->not_stored)
                                ? FETCH_LOCK_FAILED
                                : FETCH_LOCK_NOSHARE);
}

/* ---- the body ---- */

/* Other hosts will not have it, and need not wait. */
static void keep_for_us(struct fetch *ex, struct store_stream *s)
{
    if (s->shareable)
        fleet_offer_end(ex, FETCH_LOCK_NOSHARE);
    s->shareable = false;
}

static bool push_chunk(struct fetch *ex)
{
    struct store_stream *s = ex->store;
    const struct iovec iov = {s->body, s->body_len};
    if (s->body_len && keeper_link_push(ex->worker, RING_CHUNK, s->stream, NULL, &iov, 1) < 0) {
        ring_full(ex);
        return false;
    }
    if (s->shareable && s->body_len &&
        !fleet_offer_chunk(ex, s->stream, s->pushed, s->body, s->body_len))
        keep_for_us(ex, s);
    s->pushed += s->body_len;
    s->body_len = 0;
    return true;
}

static bool begin_stream(struct fetch *ex)
{
    struct store_stream *s = ex->store;
    s->record.flags |= CACHE_CHUNKED_BODY;
    s->stream = ++ex->worker->keeper.stream;
    const struct iovec iov[2] = {{&s->record, sizeof s->record}, {s->text, s->text_len}};
    if (keeper_link_push(ex->worker, RING_BEGIN, s->stream, NULL, iov, 2) < 0) {
        ring_full(ex);
        return false;
    }
    s->streaming = true;
    if (!s->shareable)
        fleet_offer_end(ex, FETCH_LOCK_NOSHARE);
    return true;
}

void cache_store_body(struct fetch *ex, const char *bytes, size_t len)
{
    struct store_stream *s = ex->store;
    if (!s)
        return;
    s->total += len;
    if (s->total > s->max_body) {
        cache_store_refused(ex, s->max_body_is_ours ? POLICY_NO_ROOM : POLICY_NO_TOO_LARGE);
        cache_store_abort(ex, FETCH_LOCK_NOSHARE);
        return;
    }
    if (s->total > ex->req.route->cache->shared_max_body)
        keep_for_us(ex, s);
    if (!s->streaming && s->body_len + len > s->room && !begin_stream(ex))
        return;
    while (len) {
        const size_t limit = s->streaming ? CACHE_CHUNK : s->room;
        const size_t room = limit - s->body_len, n = len < room ? len : room;
        memcpy(s->body + s->body_len, bytes, n);
        s->body_len += n;
        bytes += n;
        len -= n;
        if (s->streaming && s->body_len == CACHE_CHUNK && !push_chunk(ex))
            return;
    }
}

/* The record that says by which fields this URL varies, where lookups start. */
static bool push_vary_record(struct fetch *ex)
{
    struct store_stream *s = ex->store;
    struct cache_record rec = s->record;
    rec.key = s->primary;
    rec.flags = CACHE_VARY_RECORD;
    rec.vary_len = s->names_len;
    rec.head_len = rec.inline_len = 0;
    rec.body_len = 0;
    rec.status = 200;
    rec.n_tags = 0; /* its variants carry them */
    memset(rec.tag_slot, 0, sizeof rec.tag_slot);
    const struct iovec iov[3] = {
        {&rec, sizeof rec}, {s->text, rec.url_len}, {s->names, s->names_len}};
    return keeper_link_push(ex->worker, RING_STORE, 0, &ex->permit, iov, 3) == 0;
}

static bool push_whole(struct fetch *ex, struct permit *permit)
{
    struct store_stream *s = ex->store;
    s->record.body_len = s->total;
    s->record.inline_len = (uint32_t)s->body_len;
    if (s->total < ex->req.route->cache->compress_min)
        s->record.flags &= ~(uint32_t)CACHE_COMPRESSIBLE;
    if (s->record.flags & CACHE_ETAG_OURS)
        s->record.etag_hash = XXH3_64bits(s->body, s->body_len);
    const struct iovec iov[3] = {
        {&s->record, sizeof s->record}, {s->text, s->text_len}, {s->body, s->body_len}};
    return keeper_link_push(ex->worker, RING_STORE, 0, permit, iov, 3) == 0;
}

static bool push_end(struct fetch *ex, struct permit *permit)
{
    const struct store_stream *s = ex->store;
    const struct iovec iov = {(void *)(uintptr_t)&s->total, sizeof s->total};
    return keeper_link_push(ex->worker, RING_END, s->stream, permit, &iov, 1) == 0;
}

/* What an older part has behind this one. False: it is not as long as it said, or that was too much
 * for the ring. */
static bool end_part(struct fetch *ex)
{
    const struct part *part = ex->store->part;
    cache_store_body(ex, part->after, part->after_len);
    if (ex->store && ex->store->total == part->span.last - part->span.first + 1)
        return true;
    cache_store_abort(ex, FETCH_LOCK_FAILED);
    return false;
}

static void offer(struct fetch *ex, struct store_stream *s)
{
    const struct fleet_offer o = {.record = &s->record,
                                  .text = {s->text, s->text_len},
                                  .body = {s->body, s->streaming ? 0 : s->body_len},
                                  .stream = s->streaming ? s->stream : 0,
                                  .marks = s->names_len && !s->inherits};
    s->record.body_len = s->total;
    if (s->shareable)
        fleet_offer_put(ex, &o);
}

/* The vary_record is sent after its variant, with the permit: a request that finds a vary_record
 * finds the variant, and until then waits. */
void cache_store_end(struct fetch *ex)
{
    struct store_stream *s = ex->store;
    if (!s || (s->part && !end_part(ex)))
        return;
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): end_part() is false where it has freed it */
    const bool marks = s->names_len && !s->inherits;
    struct permit *permit = marks ? NULL : &ex->permit;
    if (s->streaming && !push_chunk(ex))
        return;
    if (!(s->streaming ? push_end(ex, permit) : push_whole(ex, permit)) ||
        (marks && !push_vary_record(ex))) {
        ring_full(ex);
        return;
    }
    stats_add(ex->worker->stats, STATS_CACHE_STORES, 1);
    cache_refusal_note(ex->worker->shared->cache, inval_secret(ex->worker->shared->inval),
                       ex->req.url, ex->req.url_len, POLICY_STORE, ex->worker->real_ms);
    offer(ex, s);
    fleet_offer_end(ex, FETCH_LOCK_NOSHARE);
    if (ex->up)
        upstream_stores(ex->up, ex->req.url, ex->req.url_len);
    if (ex->req.coding && cache_store_compressible(ex))
        compress_stored_want(ex->worker, &s->record.key, ex->req.coding);
    cache_store_free(ex);
}

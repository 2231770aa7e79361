/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hit: answers from the store.
 *
 * The whole of a hit: one or two lookups in a read transaction, the invalidation words, freshness,
 * one byte of ref[], a few lines written behind the stored head, one sendmsg from the map. The
 * transaction never outlives the call: what the socket does not take is copied, and a body in
 * chunks goes on from hit_continue(), a chunk a transaction, pinned meanwhile.
 */
#include "daemons/http/h1_cache.h"
#include "daemons/worker/worker.h"
#include "polder/clock.h"
#include "polder/inval.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CHUNKS_A_CALL   8
#define VARY_TEXT_MAX   8192
#define SAMPLE_EACH     64
#define REF_MAX         3
#define REFRESH_LIFE_MS 1000 /* what is good for less is not worth it */
#define REFRESH_TURNS   64

/* ---- looking ---- */

static void damaged(struct worker *w, const struct cache_key *key)
{
    stats_add(w->stats, STATS_CACHE_BAD_RECORDS, 1);
    tee_delete(w, key);
}

size_t hit_vary_text(const struct h1_head *head, const char *names, size_t names_len, char *out,
                     size_t size)
{
    struct h1_out o = {out, out + size, false};
    const char *end = names + names_len;
    while (names < end) {
        const char *stop = memchr(names, '\n', (size_t)(end - names));
        if (!stop)
            break;
        const struct field_text name = {names, (size_t)(stop - names)};
        h1_put(&o, name.at, name.len);
        const struct h1_out absent = o;
        h1_put(&o, ": ", 2);
        if (!h1_selecting(head, name, &o))
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
    const struct cache_record *marker = v->record;
    found->marker = marker->checksum;
    found->vary_miss = true;
    if (!r->head) { /* the same bytes as before select the same variant of the same marker */
        if (marker->checksum != r->marker)
            return 0;
        found->key = r->variant;
    } else {
        char text[VARY_TEXT_MAX];
        const size_t n = hit_vary_text(r->head, v->vary, marker->vary_len, text, sizeof text);
        if (!n)
            return 0;
        cache_key_variant(inval_secret(w->shared->inval), &r->key, text, n, &found->key);
    }
    const int rc = cache_reader_get(w->reader, &found->key, v);
    found->vary_miss = rc != 1;
    return rc;
}

/* 1: a whole record that belongs to this request; found->key is where it lies. */
static int find(struct worker *w, const struct request *r, struct cache_view *v,
                struct hit_found *found)
{
    found->key = r->key;
    int rc = cache_reader_get(w->reader, &r->key, v);
    if (rc == 1 && v->record->flags & CACHE_VARY_MARKER) {
        if (inval_check(w->shared->inval, v->record->birth, v->record->url_slot, NULL, 0, v->url,
                        v->record->url_len) == INVAL_HARD)
            return 0;
        rc = find_variant(w, r, v, found);
    }
    if (rc < 0)
        damaged(w, &found->key);
    return rc == 1 && same_url(r, v) ? 1 : 0;
}

static void touch(struct worker *w, const struct cache_record *rec)
{
    if (rec->slot >= CACHE_SLOTS_MAX)
        return;
    _Atomic uint8_t *ref = &w->shared->ref[rec->slot];
    const uint8_t n = atomic_load_explicit(ref, memory_order_relaxed);
    if (n < REF_MAX) /* a lost update is harmless; the test keeps a hot line shared */
        atomic_store_explicit(ref, (uint8_t)(n + 1), memory_order_relaxed);
}

/* Of the route's poll section; 0: it has none. */
static uint64_t min_interval_ms(const struct request *r)
{
    return r->worker->routes[r->route->index].settings.min_interval_ms;
}

static enum policy_use use_of(const struct worker *w, const struct request *r,
                              const struct cache_record *rec, enum inval_state state)
{
    const uint64_t interval_ms = min_interval_ms(r);
    if (interval_ms && state == INVAL_VALID &&
        policy_poll_holds(&r->policy, rec, interval_ms, w->real_ms))
        return POLICY_FRESH;
    const uint32_t slow = CACHE_NO_CACHE | CACHE_SLOW;
    if (w->real_ms < rec->fresh_until_ms && state == INVAL_VALID && !(rec->flags & slow) &&
        !r->policy.has_authorization && !r->policy.obey_directives)
        return POLICY_FRESH;
    return policy_use_of(&r->policy, rec, state == INVAL_SOFT, w->real_ms);
}

/* ---- conditions and ranges ---- */

bool hit_stored_field(const struct cache_view *view, const char *name, struct field_text *value)
{
    const char *at = view->head, *end = at + view->record->head_len;
    const size_t name_len = strlen(name);
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop)
            break;
        if ((size_t)(stop - at) > name_len + 1 && at[name_len] == ':' &&
            !strncasecmp(at, name, name_len)) {
            const char *v = at + name_len + 1, *v_end = stop[-1] == '\r' ? stop - 1 : stop;
            while (v < v_end && *v == ' ')
                v++;
            *value = (struct field_text){v, (size_t)(v_end - v)};
            return true;
        }
        at = stop + 1;
    }
    return false;
}

bool hit_not_modified(const struct request *r, struct field_text etag, uint64_t last_modified_ms)
{
    int64_t since;
    if (r->if_none_match.at)
        return etag.len && field_etag_listed(r->if_none_match, etag, true);
    if (!r->if_modified_since.at || !last_modified_ms ||
        field_date(r->if_modified_since, &since) != 0)
        return false;
    return since >= 0 && last_modified_ms / 1000 <= (uint64_t)since;
}

struct field_text hit_etag(const struct cache_view *v, char space[HIT_ETAG_MAX])
{
    const struct cache_record *rec = v->record;
    struct field_text t = {0};
    if (rec->flags & CACHE_ETAG_OURS) {
        const uint64_t hash = rec->flags & CACHE_CHUNKED_BODY ? rec->body_checksum : rec->etag_hash;
        static const char hex[] = "0123456789abcdef";
        char *at = space;
        *at++ = '"';
        *at++ = 'p';
        *at++ = '-';
        for (int shift = 60; shift >= 0; shift -= 4)
            *at++ = hex[hash >> shift & 15];
        *at++ = '"';
        return (struct field_text){space, (size_t)(at - space)};
    }
    if (rec->flags & CACHE_HAS_ETAG)
        hit_stored_field(v, "etag", &t);
    return t;
}

static bool has_conditions(const struct request *r)
{
    return r->if_none_match.at || r->if_modified_since.at;
}

/* RFC 9110 13.1.5: a strong match or the very date, else the whole. */
static bool if_range_holds(const struct request *r, const struct cache_view *v)
{
    char space[HIT_ETAG_MAX];
    int64_t date;
    if (!r->if_range.at)
        return true;
    if (r->if_range.len && (r->if_range.at[0] == '"' || r->if_range.at[0] == 'W')) {
        const struct field_text etag = hit_etag(v, space);
        return etag.len && field_etag_listed(r->if_range, etag, false);
    }
    return v->record->last_modified_ms && field_date(r->if_range, &date) == 0 && date > 0 &&
           (uint64_t)date == v->record->last_modified_ms / 1000;
}

/* ---- answering ---- */

struct answer {
    const struct request *r;
    const struct cache_view *view;
    const char *status;  /* of Cache-Status; NULL: a hit, fresh or stale */
    uint64_t first, end; /* bytes of the body */
    uint16_t code;
    bool streamed; /* in chunks: the pin is the client's */
    bool soft;     /* an invalidation has ended its freshness */
};

static void put_age(struct h1_out *o, const struct worker *w, const struct cache_record *rec)
{
    const uint64_t resident =
        w->real_ms > rec->received_ms ? (w->real_ms - rec->received_ms) / 1000 : 0;
    h1_put(o, "Age: ", 5);
    h1_put_u64(o, rec->age_s + resident);
    h1_put(o, "\r\n", 2);
}

static void put_cache_status(struct h1_out *o, const struct worker *w, const struct answer *a)
{
    const struct cache_record *rec = a->view->record;
    h1_put(o, "Cache-Status: polder; ", 22);
    if (a->status) {
        h1_puts(o, a->status);
    } else if (a->r->collapsed) {
        h1_puts(o, "fwd=uri-miss; collapsed");
    } else if (a->soft) {
        h1_puts(o, "hit; ttl=0; detail=stale");
    } else if (rec->fresh_until_ms >= w->real_ms) {
        h1_put(o, "hit; ttl=", 9);
        h1_put_u64(o, (rec->fresh_until_ms - w->real_ms) / 1000);
    } else {
        h1_put(o, "hit; ttl=-", 10);
        h1_put_u64(o, (w->real_ms - rec->fresh_until_ms + 999) / 1000);
        h1_puts(o, "; detail=stale");
    }
    h1_put(o, "\r\n", 2);
}

static bool has_no_length(uint16_t code)
{
    return code == 204 || code == 304 || code < 200;
}

/* The lines behind the stored head, and the blank one. */
static size_t dynamic_lines(struct worker *w, const struct answer *a, char *text, size_t size)
{
    const struct cache_record *rec = a->view->record;
    const struct request *r = a->r;
    struct h1_out o = {text, text + size, false};
    if (min_interval_ms(r))
        response_poll(&o, r,
                      a->soft ? 0 : policy_poll_rest_ms(rec, min_interval_ms(r), w->real_ms));
    else
        put_age(&o, w, rec);
    put_cache_status(&o, w, a);
    response_preference(&o, r);
    if (rec->flags & CACHE_ETAG_OURS) {
        char space[HIT_ETAG_MAX];
        const struct field_text etag = hit_etag(a->view, space);
        h1_put(&o, "ETag: ", 6);
        h1_put(&o, etag.at, etag.len);
        h1_put(&o, "\r\n", 2);
    }
    if (a->code == 206) {
        h1_puts(&o, "Content-Range: bytes ");
        h1_put_u64(&o, a->first);
        h1_put(&o, "-", 1);
        h1_put_u64(&o, a->end - 1);
        h1_put(&o, "/", 1);
        h1_put_u64(&o, rec->body_len);
        h1_put(&o, "\r\n", 2);
    }
    if (!has_no_length(a->code)) {
        h1_put(&o, "Content-Length: ", 16);
        h1_put_u64(&o, a->end - a->first);
        h1_put(&o, "\r\n", 2);
    }
    if (r->limit_len)
        h1_put(&o, r->limit_lines, r->limit_len);
    response_connection(&o, r, r->client->keep_alive);
    h1_put(&o, "\r\n", 2);
    return (size_t)(o.at - text);
}

static bool describes_content(const char *line, size_t len)
{
    return len > 8 && !strncasecmp(line, "content-", 8) &&
           strncasecmp(line, "content-location", 16) && strncasecmp(line, "content-security", 16);
}

/* What the lines of a polled route's answers replace: response_poll(). */
static bool tells_freshness(const char *line, size_t len)
{
    return (len > 5 && !strncasecmp(line, "date:", 5)) ||
           (len > 8 && !strncasecmp(line, "expires:", 8)) ||
           (len > 7 && !strncasecmp(line, "pragma:", 7)) ||
           (len > 14 && !strncasecmp(line, "cache-control:", 14));
}

/* The stored head under another status line; for 304 without what describes the content, on polled
 * routes without what it says of its freshness. */
static size_t other_head(struct worker *w, const struct answer *a)
{
    const char *at = a->view->head, *end = at + a->view->record->head_len;
    struct h1_out o = {w->scratch, w->scratch + sizeof w->scratch, false};
    const bool polled = min_interval_ms(a->r) != 0;
    const char *line = memchr(at, '\n', (size_t)(end - at));
    line = line ? line + 1 : end;
    if (a->code == a->view->record->status)
        h1_put(&o, at, (size_t)(line - at));
    else
        h1_puts(&o, a->code == 304 ? "HTTP/1.1 304 Not Modified\r\n"
                                   : "HTTP/1.1 206 Partial Content\r\n");
    while (line < end) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        stop = stop ? stop + 1 : end;
        const size_t len = (size_t)(stop - line);
        if (!(a->code == 304 && describes_content(line, len)) &&
            !(polled && tells_freshness(line, len)))
            h1_put(&o, line, len);
        line = stop;
    }
    return (size_t)(o.at - w->scratch);
}

static void log_hit(struct worker *w, const struct answer *a, uint64_t bytes)
{
    if (w->config->access_log != CONFIG_LOG_OFF)
        accesslog_line(w, &(struct access_entry){a->r, a->code, bytes, "hit"});
}

void hit_stored_stop(struct client *c)
{
    if (!c->stored)
        return;
    if (c->worker->reader)
        cache_reader_unpin(c->worker->reader, c->stored->obj_id);
    free(c->stored);
    c->stored = NULL;
}

/* The parts of the body that come next, as they lie in the map. False: not all are there any more.
 */
static bool gather(struct worker *w, const struct stored_send *s, struct iovec *iov, unsigned *n)
{
    uint64_t at = s->at;
    for (unsigned i = 0; i < CHUNKS_A_CALL && at < s->end; i++) {
        const char *data;
        size_t len;
        const size_t skip = at % CACHE_CHUNK;
        if (cache_reader_chunk(w->reader, s->obj_id, (uint32_t)(at / CACHE_CHUNK), &data, &len) !=
                1 ||
            len <= skip)
            return false;
        const size_t part = len - skip < s->end - at ? len - skip : (size_t)(s->end - at);
        iov[(*n)++] = (struct iovec){(void *)(data + skip), part};
        at += part;
    }
    return true;
}

/* One sendmsg of the head, if that is still to go, and of the next chunks. What the socket does not
 * take stays where it is, in the store. */
static void send_chunks(struct worker *w, struct client *c, const struct iovec *head, unsigned n)
{
    struct stored_send *s = c->stored;
    struct iovec iov[2 + CHUNKS_A_CALL];
    size_t head_len = 0;
    for (unsigned i = 0; i < n; i++) {
        iov[i] = head[i];
        head_len += head[i].iov_len;
    }
    const bool whole = loop_cache_ready(w) && gather(w, s, iov, &n);
    if (whole)
        s->at += client_send_some(c, iov, n, head_len);
    cache_reader_release(w->reader);
    if (!whole) {
        client_break(c); /* the length has been promised */
    } else if (s->at < s->end) {
        ev_io_start(w->loop, &c->write); /* when the socket, and the other connections, allow */
        client_update_timer(c);
    } else {
        hit_stored_stop(c);
        client_answered(c);
    }
}

/* Sends head and inline body, or the head and begins to send the chunks. The body's chunks are
 * pinned already. */
static void answer(struct worker *w, struct answer *a)
{
    const struct cache_view *v = a->view;
    struct client *c = a->r->client;
    char lines[3072];
    struct iovec iov[3] = {{(void *)v->head, v->record->head_len}};
    unsigned n = 2;
    if (!client_may_keep(c))
        c->keep_alive = false;
    if (a->code != v->record->status || min_interval_ms(a->r))
        iov[0] = (struct iovec){w->scratch, other_head(w, a)};
    iov[1] = (struct iovec){lines, dynamic_lines(w, a, lines, sizeof lines)};
    const bool body = !a->r->is_head && !has_no_length(a->code) && a->end > a->first;
    if (body && v->body)
        iov[n++] = (struct iovec){(void *)(v->body + a->first), a->end - a->first};
    response_count(w, a->code);
    log_hit(w, a, body ? a->end - a->first : 0);
    if (!body || v->body) {
        client_send(c, iov, n);
        client_answered(c);
        return;
    }
    c->stored = malloc(sizeof *c->stored);
    if (!c->stored) {
        client_break(c);
        return;
    }
    *c->stored = (struct stored_send){v->record->obj_id, a->first, a->end};
    a->streamed = true;
    send_chunks(w, c, iov, n);
}

/* Last-Modified, or what stands for it where it is missing: Date, or the time of receipt (RFC 9111
 * 4.3.2). */
static uint64_t modified_ms(const struct cache_view *v)
{
    struct field_text date;
    int64_t s;
    if (v->record->last_modified_ms)
        return v->record->last_modified_ms;
    if (hit_stored_field(v, "date", &date) && field_date(date, &s) == 0 && s > 0)
        return (uint64_t)s * 1000;
    return v->record->received_ms;
}

/* Decides between 200, 206, 304 and 416. False: the answer was a problem. */
static bool choose_code(const struct request *r, struct answer *a)
{
    const struct cache_record *rec = a->view->record;
    char space[HIT_ETAG_MAX];
    a->code = rec->status;
    a->end = rec->body_len;
    if (rec->status != 200)
        return true;
    if (has_conditions(r) && hit_not_modified(r, hit_etag(a->view, space), modified_ms(a->view))) {
        a->code = 304;
        return true;
    }
    if (!r->range.at || r->is_head || !if_range_holds(r, a->view))
        return true;
    const int rc = field_range(r->range, rec->body_len, &a->first, &a->end);
    if (rc == 1) {
        a->end++;
        a->code = 206;
    } else {
        a->first = 0;
        a->end = rec->body_len;
    }
    if (rc == -ERANGE) {
        char extra[64];
        snprintf(extra, sizeof extra, "Content-Range: bytes */%llu\r\n",
                 (unsigned long long)rec->body_len);
        response_problem(r, r->client, PROBLEM_RANGE_NOT_SATISFIABLE, extra, "", true);
        return false;
    }
    return true;
}

static bool needs_chunks(const struct request *r, const struct cache_record *rec)
{
    return rec->flags & CACHE_CHUNKED_BODY && !r->is_head && rec->body_len > 0;
}

/* From a view in the map, which is released before more than the first bytes are sent. Who has what
 * is stored, and would rather wait for a change, is held. key: where it lies. */
static bool answer_view(struct worker *w, const struct request *r, const struct cache_view *v,
                        enum inval_state state, const struct cache_key *key)
{
    struct answer a = {.r = r, .view = v, .soft = state == INVAL_SOFT};
    if (needs_chunks(r, v->record) && !cache_reader_pin(w->reader, v->record->obj_id))
        return false; /* all pins are taken: the backend must do */
    const uint64_t obj_id = v->record->obj_id;
    const bool pinned = needs_chunks(r, v->record);
    char space[HIT_ETAG_MAX];
    if (choose_code(r, &a) &&
        !(a.code == 304 && r->wait_s && hold_unchanged(r, v->record, key, hit_etag(v, space))))
        answer(w, &a);
    cache_reader_release(w->reader);
    if (pinned && !a.streamed)
        cache_reader_unpin(w->reader, obj_id);
    return true;
}

void hit_answer_copy(const struct request *r, struct stored_copy *copy, const char *status)
{
    struct answer a = {.r = r, .view = &copy->view, .status = status};
    if (choose_code(r, &a))
        answer(r->worker, &a);
    if (a.streamed)
        copy->pinned = false; /* it was the client's */
}

/* ---- bodies in chunks ---- */

void hit_continue(struct client *c)
{
    if (!c->out.len)
        send_chunks(c->worker, c, NULL, 0);
}

/* ---- the whole ---- */

static struct stored_copy *copy_of(struct worker *w, const struct request *r,
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
    if (needs_chunks(r, rec)) {
        copy->pinned = cache_reader_pin(w->reader, rec->obj_id);
        if (!copy->pinned) {
            free(copy);
            return NULL;
        }
    }
    return copy;
}

void hit_copy_free(struct worker *w, struct stored_copy *copy)
{
    if (copy && copy->pinned && w->reader)
        cache_reader_unpin(w->reader, copy->view.record->obj_id);
    free(copy);
}

static void measure(struct worker *w, uint64_t start_ns)
{
    if (start_ns)
        w->hit_ns = clock_mono_ns() - start_ns;
    stats_observe(w->stats, STATS_LATENCY_HIT, w->hit_ns);
}

/* Is this one read often, and will it soon be stale? Then one of those who read it has it fetched
 * behind, so that nobody waits for it later. "Soon" is the last 5 to 14 % of its life, by object,
 * so that what was stored together is not fetched together. */
static bool hot_and_due(struct worker *w, const struct request *r, const struct cache_record *rec)
{
    const uint64_t left = rec->fresh_until_ms - w->real_ms,
                   life = rec->fresh_until_ms - rec->received_ms;
    if (left > life / 7 || rec->fresh_until_ms <= rec->received_ms || life < REFRESH_LIFE_MS)
        return false;
    if (rec->flags & (CACHE_FROM_POST | CACHE_NO_CACHE) || min_interval_ms(r) ||
        atomic_load_explicit(&w->shared->ref[rec->slot % CACHE_SLOTS_MAX], memory_order_relaxed) <
            REF_MAX)
        return false;
    return left * 100 <= life * (5 + (rec->obj_id * UINT64_C(0x9e3779b97f4a7c15) >> 60) % 10);
}

/* What may be done with the record that was found. */
static enum hit_result use(struct worker *w, const struct request *r, const struct cache_view *v,
                           struct hit_found *found)
{
    const struct cache_record *rec = v->record;
    const enum inval_state state = inval_check(w->shared->inval, rec->birth, rec->url_slot,
                                               rec->tag_slot, rec->n_tags, v->url, rec->url_len);
    if (state == INVAL_HARD)
        return HIT_MISS;
    touch(w, rec);
    switch (use_of(w, r, rec, state)) {
    case POLICY_FRESH:
        if (w->real_ms < rec->fresh_until_ms && hot_and_due(w, r, rec)) {
            if (r->head)
                found->stale = copy_of(w, r, v, &found->key);
            else if (w->refresh_turn++ % REFRESH_TURNS == 0)
                return HIT_MISS; /* the long way, with the head, does it */
        }
        if (!answer_view(w, r, v, state, &found->key))
            return HIT_MISS;
        if (min_interval_ms(r))
            poll_note(r);
        if (!r->client->held)
            stats_add(w->stats, r->collapsed ? STATS_CACHE_COLLAPSED : STATS_CACHE_HITS, 1);
        return HIT_ANSWERED;
    case POLICY_STALE_OK:
        if (!r->head) /* to refresh it takes the head */
            return HIT_MISS;
        found->stale = copy_of(w, r, v, &found->key);
        if (!answer_view(w, r, v, state, &found->key))
            return HIT_STALE;
        if (!r->client->held)
            stats_add(w->stats, STATS_CACHE_STALE, 1);
        return HIT_ANSWERED;
    case POLICY_REVALIDATE:
        if (r->head)
            found->stale = copy_of(w, r, v, &found->key);
        return found->stale ? HIT_STALE : HIT_MISS;
    default:
        return HIT_UNUSABLE;
    }
}

enum hit_result hit_try(const struct request *r, struct hit_found *found)
{
    struct worker *w = r->worker;
    struct cache_view v;
    enum hit_result result = HIT_MISS;
    if (!loop_cache_ready(w))
        return HIT_MISS;
    const uint64_t start_ns = w->hit_sample++ % SAMPLE_EACH ? 0 : clock_mono_ns();
    if (find(w, r, &v, found) == 1)
        result = use(w, r, &v, found);
    cache_reader_release(w->reader);
    if (result == HIT_ANSWERED)
        measure(w, start_ns);
    return result;
}

bool hit_left_ms(const struct request *r, struct hit_found *found, uint64_t *left, uint64_t *life)
{
    struct worker *w = r->worker;
    struct cache_view v;
    bool there = false;
    if (!loop_cache_ready(w))
        return false;
    if (find(w, r, &v, found) == 1) {
        const struct cache_record *rec = v.record;
        const enum inval_state state = inval_check(w->shared->inval, rec->birth, rec->url_slot,
                                                   rec->tag_slot, rec->n_tags, v.url, rec->url_len);
        uint64_t until = rec->fresh_until_ms;
        if (min_interval_ms(r) && until < rec->received_ms + min_interval_ms(r))
            until = rec->received_ms + min_interval_ms(r);
        there = state != INVAL_HARD;
        if (there) {
            *left = state == INVAL_VALID && until > w->real_ms ? until - w->real_ms : 0;
            *life = until > rec->received_ms ? until - rec->received_ms : 0;
            found->stale = copy_of(w, r, &v, &found->key);
        }
    }
    cache_reader_release(w->reader);
    return there;
}

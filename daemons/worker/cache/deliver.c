/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * deliver: a stored response as a client gets it: conditions and ranges, the lines that are written
 * behind the stored head, one sendmsg from the map. What the socket does not take is copied; a body
 * in chunks goes on from answer_continue(), a chunk a transaction, pinned meanwhile.
 */
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/cache/conditions.h"
#include "daemons/http/h1.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/compress.h"
#include "daemons/worker/fetch/error_backoff.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/cache/compress_stored.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/config.h"
#include "polder/policy.h"
#include "polder/problem.h"
#include "polder/stats.h"
#include "polder/cache_status.h"
#include "polder/head_lines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CHUNKS_A_CALL 8
#define HEAD_PARTS    6

/* ---- conditions and ranges ---- */

static bool has_conditions(const struct request *r)
{
    return r->if_none_match.at || r->if_modified_since.at;
}

/* A second has passed between the last change and the response: no other version has its date (RFC
 * 9110 8.8.2.2), unless we have made one in a content coding ourselves. */
static bool has_strong_date(const struct cache_view *v)
{
    struct str date;
    int64_t s;
    return v->record->last_modified_ms && !(v->record->flags & CACHE_COMPRESSIBLE) &&
           stored_field(v, "date", &date) && field_date(date, &s) == 0 &&
           s > (int64_t)(v->record->last_modified_ms / 1000);
}

/* RFC 9110 13.1.5: a strong match or the very date, else the whole. */
static bool if_range_holds(const struct request *r, const struct cache_view *v)
{
    char space[STORED_ETAG_MAX];
    int64_t date;
    if (!r->if_range.at)
        return true;
    if (field_etag_valid(r->if_range)) {
        const struct str etag = stored_etag(v, space);
        return etag.len && field_etag_listed(r->if_range, etag, false);
    }
    return has_strong_date(v) && field_date(r->if_range, &date) == 0 && date > 0 &&
           (uint64_t)date == v->record->last_modified_ms / 1000;
}

/* ---- answering ---- */

struct answer {
    const struct request *r;
    const struct cache_view *view;
    const struct cache_view *body; /* the same, or its copy in a content coding */
    const char *status;            /* of Cache-Status; NULL: a hit, fresh or stale */
    uint64_t first, end;           /* bytes of the stored body */
    uint64_t base;                 /* where that begins in the whole, of which it is a part */
    uint64_t size;                 /* of the whole, then; 0: that is what is stored */
    uint16_t code;
    uint64_t interval_ms; /* of its route's polls; 0 */
    uint64_t rest_ms;     /* not asked for this long, because the backend has failed */
    bool weak;     /* the client's bytes are, or were, not the ones that the entity tag is of */
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
        h1_puts(o, "fwd=");
        h1_puts(o, cache_status_fwd((enum fwd_reason)a->r->waited_fwd));
        h1_puts(o, rec->flags & CACHE_FROM_FLEET ? "; collapsed; detail=fleet" : "; collapsed");
    } else {
        const int64_t ttl_s = cache_status_ttl_s(rec, a->soft, w->real_ms);
        const char *detail = cache_status_detail(rec, a->soft, a->interval_ms, w->real_ms);
        h1_put(o, ttl_s < 0 ? "hit; ttl=-" : "hit; ttl=", ttl_s < 0 ? 10 : 9);
        h1_put_u64(o, (uint64_t)(ttl_s < 0 ? -ttl_s : ttl_s));
        if (detail) {
            h1_puts(o, "; detail=");
            h1_puts(o, detail);
        }
    }
    h1_put(o, "\r\n", 2);
}

static bool has_no_length(uint16_t code)
{
    return code == 204 || code == 304 || code < 200;
}

/* When the client may ask again. */
static uint64_t poll_rest_ms(const struct worker *w, const struct answer *a)
{
    const uint64_t rest_ms =
        a->soft ? 0 : policy_poll_rest_ms(a->view->record, a->interval_ms, w->real_ms);
    return rest_ms > a->rest_ms ? rest_ms : a->rest_ms;
}

/* The lines behind the stored head, and the blank one. */
static size_t dynamic_lines(struct worker *w, const struct answer *a, char *text, size_t size)
{
    const struct cache_record *rec = a->view->record;
    const struct request *r = a->r;
    struct h1_out o = {text, text + size, false};
    if (a->interval_ms)
        response_poll(&o, r, poll_rest_ms(w, a));
    else
        put_age(&o, w, rec);
    put_cache_status(&o, w, a);
    response_preference(&o, r);
    if (rec->flags & CACHE_ETAG_OURS) {
        char space[STORED_ETAG_MAX];
        const struct str etag = stored_etag(a->view, space);
        h1_puts(&o, a->weak ? "ETag: W/" : "ETag: ");
        h1_put(&o, etag.at, etag.len);
        h1_put(&o, "\r\n", 2);
    }
    if (a->code == 206) {
        h1_puts(&o, "Content-Range: bytes ");
        h1_put_u64(&o, a->base + a->first);
        h1_put(&o, "-", 1);
        h1_put_u64(&o, a->base + a->end - 1);
        h1_put(&o, "/", 1);
        h1_put_u64(&o, a->size ? a->size : rec->body_len);
        h1_put(&o, "\r\n", 2);
    }
    if (a->body != a->view) {
        h1_puts(&o, "Content-Encoding: ");
        h1_puts(&o, coding_name(r->coding));
        h1_put(&o, "\r\n", 2);
    }
    if (!has_no_length(a->code)) {
        h1_put(&o, "Content-Length: ", 16);
        h1_put_u64(&o, a->end - a->first);
        h1_put(&o, "\r\n", 2);
    }
    if (r->limit_len)
        h1_put(&o, r->limit_lines, r->limit_len);
    if (w->config->request_id)
        request_id_put(&o, r);
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

static bool is_range(const char *line, size_t len)
{
    return len > 14 && !strncasecmp(line, "content-range:", 14);
}

/* The stored head under another status line; for 304 without what describes the content, on polled
 * routes without what it says of its freshness; for 206 without a range that was not asked for. */
static size_t other_head(struct worker *w, const struct answer *a)
{
    struct str rest = {a->view->head, a->view->record->head_len}, line;
    struct h1_out o = {w->texts->scratch, w->texts->scratch + sizeof w->texts->scratch, false};
    const bool polled = a->interval_ms != 0;
    if (head_line_next(&rest, &line) && a->code == a->view->record->status)
        h1_put(&o, line.at, line.len);
    else
        h1_puts(&o, a->code == 304 ? "HTTP/1.1 304 Not Modified\r\n"
                                   : "HTTP/1.1 206 Partial Content\r\n");
    while (head_line_next(&rest, &line))
        if (!(a->code == 304 && describes_content(line.at, line.len)) &&
            !(polled && tells_freshness(line.at, line.len)) &&
            !(a->code == 206 && is_range(line.at, line.len)))
            h1_put(&o, line.at, line.len);
    return (size_t)(o.at - w->texts->scratch);
}

/* What the access log says of it: as Cache-Status does, in one word. */
static const char *cache_word(const struct worker *w, const struct answer *a)
{
    if (a->status && strstr(a->status, "fwd-status=304"))
        return "revalidated";
    if (a->status)
        return "stale";
    if (a->r->collapsed)
        return "collapsed";
    const char *detail = cache_status_detail(a->view->record, a->soft, a->interval_ms, w->real_ms);
    return detail && strncmp(detail, "stale", 5) == 0 ? "stale" : "hit";
}

/* All of it has been sent, or the rest will be sent from the store. */
static void log_answer(struct worker *w, const struct answer *a, uint64_t bytes)
{
    route_stats_bytes(w, a->r->route, bytes);
    if (!access_is_wanted(w))
        return;
    a->r->client->note.cache = cache_word(w, a);
    a->r->client->note.detail = a->status;
    access_answered(a->r->client, a->r, a->code, bytes);
}

void answer_stop(struct client *c)
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

/* The stored head as it is sent: in parts, where its entity tag is to be a weak one. */
static unsigned put_head(const struct answer *a, const char *head, size_t len, struct iovec *iov)
{
    static const char mark[] = FIELD_ETAG_MARK "\"";
    struct str etag;
    iov[0] = (struct iovec){(void *)(uintptr_t)head, len};
    if (!a->weak || !stored_head_field(head, len, "etag", &etag) || !field_etag_valid(etag) ||
        etag.at[0] == 'W')
        return 1;
    const size_t before = (size_t)(etag.at - head), behind = before + etag.len;
    iov[0].iov_len = before;
    iov[1] = (struct iovec){(void *)(uintptr_t) "W/", 2};
    iov[2] = (struct iovec){(void *)(uintptr_t)etag.at, etag.len - 1};
    iov[3] = (struct iovec){(void *)(uintptr_t)mark, sizeof mark - 1};
    iov[4] = (struct iovec){(void *)(uintptr_t)(head + behind), len - behind};
    return 5;
}

/* One sendmsg of the head, if that is still to go, and of the next chunks. What the socket does not
 * take stays where it is, in the store. */
static void send_chunks(struct worker *w, struct client *c, const struct iovec *head, unsigned n)
{
    struct stored_send *s = c->stored;
    struct iovec iov[HEAD_PARTS + CHUNKS_A_CALL];
    size_t head_len = 0;
    for (unsigned i = 0; i < n; i++) {
        iov[i] = head[i];
        head_len += head[i].iov_len;
    }
    const bool whole = reader_ready(w) && gather(w, s, iov, &n);
    if (whole)
        s->at += client_send_some(c, iov, n, head_len);
    cache_reader_release(w->reader);
    if (!whole) {
        c->note.cut = "polder";
        client_break(c); /* the length has been promised */
    } else if (s->at < s->end) {
        transport_start(&c->transport,
                        TRANSPORT_WRITE); /* when the socket, and the other connections, allow */
        client_update_timer(c);
    } else {
        answer_stop(c);
        client_answered(c);
    }
}

/* Sends head and inline body, or the head and begins to send the chunks. The body's chunks are
 * pinned already. */
static void answer(struct worker *w, struct answer *a)
{
    const struct cache_view *v = a->body;
    struct client *c = a->r->client;
    char lines[3072];
    struct iovec iov[HEAD_PARTS + 1];
    unsigned n;
    if (!client_may_keep(c))
        c->keep_alive = false;
    if (a->code != a->view->record->status || a->size || a->interval_ms)
        n = put_head(a, w->texts->scratch, other_head(w, a), iov);
    else
        n = put_head(a, a->view->head, a->view->record->head_len, iov);
    iov[n++] = (struct iovec){lines, dynamic_lines(w, a, lines, sizeof lines)};
    const bool body = !a->r->is_head && !has_no_length(a->code) && a->end > a->first;
    if (body && v->body)
        iov[n++] = (struct iovec){(void *)(v->body + a->first), a->end - a->first};
    route_stats_answer(w, a->r->route, a->code);
    if (!body || v->body) {
        client_send(c, iov, n);
        log_answer(w, a, body ? a->end - a->first : 0);
        client_answered(c);
        return;
    }
    c->stored = malloc(sizeof *c->stored);
    if (!c->stored) {
        c->note.cut = "polder";
        client_break(c);
        return;
    }
    *c->stored = (struct stored_send){v->record->obj_id, a->first, a->end};
    a->streamed = true;
    log_answer(w, a, a->end - a->first);
    send_chunks(w, c, iov, n);
}

/* Last-Modified, or its substitute if missing: Date, or the time of receipt (RFC 9111
 * 4.3.2). */
static uint64_t modified_ms(const struct cache_view *v)
{
    struct str date;
    int64_t s;
    if (v->record->last_modified_ms)
        return v->record->last_modified_ms;
    if (stored_field(v, "date", &date) && field_date(date, &s) == 0 && s > 0)
        return (uint64_t)s * 1000;
    return v->record->received_ms;
}

/* Decides between 200, 206, 304 and 416. False: the answer was a problem. */
static bool choose_code(const struct request *r, struct answer *a)
{
    const struct cache_record *rec = a->view->record;
    char space[STORED_ETAG_MAX];
    a->code = rec->status;
    a->end = rec->body_len;
    if (rec->status != 200)
        return true;
    if (has_conditions(r) &&
        conditions_not_modified(r, stored_etag(a->view, space), modified_ms(a->view))) {
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
        r->client->note.cache = "hit";
        response_problem(r, r->client, PROBLEM_RANGE_NOT_SATISFIABLE, extra, "", true);
        return false;
    }
    return true;
}

/* Until the copy of what has just been stored is made, what it is made of is compressed for each.
 */
static void compress_meanwhile(struct worker *w, struct answer *a, struct cache_view *copy)
{
    const struct cache_record *rec = a->view->record;
    const char *bytes;
    if (!a->view->body || w->real_ms >= rec->received_ms + CACHE_COPY_SOON_MS)
        return;
    const size_t len =
        compress_whole(w, (enum coding)a->r->coding, a->view->body, (size_t)rec->body_len, &bytes);
    if (!len)
        return;
    *copy = *a->view;
    copy->body = bytes;
    a->body = copy;
    a->end = len;
    a->weak = true;
}

/* The body in the coding that the client likes best, if that is there; else it is wanted. */
static void choose_coding(struct worker *w, struct answer *a, struct cache_view *copy,
                          const struct cache_key *key)
{
    const struct request *r = a->r;
    if (!r->coding || !(a->view->record->flags & CACHE_COMPRESSIBLE))
        return;
    if (a->code == 304) { /* of whichever it was */
        a->weak = true;
    } else if (a->code == 200 && stored_find_encoded(w, a->view, r->coding, copy) != 1) {
        compress_stored_want(w, key, r->coding);
        compress_meanwhile(w, a, copy);
    } else if (a->code == 200 && copy->record->body_len) {
        a->body = copy;
        a->end = copy->record->body_len;
        a->weak = true;
        stored_touch(w, copy->record);
        stats_add(w->stats, STATS_CACHE_COPY_HITS, 1);
    }
}

/* Answers; a body in chunks stays while it is sent. False: all pins are taken. */
static bool deliver_held(struct worker *w, struct answer *a)
{
    const struct cache_record *rec = a->body->record;
    const uint64_t pin = a->code != 304 && answer_needs_chunks(a->r, rec) ? rec->obj_id : 0;
    if (pin && !cache_reader_pin(w->reader, pin))
        return false;
    answer(w, a);
    if (pin && !a->streamed)
        cache_reader_unpin(w->reader, pin);
    return true;
}

bool deliver_view(struct worker *w, const struct request *r, const struct cache_view *v, bool soft,
                  const struct cache_key *key)
{
    struct answer a = {
        .r = r, .view = v, .body = v, .interval_ms = request_interval_ms(r), .soft = soft};
    struct cache_view copy;
    char space[STORED_ETAG_MAX];
    if (choose_code(r, &a) &&
        !(a.code == 304 && r->wait_s &&
          w->lookups->hold_ops->unchanged(r, v->record, key, stored_etag(v, space)))) {
        choose_coding(w, &a, &copy, key);
        if (!deliver_held(w, &a))
            return false; /* the backend must do */
    }
    cache_reader_release(w->reader);
    return true;
}

bool deliver_part(struct worker *w, const struct request *r, const struct cache_view *v,
                  const struct field_span *part, uint64_t first, uint64_t last)
{
    char space[STORED_ETAG_MAX];
    struct answer a = {.r = r,
                       .view = v,
                       .body = v,
                       .interval_ms = request_interval_ms(r),
                       .code = 206,
                       .base = part->first,
                       .size = part->size};
    a.first = first - part->first;
    a.end = last - part->first + 1;
    if (has_conditions(r) && conditions_not_modified(r, stored_etag(v, space), modified_ms(v)))
        a.code = 304;
    else if (!if_range_holds(r, v))
        return false; /* then it is the whole that is wanted */
    return deliver_held(w, &a);
}

/* The copy is ours, its copy in a coding lies in the map. */
static void deliver_encoded(struct worker *w, struct answer *a, struct cache_view *encoded,
                            const struct cache_key *key)
{
    if (reader_ready(w))
        choose_coding(w, a, encoded, key);
    if (a->body != a->view && deliver_held(w, a)) {
        a->streamed = false; /* not of ours */
    } else {
        if (a->body != a->view) { /* all pins are taken */
            a->body = a->view;
            a->end = a->view->record->body_len;
            a->weak = false;
        }
        answer(w, a);
    }
    if (w->reader)
        cache_reader_release(w->reader);
}

void deliver_copy(const struct request *r, struct stored_copy *copy, const char *status)
{
    struct answer a = {.r = r,
                       .view = &copy->view,
                       .body = &copy->view,
                       .status = status,
                       .interval_ms = request_interval_ms(r),
                       .rest_ms = error_backoff_rest_ms(r->worker, copy)};
    struct cache_view encoded;
    if (choose_code(r, &a))
        deliver_encoded(r->worker, &a, &encoded, &copy->key);
    if (a.streamed)
        copy->pinned = false; /* it is the client's now */
}

void answer_continue(struct client *c)
{
    if (!c->out.len)
        send_chunks(c->worker, c, NULL, 0);
}

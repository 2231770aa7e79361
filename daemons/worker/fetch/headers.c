/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * headers: heads, both ways. Everything that is sent is written anew from what was parsed, with
 * one framing field of our own; Polder's own answers are problem details (RFC 9457).
 */
#include "daemons/worker/fetch/headers.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/buffer.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/compress.h"
#include "daemons/worker/message/cors.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/message/via.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/cache.h"
#include "polder/clientip.h"
#include "polder/config.h"
#include "polder/field.h"
#include "polder/override.h"
#include "polder/stats.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static void put_text(struct h1_out *o, struct str t)
{
    h1_put(o, t.at, t.len);
}

void response_connection(struct h1_out *o, const struct request *r, bool keep_alive)
{
    if (!keep_alive)
        h1_puts(o, "Connection: close\r\n");
    else if (r && r->http10)
        h1_puts(o, "Connection: keep-alive\r\n");
}

/* The request's name, in each answer to it. */
static void put_request_id(struct h1_out *o, const struct request *r)
{
    if (r->worker->config->request_id)
        request_id_put(o, r);
}

/* ---- Polder's own ---- */

/* To a head that was not understood, or a connection that is not wanted. */
static void put_unread_id(struct h1_out *o, struct client *c)
{
    if (!c->note.number)
        c->note.number = request_id_next(&c->worker->messages->ids);
    const struct request r = {.worker = c->worker, .number = c->note.number};
    put_request_id(o, &r);
}

void response_problem(const struct request *r, struct client *c, enum problem p, const char *extra,
                      const char *members, bool keep)
{
    struct worker *w = c->worker;
    char lines[4096]; /* the limits' 2 KiB, an origin of 512 bytes */
    struct h1_out o = {lines, lines + sizeof lines - 1, false};
    if (c->state != CLIENT_BUSY)
        client_move(c, CLIENT_BUSY);
    keep = keep && client_may_keep(c);
    c->keep_alive = keep;
    h1_put(&o, w->date.line, w->date.len);
    h1_puts(&o, extra);
    if (r) {
        h1_put(&o, r->limit_lines, r->limit_len);
        cors_put(&o, r);
    }
    if (r)
        put_request_id(&o, r);
    else
        put_unread_id(&o, c);
    response_connection(&o, r, keep);
    *o.at = 0;
    char text[PROBLEM_RENDER_MAX + sizeof lines];
    size_t len = problem_render(p, lines, members, text, sizeof text);
    const char *end = memmem(text, len, "\r\n\r\n", 4);
    const size_t head_len = end ? (size_t)(end - text) + 4 : len;
    if (r && r->is_head)
        len = head_len;
    route_stats_answer(w, r ? r->route : NULL, problem_status(p));
    route_stats_bytes(w, r ? r->route : NULL, len - head_len);
    client_send_bytes(c, text, len);
    access_answered(c, r, problem_status(p), len - head_len);
    client_answered(c);
}

void response_simple(const struct request *r, unsigned status, const char *lines)
{
    struct client *c = r->client;
    struct worker *w = c->worker;
    char text[2048];
    c->keep_alive = client_may_keep(c);
    struct h1_out o = {text, text + sizeof text, false};
    h1_put_status_line(&o, status, (struct str){0});
    h1_put(&o, w->date.line, w->date.len);
    h1_puts(&o, lines);
    put_request_id(&o, r);
    response_connection(&o, r, c->keep_alive);
    h1_puts(&o, "\r\n");
    route_stats_answer(w, r->route, status);
    client_send_bytes(c, text, (size_t)(o.at - text));
    access_answered(c, r, status, 0);
    client_answered(c);
}

/* ---- a backend's ---- */

/* Fields that a stored response must not carry: what is true for one answer only, and what the
 * backend said caches must not keep. */
static bool not_stored(const struct h1_head *head, const struct h1_field *f,
                       const struct policy_response *resp)
{
    if (f->id == H1_CONTENT_RANGE && head->status == 206)
        return true; /* partial_put_range() writes that of what is stored */
    if (f->id == H1_AGE || f->id == H1_RATELIMIT || f->id == H1_RATELIMIT_POLICY ||
        f->id == H1_X_REQUEST_ID)
        return true;
    if (f->id == H1_ETAG && !resp->has_etag)
        return true; /* of several that contradict each other none is kept */
    if (f->id == H1_OTHER && f->name.len > 11 && !strncasecmp(f->name.at, "x-ratelimit", 11))
        return true;
    return policy_omits(resp, f->name);
}

/* All that it varies by, and Accept-Encoding, in one line. */
static void put_vary(struct h1_out *o, const struct h1_head *head)
{
    struct h1_vary walk = {0};
    struct str name;
    bool said = false;
    h1_puts(o, "Vary: ");
    while (h1_vary_next(head, &walk, &name)) {
        said = said || field_is(name, "accept-encoding") || field_is(name, "*");
        put_text(o, name);
        h1_puts(o, ", ");
    }
    if (said)
        o->at -= 2; /* the last comma */
    else
        h1_puts(o, "Accept-Encoding");
    h1_puts(o, "\r\n");
}

/* Does a coding of ours stand between this answer's bytes, or those of the answer that a 304 is
 * about, and the backend's entity tag? */
static bool weakens_etag(const struct fetch *ex)
{
    struct str rest = {0}, tag, opaque;
    if (ex->coding)
        return true;
    if (ex->status != 304 || !ex->req.coding || !request_may_compress(&ex->req))
        return false;
    if (ex->compressible)
        return true;
    const struct h1_field *f = h1_find(&ex->head, H1_IF_NONE_MATCH);
    rest = f ? f->value : rest;
    while (field_etag_next(&rest, &tag))
        if (field_etag_unmark(tag, &opaque))
            return true;
    return false;
}

static void put_weak_etag(struct h1_out *o, const struct h1_field *f)
{
    if (!field_etag_valid(f->value) || f->value.at[0] == 'W') {
        h1_copy_field(o, f);
        return;
    }
    put_text(o, f->name);
    h1_puts(o, ": W/");
    h1_put(o, f->value.at, f->value.len - 1);
    h1_puts(o, FIELD_ETAG_MARK "\"\r\n");
}

/* A field of a backend's head for its client, whose bytes may be others than the backend's. */
static void put_client_field(struct h1_out *o, const struct fetch *ex, const struct h1_field *f)
{
    if (f->id == H1_ETAG && weakens_etag(ex))
        put_weak_etag(o, f);
    else if (!ex->coding || !field_is(f->name, "accept-ranges"))
        h1_copy_field(o, f);
}

void response_fields(struct h1_out *o, const struct h1_head *head,
                     const struct policy_response *stored, bool compressible, bool own_id)
{
    if (compressible)
        put_vary(o, head);
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        if (f->id == H1_CONTENT_LENGTH || f->id == H1_TRAILER ||
            (compressible && f->id == H1_VARY) || (own_id && f->id == H1_X_REQUEST_ID) ||
            h1_is_hop_by_hop(head, f))
            continue;
        if (!stored || !not_stored(head, f, stored))
            h1_copy_field(o, f);
    }
}

static void put_cache_status(struct h1_out *o, const struct fetch *ex, uint16_t status)
{
    if (ex->fwd == FWD_NONE)
        return;
    h1_puts(o, "Cache-Status: polder; fwd=");
    h1_puts(o, cache_status_fwd((enum fwd_reason)ex->fwd));
    if (ex->not_stored != ex->identity) { /* else it is the client's own */
        h1_puts(o, "; fwd-status=");
        h1_put_u64(o, status);
    }
    if (ex->store) {
        h1_puts(o, "; stored");
    } else if (ex->not_stored) {
        h1_puts(o, "; detail=\"");
        h1_puts(o, ex->not_stored);
        h1_puts(o, "\"");
    }
    if (ex->req.collapsed)
        h1_puts(o, "; collapsed=?0");
    h1_puts(o, "\r\n");
}

static void put_framing(struct h1_out *o, const struct fetch *ex, const struct h1_head *head)
{
    switch (ex->client_body) {
    case BODY_LENGTH:
        h1_puts(o, "Content-Length: ");
        h1_put_u64(o, head->length);
        h1_puts(o, "\r\n");
        break;
    case BODY_CHUNKED:
        h1_puts(o, "Transfer-Encoding: chunked\r\n");
        break;
    default: /* HEAD and 304 may state the length that GET would have */
        if (ex->req.is_head && !ex->coding && h1_find(head, H1_CONTENT_LENGTH))
            h1_copy_field(o, h1_find(head, H1_CONTENT_LENGTH));
        break;
    }
}

void response_poll(struct h1_out *o, const struct request *r, uint64_t rest_ms)
{
    const struct worker *w = r->worker;
    const bool is_private =
        r->policy.identity == POLICY_PARTITION ||
        (r->route->cache->n_partition && r->route->cache->partition[0].kind != CONFIG_KEY_IDENTITY);
    h1_put(o, w->date.line, w->date.len);
    h1_puts(o, is_private ? "Cache-Control: private, max-age=" : "Cache-Control: max-age=");
    h1_put_u64(o, (rest_ms + 999) / 1000);
    h1_put(o, "\r\n", 2);
}

void response_preference(struct h1_out *o, const struct request *r)
{
    if (!r->waited_s)
        return;
    h1_puts(o, "Preference-Applied: wait=");
    h1_put_u64(o, r->waited_s);
    h1_put(o, "\r\n", 2);
}

static bool varies_by_coding(const struct fetch *ex)
{
    return ex->compressible || ex->stored_compressible;
}

/* The end-to-end fields of a backend's head, as a client gets them. */
static void put_client_fields(struct h1_out *o, const struct fetch *ex, const struct h1_head *head)
{
    const bool varies = varies_by_coding(ex), own_id = ex->worker->config->request_id;
    if (varies)
        put_vary(o, head);
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        if (f->id != H1_CONTENT_LENGTH && f->id != H1_TRAILER && !(varies && f->id == H1_VARY) &&
            !(own_id && f->id == H1_X_REQUEST_ID) && !h1_is_hop_by_hop(head, f))
            put_client_field(o, ex, f);
    }
}

/* The fields of an answer that is being stored, and that begins an interval of its route's poll. */
static void put_polled(struct h1_out *o, const struct fetch *ex, const struct h1_head *head)
{
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        switch (f->id) {
        case H1_CONTENT_LENGTH:
        case H1_TRAILER:
        case H1_CACHE_CONTROL:
        case H1_EXPIRES:
        case H1_PRAGMA:
        case H1_AGE:
        case H1_DATE:
            break;
        case H1_X_REQUEST_ID:
            if (!ex->worker->config->request_id)
                h1_copy_field(o, f);
            break;
        case H1_VARY:
            if (!varies_by_coding(ex))
                h1_copy_field(o, f);
            break;
        default:
            if (!h1_is_hop_by_hop(head, f))
                put_client_field(o, ex, f);
        }
    }
    if (varies_by_coding(ex))
        put_vary(o, head);
    response_poll(o, &ex->req, ex->req.route->poll->min_interval_ms);
}

/* A backend's 426 is of use only with what it asks for, although that is of the hop otherwise. */
static void put_upgrade(struct h1_out *o, const struct h1_head *head)
{
    for (uint32_t i = 0; i < head->n_fields; i++)
        if (head->field[i].id == H1_UPGRADE)
            h1_copy_field(o, &head->field[i]);
    if (head->first[H1_UPGRADE])
        h1_puts(o, "Connection: Upgrade\r\n");
}

size_t response_head(struct fetch *ex, const struct h1_head *head, uint16_t status)
{
    struct worker *w = ex->worker;
    struct h1_out o = {w->texts->scratch, w->texts->scratch + sizeof w->texts->scratch, false};
    struct str reason = head->reason;
    if (status != head->status)
        reason.len = 0; /* the standard one */
    h1_put_status_line(&o, status, reason);
    if (ex->store && request_interval_ms(&ex->req)) {
        put_polled(&o, ex, head);
    } else {
        put_client_fields(&o, ex, head);
        if (!h1_find(head, H1_DATE))
            h1_put(&o, w->date.line, w->date.len);
    }
    h1_put(&o, ex->req.limit_lines, ex->req.limit_len);
    put_request_id(&o, &ex->req);
    put_cache_status(&o, ex, head->status);
    response_preference(&o, &ex->req);
    if (ex->coding && status != 304) {
        h1_puts(&o, "Content-Encoding: ");
        h1_puts(&o, coding_name((enum coding)ex->coding));
        h1_puts(&o, "\r\n");
    }
    if (status == 426)
        put_upgrade(&o, head);
    put_framing(&o, ex, head);
    response_connection(&o, &ex->req, ex->req.client->keep_alive);
    h1_put(&o, "\r\n", 2);
    return o.overflow ? 0 : (size_t)(o.at - w->texts->scratch);
}

void response_interim(struct fetch *ex, const struct h1_head *head)
{
    struct worker *w = ex->worker;
    struct h1_out o = {w->texts->scratch, w->texts->scratch + sizeof w->texts->scratch, false};
    /* who does not read gets none: they are only hints */
    if (!ex->req.client || ex->req.http10 || head->status == 100 ||
        ex->req.client->out.len > WORKER_HIGH)
        return;
    h1_put_status_line(&o, head->status, head->reason);
    response_fields(&o, head, NULL, false, w->config->request_id);
    h1_put(&o, "\r\n", 2);
    if (o.overflow)
        return;
    route_stats_answer(w, ex->req.route, head->status);
    client_send_bytes(ex->req.client, w->texts->scratch, (size_t)(o.at - w->texts->scratch));
}

/* ---- the request, for the backend ---- */

static bool is_condition(enum h1_field_id id)
{
    return id == H1_IF_NONE_MATCH || id == H1_IF_MODIFIED_SINCE || id == H1_IF_MATCH ||
           id == H1_IF_UNMODIFIED_SINCE || id == H1_RANGE || id == H1_IF_RANGE;
}

/* Gateways of the CGI kind turn '-' into '_': Content_Length would be taken for Content-Length. */
static bool shadows_ours(struct str name)
{
    static const char *const ours[] = {"content-length",    "transfer-encoding", "host",
                                       "x-forwarded-for",   "x-forwarded-host",  "x-request-id",
                                       "x-forwarded-proto", "forwarded",         "connection"};
    char plain[32];
    if (name.len >= sizeof plain || !memchr(name.at, '_', name.len))
        return false;
    for (size_t i = 0; i < name.len; i++)
        plain[i] = name.at[i] == '_' ? '-' : name.at[i];
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (field_is((struct str){plain, name.len}, ours[i]))
            return true;
    return false;
}

/* The rest of the family X-Forwarded-: also only for a proxy that we know, and with '-'. */
static bool is_forwarding(const struct request *r, struct str name)
{
    static const char family[] = "x-forwarded-";
    char plain[sizeof family - 1];
    if (name.len < sizeof plain)
        return false;
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = name.at[i] == '_' ? '-' : name.at[i];
    return field_is((struct str){plain, sizeof plain}, family) &&
           (!r->trusted_peer || memchr(name.at, '_', name.len));
}

/* A field that replaces URL, method or host is a proxy's to send; what is stored under this URL is
 * not fetched with one, whoever sends it. */
static bool is_override(const struct response_request *what, struct str name)
{
    const struct request *r = what->request;
    const struct config *config = r->worker->config;
    if (!r->trusted_peer && override_is_listed(name, config->drop_headers, config->n_drop_headers))
        return true;
    return (what->for_store || r->cacheable) && override_replaces_request(name);
}

static bool is_forwarded(const struct response_request *what, const struct h1_field *f)
{
    switch (f->id) {
    case H1_HOST:
    case H1_CONTENT_LENGTH:
    case H1_EXPECT:
    case H1_TRAILER:
    case H1_X_FORWARDED_FOR:
        return false; /* written anew */
    case H1_POLDER_VERIFY:
        return false; /* it is for us */
    case H1_X_FORWARDED_PROTO:
    case H1_X_FORWARDED_HOST:
        return what->request->trusted_peer;
    case H1_FORWARDED: /* only a proxy that we know may say who its client is */
        return what->request->trusted_peer && what->request->head->first[H1_X_FORWARDED_FOR];
    case H1_OTHER:
        if (shadows_ours(f->name) || is_forwarding(what->request, f->name))
            return false;
        break;
    default:
        break;
    }
    if (is_override(what, f->name))
        return false;
    if (what->for_store && is_condition(f->id))
        return false;
    if (f->id == H1_ACCEPT_ENCODING && request_asks_plain(what->request))
        return false;
    if (f->id == H1_PREFER && what->request->route && what->request->route->poll)
        return false; /* who waits, waits here */
    return !h1_is_hop_by_hop(what->request->head, f);
}

/* Where answers are stored, the host as the key has it: one that a client spells otherwise, or with
 * the port that is meant anyhow, would stand in everybody's links. */
static struct str host_of(const struct request *r)
{
    const bool as_keyed = r->route && r->route->cache && !r->probe;
    const char *slash = as_keyed ? memchr(r->url, '/', r->url_len) : NULL;
    return slash ? (struct str){r->url, (size_t)(slash - r->url)} : r->head->host;
}

/* A trusted proxy may use Forwarded alone: the others of the family are made from it, for most
 * backends know only those. */
struct forwarding {
    char forwarded[H1_HEAD_MAX]; /* joined */
    size_t len;                  /* 0: nothing is to be made of it */
    struct clientip_origin origin;
};

static void read_forwarding(const struct request *r, struct forwarding *t)
{
    const struct config *config = r->worker->config;
    t->len = 0;
    t->origin = (struct clientip_origin){0};
    if (!r->trusted_peer || !r->head->first[H1_FORWARDED] || r->head->first[H1_X_FORWARDED_FOR])
        return;
    t->len = h1_join(r->head, H1_FORWARDED, t->forwarded, sizeof t->forwarded);
    if (t->len)
        clientip_forwarded_origin(t->forwarded, t->len, config->trusted_proxies,
                                  config->n_trusted_proxies, &t->origin);
}

static void put_forwarded_for(struct h1_out *o, const struct request *r,
                              const struct forwarding *forwarding)
{
    const struct h1_head *head = r->head;
    char peer[46], chain[4096];
    const size_t n = clientip_format(&r->peer, peer);
    h1_puts(o, "X-Forwarded-For: ");
    if (r->trusted_peer)
        for (uint32_t i = 0; i < head->n_fields; i++)
            if (head->field[i].id == H1_X_FORWARDED_FOR && head->field[i].value.len) {
                put_text(o, head->field[i].value);
                h1_put(o, ", ", 2);
            }
    const size_t chain_len =
        forwarding->len
            ? clientip_forwarded_chain(forwarding->forwarded, forwarding->len, chain, sizeof chain)
            : 0;
    if (chain_len) {
        h1_put(o, chain, chain_len);
        h1_put(o, ", ", 2);
    }
    h1_put(o, peer, n);
    h1_puts(o, "\r\n");
}

/* The line that came, with our own hop (RFC 7239 section 4). */
static void put_forwarded(struct h1_out *o, const struct request *r,
                          const struct forwarding *forwarding)
{
    char peer[46];
    const size_t n = clientip_format(&r->peer, peer);
    const bool v6 = memchr(peer, ':', n);
    h1_puts(o, "Forwarded: ");
    h1_put(o, forwarding->forwarded, forwarding->len);
    h1_puts(o, v6 ? ", for=\"[" : ", for=");
    h1_put(o, peer, n);
    h1_puts(o, v6 ? "]\"\r\n" : "\r\n");
}

static void put_forwarding(struct h1_out *o, const struct request *r)
{
    const struct h1_head *head = r->head;
    struct forwarding forwarding;
    read_forwarding(r, &forwarding);
    put_forwarded_for(o, r, &forwarding);
    if (forwarding.len)
        put_forwarded(o, r, &forwarding);
    if (!r->trusted_peer || !h1_find(head, H1_X_FORWARDED_PROTO))
        h1_puts(o, forwarding.origin.proto.len == 5 ? "X-Forwarded-Proto: https\r\n"
                                                    : "X-Forwarded-Proto: http\r\n");
    if (forwarding.origin.host.len && !h1_find(head, H1_X_FORWARDED_HOST)) {
        h1_puts(o, "X-Forwarded-Host: ");
        put_text(o, forwarding.origin.host);
        h1_puts(o, "\r\n");
    } else if ((!r->trusted_peer || !h1_find(head, H1_X_FORWARDED_HOST)) && head->host.len) {
        h1_puts(o, "X-Forwarded-Host: ");
        put_text(o, host_of(r));
        h1_puts(o, "\r\n");
    }
    via_put(o, r);
}

/* The backend's own validators of what is stored: it may answer 304. */
static void put_conditions(struct h1_out *o, const struct cache_view *v)
{
    struct str t;
    if (!(v->record->flags & CACHE_ETAG_OURS) && stored_field(v, "etag", &t)) {
        h1_puts(o, "If-None-Match: ");
        put_text(o, t);
        h1_puts(o, "\r\n");
    }
    if (stored_field(v, "last-modified", &t)) {
        h1_puts(o, "If-Modified-Since: ");
        put_text(o, t);
        h1_puts(o, "\r\n");
    }
}

static void put_request_framing(struct h1_out *o, const struct h1_head *head)
{
    if (head->framing == H1_LENGTH) {
        h1_puts(o, "Content-Length: ");
        h1_put_u64(o, head->length);
        h1_puts(o, "\r\n");
    } else if (head->framing == H1_CHUNKED) {
        h1_puts(o, "Transfer-Encoding: chunked\r\n");
    }
}

/* Is there a tag in the list that Polder has made weak, or has made altogether? The backend knows
 * neither. */
static bool has_our_tags(const struct request *r, const struct h1_field *f)
{
    struct str rest = f->value, tag, opaque;
    if ((f->id != H1_IF_MATCH && f->id != H1_IF_NONE_MATCH) || !r->route ||
        !(r->route->n_compress || r->route->cache))
        return false;
    while (field_etag_next(&rest, &tag))
        if (field_etag_unmark(tag, &opaque) || (r->route->cache && stored_etag_is_ours(tag)))
            return true;
    return false;
}

/* The list as the backend knows it: tags that were made weak are strong ones again, those that
 * Polder has made are left out (own_tags_hold() has judged them). */
static void put_tags(struct h1_out *o, const struct request *r, const struct h1_field *f)
{
    struct str rest = f->value, tag, opaque;
    bool first = true;
    while (field_etag_next(&rest, &tag)) {
        if (r->route->cache && stored_etag_is_ours(tag))
            continue;
        if (first)
            put_text(o, f->name);
        h1_puts(o, first ? ": " : ", ");
        first = false;
        if (field_etag_unmark(tag, &opaque)) {
            h1_puts(o, "\"");
            put_text(o, opaque);
            h1_puts(o, "\"");
        } else {
            put_text(o, tag);
        }
    }
    if (!first)
        h1_puts(o, "\r\n");
}

/* Of the extensions that a client offers those that we know: frames of others would break rules
 * that are checked (RFC 6455 9.1: what is not accepted is not used). */
static void put_extensions(struct h1_out *o, const struct h1_field *f)
{
    struct str rest = f->value, offer;
    bool first = true;
    while (field_list_next(&rest, &offer)) {
        struct str name = offer;
        for (size_t i = 0; i < name.len; i++)
            if (name.at[i] == ';' || name.at[i] == ' ' || name.at[i] == '\t')
                name.len = i;
        if (!field_is(name, "permessage-deflate"))
            continue;
        h1_puts(o, first ? "Sec-WebSocket-Extensions: " : ", ");
        put_text(o, offer);
        first = false;
    }
    if (!first)
        h1_puts(o, "\r\n");
}

static void put_number(struct h1_out *o, struct str name, uint64_t n)
{
    put_text(o, name);
    h1_puts(o, ": ");
    h1_put_u64(o, n);
    h1_puts(o, "\r\n");
}

static void put_request_fields(struct h1_out *o, const struct response_request *what)
{
    const struct request *r = what->request;
    const bool keep_id = request_id_is_given(r);
    uint64_t hops;
    for (uint32_t i = 0; i < r->head->n_fields; i++) {
        const struct h1_field *f = &r->head->field[i];
        if (!(f->id == H1_X_REQUEST_ID ? keep_id : is_forwarded(what, f)))
            continue;
        if (f->id == H1_COOKIE && r->drops_cookies)
            identity_put_cookie(r, o, f);
        else if (via_max_forwards(r->head, f, &hops))
            put_number(o, f->name, hops - 1);
        else if (has_our_tags(r, f))
            put_tags(o, r, f);
        else if (f->id == H1_SEC_WEBSOCKET_EXTENSIONS && what->upgrade)
            put_extensions(o, f);
        else
            h1_copy_field(o, f);
    }
    put_forwarding(o, r);
    if (request_asks_plain(r))
        h1_puts(o, "Accept-Encoding: identity\r\n");
    if (!keep_id)
        request_id_put(o, r);
    if (what->conditions)
        put_conditions(o, &what->conditions->view);
}

size_t response_request_head(struct worker *w, const struct response_request *what)
{
    const struct h1_head *head = what->request->head;
    struct h1_out o = {w->texts->scratch, w->texts->scratch + sizeof w->texts->scratch, false};
    if (what->for_store)
        h1_puts(&o, "GET");
    else
        put_text(&o, head->method);
    h1_put(&o, " ", 1);
    put_text(&o, what->request->target);
    h1_puts(&o, " HTTP/1.1\r\nHost: ");
    put_text(&o, host_of(what->request));
    h1_puts(&o, "\r\n");
    put_request_fields(&o, what);
    if (!what->for_store)
        put_request_framing(&o, head);
    h1_puts(&o, what->upgrade ? "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                              : "Connection: keep-alive\r\n\r\n");
    return o.overflow ? 0 : (size_t)(o.at - w->texts->scratch);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * request_head: the request as a backend gets it, written anew from what was parsed, with one
 * framing field of our own.
 */
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/message/via.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/cache.h"
#include "polder/clientip.h"
#include "polder/config.h"
#include "polder/field.h"
#include "polder/override.h"

#include <string.h>

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
 * not fetched with one, whichever peer sends it. */
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
                h1_put_str(o, head->field[i].value);
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
        h1_put_str(o, forwarding.origin.host);
        h1_puts(o, "\r\n");
    } else if ((!r->trusted_peer || !h1_find(head, H1_X_FORWARDED_HOST)) && head->host.len) {
        h1_puts(o, "X-Forwarded-Host: ");
        h1_put_str(o, host_of(r));
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
        h1_put_str(o, t);
        h1_puts(o, "\r\n");
    }
    if (stored_field(v, "last-modified", &t)) {
        h1_puts(o, "If-Modified-Since: ");
        h1_put_str(o, t);
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
            h1_put_str(o, f->name);
        h1_puts(o, first ? ": " : ", ");
        first = false;
        if (field_etag_unmark(tag, &opaque)) {
            h1_puts(o, "\"");
            h1_put_str(o, opaque);
            h1_puts(o, "\"");
        } else {
            h1_put_str(o, tag);
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
        h1_put_str(o, offer);
        first = false;
    }
    if (!first)
        h1_puts(o, "\r\n");
}

static void put_number(struct h1_out *o, struct str name, uint64_t n)
{
    h1_put_str(o, name);
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
        if (f->id == H1_COOKIE && identity_edits_cookies(r))
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
        h1_put_str(&o, head->method);
    h1_put(&o, " ", 1);
    h1_put_str(&o, what->request->target);
    h1_puts(&o, " HTTP/1.1\r\nHost: ");
    h1_put_str(&o, host_of(what->request));
    h1_puts(&o, "\r\n");
    put_request_fields(&o, what);
    if (!what->for_store)
        put_request_framing(&o, head);
    h1_puts(&o, what->upgrade ? "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                              : "Connection: keep-alive\r\n\r\n");
    return o.overflow ? 0 : (size_t)(o.at - w->texts->scratch);
}

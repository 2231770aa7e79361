/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * headers: heads for clients. Everything that is sent is written anew from what was parsed, with
 * one framing field of our own; Polder's own answers are problem details (RFC 9457).
 */
#include "daemons/worker/fetch/headers.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/message/affinity.h"
#include "daemons/worker/buffer.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/cors.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/cache.h"
#include "polder/config.h"
#include "polder/field.h"
#include "polder/stats.h"

#include <string.h>
#include <strings.h>

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
    const char *end = len ? memrchr(text, '\n', len - 1) : NULL; /* the body is the last line */
    const size_t head_len = end ? (size_t)(end - text) + 1 : len;
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
        return true; /* record_put_head() writes that of what is stored */
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
        h1_put_str(o, name);
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
    h1_put_str(o, f->name);
    h1_puts(o, ": W/");
    h1_put(o, f->value.at, f->value.len - 1);
    h1_puts(o, FIELD_ETAG_MARK "\"\r\n");
}

/* A field of a backend's head for its client, which may get other bytes than the backend sent. */
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
    affinity_put_cookie(&o, &ex->sticky, head, ex->store != NULL);
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
    /* a client that does not read gets none: they are only hints */
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * revalidate: whether a 304, or the answer to a HEAD, is about what is stored (RFC
 * 9111 4.3.4, 4.3.5), and what it then does to the stored head. Only that travels to the keeper.
 */
#include "daemons/worker/fetch/store.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/fetch/content.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/fleet_offer.h"
#include "daemons/worker/fetch/record.h"
#include "daemons/worker/message/guard.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/keeper_link.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "daemons/worker/message/route_state.h"
#include "polder/field.h"
#include "polder/head_lines.h"
#include "polder/policy.h"
#include "polder/stats.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- is it about what is stored? ---- */

static struct policy_validators validators_of_copy(const struct stored_copy *copy)
{
    const struct cache_record *rec = copy->view.record;
    struct policy_validators v = {.has_length = true, .length = rec->body_len};
    if (!(rec->flags & CACHE_ETAG_OURS))
        stored_field(&copy->view, "etag", &v.etag);
    v.has_last_modified = rec->last_modified_ms != 0;
    v.last_modified = (int64_t)(rec->last_modified_ms / 1000);
    return v;
}

static struct policy_validators validators_of_head(const struct h1_head *head)
{
    struct policy_validators v = {.has_length = h1_find(head, H1_CONTENT_LENGTH) != NULL,
                                  .length = head->length};
    const struct h1_field *etag = h1_only(head, H1_ETAG);
    if (etag)
        v.etag = etag->value;
    else if (h1_find(head, H1_ETAG))
        v.etag = (struct str){"", 0}; /* of two it is unknown which: it matches none */
    v.has_last_modified = h1_read_date(head, H1_LAST_MODIFIED, &v.last_modified);
    return v;
}

/* Does the variant's selecting text have that name? */
static bool is_selected_by(const struct cache_view *v, struct str name)
{
    return head_lines_find((struct str){v->vary, v->record->vary_len}, name, NULL);
}

/* A response that varies by more fields than the stored one may differ for other clients. */
static bool varies_no_further(const struct fetch *ex, const struct h1_head *head)
{
    const bool plain = request_asks_plain(&ex->req);
    struct h1_vary walk = {0};
    struct str name;
    while (h1_vary_next(head, &walk, &name))
        if (!(plain && field_is(name, "accept-encoding")) &&
            !is_selected_by(&ex->stale->view, name))
            return false;
    return true;
}

bool revalidate_agrees(const struct fetch *ex, const struct h1_head *head)
{
    const struct policy_validators stored = validators_of_copy(ex->stale),
                                   got = validators_of_head(head);
    return policy_304_agrees(&stored, &got) && varies_no_further(ex, head);
}

/* ---- what the head brings, in its place ---- */

/* One without a Date has been made now (RFC 9110 6.6.1). */
static bool replaced(const struct h1_head *head, struct str name)
{
    if (field_is(name, "date"))
        return true;
    for (uint32_t i = 0; i < head->n_fields; i++)
        if (head->field[i].name.len == name.len &&
            !strncasecmp(head->field[i].name.at, name.at, name.len))
            return policy_freshens(name);
    return false;
}

/* Stored status line and fields, with those that the 304 brings put in their place. */
static size_t merge_heads(struct worker *w, const struct cache_view *old,
                          const struct h1_head *head, char *out, size_t size)
{
    struct h1_out o = {out, out + size, false};
    struct str rest = {old->head, old->record->head_len}, line, value;
    if (head_line_next(&rest, &line)) /* the status line */
        h1_put(&o, line.at, line.len);
    while (head_line_next(&rest, &line))
        if (!replaced(head, head_line_name(line, &value)))
            h1_put(&o, line.at, line.len);
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        if (!policy_freshens(f->name) || f->id == H1_CONTENT_LENGTH || f->id == H1_AGE ||
            h1_is_hop_by_hop(head, f))
            continue;
        h1_copy_field(&o, f);
    }
    if (!h1_find(head, H1_DATE))
        h1_put(&o, w->date.line, w->date.len);
    return o.overflow ? 0 : (size_t)(o.at - out);
}

/* A copy like old with another head and record. */
static struct stored_copy *with_head(const struct stored_copy *old, const struct cache_record *rec,
                                     const char *head, size_t head_len)
{
    const struct cache_view *v = &old->view;
    const size_t fixed = sizeof *rec + rec->url_len + rec->vary_len;
    const size_t body = v->body ? rec->inline_len : 0, len = fixed + head_len + body;
    struct stored_copy *copy = malloc(sizeof *copy + len);
    if (!copy)
        return NULL;
    copy->key = old->key;
    copy->len = len;
    copy->since = old->since;
    copy->pinned = false;
    memcpy(copy->bytes, old->bytes, fixed);
    memcpy(copy->bytes, rec, sizeof *rec);
    memcpy(copy->bytes + fixed, head, head_len);
    if (body)
        memcpy(copy->bytes + fixed + head_len, v->body, body);
    cache_view_of(copy->bytes, &copy->view);
    return copy;
}

static bool push_revalidate(struct fetch *ex, const struct stored_copy *copy)
{
    struct cache_record rec = *copy->view.record;
    const size_t len = sizeof rec + rec.url_len + rec.vary_len + rec.head_len;
    rec.inline_len = 0; /* only the head travels */
    const struct iovec iov[2] = {{&rec, sizeof rec},
                                 {(void *)(copy->bytes + sizeof rec), len - sizeof rec}};
    if (keeper_link_push(ex->worker, RING_REVALIDATE, 0, &ex->permit, iov, 2) < 0) {
        stats_add(ex->worker->stats, STATS_CACHE_RING_FULL, 1);
        return false;
    }
    return true;
}

const struct h1_head *revalidate_merge(struct worker *w, const struct cache_view *old,
                                       const struct h1_head *head)
{
    static struct h1_head merged; /* scratches of this process's one thread */
    static char text[H1_HEAD_MAX];
    size_t scanned = 0;
    const size_t len = merge_heads(w, old, head, text, sizeof text - 2);
    if (!len)
        return NULL;
    memcpy(text + len, "\r\n", 2);
    return h1_parse_response(text, len + 2, &scanned, true, &merged) == H1_DONE ? &merged : NULL;
}

/* Does the answer forbid sharing of the stored response, and not only because of this request's
 * identity? */
static bool takes_back(const struct policy_request *req, enum policy_store why)
{
    const bool by_client = req->obey_directives && req->cc.flags & FIELD_CC_NO_STORE;
    return why == POLICY_NO_PRIVATE || why == POLICY_NO_VARY_STAR || why == POLICY_NO_UNREADABLE ||
           (why == POLICY_NO_STORE && !by_client);
}

/* Why the stored response may not be kept with the renewed head; NULL: it may, under the tags of
 * that head. *delete: it must not be served any more, not even stale. */
static const char *refusal(const struct fetch *ex, const struct h1_head *merged,
                           const struct policy_response *resp, struct cache_record *rec,
                           bool *delete)
{
    struct worker *w = ex->worker;
    const enum policy_store why =
        policy_may_store(&ex->req.policy, resp, &w->routes[ex->req.route->index].settings);
    *delete = true;
    if (request_is_quarantined(&ex->req)) /* since it was sent */
        return guard_detail(&ex->req);
    rec->n_tags = 0;
    memset(rec->tag_slot, 0, sizeof rec->tag_slot);
    const bool fits = tags_read(&ex->req, merged, rec);
    *delete =
        ex->req.policy.identity != POLICY_SHARED && (!fits || takes_back(&ex->req.policy, why));
    return why != POLICY_STORE ? policy_store_reason(why)
           : fits              ? NULL
                               : policy_store_reason(POLICY_NO_TAGS);
}

/* The copy of the exchange under another head, which is in the worker's scratch. */
static bool rehead(struct fetch *ex, struct cache_record *rec, size_t head_len)
{
    struct worker *w = ex->worker;
    rec->head_len = (uint32_t)head_len;
    struct stored_copy *old = ex->stale, *copy = with_head(old, rec, w->texts->scratch, head_len);
    if (!copy)
        return false;
    copy->pinned = old->pinned;
    old->pinned = false;
    stored_copy_free(w, old);
    ex->stale = copy;
    return true;
}

/* Fields of an answer to an identified request go into a shared response only if the answer itself
 * allows sharing: what the stored response allowed does not cover the new fields. */
static bool is_for_itself(const struct fetch *ex, const struct h1_head *head)
{
    struct policy_response resp;
    char scratch[H1_CACHE_SCRATCH];
    if (ex->req.policy.identity != POLICY_SHARED || identity_varies_by_all(&ex->req, head))
        return false;
    h1_policy_response(head, (int64_t)(ex->worker->real_ms / 1000), scratch, &resp);
    return !policy_states_shared_lifetime(&resp, ex->worker->real_ms);
}

bool revalidate_stored(struct fetch *ex, const struct h1_head *head)
{
    struct worker *w = ex->worker;
    struct cache_record rec = *ex->stale->view.record;
    struct policy_response resp;
    char scratch[H1_CACHE_SCRATCH];
    bool delete;
    const struct h1_head *merged = revalidate_merge(w, &ex->stale->view, head);
    if (!merged)
        return false;
    h1_policy_response(merged, (int64_t)(w->real_ms / 1000), scratch, &resp);
    h1_policy_age(head, &resp); /* a stored Age is history; a new one counts */
    resp.varies_by_identity = identity_varies_by_all(&ex->req, merged);
    const char *refused = refusal(ex, merged, &resp, &rec, &delete);
    if (!refused && is_for_itself(ex, head))
        refused = policy_store_reason(POLICY_NO_IDENTITY);
    resp.omits_set_cookie =
        resp.has_set_cookie && !w->routes[ex->req.route->index].settings.store_set_cookie;
    if (resp.cc.flags & FIELD_CC_NO_TRANSFORM || content_is_vouched_for(merged))
        rec.flags &= ~(uint32_t)CACHE_COMPRESSIBLE;
    /* Fields that a 200 may not bring into the store, a 304 may not either; but the client gets all
     * of them. */
    struct h1_out o = {w->texts->scratch, w->texts->scratch + H1_HEAD_MAX, false};
    record_put_head(&o, w, merged, refused ? NULL : &resp, NULL, rec.flags & CACHE_COMPRESSIBLE);
    record_set_times(&rec, ex, &resp);
    if (refused) {
        ex->not_stored = refused;
        if (delete)
            keeper_link_delete_object(w, &ex->stale->key, ex->stale->view.record->obj_id);
        fleet_offer_release(ex, FETCH_LOCK_NOSHARE);
        if (!o.overflow)
            rehead(ex, &rec, (size_t)(o.at - w->texts->scratch));
        return true;
    }
    if (o.overflow || !rehead(ex, &rec, (size_t)(o.at - w->texts->scratch)) ||
        !push_revalidate(ex, ex->stale))
        return false;
    fleet_offer_renewed(ex);
    if (resp.omits_set_cookie) {
        o = (struct h1_out){w->texts->scratch, w->texts->scratch + H1_HEAD_MAX, false};
        record_put_head(&o, w, merged, NULL, NULL, rec.flags & CACHE_COMPRESSIBLE);
        if (!o.overflow)
            rehead(ex, &rec, (size_t)(o.at - w->texts->scratch));
    }
    return true;
}

/* Where it does not agree nothing is to be done: what is stored is stale already, or the store
 * would have answered. */
void revalidate_by_head(struct fetch *ex, const struct h1_head *head)
{
    if (!ex->stale || !ex->req.cacheable || head->status != 200 ||
        ex->stale->view.record->status != 200)
        return;
    const struct policy_validators stored = validators_of_copy(ex->stale),
                                   got = validators_of_head(head);
    if (!policy_head_agrees(&stored, &got) || !varies_no_further(ex, head))
        return;
    struct policy_request *req = &ex->req.policy;
    req->is_get = true; /* what is stored is an answer to GET */
    revalidate_stored(ex, head);
    req->is_get = false;
}

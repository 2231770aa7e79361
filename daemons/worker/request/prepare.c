/* SPDX-License-Identifier: BSD-2-Clause */
/* prepare: whether the store may answer a request, and what it is to be asked: the key, conditions,
 * ranges, a content coding, how long to wait for a change. */
#include "daemons/http/h1.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/fetch/compress.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/request/prefer.h"
#include "daemons/worker/request/steps.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/cache.h"
#include "polder/inval.h"
#include "polder/override.h"

#include <errno.h>

/* Of a field that has one value; in two lines it is as absent. */
static struct str value_of(const struct h1_head *head, enum h1_field_id id)
{
    const struct h1_field *f = h1_only(head, id);
    return f ? f->value : (struct str){0};
}

/* If-None-Match is a list, of all its lines (RFC 9110 5.2, 13.1.2). */
static struct str joined_tags(struct worker *w, const struct h1_head *head)
{
    const struct h1_field *f = h1_only(head, H1_IF_NONE_MATCH);
    if (f || !head->first[H1_IF_NONE_MATCH])
        return f ? f->value : (struct str){0};
    const size_t n =
        h1_join(head, H1_IF_NONE_MATCH, w->texts->joined_tags, sizeof w->texts->joined_tags);
    return (struct str){w->texts->joined_tags, n};
}

/* One that cannot be parsed never holds, so that the whole is sent (13.1.5). */
static struct str range_condition(const struct h1_head *head)
{
    const struct h1_field *f = h1_only(head, H1_IF_RANGE);
    if (f || !head->first[H1_IF_RANGE])
        return f ? f->value : (struct str){0};
    return (struct str){"", 0};
}

/* The identity, and the key under which the URL is stored for it. False: it has none. */
static bool prepare_key(struct worker *w, struct request *r)
{
    const struct config_cache *cache = r->route->cache;
    identity_classify(r);
    struct h1_out o = {w->texts->partition, w->texts->partition + sizeof w->texts->partition,
                       false};
    if (cache->n_partition) {
        const int n = key_text_join(r, cache->partition, cache->n_partition, true,
                                    w->texts->partition, sizeof w->texts->partition);
        if (n == -ENOBUFS || n == -EINVAL)
            return false;      /* the copy's identity would be unknown */
        o.at += n < 0 ? 0 : n; /* those without the value share one copy */
    }
    if (r->trusted_peer)
        request_put_origin(&o, r);
    if (o.overflow)
        return false;
    r->partition = w->texts->partition;
    r->partition_len = (uint32_t)(o.at - w->texts->partition);
    cache_key_of(inval_secret(w->shared->inval), r->url, r->url_len, r->partition, r->partition_len,
                 &r->key);
    return true;
}

/* Prefer: wait, as far as the route grants it. A held request has its time already. */
static void prepare_wait(const struct worker *w, struct request *r)
{
    const struct config_poll *poll = r->route->poll;
    if (!poll || r->policy.identity == POLICY_SHARED || r->waited_s || !r->head->first[H1_PREFER] ||
        !r->if_none_match.at)
        return;
    const uint64_t wanted_ms = (uint64_t)prefer_wait_s(r->head) * 1000;
    const uint64_t ms = wanted_ms < poll->max_wait_ms ? wanted_ms : poll->max_wait_ms;
    r->wait_s = (uint32_t)(ms / 1000);
    r->until_ms = w->mono_ms + ms;
}

bool request_prepare_lookup(struct worker *w, struct request *r)
{
    const struct h1_head *head = r->head;
    if (!head->is_get && !head->is_head)
        return false;
    if (head->first[H1_IF_MATCH] || head->first[H1_IF_UNMODIFIED_SINCE])
        return false; /* conditions for a change: the backend's to judge */
    if (head->framing != H1_NO_BODY && !(head->framing == H1_LENGTH && head->length == 0))
        return false; /* a GET with a body: the body may matter */
    h1_policy_request(head, &r->policy);
    r->if_none_match = joined_tags(w, head);
    r->if_modified_since = value_of(head, H1_IF_MODIFIED_SINCE);
    r->range = value_of(head, H1_RANGE);
    r->if_range = range_condition(head);
    r->coding = (uint8_t)compress_choose(r);
    if (!prepare_key(w, r))
        return false;
    prepare_wait(w, r);
    return true;
}

/* Then it may not be what it looks like to the backend. */
static bool has_override(const struct h1_head *head)
{
    for (uint32_t i = 0; i < head->n_fields; i++)
        if (head->field[i].id == H1_OTHER && override_replaces_request(head->field[i].name))
            return true;
    return false;
}

bool request_own_tags_hold(struct worker *w, struct request *r)
{
    struct hit_found found = {0};
    struct cache_view v;
    char space[STORED_ETAG_MAX];
    struct str tag;
    bool any = false, others = false, holds = false;
    for (uint32_t i = 0; i < r->head->n_fields; i++) {
        struct str rest = r->head->field[i].value;
        while (r->head->field[i].id == H1_IF_MATCH && field_etag_next(&rest, &tag))
            *(stored_etag_is_ours(tag) ? &any : &others) = true;
    }
    if (!any || others)
        return true;
    if (!prepare_key(w, r) || !reader_ready(w))
        return false;
    if (stored_find(w, r, &v, &found) == 1 && w->real_ms < v.record->fresh_until_ms &&
        cache_record_state(w->shared->inval, v.record, v.record->fetch_seq) == INVAL_VALID)
        for (uint32_t i = 0; i < r->head->n_fields && !holds; i++)
            holds = r->head->field[i].id == H1_IF_MATCH &&
                    field_etag_listed(r->head->field[i].value, stored_etag(&v, space), true);
    cache_reader_release(w->reader);
    return holds;
}

bool request_prepare_post(struct worker *w, struct request *r)
{
    if (!field_is(r->head->method, "post") || has_override(r->head) ||
        r->head->framing == H1_CHUNKED) /* its trailer may still identify the caller */
        return false;
    h1_policy_request(r->head, &r->policy);
    return prepare_key(w, r);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * freshen: whether a 304, or the answer to a HEAD, is about what is stored (RFC 9111 4.3.4, 4.3.5).
 * What it then does to the stored head is tee_freshen()'s.
 */
#include "daemons/worker/tee.h"
#include "daemons/worker/exchange.h"
#include "daemons/worker/hit.h"
#include "polder/field.h"
#include "polder/policy.h"

static struct policy_validators validators_of_copy(const struct stored_copy *copy)
{
    const struct cache_record *rec = copy->view.record;
    struct policy_validators v = {.has_length = true, .length = rec->body_len};
    if (!(rec->flags & CACHE_ETAG_OURS))
        hit_stored_field(&copy->view, "etag", &v.etag);
    v.has_last_modified = rec->last_modified_ms != 0;
    v.last_modified = (int64_t)(rec->last_modified_ms / 1000);
    return v;
}

static struct policy_validators validators_of_head(const struct h1_head *head)
{
    struct policy_validators v = {.has_length = h1_find(head, H1_CONTENT_LENGTH) != NULL,
                                  .length = head->length};
    const struct h1_field *etag = h1_find(head, H1_ETAG), *lm = h1_find(head, H1_LAST_MODIFIED);
    if (etag)
        v.etag = etag->value;
    v.has_last_modified = lm && field_date(lm->value, &v.last_modified) == 0;
    return v;
}

bool freshen_agrees(const struct stored_copy *copy, const struct h1_head *head)
{
    const struct policy_validators stored = validators_of_copy(copy),
                                   got = validators_of_head(head);
    return policy_304_agrees(&stored, &got);
}

/* Where it does not agree nothing is to be done: what is stored is stale already, or the store
 * would have answered. */
void freshen_by_head(struct exchange *ex, const struct h1_head *head)
{
    if (!ex->stale || !ex->req.cacheable || head->status != 200 ||
        ex->stale->view.record->status != 200)
        return;
    const struct policy_validators stored = validators_of_copy(ex->stale),
                                   got = validators_of_head(head);
    if (!policy_head_agrees(&stored, &got))
        return;
    struct policy_request *req = &ex->req.policy;
    req->is_get = true; /* what is stored is an answer to GET */
    tee_freshen(ex, head);
    req->is_get = false;
}

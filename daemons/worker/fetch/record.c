/* SPDX-License-Identifier: BSD-2-Clause */
/* record: see record.h. */
#include "daemons/worker/fetch/record.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/fetch/content.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/fetch/partial.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/route_state.h"
#include "daemons/worker/worker.h"
#include "polder/coding.h"
#include "polder/policy.h"

#include <string.h>

/* ---- Vary ---- */

static bool name_known(const char *names, uint32_t len, const char *name, size_t name_len)
{
    for (uint32_t i = 0; i < len;) {
        const char *stop = memchr(names + i, '\n', len - i);
        const size_t n = (size_t)(stop - (names + i));
        if (n == name_len && !memcmp(names + i, name, n))
            return true;
        i += (uint32_t)n + 1;
    }
    return false;
}

/* Fields that the backend gets from us, other than the client sent them: what varies by them cannot
 * be told from the request. (Scheme and host are part of the key.) */
static bool is_ours(const char *name, size_t len)
{
    static const char *const names[] = {"x-forwarded-for", "forwarded",  "via",
                                        "x-request-id",    "connection", "host"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == len && !memcmp(names[i], name, len))
            return true;
    return false;
}

bool record_read_vary(const struct h1_head *head, bool plain, char names[RECORD_NAMES_MAX],
                      uint32_t *len)
{
    struct h1_vary walk = {0};
    struct str name;
    unsigned count = 0;
    while (h1_vary_next(head, &walk, &name)) {
        char lower[128];
        if (name.len >= sizeof lower || ++count > CACHE_VARY_MAX ||
            *len + name.len + 1 > RECORD_NAMES_MAX)
            return false;
        for (size_t i = 0; i < name.len; i++)
            lower[i] =
                name.at[i] >= 'A' && name.at[i] <= 'Z' ? (char)(name.at[i] | 0x20) : name.at[i];
        if (is_ours(lower, name.len))
            return false;
        if (plain && name.len == 15 && !memcmp(lower, "accept-encoding", 15))
            continue; /* the backend is asked the same for every client */
        if (name_known(names, *len, lower, name.len))
            continue;
        memcpy(names + *len, lower, name.len);
        *len += (uint32_t)name.len;
        names[(*len)++] = '\n';
    }
    return true;
}

/* ---- the head, and its times ---- */

static void put_range(struct h1_out *o, const struct part *part)
{
    h1_puts(o, "Content-Range: bytes ");
    h1_put_u64(o, part->span.first);
    h1_put(o, "-", 1);
    h1_put_u64(o, part->span.last);
    h1_put(o, "/", 1);
    h1_put_u64(o, part->span.size);
    h1_put(o, "\r\n", 2);
}

void record_put_head(struct h1_out *o, const struct worker *w, const struct h1_head *head,
                     const struct policy_response *resp, const struct part *part, bool compressible)
{
    if (part && part->complete)
        h1_put_status_line(o, 200, (struct str){0});
    else
        h1_put_status_line(o, head->status, head->reason);
    response_fields(o, head, resp, compressible, false);
    if (part && !part->complete)
        put_range(o, part);
    if (!h1_find(head, H1_DATE))
        h1_put(o, w->date.line, w->date.len);
}

void record_set_times(struct cache_record *rec, const struct fetch *ex,
                      const struct policy_response *resp)
{
    const struct worker *w = ex->worker;
    struct policy_freshness fresh;
    policy_freshness_of(&ex->req.policy, resp, &w->routes[ex->req.route->index].settings,
                        ex->sent_real_ms, w->real_ms, &fresh);
    rec->fetch_seq = ex->fetch_seq;
    rec->received_ms = w->real_ms;
    rec->fresh_until_ms = fresh.fresh_until_ms;
    rec->swr_until_ms = fresh.swr_until_ms;
    rec->sie_until_ms = fresh.sie_until_ms;
    rec->age_s = fresh.age_s;
    rec->flags = (rec->flags & ~(uint32_t)(CACHE_MUST_REVALIDATE | CACHE_NO_CACHE | CACHE_AUTH_OK |
                                           CACHE_FOR_OTHERS | CACHE_SOFTENED | CACHE_FROM_FLEET)) |
                 fresh.flags;
    rec->fetch_ns = ex->fetch_ns;
    rec->last_modified_ms = resp->has_last_modified && resp->last_modified > 0
                                ? (uint64_t)resp->last_modified * 1000
                                : 0;
    rec->flags |= resp->has_last_modified ? CACHE_HAS_LAST_MODIFIED : 0;
}

/* ---- what it is good for ---- */

bool record_is_compressible(const struct fetch *ex, const struct h1_head *head,
                            const struct policy_response *resp)
{
    const struct config_cache *cache = ex->req.route->cache;
    const struct h1_field *type = h1_only(head, H1_CONTENT_TYPE);
    if (!cache->n_compress || !ex->for_store || head->status != 200 || !type ||
        h1_find(head, H1_CONTENT_ENCODING) || resp->cc.flags & FIELD_CC_NO_TRANSFORM)
        return false;
    if (resp->complete_length_known && resp->length < cache->compress_min)
        return false;
    return coding_type_is_compressible(type->value) && !content_is_vouched_for(head);
}

bool record_suits_origins(const struct h1_head *request, const struct h1_head *response)
{
    if (h1_find(request, H1_ORIGIN))
        return true;
    for (uint32_t i = 0; i < response->n_fields; i++)
        if (field_is(response->field[i].name, "access-control-allow-origin"))
            return true;
    return false;
}

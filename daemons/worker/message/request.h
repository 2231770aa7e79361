/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * request: a request: its head, route, identity, limits, and key in the store. request/steps.c
 * fills it in; the store and fetches read it.
 *
 * It is borrowed memory: code that keeps a request longer than until it is answered copies it
 * (fetch_new(), long_poll_for_fetch()).
 */
#ifndef POLDER_WORKER_MESSAGE_REQUEST_H
#define POLDER_WORKER_MESSAGE_REQUEST_H
#include "daemons/http/h1.h"
#include "daemons/worker/message/messages.h"
#include "daemons/worker/message/route_state.h"
#include "daemons/worker/worker.h"
#include "polder/cache.h"
#include "polder/clientip.h"
#include "polder/config.h"
#include "polder/field.h"
#include "polder/leak_guard.h"
#include "polder/policy.h"
#include "polder/problem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;

/* Everything is borrowed: from the read buffer while a request is answered at once, from the
 * exchange's own memory afterwards. */
struct request {
    struct worker *worker;
    struct client *client;      /* NULL: fetched in the background, or the client has left */
    const struct h1_head *head; /* NULL: answered from the connection's repeat */
    const struct config_route *route;
    struct str target; /* origin-form: the client's bytes, or respelled as the key has it */
    const char *path;  /* of the target, as sent; only while the head is looked at */
    size_t path_len;
    const char *url; /* "host/path?query" as in cache keys (polder/url.h) */
    uint32_t url_len;
    const char *partition; /* value of the route's partition */
    uint32_t partition_len;
    const char *limit_lines;
    uint32_t limit_len;
    struct cache_key key;     /* of url and partition; valid on cache routes */
    struct cache_key variant; /* from a repeat, with the vary_record's checksum */
    uint64_t vary_record;
    struct clientip peer, ip; /* the connection's; the client's, behind trusted proxies */
    struct policy_request policy;
    struct str if_none_match, if_modified_since, range, if_range;
    uint64_t started_ns; /* 0: not measured */
    uint64_t number;     /* of all that this worker has begun: request_id.h */
    bool is_head, http10, keep_alive, trusted_peer, cacheable;
    bool post;          /* its response may answer later GETs */
    bool has_identity;  /* it is identified */
    bool drops_cookies; /* cookies that do not identify the caller are not sent to the backend */
    bool collapsed;     /* has waited for another request's fetch */
    uint8_t waited_fwd; /* enum fwd_reason: why */
    uint32_t wait_s;    /* Prefer: wait, as far as the route grants it; 0: not to be held */
    uint64_t until_ms;  /* the end of it, mono */
    uint32_t waited_s;  /* it was held: for Preference-Applied */
    bool tried;         /* the fetch that it was held for failed */
    uint8_t coding;     /* enum coding that its answer is best in */
    uint8_t probe;      /* enum verify_kind: it is one of polderctl verify (probe.h) */
    uint64_t probe_run;
};

/* Of the poll section of its route; 0: it has none, or the identity may only share fresh
 * responses. */
static inline uint64_t request_interval_ms(const struct request *r)
{
    return r->policy.identity == POLICY_SHARED
               ? 0
               : r->worker->routes[r->route->index].settings.min_interval_ms;
}
/* Has the leak guard taken its URL, or more, out of the cache? */
static inline bool request_is_quarantined(const struct request *r)
{
    return guard_closes(r->worker->routes[r->route->index].guard, r->url, r->url_len);
}

/* Is this requested from the backend without a content coding? Responses are stored plain, and
 * compressed here. */
static inline bool request_asks_plain(const struct request *r)
{
    return r->cacheable && r->route && r->route->cache && r->route->cache->n_compress;
}
/* May the answer to this request be compressed here? */
static inline bool request_may_compress(const struct request *r)
{
    return request_asks_plain(r) ||
           (r->route && r->route->n_compress && r->route->compress_is_stated);
}

#endif

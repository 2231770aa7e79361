/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * request: what becomes of a parsed head: who asks, for which route, whether the limits admit it,
 * and who answers: the store, a backend, the supervisor, or Polder itself.
 */
#include "daemons/worker/reader.h"
#include "daemons/worker/request/steps.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/message/request.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/compress.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/message/guard.h"
#include "daemons/worker/request/websocket.h"
#include "daemons/worker/message/hints.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/request/repeat.h"
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/fetch/partial.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/request/prefer.h"
#include "daemons/worker/message/via.h"
#include "daemons/worker/request/probe.h"
#include "daemons/worker/uncounted.h"
#include "daemons/worker/route_stats.h"
#include "polder/clock.h"
#include "polder/inval.h"
#include "polder/override.h"
#include "polder/route.h"
#include "polder/stats.h"
#include "polder/url.h"
#include "polder/verify.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* All that a head can hold: without it the client would be the proxy, which may be exempt. */
#define FORWARDED_MAX H1_HEAD_MAX

/* The peer, or whom a trusted proxy names. */
static void identify(struct worker *w, const struct clientip *peer, struct request *r)
{
    const struct h1_head *head = r->head;
    const struct config *config = w->config;
    if (r->client)
        r->peer = r->client->peer;
    else if (peer)
        r->peer = *peer;
    else
        clientip_parse("127.0.0.1", 9, &r->peer); /* Polder itself asks */
    r->ip = r->peer;
    r->trusted_peer = config->n_trusted_proxies &&
                      clientip_in(&r->peer, config->trusted_proxies, config->n_trusted_proxies);
    if (!r->trusted_peer || (!head->first[H1_X_FORWARDED_FOR] && !head->first[H1_FORWARDED]))
        return;
    char xff[FORWARDED_MAX], forwarded[FORWARDED_MAX];
    const size_t xff_len = h1_join(head, H1_X_FORWARDED_FOR, xff, sizeof xff);
    const size_t forwarded_len = h1_join(head, H1_FORWARDED, forwarded, sizeof forwarded);
    clientip_forwarded(&r->peer, config->trusted_proxies, config->n_trusted_proxies,
                       xff_len ? xff : NULL, xff_len, forwarded_len ? forwarded : NULL,
                       forwarded_len, &r->ip);
}

/* The origin-form target: the client's own bytes, an absolute form without scheme and authority. */
static struct str origin_form(struct worker *w, const struct h1_head *head)
{
    if (head->target.len && head->target.at[0] == '/')
        return head->target;
    if (!head->path.len)
        return (struct str){"/", 1};
    if (head->query.at && head->path.at + head->path.len + 1 != head->query.at) {
        struct h1_out o = {w->target, w->target + sizeof w->target, false};
        h1_puts(&o, "/?"); /* it had no path; the query is shorter than the target */
        h1_put(&o, head->query.at, head->query.len);
        return (struct str){w->target, (size_t)(o.at - w->target)};
    }
    const char *end =
        head->query.at ? head->query.at + head->query.len : head->path.at + head->path.len;
    return (struct str){head->path.at, (size_t)(end - head->path.at)};
}

static bool is_telemetry(const struct worker *w, const struct request *r)
{
    const struct config *config = w->config;
    const struct str path = r->head->path;
    const size_t n = strlen(config->telemetry_path);
    if (!n || path.len < n || memcmp(path.at, config->telemetry_path, n))
        return false;
    if (path.len > n && path.at[n] != '/')
        return false;
    return clientip_in(&r->ip, config->telemetry_allow, config->n_telemetry_allow);
}

/* detail: what Cache-Status says beside that; NULL. */
static void to_backend_with(struct worker *w, struct request *r, enum fwd_reason fwd,
                            const char *detail)
{
    if (!r->coding && request_may_compress(r))
        r->coding = (uint8_t)compress_choose(r);
    struct fetch *ex = fetch_new(w, r);
    if (!ex) {
        response_problem(r, r->client, PROBLEM_UNAVAILABLE, "Retry-After: 1\r\n", "", true);
        return;
    }
    ex->fwd = (uint8_t)fwd;
    ex->not_stored = detail;
    if (fwd == FWD_BYPASS && !detail && r->has_identity)
        cache_store_name_identity(ex);
    fetch_start(ex);
}

static void to_backend(struct worker *w, struct request *r, enum fwd_reason fwd)
{
    to_backend_with(w, r, fwd, NULL);
}

/* Methods that never reach a backend. True: answered. */
static bool answered_by_method(const struct request *r)
{
    const struct str m = r->head->method;
    if (field_is(m, "connect") || field_is(m, "trace")) {
        response_problem(r, r->client, PROBLEM_NOT_IMPLEMENTED, "", "", true);
        return true;
    }
    if ((r->head->path.len == 1 && r->head->path.at[0] == '*') || via_may_go_no_further(r->head)) {
        response_simple(r, 204, "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
        return true;
    }
    return false;
}

/* Of a field that has one value; in two lines it is as absent. */
static struct str value_of(const struct h1_head *head, enum h1_field_id id)
{
    const struct h1_field *f = h1_only(head, id);
    return f ? f->value : (struct str){0};
}

/* If-None-Match is a list, of all its lines (RFC 9110 5.2, 13.1.2). */
static struct str tags_asked_for(struct worker *w, const struct h1_head *head)
{
    const struct h1_field *f = h1_only(head, H1_IF_NONE_MATCH);
    if (f || !head->first[H1_IF_NONE_MATCH])
        return f ? f->value : (struct str){0};
    const size_t n = h1_join(head, H1_IF_NONE_MATCH, w->tags_asked_for, sizeof w->tags_asked_for);
    return (struct str){w->tags_asked_for, n};
}

/* One that nobody can read never holds, so that the whole is sent (13.1.5). */
static struct str range_condition(const struct h1_head *head)
{
    const struct h1_field *f = h1_only(head, H1_IF_RANGE);
    if (f || !head->first[H1_IF_RANGE])
        return f ? f->value : (struct str){0};
    return (struct str){"", 0};
}

/* Who asks, and the key under which the URL is stored for him. False: it has none. */
static bool prepare_key(struct worker *w, struct request *r)
{
    const struct config_cache *cache = r->route->cache;
    identity_classify(r);
    struct h1_out o = {w->partition, w->partition + sizeof w->partition, false};
    if (cache->n_partition) {
        const int n = key_text_join(r, cache->partition, cache->n_partition, true, w->partition,
                                    sizeof w->partition);
        if (n == -ENOBUFS || n == -EINVAL)
            return false;      /* nobody knows whose copy it would be */
        o.at += n < 0 ? 0 : n; /* those without the value share one copy */
    }
    if (r->trusted_peer)
        request_put_origin(&o, r);
    if (o.overflow)
        return false;
    r->partition = w->partition;
    r->partition_len = (uint32_t)(o.at - w->partition);
    cache_key_of(inval_secret(w->shared->inval), r->url, r->url_len, r->partition, r->partition_len,
                 &r->key);
    return true;
}

/* Prefer: wait, as far as the route grants it. Who was held has said it before. */
static void prepare_wait(const struct worker *w, struct request *r)
{
    const struct config_poll *poll = r->route->poll;
    if (!poll || r->policy.identity == POLICY_SHARED || r->waited_s || !r->head->first[H1_PREFER] ||
        !r->if_none_match.at)
        return;
    const uint64_t asked_ms = (uint64_t)prefer_wait_s(r->head) * 1000;
    const uint64_t ms = asked_ms < poll->max_wait_ms ? asked_ms : poll->max_wait_ms;
    r->wait_s = (uint32_t)(ms / 1000);
    r->until_ms = w->mono_ms + ms;
}

/* Whether this request may be answered from the store at all, and under which key. */
static bool prepare_lookup(struct worker *w, struct request *r)
{
    const struct h1_head *head = r->head;
    if (!head->is_get && !head->is_head)
        return false;
    if (head->first[H1_IF_MATCH] || head->first[H1_IF_UNMODIFIED_SINCE])
        return false; /* conditions for a change: the backend's to judge */
    if (head->framing != H1_NO_BODY && !(head->framing == H1_LENGTH && head->length == 0))
        return false; /* a GET with a body: the body may matter */
    h1_policy_request(head, &r->policy);
    r->if_none_match = tags_asked_for(w, head);
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

/* A condition for a change that names tags of Polder's own making is Polder's to judge, for the
 * backend has never seen them: they hold as long as what they were made of is fresh in the store.
 * A change by somebody else ends that. True where there are others too, which the backend knows. */
static bool own_tags_hold(struct worker *w, struct request *r)
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

/* An answer to POST that names its own URL and says how long it is good answers later GETs (RFC
 * 9110 9.3.3). */
static bool prepare_post(struct worker *w, struct request *r)
{
    if (!field_is(r->head->method, "post") || has_override(r->head) ||
        r->head->framing == H1_CHUNKED) /* its trailer may yet say who asks */
        return false;
    h1_policy_request(r->head, &r->policy);
    return prepare_key(w, r);
}

/* The leak guard has found that what would be shared depends on who asks. */
static void pass_quarantined(struct worker *w, struct request *r)
{
    const bool lookup = prepare_lookup(w, r);
    stats_add(w->stats, STATS_GUARD_BYPASS, 1);
    if (lookup && r->policy.cc.flags & FIELD_CC_ONLY_IF_CACHED) {
        response_problem(r, r->client, PROBLEM_ONLY_IF_CACHED, "", "", true);
        return;
    }
    r->wait_s = 0;
    r->drops_cookies = false;
    r->started_ns = clock_mono_ns();
    if (lookup)
        r->worker->hit_ops->retry(r);
    to_backend_with(w, r, r->head->is_get || r->head->is_head ? FWD_BYPASS : FWD_METHOD,
                    guard_detail(r));
}

/* No key, or not for the store: whose answer it would be cannot be told, then, by what is named. */
static void pass_by(struct worker *w, struct request *r)
{
    route_stats_lookup(w, r->route, STATS_LOOKUP_BYPASS);
    r->post = prepare_post(w, r);
    r->drops_cookies &= r->post;
    to_backend(w, r, r->head->is_get || r->head->is_head ? FWD_BYPASS : FWD_METHOD);
}

static void from_cache_or_backend(struct worker *w, struct request *r, const uint64_t *limit_keys)
{
    struct hit_found found = {0};
    if (request_is_quarantined(r)) {
        pass_quarantined(w, r);
        return;
    }
    r->cacheable = prepare_lookup(w, r);
    if (!r->cacheable) {
        if (r->head->first[H1_IF_MATCH] && !own_tags_hold(w, r)) {
            response_problem(r, r->client, PROBLEM_PRECONDITION_FAILED, "", "", true);
            return;
        }
        pass_by(w, r);
        return;
    }
    if (hit_try(r, &found) == HIT_ANSWERED) {
        if (limit_keys && !r->client->held)
            repeat_remember(r->client, r, &found, limit_keys);
        miss_refresh(r, &found);
        return;
    }
    if (partial_answer(r, &found)) {
        stored_copy_free(w, found.stale);
        return;
    }
    if (found.others) {
        miss_bypass(r, &found);
        return;
    }
    if (r->wait_s && w->hold_ops->for_fetch(r, &found))
        return;
    r->started_ns = clock_mono_ns();
    miss_begin(r, &found);
}

static void dispatch(struct worker *w, struct request *r)
{
    struct limit_answer limits;
    uint64_t keys[CONFIG_ROUTE_LIMITS_MAX] = {0};
    if (w->prepaid_client == r->client)
        limits = w->prepaid; /* the keys stay unknown: such a request makes no repeat */
    else
        limits_charge(w, r, keys, false, &limits);
    const bool prepaid = w->prepaid_client == r->client;
    w->prepaid_client = NULL;
    r->limit_lines = limits.lines;
    r->limit_len = limits.len;
    if (limits.refused) {
        limits_refuse(w, r, &limits);
    } else if (r->route->cache) {
        from_cache_or_backend(w, r, prepaid ? NULL : keys);
    } else {
        r->started_ns = clock_mono_ns();
        to_backend(w, r, FWD_NONE);
    }
}

/* What is stored under a URL is the answer to that URL: where the client spells it otherwise (dot
 * segments, escapes of plain letters), the backend is asked as the key says, or one spelling's
 * answer would become the other's (RFC 3986 6.2.2). Parameters that only_query does not list and
 * their order do not reach it either; those of ignore_query do, for they are its own to count. */
static void respell(struct worker *w, struct request *r)
{
    const struct config_cache *cache = r->route->cache;
    const char *path = memchr(r->url, '/', r->url_len);
    const struct str query = r->head->query;
    if (!path)
        return;
    const bool by_key = (cache->n_only_query || cache->sort_query) && query.at;
    const size_t rest = (size_t)(r->url + r->url_len - path);
    const char *mark = memchr(path, '?', rest);
    const size_t len = mark ? (size_t)(mark - path) : rest;
    if (!by_key && len == r->path_len && !memcmp(path, r->path, len) && (!query.at || query.len))
        return;
    struct h1_out o = {w->target, w->target + sizeof w->target, false};
    h1_put(&o, path, by_key ? rest : len);
    if (query.len && !by_key) {
        h1_put(&o, "?", 1);
        h1_put(&o, query.at, query.len);
    }
    if (!o.overflow) /* a normal path is never longer */
        r->target = (struct str){w->target, (size_t)(o.at - w->target)};
}

/* A client's own bytes go to a backend where nothing is stored; but not where a backend that
 * resolves no dot segments would take them for a path of another route. */
static void respell_uncached(struct worker *w, struct request *r)
{
    const char *path = memchr(r->url, '/', r->url_len);
    const struct str query = r->head->query;
    if (!path)
        return;
    const char *mark = memchr(path, '?', (size_t)(r->url + r->url_len - path));
    const size_t len = (size_t)((mark ? mark : r->url + r->url_len) - path);
    if ((len == r->path_len && !memcmp(path, r->path, len)) ||
        route_find_as_sent(w->config, r->path, r->path_len) == r->route)
        return;
    struct h1_out o = {w->target, w->target + sizeof w->target, false};
    h1_put(&o, path, len);
    if (query.at) {
        h1_put(&o, "?", 1);
        h1_put(&o, query.at, query.len);
    }
    if (!o.overflow)
        r->target = (struct str){w->target, (size_t)(o.at - w->target)};
}

/* Its route and URL. 0, or what url_normalise() says. */
static int locate(struct worker *w, struct request *r)
{
    int n = url_normalise(w->config, r->head->host, (struct str){r->path, r->path_len},
                          r->head->query, w->url, sizeof w->url, &r->route);
    if (n >= 0 && r->probe)
        n = probe_url(w, r, n);
    if (n < 0)
        return n;
    r->url = w->url;
    r->url_len = (uint32_t)n;
    if (r->route && r->route->cache)
        respell(w, r);
    else if (r->route)
        respell_uncached(w, r);
    return 0;
}

/* Finds the route; answers itself where there is none. */
static bool find_route(struct worker *w, struct request *r)
{
    const int rc = locate(w, r);
    if (rc < 0) {
        stats_add(w->stats, STATS_BAD_REQUESTS, 1);
        if (rc == -EINVAL)
            response_problem(
                r, r->client, PROBLEM_BAD_REQUEST, "",
                ",\"reason\":\"an escape of the path is malformed, or could be read in "
                "two ways\"",
                true);
        else
            response_problem(r, r->client, PROBLEM_URI_TOO_LONG, "", "", true);
        return false;
    }
    if (!r->route)
        response_problem(r, r->client, PROBLEM_NOT_FOUND, "", "", true);
    return r->route != NULL;
}

static bool asks_websocket(const struct h1_head *head)
{
    for (uint32_t i = 0; head->asks_upgrade && i < head->n_fields; i++) {
        struct str rest = head->field[i].value, element;
        while (head->field[i].id == H1_UPGRADE && field_list_next(&rest, &element))
            if (field_is(element, "websocket"))
                return true;
    }
    return false;
}

static void prepare_client(struct client *c, const struct h1_head *head)
{
    c->keep_alive = head->keep_alive && !c->worker->draining && !c->worker->drained;
    c->answered = false;
    access_begin(c);
    c->body_wanted = false;
    c->body_told = !head->expect_continue;
    c->half_closes = head->minor == 0 || !head->keep_alive || head->asks_upgrade;
    h1_body_init(&c->body, head->framing, head->length);
    c->body_pending = !c->body.done;
    if (c->body_pending) {
        c->progress_ms = c->worker->mono_ms;
        client_update_timer(c);
    }
}

static void describe(struct worker *w, struct client *c, const struct h1_head *head,
                     const struct clientip *peer, struct request *r)
{
    *r = (struct request){
        .worker = w, .client = c, .head = head, .url = "", .partition = "", .limit_lines = ""};
    r->number = request_id_next(&w->ids);
    r->is_head = head->is_head;
    r->http10 = head->minor == 0;
    r->target = origin_form(w, head);
    r->path = head->path.len ? head->path.at : "/";
    r->path_len = head->path.len ? head->path.len : 1;
    identify(w, peer, r);
    if (__builtin_expect(head->first[H1_POLDER_VERIFY], 0))
        probe_recognise(w, r);
}

/* Who answers it? */
static void request_route(struct client *c, struct request *r)
{
    struct worker *w = c->worker;
    stats_add(w->stats, STATS_REQUESTS, 1);
    if (via_is_loop(r)) {
        response_problem(r, c, PROBLEM_LOOP_DETECTED, "", "", true);
        return;
    }
    if (answered_by_method(r))
        return;
    if (is_telemetry(w, r)) {
        to_backend(w, r, FWD_NONE); /* no route: control answers */
        return;
    }
    if (!find_route(w, r))
        return;
    const bool asks = asks_websocket(r->head);
    if (asks && !r->route->websocket)
        hints_upgrade(r);
    if (r->probe == VERIFY_LIMIT)
        probe_limits(w, r);
    else if (r->route->websocket && asks)
        handover_begin(c, r);
    else if (!r->route->upstream)
        response_problem(r, c, PROBLEM_UPGRADE_REQUIRED, RESPONSE_UPGRADE_LINES,
                         ",\"reason\":\"this route speaks WebSocket only\"", true);
    else
        dispatch(w, r);
}

static void request_begin(struct client *c, const struct h1_head *head)
{
    struct worker *w = c->worker;
    struct request r;
    prepare_client(c, head);
    describe(w, c, head, NULL, &r);
    struct stats_slab *counts = r.probe ? uncounted_begin(w) : w->stats;
    request_route(c, &r);
    uncounted_end(w, counts);
}

static void refuse_head(struct client *c, const char *at, size_t len, enum problem problem)
{
    access_unread(c, at, len);
    stats_add(c->worker->stats, STATS_BAD_REQUESTS, 1);
    c->discard = true; /* nobody knows where the next request would begin */
    response_problem(NULL, c, problem, "", "", false);
}

size_t request_read(struct client *c, const char *at, size_t len)
{
    struct worker *w = c->worker;
    enum problem problem = PROBLEM_BAD_REQUEST;
    if (c->state == CLIENT_IDLE) {
        const size_t known = c->repeat ? c->repeat->len : 0;
        if (known && repeat_answer(c, at, len))
            return known;
    }
    const size_t blank = h1_skip_blank(at, len);
    if (blank) {
        if (c->state == CLIENT_HEAD) /* an empty line, in two pieces */
            client_head_was_blank(c);
        return blank;
    }
    switch (h1_parse_request(at, len, &c->scanned, &w->head, &problem)) {
    case H1_MORE:
        client_head_begins(c);
        return 0;
    case H1_BAD:
        c->scanned = 0;
        refuse_head(c, at, len, problem);
        return len;
    case H1_DONE:
        break;
    }
    client_head_ends(c);
    const size_t used = w->head.head_len; /* w->head may be another one's afterwards */
    w->pipelined = (struct str){at + used, len - used};
    request_begin(c, &w->head);
    w->prepaid_client = NULL;
    return used;
}

/* The head of a request that was held, parsed once more. */
static const struct h1_head *parse_again(struct worker *w, const struct request_again *again)
{
    enum problem problem;
    size_t scanned = 0;
    return h1_parse_request(again->bytes, again->len, &scanned, &w->head, &problem) == H1_DONE
               ? &w->head
               : NULL;
}

void request_again(struct client *c, const struct request_again *again)
{
    struct worker *w = c->worker;
    struct request r;
    const struct h1_head *head = parse_again(w, again);
    if (!head) { /* it was understood before */
        client_break(c);
        return;
    }
    const uint64_t began_ns = c->note.began_ns;
    prepare_client(c, head);
    c->note.began_ns = began_ns; /* it has waited since then */
    describe(w, c, head, NULL, &r);
    r.wait_s = again->wait_s;
    r.waited_s = again->waited_s;
    r.until_ms = again->until_ms;
    r.tried = again->tried;
    if (!find_route(w, &r))
        return;
    limits_tell(w, &r, &w->prepaid); /* of when it came nothing is true any more */
    w->prepaid_client = c;
    struct stats_slab *counts = r.probe ? uncounted_begin(w) : w->stats;
    dispatch(w, &r);
    uncounted_end(w, counts);
}

bool request_held(struct client *c, const char *bytes, size_t len, struct request *r)
{
    static struct h1_head head; /* used until its client is gone */
    enum problem problem;
    size_t scanned = 0;
    if (h1_parse_request(bytes, len, &scanned, &head, &problem) != H1_DONE)
        return false;
    describe(c->worker, c, &head, NULL, r);
    return locate(c->worker, r) == 0;
}

bool request_background(struct worker *w, struct client *c, const struct request_again *again,
                        struct request *r)
{
    const struct h1_head *head = parse_again(w, again);
    if (!head)
        return false;
    describe(w, c, head, again->peer, r);
    if (locate(w, r) < 0 || !r->route || !r->route->cache || !prepare_lookup(w, r))
        return false;
    if (again->anonymous && r->has_identity && r->policy.identity != POLICY_PARTITION) {
        identity_strip(r, &w->head);
        if (!prepare_lookup(w, r))
            return false;
    }
    r->wait_s = 0;
    r->cacheable = true;
    return true;
}

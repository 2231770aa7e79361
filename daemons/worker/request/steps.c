/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * steps: the life of a request, from the first byte of its head to what answers it. It takes the
 * steps of the table below in order; each of them goes on to the next, or ends the way: the request
 * is answered, or something else goes on with it (a fetch, a hold, polder-supervisor, more bytes).
 * A request that was held takes them again, with the head that it had; one that has waited for
 * another's fetch enters at the lookup.
 */
#include "daemons/worker/request/steps.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/compress.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/fetch/partial.h"
#include "daemons/worker/fetch/store.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/message/guard.h"
#include "daemons/worker/message/hints.h"
#include "daemons/worker/message/via.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/request/limits_wait.h"
#include "daemons/worker/request/long_poll.h"
#include "daemons/worker/request/probe.h"
#include "daemons/worker/request/repeat.h"
#include "daemons/worker/request/websocket.h"
#include "daemons/worker/message/route_stats.h"
#include "daemons/worker/uncounted.h"
#include "daemons/worker/fleet_link.h"
#include "daemons/worker/worker.h"
#include "polder/clock.h"
#include "polder/problem.h"
#include "polder/stats.h"
#include "polder/verify.h"

#include <errno.h>
#include <string.h>

/* A request on its way. */
struct passage {
    struct worker *worker;
    struct client *client;
    const char *bytes; /* of its head, and what follows */
    size_t len, used;
    const struct request_replay *again; /* NULL: it is new */
    struct fetch *waited;               /* its own, which has waited for another's; NULL */
    struct stats_slab *counts;          /* of a probe: where others count; NULL */
    struct limit_bill *bill;
    uint64_t limit_key[CONFIG_ROUTE_LIMITS_MAX]; /* 0: exempt */
    bool keys_known;
    bool websocket;      /* it asks for one, and may have it */
    bool passes;         /* by the store, to the backend */
    enum fwd_reason fwd; /* why, then, for Cache-Status ... */
    const char *detail;  /* ... and what more; NULL */
    struct hit_found found;
    struct request r;
};
/* DONE: it is answered. WAIT: something else goes on with it. */
enum step_result { STEP_NEXT, STEP_DONE, STEP_WAIT };
typedef enum step_result (*step_fn)(struct passage *p);

static enum step_result step_parse(struct passage *p);
static enum step_result step_identify(struct passage *p);
static enum step_result step_route(struct passage *p);
static enum step_result step_websocket(struct passage *p);
static enum step_result step_limit(struct passage *p);
static enum step_result step_hand_over(struct passage *p);
static enum step_result step_quarantine(struct passage *p);
static enum step_result step_lookup(struct passage *p);
static enum step_result step_range(struct passage *p);
static enum step_result step_long_poll(struct passage *p);
static enum step_result step_fetch(struct passage *p);

/* clang-format off */
enum { PARSE, IDENTIFY, ROUTE, WEBSOCKET, LIMIT, HAND_OVER, QUARANTINE, LOOKUP, RANGE,
       LONG_POLL, FETCH, STEPS };

static const step_fn steps[STEPS] = {
    [PARSE]      = step_parse,      /* h1_parse.c    its head; 400 */
    [IDENTIFY]   = step_identify,   /* identify.c    who asks, and for what; 508 */
    [ROUTE]      = step_route,      /* locate.c      its route and URL; 404; control has telemetry */
    [WEBSOCKET]  = step_websocket,  /* websocket.c   is its upgrade a proper one? 400, 426 */
    [LIMIT]      = step_limit,      /* limits.c      it is charged, whatever answers it; 429 */
    [HAND_OVER]  = step_hand_over,  /* websocket.c   its socket goes to polder-supervisor */
    [QUARANTINE] = step_quarantine, /* guard.c       what leaks passes by the store */
    [LOOKUP]     = step_lookup,     /* prepare.c     its key; lookup.c: a fresh copy answers it */
    [RANGE]      = step_range,      /* partial.c     so does a part that is stored */
    [LONG_POLL]  = step_long_poll,  /* long_poll.c   it is held until there is something new */
    [FETCH]      = step_fetch,      /* miss.c        one fetches for all (collapse.c, fetch.c) */
};
/* clang-format on */
/* What repeats the last head of its connection, and is stored, takes none of them: repeat.c.
 * Answers are written by deliver.c from the store, by response_read.c from a backend, and by
 * headers.c where they are Polder's own. */

static void take_steps(struct passage *p)
{
#pragma GCC unroll 16 /* or a hit would pay for eight calls through the table */
    for (unsigned i = 0; i < STEPS; i++)
        if (steps[i](p) != STEP_NEXT)
            break;
    if (p->counts)
        uncounted_end(p->worker, p->counts);
}

static __attribute__((noinline)) size_t read_new(struct client *c, const char *at, size_t len,
                                                 struct limit_bill *bill)
{
    struct passage p;
    p.worker = c->worker;
    p.client = c;
    p.bytes = at;
    p.len = len;
    p.used = 0;
    p.again = NULL;
    p.waited = NULL;
    p.counts = NULL;
    p.bill = bill;
    p.websocket = p.passes = false;
    take_steps(&p);
    return p.used;
}

size_t request_read(struct client *c, const char *at, size_t len)
{
    struct limit_bill bill;
    bill.paid = bill.top_due = bill.last = bill.waits = false;
    if (c->repeat && c->state == CLIENT_IDLE) { /* the same head once more needs no step */
        const size_t known = c->repeat->len;
        if (repeat_answer(c, at, len, &bill))
            return known;
    }
    return read_new(c, at, len, &bill);
}

void request_again(struct client *c, const struct request_replay *again)
{
    struct limit_bill bill = {.paid = !again->charge_by_ms,
                              .last =
                                  again->charge_by_ms && clock_mono_ms() >= again->charge_by_ms};
    struct passage p = {.worker = c->worker,
                        .client = c,
                        .bytes = again->bytes,
                        .len = again->len,
                        .again = again,
                        .bill = &bill};
    take_steps(&p);
}

void request_look_again(struct fetch *ex)
{
    struct passage p = {
        .worker = ex->worker, .client = fetch_lend_client(ex), .waited = ex, .r = ex->req};
    p.r.client = p.client;
    p.r.collapsed = true;
    p.r.waited_fwd = ex->fwd;
    for (unsigned i = LOOKUP; i < STEPS; i++)
        if (steps[i](&p) != STEP_NEXT)
            break;
    if (p.waited) /* it is answered without it */
        fetch_finish(ex);
}

static enum step_result problem(const struct passage *p, enum problem problem, const char *extra,
                                const char *members, bool keep)
{
    response_problem(&p->r, p->client, problem, extra, members, keep);
    return STEP_DONE;
}

/* ---- its head ---- */

static enum step_result refuse_head(struct passage *p, enum problem problem)
{
    struct client *c = p->client;
    p->used = p->len;
    c->scanned = 0;
    access_unread(c, p->bytes, p->len);
    stats_add(p->worker->stats, STATS_BAD_REQUESTS, 1);
    c->discard = true; /* the start of the next request is unknown */
    response_problem(NULL, c, problem, "", "", false);
    return STEP_DONE;
}

static enum step_result parse_again(struct passage *p)
{
    struct client *c = p->client;
    const uint64_t began_ns = c->note.began_ns;
    const struct h1_head *head = request_parse_again(p->worker, p->again);
    if (!head) { /* it was understood before */
        client_break(c);
        return STEP_DONE;
    }
    p->used = p->len;
    client_begin_request(c, head);
    access_begin(c);
    c->note.began_ns = began_ns; /* it has waited since then */
    return STEP_NEXT;
}

static enum step_result step_parse(struct passage *p)
{
    struct worker *w = p->worker;
    struct client *c = p->client;
    enum problem problem = PROBLEM_BAD_REQUEST;
    if (p->again)
        return parse_again(p);
    const size_t blank = h1_skip_blank(p->bytes, p->len);
    if (blank) {
        if (c->state == CLIENT_HEAD) /* an empty line, in two pieces */
            client_head_was_blank(c);
        p->used = blank;
        return STEP_WAIT;
    }
    switch (h1_parse_request(p->bytes, p->len, &c->scanned, &w->head, &problem)) {
    case H1_MORE:
        client_head_begins(c);
        return STEP_WAIT;
    case H1_BAD:
        return refuse_head(p, problem);
    case H1_DONE:
        break;
    }
    p->used = w->head.head_len; /* worker.head may be another one's afterwards */
    client_head_ends(c);
    client_begin_request(c, &w->head);
    access_begin(c);
    return STEP_NEXT;
}

/* ---- who asks, and for what ---- */

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

static enum step_result step_identify(struct passage *p)
{
    struct worker *w = p->worker;
    const struct request_replay *again = p->again;
    request_identify(w, p->client, &w->head, NULL, &p->r);
    if (p->r.probe)
        p->counts = uncounted_begin(w);
    if (again) {
        p->r.wait_s = again->wait_s;
        p->r.waited_s = again->waited_s;
        p->r.until_ms = again->until_ms;
        p->r.tried = again->tried;
    } else {
        stats_add(w->stats, STATS_REQUESTS, 1);
    }
    if (via_is_loop(&p->r))
        return problem(p, PROBLEM_LOOP_DETECTED, "", "", true);
    return answered_by_method(&p->r) ? STEP_DONE : STEP_NEXT;
}

/* Where telemetry is not allowed to any client its path is like any other. */
static bool is_telemetry(const struct worker *w, const struct request *r)
{
    const struct config *config = w->config;
    const struct str path = r->head->path;
    const size_t n = strlen(config->telemetry_path);
    return config->n_telemetry_allow && n && path.len >= n &&
           !memcmp(path.at, config->telemetry_path, n) && (path.len == n || path.at[n] == '/');
}

static bool sees_telemetry(const struct worker *w, const struct request *r)
{
    return clientip_in(&r->ip, w->config->telemetry_allow, w->config->n_telemetry_allow);
}

static enum step_result unlocated(const struct passage *p, int rc)
{
    stats_add(p->worker->stats, STATS_BAD_REQUESTS, 1);
    if (rc != -EINVAL)
        return problem(p, PROBLEM_URI_TOO_LONG, "", "", true);
    return problem(p, PROBLEM_BAD_REQUEST, "",
                   ",\"reason\":\"an escape of the path is malformed, or could be read in "
                   "two ways\"",
                   true);
}

/* The backend answers, and the store has no part in it. */
static enum step_result pass(struct passage *p, enum fwd_reason fwd, const char *detail)
{
    struct request *r = &p->r;
    if (!r->coding && request_may_compress(r))
        r->coding = (uint8_t)compress_choose(r);
    struct fetch *ex = fetch_new(p->worker, r);
    if (!ex)
        return problem(p, PROBLEM_UNAVAILABLE, "Retry-After: 1\r\n", "", true);
    ex->fwd = (uint8_t)fwd;
    ex->not_stored = detail;
    if (fwd == FWD_BYPASS && !detail && r->has_identity)
        cache_store_name_identity(ex);
    fetch_start(ex);
    return STEP_WAIT;
}

static enum step_result step_route(struct passage *p)
{
    struct request *r = &p->r;
    if (is_telemetry(p->worker, r)) /* no route: control answers if allowed */
        return sees_telemetry(p->worker, r) ? pass(p, FWD_NONE, NULL)
                                            : problem(p, PROBLEM_NOT_FOUND, "", "", true);
    const int rc = request_locate(p->worker, r);
    if (rc < 0)
        return unlocated(p, rc);
    return r->route ? STEP_NEXT : problem(p, PROBLEM_NOT_FOUND, "", "", true);
}

static enum step_result step_websocket(struct passage *p)
{
    const struct config_route *route = p->r.route;
    const bool asks = websocket_is_wanted(p->r.head);
    p->websocket = asks && route->websocket;
    if (p->r.probe == VERIFY_LIMIT)
        return STEP_NEXT;
    if (p->websocket)
        return websocket_validate(p->client, &p->r) ? STEP_NEXT : STEP_DONE;
    if (asks)
        hints_upgrade(&p->r);
    if (route->upstream)
        return STEP_NEXT;
    return problem(p, PROBLEM_UPGRADE_REQUIRED, RESPONSE_UPGRADE_LINES,
                   ",\"reason\":\"this route speaks WebSocket only\"", true);
}

/* ---- may it? ---- */

/* Until it is known how many requests of its key this host may admit. False: it is charged now. */
static __attribute__((noinline)) bool wait_for_store(struct passage *p)
{
    struct limit_bill *bill = p->bill;
    bill->waits = false;
    if (limits_wait(p->client, p->r.head, bill, p->again ? p->again->charge_by_ms : 0))
        return true;
    bill->last = true;
    limits_charge(p->worker, &p->r, p->limit_key, false, bill);
    return false;
}

static enum step_result step_limit(struct passage *p)
{
    struct request *r = &p->r;
    struct limit_bill *bill = p->bill;
    memset(p->limit_key, 0, sizeof p->limit_key);
    p->keys_known = !bill->paid;
    if (p->again && bill->paid) /* of what it was told when it came nothing is true any more */
        limits_tell(p->worker, r, &bill->answer);
    else if (p->keys_known)
        limits_charge(p->worker, r, p->limit_key, false, bill);
    if (bill->waits && wait_for_store(p))
        return STEP_WAIT;
    r->limit_lines = bill->answer.lines;
    r->limit_len = bill->answer.len;
    if (bill->answer.refused)
        limits_refuse(p->worker, r, &bill->answer);
    else if (r->probe == VERIFY_LIMIT)
        probe_admitted(r);
    else
        return STEP_NEXT;
    return STEP_DONE;
}

static enum step_result step_hand_over(struct passage *p)
{
    if (!p->websocket)
        return STEP_NEXT;
    websocket_hand_over(p->client, &p->r, (struct str){p->bytes + p->used, p->len - p->used});
    return STEP_WAIT;
}

/* ---- the store, or a backend ---- */

static bool is_read(const struct request *r)
{
    return r->head->is_get || r->head->is_head;
}

static void pass_later(struct passage *p, enum fwd_reason fwd, const char *detail)
{
    p->passes = true;
    p->fwd = fwd;
    p->detail = detail;
}

static enum step_result step_quarantine(struct passage *p)
{
    struct worker *w = p->worker;
    struct request *r = &p->r;
    if (!r->route->cache) {
        r->started_ns = clock_mono_ns();
        pass_later(p, FWD_NONE, NULL);
        return STEP_NEXT;
    }
    if (!request_is_quarantined(r))
        return STEP_NEXT;
    const bool has_key = request_prepare_lookup(w, r);
    stats_add(w->stats, STATS_GUARD_BYPASS, 1);
    if (has_key && r->policy.cc.flags & FIELD_CC_ONLY_IF_CACHED)
        return problem(p, PROBLEM_ONLY_IF_CACHED, "", "", true);
    r->wait_s = 0;
    r->drops_cookies = false;
    r->started_ns = clock_mono_ns();
    if (has_key)
        w->lookups->hit_ops->retry(r);
    pass_later(p, is_read(r) ? FWD_BYPASS : FWD_METHOD, guard_detail(r));
    return STEP_NEXT;
}

/* It has no key, or is not for the store. Then its identity fields do not tell who the answer is
 * for. */
static enum step_result pass_uncacheable(struct passage *p)
{
    struct request *r = &p->r;
    if (r->head->first[H1_IF_MATCH] && !request_own_tags_hold(p->worker, r))
        return problem(p, PROBLEM_PRECONDITION_FAILED, "", "", true);
    route_stats_lookup(p->worker, r->route, STATS_LOOKUP_BYPASS);
    r->post = request_prepare_post(p->worker, r);
    r->drops_cookies &= r->post;
    pass_later(p, is_read(r) ? FWD_BYPASS : FWD_METHOD, NULL);
    return STEP_NEXT;
}

static bool bypasses_cut_off(const struct worker *w)
{
    return fleet_link_is_cut_off(w) && w->config->fleet.cut_off == CONFIG_CUT_OFF_BYPASS;
}

static enum step_result step_lookup(struct passage *p)
{
    struct request *r = &p->r;
    if (p->passes)
        return STEP_NEXT;
    if (!p->waited &&
        (bypasses_cut_off(p->worker) || !(r->cacheable = request_prepare_lookup(p->worker, r))))
        return pass_uncacheable(p);
    p->found = (struct hit_found){0};
    if (!hit_try(r, &p->found))
        return STEP_NEXT;
    const bool held = p->client->held; /* for what is new */
    if (p->keys_known && !held)
        repeat_remember(p->client, r, &p->found, p->limit_key);
    miss_refresh(r, &p->found);
    return held ? STEP_WAIT : STEP_DONE;
}

static enum step_result step_range(struct passage *p)
{
    if (p->passes || !partial_answer(&p->r, &p->found))
        return STEP_NEXT;
    stored_copy_free(p->worker, p->found.stale);
    return STEP_DONE;
}

static enum step_result step_long_poll(struct passage *p)
{
    if (p->passes || p->waited || p->found.others || !p->r.wait_s)
        return STEP_NEXT;
    return long_poll_for_fetch(&p->r, &p->found) ? STEP_WAIT : STEP_NEXT;
}

static enum step_result step_fetch(struct passage *p)
{
    struct request *r = &p->r;
    if (p->passes)
        return pass(p, p->fwd, p->detail);
    if (p->waited) {
        miss_again(p->waited, r, &p->found);
        p->waited = NULL;
        return STEP_WAIT;
    }
    if (p->found.others) { /* what is stored is not for this client */
        miss_bypass(r, &p->found);
        return STEP_WAIT;
    }
    r->started_ns = clock_mono_ns();
    miss_begin(r, &p->found);
    return STEP_WAIT;
}

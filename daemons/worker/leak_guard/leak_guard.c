/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * leak_guard: asks the backend again after a hit whether shared content depends on the identity.
 *
 * A route's first hits are sampled sooner, later ones in the share set by the configuration. One
 * whose fields (leak_guard_fields.h) differ from those of the request that fetched the copy becomes
 * a check: its head is copied, and when the client has its answer, the backend is asked in turn
 * with all of these fields and without them, until the trial (libshared/cache/guard_experiment.c)
 * knows. All requests of a check go to one server, so that servers that disagree prove nothing.
 *
 * Answers are hashed and dropped. One check per route at a time over all workers, a few per worker;
 * only the claim is shared, which expires if the worker dies. When the difference is proven, the
 * URL is closed at once; the field it depends on is determined afterwards.
 */
#include "daemons/worker/leak_guard/leak_guard.h"
#include "daemons/http/h1.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/leak_guard/leak_guard_fields.h"
#include "daemons/worker/message/guard.h"
#include "daemons/worker/message/request.h"
#include "daemons/net/timer_wheel.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/request/steps.h"
#include "daemons/worker/message/messages.h"
#include "daemons/worker/message/route_state.h"
#include "polder/field.h"
#include "polder/guard_words.h"
#include "polder/leak_guard.h"
#include "polder/inval.h"
#include "polder/log.h"
#include "polder/problem.h"
#include "polder/shared.h"
#include "polder/stats.h"

#include <stdio.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define CHECKS_MAX 8     /* of a worker, at once */
#define LOOK_MS    10    /* between two looks at a route, at least: a look is a hit and a half */
#define FETCH_MS   10000 /* longest that an answer may take */

/* Of the first answer, and of the one that is coming; and what they have in common. */
struct answer_words {
    struct guard_words first, now;
    struct guard_pattern pattern;
    bool is_learned;
};

struct guard_check {
    LIST_ENTRY(guard_check) entry; /* guard_checks.all */
    struct worker *worker;
    const struct config_route *route;
    struct guard_route *place;
    struct guard_scope *scope;          /* that it has closed, or retries; NULL: none */
    struct fetch_watcher watcher;       /* of what is under way; else the next step is due */
    const struct config_server *server; /* that answered first */
    struct clientip peer, ip;
    bool trusted_peer;
    bool closed;      /* by this check */
    bool retries;     /* whether it still differs */
    bool whole;       /* the answer has come to its end */
    bool shared;      /* some answer may be stored by caches that obey Cache-Control */
    uint32_t varies;  /* fields that all answers have named in Vary */
    uint64_t fetcher; /* identity of the copy */
    uint16_t stored;  /* its status */
    struct guard_experiment trial;
    struct guard_fields fields;
    struct guard_print print;
    XXH3_state_t *hash; /* of the answer that is coming */
    struct guard_mask mask;
    struct answer_words *words;
    uint64_t body_len;
    uint32_t head_len, url_len;
    char bytes[]; /* head of the request, URL */
};

/* A route without a place in the page is never checked. */
static struct guard_route nowhere;

/* ---- which hits ---- */

/* One hit in this many; 0: none. */
static uint32_t hits_a_look(double share)
{
    return share <= 0 ? 0 : share < 1e-9 ? UINT32_MAX : (uint32_t)(1 / share + 0.5);
}

void guard_prepare(struct worker *w)
{
    for (uint32_t i = 0; i < w->config->n_routes; i++) {
        const struct config_route *route = &w->config->routes[i];
        struct route_state *s = &w->routes[route->index];
        s->guard = route->cache ? guard_route_find(w->shared->guard, route->id, true) : NULL;
        s->guard_max = s->guard ? hits_a_look(route->cache->leak_guard) : 0;
        s->guard_left = s->guard_step = 1;
        if (!s->guard && route->cache)
            log_warning("guard: no room to watch route \"%s\": %u patterns were seen; remove "
                        "guard.page from state_dir while Polder is stopped",
                        route->pattern, GUARD_ROUTES);
        if (!s->guard)
            s->guard = &nowhere;
    }
}

static void check_free(struct guard_check *k)
{
    if (k) {
        XXH3_freeState(k->hash);
        free(k->words);
    }
    free(k);
}

static struct guard_check *check_new(const struct request *r, const struct cache_view *v)
{
    const struct h1_head *head = r->head;
    struct guard_check *k = calloc(1, sizeof *k + head->head_len + r->url_len);
    if (!k)
        return NULL;
    k->worker = r->worker;
    k->route = r->route;
    k->place = r->worker->routes[r->route->index].guard;
    k->peer = r->peer;
    k->ip = r->ip;
    k->trusted_peer = r->trusted_peer;
    k->fetcher = v ? v->record->identity : 0;
    k->stored = v ? v->record->status : 200;
    k->head_len = head->head_len;
    k->url_len = r->url_len;
    memcpy(k->bytes, head->method.at, head->head_len);
    memcpy(k->bytes + head->head_len, r->url, r->url_len);
    guard_fields_list(&k->fields, r, v);
    k->hash = XXH3_createState();
    return k;
}

/* Another identity than that of the copy, beyond what key and variant cover; or an anonymous
 * request that gets the copy of an identified one. */
static struct guard_check *candidate(const struct request *r, const struct cache_view *v)
{
    const uint64_t identity = guard_identity(r);
    if (identity == v->record->identity || cache_is_negative(v->record))
        return NULL; /* error pages are no secret */
    struct guard_check *k = check_new(r, v);
    if (k && k->hash && (k->fields.n || !identity))
        return k;
    check_free(k);
    return NULL;
}

bool guard_look(const struct request *r, const struct cache_view *v, struct guard_check **check)
{
    struct worker *w = r->worker;
    struct route_state *s = &w->routes[r->route->index];
    s->guard_left = s->guard_max ? s->guard_step : UINT32_MAX;
    if (!s->guard_max || w->guard_checks->n >= CHECKS_MAX || w->draining ||
        w->mono_ms < s->guard_again_ms || !guard_is_due(s->guard, w->mono_ms))
        return true;
    if (!r->head) { /* it comes again with its head, and is looked at then */
        s->guard_left = 1;
        return false;
    }
    s->guard_again_ms = w->mono_ms + LOOK_MS;
    s->guard_step = s->guard_step < s->guard_max / 2 ? s->guard_step * 2 : s->guard_max;
    *check = candidate(r, v);
    return true;
}

void guard_begin(struct guard_check *k, bool answered)
{
    struct worker *w = k->worker;
    if (!answered || (!k->retries && !guard_route_claim(k->place, w->mono_ms))) {
        check_free(k);
        return;
    }
    guard_experiment_start(&k->trial, k->fields.n, guard_route_pairs(k->place));
    k->words = k->fields.n ? calloc(1, sizeof *k->words) : NULL;
    k->varies = k->trial.fields;
    LIST_INSERT_HEAD(&w->guard_checks->all, k, entry);
    w->guard_checks->n++;
    w->guard_checks->due = true;
}

static void wake_control(struct worker *w)
{
    const uint64_t one = 1; /* it says so, and sees to what is stored */
    const ssize_t written = write(w->shared->control_event, &one, sizeof one);
    (void)written;
}

/* ---- again, in quarantine ---- */

#define RETRY_MS      5000 /* after the quarantine; twice as long each time that it still differs */
#define RETRY_DOUBLES 8
#define RETRIES_CALM  3

/* Are all of the names ("cookie:sid, x-api-key") among those of the check's fields? */
static bool has_named(const struct guard_check *k, const char *names)
{
    char has[GUARD_NAMES * 4];
    const size_t len = guard_fields_name(&k->fields, (1u << k->fields.n) - 1, has, sizeof has - 1);
    has[len] = 0;
    for (const char *at = names; *at;) {
        char name[GUARD_NAMES + 1];
        const size_t n = strcspn(at, ",");
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        const char *there = strstr(has, name);
        if (!n || !there || (there > has && there[-1] != ' ') || (there[n] && there[n] != ','))
            return false;
        at += n;
        at += strspn(at, ", ");
    }
    return *names != 0;
}

/* The URL of the finding, not another one that it covers, which may never have differed. */
static bool is_where_it_was_seen(const struct guard_scope *g, const struct request *r)
{
    char url[GUARD_URL + 1];
    const char *mark = memchr(r->url, '?', r->url_len);
    const size_t len = mark ? (size_t)(mark - r->url) : r->url_len;
    guard_scope_url(g, url);
    return len == strlen(url) && len < GUARD_URL && !memcmp(url, r->url, len);
}

/* Later each time that it still differs. */
static bool is_retry_due(const struct guard_scope *g, uint64_t tried, uint64_t real_ms)
{
    const uint64_t differs = atomic_load(&g->differs);
    const uint64_t gap = (uint64_t)RETRY_MS << (differs < RETRY_DOUBLES ? differs : RETRY_DOUBLES);
    const uint64_t last = tried ? tried : atomic_load(&g->since_ms);
    return real_ms >= last + gap || real_ms < last; /* the clock was set back */
}

void guard_retry(const struct request *r)
{
    struct worker *w = r->worker;
    struct route_state *s = &w->routes[r->route->index];
    struct guard_scope *scope = guard_scope_of(s->guard, r->url, r->url_len);
    char names[GUARD_NAMES + 1];
    if (!scope || !s->guard_max || w->guard_checks->n >= CHECKS_MAX || w->draining ||
        !r->policy.is_get || !is_where_it_was_seen(scope, r))
        return;
    uint64_t tried = atomic_load(&scope->tried_ms);
    if (!is_retry_due(scope, tried, w->real_ms))
        return;
    struct guard_check *k = check_new(r, NULL);
    guard_scope_names(scope, names);
    if (!k || !k->hash || !k->fields.n || !has_named(k, names) ||
        !atomic_compare_exchange_strong(&scope->tried_ms, &tried, w->real_ms)) {
        check_free(k);
        return;
    }
    k->retries = true;
    k->scope = scope;
    guard_begin(k, true);
}

/* It was said again and again that it does not differ any more. */
static void end_quarantine(struct guard_check *k)
{
    char covers[GUARD_URL + 2];
    guard_scope_settle(k->scope, k->trial.verdict, k->worker->real_ms);
    if (atomic_load(&k->scope->calm) < RETRIES_CALM || !guard_scope_holds(k->place, k->scope))
        return;
    guard_scope_covers(k->scope, covers);
    log_info("cache: %s%sroute \"%s\" is released from quarantine: its responses do not differ any "
             "more",
             covers, *covers ? " of " : "", k->route->pattern);
    guard_release(k->place, k->scope, k->worker->shared->inval);
    wake_control(k->worker);
}

static const struct fetch_watcher_ops watcher_ops;

/* ---- asking ---- */

/* The request as the trial wants it, without its client. */
static bool prepare(struct guard_check *k, struct request *r)
{
    struct worker *w = k->worker;
    enum problem problem;
    size_t scanned = 0;
    if (h1_parse_request(k->bytes, k->head_len, &scanned, &w->head, &problem) != H1_DONE)
        return false;
    const struct request_replay what = {
        .bytes = w->texts->scratch,
        .len = guard_fields_write(&k->fields, &w->head, guard_experiment_omits(&k->trial),
                                  w->texts->scratch, sizeof w->texts->scratch)};
    if (!what.len || !request_background(w, NULL, &what, r))
        return false;
    r->peer = k->peer; /* to the backend it is the same client */
    r->ip = k->ip;
    r->trusted_peer = k->trusted_peer;
    r->is_head = r->cacheable = false; /* what comes is not stored */
    return true;
}

static bool ask(struct guard_check *k)
{
    struct worker *w = k->worker;
    struct request r;
    struct fetch *ex = prepare(k, &r) ? fetch_new(w, &r) : NULL;
    if (!ex)
        return false;
    k->whole = false;
    k->print = (struct guard_print){0};
    k->watcher.ops = &watcher_ops;
    fetch_watch(ex, &k->watcher);
    ex->for_store = true;
    if (k->server && pool_bit(ex->upstream, k->server))
        ex->tried = ~pool_bit(ex->upstream, k->server);
    ex->alone_ms = w->mono_ms + FETCH_MS;
    timer_set(&w->wheel, &ex->timer, ex->alone_ms);
    if (k->retries)
        atomic_store(&k->scope->tried_ms, w->real_ms);
    else
        guard_route_renew(k->place, w->mono_ms);
    stats_add(w->stats, STATS_GUARD_REQUESTS, 1);
    fetch_start(ex);
    return true;
}

/* ---- what comes ---- */

static void hash_field(XXH3_state_t *hash, const struct h1_head *head, const char *name)
{
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        if (!field_is(f->name, name))
            continue;
        XXH3_64bits_update(hash, name, strlen(name) + 1);
        XXH3_64bits_update(hash, f->value.at, f->value.len);
        XXH3_64bits_update(hash, "", 1);
    }
}

static bool may_be_shared(const struct worker *w, const struct h1_head *head)
{
    struct policy_response resp;
    char scratch[H1_CACHE_SCRATCH];
    h1_policy_response(head, (int64_t)(w->real_ms / 1000), scratch, &resp);
    const uint32_t flags = resp.has_cdn_cc ? resp.cdn_cc.flags : resp.cc.flags;
    return !(flags & (FIELD_CC_NO_STORE | FIELD_CC_PRIVATE));
}

/* Otherwise a client with a refused token or an expired session would prove that public content
 * depends on it, and could end the caching of a route at will. So the answer to the client's own
 * request must be of the kind that is stored. */
static bool is_inconclusive(const struct guard_check *k, uint16_t status)
{
    const bool as_client = k->fields.n && !guard_experiment_omits(&k->trial);
    return policy_is_failure(status) || status == 429 || status == 408 || status == 304 ||
           (as_client && status != k->stored);
}

static struct guard_check *check_of(const struct fetch_watcher *at)
{
    return (struct guard_check *)(void *)((char *)(uintptr_t)at -
                                          offsetof(struct guard_check, watcher));
}

static void guard_head(struct fetch_watcher *at, const struct h1_head *head)
{
    struct guard_check *k = check_of(at);
    k->server = at->fetch->up->server;
    k->body_len = 0;
    k->print.usable = !is_inconclusive(k, head->status);
    k->print.refused = (head->status == 401 || head->status == 403) && head->status != k->stored;
    if (!k->print.usable)
        return;
    k->varies &= guard_fields_varied(&k->fields, head);
    k->shared |= may_be_shared(k->worker, head);
    XXH3_64bits_reset(k->hash);
    XXH3_64bits_update(k->hash, &head->status, sizeof head->status);
    hash_field(k->hash, head, "content-type");
    k->print.shape = XXH3_64bits_digest(k->hash);
    hash_field(k->hash, head, "content-encoding");
    hash_field(k->hash, head, "content-language");
    hash_field(k->hash, head, "location");
    guard_mask_start(&k->mask, XXH3_64bits_digest(k->hash));
    if (k->words)
        guard_words_start(&k->words->now, XXH3_64bits_digest(k->hash));
}

static void guard_body(struct fetch_watcher *at, const char *bytes, size_t len)
{
    struct guard_check *k = check_of(at);
    k->body_len += len;
    if (k->body_len > k->worker->routes[k->route->index].settings.value.max_body)
        k->print.usable = false; /* such a one would not be stored */
    if (k->print.usable)
        XXH3_64bits_update(k->hash, bytes, len), guard_mask_add(&k->mask, bytes, len);
    if (k->print.usable && k->words)
        guard_words_add(&k->words->now, bytes, len);
}

static bool guard_wants_more(const struct fetch_watcher *at)
{
    return check_of(at)->print.usable;
}

static void guard_whole(struct fetch_watcher *at)
{
    check_of(at)->whole = true;
}

/* All that fit have one print, and others their own. Without memory for it the rest must do. */
static void learn(struct guard_check *k, struct answer_words *words)
{
    guard_words_end(&words->now);
    if (k->trial.requested == GUARD_LEARNS_FROM)
        words->first = words->now;
    else if (k->trial.requested == GUARD_LEARNS)
        words->is_learned = guard_pattern_learn(&words->pattern, &words->first, &words->now);
    k->print.is_learned = words->is_learned;
    if (words->is_learned && !guard_pattern_fits(&words->pattern, &words->now))
        k->print.learned = k->print.content | 1;
}

static void guard_heard(struct fetch_watcher *at, const struct fetch *ex)
{
    struct guard_check *k = check_of(at);
    (void)ex;
    k->print.usable &= k->whole;
    if (k->print.usable)
        k->print.content = XXH3_64bits_digest(k->hash), k->print.masked = guard_mask_end(&k->mask);
    if (k->print.usable && k->words)
        learn(k, k->words);
    guard_experiment_hear(&k->trial, &k->print);
    k->worker->guard_checks->due = true; /* not here: a caller uses the worker's buffers */
}

static const struct fetch_watcher_ops watcher_ops = {.head = guard_head,
                                                     .body = guard_body,
                                                     .whole = guard_whole,
                                                     .wants_more = guard_wants_more,
                                                     .done = guard_heard};

/* ---- what follows ---- */

static void close_url(struct guard_check *k)
{
    const char *url = k->bytes + k->head_len;
    const char *mark = memchr(url, '?', k->url_len); /* a query may be a secret */
    k->scope =
        guard_close(k->place, url, mark ? (size_t)(mark - url) : k->url_len, k->worker->real_ms);
    k->closed = true;
    wake_control(k->worker);
}

static void name_scope(struct guard_check *k)
{
    char names[GUARD_NAMES];
    struct h1_out o = {names, names + sizeof names, false};
    if (k->fields.n) {
        o.at += guard_fields_name(&k->fields, k->trial.named, names, sizeof names);
    } else { /* the values of the fetching request's fields are unknown, only their names */
        h1_puts(&o, k->fetcher & GUARD_ID_AUTHORIZATION ? "authorization"
                    : k->fetcher & GUARD_ID_COOKIE      ? "cookie"
                                                        : "a header");
    }
    guard_scope_name(k->place, k->scope, names, (size_t)(o.at - names));
    wake_control(k->worker);
}

/* The backend says of all answers now that they vary by these fields, or are not to be shared: it
 * was put right after the copy had been stored. */
static bool is_put_right(const struct guard_check *k, uint32_t fields)
{
    return k->fields.n && (!(fields & ~k->varies) || !k->shared);
}

static void forget_copy(struct guard_check *k)
{
    struct inval_page *inval = k->worker->shared->inval;
    if (k->closed)
        guard_release(k->place, k->scope, inval);
    inval_mark_url(inval, k->bytes + k->head_len, k->url_len, false);
    shared_wake_holders(k->worker->shared);
    k->closed = false;
    k->trial.verdict = GUARD_SAME;
}

static void conclude(struct guard_check *k)
{
    static const enum stats_counter counter[] = {[GUARD_SAME] = STATS_GUARD_SAME,
                                                 [GUARD_DIFFERS] = STATS_GUARD_DIFFERS,
                                                 [GUARD_UNSTABLE] = STATS_GUARD_UNSTABLE,
                                                 [GUARD_FAILED] = STATS_GUARD_FAILED};
    struct worker *w = k->worker;
    if (k->trial.verdict == GUARD_DIFFERS && is_put_right(k, k->trial.named))
        forget_copy(k);
    if (k->closed)
        name_scope(k);
    stats_add(w->stats, counter[k->trial.verdict], 1);
    if (k->retries)
        end_quarantine(k);
    else
        guard_route_settle(k->place, k->trial.verdict, w->mono_ms, w->real_ms,
                           w->routes[k->route->index].settings.min_interval_ms);
}

static void check_end(struct guard_check *k)
{
    LIST_REMOVE(k, entry);
    k->worker->guard_checks->n--;
    check_free(k);
}

/* As soon as it is proven that the content differs; by what, is found out later. */
static void act_on_proof(struct guard_check *k)
{
    if (k->closed || !guard_experiment_is_proven(&k->trial))
        return;
    if (is_put_right(k, k->trial.fields))
        forget_copy(k);
    else
        close_url(k);
}

/* One step of a check that waits for nothing. */
static void step(struct guard_check *k)
{
    struct guard_experiment *t = &k->trial;
    act_on_proof(k);
    if (t->verdict == GUARD_OPEN && (k->worker->draining || !ask(k)))
        guard_experiment_hear(t, &(struct guard_print){0});
    if (t->verdict == GUARD_OPEN)
        return;
    conclude(k);
    check_end(k);
}

void guard_run(struct worker *w)
{
    while (w->guard_checks->due) {
        struct guard_check *next;
        w->guard_checks->due = false;
        for (struct guard_check *k = LIST_FIRST(&w->guard_checks->all); k; k = next) {
            next = LIST_NEXT(k, entry);
            if (!k->watcher.fetch)
                step(k);
        }
    }
}

void guard_stop(struct worker *w)
{
    struct guard_check *next;
    for (struct guard_check *k = LIST_FIRST(&w->guard_checks->all); k; k = next) {
        next = LIST_NEXT(k, entry);
        if (k->watcher.fetch)
            fetch_finish(k->watcher.fetch);
        if (k->trial.verdict == GUARD_OPEN)
            guard_experiment_hear(&k->trial, &(struct guard_print){0});
        act_on_proof(k);
        conclude(k);
        check_end(k);
    }
}

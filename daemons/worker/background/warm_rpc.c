/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * warm_rpc: `polderctl cache warm`. Control hands the URLs to the first worker, on
 * runtime_dir/worker.sock; they are fetched like those of the warm list (one fetch over all
 * workers, as many at a time as budget.h allows), and the answer tells for each whether it is
 * stored now, was fresh already, or why it is not stored.
 *
 *   WAITING -> FETCHING  -> STORING -> DONE     fetched here; the keeper stores it
 *           -> ELSEWHERE            -> DONE     another request fetches it already
 *
 * A call ends when all its URLs are done, or after ANSWER_MS: then the rest is reported as not
 * fetched, and dropped. Nothing continues unseen.
 */
#include "daemons/worker/background/budget.h"
#include "daemons/rpc/server.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/permit.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/request/steps.h"
#include "daemons/worker/message/messages.h"
#include "polder/fetch_lock.h"
#include "polder/log.h"
#include "polder/problem.h"
#include "polder/rpc.h"
#include "polder/rpc_in.h"
#include "polder/rpc_out.h"
#include "polder/url.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CALLS_MAX  4
#define URLS_MAX   4000 /* a bare path is one for each listener */
#define LOOKS      64   /* begun in a step */
#define ANSWER_MS  60000
#define STORING_MS 2000
#define AGAIN_MS   60000 /* the socket could not be made */
#define URL_SHOWN  2048

enum warm_rpc_state {
    WARM_RPC_WAITING,
    WARM_RPC_FETCHING,
    WARM_RPC_ELSEWHERE,
    WARM_RPC_STORING,
    WARM_RPC_DONE
};
enum warm_rpc_result { WARM_RPC_STORED, WARM_RPC_FRESH, WARM_RPC_FAILED };

struct warm_url {
    char *head; /* of the request made up for it */
    uint32_t len;
    uint8_t state;  /* enum warm_rpc_state */
    uint8_t result; /* enum warm_rpc_result, of what is done */
    struct fetch_permit awaited;
    struct fetch_watcher watcher; /* while it is fetched */
    uint64_t begun_ms, until_ms;
    uint64_t left_ms; /* it stays fresh for so long */
    char detail[120];
};

struct warm_call {
    struct warm_call *next;
    struct rpc_reply *reply;
    uint64_t until_ms;
    uint32_t n, done, first; /* all before first are done */
    struct warm_url url[];
};

struct warm_rpc {
    struct rpc_server *server;
    struct warm_call *calls;
    uint32_t n_calls;
};

/* ---- what becomes of a URL ---- */

static void settle(struct warm_url *u, enum warm_rpc_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void settle(struct warm_url *u, enum warm_rpc_result result, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(u->detail, sizeof u->detail, format, ap);
    va_end(ap);
    u->state = WARM_RPC_DONE;
    u->result = (uint8_t)result;
}

/* Its fetch is over. */
static void warm_rpc_done(struct fetch_watcher *at, const struct fetch *ex)
{
    struct warm_url *u =
        (struct warm_url *)(void *)((char *)at - offsetof(struct warm_url, watcher));
    if (ex->failed)
        settle(u, WARM_RPC_FAILED, "the backend failed: %u %s",
               problem_status((enum problem)ex->last_problem),
               problem_title((enum problem)ex->last_problem));
    else if (ex->not_stored)
        settle(u, WARM_RPC_FAILED, "status %u: %s", ex->answered, ex->not_stored);
    else if (policy_is_failure(ex->answered) || !ex->answered)
        settle(u, WARM_RPC_FAILED, "the backend answered %u; what was stored stays", ex->answered);
    else
        u->state = WARM_RPC_STORING;
    u->until_ms = ex->worker->mono_ms + STORING_MS;
}

/* Why there is no request for it. */
static void settle_unasked(struct worker *w, struct warm_url *u)
{
    const struct config_route *route = NULL;
    const char *path = u->head + 4, *end = strchr(path, ' ');
    const struct str host = {"host", 4};
    const char *mark = memchr(path, '?', (size_t)(end - path));
    const struct str p = {path, (size_t)((mark ? mark : end) - path)};
    const struct str query = {mark ? mark + 1 : NULL, mark ? (size_t)(end - mark) - 1 : 0};
    const int n = url_normalise(w->config, host, p, query, w->texts->reference,
                                sizeof w->texts->reference, &route);
    if (n > 0 && !route)
        settle(u, WARM_RPC_FAILED, "no route matches");
    else if (n > 0 && !route->cache)
        settle(u, WARM_RPC_FAILED, "its route %.60s has no cache section", route->pattern);
    else
        settle(u, WARM_RPC_FAILED, "no request could ask for it: malformed, or over 8192 bytes");
}

/* Is it there? fresh: *left_ms is how long. */
static bool is_stored(const struct request *r, struct warm_url *u, struct hit_found *found,
                      bool *newer)
{
    uint64_t life = 0;
    u->left_ms = 0;
    const bool there = stored_left_ms(r, found, &u->left_ms, &life);
    const struct cache_record *rec = found->stale ? found->stale->view.record : NULL;
    *newer = there && rec && rec->received_ms >= u->begun_ms;
    return there && u->left_ms > 0 && !(rec && rec->flags & CACHE_NO_CACHE);
}

/* The request that would ask for it; its texts lie in the worker's scratches. */
static bool request_of(struct worker *w, const struct warm_url *u, struct request *r)
{
    const struct request_replay what = {.bytes = u->head, .len = u->len};
    return request_background(w, NULL, &what, r);
}

/* False: there is no room now. It may be over at once. */
static bool fetch_url(const struct request *r, struct hit_found *found, struct warm_url *u)
{
    static const struct fetch_watcher_ops ops = {.done = warm_rpc_done};
    u->watcher.ops = &ops;
    u->state = WARM_RPC_FETCHING;
    const enum fetch_lock_claim got = fetch_background(r, found, &u->awaited, &u->watcher);
    if (got == FETCH_LOCK_WAIT)
        u->state = WARM_RPC_ELSEWHERE;
    else if (got == FETCH_LOCK_FULL)
        u->state = WARM_RPC_WAITING;
    return got != FETCH_LOCK_FULL;
}

/* False: there is no room now. */
static bool begin(struct worker *w, struct warm_url *u)
{
    struct hit_found found = {0};
    struct request r;
    bool newer, room = true;
    if (!request_of(w, u, &r)) {
        settle_unasked(w, u);
        return true;
    }
    u->begun_ms = w->real_ms;
    if (is_stored(&r, u, &found, &newer)) {
        settle(u, WARM_RPC_FRESH, "for %llu s more", (unsigned long long)u->left_ms / 1000);
    } else if (budget_in_trouble(w, r.route->upstream)) {
        settle(u, WARM_RPC_FAILED, "its backend, %.60s, is in trouble: not asked",
               r.route->upstream->name);
    } else if (!(room = budget_may(w, r.route->upstream))) {
        ; /* later */
    } else {
        room = fetch_url(&r, &found, u);
    }
    stored_copy_free(w, found.stale);
    return room;
}

static void look_fetched(struct worker *w, struct warm_url *u, bool elsewhere)
{
    struct hit_found found = {0};
    struct request r;
    bool newer = false;
    if (!request_of(w, u, &r))
        settle_unasked(w, u);
    else if (is_stored(&r, u, &found, &newer))
        settle(u, WARM_RPC_STORED, "for %llu s%s", (unsigned long long)u->left_ms / 1000,
               elsewhere ? "; another request has fetched it" : "");
    else if (newer)
        settle(u, WARM_RPC_STORED,
               "but the backend is asked before each use: it is stale at once, or no-cache");
    else if (elsewhere)
        settle(u, WARM_RPC_FAILED, "another request fetched it, and it was not stored");
    else if (w->mono_ms >= u->until_ms)
        settle(u, WARM_RPC_FAILED, "the store did not take it");
    stored_copy_free(w, found.stale);
}

static void look(struct worker *w, struct warm_url *u)
{
    const bool elsewhere = u->state == WARM_RPC_ELSEWHERE;
    if (elsewhere && permit_wait_pending(w, &u->awaited))
        return;
    if (elsewhere || u->state == WARM_RPC_STORING)
        look_fetched(w, u, elsewhere);
}

/* ---- calls ---- */

static void call_free(struct warm_call *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        fetch_unwatch(&c->url[i].watcher);
        free(c->url[i].head);
    }
    free(c);
}

static void put_url(struct rpc_out *o, const struct warm_url *u)
{
    static const char *const names[] = {"stored", "fresh already", "not stored"};
    const char *path = u->head + 4, *host = strstr(path, "\r\nHost: ") + 8;
    const size_t host_len = strcspn(host, "\r"), path_len = strcspn(path, " ");
    char text[URL_SHOWN];
    const int n = snprintf(text, sizeof text, "%.*s%.*s", (int)host_len, host, (int)path_len, path);
    rpc_out_map(o, NULL);
    rpc_out_strn(o, "url", text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
    rpc_out_str(o, "result", names[u->result]);
    rpc_out_str(o, "detail", u->detail);
    rpc_out_end(o);
}

static void call_answer(struct warm_call *c)
{
    struct rpc_out *o = rpc_reply_result(c->reply);
    uint32_t counts[3] = {0};
    for (uint32_t i = 0; i < c->n; i++)
        counts[c->url[i].result]++;
    rpc_out_map(o, NULL);
    rpc_out_u64(o, "stored", counts[WARM_RPC_STORED]);
    rpc_out_u64(o, "fresh_already", counts[WARM_RPC_FRESH]);
    rpc_out_u64(o, "not_stored", counts[WARM_RPC_FAILED]);
    rpc_out_list(o, "urls");
    for (uint32_t i = 0; i < c->n; i++)
        put_url(o, &c->url[i]);
    rpc_out_end(o);
    rpc_out_end(o);
    rpc_reply_send(c->reply);
}

static void call_give_up(struct warm_call *c, const char *why)
{
    for (uint32_t i = c->first; i < c->n; i++)
        if (c->url[i].state != WARM_RPC_DONE)
            settle(&c->url[i], WARM_RPC_FAILED, "%s", why);
}

/* True: all its URLs are done. */
static bool call_step(struct worker *w, struct warm_call *c)
{
    const bool ready = reader_ready(w);
    unsigned begun = 0;
    bool room = true;
    if (w->mono_ms >= c->until_ms)
        call_give_up(c, "out of time; ask for it again");
    else if (!ready && w->mono_ms + ANSWER_MS >= c->until_ms + STORING_MS)
        call_give_up(c, "the cache has no store at present");
    for (uint32_t i = c->first; ready && i < c->n; i++) {
        struct warm_url *u = &c->url[i];
        if (u->state == WARM_RPC_WAITING && room && begun++ < LOOKS)
            room = begin(w, u);
        else
            look(w, u);
    }
    while (c->first < c->n && c->url[c->first].state == WARM_RPC_DONE)
        c->first++;
    return c->first == c->n;
}

bool warm_rpc_step(struct worker *w)
{
    struct warm_rpc *a = w->background->warm_rpc;
    if (!a)
        return false;
    for (struct warm_call **at = &a->calls, *c; (c = *at);) {
        if (!call_step(w, c)) {
            at = &c->next;
            continue;
        }
        *at = c->next;
        a->n_calls--;
        call_answer(c);
        call_free(c);
    }
    return a->calls != NULL;
}

/* ---- the socket ---- */

static void count(void *arg, const char *host, size_t host_len, const char *path)
{
    (void)host, (void)host_len, (void)path;
    ++*(uint32_t *)arg;
}

static void add(void *arg, const char *host, size_t host_len, const char *path)
{
    struct warm_call *c = arg;
    struct warm_url *u = &c->url[c->n];
    if (!(u->head = warm_head(host, host_len, path, &u->len)))
        return;
    u->awaited = FETCH_LOCK_NONE;
    c->n++;
}

/* A URL as people write it, without scheme and fragment, that can stand in a head. False: it
 * cannot. */
static bool plain_url(const msgpack_object *o, char *out, size_t size)
{
    const int n = rpc_in_object_text(o, out, size);
    const char *text = n > 0 ? out : "";
    if (!strncasecmp(text, "http://", 7))
        text += 7;
    else if (!strncasecmp(text, "https://", 8))
        text += 8;
    const size_t len = strcspn(text, "#");
    memmove(out, text, len);
    out[len] = 0;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)out[i] <= ' ' || out[i] == 0x7f)
            return false;
    return strchr(out, '/') != NULL;
}

static struct warm_call *call_new(const struct worker *w, const struct rpc_call *call,
                                  const msgpack_object *list)
{
    char url[WORKER_URL_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        if (!plain_url(&list->via.array.ptr[i], url, sizeof url)) {
            rpc_reply_error(call->reply, RPC_BAD_ARGUMENT,
                            "URL %u is not http://HOST/PATH, HOST/PATH or /PATH, without spaces",
                            i + 1);
            return NULL;
        }
        warm_each_host(w->config, url, count, &n);
    }
    if (n == 0 || n > URLS_MAX) {
        rpc_reply_error(call->reply, RPC_BAD_ARGUMENT,
                        "%u URLs on all listeners; 1 to %u in a call", n, URLS_MAX);
        return NULL;
    }
    struct warm_call *c = calloc(1, sizeof *c + n * sizeof *c->url);
    if (!c) {
        rpc_reply_error(call->reply, RPC_FAILED, "out of memory");
        return NULL;
    }
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        plain_url(&list->via.array.ptr[i], url, sizeof url);
        warm_each_host(w->config, url, add, c);
    }
    c->reply = call->reply;
    c->until_ms = w->mono_ms + ANSWER_MS;
    return c;
}

static void on_call(void *arg, const struct rpc_call *call)
{
    struct worker *w = arg;
    struct warm_rpc *a = w->background->warm_rpc;
    if (rpc_method_find(call->method, call->method_len) != RPC_METHOD_CACHE_WARM) {
        rpc_reply_error(call->reply, RPC_NO_METHOD, "the worker knows cache.warm");
        return;
    }
    if (!rpc_call_check(call, RPC_METHOD_CACHE_WARM))
        return;
    if (a->n_calls >= CALLS_MAX) {
        rpc_reply_error(call->reply, RPC_BUSY, "%u calls of cache warm are under way; try again",
                        CALLS_MAX);
        return;
    }
    struct warm_call *c = call_new(w, call, rpc_in_get(call->params, "url"));
    if (!c)
        return;
    struct warm_call **last = &a->calls;
    while (*last)
        last = &(*last)->next;
    *last = c;
    a->n_calls++;
    budget_wake(w);
}

void warm_rpc_open(struct worker *w)
{
    char path[128];
    if (w->background->warm_rpc || w->draining || w->process->index != 0 ||
        w->mono_ms < w->background->warm_rpc_again_ms)
        return;
    struct warm_rpc *a = calloc(1, sizeof *a);
    if (!a)
        return;
    snprintf(path, sizeof path, "%s/worker.sock", w->config->runtime_dir);
    w->background->warm_rpc = a;
    const int rc = rpc_server_new(&a->server, w->loop, path, 0600, (gid_t)-1, on_call, w);
    if (rc == 0)
        return;
    w->background->warm_rpc = NULL;
    free(a);
    if (rc == -EADDRINUSE) /* the worker before has it, and leaves */
        return;
    w->background->warm_rpc_again_ms = w->mono_ms + AGAIN_MS;
    log_warning("worker: cannot listen on %s: %s; cache warm has to wait", path, strerror(-rc));
}

void warm_rpc_close(struct worker *w)
{
    struct warm_rpc *a = w->background->warm_rpc;
    if (!a)
        return;
    w->background->warm_rpc = NULL;
    while (a->calls) {
        struct warm_call *c = a->calls;
        a->calls = c->next;
        rpc_reply_error(c->reply, RPC_UNAVAILABLE, "this worker is leaving; ask again");
        call_free(c);
    }
    rpc_server_free(a->server);
    free(a);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * long_poll: requests that are answered later. On a polled route a client that says `Prefer:
 * wait=N` (RFC 7240 4.3) and `If-None-Match` gets no 304: it is held until the response changes, or
 * N seconds have passed.
 *
 * Requests that wait for the same stored object share a watch: the object's key, the entity tag
 * that they have, and the words by which its invalidation is seen. A watch is checked when the
 * eventfd fires: an invalidation was issued, the keeper has stored something that may be it, or the
 * fetch that the watch waits for has ended. If the object is still there and has the same tag,
 * nothing happens; if it was invalidated, one background fetch starts (over all workers) and all
 * requests wait for its end; if it has changed, all held requests are processed again from their
 * heads.
 *
 * A held request is its head and a few words; it has no fetch and no buffer. None relies on being
 * woken: each has a timeout.
 */
#include "daemons/worker/request/long_poll.h"
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/error_backoff.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/cache/conditions.h"
#include "daemons/worker/request/repeat.h"
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/permit.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/request/steps.h"
#include "polder/fetch_lock.h"
#include "polder/inval.h"
#include "polder/stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define BUCKETS     4096
#define HELD_MAX    50000 /* of a worker; further requests get 304 at once */
#define SCAN_GAP_S  0.01  /* looks at all watches are so far apart */
#define DRAIN_LEAVE 5000  /* ms before a draining worker must be gone */

struct watch {
    LIST_ENTRY(watch) entry;     /* its bucket, then long_polls.dead_watches */
    LIST_ENTRY(watch) entry_new; /* long_polls.new_watches, while is_new */
    LIST_HEAD(, held) holders;
    struct worker *worker;
    struct cache_key key;        /* where the object lies, or would lie */
    struct fetch_permit awaited; /* a fetch that ends in an answer; FETCH_LOCK_NONE */
    uint64_t identity;           /* of the entity tag its holders have; 0: nothing was stored */
    uint64_t fetch_seq;
    uint64_t renewed_seq; /* inval_seq() when that was claimed */
    uint32_t stored;      /* what was read from cache_shared.stored */
    uint32_t url_slot, n_tags, url_len;
    uint32_t tag_slot[CACHE_TAGS_MAX];
    bool anonymous; /* what is there was fetched so */
    bool is_new;    /* created, and not looked at since */
    bool dead;
    char url[];
};

struct held {
    LIST_ENTRY(held) entry; /* watch.holders */
    struct watch *watch;
    struct client *client;
    uint64_t until_ms;
    uint32_t wait_s; /* as it was asked, for Preference-Applied */
    uint32_t head_len;
    char head[];
};

/* ---- watches ---- */

static struct watch_list *bucket_of(struct worker *w, const struct cache_key *key)
{
    uint64_t v;
    memcpy(&v, key->hash + 8, sizeof v);
    return &w->long_polls->watches[v % BUCKETS];
}

static uint32_t stored_now(const struct worker *w, const struct cache_key *key)
{
    return atomic_load(&w->shared->cache->stored[cache_stored_slot(key)]);
}

static void watch_forget_new(struct watch *x)
{
    if (x->is_new)
        LIST_REMOVE(x, entry_new);
    x->is_new = false;
}

static void watch_end(struct watch *x)
{
    struct worker *w = x->worker;
    watch_forget_new(x);
    LIST_REMOVE(x, entry);
    x->dead = true; /* a caller may still use it: freed at the end of the iteration */
    LIST_INSERT_HEAD(&w->long_polls->dead_watches, x, entry);
    if (--w->long_polls->n_watches == 0)
        atomic_store(&w->slot->holding, 0);
}

static void watch_take(struct watch *x, const struct cache_record *rec, uint64_t identity)
{
    x->identity = identity;
    x->fetch_seq = rec->fetch_seq;
    x->anonymous = !(rec->flags & CACHE_BY_IDENTITY);
    x->url_slot = rec->url_slot;
    x->n_tags = rec->n_tags < CACHE_TAGS_MAX ? rec->n_tags : CACHE_TAGS_MAX;
    memcpy(x->tag_slot, rec->tag_slot, sizeof x->tag_slot);
}

static struct watch *watch_new(struct worker *w, const struct request *r,
                               const struct cache_key *key)
{
    struct watch *x = calloc(1, sizeof *x + r->url_len);
    if (!w->long_polls->watches)
        w->long_polls->watches = calloc(BUCKETS, sizeof(struct watch_list));
    if (!x || !w->long_polls->watches) {
        free(x);
        return NULL;
    }
    x->worker = w;
    x->key = *key;
    x->awaited = FETCH_LOCK_NONE;
    x->url_slot = inval_url_slot(w->shared->inval, r->url, r->url_len);
    x->url_len = r->url_len;
    memcpy(x->url, r->url, r->url_len);
    LIST_INSERT_HEAD(bucket_of(w, key), x, entry);
    LIST_INSERT_HEAD(&w->long_polls->new_watches, x, entry_new);
    x->is_new = true; /* checked before the loop sleeps: no wake-up yet */
    if (w->long_polls->n_watches++ == 0)
        atomic_store(&w->slot->holding, 1);
    x->stored = stored_now(w, key);
    return x;
}

static struct watch *watch_find(struct worker *w, const struct request *r,
                                const struct cache_key *key, uint64_t identity)
{
    struct watch *x;
    if (!w->long_polls->watches)
        return NULL;
    LIST_FOREACH (x, bucket_of(w, key), entry)
        if (!memcmp(&x->key, key, sizeof *key) && x->identity == identity &&
            x->url_len == r->url_len && !memcmp(x->url, r->url, r->url_len))
            return x;
    return NULL;
}

/* ---- holding ---- */

static bool may_hold(const struct request *r)
{
    const struct worker *w = r->worker;
    return r->wait_s && r->head && r->client && r->if_none_match.at &&
           w->long_polls->n_held < HELD_MAX && !r->client->eof &&
           !(w->draining && w->mono_ms + DRAIN_LEAVE > w->drain_until_ms);
}

static bool hold(struct watch *x, const struct request *r)
{
    struct worker *w = r->worker;
    struct client *c = r->client;
    const struct h1_head *head = r->head;
    struct held *h = malloc(sizeof *h + head->head_len);
    if (!h)
        return false;
    *h = (struct held){.watch = x,
                       .client = c,
                       .until_ms = r->until_ms,
                       .wait_s = r->wait_s,
                       .head_len = head->head_len};
    memcpy(h->head, head->method.at, head->head_len);
    LIST_INSERT_HEAD(&x->holders, h, entry);
    c->held = h;
    w->long_polls->n_held++;
    repeat_forget(c);
    if (!r->waited_s)
        stats_add(w->stats, STATS_POLL_HELD, 1);
    client_update_timer(c);
    return true;
}

static uint64_t identity_of(struct str etag)
{
    return etag.len ? XXH3_64bits(etag.at, etag.len) | 1 : 0;
}

bool long_poll_unchanged(const struct request *r, const struct cache_record *rec,
                         const struct cache_key *key, struct str etag)
{
    struct worker *w = r->worker;
    const uint64_t identity = identity_of(etag);
    if (!may_hold(r) || !identity)
        return false;
    struct watch *x = watch_find(w, r, key, identity);
    if (!x && (x = watch_new(w, r, key)))
        watch_take(x, rec, identity);
    if (x && hold(x, r))
        return true;
    if (x && LIST_EMPTY(&x->holders))
        watch_end(x);
    return false;
}

/* Makes sure that the watched object is fetched once, here or by another worker. False: it cannot
 * be. */
static bool fetch_background_now(struct watch *x, const struct request *r, struct hit_found *found)
{
    x->renewed_seq = inval_seq(x->worker->shared->inval);
    return fetch_background_stale(r, found, &x->awaited) != FETCH_LOCK_FULL;
}

static bool is_valid(const struct worker *w, const struct cache_view *v)
{
    const struct cache_record *rec = v->record;
    return cache_record_state(w->shared->inval, rec, rec->fetch_seq) == INVAL_VALID;
}

bool long_poll_for_fetch(const struct request *r, struct hit_found *found)
{
    struct worker *w = r->worker;
    const struct cache_view *v = found->stale ? &found->stale->view : NULL;
    struct str etag = {0};
    char space[STORED_ETAG_MAX];
    if (!may_hold(r) || r->tried || !r->head->is_get || !miss_collapsible(r, found))
        return false;
    if (v) {
        etag = stored_etag(v, space);
        if (!conditions_not_modified(r, etag, 0))
            return false; /* it has changed already */
    }
    const bool backs_off = v && error_backoff_rest_ms(w, found->stale);
    if (backs_off && !is_valid(w, v))
        return false; /* the watch would ask once more */
    struct watch *x = watch_find(w, r, &found->key, identity_of(etag));
    const bool made = !x;
    if (!x) {
        if (!(x = watch_new(w, r, &found->key)))
            return false;
        if (v)
            watch_take(x, v->record, identity_of(etag));
    }
    if (!hold(x, r)) {
        if (made)
            watch_end(x);
        return false;
    }
    if (!x->awaited.word && !backs_off && !fetch_background_now(x, r, found)) {
        long_poll_drop(r->client);
        return false;
    }
    stored_copy_free(w, found->stale); /* useless to a waiter for a fetch that is under way */
    found->stale = NULL;
    return true;
}

void long_poll_drop(struct client *c)
{
    struct held *h = c->held;
    if (!h)
        return;
    c->held = NULL;
    c->worker->long_polls->n_held--;
    LIST_REMOVE(h, entry);
    if (LIST_EMPTY(&h->watch->holders))
        watch_end(h->watch);
    free(h);
}

uint64_t long_poll_due(const struct client *c)
{
    return c->held->until_ms;
}

bool long_poll_describe(struct client *c, struct request *r)
{
    return c->held && request_held(c, c->held->head, c->held->head_len, r);
}

/* ---- letting go ---- */

/* The request goes its way again. */
static void again(struct held *h, bool wait, bool tried)
{
    struct client *c = h->client;
    struct request_replay what = {.until_ms = h->until_ms,
                                  .wait_s = wait ? h->wait_s : 0,
                                  .waited_s = h->wait_s,
                                  .tried = tried,
                                  .len = h->head_len};
    char *bytes = malloc(h->head_len + 1);
    if (!bytes) {
        client_break(c);
        return;
    }
    memcpy(bytes, h->head, h->head_len);
    long_poll_drop(c);
    what.bytes = bytes;
    c->worker->long_polls->again(c, &what);
    free(bytes);
    client_schedule(c);
}

void long_poll_end(struct client *c)
{
    again(c->held, false, false);
}

/* Holders that come back while this runs hang on another watch, or on the head of this one. */
static void release_all(struct watch *x, bool tried)
{
    struct held *h;
    uint32_t n = 0;
    LIST_FOREACH (h, &x->holders, entry)
        n++;
    struct client **who = n ? malloc(n * sizeof(struct client *)) : NULL;
    if (!who)
        return; /* each has its end */
    n = 0;
    LIST_FOREACH (h, &x->holders, entry)
        who[n++] = h->client;
    for (uint32_t i = 0; i < n; i++)
        if (who[i]->held && who[i]->held->watch == x)
            again(who[i]->held, true, tried);
    free(who);
}

/* ---- looking ---- */

enum now { NOW_SAME, NOW_CHANGED, NOW_NOTHING };

static enum now judge(struct watch *x, const struct cache_view *v)
{
    const struct cache_record *rec = v->record;
    char space[STORED_ETAG_MAX];
    if (rec->flags & CACHE_VARY_RECORD)
        return x->identity ? NOW_CHANGED : NOW_NOTHING;
    if (cache_record_state(x->worker->shared->inval, rec, rec->fetch_seq) != INVAL_VALID)
        return NOW_NOTHING;
    const uint64_t identity = identity_of(stored_etag(v, space));
    if (identity != x->identity)
        return NOW_CHANGED;
    watch_take(x, rec, identity);
    return NOW_SAME;
}

/* What is stored now, beside what its holders have. */
static enum now compare(struct watch *x)
{
    struct worker *w = x->worker;
    struct cache_view v;
    enum now result = NOW_NOTHING;
    if (!reader_ready(w))
        return NOW_NOTHING;
    x->stored = stored_now(w, &x->key);
    if (cache_reader_get(w->reader, &x->key, &v) == 1 && v.record->url_len == x->url_len &&
        !memcmp(v.url, x->url, x->url_len))
        result = judge(x, &v);
    cache_reader_release(w->reader);
    return result;
}

/* One of the holders fetches for all, without its client. */
static bool fetch_for_holders(struct watch *x)
{
    struct worker *w = x->worker;
    const struct held *h = LIST_FIRST(&x->holders);
    struct hit_found found = {.key = x->key};
    struct request_replay what = {.bytes = h->head, .len = h->head_len, .anonymous = x->anonymous};
    struct request r;
    if (!request_background(w, h->client, &what, &r))
        return false;
    found.vary_miss = memcmp(&r.key, &x->key, sizeof x->key) != 0;
    return miss_collapsible(&r, &found) && fetch_background_now(x, &r, &found);
}

/* Has it been invalidated again since its holders' fetch began? */
static bool is_superseded(const struct watch *x)
{
    return inval_check(x->worker->shared->inval, x->renewed_seq, x->url_slot, x->tag_slot,
                       x->n_tags, x->url, x->url_len) != INVAL_VALID;
}

/* over: what the watch has waited for is over. What is not there then could not be fetched, or
 * not be stored, and each request fetches for itself; unless it is not there because it was
 * invalidated once more. */
static void look(struct watch *x, bool over)
{
    const enum now now = compare(x);
    if (now == NOW_SAME)
        return;
    if (now == NOW_CHANGED)
        release_all(x, false);
    else if ((over && !is_superseded(x)) || LIST_EMPTY(&x->holders) || !fetch_for_holders(x))
        release_all(x, true);
}

/* Still under way, and our eventfd will be written? */
static bool is_fetching(const struct watch *x)
{
    struct worker *w = x->worker;
    return permit_wait_pending(w, &x->awaited) && permit_wait_again(w, &x->awaited);
}

static bool is_invalid(const struct watch *x)
{
    return x->identity && inval_check(x->worker->shared->inval, x->fetch_seq, x->url_slot,
                                      x->tag_slot, x->n_tags, x->url, x->url_len) != INVAL_VALID;
}

static void look_if_needed(struct watch *x)
{
    bool over = false;
    if (x->awaited.word) {
        if (is_fetching(x))
            return;
        x->awaited = FETCH_LOCK_NONE;
        over = true;
    }
    if (over || x->stored != stored_now(x->worker, &x->key) || is_invalid(x))
        look(x, over);
}

static bool is_quiet(const struct watch *x)
{
    return !x->awaited.word && x->stored == stored_now(x->worker, &x->key) && !is_invalid(x);
}

/* Watches come and go while holders are let go, so those that need a look are listed first. */
static void scan(struct worker *w)
{
    uint32_t n = 0;
    struct watch *x, **list = malloc((w->long_polls->n_watches + 1) * sizeof(struct watch *));
    if (!list)
        return;
    w->long_polls->scanned_s = ev_now(w->loop);
    for (uint32_t b = 0; b < BUCKETS; b++)
        LIST_FOREACH (x, &w->long_polls->watches[b], entry)
            if (!is_quiet(x))
                list[n++] = x;
    for (uint32_t i = 0; i < n; i++)
        if (!list[i]->dead)
            look_if_needed(list[i]);
    free(list);
}

void long_poll_scan(struct worker *w)
{
    if (w->long_polls->n_watches)
        scan(w);
}

void long_poll_wake(struct worker *w)
{
    if (!w->long_polls->n_watches)
        return;
    if (ev_now(w->loop) >= w->long_polls->scanned_s + SCAN_GAP_S) {
        scan(w);
    } else if (!ev_is_active(&w->long_polls->scan)) {
        ev_timer_set(&w->long_polls->scan, SCAN_GAP_S, 0.);
        ev_timer_start(w->loop, &w->long_polls->scan);
    }
}

void long_poll_look_new(struct worker *w)
{
    struct watch *x;
    while ((x = LIST_FIRST(&w->long_polls->new_watches))) {
        watch_forget_new(x);
        if (!x->awaited.word)
            look(x, false);
    }
}

void long_poll_leave(struct worker *w)
{
    const bool stops = atomic_load(&w->shared->proc->draining);
    struct client *c, *next;
    if (!w->long_polls->n_held || (!stops && w->mono_ms + DRAIN_LEAVE <= w->drain_until_ms))
        return;
    for (c = LIST_FIRST(&w->clients->all); c; c = next) {
        next = LIST_NEXT(c, entry);
        if (c->held)
            long_poll_end(c);
    }
}

void long_poll_free_the_dead(struct worker *w)
{
    struct watch *x;
    while ((x = LIST_FIRST(&w->long_polls->dead_watches))) {
        LIST_REMOVE(x, entry);
        free(x);
    }
}

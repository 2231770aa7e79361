/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * refresh: entries that are read often are fetched again shortly before they expire, so that no
 * client waits for them. Which, and when: polder/refresh.h. How many at once: budget.h.
 *
 * A hit on an entry that is due adds it here as a candidate, with the head of the request: a
 * scan of a short table and a copy, once per lifetime of an entry; no allocation. In the next step
 * the most valuable ones are fetched, as far as there is room. The others stay while they are
 * fresh, or until more valuable ones replace them; the next hit adds them again.
 */
#include "daemons/worker/background/budget.h"
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/request/repeat.h"
#include "daemons/worker/fetch/miss.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/reader.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/request/steps.h"
#include "polder/fetch_lock.h"
#include "polder/refresh.h"
#include "polder/stats.h"
#include "polder/access_bits.h"

#include <stdlib.h>
#include <string.h>

#define CANDIDATES 64

struct candidate {
    uint64_t fresh_until_ms; /* with the object's number: of one life */
    const struct config_upstream *upstream;
    struct clientip peer;
    uint32_t len;
    bool anonymous; /* what it is for was fetched so */
    bool tried;     /* fetched or failed; not again in this lifetime */
};

struct refresh {
    uint64_t id[CANDIDATES];    /* obj_id; 0: a free place */
    uint64_t value[CANDIDATES]; /* 0: may be taken by any other */
    struct candidate at[CANDIDATES];
    uint32_t n; /* not tried yet */
    /* of the requests; pages that no head has needed are not there */
    char head[CANDIDATES][H1_HEAD_MAX];
};

static struct refresh *table_of(struct worker *w)
{
    if (!w->background->refresh)
        w->background->refresh = calloc(1, sizeof *w->background->refresh);
    return w->background->refresh;
}

static int find(const struct refresh *t, uint64_t id)
{
    for (int i = 0; i < CANDIDATES; i++)
        if (t->id[i] == id)
            return i;
    return -1;
}

/* The place of the least valuable one. */
static int cheapest(const struct refresh *t)
{
    int found = 0;
    for (int i = 1; i < CANDIDATES; i++)
        if (t->value[i] < t->value[found])
            found = i;
    return found;
}

static void leave(struct refresh *t, int i)
{
    t->n -= t->id[i] && !t->at[i].tried;
    t->id[i] = t->value[i] = 0;
}

/* The bytes that asked: of the head, or of the connection's repeat. */
static struct str head_of(const struct request *r)
{
    if (r->head)
        return (struct str){r->head->method.at, r->head->head_len};
    const struct repeat *m = r->client ? r->client->repeat : NULL;
    return m ? (struct str){m->bytes, m->len} : (struct str){NULL, 0};
}

static void enter(struct worker *w, int i, const struct request *r, const struct cache_record *rec,
                  uint64_t value)
{
    struct refresh *t = w->background->refresh;
    const struct str head = head_of(r);
    leave(t, i);
    if (!head.at || head.len > H1_HEAD_MAX)
        return;
    t->id[i] = rec->obj_id;
    t->value[i] = value;
    t->at[i] = (struct candidate){.fresh_until_ms = rec->fresh_until_ms,
                                  .upstream = r->route->upstream,
                                  .peer = r->peer,
                                  .anonymous = !(rec->flags & CACHE_BY_IDENTITY),
                                  .len = (uint32_t)head.len};
    memcpy(t->head[i], head.at, head.len);
    t->n++;
    budget_wake(w);
}

void refresh_note(const struct request *r, const struct cache_record *rec)
{
    struct worker *w = r->worker;
    if (rec->slot >= CACHE_SLOTS_MAX || r->probe || r->policy.has_range ||
        (r->policy.identity == POLICY_SHARED && rec->flags & CACHE_BY_IDENTITY) || w->draining ||
        !r->route->upstream->refresh_share || !table_of(w))
        return;
    const uint64_t reads =
        access_bits_reads(atomic_load_explicit(&w->shared->ref[rec->slot], memory_order_relaxed));
    const uint64_t value = refresh_value_ns(rec, reads);
    struct refresh *t = w->background->refresh;
    int i = reads < REFRESH_READS ? -1 : find(t, rec->obj_id);
    if (i >= 0 && t->at[i].fresh_until_ms == rec->fresh_until_ms) {
        if (!t->at[i].tried)
            t->value[i] = value;
        return;
    }
    if (i < 0)
        i = cheapest(t);
    if (reads >= REFRESH_READS && t->value[i] < value)
        enter(w, i, r, rec, value);
}

/* Fetches it, if it is still stored and fresh, and not fetched meanwhile. */
static void launch(struct worker *w, int i)
{
    const struct refresh *t = w->background->refresh;
    const struct candidate *c = &t->at[i];
    const struct request_replay what = {
        .bytes = t->head[i], .len = c->len, .peer = &c->peer, .anonymous = c->anonymous};
    struct hit_found found = {0};
    struct fetch_permit permit;
    struct request r;
    uint64_t left = 0, life = 0;
    if (!request_background(w, NULL, &what, &r))
        return;
    if (stored_left_ms(&r, &found, &left, &life) && left && found.stale &&
        found.stale->view.record->obj_id == t->id[i] &&
        found.stale->view.record->fresh_until_ms == c->fresh_until_ms &&
        miss_collapsible(&r, &found) &&
        fetch_background(&r, &found, &permit, NULL) == FETCH_LOCK_LEAD)
        stats_add(w->stats, STATS_CACHE_REFRESHED, 1);
    stored_copy_free(w, found.stale);
}

static void forget_expired(struct worker *w)
{
    struct refresh *t = w->background->refresh;
    for (int i = 0; i < CANDIDATES; i++) {
        if (!t->id[i] || t->at[i].fresh_until_ms > w->real_ms)
            continue;
        stats_add(w->stats, STATS_CACHE_REFRESH_MISSED, !t->at[i].tried);
        leave(t, i);
    }
}

static int best(const struct worker *w)
{
    const struct refresh *t = w->background->refresh;
    int found = -1;
    for (int i = 0; i < CANDIDATES; i++)
        if (t->id[i] && !t->at[i].tried && (found < 0 || t->value[i] > t->value[found]) &&
            budget_may(w, t->at[i].upstream))
            found = i;
    return found;
}

bool refresh_step(struct worker *w)
{
    struct refresh *t = w->background->refresh;
    if (!t || !t->n || w->draining)
        return false;
    forget_expired(w);
    for (int i; t->n && reader_ready(w) && (i = best(w)) >= 0;) {
        t->at[i].tried = true;
        t->value[i] = 0;
        t->n--;
        launch(w, i);
    }
    return t->n > 0;
}

void refresh_close(struct worker *w)
{
    free(w->background->refresh);
    w->background->refresh = NULL;
}

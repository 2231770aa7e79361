/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sweep: deletes what was invalidated. Not for correctness, which the numbers in the invalidation
 * page have seen to already, but for space, and so that prefix bans can be retired.
 *
 * Three kinds of work, each in slices of one small transaction between the batches of intake:
 *
 *   bans   the keeper finds them in the page itself. One walk along `url` deletes (hard) or rewrites
 *          (soft) what any of those matches that were known when it began; later ones wait for the
 *          next walk. A ban is retired when that is committed, no reader is older than the commit,
 *          and a minute has passed: a worker may hold a copy of an object for that long. What a
 *          fetch brings later is caught by the floor (inval_ban_floor()).
 *   urls   single URLs that control names.
 *   all    one look at every object, for tags and --all; also after each start, which finishes
 *          what a crash cut short and verifies every checksum.
 */
#include "daemons/keeper/keeper.h"
#include "polder/clock.h"
#include "polder/log.h"
#include <string.h>

#define RETIRE_MS    60000
#define BANS_CROWDED 48   /* active bans; then they are retired as soon as it is safe */
#define LOOK_MAX     4000 /* entries looked at in a slice */
#define ALL_PAUSE_MS 1000 /* between two looks at everything, at least */
#define ALL_SHARE    4    /* and so many times as long as the last one took */

_Static_assert(INVAL_PREFIX_MAX < STORE_URL_CUT, "keys of `url` hold every prefix whole");

/* What a slice decided to do, collected before anything is changed. */
struct findings {
    unsigned n, orphans, looked;
    uint64_t until_ns;
    uint32_t slot[KEEPER_SLICE];
    bool soften[KEEPER_SLICE];
    uint16_t orphan_len[KEEPER_SLICE];
    uint8_t orphan[KEEPER_SLICE][STORE_URL_KEY];
};

static bool findings_full(struct findings *f)
{
    return f->n == KEEPER_SLICE || f->orphans == KEEPER_SLICE || ++f->looked > LOOK_MAX ||
           (f->looked % 64 == 0 && clock_mono_ns() > f->until_ns);
}

static int findings_apply(struct keeper *k, const struct findings *f)
{
    int rc = 0;
    for (unsigned i = 0; i < f->n && rc == 0; i++) {
        if (k->store.items[f->slot[i]].obj_id == 0)
            continue; /* named twice: one URL was invalidated twice in a row */
        if (f->soften[i]) {
            rc = store_soften(&k->store, f->slot[i], k->real_ms);
        } else if ((rc = store_remove(&k->store, f->slot[i])) == 0) {
            stats_add(k->stats, STATS_CACHE_INVALIDATED, !k->store.removed_probe);
        }
    }
    for (unsigned i = 0; i < f->orphans && rc == 0; i++) {
        const struct str key = {(const char *)f->orphan[i], f->orphan_len[i]};
        rc = store_url_drop(&k->store, key);
    }
    return rc;
}

void sweep_init(struct keeper *k)
{
    memset(&k->sweep, 0, sizeof k->sweep);
    k->sweep.all = k->sweep.verify = true;
    k->sweep.all_next_ms = k->mono_ms + ALL_PAUSE_MS;
}

static void want_all(struct sweep *s)
{
    if (s->all && s->all_at == 0)
        return; /* has not begun */
    s->all_again = s->all;
    s->all = true;
}

void sweep_hint(struct keeper *k, const struct ring_sweep *what, const char *text)
{
    struct sweep *s = &k->sweep;
    if (what->kind == 2) {
        k->tick_due_ms = 0; /* look for the ban now */
        return;
    }
    if (what->soft)
        return; /* its number stays; nothing is to be deleted */
    /* A path without a host is not in one place. */
    if (what->kind != 0 || what->len == 0 || text[0] == '/' || s->n_urls == SWEEP_URLS) {
        want_all(s);
        return;
    }
    struct sweep_url *u = &s->url[(s->url_first + s->n_urls++) % SWEEP_URLS];
    u->len = (uint16_t)(what->len < STORE_URL_CUT ? what->len : STORE_URL_CUT);
    memcpy(u->url, text, u->len);
}

/* ---- one object ---- */

static enum inval_state state_of(const struct keeper *k, const struct cache_record *r)
{
    return cache_record_state(k->shared->inval, r, r->fetch_seq);
}

static void note_orphan(struct findings *f, struct str key)
{
    memcpy(f->orphan[f->orphans], key.at, key.len);
    f->orphan_len[f->orphans++] = (uint16_t)key.len;
}

/* The record of an entry of `url`; NULL: it does not exist any more. */
static const struct cache_record *record_of(struct keeper *k, const struct store_cursor *at)
{
    struct cache_key of;
    if (at->value.len != sizeof of)
        return NULL;
    memcpy(&of, at->value.at, sizeof of);
    const struct cache_record *r = store_find(&k->store, k->store.txn, &of, cache_record_fits);
    const uint8_t *id = (const uint8_t *)at->key.at + at->key.len - 8;
    return r && r->obj_id == cache_id_of(id) && store_slot_of(&k->store, r) != EVICT_NONE ? r
                                                                                          : NULL;
}

/* ---- bans ---- */

/* Those that a walk is for, as the page has them. */
struct bans {
    unsigned n;
    bool all_hosts; /* one of them is: no part of `url` can be left out */
    struct inval_ban ban[INVAL_BANS];
};

static void bans_of_walk(const struct keeper *k, struct bans *b)
{
    b->n = 0;
    b->all_hosts = false;
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        const struct sweep_ban *known = &k->sweep.ban[i];
        struct inval_ban *ban = &b->ban[b->n];
        if (!known->walked || !inval_ban_read(k->shared->inval, i, ban) || ban->seq != known->seq)
            continue;
        b->all_hosts |= ban->len && ban->prefix[0] == '/';
        b->n++;
    }
}

/* What they do to an object of that URL and age. */
static enum inval_state bans_judge(const struct bans *b, uint64_t fetch_seq, const char *url,
                                   size_t len)
{
    enum inval_state state = INVAL_VALID;
    for (unsigned i = 0; i < b->n && state != INVAL_HARD; i++) {
        const struct inval_ban *ban = &b->ban[i];
        if (fetch_seq < ban->seq && inval_prefix_matches(ban->prefix, ban->len, url, len))
            state = ban->soft ? INVAL_SOFT : INVAL_HARD;
    }
    return state;
}

static bool is_softened(const struct keeper *k, const struct cache_record *r)
{
    return r->flags & CACHE_SOFTENED && r->fresh_until_ms < k->real_ms;
}

/* Most entries match nothing: their keys say so, and their records are not even looked at. */
static void note_banned(struct keeper *k, struct findings *f, const struct bans *b,
                        const struct store_cursor *at)
{
    const size_t len = at->key.len - 8;
    if (len < STORE_URL_CUT && bans_judge(b, 0, at->key.at, len) == INVAL_VALID)
        return;
    const struct cache_record *r = record_of(k, at);
    if (!r) {
        note_orphan(f, at->key);
        return;
    }
    const enum inval_state state = bans_judge(b, r->fetch_seq, (const char *)(r + 1), r->url_len);
    if (state == INVAL_VALID)
        return;
    f->soften[f->n] = state == INVAL_SOFT && state_of(k, r) != INVAL_HARD;
    if (f->soften[f->n] && is_softened(k, r))
        return;
    if (!f->soften[f->n])
        removals_note_invalidated(k->store.gone, k->shared->inval, r, k->real_ms);
    f->slot[f->n++] = r->slot;
}

/* As LMDB orders keys. */
static bool begins_before(const struct inval_ban *a, const struct inval_ban *b)
{
    const int order = memcmp(a->prefix, b->prefix, a->len < b->len ? a->len : b->len);
    return order ? order < 0 : a->len < b->len;
}

/* The part of `url` that the key lies in, or the first one behind it; NULL: it is behind them all.
 */
static const struct inval_ban *range_of(const struct bans *b, struct str key, bool *inside)
{
    const struct inval_ban *next = NULL;
    for (unsigned i = 0; i < b->n; i++) {
        const struct inval_ban *ban = &b->ban[i];
        const size_t min = ban->len < key.len ? ban->len : key.len;
        const int order = memcmp(ban->prefix, key.at, min);
        *inside = order == 0 && min == ban->len;
        if (*inside)
            return ban;
        if (order >= 0 && (!next || begins_before(ban, next)))
            next = ban;
    }
    return next;
}

/* On to an entry that one of the bans may match. rc: as of store_cursor_seek(). */
static int walk_seek(struct store_cursor *c, const struct bans *b)
{
    int rc = 0;
    while (rc == 0 && !b->all_hosts) {
        bool inside = false;
        const struct inval_ban *range = range_of(b, c->key, &inside);
        if (inside)
            break;
        if (!range)
            return STORE_END;
        rc = store_cursor_seek(c, (struct str){range->prefix, range->len});
    }
    return rc;
}

/* From where *w stands, and moves it. rc: 0 more to do, STORE_END through, or an error. */
static int walk_collect(struct keeper *k, struct sweep_walk *w, const struct bans *b,
                        struct findings *f)
{
    struct store_cursor c;
    if (b->n == 0)
        return STORE_END;
    int rc = store_cursor_open(&k->store, k->store.txn, STORE_BY_URL, &c);
    if (rc != 0)
        return rc;
    rc = store_cursor_seek(&c, (struct str){(const char *)w->at, w->at_len});
    while (rc == 0 && (rc = walk_seek(&c, b)) == 0) {
        if (c.key.len < 8 || c.key.len > STORE_URL_KEY) {
            rc = STORE_DAMAGED;
            break;
        }
        memcpy(w->at, c.key.at, c.key.len);
        w->at_len = (uint16_t)c.key.len;
        if (findings_full(f))
            break;
        note_banned(k, f, b, &c);
        rc = store_cursor_next(&c);
    }
    store_cursor_close(&c);
    return rc;
}

static void walk_end(struct keeper *k, uint64_t txn_id)
{
    k->sweep.walk.on = false;
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        struct sweep_ban *b = &k->sweep.ban[i];
        if (b->walked)
            b->done_txn = txn_id;
        b->walked = false;
    }
}

/* Only what is committed has been passed: whatever fails is done again from the same place, or a
 * ban would be retired although something that it matches is left. */
static int walk_slice(struct keeper *k)
{
    struct sweep_walk walk = k->sweep.walk;
    struct findings f = {.until_ns = clock_mono_ns() + KEEPER_SLICE_NS};
    struct bans bans;
    int rc = store_begin(&k->store);
    if (rc != 0)
        return rc;
    const uint64_t txn_id = store_txn_id(&k->store);
    bans_of_walk(k, &bans);
    const int range = walk_collect(k, &walk, &bans, &f);
    if (range != 0 && range != STORE_END)
        return range;
    if ((rc = findings_apply(k, &f)) != 0 || (rc = store_commit(&k->store)) != 0)
        return rc;
    k->sweep.walk = walk;
    if (range == STORE_END)
        walk_end(k, txn_id);
    return 0;
}

/* Is there a walk to go on with, or a new one to begin? */
static bool walk_due(struct keeper *k)
{
    struct sweep *s = &k->sweep;
    if (s->walk.on)
        return true;
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        s->ban[i].walked = s->ban[i].seq && !s->ban[i].done_txn;
        s->walk.on |= s->ban[i].walked;
    }
    s->walk.at_len = 0;
    return s->walk.on;
}

static void ban_retire(struct keeper *k, struct sweep_ban *b)
{
    inval_retire_prefix(k->shared->inval, b->seq);
    b->seq = 0;
}

/* Without a store there is nothing to sweep, and slots for bans are few. What stands in for them
 * all is free: whatever store comes next, nothing in it is as young. */
static void retire_all(struct keeper *k)
{
    struct inval_ban ban;
    bool marked = false;
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        if (!inval_ban_read(k->shared->inval, i, &ban))
            continue;
        if (!marked)
            inval_mark_all(k->shared->inval, false);
        marked = true;
        inval_retire_prefix(k->shared->inval, ban.seq);
    }
}

void sweep_tick(struct keeper *k)
{
    struct inval_ban ban;
    struct store_reader oldest;
    unsigned active = 0;
    if (!k->store.env) {
        retire_all(k);
        return;
    }
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        struct sweep_ban *b = &k->sweep.ban[i];
        const bool there = inval_ban_read(k->shared->inval, i, &ban);
        active += there;
        if (there && b->seq != ban.seq)
            *b = (struct sweep_ban){.seq = ban.seq, .seen_ms = k->mono_ms};
        else if (!there)
            *b = (struct sweep_ban){0};
    }
    if (active == 0)
        return;
    const bool reading = store_oldest_reader(&k->store, &oldest);
    for (unsigned i = 0; i < INVAL_BANS; i++) {
        struct sweep_ban *b = &k->sweep.ban[i];
        if (b->seq && b->done_txn && (!reading || oldest.txn_id >= b->done_txn) &&
            (active > BANS_CROWDED || k->mono_ms - b->seen_ms >= RETIRE_MS))
            ban_retire(k, b);
    }
}

/* ---- single URLs ---- */

static int url_collect(struct keeper *k, const struct sweep_url *u, struct findings *f)
{
    struct store_cursor c;
    int rc = store_cursor_open(&k->store, k->store.txn, STORE_BY_URL, &c);
    if (rc != 0)
        return rc;
    for (rc = store_cursor_seek(&c, (struct str){u->url, u->len});
         rc == 0 && !findings_full(f) && c.key.len >= u->len && c.key.len <= STORE_URL_KEY &&
         memcmp(c.key.at, u->url, u->len) == 0;
         rc = store_cursor_next(&c)) {
        const struct cache_record *r = record_of(k, &c);
        if (c.key.len == (size_t)u->len + 8 && r && state_of(k, r) == INVAL_HARD) {
            f->soften[f->n] = false;
            f->slot[f->n++] = r->slot;
            removals_note_invalidated(k->store.gone, k->shared->inval, r, k->real_ms);
        }
    }
    store_cursor_close(&c);
    return rc == STORE_END ? 0 : rc;
}

static int url_slice(struct keeper *k)
{
    struct sweep *s = &k->sweep;
    struct findings f = {.until_ns = clock_mono_ns() + KEEPER_SLICE_NS};
    int rc = store_begin(&k->store);
    if (rc != 0)
        return rc;
    while (s->n_urls && f.n < KEEPER_SLICE / 2 && f.looked < LOOK_MAX / 2) {
        const struct sweep_url *u = &s->url[s->url_first];
        if ((rc = url_collect(k, u, &f)) != 0)
            return rc;
        s->url_first = (s->url_first + 1) % SWEEP_URLS;
        s->n_urls--;
    }
    if ((rc = findings_apply(k, &f)) != 0)
        return rc;
    return store_commit(&k->store);
}

/* ---- everything ---- */

static void note_if_bad(struct keeper *k, struct findings *f, uint64_t obj_id,
                        const struct cache_index *index)
{
    if (index->slot >= k->store.slots_used || k->store.items[index->slot].obj_id != obj_id)
        return;
    const struct cache_record *r =
        store_find(&k->store, k->store.txn, &index->key,
                   k->sweep.verify ? cache_record_sound : cache_record_fits);
    bool good = r != NULL;
    if (good) {
        const bool hard = r->obj_id == obj_id && state_of(k, r) == INVAL_HARD;
        good = r->obj_id == obj_id && !hard;
        if (hard)
            removals_note_invalidated(k->store.gone, k->shared->inval, r, k->real_ms);
    }
    if (good)
        return;
    f->soften[f->n] = false;
    f->slot[f->n++] = index->slot;
}

static int all_collect(struct keeper *k, struct findings *f)
{
    struct store_cursor c;
    uint8_t from[8];
    struct cache_index index;
    int rc = store_cursor_open(&k->store, k->store.txn, STORE_BY_ID, &c);
    if (rc != 0)
        return rc;
    cache_id_key(k->sweep.all_at, from);
    rc = store_cursor_seek(&c, (struct str){(const char *)from, sizeof from});
    for (; rc == 0; rc = store_cursor_next(&c)) {
        if (c.key.len != 8 || c.value.len != sizeof index) {
            rc = STORE_DAMAGED;
            break;
        }
        k->sweep.all_at = cache_id_of((const uint8_t *)c.key.at);
        if (findings_full(f))
            break;
        memcpy(&index, c.value.at, sizeof index);
        note_if_bad(k, f, k->sweep.all_at, &index);
    }
    store_cursor_close(&c);
    return rc;
}

static void all_through(struct keeper *k)
{
    struct sweep *s = &k->sweep;
    const uint64_t pause_ms = ALL_SHARE * (k->mono_ms - s->all_began_ms);
    s->all_next_ms = k->mono_ms + (pause_ms > ALL_PAUSE_MS ? pause_ms : ALL_PAUSE_MS);
    s->all = s->all_again;
    s->all_again = s->verify = false;
    s->all_at = 0;
}

static int all_slice(struct keeper *k)
{
    struct sweep *s = &k->sweep;
    if (s->all_at == 0)
        s->all_began_ms = k->mono_ms;
    struct findings f = {.until_ns = clock_mono_ns() + KEEPER_SLICE_NS};
    int rc = store_begin(&k->store);
    if (rc != 0)
        return rc;
    const int range = all_collect(k, &f);
    if (range != 0 && range != STORE_END)
        return range;
    if ((rc = findings_apply(k, &f)) != 0 || (rc = store_commit(&k->store)) != 0)
        return rc;
    if (range == STORE_END)
        all_through(k);
    return 0;
}

/* ---- slices ---- */

struct slice_result sweep_slice(struct keeper *k)
{
    int rc;
    if (!k->store.env)
        return SLICE_IDLE;
    if (k->sweep.n_urls)
        rc = url_slice(k);
    else if (walk_due(k))
        rc = walk_slice(k);
    else if (k->sweep.all && k->mono_ms >= k->sweep.all_next_ms)
        rc = all_slice(k);
    else
        return SLICE_IDLE;
    return (struct slice_result){true, rc, "delete what was invalidated"};
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit: see limit.h. This file has the table: finding, creating and taking over entries; what a
 * state means to each algorithm is in limit_state.c.
 *
 * An entry is four words in a bucket: tag (whose), state (128 bits), keep_until (coarse; the state
 * matters until then) and shape (in which units the state counts). The promise "not one too many"
 * rests on these rules:
 *
 *  - A charge is one compare-and-swap of the state. Before it, keep_until is pushed far enough, and
 * then tag and shape are read again; after it, once more. If they have moved, the charge may have
 * landed in an entry that is not ours any more: it is made again where it belongs. The stray one
 * only makes somebody stricter.
 *  - A tag is taken away in this order: tag -> BUSY, then keep_until is read again (Dekker: either
 * the charger sees BUSY, or we see its keep_until and put the tag back), then the state is
 * overwritten, then the new tag.
 *  - Who meets a BUSY tag in his buckets waits for it, for it may be his own that comes back. BUSY
 * names its owner; that of a dead one is reclaimed under the rules of creation.
 *  - Entries are created under a lock of the key's stripe, so there are never two for one key. It
 * names its owner and is stolen from a dead one. Who cannot have it within LOCK_WAIT_NS refuses the
 * request: one refusal too many is allowed, one admission is not.
 *
 *  - When both buckets are full of live entries, the one with the lowest level goes. Its bucket
 * remembers level and keep_until in `forced`: whoever is created there before that time begins with
 * that level. So nobody can wash away a count by flooding the table, and who was driven out comes
 * back with at least what he had.
 *
 * Killed between any two steps: the lock is stolen; a BUSY entry still has the state that it had,
 * or already that of the newcomer, and is reclaimed like a live one.
 */
#include "polder/limit.h"
#include "libshared/limit_state.h"
#include "polder/clock.h"
#include "polder/proc.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define WAYS         7
#define STRIPES      1024
#define EPOCHS       4096
#define LOCK_WAIT_NS 5000000
#define ABI          1

#define BUSY_MARK    UINT64_C(0xffff000000000000)
#define SHAPE_MOVING UINT32_MAX /* being converted to other units */

struct bucket {
    _Alignas(64) _Atomic uint64_t tag[WAYS]; /* 0: never used; limit_key(); or BUSY */
    _Atomic uint64_t forced;                 /* until (mono s) << 32 | level, of those driven out */
    _Alignas(64) struct limit_state state[WAYS];
    _Alignas(64) _Atomic uint32_t keep_until[WAYS]; /* mono seconds */
    _Atomic uint32_t shape[WAYS];                   /* limit_shape() */
};
_Static_assert(sizeof(struct bucket) == 256, "four cache lines");

struct limit_table {
    struct shm_header header;
    uint8_t secret[192];
    uint64_t mask; /* buckets - 1 */
    _Atomic uint64_t evicted_live, lock_steals, lock_refusals;
    _Alignas(64) _Atomic uint64_t stripe[STRIPES]; /* 0, or owner: slot << 32 | incarnation */
    _Atomic uint64_t epoch[EPOCHS]; /* of limits, by id; control adds 1 to forget all */
    _Alignas(256) struct bucket bucket[];
};

struct entry {
    struct bucket *b;
    unsigned i;
};

/* ---- geometry ---- */

static uint64_t buckets_for(size_t entries)
{
    uint64_t n = 16;
    while (n * WAYS < entries)
        n *= 2;
    return n;
}

size_t limit_table_size(size_t entries)
{
    return sizeof(struct limit_table) + buckets_for(entries) * sizeof(struct bucket);
}

uint64_t limit_table_layout(void)
{
    return (uint64_t)sizeof(struct limit_table) << 32 | sizeof(struct bucket) << 8 | ABI;
}

void limit_table_init(struct limit_table *table, size_t entries)
{
    for (size_t got = 0; got < sizeof table->secret;) {
        const ssize_t n = getrandom(table->secret + got, sizeof table->secret - got, 0);
        got += n > 0 ? (size_t)n : 0;
    }
    table->mask = buckets_for(entries) - 1;
}

uint64_t limit_key(const struct limit_table *table, uint64_t limit_id, const void *who, size_t len)
{
    const uint64_t epoch =
        atomic_load_explicit(&table->epoch[limit_id % EPOCHS], memory_order_relaxed);
    uint64_t seed[3] = {limit_id, epoch,
                        XXH3_64bits_withSecret(who, len, table->secret, sizeof table->secret)};
    uint64_t key = XXH3_64bits_withSecret(seed, sizeof seed, table->secret, sizeof table->secret);
    if (key >= BUSY_MARK)
        key ^= UINT64_C(1) << 63;
    return key ? key : 1;
}

static void buckets_of(struct limit_table *t, uint64_t key, struct bucket *b[2])
{
    b[0] = &t->bucket[key & t->mask];
    b[1] = &t->bucket[(key >> 24 ^ key >> 43) & t->mask];
    __builtin_prefetch(b[0]);
    __builtin_prefetch(b[1]);
    __builtin_prefetch(b[0]->state);
    __builtin_prefetch(b[0]->keep_until);
}

/* ---- owners ---- */

static uint64_t owner_word(const struct limit_caller *c)
{
    return (uint64_t)(c->slot & 0xffff) << 32 | c->incarnation;
}

/* A killed process that nobody has reaped yet still has its pid: then /proc says Z. */
static bool is_running(uint32_t pid)
{
    char path[32], text[256];
    if (kill((pid_t)pid, 0) < 0 && errno == ESRCH)
        return false;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return errno != ENOENT;
    const char *paren = fgets(text, sizeof text, f) ? strrchr(text, ')') : NULL;
    fclose(f);
    return !paren || (paren[1] == ' ' && paren[2] != 'Z' && paren[2] != 'X');
}

/* thorough: ask the kernel too (microseconds); otherwise only the process table. */
static bool owner_lives(const struct limit_caller *c, uint64_t owner, bool thorough)
{
    const uint32_t slot = owner >> 32 & 0x7fff, incarnation = (uint32_t)owner;
    if (slot >= PROC_SLOTS)
        return false;
    const struct proc_slot *p = &c->proc->slot[slot];
    if (atomic_load(&p->incarnation) != incarnation || atomic_load(&p->state) == PROC_DEAD)
        return false;
    const uint32_t pid = atomic_load(&p->pid);
    return !thorough || (pid && is_running(pid));
}

struct patience {
    uint64_t until_ns;
    unsigned turns;
};

/* false: no patience left */
static bool wait_a_little(struct patience *p)
{
    if (p->turns++ == 0)
        p->until_ns = clock_mono_ns() + LOCK_WAIT_NS;
    if (p->turns > 32)
        sched_yield();
    return p->turns % 16 || clock_mono_ns() < p->until_ns;
}

static bool stripe_lock(const struct limit_caller *c, _Atomic uint64_t *stripe)
{
    struct patience patience = {0};
    const uint64_t me = owner_word(c);
    for (;;) {
        uint64_t holder = 0;
        if (atomic_compare_exchange_strong(stripe, &holder, me))
            return true;
        const bool thorough = patience.turns % 64 == 40;
        if (holder == me || !owner_lives(c, holder, thorough)) {
            if (atomic_compare_exchange_strong(stripe, &holder, me)) {
                atomic_fetch_add(&c->table->lock_steals, 1);
                return true;
            }
        }
        if (!wait_a_little(&patience)) {
            atomic_fetch_add(&c->table->lock_refusals, 1);
            return false;
        }
    }
}

static void stripe_unlock(const struct limit_caller *c, _Atomic uint64_t *stripe)
{
    uint64_t me = owner_word(c);
    atomic_compare_exchange_strong(stripe, &me, 0);
}

/* ---- find ---- */

enum found { FOUND, ABSENT, MEETS_BUSY };

static enum found find(struct bucket *const b[2], uint64_t key, struct entry *e)
{
    enum found result = ABSENT;
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < WAYS; i++) {
            const uint64_t tag = atomic_load_explicit(&b[k]->tag[i], memory_order_acquire);
            if (tag == key) {
                *e = (struct entry){b[k], i};
                return FOUND;
            }
            if (tag >= BUSY_MARK) {
                *e = (struct entry){b[k], i};
                result = MEETS_BUSY;
            }
        }
    return result;
}

/* ---- create ---- */

struct victim {
    struct entry e;
    uint64_t tag;
    bool idle;
    uint64_t level; /* of a live one */
};

static uint64_t level_of(struct bucket *b, unsigned i, uint64_t now_ms)
{
    return limit_state_level(limit_state_load(&b->state[i]), atomic_load(&b->shape[i]), now_ms);
}

/* The BUSY entry of a dead owner (`dead`, 0: none), else the first idle entry in an order that
 * follows from the key, else the live one with the lowest level. false: all are in somebody's
 * hands. */
static bool choose_victim(struct bucket *const b[2], uint64_t key, uint64_t dead, uint64_t now_ms,
                          struct victim *v)
{
    const uint32_t now_s = (uint32_t)(now_ms / 1000);
    struct victim idle = {.level = UINT64_MAX}, live = {.level = UINT64_MAX};
    for (unsigned j = 0; j < 2 * WAYS; j++) {
        struct bucket *k = b[j & 1];
        const unsigned i = (unsigned)((key >> 60) + j / 2) % WAYS;
        const uint64_t tag = atomic_load(&k->tag[i]);
        if (dead && tag == dead) {
            *v = (struct victim){{k, i}, tag, false, 0};
            return true;
        }
        if (tag >= BUSY_MARK)
            continue;
        if (tag == 0 || atomic_load(&k->keep_until[i]) < now_s) {
            if (!idle.idle)
                idle = (struct victim){{k, i}, tag, true, 0};
            if (!dead)
                break;
            continue;
        }
        const uint64_t level = level_of(k, i, now_ms);
        if (level < live.level)
            live = (struct victim){{k, i}, tag, false, level};
    }
    *v = idle.idle ? idle : live;
    return v->idle || v->level != UINT64_MAX;
}

/* Remembers what is driven out of a bucket. */
static void remember_forced(struct bucket *b, uint32_t until, uint64_t level, uint32_t now_s)
{
    uint64_t was = atomic_load(&b->forced), is;
    do {
        const bool over = was >> 32 < now_s;
        const uint32_t most = over ? 0 : (uint32_t)was, last = over ? 0 : (uint32_t)(was >> 32);
        is = (uint64_t)(until > last ? until : last) << 32 | (level > UINT32_MAX ? UINT32_MAX
                                                              : level > most     ? level
                                                                                 : most);
    } while (!atomic_compare_exchange_weak(&b->forced, &was, is));
}

/* With what a newcomer begins. */
static uint64_t inherited(struct bucket *const b[2], uint32_t now_s)
{
    uint64_t level = 0;
    for (unsigned k = 0; k < 2; k++) {
        const uint64_t forced = atomic_load(&b[k]->forced);
        if (forced >> 32 >= now_s && (uint32_t)forced > level)
            level = (uint32_t)forced;
    }
    return level;
}

static bool take_over(const struct limit_caller *c, struct bucket *const pair[2],
                      const struct victim *v, uint64_t key, const struct runtime_limit *limit,
                      uint64_t now_ms)
{
    struct bucket *b = v->e.b;
    const unsigned i = v->e.i;
    const uint32_t now_s = (uint32_t)(now_ms / 1000);
    uint64_t expected = v->tag;
    if (!atomic_compare_exchange_strong(&b->tag[i], &expected, BUSY_MARK | owner_word(c)))
        return false;
    const uint32_t keep_until = atomic_load(&b->keep_until[i]);
    if (v->tag && keep_until >= now_s) {
        if (v->idle) { /* its owner has come back between */
            atomic_store(&b->tag[i], v->tag);
            return false;
        }
        remember_forced(b, keep_until, level_of(b, i, now_ms), now_s);
        atomic_fetch_add_explicit(&c->table->evicted_live, 1, memory_order_relaxed);
    }
    const uint64_t level = inherited(pair, now_s);
    atomic_store(&b->shape[i], SHAPE_MOVING);
    limit_state_overwrite(&b->state[i], limit_state_fresh(limit, now_ms, level));
    atomic_store(&b->keep_until[i], limit_keep_until(limit, now_ms));
    atomic_store(&b->shape[i], limit_shape(limit));
    atomic_store(&b->tag[i], key);
    return true;
}

/* The owner of the BUSY tag met at e, if he is dead: then it can be reclaimed. 0: he lives, or is
 * done. */
static uint64_t dead_busy(const struct limit_caller *c, struct entry e, bool thorough)
{
    const uint64_t tag = atomic_load(&e.b->tag[e.i]), owner = tag & ~BUSY_MARK;
    return tag >= BUSY_MARK && (owner == owner_word(c) || !owner_lives(c, owner, thorough)) ? tag
                                                                                            : 0;
}

/* Holds the stripe: nobody else creates this key. */
static bool create_locked(const struct limit_caller *c, struct bucket *const b[2], uint64_t key,
                          const struct runtime_limit *limit, uint64_t now_ms, struct entry *e)
{
    struct patience patience = {0};
    do {
        const enum found f = find(b, key, e);
        if (f == FOUND)
            return true;
        const uint64_t dead = f == MEETS_BUSY ? dead_busy(c, *e, patience.turns % 64 == 40) : 0;
        if (f == MEETS_BUSY && !dead)
            continue;
        struct victim v;
        if (!choose_victim(b, key, dead, now_ms, &v))
            continue;
        if (take_over(c, b, &v, key, limit, now_ms)) {
            *e = v.e;
            return true;
        }
    } while (wait_a_little(&patience));
    return false;
}

static bool create(const struct limit_caller *c, struct bucket *const b[2], uint64_t key,
                   const struct runtime_limit *limit, uint64_t now_ms, struct entry *e)
{
    _Atomic uint64_t *stripe = &c->table->stripe[(key >> 33) % STRIPES];
    if (!stripe_lock(c, stripe))
        return false;
    const bool ok = create_locked(c, b, key, limit, now_ms, e);
    stripe_unlock(c, stripe);
    return ok;
}

/* ---- units ---- */

/* The window or the algorithm has changed: what the state counts is carried over, into the newest
 * part of the new window. A death in the middle leaves SHAPE_MOVING: then the next one makes it
 * full, for the strict side. */
static bool convert(const struct limit_caller *c, struct entry e, uint64_t key,
                    const struct runtime_limit *limit, uint64_t now_ms)
{
    _Atomic uint64_t *stripe = &c->table->stripe[(key >> 33) % STRIPES];
    const uint32_t shape = limit_shape(limit);
    if (!stripe_lock(c, stripe))
        return false;
    const uint32_t old = atomic_load(&e.b->shape[e.i]);
    if (atomic_load(&e.b->tag[e.i]) == key && old != shape) {
        atomic_store(&e.b->shape[e.i], SHAPE_MOVING);
        limit_word seen = limit_state_load(&e.b->state[e.i]), mine;
        do {
            const uint64_t level =
                old == SHAPE_MOVING ? UINT64_MAX : limit_state_level(seen, old, now_ms);
            mine =
                limit_state_fresh(limit, now_ms, level > limit->requests ? limit->requests : level);
        } while (!limit_state_swap(&e.b->state[e.i], &seen, mine));
        atomic_store(&e.b->keep_until[e.i], limit_keep_until(limit, now_ms));
        atomic_store(&e.b->shape[e.i], shape);
    }
    stripe_unlock(c, stripe);
    return true;
}

/* ---- charge ---- */

static void keep(struct entry e, uint32_t until)
{
    uint32_t have = atomic_load_explicit(&e.b->keep_until[e.i], memory_order_relaxed);
    while ((int32_t)(until - have) > 0 &&
           !atomic_compare_exchange_weak(&e.b->keep_until[e.i], &have, until))
        ;
}

static bool is_still(struct entry e, uint64_t key, uint32_t shape)
{
    return atomic_load(&e.b->tag[e.i]) == key && atomic_load(&e.b->shape[e.i]) == shape;
}

/* What one limit says; charges it unless `peek`. */
static void charge_one(const struct limit_caller *c, const struct limit_charge *charge, bool peek,
                       uint64_t now_ms, struct limit_verdict *v)
{
    const struct runtime_limit *limit = charge->limit;
    const uint32_t shape = limit_shape(limit), until = limit_keep_until(limit, now_ms);
    struct patience patience = {0};
    struct bucket *b[2];
    struct entry e;
    if (charge->cost > limit->requests) {
        *v = (struct limit_verdict){.reset_ms = limit->window_ms, .retry_ms = limit->window_ms};
        return;
    }
    buckets_of(c->table, charge->key, b);
    for (;;) {
        const enum found f = find(b, charge->key, &e);
        if (f != FOUND) {
            if (f == ABSENT && peek) {
                limit_verdict_fresh(limit, charge->cost, v);
                return;
            }
            if (!create(c, b, charge->key, limit, now_ms, &e))
                break;
        }
        if (atomic_load_explicit(&e.b->shape[e.i], memory_order_acquire) != shape) {
            if (!convert(c, e, charge->key, limit, now_ms))
                break;
            if (!is_still(e, charge->key, shape)) {
                if (!wait_a_little(&patience))
                    break;
                continue;
            }
        }
        if (!peek && (int32_t)(until - atomic_load_explicit(&e.b->keep_until[e.i],
                                                            memory_order_relaxed)) > 0) {
            keep(e, until);
            if (!is_still(e, charge->key, shape))
                continue;
        }
        limit_state_charge(&e.b->state[e.i], limit, peek ? 0 : charge->cost, charge->cost, now_ms,
                           v);
        if (peek || is_still(e, charge->key, shape))
            return;
    }
    *v =
        (struct limit_verdict){.retry_ms = 1000, .reset_ms = 1000}; /* no entry to be had: strict */
}

static void refund(const struct limit_caller *c, const struct limit_charge *charge, uint64_t now_ms)
{
    struct bucket *b[2];
    struct entry e;
    buckets_of(c->table, charge->key, b);
    if (find(b, charge->key, &e) == FOUND &&
        atomic_load(&e.b->shape[e.i]) == limit_shape(charge->limit))
        limit_state_refund(&e.b->state[e.i], charge->limit, charge->cost, now_ms);
}

bool limit_charge(const struct limit_caller *caller, const struct limit_charge *charge, size_t n,
                  uint64_t now_ms, struct limit_verdict *verdict)
{
    size_t refused = n;
    for (size_t i = 0; n > 1 && i < n; i++) { /* look first: what is refused is mostly seen here */
        charge_one(caller, &charge[i], true, now_ms, &verdict[i]);
        if (!verdict[i].admitted && !charge[i].limit->dry_run)
            refused = i;
    }
    if (refused < n)
        return false;
    for (size_t i = 0; i < n; i++) {
        charge_one(caller, &charge[i], false, now_ms, &verdict[i]);
        if (verdict[i].admitted || charge[i].limit->dry_run)
            continue;
        while (i-- > 0)
            if (verdict[i].admitted) {
                refund(caller, &charge[i], now_ms);
                verdict[i].remaining += charge[i].cost;
            }
        return false;
    }
    return true;
}

void limit_peek(const struct limit_caller *caller, const struct limit_charge *charge,
                uint64_t now_ms, struct limit_verdict *verdict)
{
    charge_one(caller, charge, true, now_ms, verdict);
}

/* ---- forgetting ---- */

bool limit_reset_key(const struct limit_caller *caller, uint64_t key)
{
    struct bucket *b[2];
    struct entry e;
    buckets_of(caller->table, key, b);
    if (find(b, key, &e) != FOUND)
        return false;
    limit_state_overwrite(&e.b->state[e.i],
                          0); /* every algorithm reads zero as: nothing counted, long ago */
    return true;
}

void limit_reset_all(struct limit_table *table, uint64_t limit_id)
{
    atomic_fetch_add(&table->epoch[limit_id % EPOCHS], 1);
}

void limit_table_stats(const struct limit_table *table, uint64_t now_ms,
                       struct limit_table_stats *out)
{
    const uint32_t now_s = (uint32_t)(now_ms / 1000);
    *out = (struct limit_table_stats){.entries = (table->mask + 1) * WAYS,
                                      .evicted_live = atomic_load(&table->evicted_live),
                                      .lock_steals = atomic_load(&table->lock_steals)};
    for (uint64_t k = 0; k <= table->mask; k++)
        for (unsigned i = 0; i < WAYS; i++)
            if (atomic_load_explicit(&table->bucket[k].tag[i], memory_order_relaxed)) {
                out->used++;
                out->live += atomic_load_explicit(&table->bucket[k].keep_until[i],
                                                  memory_order_relaxed) >= now_s;
            }
}

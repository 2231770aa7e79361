/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_slots: see polder/fleet_slots.h. */
#include "polder/fleet_slots.h"
#include "libshared/limit/limit_table.h"

#include <string.h>

#define BLOCKS 10 /* of a limit, for each host */

uint64_t fleet_slots_layout(void)
{
    return (uint64_t)FLEET_SLOTS_LAYOUT << 56 | offsetof(struct fleet_slots, row) << 32 |
           sizeof(struct fleet_slots);
}

static struct fleet_slot *row_at(struct fleet_slots *p, enum fleet_slot_kind kind, uint64_t id,
                                 uint32_t i)
{
    const uint64_t home = (id * UINT64_C(0x9e3779b97f4a7c15)) >> 32;
    return &p->row[kind * FLEET_SLOT_ROWS + (home + i) % FLEET_SLOT_ROWS];
}

uint32_t fleet_slot_row(const struct fleet_slots *p, const struct fleet_slot *s)
{
    return (uint32_t)(s - p->row);
}

struct fleet_slot *fleet_slot_find(struct fleet_slots *p, enum fleet_slot_kind kind,
                                   const struct fleet_slot_key *key)
{
    const uint64_t id = fleet_slot_id(key);
    for (uint32_t i = 0; i < FLEET_SLOT_PROBES; i++) {
        struct fleet_slot *s = row_at(p, kind, id, i);
        if (atomic_load_explicit(&s->id, memory_order_acquire) == id)
            return s;
    }
    return NULL;
}

/* A row without a key belongs to the one process that claims rows now. The bit is first: what dies
 * behind it leaves a row that control looks at in vain. */
static struct fleet_slot *take_free(struct fleet_slots *p, enum fleet_slot_kind kind,
                                    const struct fleet_slot_key *key)
{
    const uint64_t id = fleet_slot_id(key);
    for (uint32_t i = 0; i < FLEET_SLOT_PROBES; i++) {
        struct fleet_slot *s = row_at(p, kind, id, i);
        if (atomic_load(&s->id))
            continue;
        const uint32_t row = fleet_slot_row(p, s);
        atomic_fetch_or(&p->occupied[row / 64], UINT64_C(1) << row % 64);
        atomic_store(&s->hash, key->hash[1]);
        atomic_store_explicit(&s->id, id, memory_order_release);
        return s;
    }
    atomic_fetch_add(&p->full, 1);
    return NULL;
}

struct fleet_slot *fleet_slot_claim(const struct limit_caller *caller, struct fleet_slots *p,
                                    const struct fleet_slot_key *key, uint64_t of, uint32_t limit)
{
    const enum fleet_slot_kind kind = caller ? FLEET_SLOT_REQUEST : FLEET_SLOT_WEBSOCKET;
    struct fleet_slot *s = fleet_slot_find(p, kind, key);
    if (!s && !caller) {
        s = take_free(p, kind, key);
    } else if (!s) {
        _Atomic uint64_t *lock = limit_stripe(caller, fleet_slot_id(key));
        if (!limit_lock(caller, lock))
            return NULL;
        s = fleet_slot_find(p, kind, key);
        s = s ? s : take_free(p, kind, key);
        limit_unlock(caller, lock);
    }
    if (s && atomic_load_explicit(&s->limit, memory_order_relaxed) != limit)
        atomic_store(&s->limit, limit);
    if (s && atomic_load_explicit(&s->of, memory_order_relaxed) != of)
        atomic_store(&s->of, of);
    return s;
}

/* ---- notes for control ---- */

static bool note(struct fleet_slots *p, unsigned queue, struct fleet_slot *s)
{
    struct fleet_slot_queue *q = &p->queue[queue];
    const uint64_t head = atomic_load_explicit(&q->head, memory_order_relaxed);
    if (atomic_exchange(&s->due, 1))
        return false;
    if (head - atomic_load_explicit(&q->tail, memory_order_acquire) >= FLEET_SLOT_ASKS) {
        atomic_store(&s->due, 0);
        return false; /* control comes by */
    }
    q->row[head % FLEET_SLOT_ASKS] = fleet_slot_row(p, s);
    atomic_store_explicit(&q->head, head + 1, memory_order_release);
    return true;
}

bool fleet_slot_ask(struct fleet_slots *p, unsigned queue, struct fleet_slot *s)
{
    atomic_store(&s->requested, 1);
    atomic_fetch_add(&s->need, 1);
    if (queue < PROC_WORKER_SLOTS)
        atomic_fetch_or(&s->waiting[queue / 64], UINT64_C(1) << queue % 64);
    /* Control looks once more behind this, and wakes whatever has its bit. */
    return note(p, queue, s);
}

bool fleet_slot_left(struct fleet_slots *p, unsigned queue, struct fleet_slot *s)
{
    const uint32_t limit = atomic_load_explicit(&s->limit, memory_order_relaxed);
    return !fleet_slots_spare(p, limit) && note(p, queue, s);
}

bool fleet_slot_next(struct fleet_slots *p, unsigned queue, uint32_t *row)
{
    struct fleet_slot_queue *q = &p->queue[queue];
    const uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    if (tail == atomic_load_explicit(&q->head, memory_order_acquire))
        return false;
    *row = q->row[tail % FLEET_SLOT_ASKS] % (FLEET_SLOT_KINDS * FLEET_SLOT_ROWS);
    atomic_store_explicit(&q->tail, tail + 1, memory_order_release);
    return true;
}

bool fleet_slot_each(const struct fleet_slots *p, uint32_t *row)
{
    for (uint32_t at = *row; at < FLEET_SLOT_KINDS * FLEET_SLOT_ROWS;) {
        const uint64_t bits = atomic_load(&p->occupied[at / 64]) >> at % 64;
        if (bits) {
            *row = at + (uint32_t)__builtin_ctzll(bits);
            return true;
        }
        at = (at / 64 + 1) * 64;
    }
    return false;
}

uint32_t fleet_slots_spare(const struct fleet_slots *p, uint32_t limit)
{
    const uint32_t hosts = atomic_load_explicit(&p->hosts, memory_order_relaxed);
    return limit / (BLOCKS * (hosts ? hosts : 1));
}

uint32_t fleet_slots_block(const struct fleet_slots *p, uint32_t limit)
{
    const uint32_t spare = fleet_slots_spare(p, limit);
    return spare ? spare : 1;
}

/* ---- what is held, and used ---- */

static uint64_t slot_word(uint32_t held, uint32_t used)
{
    return (uint64_t)held << 32 | used;
}

bool fleet_slot_use(struct fleet_slot *s)
{
    uint64_t seen = atomic_load(&s->word);
    do {
        if (seen >> 32 <= (uint32_t)seen)
            return false;
    } while (!atomic_compare_exchange_strong(&s->word, &seen, seen + 1));
    fleet_slot_entered(s);
    return true;
}

void fleet_slot_use_anyway(struct fleet_slot *s)
{
    atomic_fetch_add(&s->word, 1);
}

void fleet_slot_end(struct fleet_slot *s)
{
    uint64_t seen = atomic_load(&s->word);
    while ((uint32_t)seen && !atomic_compare_exchange_strong(&s->word, &seen, seen - 1))
        ;
}

void fleet_slot_count(struct fleet_slot *s, uint32_t used)
{
    uint64_t seen = atomic_load(&s->word);
    while (
        !atomic_compare_exchange_strong(&s->word, &seen, slot_word((uint32_t)(seen >> 32), used)))
        ;
}

uint32_t fleet_slot_in_use(const struct limit_caller *caller, struct fleet_slots *p, uint32_t row)
{
    const struct fleet_slot *s = &p->row[row];
    return fleet_slot_kind_of(row) == FLEET_SLOT_REQUEST ? limit_inside(caller, atomic_load(&s->id))
                                                         : fleet_slot_used(s);
}

static uint32_t lower_websockets(struct fleet_slot *s, uint32_t to)
{
    uint64_t seen = atomic_load(&s->word);
    uint32_t held;
    do {
        held = to < (uint32_t)seen ? (uint32_t)seen : to;
    } while (!atomic_compare_exchange_strong(&s->word, &seen, slot_word(held, (uint32_t)seen)));
    return held;
}

uint32_t fleet_slot_lower(const struct limit_caller *caller, struct fleet_slots *p, uint32_t row,
                          uint32_t to)
{
    struct fleet_slot *s = &p->row[row];
    if (fleet_slot_kind_of(row) == FLEET_SLOT_WEBSOCKET)
        return lower_websockets(s, to);
    const uint64_t id = atomic_load(&s->id);
    _Atomic uint64_t *lock = limit_stripe(caller, id);
    if (!limit_lock(caller, lock))
        return fleet_slot_held(s);
    const uint32_t used = limit_inside(caller, id);
    to = to < used ? used : to;
    atomic_store(&s->word, slot_word(to, 0));
    limit_unlock(caller, lock);
    return to;
}

void fleet_slot_raise(struct fleet_slots *p, uint32_t row, uint32_t by)
{
    atomic_fetch_add(&p->row[row].word, slot_word(by, 0));
}

static void empty(struct fleet_slots *p, uint32_t row)
{
    struct fleet_slot *s = &p->row[row];
    atomic_store(&s->need, 0);
    atomic_store(&s->requested, 0);
    atomic_store(&s->due, 0);
    atomic_store(&s->refused_until_ms, 0);
    s->used_ms = s->grown_ms = 0;
    s->reported = s->grow = 0;
    s->expected = atomic_load(&s->entered);
    atomic_fetch_and(&p->occupied[row / 64], ~(UINT64_C(1) << row % 64));
    atomic_store(&s->id, 0); /* last: from now on another key may have it */
}

void fleet_slot_free(const struct limit_caller *caller, struct fleet_slots *p, uint32_t row)
{
    struct fleet_slot *s = &p->row[row];
    if (fleet_slot_kind_of(row) == FLEET_SLOT_WEBSOCKET) {
        if (!atomic_load(&s->word))
            empty(p, row);
        return;
    }
    const uint64_t id = atomic_load(&s->id);
    _Atomic uint64_t *lock = limit_stripe(caller, id);
    if (!limit_lock(caller, lock))
        return;
    if (!atomic_load(&s->word) && !limit_inside(caller, id))
        empty(p, row);
    limit_unlock(caller, lock);
}

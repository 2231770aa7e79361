/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_enter: requests in flight per key, counted per process.
 *
 * Each process counts its own in its row, as the only writer there; the sum over the rows
 * of living processes is taken under the key's lock, so that two requests for the last place are
 * serialised. There is no total that a death could leave wrong: a row counts while its owner's
 * incarnation is that of the process slot.
 */
#include "libshared/limit/limit_table.h"
#include <string.h>

#define COUNT_MASK ((UINT64_C(1) << LIMIT_CELL_COUNT_BITS) - 1)

static uint64_t cell_tag(uint64_t key)
{
    const uint64_t tag = key >> LIMIT_CELL_COUNT_BITS;
    return tag ? tag : 1;
}

/* From bits that the tag has too, but mixed: the low ones have chosen nothing yet. */
static _Atomic uint64_t *row_group(struct limit_row *row, uint64_t key)
{
    return row->cell[key % LIMIT_ROW_GROUPS];
}

/* The key's cell, or a free one, or NULL. */
static _Atomic uint64_t *group_find(_Atomic uint64_t *group, uint64_t tag, bool or_free)
{
    _Atomic uint64_t *vacant = NULL;
    for (unsigned i = 0; i < LIMIT_ROW_CELLS; i++) {
        const uint64_t cell = atomic_load_explicit(&group[i], memory_order_relaxed);
        if (cell >> LIMIT_CELL_COUNT_BITS == tag)
            return &group[i];
        if (cell == 0 && !vacant)
            vacant = &group[i];
    }
    return or_free ? vacant : NULL;
}

static bool row_counts(const struct limit_caller *c, uint32_t slot)
{
    const uint32_t owner = atomic_load_explicit(&c->table->row_owner[slot], memory_order_acquire);
    return owner != 0 && !limit_owner_is_dead(c->proc, slot, owner, false);
}

static uint64_t inside(const struct limit_caller *c, uint64_t key)
{
    uint64_t sum = 0;
    for (uint32_t slot = 0; slot < PROC_SLOTS; slot++) {
        if (!row_counts(c, slot))
            continue;
        _Atomic uint64_t *cell =
            group_find(row_group(limit_table_row(c->table, slot), key), cell_tag(key), false);
        if (cell) {
            const uint64_t now = atomic_load_explicit(cell, memory_order_acquire);
            sum += now >> LIMIT_CELL_COUNT_BITS == cell_tag(key) ? now & COUNT_MASK : 0;
        }
    }
    return sum;
}

/* A predecessor's counts are cleared before the row is ours: it is ignored meanwhile. */
static void row_claim(const struct limit_caller *c)
{
    _Atomic uint32_t *owner = &c->table->row_owner[c->slot];
    if (atomic_load_explicit(owner, memory_order_relaxed) == c->incarnation)
        return;
    atomic_store(owner, 0);
    struct limit_row *row = limit_table_row(c->table, c->slot);
    for (unsigned g = 0; g < LIMIT_ROW_GROUPS; g++)
        for (unsigned i = 0; i < LIMIT_ROW_CELLS; i++)
            if (atomic_load_explicit(&row->cell[g][i], memory_order_relaxed))
                atomic_store_explicit(&row->cell[g][i], 0, memory_order_relaxed);
    atomic_store(owner, c->incarnation);
}

uint32_t limit_inside(const struct limit_caller *c, uint64_t key)
{
    const uint64_t n = inside(c, key);
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static uint32_t lower_of(uint64_t key, uint32_t max, const _Atomic uint64_t *owner,
                         const _Atomic uint64_t *word)
{
    const uint32_t held = atomic_load(owner) == key ? (uint32_t)(atomic_load(word) >> 32) : 0;
    return held < max ? held : max;
}

bool limit_enter(const struct limit_caller *c, uint64_t key, uint32_t max)
{
    return limit_enter_held(c, key, max, NULL, NULL);
}

bool limit_enter_held(const struct limit_caller *c, uint64_t key, uint32_t max,
                      const _Atomic uint64_t *held_for, const _Atomic uint64_t *word)
{
    _Atomic uint64_t *lock = limit_stripe(c, key);
    bool entered = false;
    row_claim(c);
    _Atomic uint64_t *cell =
        group_find(row_group(limit_table_row(c->table, c->slot), key), cell_tag(key), true);
    if (!cell) {
        atomic_fetch_add_explicit(&c->table->rows_full, 1, memory_order_relaxed);
        return false;
    }
    if (!limit_lock(c, lock))
        return false;
    const uint64_t count = atomic_load_explicit(cell, memory_order_relaxed) & COUNT_MASK;
    if (word)
        max = lower_of(key, max, held_for, word);
    if (count < COUNT_MASK && inside(c, key) < max) {
        atomic_store_explicit(cell, cell_tag(key) << LIMIT_CELL_COUNT_BITS | (count + 1),
                              memory_order_release);
        entered = true;
    }
    limit_unlock(c, lock);
    return entered;
}

void limit_leave(const struct limit_caller *c, uint64_t key)
{
    if (atomic_load_explicit(&c->table->row_owner[c->slot], memory_order_relaxed) != c->incarnation)
        return;
    _Atomic uint64_t *cell =
        group_find(row_group(limit_table_row(c->table, c->slot), key), cell_tag(key), false);
    if (!cell)
        return;
    const uint64_t now = atomic_load_explicit(cell, memory_order_relaxed);
    atomic_store_explicit(cell, (now & COUNT_MASK) > 1 ? now - 1 : 0, memory_order_release);
}

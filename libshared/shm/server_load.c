/* SPDX-License-Identifier: BSD-2-Clause */
/* server_load: see server_load.h. */
#include "polder/server_load.h"

#include <stddef.h>

/* ---- rows ---- */

static uint32_t loads_used(const struct server_table *table)
{
    const uint32_t n = atomic_load_explicit(&table->loads, memory_order_acquire);
    return n < SERVER_LOADS ? n : SERVER_LOADS;
}

/* Others look at its row from now on. */
static void use_slot(struct server_table *table, uint32_t slot)
{
    uint32_t n = atomic_load(&table->loads);
    while (n <= slot && !atomic_compare_exchange_weak(&table->loads, &n, slot + 1))
        ;
}

void server_load_open(struct server_loads *l, struct server_table *table,
                      const struct server_row *row, uint32_t slot, struct server_load *own)
{
    *l = (struct server_loads){.own = own, .slot = slot};
    if (!table || row < table->row || row >= table->row + SERVER_ROWS || slot >= SERVER_LOADS)
        return;
    l->table = table;
    l->index = (uint32_t)(row - table->row);
    l->own = &table->load[slot][l->index];
    use_slot(table, slot);
}

void server_load_look(struct server_loads *l, struct server_table *table,
                      const struct server_row *row)
{
    *l = (struct server_loads){0};
    if (!row)
        return;
    l->table = table;
    l->index = (uint32_t)(row - table->row);
}

void server_load_clear(struct server_table *table, uint32_t slot)
{
    for (uint32_t i = 0; i < SERVER_ROWS && slot < SERVER_LOADS; i++) {
        struct server_load *at = &table->load[slot][i];
        if (!atomic_load(&at->busy) && !atomic_load(&at->requests) && !atomic_load(&at->retries) &&
            !atomic_load(&at->waiting) && !atomic_load(&at->waits_since_ms))
            continue;
        atomic_store(&at->busy, 0);
        atomic_store(&at->requests, 0);
        atomic_store(&at->retries, 0);
        atomic_store(&at->waiting, 0);
        atomic_store(&at->waits_since_ms, 0);
    }
}

/* ---- counts ---- */

/* at: offset of the count in struct server_load. */
static _Atomic uint32_t *count_of(struct server_load *load, size_t at)
{
    return (_Atomic uint32_t *)(void *)((char *)load + at);
}

static uint32_t sum_of(const struct server_loads *l, size_t at)
{
    if (!l->table)
        return atomic_load(count_of(l->own, at));
    uint32_t sum = 0;
    const uint32_t n = loads_used(l->table);
    for (uint32_t i = 0; i < n; i++)
        sum += atomic_load(count_of(&l->table->load[i][l->index], at));
    return sum;
}

static void add_one(const struct server_loads *l, size_t at)
{
    atomic_fetch_add(count_of(l->own, at), 1);
}

/* The master may have cleared the row of a process that it takes for dead. */
static void take_one(const struct server_loads *l, size_t at)
{
    _Atomic uint32_t *count = count_of(l->own, at);
    const uint32_t n = atomic_load_explicit(count, memory_order_relaxed);
    if (n)
        atomic_store(count, n - 1);
}

#define COUNT(member) offsetof(struct server_load, member)

uint32_t server_load_busy(const struct server_loads *l)
{
    return sum_of(l, COUNT(busy));
}

bool server_load_enter(const struct server_loads *l, uint32_t max)
{
    add_one(l, COUNT(busy));
    if (!max || sum_of(l, COUNT(busy)) <= max)
        return true;
    take_one(l, COUNT(busy));
    return false;
}

void server_load_leave(const struct server_loads *l)
{
    take_one(l, COUNT(busy));
}

void server_load_begin(const struct server_loads *l)
{
    add_one(l, COUNT(requests));
}

void server_load_end(const struct server_loads *l)
{
    take_one(l, COUNT(requests));
}

static uint32_t server_load_requests(const struct server_loads *l)
{
    return sum_of(l, COUNT(requests));
}

uint32_t server_load_retries(const struct server_loads *l)
{
    return sum_of(l, COUNT(retries));
}

bool server_load_retry(const struct server_loads *l, uint32_t percent)
{
    add_one(l, COUNT(retries));
    const uint64_t share = (uint64_t)server_load_requests(l) * percent / 100;
    if (server_load_retries(l) <= SERVER_RETRIES_FREE + share)
        return true;
    take_one(l, COUNT(retries));
    return false;
}

void server_load_retried(const struct server_loads *l)
{
    take_one(l, COUNT(retries));
}

bool server_load_wait(const struct server_loads *l, uint32_t max)
{
    add_one(l, COUNT(waiting));
    if (sum_of(l, COUNT(waiting)) <= max)
        return true;
    take_one(l, COUNT(waiting));
    return false;
}

void server_load_waited(const struct server_loads *l)
{
    take_one(l, COUNT(waiting));
}

void server_load_waits_since(const struct server_loads *l, uint64_t since_ms)
{
    atomic_store(&l->own->waits_since_ms, since_ms);
}

uint64_t server_load_oldest(const struct server_loads *l, uint32_t *slot)
{
    uint64_t oldest = l->table ? 0 : atomic_load(&l->own->waits_since_ms);
    const uint32_t n = l->table ? loads_used(l->table) : 0;
    *slot = l->slot;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t since_ms = atomic_load(&l->table->load[i][l->index].waits_since_ms);
        if (since_ms && (!oldest || since_ms < oldest)) {
            oldest = since_ms;
            *slot = i;
        }
    }
    return oldest;
}

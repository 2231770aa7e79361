/* SPDX-License-Identifier: BSD-2-Clause */
/* limit_top: lists with one writer each, read by any process; see limit_top.h. */
#include "polder/limit_top.h"
#include "libshared/limit/limit_table.h"
#include <stdlib.h>
#include <string.h>

#define HALVE_MS 60000

/* ---- where they are ---- */

static struct limit_sketch *sketch_of(const struct limit_table *table, uint32_t slot,
                                      uint32_t place)
{
    struct limit_table *t = (struct limit_table *)(uintptr_t)table;
    struct limit_sketch *first = (struct limit_sketch *)(void *)limit_table_row(t, PROC_SLOTS);
    return &first[(size_t)slot * LIMIT_TOP_LISTS + place];
}

/* What a sketch's epoch is when its rows are of the list. */
static uint32_t epoch_of(const struct limit_table *table, struct limit_top_list list)
{
    return atomic_load(&table->top_epoch[list.place]) + (uint32_t)(list.id ^ list.id >> 32);
}

/* ---- rows: an odd version says that one is being written, or that its writer was killed ---- */

static void row_open(struct limit_sketch_row *row)
{
    const uint32_t version = atomic_load_explicit(&row->version, memory_order_relaxed);
    atomic_store_explicit(&row->version, version | 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static void row_close(struct limit_sketch_row *row)
{
    const uint32_t version = atomic_load_explicit(&row->version, memory_order_relaxed);
    atomic_store_explicit(&row->version, version + 1, memory_order_release);
}

static void row_put(struct limit_sketch_row *row, uint64_t key, uint64_t count, uint64_t error)
{
    atomic_store_explicit(&row->key, key, memory_order_relaxed);
    atomic_store_explicit(&row->count, count, memory_order_relaxed);
    atomic_store_explicit(&row->error, error, memory_order_relaxed);
}

static uint64_t row_count(const struct limit_sketch_row *row)
{
    return atomic_load_explicit(&row->count, memory_order_relaxed);
}

static bool row_read(const struct limit_sketch_row *row, struct limit_top_row *out)
{
    const uint32_t version = atomic_load_explicit(&row->version, memory_order_acquire);
    out->key = atomic_load_explicit(&row->key, memory_order_relaxed);
    out->requests = row_count(row);
    out->error = atomic_load_explicit(&row->error, memory_order_relaxed);
    out->who_len = row->who_len;
    memcpy(out->who, row->who, sizeof out->who);
    atomic_thread_fence(memory_order_acquire);
    return version % 2 == 0 && out->requests &&
           atomic_load_explicit(&row->version, memory_order_relaxed) == version;
}

/* ---- the writer ---- */

void limit_top_rearm(struct limit_top_sampler *s)
{
    s->weight = s->next ? s->next : 1;
    if (s->spent < LIMIT_TOP_EXACT) {
        s->spent++;
        s->next = 1;
        return; /* the next one too */
    }
    uint32_t x = s->random ? s->random : UINT32_C(2463534242);
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    s->random = x;
    s->next = LIMIT_TOP_SAMPLE;
    s->left =
        (x >> 8) % (2 * LIMIT_TOP_SAMPLE - 1); /* with this one, LIMIT_TOP_SAMPLE on average */
}

static void sketch_halve(struct limit_sketch *k, uint64_t now_ms)
{
    const uint64_t minutes = (now_ms - k->halved_ms) / HALVE_MS;
    const unsigned shift = minutes < 63 ? (unsigned)minutes : 63;
    k->halved_ms += minutes * HALVE_MS;
    for (unsigned i = 0; i < 2 * LIMIT_TOP_ROWS; i++) {
        struct limit_sketch_row *row = &k->row[i / LIMIT_TOP_ROWS][i % LIMIT_TOP_ROWS];
        row_open(row);
        row_put(row, row->key, row_count(row) >> shift, row->error >> shift);
        row_close(row);
    }
}

/* A predecessor's rows stay, but for one that it was killed in. */
static void sketch_adopt(const struct limit_caller *c, struct limit_sketch *k, uint32_t epoch,
                         uint64_t now_ms)
{
    const bool forget = atomic_load(&k->epoch) != epoch;
    if (!forget && k->incarnation == c->incarnation)
        return;
    for (unsigned i = 0; i < 2 * LIMIT_TOP_ROWS; i++) {
        struct limit_sketch_row *row = &k->row[i / LIMIT_TOP_ROWS][i % LIMIT_TOP_ROWS];
        if (!forget && atomic_load(&row->version) % 2 == 0)
            continue;
        row_open(row);
        row_put(row, 0, 0, 0);
        row_close(row);
    }
    if (forget || k->halved_ms == 0)
        k->halved_ms = now_ms;
    atomic_store(&k->epoch, epoch);
    k->incarnation = c->incarnation;
}

/* Space-Saving: a new key replaces the row with the lowest count and inherits the count, which may
 * be all error. */
static void list_note(struct limit_sketch_row *list, uint64_t key, const void *who, size_t len,
                      uint32_t weight)
{
    struct limit_sketch_row *row = &list[0];
    for (unsigned i = 0; i < LIMIT_TOP_ROWS; i++) {
        if (list[i].key == key && row_count(&list[i])) {
            atomic_store_explicit(&list[i].count, row_count(&list[i]) + weight,
                                  memory_order_relaxed);
            return;
        }
        if (row_count(&list[i]) < row_count(row))
            row = &list[i];
    }
    const uint64_t min = row_count(row);
    row_open(row);
    row_put(row, key, min + weight, min);
    row->who_len = len > UINT32_MAX ? UINT32_MAX : (uint32_t)len;
    memcpy(row->who, who, len < sizeof row->who ? len : sizeof row->who);
    row_close(row);
}

void limit_top_note(const struct limit_caller *c, struct limit_top_list list, uint64_t key,
                    const void *who, size_t len, bool refused, uint32_t weight, uint64_t now_ms)
{
    if (list.place >= LIMIT_TOP_LISTS || c->slot >= PROC_SLOTS)
        return;
    struct limit_sketch *k = sketch_of(c->table, c->slot, list.place);
    sketch_adopt(c, k, epoch_of(c->table, list), now_ms);
    if (now_ms >= k->halved_ms + HALVE_MS)
        sketch_halve(k, now_ms);
    list_note(k->row[LIMIT_TOP_HEAVIEST], key, who, len, weight);
    if (refused)
        list_note(k->row[LIMIT_TOP_REFUSED], key, who, len, weight);
}

void limit_top_forget(struct limit_table *table, uint32_t place)
{
    if (place < LIMIT_TOP_LISTS)
        atomic_fetch_add(&table->top_epoch[place], 1);
}

/* ---- the reader ---- */

static int by_key(const void *a, const void *b)
{
    const struct limit_top_row *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

static int by_requests(const void *a, const void *b)
{
    const struct limit_top_row *x = a, *y = b;
    return x->requests > y->requests ? -1 : x->requests < y->requests;
}

static size_t rows_collect(const struct limit_table *table, struct limit_top_list list,
                           enum limit_top_by by, struct limit_top_row *out)
{
    const uint32_t epoch = epoch_of(table, list);
    size_t n = 0;
    for (uint32_t slot = 0; slot < PROC_SLOTS; slot++) {
        const struct limit_sketch *k = sketch_of(table, slot, list.place);
        const size_t before = n;
        if (atomic_load(&k->epoch) != epoch)
            continue;
        for (unsigned i = 0; i < LIMIT_TOP_ROWS; i++)
            n += row_read(&k->row[by][i], &out[n]);
        if (atomic_load(&k->epoch) != epoch) /* another list by now */
            n = before;
    }
    return n;
}

size_t limit_top_read(const struct limit_table *table, struct limit_top_list list,
                      enum limit_top_by by, struct limit_top_row *rows, size_t max)
{
    if (list.place >= LIMIT_TOP_LISTS)
        return 0;
    struct limit_top_row *all = malloc((size_t)PROC_SLOTS * LIMIT_TOP_ROWS * sizeof *all);
    if (!all)
        return 0;
    const size_t n = rows_collect(table, list, by, all);
    size_t clients = 0;
    qsort(all, n, sizeof *all, by_key);
    for (size_t i = 0; i < n; i++) {
        if (clients && all[clients - 1].key == all[i].key) {
            all[clients - 1].requests += all[i].requests;
            all[clients - 1].error += all[i].error;
        } else {
            all[clients++] = all[i];
        }
    }
    qsort(all, clients, sizeof *all, by_requests);
    clients = clients < max ? clients : max;
    memcpy(rows, all, clients * sizeof *rows);
    free(all);
    return clients;
}

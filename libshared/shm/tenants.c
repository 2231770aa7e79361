/* SPDX-License-Identifier: BSD-2-Clause */
/* tenants: see tenants.h. */
#include "polder/tenants.h"
#include "polder/recent.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define PROBES 32

struct tenants_page {
    _Atomic uint64_t by;   /* control; 0: tenants are not counted */
    _Atomic uint32_t used; /* rows with an id; any worker adds, control corrects */
    struct {
        _Alignas(64) _Atomic uint64_t id; /* 0: free; any worker, compare and swap */
        _Atomic uint32_t named;           /* 1: name is valid; set by the claimer of the row */
        char name[TENANTS_NAME];
    } row[TENANTS_ROWS];
    /* the owner of the slot adds; relaxed */
    _Alignas(128) _Atomic uint64_t count[PROC_SLOTS][TENANTS_ROWS + 1][TENANTS_COUNTS];
};

size_t tenants_page_size(void)
{
    return sizeof(struct tenants_page);
}

/* ---- control ---- */

void tenants_begin(struct tenants_page *page, uint64_t by)
{
    if (atomic_load(&page->by) == by)
        return;
    atomic_store(&page->by, 0);
    for (size_t i = 0; i < TENANTS_ROWS; i++) {
        atomic_store(&page->row[i].id, 0);
        atomic_store(&page->row[i].named, 0);
    }
    for (size_t slot = 0; slot < PROC_SLOTS; slot++)
        for (size_t i = 0; i <= TENANTS_ROWS; i++)
            for (int k = 0; k < TENANTS_COUNTS; k++)
                if (atomic_load(&page->count[slot][i][k])) /* or all pages would come to be */
                    atomic_store(&page->count[slot][i][k], 0);
    atomic_store(&page->used, 0);
    atomic_store(&page->by, by);
}

void tenants_recount(struct tenants_page *page)
{
    uint32_t n = 0;
    if (!atomic_load(&page->by))
        return;
    for (size_t i = 0; i < TENANTS_ROWS; i++)
        n += atomic_load_explicit(&page->row[i].id, memory_order_relaxed) != 0;
    atomic_store(&page->used, n);
}

/* ---- workers ---- */

static bool take_place(struct tenants_page *page)
{
    if (atomic_load_explicit(&page->used, memory_order_relaxed) >= TENANTS_MAX)
        return false;
    if (atomic_fetch_add(&page->used, 1) < TENANTS_MAX)
        return true;
    atomic_fetch_sub(&page->used, 1);
    return false;
}

/* False: another process was faster. */
static bool row_claim(struct tenants_page *page, uint32_t i, uint64_t id, struct str value,
                      bool secret)
{
    uint64_t none = 0;
    if (!atomic_compare_exchange_strong(&page->row[i].id, &none, id)) {
        atomic_fetch_sub(&page->used, 1);
        return none == id;
    }
    if (secret)
        recent_mask_key(page->row[i].name, TENANTS_NAME, value, id);
    else
        recent_text(page->row[i].name, TENANTS_NAME, value);
    atomic_store_explicit(&page->row[i].named, 1, memory_order_release);
    return true;
}

uint32_t tenants_row(struct tenants_page *page, uint64_t by, struct str value, bool secret)
{
    if (atomic_load_explicit(&page->by, memory_order_relaxed) != by || !by || !value.len)
        return TENANTS_NONE;
    const uint64_t id = XXH3_64bits_withSeed(value.at, value.len, by) | 1;
    for (uint32_t n = 0; n < PROBES; n++) {
        const uint32_t i = ((uint32_t)(id >> 32) + n) & (TENANTS_ROWS - 1);
        const uint64_t there = atomic_load_explicit(&page->row[i].id, memory_order_relaxed);
        if (there == id)
            return i;
        if (there)
            continue;
        if (!take_place(page))
            return TENANTS_OTHER;
        if (row_claim(page, i, id, value, secret))
            return i;
    }
    return TENANTS_OTHER;
}

void tenants_add(struct tenants_page *page, uint32_t slot, uint32_t row, enum tenants_count what)
{
    if (row > TENANTS_OTHER || slot >= PROC_SLOTS)
        return;
    _Atomic uint64_t *word = &page->count[slot][row][what];
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* ---- readers ---- */

static void put_name(const struct tenants_page *page, uint32_t i, uint64_t id, struct tenant *t)
{
    if (i == TENANTS_OTHER)
        t->name[0] = 0;
    else if (atomic_load_explicit(&page->row[i].named, memory_order_acquire))
        recent_text(t->name, sizeof t->name,
                    (struct str){page->row[i].name, strnlen(page->row[i].name, TENANTS_NAME - 1)});
    else
        snprintf(t->name, sizeof t->name, "~%016llx", (unsigned long long)id);
}

size_t tenants_read(const struct tenants_page *page, struct tenant *out)
{
    size_t n = 0;
    if (!atomic_load(&page->by))
        return 0;
    for (uint32_t i = 0; i <= TENANTS_OTHER; i++) {
        const uint64_t id = i < TENANTS_ROWS ? atomic_load(&page->row[i].id) : 1;
        uint64_t sum = 0;
        if (!id)
            continue;
        struct tenant *t = &out[n];
        *t = (struct tenant){.row = i};
        for (size_t slot = 0; slot < PROC_SLOTS; slot++)
            for (int k = 0; k < TENANTS_COUNTS; k++)
                t->count[k] += atomic_load_explicit(&page->count[slot][i][k], memory_order_relaxed);
        for (int k = 0; k < TENANTS_COUNTS; k++)
            sum += t->count[k];
        put_name(page, i, id, t);
        n += sum != 0;
    }
    return n;
}

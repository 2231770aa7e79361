/* SPDX-License-Identifier: BSD-2-Clause */
/* limit_try: see limit_try.h. */
#include "polder/limit_try.h"
#include "polder/limit_top.h"
#include "polder/stats.h"

#include <errno.h>
#include <string.h>

_Static_assert(LIMIT_TOP_TRY + LIMIT_TRY_SLOTS == LIMIT_TOP_LISTS, "a list for each slot");

/* ---- control ---- */

int limit_try_find(const struct limit_try_board *board, uint64_t limit_id)
{
    for (int i = 0; i < LIMIT_TRY_SLOTS; i++)
        if (atomic_load(&board->slot[i].run) && board->slot[i].terms.limit_id == limit_id)
            return i;
    return -1;
}

static int find_room(const struct limit_try_board *board, uint64_t now_ms)
{
    int oldest = -EBUSY;
    for (int i = 0; i < LIMIT_TRY_SLOTS; i++) {
        const struct limit_try *t = &board->slot[i];
        if (atomic_load(&t->run) == 0)
            return i;
        if (t->terms.until_ms <= now_ms &&
            (oldest < 0 || t->terms.until_ms < board->slot[oldest].terms.until_ms))
            oldest = i;
    }
    return oldest;
}

int limit_try_begin(struct limit_try_board *board, struct limit_table *table,
                    const struct limit_try_terms *terms)
{
    int i = limit_try_find(board, terms->limit_id);
    if (i < 0)
        i = find_room(board, terms->started_ms);
    if (i < 0)
        return i;
    struct limit_try *t = &board->slot[i];
    const uint64_t run = atomic_fetch_add(&board->runs, 1) + 1;
    atomic_store(&t->run, 0);
    atomic_thread_fence(memory_order_release); /* a concurrent reader sees that it is gone */
    t->terms = *terms;
    atomic_store(&t->ended, 0);
    limit_top_forget(table, LIMIT_TOP_TRY + (uint32_t)i);
    atomic_store(&t->run, run);
    return i;
}

void limit_try_counts(const struct limit_try *t, struct limit_try_counts *out)
{
    const uint64_t run = atomic_load(&t->run);
    *out = (struct limit_try_counts){0};
    for (unsigned i = 0; i < PROC_SLOTS; i++) {
        const struct limit_try_row *row = &t->row[i];
        if (atomic_load_explicit(&row->run, memory_order_acquire) != run)
            continue;
        out->requests += atomic_load_explicit(&row->requests, memory_order_relaxed);
        out->live_refused += atomic_load_explicit(&row->live_refused, memory_order_relaxed);
        out->refused += atomic_load_explicit(&row->refused, memory_order_relaxed);
    }
}

/* ---- workers ---- */

uint64_t limit_try_read(const struct limit_try *t, uint64_t now_ms, struct limit_try_terms *out)
{
    const uint64_t run = atomic_load_explicit(&t->run, memory_order_acquire);
    if (run == 0)
        return 0;
    memcpy(out, &t->terms, sizeof *out);
    atomic_thread_fence(memory_order_acquire);
    const bool same = atomic_load_explicit(&t->run, memory_order_relaxed) == run;
    return same && now_ms < out->until_ms ? run : 0; /* else a new generation is about to come */
}

uint64_t limit_try_key(const struct limit_table *table, uint64_t run, uint64_t key)
{
    return limit_key(table, run * UINT64_C(0x9e3779b97f4a7c15), &key, sizeof key);
}

/* The row is ignored while it is not the run's. */
static void row_begin(struct limit_try_row *row, uint64_t run)
{
    atomic_store(&row->run, 0);
    atomic_store(&row->requests, 0);
    atomic_store(&row->live_refused, 0);
    atomic_store(&row->refused, 0);
    atomic_store(&row->run, run);
}

bool limit_try_add(struct limit_try *t, uint64_t run, uint32_t process,
                   const struct limit_try_counts *more)
{
    struct limit_try_row *row = &t->row[process];
    if (atomic_load_explicit(&t->run, memory_order_relaxed) != run)
        return false;
    if (atomic_load_explicit(&row->run, memory_order_relaxed) != run)
        row_begin(row, run);
    stats_bump(&row->requests, more->requests);
    stats_bump(&row->live_refused, more->live_refused);
    stats_bump(&row->refused, more->refused);
    return true;
}

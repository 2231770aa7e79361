/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit_kept: the table of an earlier run.
 *
 * All its processes are dead, at whatever instruction: their locks are free, their entries that
 * were changing hands are orphans, as limit_table.h has it, and requests in flight are none. Every
 * other word and state is one atomic unit, so each is whole; what could not have been written by a
 * process (a time that is too far ahead, a state of no known format) is damage, and dropped.
 */
#include "polder/limit.h"
#include "libshared/limit/limit_table.h"
#include <unistd.h>

#define AHEAD_UNITS 1    /* clocks of processes differ by less */
#define AHEAD_MS    5000 /* ... where no unit is known */
/* An entry is kept for six fifths of its window, and an eighth longer. */
#define KEPT_MAX_S (WINDOW_MAX_MS / 1000 * 27 / 20 + 4)

/* A word that is busy with a process that never was. */
#define ORPHAN                                                                                     \
    (LIMIT_TAG_BUSY << LIMIT_UNTIL_BITS | (uint64_t)PROC_SLOT_MASTER << LIMIT_BUSY_INCARNATION_BITS)

static const char *formats_fault(struct limit_table *table)
{
    for (uint32_t i = 0; i < LIMIT_FORMATS; i++) {
        const uint64_t value = atomic_load(&table->formats[i]), window_ms = value >> 3;
        if (value && (!(value & 1) || (value >> 1 & 3) > RUNTIME_GCRA || !window_ms ||
                      window_ms > WINDOW_MAX_MS))
            return "it names an algorithm that there is not";
    }
    return NULL;
}

static bool has_secret(const struct limit_table *table)
{
    uint8_t any = 0;
    for (size_t i = 0; i < sizeof table->secret; i++)
        any |= table->secret[i];
    return any != 0;
}

/* Whether a process can have written that state by now. */
static bool state_can_be(const struct limit_table *table, limit_word state, uint64_t now_ms)
{
    struct limit_rule r = {.format = limit_format_of(state)};
    if (state == 0)
        return true;
    const uint64_t value = atomic_load(&table->formats[r.format]);
    if (r.format == 0 || value == 0)
        return false;
    rule_fill(&r, (uint32_t)(value >> 1 & 3), value >> 3, 0, now_ms);
    if (r.algorithm != RUNTIME_GCRA)
        return units_behind(&r, state) >= -AHEAD_UNITS;
    return gcra_passed(&r, state) >= -AHEAD_MS;
}

static bool until_can_be(uint64_t word, uint64_t now_s)
{
    return !limit_word_lives(word, now_s) || ((word - now_s) & LIMIT_UNTIL_MASK) <= KEPT_MAX_S;
}

static void entry_mend(const struct limit_table *table, struct limit_bucket *b, unsigned i,
                       uint64_t now_ms)
{
    const uint64_t word = atomic_load_explicit(&b->word[i], memory_order_relaxed);
    const bool orphan = limit_word_is_busy(word);
    if (word == 0 && b->state[i] == 0)
        return;
    if (word == 0 || !state_can_be(table, b->state[i], now_ms) ||
        (!orphan && !until_can_be(word, now_ms / 1000))) {
        b->state[i] = 0;
        atomic_store(&b->word[i], 0);
    } else if (orphan) {
        atomic_store(&b->word[i], ORPHAN);
    }
}

static void page_mend(struct limit_table *table, uint64_t page, uint64_t now_ms)
{
    for (unsigned k = 0; k < LIMIT_PAGE_BUCKETS; k++)
        for (unsigned i = 0; i < LIMIT_WAYS; i++)
            entry_mend(table, &table->page[page].bucket[k], i, now_ms);
}

/* Pages from `page` on that were ever written; *end: the first one that was not. */
static uint64_t pages_written(const struct limit_table *table, int fd, uint64_t page, uint64_t *end)
{
    const off_t first = (off_t)offsetof(struct limit_table, page);
    const off_t size = (off_t)sizeof(struct limit_page);
    const off_t at = fd < 0 ? -1 : lseek(fd, first + (off_t)page * size, SEEK_DATA);
    const off_t hole = at < 0 ? -1 : lseek(fd, at, SEEK_HOLE);
    *end = table->pages;
    if (fd < 0) /* all of them may be */
        return page;
    if (at < 0 || hole < 0)
        return table->pages;
    const uint64_t until = (uint64_t)((hole - first + size - 1) / size);
    *end = until < table->pages ? until : table->pages;
    return (uint64_t)((at - first) / size);
}

static void held_release(struct limit_table *table)
{
    for (unsigned i = 0; i < LIMIT_STRIPES; i++)
        atomic_store(&table->stripe[i], 0);
    for (unsigned i = 0; i < PROC_SLOTS; i++)
        atomic_store(&table->row_owner[i], 0);
    atomic_store(&table->stuck_owner, 0);
}

const char *limit_table_mend(struct limit_table *table, size_t size, int fd, uint64_t now_ms)
{
    const char *fault = formats_fault(table);
    if (size < sizeof *table || table->pages != (size - sizeof *table) / sizeof(struct limit_page))
        return "it has another number of entries";
    if (fault || !has_secret(table))
        return fault ? fault : "it has no key";
    held_release(table);
    for (uint64_t page = 0, end; page < table->pages; page = end) {
        page = pages_written(table, fd, page, &end);
        for (; page < end; page++)
            page_mend(table, page, now_ms);
    }
    return NULL;
}

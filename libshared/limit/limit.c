/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limit: keys, charging one or several limits, giving back.
 *
 * The ways of a check: limit_slot_of() finds the two buckets, limit_entry_find() the entry, one
 * compare-and-swap of its state decides. Everything that is rare (a new key, one that was idle, a
 * full table) is in limit_table.c; the arithmetic is in limit_state.c.
 */
#include "polder/limit.h"
#include "libshared/limit/limit_table.h"
#include "polder/random.h"
#include <string.h>
#include <xxhash.h>

#define CHARGE_TRIES 16
#define TRY_AGAIN_MS 1 /* no entry or lock was to be had: refused, and any moment is a good one */

/* ---- the segment ---- */

static uint64_t pages_for(size_t entries)
{
    const uint64_t pages = (entries + LIMIT_PAGE_ENTRIES - 1) / LIMIT_PAGE_ENTRIES;
    return pages > LIMIT_UNTIL_MASK ? LIMIT_UNTIL_MASK : pages + (pages == 0);
}

size_t limit_counts_size(size_t entries)
{
    return sizeof(struct limit_table) + pages_for(entries) * sizeof(struct limit_page);
}

size_t limit_rows_size(void)
{
    return LIMIT_ROWS_HEAD +
           PROC_SLOTS * (sizeof(struct limit_row) + LIMIT_TOP_LISTS * sizeof(struct limit_sketch));
}

size_t limit_table_size(size_t entries)
{
    return limit_counts_size(entries) + limit_rows_size();
}

uint64_t limit_table_layout(void)
{
    return (uint64_t)sizeof(struct limit_table) << 32 |
           (uint64_t)offsetof(struct limit_bucket, state) << 16 | LIMIT_UNTIL_BITS << 8 |
           LIMIT_FORMAT_BITS;
}

uint64_t limit_rows_layout(void)
{
    return (uint64_t)sizeof(struct limit_row) << 32 | sizeof(struct limit_sketch);
}

void limit_table_init(struct limit_table *table, size_t entries)
{
    random_fill(table->secret, sizeof table->secret);
    table->pages = pages_for(entries);
}

static _Atomic uint64_t *epoch_of(struct limit_table *table, uint64_t limit_id)
{
    return &table->epoch[limit_id * UINT64_C(0x9e3779b97f4a7c15) >> 52];
}
_Static_assert(LIMIT_EPOCHS == 1 << 12, "epoch_of() takes twelve bits");

uint64_t limit_key(const struct limit_table *table, uint64_t limit_id, const void *who, size_t len)
{
    const struct {
        uint64_t limit_id, epoch, who;
    } whole = {limit_id,
               atomic_load_explicit(epoch_of((struct limit_table *)(uintptr_t)table, limit_id),
                                    memory_order_acquire),
               XXH3_64bits_withSecret(who, len, table->secret, sizeof table->secret)};
    const uint64_t key =
        XXH3_64bits_withSecret(&whole, sizeof whole, table->secret, sizeof table->secret);
    return key ? key : 1;
}

/* ---- one limit ---- */

/* A charge that was made, so that it can be taken back. */
struct charged {
    struct limit_rule rule;
    struct limit_entry entry;
    uint64_t tag;
    limit_word before; /* the state that it was added to */
};

#define RULES 16 /* a power of two */

/* The rules of the last checks, each as it is at one millisecond: a busy process checks many
 * requests in one, and the divisions of making a rule take as long as using it. A process's own. */
struct rule_cached {
    uint64_t now_ms, format_value;
    uint32_t requests;
    struct limit_rule rule;
};
static _Thread_local struct rule_cached rules[RULES];

static __attribute__((noinline)) void rule_remember(struct limit_table *table,
                                                    const struct runtime_limit *limit,
                                                    uint64_t now_ms, struct rule_cached *m)
{
    m->now_ms = now_ms;
    m->format_value = limit_format_value(limit->algorithm, limit->window_ms);
    m->requests = limit->requests;
    limit_rule_init(&m->rule, limit, limit_table_format(table, limit), now_ms);
}

/* Good until the next call. */
LIMIT_HOT const struct limit_rule *rule_of(struct limit_table *table,
                                           const struct runtime_limit *limit, uint64_t now_ms)
{
    const uint64_t value = limit_format_value(limit->algorithm, limit->window_ms);
    struct rule_cached *m = &rules[(uintptr_t)limit / sizeof *limit % RULES];
    if (__builtin_expect(m->now_ms != now_ms || m->format_value != value ||
                             m->requests != limit->requests ||
                             atomic_load_explicit(&table->formats[m->rule.format],
                                                  memory_order_relaxed) != value,
                         0))
        rule_remember(table, limit, now_ms, m);
    const struct limit_rule *rule = &m->rule;
    __asm__("" : "+r"(rule)); /* else its address is computed again and again */
    return rule;
}

/* For this many more checks both buckets are prefetched together: recent keys needed new entries,
 * and the next ones probably will too. */
static _Thread_local unsigned newcomers;
#define NEWCOMERS_EXPECTED 16

/* The entry was idle, or will be too soon, or the key has none. Rare: what it needs is made again
 * here rather than kept in memory by every check. entry.word NULL: none is to be had now. */
static __attribute__((noinline)) struct limit_entry
entry_hold(const struct limit_caller *caller, const struct limit_charge *charge, uint64_t now_ms)
{
    const struct limit_place place = limit_slot_of(caller->table, charge->key);
    struct limit_entry entry;
    const struct limit_rule *rule = rule_of(caller->table, charge->limit, now_ms);
    uint64_t word;
    newcomers = NEWCOMERS_EXPECTED;
    __builtin_prefetch(limit_page_of(place.bucket[0])->evicted_until);
    for (unsigned tries = 0; tries < CHARGE_TRIES; tries++) {
        if (!limit_entry_find(&place, &entry, &word) || !limit_word_lives(word, rule->now_s)) {
            if (!limit_entry_make(caller, &place, rule, &entry))
                break;
            word = atomic_load(entry.word); /* a process with an older clock may have made it */
        }
        /* Never shorten what is kept: others may have later clocks. */
        while (limit_word_tag(word) == place.tag)
            if (limit_word_lives(word, rule->until_s) ||
                atomic_compare_exchange_weak(entry.word, &word, limit_word_kept(rule, place.tag)))
                return entry;
    }
    return (struct limit_entry){NULL, NULL};
}

/* One entry, one decision. False if the entry turned out to be another key's. A refusal is swapped
 * for itself, in our format: that confirms that the state was not a mixture of two. */
LIMIT_HOT bool entry_charge(const struct limit_caller *caller, const struct limit_rule *rule,
                            const struct limit_entry *entry, uint64_t tag, uint32_t cost,
                            limit_word *before, struct limit_verdict *verdict)
{
    limit_word seen = limit_word_glance(entry->state), next;
    do {
        if (!limit_entry_is(entry, tag))
            return false;
        next = limit_state_charge(rule, seen, cost, caller->table->formats, before, verdict);
    } while (!limit_word_swap(entry->state, &seen, next));
    return limit_entry_is(entry, tag);
}

LIMIT_HOT void charge_one(const struct limit_caller *caller, const struct limit_charge *charge,
                          uint64_t now_ms, struct charged *done, struct limit_verdict *verdict)
{
    struct limit_bucket *first = limit_bucket_first(caller->table, charge->key);
    const uint64_t tag = limit_key_tag(charge->key);
    const struct limit_rule *rule = rule_of(caller->table, charge->limit, now_ms);
    struct limit_entry entry;
    limit_word before;
    uint64_t word;
    if (__builtin_expect(newcomers, 0)) {
        newcomers--;
        limit_place_prefetch(first, tag);
    }
    if (__builtin_expect(charge->cost > rule->requests, 0)) { /* never: not worth an entry */
        limit_peek(caller, charge, now_ms, verdict);
        return;
    }
    for (unsigned tries = 0; tries < CHARGE_TRIES; tries++) {
        if (__builtin_expect(!limit_entry_seek(first, tag, &entry, &word) ||
                                 !limit_word_lives(word, rule->until_s),
                             0)) {
            entry = entry_hold(caller, charge, now_ms);
            if (!entry.word)
                break;
        }
        if (__builtin_expect(!entry_charge(caller, rule, &entry, tag, charge->cost,
                                           done ? &before : NULL, verdict),
                             0))
            continue;
        if (done)
            *done = (struct charged){*rule, entry, tag, before};
        return;
    }
    *verdict = (struct limit_verdict){.reset_ms = TRY_AGAIN_MS, .retry_ms = TRY_AGAIN_MS};
}

/* Nothing is charged, but a refusal is confirmed, and a state of another format converted.
 * Otherwise the state is unchanged: a question about another time must not move it there. */
void limit_peek(const struct limit_caller *caller, const struct limit_charge *charge,
                uint64_t now_ms, struct limit_verdict *verdict)
{
    const struct limit_place place = limit_slot_of(caller->table, charge->key);
    const struct limit_rule *rule = rule_of(caller->table, charge->limit, now_ms);
    struct limit_entry entry = {NULL, NULL};
    limit_word seen = 0, own, before;
    uint64_t word;
    const bool found =
        limit_entry_find(&place, &entry, &word) && limit_word_lives(word, rule->now_s);
    if (found && !limit_word_lives(word, rule->until_s)) { /* the window may have grown */
        const struct limit_entry held = entry_hold(caller, charge, now_ms);
        entry = held.word ? held : entry;
    }
    if (found)
        seen = limit_word_glance(entry.state);
    do {
        own =
            limit_state_charge(rule, seen, charge->cost, caller->table->formats, &before, verdict);
        if (!found || limit_format_of(seen) == rule->format || !limit_entry_is(&entry, place.tag))
            own = seen;
    } while (found && !verdict->admitted && !limit_word_swap(entry.state, &seen, own));
    if (!rule->requests) /* never more than now: as good a time to ask again as any */
        verdict->reset_ms = rule->window_ms;
    if (!verdict->admitted)
        return;
    struct limit_verdict without; /* what is left without it */
    limit_state_charge(rule, seen, 0, caller->table->formats, &before, &without);
    *verdict = without;
}

/* ---- all or none ---- */

static void charge_return(const struct charged *c, uint32_t cost)
{
    limit_word seen = limit_word_glance(c->entry.state), next;
    do {
        next = seen;
        if (!limit_entry_is(&c->entry, c->tag) ||
            !limit_state_refund(&c->rule, c->before, &next, cost))
            return;
    } while (!limit_word_swap(c->entry.state, &seen, next));
}

static bool refuses(const struct limit_charge *charge, const struct limit_verdict *verdict)
{
    return !verdict->admitted && !charge->limit->dry_run;
}

/* Without charging any: what is refused anyway should not, for an instant, take the place of a
 * request that would have been admitted. */
static bool peek_all(const struct limit_caller *caller, const struct limit_charge *charge, size_t n,
                     uint64_t now_ms, struct limit_verdict *verdict)
{
    bool admitted = true;
    for (size_t i = 0; i < n; i++) {
        limit_peek(caller, &charge[i], now_ms, &verdict[i]);
        admitted = admitted && !refuses(&charge[i], &verdict[i]);
    }
    return admitted;
}

static bool charge_all(const struct limit_caller *caller, const struct limit_charge *charge,
                       size_t n, uint64_t now_ms, struct limit_verdict *verdict)
{
    struct charged done[LIMIT_CHARGES_MAX];
    for (size_t i = 0; i < n; i++) {
        charge_one(caller, &charge[i], now_ms, &done[i], &verdict[i]);
        if (!refuses(&charge[i], &verdict[i]))
            continue;
        for (size_t j = i; j-- > 0;) /* another request took the last place since the peek */
            if (verdict[j].admitted) {
                charge_return(&done[j], charge[j].cost);
                verdict[j].remaining += charge[j].cost;
            }
        return false;
    }
    return true;
}

bool limit_charge(const struct limit_caller *caller, const struct limit_charge *charge, size_t n,
                  uint64_t now_ms, struct limit_verdict *verdict)
{
    if (n == 1) {
        charge_one(caller, charge, now_ms, NULL, verdict);
        return !refuses(charge, verdict);
    }
    for (size_t i = 0; i < n; i++)
        limit_bucket_first(caller->table, charge[i].key); /* all on their way at once */
    return n <= LIMIT_CHARGES_MAX && peek_all(caller, charge, n, now_ms, verdict) &&
           charge_all(caller, charge, n, now_ms, verdict);
}

/* ---- forgetting ---- */

bool limit_reset_key(const struct limit_caller *caller, uint64_t key)
{
    const struct limit_place place = limit_slot_of(caller->table, key);
    return limit_entry_forget(caller, &place);
}

void limit_reset_all(struct limit_table *table, uint64_t limit_id)
{
    atomic_fetch_add(epoch_of(table, limit_id), 1);
}

void limit_table_counters(const struct limit_table *table, struct limit_table_stats *out)
{
    *out = (struct limit_table_stats){.entries = table->pages * LIMIT_PAGE_ENTRIES,
                                      .evicted_live = atomic_load(&table->evicted_live),
                                      .lock_steals = atomic_load(&table->lock_steals),
                                      .lock_refusals = atomic_load(&table->lock_refusals),
                                      .rows_full = atomic_load(&table->rows_full)};
}

void limit_table_stats(const struct limit_table *table, uint64_t now_ms,
                       struct limit_table_stats *out)
{
    limit_table_counters(table, out);
    for (uint64_t k = 0; k < table->pages * LIMIT_PAGE_BUCKETS; k++)
        for (unsigned i = 0; i < LIMIT_WAYS; i++) {
            const struct limit_page *page = &table->page[k / LIMIT_PAGE_BUCKETS];
            const uint64_t word = atomic_load_explicit(
                &page->bucket[k % LIMIT_PAGE_BUCKETS].word[i], memory_order_relaxed);
            out->used += word != 0;
            out->live += limit_word_lives(word, now_ms / 1000);
        }
}

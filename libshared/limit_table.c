/* SPDX-License-Identifier: BSD-2-Clause */
/* limit_table: making, taking over and giving up entries; see limit_table.h for the rules. */
#include "libshared/limit_table.h"
#include "polder/clock.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define PATIENCE_NS      2000000 /* nobody waits longer for a lock: the request is refused instead */
#define SPINS            64      /* before the first sched_yield() */
#define THOROUGH_EACH    16      /* yields between two questions to the kernel */
#define MAKE_TRIES       64
#define INCARNATION_MASK ((UINT64_C(1) << LIMIT_BUSY_INCARNATION_BITS) - 1)

/* ---- who lives ---- */

/* A killed process that nobody has reaped yet still has its pid; /proc says Z. */
static bool pid_is_dead(uint32_t pid)
{
    char path[40], text[256];
    if (kill((pid_t)pid, 0) < 0 && errno == ESRCH)
        return true;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    const char *end = fgets(text, sizeof text, f) ? strrchr(text, ')') : NULL;
    fclose(f);
    return end && end[1] == ' ' && (end[2] == 'Z' || end[2] == 'X');
}

bool limit_owner_is_dead(const struct proc_table *proc, uint32_t slot, uint32_t incarnation,
                         bool thorough)
{
    if (!proc || slot >= PROC_SLOTS)
        return false;
    const struct proc_slot *p = &proc->slot[slot];
    if (atomic_load(&p->incarnation) != incarnation)
        return true; /* the master reaps before it forks a successor */
    const uint32_t state = atomic_load(&p->state), pid = atomic_load(&p->pid);
    if (state == PROC_DEAD || state == PROC_FREE)
        /* the successor's incarnation is stored first, its state next */
        return atomic_load(&p->pid) == 0;
    /* A young process may run before the master has stored its pid: 0 says nothing. */
    return thorough && pid && pid_is_dead(pid) && atomic_load(&p->pid) == pid;
}

/* ---- locks ---- */

static uint64_t owner_of(const struct limit_caller *c)
{
    return (uint64_t)(c->slot + 1) << 32 | c->incarnation;
}

struct patience {
    uint64_t until_ns;
    unsigned turns;
};

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Waits a little; false when there is no patience left. */
static bool patience_wait(struct patience *p)
{
    if (p->turns == 0)
        p->until_ns = clock_mono_ns() + PATIENCE_NS;
    if (p->turns++ < SPINS) {
        cpu_relax();
        return true;
    }
    sched_yield();
    return clock_mono_ns() < p->until_ns;
}

static bool patience_is_thorough(const struct patience *p)
{
    return p->turns > SPINS && p->turns % THOROUGH_EACH == 0;
}

bool limit_lock(const struct limit_caller *c, _Atomic uint64_t *lock)
{
    struct patience patience = {0};
    const uint64_t me = owner_of(c);
    for (;;) {
        uint64_t holder = 0;
        if (atomic_compare_exchange_strong(lock, &holder, me))
            return true;
        if (limit_owner_is_dead(c->proc, (uint32_t)(holder >> 32) - 1, (uint32_t)holder,
                                patience_is_thorough(&patience)) &&
            atomic_compare_exchange_strong(lock, &holder, me)) {
            atomic_fetch_add(&c->table->lock_steals, 1);
            return true;
        }
        if (!patience_wait(&patience)) {
            atomic_fetch_add(&c->table->lock_refusals, 1);
            return false;
        }
    }
}

void limit_unlock(const struct limit_caller *c, _Atomic uint64_t *lock)
{
    (void)c;
    atomic_store_explicit(lock, 0, memory_order_release);
}

/* ---- words ---- */

static uint64_t keep_until_s(const struct limit_rule *rule)
{
    return (rule->now_ms + rule->keep_ms) / 1000 + 1;
}

bool limit_word_suffices(const struct limit_rule *rule, uint64_t word)
{
    return limit_word_lives(word, keep_until_s(rule));
}

/* An eighth longer than needed, so that a busy entry's word is rarely written. */
uint64_t limit_word_kept(const struct limit_rule *rule, uint64_t tag)
{
    const uint64_t until = keep_until_s(rule) + 1 + rule->keep_ms / 8000;
    return tag << LIMIT_UNTIL_BITS | (until & LIMIT_UNTIL_MASK);
}

static uint64_t word_busy(const struct limit_caller *c)
{
    return LIMIT_TAG_BUSY << LIMIT_UNTIL_BITS | (uint64_t)c->slot << LIMIT_BUSY_INCARNATION_BITS |
           (c->incarnation & INCARNATION_MASK);
}

/* The owner of a BUSY word; false if its slot is not its own any more, or the owner is dead. */
static bool busy_owner_lives(const struct limit_caller *c, uint64_t word, bool thorough)
{
    const uint32_t slot = (uint32_t)(word >> LIMIT_BUSY_INCARNATION_BITS & 0xff);
    if (!c->proc || slot >= PROC_SLOTS)
        return true;
    const uint32_t incarnation = atomic_load(&c->proc->slot[slot].incarnation);
    if ((incarnation & INCARNATION_MASK) != (word & INCARNATION_MASK))
        return false;
    return !limit_owner_is_dead(c->proc, slot, incarnation, thorough);
}

/* ---- making an entry ---- */

enum victim_kind { VICTIM_NONE, VICTIM_LIVE, VICTIM_ORPHAN, VICTIM_FREE };

struct victim {
    enum victim_kind kind;
    struct limit_entry entry;
    uint64_t word;
};

static void victim_set(struct victim *v, enum victim_kind kind, struct limit_bucket *b, unsigned i,
                       uint64_t word)
{
    *v = (struct victim){kind, {&b->word[i], &b->state[i]}, word};
}

/* A free entry, of the bucket that has more of them; else one that a dead process left. */
static void victim_find_free(const struct limit_caller *c, const struct limit_place *place,
                             uint64_t now_s, bool thorough, struct victim *v)
{
    unsigned most = 0;
    for (unsigned k = 0; k < 2; k++) {
        struct limit_bucket *b = place->bucket[k];
        struct victim mine = {.kind = VICTIM_NONE};
        unsigned vacant = 0;
        for (unsigned i = 0; i < LIMIT_WAYS; i++) {
            const uint64_t word = atomic_load(&b->word[i]);
            if (limit_word_tag(word) == LIMIT_TAG_BUSY) {
                if (v->kind < VICTIM_ORPHAN && !busy_owner_lives(c, word, thorough))
                    victim_set(v, VICTIM_ORPHAN, b, i, word);
            } else if (!limit_word_lives(word, now_s) && vacant++ == 0) {
                victim_set(&mine, VICTIM_FREE, b, i, word);
            }
        }
        if (vacant > most) {
            *v = mine;
            most = vacant;
        }
    }
}

/* The live entry that counts least. */
static void victim_find_live(const struct limit_caller *c, const struct limit_place *place,
                             uint64_t now_ms, struct victim *v)
{
    uint64_t least = UINT64_MAX;
    for (unsigned k = 0; k < 2; k++) {
        struct limit_bucket *b = place->bucket[k];
        for (unsigned i = 0; i < LIMIT_WAYS; i++) {
            const uint64_t word = atomic_load(&b->word[i]);
            if (limit_word_tag(word) == LIMIT_TAG_BUSY)
                continue;
            const uint64_t level =
                limit_state_level(limit_word_glance(&b->state[i]), c->table->formats, now_ms);
            if (level < least) {
                least = level;
                victim_set(v, VICTIM_LIVE, b, i, word);
            }
        }
    }
}

static void state_clear(limit_word *state)
{
    limit_word seen = limit_word_glance(state);
    while (seen != 0 && !limit_word_swap(state, &seen, 0))
        ;
}

/* Makes the victim the key's own. What a live one counts stays: the next charge converts it if it
 * is another limit's. False if somebody else was faster. */
static bool victim_take(const struct limit_caller *c, const struct victim *v,
                        const struct limit_rule *rule, uint64_t tag)
{
    uint64_t word = v->word;
    if (!atomic_compare_exchange_strong(v->entry.word, &word, word_busy(c)))
        return false;
    if (v->kind == VICTIM_LIVE)
        atomic_fetch_add_explicit(&c->table->evicted_live, 1, memory_order_relaxed);
    else if (v->kind == VICTIM_FREE ||
             !limit_state_level(limit_word_glance(v->entry.state), c->table->formats, rule->now_ms))
        state_clear(v->entry.state);
    atomic_store(v->entry.word, limit_word_kept(rule, tag));
    return true;
}

/* Under the key's lock. */
static bool entry_make_locked(const struct limit_caller *c, const struct limit_place *place,
                              const struct limit_rule *rule, struct limit_entry *entry)
{
    const uint64_t now_s = rule->now_ms / 1000;
    struct patience patience = {0};
    for (unsigned tries = 0; tries < MAKE_TRIES; tries++) {
        struct victim v = {.kind = VICTIM_NONE};
        if (limit_entry_find(place, &v.entry, &v.word)) {
            *entry = v.entry;
            if (limit_word_lives(v.word, now_s))
                return true; /* another process was faster */
            v.kind = VICTIM_FREE;
        } else {
            victim_find_free(c, place, now_s, patience_is_thorough(&patience), &v);
            if (v.kind == VICTIM_NONE)
                victim_find_live(c, place, rule->now_ms, &v);
        }
        if (v.kind == VICTIM_NONE) { /* sixteen processes at work in two buckets */
            if (!patience_wait(&patience))
                return false;
            continue;
        }
        *entry = v.entry;
        if (victim_take(c, &v, rule, place->tag))
            return true;
    }
    return false;
}

bool limit_entry_make(const struct limit_caller *c, const struct limit_place *place,
                      const struct limit_rule *rule, struct limit_entry *entry)
{
    _Atomic uint64_t *lock = &c->table->stripe[place->tag % LIMIT_STRIPES];
    if (!limit_lock(c, lock))
        return false;
    const bool made = entry_make_locked(c, place, rule, entry);
    limit_unlock(c, lock);
    return made;
}

bool limit_entry_forget(const struct limit_caller *c, const struct limit_place *place)
{
    struct limit_entry entry;
    uint64_t word;
    while (limit_entry_find(place, &entry, &word)) {
        if (!atomic_compare_exchange_strong(entry.word, &word, word_busy(c)))
            continue;
        /* at time 0 nothing is old yet */
        const bool counted =
            limit_state_level(limit_word_glance(entry.state), c->table->formats, 0) > 0;
        state_clear(entry.state);
        atomic_store(entry.word, 0);
        return counted;
    }
    return false;
}

/* ---- formats ---- */

uint32_t limit_table_format(struct limit_table *table, const struct runtime_limit *limit)
{
    const uint64_t value = limit_format_value(limit->algorithm, limit->window_ms);
    const uint32_t home =
        (uint32_t)(value * UINT64_C(0x9e3779b97f4a7c15) >> (64 - LIMIT_FORMAT_BITS));
    for (uint32_t i = 0; i < LIMIT_FORMATS; i++) {
        const uint32_t format = (home + i) % LIMIT_FORMATS;
        if (format == 0) /* says that nothing was counted */
            continue;
        uint64_t there = atomic_load_explicit(&table->formats[format], memory_order_acquire);
        if (there == 0 && atomic_compare_exchange_strong(&table->formats[format], &there, value))
            return format;
        if (there == value)
            return format;
    }
    /* A thousand different windows since the start: from now on some share a number, and what was
     * counted under the one may be dropped or kept too long under the other. */
    return home ? home : 1;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* limit_table: making, taking over and giving up entries; see limit_table.h for the rules. */
#include "libshared/limit/limit_table.h"
#include "polder/clock.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PATIENCE_NS    10000000 /* longest wait for a lock; then the request is refused */
#define STUCK_NS       200000   /* if an earlier wait for its process timed out */
#define SPINS          64       /* before the first nap */
#define NAP_NS         50000
#define THOROUGH_EACH  4 /* naps between two questions to the kernel */
#define FEW_VACANT     3 /* of a first bucket: then its keys go where more is vacant */
#define EVICTED_UNIT_S 128

#define INCARNATION_MASK ((UINT64_C(1) << LIMIT_BUSY_INCARNATION_BITS) - 1)

/* ---- liveness ---- */

/* A killed process that is not reaped yet still has its pid; /proc says Z. */
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
    uint64_t start_ns;
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

/* Waits a little: at first on this CPU, for what is waited for takes 100 ns; then asleep, for
 * its process seems to need a CPU. False when there is no patience left. */
static bool patience_wait(struct patience *p, uint64_t max_ns)
{
    if (p->turns == 0)
        p->start_ns = clock_mono_ns();
    if (p->turns++ < SPINS) {
        cpu_relax();
        return true;
    }
    const struct timespec nap = {0, NAP_NS};
    nanosleep(&nap, NULL);
    return clock_mono_ns() - p->start_ns < max_ns;
}

static bool patience_is_thorough(const struct patience *p)
{
    return p->turns > SPINS && p->turns % THOROUGH_EACH == 0;
}

/* The wait for the holder timed out: it is stopped. Until it is seen running again others wait
 * less. */
static void holder_is_stuck(const struct limit_caller *c, uint64_t holder)
{
    atomic_store_explicit(&c->table->stuck_owner, holder, memory_order_relaxed);
    atomic_fetch_add(&c->table->lock_refusals, 1);
}

bool limit_lock(const struct limit_caller *c, _Atomic uint64_t *lock)
{
    struct patience patience = {0};
    const uint64_t me = owner_of(c);
    if (atomic_load_explicit(&c->table->stuck_owner, memory_order_relaxed) == me)
        atomic_store_explicit(&c->table->stuck_owner, 0, memory_order_relaxed);
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
        const bool stuck =
            atomic_load_explicit(&c->table->stuck_owner, memory_order_relaxed) == holder;
        if (!patience_wait(&patience, stuck ? STUCK_NS : PATIENCE_NS)) {
            holder_is_stuck(c, holder);
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

/* An eighth longer than needed, so that a busy entry's word is rarely written. */
uint64_t limit_word_kept(const struct limit_rule *rule, uint64_t tag)
{
    const uint64_t until = rule->until_s + 1 + rule->keep_ms / 8000;
    return tag << LIMIT_UNTIL_BITS | (until & LIMIT_UNTIL_MASK);
}

static uint64_t word_busy(const struct limit_caller *c, uint64_t tag)
{
    return tag << LIMIT_UNTIL_BITS | (uint64_t)c->slot << LIMIT_BUSY_INCARNATION_BITS |
           (c->incarnation & INCARNATION_MASK);
}

/* Whether the process lives that an entry which changes hands is in the hands of. */
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

bool limit_entry_look(struct limit_bucket *first, uint64_t tag, struct limit_entry *entry,
                      uint64_t *seen)
{
    struct limit_bucket *const bucket[2] = {first, limit_bucket_second(first, tag)};
    for (unsigned i = 0; i < 2 * LIMIT_WAYS; i++) {
        struct limit_bucket *b = bucket[i / LIMIT_WAYS];
        *entry = (struct limit_entry){&b->word[i % LIMIT_WAYS], &b->state[i % LIMIT_WAYS]};
        *seen = atomic_load_explicit(entry->word, memory_order_acquire);
        if (limit_word_tag(*seen) == tag)
            return true;
    }
    return false;
}

/* ---- keys that may return ---- */

static _Atomic uint16_t *evicted_until(const void *in_bucket)
{
    struct limit_page *page = limit_page_of(in_bucket);
    const uintptr_t at = (uintptr_t)in_bucket - (uintptr_t)page;
    return &page->evicted_until[at / sizeof(struct limit_bucket)];
}

static bool bucket_has_evicted(const struct limit_bucket *b, uint64_t now_s)
{
    const uint16_t until = atomic_load(evicted_until(b));
    return until && (int16_t)(uint16_t)(until - now_s / EVICTED_UNIT_S) >= 0;
}

/* Said before it happens: a death between must not leave it unsaid. */
static void bucket_will_evict(const void *in_bucket, uint64_t word, uint64_t now_s)
{
    const uint64_t until_s = now_s + ((word - now_s) & LIMIT_UNTIL_MASK);
    const uint16_t until = (uint16_t)(until_s / EVICTED_UNIT_S);
    _Atomic uint16_t *have = evicted_until(in_bucket);
    uint16_t seen = atomic_load(have);
    while ((seen == 0 || (int16_t)(uint16_t)(until - seen) > 0) &&
           !atomic_compare_exchange_weak(have, &seen, until ? until : 1))
        ;
}

/* ---- making an entry ---- */

enum victim_kind {
    VICTIM_WAIT, /* none before an entry there has changed hands */
    VICTIM_LIVE,
    VICTIM_ORPHAN, /* its process died while it changed hands */
    VICTIM_FREE,
    VICTIM_OURS /* the key has a live entry already */
};

struct victim {
    enum victim_kind kind;
    struct limit_entry entry;
    uint64_t word;
    uint64_t level;    /* LIVE: what it counted */
    uint64_t inherits; /* at least that */
};

/* Every word of the two buckets, each read once: an entry is the key's, or may become it again,
 * or it is neither and stays so, because no other process makes one while we hold the lock. */
struct survey {
    const struct limit_place *place;
    uint64_t word[2 * LIMIT_WAYS];
    unsigned vacant[2];             /* in each bucket: entries that are not needed any more */
    unsigned first[2];              /* the first of them */
    unsigned orphans;               /* a bit an entry */
    unsigned busy;                  /* the same: owned by a living process */
    bool moving;                    /* one of them may be given back, perhaps to our key */
    int ours;                       /* the key's own entry, or -1 */
    uint64_t level[2 * LIMIT_WAYS]; /* survey_levels() */
};

static struct limit_entry survey_entry(const struct survey *s, unsigned i)
{
    struct limit_bucket *b = s->place->bucket[i / LIMIT_WAYS];
    return (struct limit_entry){&b->word[i % LIMIT_WAYS], &b->state[i % LIMIT_WAYS]};
}

static void survey_take(const struct limit_caller *c, struct survey *s,
                        const struct limit_place *place, uint64_t now_s, bool thorough)
{
    *s = (struct survey){.place = place, .ours = -1};
    for (unsigned i = 0; i < 2 * LIMIT_WAYS; i++) {
        const uint64_t word = s->word[i] = atomic_load(survey_entry(s, i).word);
        if (limit_word_tag(word) == place->tag) {
            s->ours = (int)i;
        } else if (!limit_word_is_busy(word)) {
            if (!limit_word_lives(word, now_s) && s->vacant[i / LIMIT_WAYS]++ == 0)
                s->first[i / LIMIT_WAYS] = i;
        } else if (busy_owner_lives(c, word, thorough)) {
            s->busy |= 1u << i;
            s->moving = s->moving || limit_word_tag(word) == LIMIT_TAG_MOVING;
        } else {
            s->orphans |= 1u << i;
        }
    }
}

/* Counts are looked at in a full table only. */
static void survey_levels(const struct limit_caller *c, struct survey *s, uint64_t now_ms)
{
    struct limit_rule reader = {.format = 0};
    for (unsigned i = 0; i < 2 * LIMIT_WAYS; i++)
        s->level[i] = limit_state_level_next(&reader, limit_word_glance(survey_entry(s, i).state),
                                             c->table->formats, now_ms);
}

static void victim_set(struct victim *v, enum victim_kind kind, const struct survey *s, unsigned i)
{
    v->kind = kind;
    v->entry = survey_entry(s, i);
    v->word = s->word[i];
}

/* In a bucket without a vacancy an entry may have been evicted; none of those had a count above the
 * lowest there now. */
static void victim_inherit(const struct survey *s, unsigned bucket, struct victim *v)
{
    uint64_t min = UINT64_MAX;
    for (unsigned i = bucket * LIMIT_WAYS; i < (bucket + 1) * LIMIT_WAYS; i++)
        if (!(s->orphans >> i & 1) && s->level[i] < min)
            min = s->level[i];
    if (min != UINT64_MAX && min > v->inherits)
        v->inherits = min;
}

/* A free entry of the first bucket while it has a few, for there it is found sooner; else of the
 * one that has more of them. */
static void victim_find_free(const struct limit_caller *c, struct survey *s, uint64_t now_ms,
                             struct victim *v)
{
    const unsigned k = s->vacant[0] < FEW_VACANT && s->vacant[1] > s->vacant[0];
    victim_set(v, VICTIM_FREE, s, s->first[k]);
    if (s->vacant[!k] == 0 && bucket_has_evicted(s->place->bucket[!k], now_ms / 1000)) {
        survey_levels(c, s, now_ms);
        victim_inherit(s, !k, v);
    }
}

/* An orphan, or the live entry that counts least. */
static void victim_find_live(const struct limit_caller *c, struct survey *s, uint64_t now_ms,
                             struct victim *v)
{
    survey_levels(c, s, now_ms);
    if (s->orphans) {
        victim_set(v, VICTIM_ORPHAN, s, (unsigned)__builtin_ctz(s->orphans));
    } else {
        unsigned min = 0;
        for (unsigned i = 1; i < 2 * LIMIT_WAYS; i++)
            min = s->level[i] < s->level[min] ? i : min;
        victim_set(v, VICTIM_LIVE, s, min);
        v->level = s->level[min];
    }
    for (unsigned k = 0; k < 2; k++)
        victim_inherit(s, k, v);
}

static void victim_find(const struct limit_caller *c, struct survey *s, uint64_t now_ms,
                        struct victim *v)
{
    if (s->ours >= 0)
        victim_set(v, limit_word_lives(s->word[s->ours], now_ms / 1000) ? VICTIM_OURS : VICTIM_FREE,
                   s, (unsigned)s->ours);
    else if (s->moving)
        v->kind = VICTIM_WAIT;
    else if (s->vacant[0] || s->vacant[1])
        victim_find_free(c, s, now_ms, v);
    else if (s->busy) /* every count must be known before one is evicted */
        v->kind = VICTIM_WAIT;
    else
        victim_find_live(c, s, now_ms, v);
}

static void state_clear(limit_word *state)
{
    limit_word seen = limit_word_glance(state);
    while (seen != 0 && !limit_word_swap(state, &seen, 0))
        ;
}

/* What a live one or an orphan counted stays, with its age, and is made up to what is inherited. */
static void state_inherit(const struct limit_caller *c, const struct victim *v,
                          const struct limit_rule *rule)
{
    limit_word seen = limit_word_glance(v->entry.state), next;
    do
        next = limit_state_inherit(rule, v->kind == VICTIM_FREE ? 0 : seen, v->inherits,
                                   c->table->formats);
    while (!limit_word_swap(v->entry.state, &seen, next));
}

static bool victim_take_live(const struct limit_caller *c, const struct victim *v, uint64_t now_ms)
{
    uint64_t word = v->word;
    bucket_will_evict(v->entry.word, word, now_ms / 1000);
    if (!atomic_compare_exchange_strong(v->entry.word, &word, word_busy(c, LIMIT_TAG_MOVING)))
        return false;
    if (limit_state_level(limit_word_glance(v->entry.state), c->table->formats, now_ms) >
        v->level) {
        atomic_store(v->entry.word, v->word); /* charged since we looked: given back */
        return false;
    }
    atomic_fetch_add_explicit(&c->table->evicted_live, 1, memory_order_relaxed);
    return true;
}

/* Makes the victim the key's own. False if another process was faster. */
static bool victim_take(const struct limit_caller *c, const struct victim *v,
                        const struct limit_rule *rule, uint64_t tag)
{
    uint64_t word = v->word;
    if (v->kind == VICTIM_LIVE
            ? !victim_take_live(c, v, rule->now_ms)
            : !atomic_compare_exchange_strong(v->entry.word, &word, word_busy(c, LIMIT_TAG_BUSY)))
        return false;
    if (v->kind == VICTIM_FREE && v->inherits == 0)
        state_clear(v->entry.state);
    else
        state_inherit(c, v, rule);
    uint64_t kept = limit_word_kept(rule, tag);
    if (v->kind == VICTIM_LIVE && limit_word_lives(v->word, kept)) /* ours is an older clock */
        kept = tag << LIMIT_UNTIL_BITS | (v->word & LIMIT_UNTIL_MASK);
    atomic_store_explicit(v->entry.word, kept, memory_order_release);
    return true;
}

/* Under the key's lock. */
static bool entry_make_locked(const struct limit_caller *c, const struct limit_place *place,
                              const struct limit_rule *rule, struct limit_entry *entry)
{
    struct patience patience = {0};
    struct survey survey;
    do {
        struct victim v = {.kind = VICTIM_WAIT};
        survey_take(c, &survey, place, rule->now_s, patience_is_thorough(&patience));
        victim_find(c, &survey, rule->now_ms, &v);
        *entry = v.entry;
        if (v.kind == VICTIM_OURS ||
            (v.kind != VICTIM_WAIT && victim_take(c, &v, rule, place->tag)))
            return true;
    } while (patience_wait(&patience, PATIENCE_NS));
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
        if (!atomic_compare_exchange_strong(entry.word, &word, word_busy(c, LIMIT_TAG_BUSY)))
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

uint32_t limit_table_register(struct limit_table *table, uint64_t value, uint32_t home)
{
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
    /* A thousand different windows since the start: from now on some share a number, and what
     * was counted under the one may be dropped or kept too long under the other. */
    return home ? home : 1;
}

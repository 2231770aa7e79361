/* SPDX-License-Identifier: BSD-2-Clause */
/* server_state: rows, the state word and its moves, and their log lines. */
#include "polder/server_state.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"
#include "polder/random.h"

#include <stdio.h>
#include <string.h>

/* The word: state 4, reason 4, failed trials 4, failures 11, returned 1, since 40 bits. */
#define SINCE_MASK   ((UINT64_C(1) << 40) - 1)
#define FAILURES_MAX 2047u
#define TRIALS_MAX   15u
#define LEVEL_MAX    (SERVER_EJECT_MAX_MS / SERVER_EJECT_MS)

static const struct {
    const char *label, *text;
    uint32_t max_ms;
    unsigned allowed;
} reasons[SERVER_REASONS] = {
#define REASON(id, label, max, allowed, text) [SERVER_##id] = {label, text, max, allowed},
    SERVER_REASON_TABLE(REASON)
#undef REASON
};

const char *server_reason_label(enum server_reason reason)
{
    return reason < SERVER_REASONS ? reasons[reason].label : "unknown";
}

const char *server_reason_text(enum server_reason reason)
{
    return reason < SERVER_REASONS ? reasons[reason].text : "unknown";
}

/* ---- rows ---- */

struct server_row *server_find(struct server_table *table, uint64_t id)
{
    for (unsigned i = 0; i < SERVER_ROWS; i++)
        if (atomic_load_explicit(&table->id[i], memory_order_acquire) == id)
            return &table->row[i];
    return NULL;
}

static void row_clear(struct server_row *row)
{
    atomic_store(&row->word, 0);
    atomic_store(&row->retry_ms, 0);
    atomic_store(&row->error_ms, 0);
    atomic_store(&row->notified_ms, 0);
    atomic_store(&row->untold, 0);
    atomic_store(&row->upgrades, 0);
    for (unsigned i = 0; i < sizeof row->errors / sizeof *row->errors; i++)
        atomic_store(&row->errors[i], 0);
    atomic_store(&row->ejections, 0);
    atomic_store(&row->level, 0);
    atomic_store(&row->check, 0);
    for (unsigned i = 0; i < sizeof row->checks / sizeof *row->checks; i++)
        atomic_store(&row->checks[i], 0);
    atomic_store(&row->bad_weights, 0);
    atomic_store(&row->generation, 0);
    atomic_store(&row->due_ms, 0);
    atomic_store(&row->lookups_failed, 0);
}

static uint64_t word_of(const struct server_view *v)
{
    return (uint64_t)v->state | (uint64_t)v->reason << 4 | (uint64_t)v->trials << 8 |
           (uint64_t)v->failures << 12 | (v->returned ? SERVER_IS_RETURNED : 0) |
           (v->since_ms & SINCE_MASK) << 24;
}

static struct server_view view_of(uint64_t word)
{
    return (struct server_view){.state = (enum server_state)(word & 15),
                                .reason = (enum server_reason)(word >> 4 & 15),
                                .trials = (uint32_t)(word >> 8 & TRIALS_MAX),
                                .failures = (uint32_t)(word >> 12 & FAILURES_MAX),
                                .returned = (word & SERVER_IS_RETURNED) != 0,
                                .since_ms = word >> 24};
}

/* Two processes that claim the same id beside one that frees another row may take two rows: all
 * processes use the first one. */
static struct server_row *first_of(struct server_table *table, uint64_t id, unsigned mine)
{
    for (unsigned i = 0; i < mine; i++)
        if (atomic_load(&table->id[i]) == id) {
            atomic_store(&table->id[mine], 0);
            return &table->row[i];
        }
    return &table->row[mine];
}

struct server_row *server_claim(struct server_table *table, uint64_t id, uint64_t now_ms)
{
    struct server_row *row = server_find(table, id);
    for (unsigned i = 0; !row && i < SERVER_ROWS; i++) {
        uint64_t owner = 0;
        if (atomic_compare_exchange_strong(&table->id[i], &owner, id)) {
            uint64_t fresh = 0; /* another may have used it already */
            const struct server_view up = {.state = SERVER_UP, .since_ms = now_ms};
            atomic_compare_exchange_strong(&table->row[i].word, &fresh, word_of(&up));
            row = first_of(table, id, i);
        } else if (owner == id) {
            row = &table->row[i];
        }
    }
    return row;
}

void server_row_free(struct server_table *table, uint32_t i)
{
    row_clear(&table->row[i]);
    atomic_store_explicit(&table->id[i], 0, memory_order_release);
}

void server_sweep(struct server_table *table, bool (*wanted)(void *arg, uint64_t id), void *arg)
{
    unsigned used = 0;
    for (unsigned i = 0; i < SERVER_ROWS; i++)
        used += atomic_load_explicit(&table->id[i], memory_order_relaxed) != 0;
    if (used <= SERVER_ROWS / 2)
        return;
    for (unsigned i = 0; i < SERVER_ROWS; i++) {
        const uint64_t id = atomic_load(&table->id[i]);
        if (id && !wanted(arg, id))
            server_row_free(table, i);
    }
}

/* ---- moves ---- */

struct server_view server_view(const struct server_row *row)
{
    return view_of(atomic_load_explicit(&row->word, memory_order_acquire));
}

static uint64_t pause_ms(enum server_reason reason, uint32_t trials)
{
    const uint64_t max = reasons[reason].max_ms, grown = (uint64_t)SERVER_PAUSE_MS << trials;
    return grown < max ? grown : max;
}

/* A tenth more or less, so that servers that left together do not return together. */
static uint64_t ejection_ms(uint32_t level)
{
    static _Thread_local struct random_numbers numbers;
    const uint64_t all = (uint64_t)SERVER_EJECT_MS * (level < LEVEL_MAX ? level : LEVEL_MAX);
    return all - all / 10 + random_next(&numbers) % (all / 5 + 1);
}

/* The level of its next ejection. */
static uint32_t next_level(const struct server_row *row, const struct server_view *v,
                           uint64_t now_ms)
{
    const uint32_t level = atomic_load_explicit(&row->level, memory_order_relaxed);
    const uint64_t up_ms = v->state == SERVER_UP && now_ms > v->since_ms ? now_ms - v->since_ms : 0;
    const uint64_t good = up_ms / SERVER_GOOD_MS;
    const uint32_t left = good < level ? level - (uint32_t)good : 0;
    return left < LEVEL_MAX ? left + 1 : LEVEL_MAX;
}

/* When the next trial is due, for the move from one state to the other. */
static void set_retry(struct server_row *row, const struct server_view *before,
                      const struct server_view *after, uint64_t now_ms)
{
    if (after->state == SERVER_EJECTED) {
        const uint32_t level = next_level(row, before, now_ms);
        atomic_store_explicit(&row->level, level, memory_order_relaxed);
        atomic_store(&row->retry_ms, now_ms + ejection_ms(level));
    } else {
        atomic_store(&row->retry_ms, now_ms + pause_ms(after->reason, after->trials));
    }
}

static void leave(struct server_view *v, enum server_state to, uint64_t now_ms)
{
    v->state = to;
    v->since_ms = now_ms;
    v->trials = 0;
    v->returned = false;
}

/* What the state becomes by a failure. */
static struct server_view after_failure(struct server_view v, enum server_reason reason, bool trial,
                                        uint64_t now_ms)
{
    v.reason = reason;
    if (!reasons[reason].allowed) /* a head had come: the server is there */
        return v;
    v.failures += v.failures < FAILURES_MAX;
    if (v.state == SERVER_UP && v.failures >= reasons[reason].allowed)
        leave(&v, reason == SERVER_STATUS ? SERVER_EJECTED : SERVER_DOWN, now_ms);
    else if (v.state == SERVER_EJECTED && trial && reason != SERVER_STATUS)
        leave(&v, SERVER_DOWN, now_ms); /* it does not even answer */
    else if (v.state == SERVER_DOWN && trial)
        /* no further than its pause: the next reason may have a longer one, and begins there */
        v.trials += pause_ms(reason, v.trials) < reasons[reason].max_ms;
    return v;
}

bool server_note_failure(struct server_row *row, enum server_reason reason, bool trial,
                         uint64_t now_ms)
{
    uint64_t word = atomic_load_explicit(&row->word, memory_order_acquire);
    struct server_view before, after;
    atomic_fetch_add_explicit(&row->errors[reason], 1, memory_order_relaxed);
    atomic_store_explicit(&row->error_ms, now_ms, memory_order_relaxed);
    do {
        before = view_of(word);
        after = after_failure(before, reason, trial, now_ms);
        if (before.state == SERVER_UP && after.state != SERVER_UP)
            set_retry(row, &before, &after, now_ms);
    } while (!atomic_compare_exchange_weak(&row->word, &word, word_of(&after)));
    if (before.state != SERVER_UP && trial)
        set_retry(row, &before, &after, now_ms);
    const bool left = before.state == SERVER_UP && after.state != SERVER_UP;
    if (left && after.state == SERVER_EJECTED)
        atomic_fetch_add_explicit(&row->ejections, 1, memory_order_relaxed);
    return left;
}

bool server_note_error(struct server_row *row, bool trial, bool others, uint64_t now_ms)
{
    if (others)
        return server_note_failure(row, SERVER_STATUS, trial, now_ms);
    atomic_fetch_add_explicit(&row->errors[SERVER_STATUS], 1, memory_order_relaxed);
    atomic_store_explicit(&row->error_ms, now_ms, memory_order_relaxed);
    return false;
}

bool server_eject(struct server_row *row, enum server_reason reason, uint64_t now_ms)
{
    uint64_t word = atomic_load_explicit(&row->word, memory_order_acquire);
    struct server_view before, after;
    do {
        before = after = view_of(word);
        if (before.state != SERVER_UP)
            return false;
        after.reason = reason;
        leave(&after, SERVER_EJECTED, now_ms);
        set_retry(row, &before, &after, now_ms);
    } while (!atomic_compare_exchange_weak(&row->word, &word, word_of(&after)));
    atomic_fetch_add_explicit(&row->errors[reason], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&row->ejections, 1, memory_order_relaxed);
    return true;
}

/* UP, or what it was if it is not to be. */
static bool move_up(struct server_row *row, bool trial, uint64_t now_ms)
{
    uint64_t word = atomic_load_explicit(&row->word, memory_order_relaxed);
    struct server_view before, after;
    do {
        before = view_of(word);
        if (before.state == SERVER_UP ? before.failures == 0
                                      : before.state == SERVER_EJECTED && !trial)
            return false;
        after = before;
        after.failures = 0;
        if (before.state != SERVER_UP) {
            leave(&after, SERVER_UP, now_ms);
            after.returned = before.state == SERVER_EJECTED;
        }
    } while (!atomic_compare_exchange_weak(&row->word, &word, word_of(&after)));
    return before.state != SERVER_UP;
}

bool server_note_answer(struct server_row *row, bool trial, uint64_t now_ms)
{
    return move_up(row, trial, now_ms);
}

void server_readmit(struct server_row *row, uint64_t now_ms)
{
    move_up(row, true, now_ms);
}

bool server_try(struct server_row *row, uint64_t now_ms, uint64_t late_ms, uint64_t lasts_ms,
                uint64_t *lease_ms)
{
    uint64_t due = atomic_load_explicit(&row->retry_ms, memory_order_relaxed);
    *lease_ms = now_ms + (lasts_ms < SERVER_LEASE_MS ? lasts_ms : SERVER_LEASE_MS);
    return server_view(row).state != SERVER_UP &&
           !(atomic_load_explicit(&row->check, memory_order_relaxed) & SERVER_CHECK_DOWN) &&
           due + late_ms <= now_ms &&
           atomic_compare_exchange_strong(&row->retry_ms, &due, *lease_ms);
}

void server_untry(struct server_row *row, uint64_t lease_ms, uint64_t now_ms)
{
    atomic_compare_exchange_strong(&row->retry_ms, &lease_ms, now_ms);
}

void server_hurry(struct server_row *row, uint64_t now_ms)
{
    uint64_t due = atomic_load_explicit(&row->retry_ms, memory_order_relaxed);
    if (server_view(row).state == SERVER_DOWN && due > now_ms)
        atomic_compare_exchange_strong(&row->retry_ms, &due, now_ms);
}

/* ---- kept ---- */

static void bound(_Atomic uint64_t *at_ms, uint64_t latest_ms)
{
    if (atomic_load(at_ms) > latest_ms)
        atomic_store(at_ms, latest_ms);
}

bool server_state_mend(struct server_row *row, uint64_t now_ms)
{
    const struct server_view v = server_view(row);
    if ((int)v.state > SERVER_EJECTED || v.reason >= SERVER_REASONS || v.since_ms > now_ms ||
        atomic_load(&row->level) > LEVEL_MAX)
        return false;
    /* also the lease of a trial whose process is dead */
    const uint64_t pause = v.state == SERVER_EJECTED
                               ? SERVER_EJECT_MAX_MS + SERVER_EJECT_MAX_MS / 10
                               : reasons[v.reason].max_ms;
    bound(&row->retry_ms, now_ms + pause);
    bound(&row->error_ms, now_ms);
    bound(&row->notified_ms, now_ms);
    return true;
}

/* ---- words ---- */

/* One line in that time for each server, over all processes. */
static bool may_tell(struct server_row *row, uint64_t each_ms, uint64_t now_ms, uint64_t *untold)
{
    uint64_t notified = atomic_load(&row->notified_ms);
    if ((notified && now_ms < notified + each_ms) ||
        !atomic_compare_exchange_strong(&row->notified_ms, &notified, now_ms)) {
        atomic_fetch_add(&row->untold, 1);
        return false;
    }
    *untold = atomic_exchange(&row->untold, 0);
    return true;
}

static void tell_state(const struct server_name *name, bool down, enum server_reason reason)
{
    char subject[CONDITION_SUBJECT];
    snprintf(subject, sizeof subject, "%s/%s", name->upstream, name->server);
    condition_set(name->conditions, COND_BACKEND_DOWN, subject, down, server_reason_text(reason),
                  clock_real_ms());
}

void server_report_failure(const struct server_name *name, enum server_reason reason,
                           const char *what, bool trial, uint64_t now_ms)
{
    uint64_t untold;
    char more[64] = "";
    const struct server_view before = server_view(name->row);
    const bool down = server_note_failure(name->row, reason, trial, now_ms);
    const bool known = trial && before.state == SERVER_DOWN && before.reason == reason;
    if (may_tell(name->row, known ? SERVER_REPEATED_MS : SERVER_NOTIFIED_MS, now_ms, &untold)) {
        if (untold)
            snprintf(more, sizeof more, "; %llu more errors since the last line",
                     (unsigned long long)untold);
        log_warning("upstream %s: server %s %s%s", name->upstream, name->server, what, more);
    }
    if (down)
        tell_state(name, true, reason);
}

void server_report_answer(const struct server_name *name, bool trial, uint64_t now_ms)
{
    if (server_note_answer(name->row, trial, now_ms) && server_is_up(name->row))
        tell_state(name, false, SERVER_NONE);
}

bool server_report_error(const struct server_name *name, bool trial, bool others, uint64_t now_ms)
{
    const bool ejected = server_note_error(name->row, trial, others, now_ms);
    if (!others)
        server_report_answer(name, false, now_ms);
    return ejected;
}

void server_report_ejection(const struct server_name *name, enum server_reason reason)
{
    tell_state(name, true, reason);
}

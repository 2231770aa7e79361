/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_grants: see polder/fleet_grants.h. */
#include "polder/fleet_grants.h"
#include "libshared/limit/limit_table.h"
#include "polder/clock.h"

#include <nettle/hmac.h>
#include <nettle/sha2.h>
#include <string.h>
#include <xxhash.h>

#define ASK_AGAIN_MS 100  /* an answer may have been lost with control */
#define FAST_MS      150  /* what is used up so soon was too little */
#define SLOW_MS      1000 /* and then it was too much */
#define WANT_FIRST   8
#define LEASES       10 /* of a limit in a window, for each host */

/* ---- cells ----
 *
 * The word: until when (mono ms) 40 bits | refused 1 bit | how many 23 bits. */

#define GRANT_BITS 23
#define REFUSED    (UINT64_C(1) << GRANT_BITS)

static uint64_t grant_word(uint64_t end_ms, bool refused, uint64_t n)
{
    return end_ms << (GRANT_BITS + 1) | (refused ? REFUSED : 0) | n;
}

static uint64_t end_of(uint64_t word)
{
    return word >> (GRANT_BITS + 1);
}

static uint32_t count_of(uint64_t word)
{
    return (uint32_t)word & FLEET_GRANT_MAX;
}

static limit_word *cell_of(struct fleet_grant *row)
{
    return (limit_word *)(void *)row->cell;
}

static limit_word cell_make(uint64_t key, uint64_t word)
{
    return (limit_word)word << 64 | key;
}

static uint64_t word_of(limit_word cell)
{
    return (uint64_t)(cell >> 64);
}

static struct fleet_grant *bucket_of(struct fleet_grants *g, uint64_t key)
{
    const uint64_t mixed = key * UINT64_C(0x9e3779b97f4a7c15);
    return &g->row[(mixed >> 32) % (FLEET_GRANT_ROWS / FLEET_GRANT_WAYS) * FLEET_GRANT_WAYS];
}

/* The key's row, and what its cell says. NULL: it has none. */
static struct fleet_grant *find(struct fleet_grants *g, uint64_t key, limit_word *cell)
{
    struct fleet_grant *row = bucket_of(g, key);
    for (unsigned i = 0; i < FLEET_GRANT_WAYS; i++, row++) {
        *cell = limit_word_glance(cell_of(row));
        if ((uint64_t)*cell == key)
            return row;
    }
    return NULL;
}

struct fleet_took fleet_grant_take(struct fleet_grants *g, uint64_t key, uint32_t cost,
                                   uint64_t now_ms)
{
    limit_word seen;
    struct fleet_grant *row = find(g, key, &seen);
    while (row && (uint64_t)seen == key) {
        const uint64_t word = word_of(seen);
        const uint32_t n = count_of(word);
        if (end_of(word) <= now_ms || (n < cost && !(word & REFUSED)))
            break;
        struct fleet_took took = {.end_ms = end_of(word), .left = n};
        if (n < cost) {
            took.result = FLEET_TAKE_REFUSED;
            return took;
        }
        /* before: whoever sees that they are used sees when */
        if (atomic_load_explicit(&row->used_ms, memory_order_relaxed) != now_ms)
            atomic_store_explicit(&row->used_ms, now_ms, memory_order_relaxed);
        if (!limit_word_swap(cell_of(row), &seen, cell_make(key, word - cost)))
            continue;
        took.left = n - cost;
        took.result =
            took.left < atomic_load_explicit(&row->low, memory_order_relaxed) &&
                    now_ms > atomic_load_explicit(&row->requested_ms, memory_order_relaxed) +
                                 ASK_AGAIN_MS
                ? FLEET_TAKE_LOW
                : FLEET_TAKE_DONE;
        took.left += atomic_load_explicit(&row->rest, memory_order_relaxed);
        return took;
    }
    return (struct fleet_took){.result = FLEET_TAKE_NONE};
}

bool fleet_grant_is_known(struct fleet_grants *g, uint64_t key, uint32_t cost, uint64_t now_ms)
{
    limit_word seen;
    const struct fleet_grant *row = find(g, key, &seen);
    const uint64_t word = word_of(seen);
    return !row || !atomic_load(&row->requested_ms) ||
           (end_of(word) > now_ms && (count_of(word) >= cost || word & REFUSED));
}

void fleet_grant_return(struct fleet_grants *g, uint64_t key, uint32_t cost,
                        const struct fleet_took *took)
{
    limit_word seen;
    struct fleet_grant *row = find(g, key, &seen);
    while (row && (uint64_t)seen == key && end_of(word_of(seen)) == took->end_ms &&
           count_of(word_of(seen)) + cost <= FLEET_GRANT_MAX &&
           !limit_word_swap(cell_of(row), &seen, cell_make(key, word_of(seen) + cost)))
        ;
}

/* ---- asking ---- */

/* The row that may be given to another key: a free one, or the one that was unused for longest. */
static struct fleet_grant *replaceable(struct fleet_grants *g, uint64_t key)
{
    struct fleet_grant *row = bucket_of(g, key), *oldest = row;
    for (unsigned i = 0; i < FLEET_GRANT_WAYS; i++) {
        if (!(uint64_t)limit_word_glance(cell_of(&row[i])))
            return &row[i];
        if (atomic_load(&row[i].used_ms) < atomic_load(&oldest->used_ms))
            oldest = &row[i];
    }
    return oldest;
}

/* What a row's former key had is lost. NULL: another process was faster. */
static struct fleet_grant *claim(struct fleet_grants *g, uint64_t key, uint64_t now_ms)
{
    limit_word seen;
    struct fleet_grant *row = find(g, key, &seen);
    if (row)
        return row;
    row = replaceable(g, key);
    seen = limit_word_glance(cell_of(row));
    if (!limit_word_swap(cell_of(row), &seen, cell_make(key, 0)))
        return NULL;
    atomic_store(&row->requested_ms, 0);
    atomic_store(&row->granted_ms, 0);
    atomic_store(&row->want, 0);
    atomic_store(&row->rest, 0);
    atomic_store(&row->back, 0);
    atomic_store(&row->used_ms, now_ms);
    return row;
}

static uint32_t wanted(struct fleet_grant *row, uint32_t cost, uint64_t now_ms)
{
    const uint64_t age_ms = now_ms - atomic_load(&row->granted_ms),
                   word = word_of(limit_word_glance(cell_of(row)));
    const uint32_t last = atomic_load(&row->want), unused = count_of(word);
    uint32_t want = !last                              ? WANT_FIRST
                    : end_of(word) <= now_ms && unused ? (unused < last ? last - unused : 1)
                    : age_ms < FAST_MS                 ? last * 2
                    : age_ms > SLOW_MS                 ? last / 2
                                                       : last;
    if (want < cost)
        want = cost;
    return want < FLEET_GRANT_MAX / 2 ? want : FLEET_GRANT_MAX / 2;
}

bool fleet_grant_ask(struct fleet_grants *g, unsigned worker_slot, struct fleet_want *ask,
                     uint64_t now_ms)
{
    struct fleet_grant *row = claim(g, ask->key, now_ms);
    struct fleet_wants *q = &g->asks[worker_slot];
    const uint64_t head = atomic_load_explicit(&q->head, memory_order_relaxed);
    if (!row || head - atomic_load_explicit(&q->tail, memory_order_acquire) >= FLEET_ASKS)
        return false;
    uint64_t requested_ms = atomic_load(&row->requested_ms);
    if (now_ms <= requested_ms + ASK_AGAIN_MS ||
        !atomic_compare_exchange_strong(&row->requested_ms, &requested_ms, now_ms))
        return false;
    ask->want = wanted(row, ask->cost, now_ms);
    q->at[head % FLEET_ASKS] = *ask;
    atomic_store_explicit(&q->head, head + 1, memory_order_release);
    return true;
}

bool fleet_grant_next(struct fleet_grants *g, unsigned worker_slot, struct fleet_want *out)
{
    struct fleet_wants *q = &g->asks[worker_slot];
    const uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    if (tail == atomic_load_explicit(&q->head, memory_order_acquire))
        return false;
    *out = q->at[tail % FLEET_ASKS];
    atomic_store_explicit(&q->tail, tail + 1, memory_order_release);
    return true;
}

/* What is there of the same window is added to; the clock of the store is known to be later than ours,
 * not how much, so that the earlier end of two is right. Of gcra all that is there has the end of what
 * was granted last: the store was told of it (fleet_grant_out). */
static uint64_t joined(uint64_t word, const struct fleet_want *ask, uint32_t n, uint64_t end_ms,
                       uint64_t now_ms)
{
    const uint64_t window_ms = ask->window_ms / 10; /* half of the shortest sub-window */
    const uint64_t old_ms = end_of(word),
                   apart = old_ms > end_ms ? old_ms - end_ms : end_ms - old_ms;
    const bool lives = old_ms > now_ms && count_of(word);
    if (!n && lives && count_of(word) >= ask->cost)
        return word; /* they are used first */
    if (!n && lives) /* what costs less can use them; then they are given back */
        return grant_word(old_ms < end_ms ? old_ms : end_ms, true, count_of(word));
    if (!n)
        return grant_word(end_ms, true, 0);
    const bool is_gcra = ask->algorithm == RUNTIME_GCRA;
    if (!lives || (apart > window_ms && !is_gcra))
        return grant_word(end_ms, false, n);
    const uint64_t sum = (uint64_t)count_of(word) + n;
    return grant_word((old_ms < end_ms) != is_gcra ? old_ms : end_ms, false,
                      sum < FLEET_GRANT_MAX ? sum : FLEET_GRANT_MAX);
}

/* ---- what is given back, and what is remembered ---- */

static bool is_of(const struct fleet_grant *row, const struct fleet_want *ask)
{
    return row->hash[0] == ask->hash[0] && row->hash[1] == ask->hash[1] && row->number;
}

uint32_t fleet_grant_back(struct fleet_grants *g, const struct fleet_want *ask, uint64_t now_ms,
                          uint64_t *number)
{
    limit_word seen;
    struct fleet_grant *row = find(g, ask->key, &seen);
    *number = 0;
    if (!row || !is_of(row, ask))
        return 0;
    const uint32_t back = atomic_exchange(&row->back, 0);
    if (back) {
        *number = row->back_number;
        return back;
    }
    for (uint64_t word; (uint64_t)seen == ask->key;) {
        word = word_of(seen);
        if (end_of(word) > now_ms || !count_of(word))
            break;
        if (!limit_word_swap(cell_of(row), &seen,
                             cell_make(ask->key, grant_word(end_of(word), false, 0))))
            continue;
        *number = row->number;
        return count_of(word);
    }
    return 0;
}

/* An end of its own, by which fleet_grant_return() knows it. */
static uint32_t mark_out(struct fleet_grant *row, limit_word seen, uint64_t key, uint64_t now_ms)
{
    for (uint64_t word; (uint64_t)seen == key;) {
        word = word_of(seen);
        const uint32_t n = end_of(word) > now_ms ? count_of(word) : 0;
        if (!n || limit_word_swap(cell_of(row), &seen,
                                  cell_make(key, grant_word(end_of(word) - 1, false, n))))
            return n;
    }
    return 0;
}

struct fleet_out fleet_grant_out(struct fleet_grants *g, const struct fleet_want *ask,
                                 uint64_t now_ms)
{
    limit_word seen;
    struct fleet_grant *row = find(g, ask->key, &seen);
    struct fleet_out out = {.after_ms = ask->window_ms};
    if (!row)
        return out;
    out.n = mark_out(row, seen, ask->key, now_ms);
    const uint64_t used_ms = atomic_load(&row->used_ms) + CLOCK_COARSE_MS;
    out.ago_ms = now_ms > used_ms ? now_ms - used_ms : 0;
    if (is_of(row, ask) && atomic_load(&row->format) == FLEET_FORMAT_GCRA)
        out.after_ms = used_ms > row->sent_ms ? used_ms - row->sent_ms : 0;
    return out;
}

uint32_t fleet_grant_had(struct fleet_grants *g, const struct fleet_want *ask, uint64_t now_ms)
{
    limit_word seen;
    const uint64_t own_ms = atomic_load(&g->own_until_ms[ask->limit % RUNTIME_LIMITS_MAX]);
    const struct fleet_grant *row = find(g, ask->key, &seen);
    const bool counts = own_ms && now_ms < own_ms + ask->window_ms * 6 / 5;
    return counts && !(row && is_of(row, ask)) ? ask->had : 0;
}

static enum fleet_format format_of(const struct fleet_want *ask)
{
    return ask->algorithm == RUNTIME_GCRA      ? FLEET_FORMAT_GCRA
           : ask->algorithm == RUNTIME_SLIDING ? FLEET_FORMAT_SLIDING
                                               : FLEET_FORMAT_FIXED;
}

static void remember(struct fleet_grants *g, struct fleet_grant *row, const struct fleet_want *ask,
                     const struct fleet_answer *a, bool joined)
{
    const uint32_t i = (uint32_t)(row - g->row) / FLEET_GRANTS_TOGETHER;
    const enum fleet_format format = format_of(ask);
    atomic_store(&row->format, FLEET_FORMAT_NONE);
    if (a->n && !(joined && is_of(row, ask)))
        row->number = a->number;
    else if (!is_of(row, ask))
        row->number = a->number; /* there is nothing of it in the cell */
    memcpy(row->hash, ask->hash, sizeof row->hash);
    row->ends_ms = a->ends_ms;
    row->sub_ms =
        (uint32_t)(format == FLEET_FORMAT_SLIDING ? (ask->window_ms + 4) / 5 : ask->window_ms);
    if (format == FLEET_FORMAT_GCRA) {
        row->level = a->state[0];
        row->sent_ms = a->sent_ms;
        row->requests = ask->requests;
    } else {
        for (unsigned k = 0; k < 6; k++)
            row->count[k] = a->state[k] < UINT32_MAX ? (uint32_t)a->state[k] : UINT32_MAX;
    }
    atomic_store(&row->format, format);
    atomic_fetch_or(&g->heard[i / 64], UINT64_C(1) << i % 64);
}

bool fleet_grant_put(struct fleet_grants *g, const struct fleet_want *ask,
                     const struct fleet_answer *a, uint64_t now_ms)
{
    limit_word seen;
    struct fleet_grant *row = find(g, ask->key, &seen);
    if (!row)
        return false; /* given up meanwhile */
    atomic_store(&row->low, a->n / 2);
    atomic_store(&row->want, a->n ? a->n : atomic_load(&row->want));
    atomic_store(&row->rest, a->rest);
    atomic_store(&row->granted_ms, now_ms);
    uint64_t word = 0, next = 0;
    bool done = false;
    while ((uint64_t)seen == ask->key && !done) {
        word = word_of(seen);
        next = joined(word, ask, a->n, a->end_ms, now_ms);
        done = limit_word_swap(cell_of(row), &seen, cell_make(ask->key, next));
    }
    const bool grew = done && count_of(next) >= count_of(word) + a->n;
    const uint32_t lost = done && !grew && is_of(row, ask) ? count_of(word) : 0;
    if (lost) {
        row->back_number = row->number;
        atomic_store(&row->back, lost);
    }
    if (done && a->number)
        remember(g, row, ask, a, grew && count_of(word));
    atomic_store(&row->requested_ms, 0);
    return lost > 0 || (a->n && a->end_ms <= now_ms); /* it has come too late */
}

uint32_t fleet_grant_left(struct fleet_grants *g, uint64_t key, uint64_t now_ms)
{
    limit_word seen;
    const struct fleet_grant *row = find(g, key, &seen);
    return row && end_of(word_of(seen)) > now_ms ? count_of(word_of(seen)) : 0;
}

static bool is_over(const struct fleet_grant *row, uint64_t now_ms)
{
    const uint32_t format = atomic_load(&row->format);
    const uint64_t lasts = format == FLEET_FORMAT_GCRA ? 1 : format - 1;
    return !format || row->ends_ms + lasts * row->sub_ms < now_ms;
}

const struct fleet_grant *fleet_grant_heard(const struct fleet_grants *g, uint32_t *at,
                                            uint64_t now_ms)
{
    while (*at < FLEET_GRANT_ROWS) {
        const uint32_t i = *at / FLEET_GRANTS_TOGETHER;
        if (!(atomic_load(&g->heard[i / 64]) >> i % 64 & 1)) {
            *at = (i + 1) * FLEET_GRANTS_TOGETHER;
            continue;
        }
        const struct fleet_grant *row = &g->row[(*at)++];
        if (!is_over(row, now_ms))
            return row;
    }
    return NULL;
}

void fleet_grants_renounce(struct fleet_grants *g)
{
    for (uint32_t i = 0; i < FLEET_GRANT_ROWS; i++) {
        const uint32_t k = i / FLEET_GRANTS_TOGETHER;
        if (!(atomic_load(&g->heard[k / 64]) >> k % 64 & 1))
            continue;
        g->row[i].number = 0;
        atomic_store(&g->row[i].back, 0);
    }
}

void fleet_grant_forget(struct fleet_grants *g, const struct fleet_want *ask)
{
    limit_word seen;
    struct fleet_grant *row = find(g, ask->key, &seen);
    if (row)
        atomic_store(&row->requested_ms, 0);
}

/* ---- the share ---- */

uint32_t fleet_share_part(const struct fleet_grants *g, uint32_t requests)
{
    return (uint32_t)((uint64_t)requests * atomic_load(&g->share) / FLEET_SHARE_WHOLE);
}

uint32_t fleet_lease_of(const struct fleet_grants *g, uint32_t requests, uint32_t algorithm)
{
    const uint32_t hosts = atomic_load(&g->hosts),
                   lease = requests / (LEASES * (hosts ? hosts : 1)),
                   min = algorithm == RUNTIME_GCRA ? 2 : 1;
    return lease < min ? min : lease < FLEET_GRANT_MAX / 2 ? lease : FLEET_GRANT_MAX / 2;
}

uint32_t fleet_lease_for(const struct fleet_grants *g, const struct fleet_want *ask)
{
    const uint32_t lease = fleet_lease_of(g, ask->requests, ask->algorithm);
    return ask->algorithm == RUNTIME_GCRA ? lease / 2 : lease;
}

static uint64_t lasts(uint64_t window_ms)
{
    const uint64_t brief_ms = window_ms < FLEET_LASTS_MS ? window_ms : FLEET_LASTS_MS;
    return window_ms / 10 > brief_ms ? window_ms / 10 : brief_ms;
}

/* The clock of the store is another one, and so long later it may be a thousandth ahead. */
static uint64_t begins_after(const struct fleet_terms *t)
{
    const uint64_t more_ms = t->algorithm == RUNTIME_FIXED  ? 0
                             : t->algorithm == RUNTIME_GCRA ? lasts(t->window_ms)
                                                            : t->window_ms / 5;
    return t->window_ms + more_ms + t->window_ms / 1000 + 2 * CLOCK_COARSE_MS + 1;
}

/* That it is used is noted before it is looked whether it may be: whoever has taken it away knows of
 * all that was used. */
uint32_t fleet_share_of(struct fleet_grants *g, const struct fleet_terms *terms, uint64_t now_ms,
                        uint64_t *wait_ms)
{
    const uint64_t from_ms = atomic_load(&g->share_from_ms),
                   begins_ms = from_ms + begins_after(terms);
    const uint32_t part = fleet_share_part(g, terms->requests);
    *wait_ms = !from_ms ? terms->window_ms : now_ms < begins_ms ? begins_ms - now_ms : 0;
    if (*wait_ms || !part)
        return 0;
    atomic_store(&g->share_used_ms, now_ms);
    if (atomic_load(&g->share_from_ms) == from_ms)
        return part;
    *wait_ms = 1;
    return 0;
}

uint64_t fleet_share_from(struct fleet_grants *g, uint64_t from_ms)
{
    return atomic_exchange(&g->share_from_ms, from_ms);
}

/* ---- hashes ---- */

void fleet_grants_secret(const char *name, const char *secret, uint8_t out[FLEET_GRANTS_SECRET])
{
    static const char purpose[] = "limits";
    struct hmac_sha256_ctx hmac;
    hmac_sha256_set_key(&hmac, strlen(secret), (const uint8_t *)secret);
    for (uint8_t i = 0; i < FLEET_GRANTS_SECRET / SHA256_DIGEST_SIZE; i++) {
        hmac_sha256_update(&hmac, sizeof purpose, (const uint8_t *)purpose);
        hmac_sha256_update(&hmac, strlen(name), (const uint8_t *)name);
        hmac_sha256_update(&hmac, 1, &i);
        hmac_sha256_digest(&hmac, SHA256_DIGEST_SIZE, out + i * SHA256_DIGEST_SIZE);
    }
}

void fleet_grants_hash(const uint8_t secret[FLEET_GRANTS_SECRET], uint64_t limit_id,
                       const void *who, size_t len, uint64_t hash[2])
{
    const XXH128_hash_t of = XXH3_128bits_withSecret(who, len, secret, FLEET_GRANTS_SECRET);
    const uint64_t whole[3] = {limit_id, of.low64, of.high64};
    const XXH128_hash_t h =
        XXH3_128bits_withSecret(whole, sizeof whole, secret, FLEET_GRANTS_SECRET);
    hash[0] = h.low64;
    hash[1] = h.high64;
}

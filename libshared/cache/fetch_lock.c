/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fetch_lock: the table of fetches under way.
 *
 * The fetch of a key may be in any of the WINDOW slots after its hash. Its state is one word:
 *
 *   tag 32 | nonce 11 | incarnation 12 | worker 7 | state 2          0: free
 *
 * A claim goes 0 -> CLAIMED -> LEADING. Two workers that meet a new key at the same instant may
 * CLAIM two slots of its window, when a slot between them is freed meanwhile; before it leads, each
 * looks at the whole window again: a LEADING one beats it, of two CLAIMED ones the lower slot takes
 * the other back to 0, whose compare-and-swap to LEADING then fails. So one leads, never two, and
 * no process waits for a lock. The nonce distinguishes two claims of one key by one worker.
 *
 * What a death leaves: a word (fetch_lock_reap frees it), a bit of a dead waiter (an eventfd write
 * for its successor, harmless), waiters of a free slot (reap wakes them; the lease bounds it).
 */
#include "polder/fetch_lock.h"
#include "polder/cache.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define WINDOW         8
#define NOSHARE_MEMORY 3 /* a slot; for keys that were fetched there */
#define NOSHARE_MS     30000
#define CLAIM_TRIES    64

#define STATE_MASK    UINT64_C(3)
#define STATE_CLAIMED UINT64_C(1)
#define STATE_LEADING UINT64_C(2)
#define WORKER_SHIFT  2
#define WORKER_MASK   UINT64_C(0x7f)
#define INC_SHIFT     9
#define INC_MASK      UINT64_C(0xfff)
#define NONCE_SHIFT   21
#define NONCE_MASK    UINT64_C(0x7ff)
#define TAG_SHIFT     32
#define ANSWERED      (UINT32_C(1) << 31)

struct fetch_lock_slot {
    _Alignas(64) _Atomic uint64_t word;
    _Atomic uint64_t waiters[2]; /* a bit per worker slot: eventfds to write on release */
    _Atomic uint64_t lease;      /* end of the lease, mono ms << 11 | nonce of its claim */
    _Atomic uint32_t claims;     /* how many; its low bits are the nonce */
    _Atomic uint32_t answered;   /* ANSWERED | nonce of the claim whose response has begun */
    /* tag << 32 | until, mono ms / 256: an answer for that tag could not be shared */
    _Atomic uint64_t noshare[NOSHARE_MEMORY];
};
_Static_assert(sizeof(struct fetch_lock_slot) == 64, "a cache line");

struct fetch_lock_table {
    struct shm_header header;
    struct fetch_lock_slot slot[FETCH_LOCK_SLOTS];
};

size_t fetch_lock_table_size(void)
{
    return sizeof(struct fetch_lock_table);
}

uint64_t fetch_lock_table_layout(void)
{
    return (uint64_t)sizeof(struct fetch_lock_table) << 24 |
           offsetof(struct fetch_lock_slot, noshare) << 16 |
           offsetof(struct fetch_lock_slot, lease) << 8 | NONCE_SHIFT;
}

static uint64_t word_tag(uint64_t word)
{
    return word >> TAG_SHIFT;
}

/* The same claim, whether it was already confirmed when it was looked at or not. */
static bool word_same(uint64_t a, uint64_t b)
{
    return a != 0 && (a & ~STATE_MASK) == (b & ~STATE_MASK);
}

static uint32_t key_home(const struct cache_key *key)
{
    uint32_t v;
    memcpy(&v, key->hash, sizeof v);
    return v % FETCH_LOCK_SLOTS;
}

static uint64_t key_tag(const struct cache_key *key)
{
    uint32_t v;
    memcpy(&v, key->hash + 8, sizeof v);
    return v;
}

static struct fetch_lock_slot *window_slot(struct fetch_lock_table *table, uint32_t home,
                                           uint32_t i)
{
    return &table->slot[(home + i) % FETCH_LOCK_SLOTS];
}

static uint32_t slot_index(const struct fetch_lock_table *table, const struct fetch_lock_slot *slot)
{
    return (uint32_t)(slot - table->slot);
}

static void waiters_wake(struct fetch_lock_slot *slot, const int *worker_events)
{
    const uint64_t one = 1;
    for (unsigned half = 0; half < 2; half++) {
        uint64_t bits = atomic_load(&slot->waiters[half]);
        if (bits)
            bits = atomic_exchange(&slot->waiters[half], 0);
        while (bits) {
            const unsigned bit = (unsigned)__builtin_ctzll(bits);
            bits &= bits - 1;
            const ssize_t n = write(worker_events[half * 64 + bit], &one, sizeof one);
            (void)n; /* EAGAIN: it is far from zero, the worker wakes anyway */
        }
    }
}

/* Waiters of a claim that was taken back are woken by the winner. Their bits stay where
 * they are as well: the slot may already carry another claim, and a superfluous wake-up is
 * harmless where a missing one is not. */
static void waiters_share(struct fetch_lock_slot *from, struct fetch_lock_slot *to)
{
    for (unsigned half = 0; half < 2; half++)
        atomic_fetch_or(&to->waiters[half], atomic_load(&from->waiters[half]));
}

static bool lease_expired(const struct fetch_lock_slot *slot, uint64_t word, uint64_t now_ms)
{
    const uint64_t lease = atomic_load(&slot->lease);
    /* Another nonce: the leader has not written its own lease yet. */
    return (lease & NONCE_MASK) == ((word >> NONCE_SHIFT) & NONCE_MASK) && now_ms >= lease >> 11;
}

static uint64_t lease_of(uint64_t word, uint64_t now_ms)
{
    return (now_ms + FETCH_LOCK_LEASE_MS) << 11 | ((word >> NONCE_SHIFT) & NONCE_MASK);
}

/* The slot of the key's fetch, or NULL with the first free one in *vacant (NULL: none).
 * Claims whose lease has run out are released on the way. */
static struct fetch_lock_slot *window_find(struct fetch_lock_table *table, uint32_t home,
                                           uint64_t tag, uint64_t now_ms, uint64_t *word,
                                           struct fetch_lock_slot **vacant)
{
    *vacant = NULL;
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct fetch_lock_slot *slot = window_slot(table, home, i);
        uint64_t seen = atomic_load(&slot->word);
        if (seen && lease_expired(slot, seen, now_ms)) {
            atomic_compare_exchange_strong(&slot->word, &seen, 0);
            seen = atomic_load(&slot->word);
        }
        if (seen && word_tag(seen) == tag) {
            *word = seen;
            return slot;
        }
        if (!seen && !*vacant)
            *vacant = slot;
    }
    return NULL;
}

/* The second look of a claimer: true if no other claim of the key stands against it. */
static bool window_settle(struct fetch_lock_table *table, uint32_t home,
                          struct fetch_lock_slot *mine, uint64_t tag)
{
    bool below = true; /* slots before mine in the window: they win among CLAIMED ones */
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct fetch_lock_slot *slot = window_slot(table, home, i);
        if (slot == mine) {
            below = false;
            continue;
        }
        uint64_t seen = atomic_load(&slot->word);
        while (seen && word_tag(seen) == tag) {
            if (below || (seen & STATE_MASK) == STATE_LEADING)
                return false;
            if (atomic_compare_exchange_weak(&slot->word, &seen, 0)) {
                waiters_share(slot, mine);
                break;
            }
        }
    }
    return true;
}

/* One try to lead from a vacant slot. */
static bool slot_lead(struct fetch_lock_table *table, uint32_t home, struct fetch_lock_slot *slot,
                      uint64_t identity, uint64_t now_ms, struct fetch_permit *permit)
{
    const uint64_t nonce = atomic_fetch_add(&slot->claims, 1) & NONCE_MASK;
    const uint64_t claimed = identity | nonce << NONCE_SHIFT | STATE_CLAIMED;
    const uint64_t leading = (claimed & ~STATE_MASK) | STATE_LEADING;
    uint64_t expected = 0;
    if (!atomic_compare_exchange_strong(&slot->word, &expected, claimed))
        return false;
    atomic_store(&slot->lease, lease_of(claimed, now_ms));
    expected = claimed;
    if (window_settle(table, home, slot, word_tag(identity)) &&
        atomic_compare_exchange_strong(&slot->word, &expected, leading)) {
        *permit = (struct fetch_permit){leading, slot_index(table, slot)};
        return true;
    }
    /* Lost. Waiters that registered here are passed to the winner, wherever in the window it is; if
     * it was released already, the next release or the lease wakes them. */
    expected = claimed;
    atomic_compare_exchange_strong(&slot->word, &expected, 0);
    uint64_t word;
    struct fetch_lock_slot *vacant;
    struct fetch_lock_slot *winner =
        window_find(table, home, word_tag(identity), now_ms, &word, &vacant);
    if (winner && winner != slot)
        waiters_share(slot, winner);
    return false;
}

static bool waiter_register(struct fetch_lock_slot *slot, uint64_t word, uint32_t worker)
{
    atomic_fetch_or(&slot->waiters[worker / 64], UINT64_C(1) << worker % 64);
    return word_same(atomic_load(&slot->word), word);
}

enum fetch_lock_claim fetch_lock_claim(struct fetch_lock_table *table, const struct cache_key *key,
                                       uint32_t worker, uint32_t incarnation, uint64_t now_ms,
                                       struct fetch_permit *permit)
{
    const uint32_t home = key_home(key);
    const uint64_t tag = key_tag(key);
    const uint64_t identity = tag << TAG_SHIFT | (incarnation & INC_MASK) << INC_SHIFT |
                              (worker & WORKER_MASK) << WORKER_SHIFT;
    for (int tries = 0; tries < CLAIM_TRIES; tries++) {
        uint64_t word;
        struct fetch_lock_slot *vacant;
        struct fetch_lock_slot *slot = window_find(table, home, tag, now_ms, &word, &vacant);
        if (slot) {
            if (!waiter_register(slot, word, worker))
                continue;
            *permit = (struct fetch_permit){word, slot_index(table, slot)};
            return FETCH_LOCK_WAIT;
        }
        if (!vacant)
            break;
        if (slot_lead(table, home, vacant, identity, now_ms, permit))
            return FETCH_LOCK_LEAD;
    }
    *permit = FETCH_LOCK_NONE;
    return FETCH_LOCK_FULL;
}

bool fetch_lock_join(struct fetch_lock_table *table, const struct cache_key *key, uint32_t worker,
                     uint64_t now_ms, struct fetch_permit *permit)
{
    for (int tries = 0; tries < CLAIM_TRIES; tries++) {
        uint64_t word;
        struct fetch_lock_slot *vacant;
        struct fetch_lock_slot *slot =
            window_find(table, key_home(key), key_tag(key), now_ms, &word, &vacant);
        if (!slot)
            break;
        if (waiter_register(slot, word, worker)) {
            *permit = (struct fetch_permit){word, slot_index(table, slot)};
            return true;
        }
    }
    *permit = FETCH_LOCK_NONE;
    return false;
}

static struct fetch_lock_slot *lock_slot(struct fetch_lock_table *table,
                                         const struct fetch_permit *permit)
{
    return permit->slot < FETCH_LOCK_SLOTS && permit->word ? &table->slot[permit->slot] : NULL;
}

bool fetch_lock_pending(struct fetch_lock_table *table, const struct fetch_permit *permit,
                        uint64_t now_ms)
{
    struct fetch_lock_slot *slot = lock_slot(table, permit);
    if (!slot)
        return false;
    uint64_t word = atomic_load(&slot->word);
    if (!word_same(word, permit->word))
        return false;
    if (!lease_expired(slot, word, now_ms))
        return true;
    /* Each waiter has a timer of its own for this, so none needs to be woken. */
    atomic_compare_exchange_strong(&slot->word, &word, 0);
    return false;
}

bool fetch_lock_wait_again(struct fetch_lock_table *table, const struct fetch_permit *permit,
                           uint32_t worker)
{
    struct fetch_lock_slot *slot = lock_slot(table, permit);
    return slot && waiter_register(slot, permit->word, worker);
}

bool fetch_lock_is_awaited(struct fetch_lock_table *table, const struct fetch_permit *permit)
{
    const struct fetch_lock_slot *slot = lock_slot(table, permit);
    return slot && word_same(atomic_load(&slot->word), permit->word) &&
           (atomic_load(&slot->waiters[0]) || atomic_load(&slot->waiters[1]));
}

void fetch_lock_renew(struct fetch_lock_table *table, const struct fetch_permit *permit,
                      uint64_t now_ms)
{
    struct fetch_lock_slot *slot = lock_slot(table, permit);
    if (!slot || !word_same(atomic_load(&slot->word), permit->word))
        return;
    uint64_t lease = atomic_load(&slot->lease);
    const uint64_t renewed = lease_of(permit->word, now_ms);
    if ((lease & NONCE_MASK) == (renewed & NONCE_MASK)) /* else it is another claim's by now */
        atomic_compare_exchange_strong(&slot->lease, &lease, renewed);
}

void fetch_lock_hand_over(struct fetch_lock_table *table, const struct fetch_permit *permit,
                          uint64_t now_ms)
{
    fetch_lock_renew(table, permit, now_ms + FETCH_LOCK_STORE_MS - FETCH_LOCK_LEASE_MS);
}

static uint32_t nonce_of(uint64_t word)
{
    return (uint32_t)(word >> NONCE_SHIFT & NONCE_MASK);
}

void fetch_lock_note_answer(struct fetch_lock_table *table, const struct fetch_permit *permit)
{
    struct fetch_lock_slot *slot = lock_slot(table, permit);
    if (slot && word_same(atomic_load(&slot->word), permit->word))
        atomic_store(&slot->answered, ANSWERED | nonce_of(permit->word));
}

bool fetch_lock_is_silent(struct fetch_lock_table *table, const struct fetch_permit *permit)
{
    struct fetch_lock_slot *slot = lock_slot(table, permit);
    return slot && atomic_load(&slot->answered) != (ANSWERED | nonce_of(permit->word));
}

static uint64_t noshare_until(uint64_t entry)
{
    return (entry & UINT32_MAX) << 8;
}

/* Remembers the tag in the entry that has it already, or in the one that ends soonest. */
static void noshare_remember(struct fetch_lock_slot *slot, uint64_t tag, uint64_t until_ms)
{
    unsigned victim = 0;
    uint64_t soonest = UINT64_MAX;
    for (unsigned i = 0; i < NOSHARE_MEMORY; i++) {
        const uint64_t entry = atomic_load_explicit(&slot->noshare[i], memory_order_relaxed);
        if (entry && entry >> 32 == tag) {
            victim = i;
            break;
        }
        if (noshare_until(entry) < soonest) {
            soonest = noshare_until(entry);
            victim = i;
        }
    }
    atomic_store(&slot->noshare[victim], tag << 32 | ((until_ms >> 8) & UINT32_MAX));
}

void fetch_lock_release(struct fetch_lock_table *table, const struct fetch_permit *permit,
                        enum fetch_lock_result result, const int *worker_events)
{
    struct fetch_lock_slot *slot = lock_slot(table, permit);
    if (!slot)
        return;
    uint64_t word = atomic_load(&slot->word);
    if (!word_same(word, permit->word))
        return;
    if (result == FETCH_LOCK_NOSHARE) {
        /* The lease was written from the leader's clock: no need to ask for the time here. */
        const uint64_t lease_ms = atomic_load(&slot->lease) >> 11;
        noshare_remember(slot, word_tag(word), lease_ms - FETCH_LOCK_LEASE_MS + NOSHARE_MS);
    }
    if (atomic_compare_exchange_strong(&slot->word, &word, 0))
        waiters_wake(slot, worker_events);
}

uint64_t fetch_lock_noshare_ms(struct fetch_lock_table *table, const struct cache_key *key,
                               uint64_t now_ms)
{
    const uint32_t home = key_home(key);
    const uint64_t tag = key_tag(key);
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct fetch_lock_slot *slot = window_slot(table, home, i);
        for (unsigned m = 0; m < NOSHARE_MEMORY; m++) {
            const uint64_t entry = atomic_load_explicit(&slot->noshare[m], memory_order_relaxed);
            if (entry && entry >> 32 == tag && now_ms < noshare_until(entry))
                return noshare_until(entry) - now_ms;
        }
    }
    return 0;
}

bool fetch_lock_is_noshare(struct fetch_lock_table *table, const struct cache_key *key,
                           uint64_t now_ms)
{
    return fetch_lock_noshare_ms(table, key, now_ms) > 0;
}

bool fetch_lock_is_claimed(struct fetch_lock_table *table, const struct cache_key *key,
                           uint64_t now_ms)
{
    const uint32_t home = key_home(key);
    for (uint32_t i = 0; i < WINDOW; i++) {
        const struct fetch_lock_slot *slot = window_slot(table, home, i);
        const uint64_t word = atomic_load(&slot->word);
        if (word && word_tag(word) == key_tag(key) && !lease_expired(slot, word, now_ms))
            return true;
    }
    return false;
}

void fetch_lock_reap(struct fetch_lock_table *table, uint32_t worker, uint32_t incarnation,
                     const int *worker_events)
{
    for (uint32_t i = 0; i < FETCH_LOCK_SLOTS; i++) {
        struct fetch_lock_slot *slot = &table->slot[i];
        uint64_t word = atomic_load(&slot->word);
        if (word && ((word >> WORKER_SHIFT) & WORKER_MASK) == worker &&
            ((word >> INC_SHIFT) & INC_MASK) == (incarnation & INC_MASK))
            atomic_compare_exchange_strong(&slot->word, &word, 0);
        if (atomic_load(&slot->word) == 0)
            waiters_wake(slot, worker_events);
    }
}

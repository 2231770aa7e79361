/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fetch_lock: one fetch for any number of simultaneous misses of one key, over all workers.
 *
 * 4096 slots of 64 bytes or more. A claim is one compare-and-swap of a word from 0 to {tag,
 * incarnation, worker slot}. Others set their bit in `waiters`, look at the word again and sleep on
 * their eventfd only if it has not changed. Release: word to 0, then the waiters'
 * eventfds are written. The keeper releases after its commit (the permit travels in the ring
 * record), the worker when nothing is stored. The master frees what a dead worker held and wakes
 * all waiters of free slots, which also repairs a leader killed between the two steps. A lease (10
 * s, renewed by a leader while its backend works or streams) bounds every wait.
 */
#ifndef POLDER_FETCH_LOCK_H
#define POLDER_FETCH_LOCK_H
#include "polder/shm.h"
#include <stdbool.h>

struct cache_key;
struct shared;
struct fetch_lock_table;
#define FETCH_LOCK_SLOTS    4096
#define FETCH_LOCK_LEASE_MS 10000
#define FETCH_LOCK_STORE_MS 1500 /* time that the keeper has to store what was fetched */

/* Names a claim; travels in ring records. slot == UINT32_MAX: none. */
struct fetch_permit {
    uint64_t word;
    uint32_t slot;
};
#define FETCH_LOCK_NONE ((struct fetch_permit){0, UINT32_MAX})

enum fetch_lock_claim {
    FETCH_LOCK_LEAD, /* yours: fetch, then release */
    FETCH_LOCK_WAIT, /* another request fetches; your eventfd will be written */
    FETCH_LOCK_FULL, /* no slot: fetch without collapsing */
};
enum fetch_lock_result {
    FETCH_LOCK_STORED,  /* look it up again */
    FETCH_LOCK_NOSHARE, /* not cacheable: fetch for yourself, and do not wait for this key for a
                         * while
                         */
    FETCH_LOCK_FAILED,  /* the leader failed or died: another one leads */
};

size_t fetch_lock_table_size(void);
uint64_t fetch_lock_table_layout(void);

enum fetch_lock_claim fetch_lock_claim(struct fetch_lock_table *table, const struct cache_key *key,
                                       uint32_t worker, uint32_t incarnation, uint64_t now_ms,
                                       struct fetch_permit *permit);
/* Waits for the fetch of that key, as FETCH_LOCK_WAIT; false: there is none. Never leads. */
bool fetch_lock_join(struct fetch_lock_table *table, const struct cache_key *key, uint32_t worker,
                     uint64_t now_ms, struct fetch_permit *permit);
/* Is the fetch still under way? Waiters ask after their eventfd fired and on lease timeouts (an
 * expired lease is released). */
bool fetch_lock_pending(struct fetch_lock_table *table, const struct fetch_permit *permit,
                        uint64_t now_ms);
/* Registers again after a spurious wake-up; false if the claim was released meanwhile. */
bool fetch_lock_wait_again(struct fetch_lock_table *table, const struct fetch_permit *permit,
                           uint32_t worker);
/* May there be waiters? A waiter that has left cannot be told from one that has not. */
bool fetch_lock_is_awaited(struct fetch_lock_table *table, const struct fetch_permit *permit);
void fetch_lock_renew(struct fetch_lock_table *table, const struct fetch_permit *permit,
                      uint64_t now_ms);
/* The response is fetched and with the keeper, which releases the claim: if it hangs, waiters wait no
 * longer than FETCH_LOCK_STORE_MS. */
void fetch_lock_hand_over(struct fetch_lock_table *table, const struct fetch_permit *permit,
                          uint64_t now_ms);
/* The response has begun: from now on waiters wait for its body. */
void fetch_lock_note_answer(struct fetch_lock_table *table, const struct fetch_permit *permit);
/* Did the backend send nothing for that claim, up to now or until its release? Only for waiters, and
 * those just woken: a later claim in the same slot overwrites the mark. */
bool fetch_lock_is_silent(struct fetch_lock_table *table, const struct fetch_permit *permit);
/* worker_events: shared.worker_event. Harmless if it is not (any more) the permit's claim. */
void fetch_lock_release(struct fetch_lock_table *table, const struct fetch_permit *permit,
                        enum fetch_lock_result result, const int *worker_events);
/* The last result for that key in its slot, e.g. NOSHARE within the last 30 s (hit-for-miss). */
bool fetch_lock_is_noshare(struct fetch_lock_table *table, const struct cache_key *key,
                           uint64_t now_ms);
/* How long that result stays known, ms; 0: none is known. */
uint64_t fetch_lock_noshare_ms(struct fetch_lock_table *table, const struct cache_key *key,
                               uint64_t now_ms);
/* Is a fetch of it under way? Changes nothing. */
bool fetch_lock_is_claimed(struct fetch_lock_table *table, const struct cache_key *key,
                           uint64_t now_ms);
/* master: a worker died */
void fetch_lock_reap(struct fetch_lock_table *table, uint32_t worker, uint32_t incarnation,
                     const int *worker_events);
#endif

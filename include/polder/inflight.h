/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * inflight: one fetch for any number of simultaneous misses of one key, over all workers.
 *
 * 4096 slots of 64 bytes or more. A claim is one compare-and-swap of a word from 0 to {tag,
 * incarnation, worker slot}. Others set their bit in `waiters`, look at the word again and sleep on
 * their eventfd only if it has not changed. Landing: word to 0, then the waiters' eventfds are
 * written. The keeper lands a flight after its commit (the flight travels in the ring record), the
 * worker lands what is not stored. The master frees what a dead worker held and wakes all waiters
 * of free slots, which also repairs a leader killed between the two steps. A lease (10 s, renewed
 * by a leader whose backend thinks or streams) bounds every wait.
 */
#ifndef POLDER_INFLIGHT_H
#define POLDER_INFLIGHT_H
#include "polder/shm.h"
#include <stdbool.h>

struct cache_key;
struct shared;
struct inflight_table;
#define INFLIGHT_SLOTS    4096
#define INFLIGHT_LEASE_MS 10000
#define INFLIGHT_STORE_MS 1500 /* the keeper has so long to store what has been fetched */

/* Names a claimed flight; travels in ring records. slot == UINT32_MAX: none. */
struct inflight_ticket {
    uint64_t word;
    uint32_t slot;
};
#define INFLIGHT_NONE ((struct inflight_ticket){0, UINT32_MAX})

enum inflight_claim {
    INFLIGHT_LEAD, /* yours: fetch, then land */
    INFLIGHT_WAIT, /* somebody fetches; your eventfd will be written */
    INFLIGHT_FULL, /* no slot: fetch without collapsing */
};
enum inflight_result {
    INFLIGHT_STORED,  /* look it up again */
    INFLIGHT_NOSHARE, /* not cacheable: fetch for yourself, and do not wait for this key for a while
                       */
    INFLIGHT_FAILED,  /* the leader failed or died: somebody else leads */
};

size_t inflight_table_size(void);
uint64_t inflight_table_layout(void);

enum inflight_claim inflight_claim(struct inflight_table *table, const struct cache_key *key,
                                   uint32_t worker, uint32_t incarnation, uint64_t now_ms,
                                   struct inflight_ticket *ticket);
/* Waits for the flight of that key, as INFLIGHT_WAIT; false: there is none. Never leads. */
bool inflight_join(struct inflight_table *table, const struct cache_key *key, uint32_t worker,
                   uint64_t now_ms, struct inflight_ticket *ticket);
/* Still flying? Waiters ask after their eventfd fired and on lease timeouts (an expired lease
 * lands). */
bool inflight_pending(struct inflight_table *table, const struct inflight_ticket *ticket,
                      uint64_t now_ms);
/* Registers again after a spurious wake-up; false if the flight has landed meanwhile. */
bool inflight_wait_again(struct inflight_table *table, const struct inflight_ticket *ticket,
                         uint32_t worker);
/* May somebody wait for it? A waiter that has left is not told from one that has not. */
bool inflight_is_awaited(struct inflight_table *table, const struct inflight_ticket *ticket);
void inflight_renew(struct inflight_table *table, const struct inflight_ticket *ticket,
                    uint64_t now_ms);
/* The response is fetched and with the keeper, which lands the flight: where it stands still, those
 * who wait shall do so no longer than INFLIGHT_STORE_MS. */
void inflight_hand_over(struct inflight_table *table, const struct inflight_ticket *ticket,
                        uint64_t now_ms);
/* The response has begun: from now on those who wait do so for its body. */
void inflight_note_answer(struct inflight_table *table, const struct inflight_ticket *ticket);
/* Has the backend said nothing for that flight, or did it not until it landed? For who waits, or is
 * woken just now: a later flight in the same place takes its mark. */
bool inflight_is_silent(struct inflight_table *table, const struct inflight_ticket *ticket);
/* worker_events: shared.worker_event. Harmless if it is not (any more) the ticket's flight. */
void inflight_land(struct inflight_table *table, const struct inflight_ticket *ticket,
                   enum inflight_result result, const int *worker_events);
/* The last result for that key in its slot, e.g. NOSHARE within the last 30 s (hit-for-miss). */
bool inflight_is_noshare(struct inflight_table *table, const struct cache_key *key,
                         uint64_t now_ms);
/* How long that memory lasts, ms; 0: there is none. */
uint64_t inflight_noshare_ms(struct inflight_table *table, const struct cache_key *key,
                             uint64_t now_ms);
/* Is somebody fetching it? Changes nothing. */
bool inflight_is_flying(struct inflight_table *table, const struct cache_key *key, uint64_t now_ms);
/* master: a worker died */
void inflight_reap(struct inflight_table *table, uint32_t worker, uint32_t incarnation,
                   const int *worker_events);
#endif

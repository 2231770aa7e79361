/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * evict: which object is evicted when room is needed. Private to the keeper (and to the replay
 * bench).
 *
 * The policy knows slots, weights and the shared use counts, nothing of LMDB. Three functions are
 * its interface: an object is stored (evict_insert), one must be evicted (evict_victim), one was
 * removed for another reason (evict_remove). All of it is private memory: after a crash
 * evict_adopt() is called for every object in the order of insertion, and the use counts are still
 * in shared memory.
 */
#ifndef POLDER_KEEPER_EVICT_H
#define POLDER_KEEPER_EVICT_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define EVICT_NONE UINT32_MAX

/* The resource that is short. */
enum evict_bound { EVICT_ITEMS, EVICT_SPACE };

struct evict;

/* use: one a slot, as polder/access_bits.h has them. NULL where memory is short. */
struct evict *evict_new(uint32_t slots, _Atomic uint8_t *use);
void evict_free(struct evict *e);
/* How many objects there may be: about as many recent evictions are remembered. Memory grows with
 * it; a large change of the figure forgets them. */
void evict_expect(struct evict *e, uint32_t items);
void evict_clear(struct evict *e); /* forgets all objects, but not which ones were evicted lately */

/* An object came. print: 64 random-looking bits of its key. */
void evict_insert(struct evict *e, uint32_t slot, uint64_t print, uint32_t weight);
/* One that was here before, after a crash or in place of an older version. */
void evict_adopt(struct evict *e, uint32_t slot, uint64_t print, uint32_t weight, bool settled);
/* Is it among those that proved useful? (evict_adopt's `settled`) */
bool evict_is_settled(const struct evict *e, uint32_t slot);
void evict_remove(struct evict *e, uint32_t slot);
void evict_resize(struct evict *e, uint32_t slot, uint32_t weight);
/* Takes one out and returns it; EVICT_NONE where there is none. */
uint32_t evict_victim(struct evict *e, enum evict_bound bound);

#endif

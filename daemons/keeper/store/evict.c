/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * evict: S3-FIFO (Yang et al., SOSP 2023) with a small queue that finds its own size.
 *
 * New objects enter a small queue. Those used there move to the main queue, the others are evicted.
 * The main queue gives every used object another round. Recently evicted ones are remembered as
 * ghosts; an object with a ghost enters the main queue at once. Hits move nothing: they raise one
 * byte.
 *
 * How large the small queue should be depends on the traffic: a twentieth where popularity is
 * steady, half of the store where it drifts. The ghosts tell: an object that returns soon after
 * leaving the small queue would have been a hit if that had been a little larger, one that returns
 * soon after leaving the main queue, if that had. Each moves the border a little in its direction.
 * The figures against LRU: tests/bench/replay_evict.c.
 */
#include "daemons/keeper/store/evict.h"
#include "polder/access_bits.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SHARE_FIRST 0.10 /* of the small queue */
#define SHARE_MIN   0.05
#define SHARE_MAX   0.90
#define SHARE_STEP  5.0   /* objects the border moves for one ghost that came back soon */
#define SOON        10    /* among the last departures, up to this fraction of the objects held */
#define STEPS_MAX   16384 /* looked at for one victim; then the next one goes, used or not */
#define GHOST_WAYS  4

enum place { NOWHERE, SMALL, MAIN };

struct node {
    uint32_t next, prev; /* towards the tail (newer), towards the head (older) */
    uint32_t weight;
    uint32_t print;
    uint8_t place; /* enum place */
};

struct queue {
    uint32_t head, tail; /* oldest, newest */
    uint32_t items;
    uint64_t weight;
};

/* Recently evicted: from which queue, and when, counted in departures from it. */
struct ghost {
    uint32_t print; /* 0: none */
    uint32_t when;
    uint8_t place; /* enum place */
};

struct evict {
    struct node *node; /* [slots] */
    uint32_t slots;
    _Atomic uint8_t *use;
    struct queue queue[3]; /* by place */
    struct ghost *ghost;
    uint32_t ghost_mask;    /* of buckets */
    uint32_t departures[3]; /* by place */
    double share;           /* of the small queue, as it should be */
};

static void *table_alloc(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void queue_reset(struct evict *e)
{
    for (unsigned i = 0; i < 3; i++)
        e->queue[i] = (struct queue){EVICT_NONE, EVICT_NONE, 0, 0};
}

/* Places for twice as many as are held: they fill unevenly. Each one that was ever used is memory
 * that stays, so random URLs would fill a table for the most objects that there can be. */
static uint32_t buckets_for(uint32_t items)
{
    uint32_t buckets = 256;
    while (buckets < items / (GHOST_WAYS / 2) && buckets < 1u << 22)
        buckets *= 2;
    return buckets;
}

static bool ghosts_make(struct evict *e, uint32_t buckets)
{
    struct ghost *ghost = table_alloc((size_t)buckets * GHOST_WAYS * sizeof *ghost);
    if (!ghost)
        return false;
    if (e->ghost)
        munmap(e->ghost, ((size_t)e->ghost_mask + 1) * GHOST_WAYS * sizeof *e->ghost);
    e->ghost = ghost;
    e->ghost_mask = buckets - 1;
    return true;
}

void evict_expect(struct evict *e, uint32_t items)
{
    const uint32_t buckets = buckets_for(items < e->slots ? items : e->slots);
    if (buckets != e->ghost_mask + 1)
        ghosts_make(e, buckets); /* no memory: as it was */
}

struct evict *evict_new(uint32_t slots, _Atomic uint8_t *use)
{
    struct evict *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->slots = slots;
    e->share = SHARE_FIRST;
    e->use = use;
    e->node = table_alloc(slots * sizeof *e->node);
    queue_reset(e);
    if (!e->node || !ghosts_make(e, buckets_for(slots))) {
        evict_free(e);
        return NULL;
    }
    return e;
}

void evict_free(struct evict *e)
{
    if (!e)
        return;
    if (e->node)
        munmap(e->node, e->slots * sizeof *e->node);
    if (e->ghost)
        munmap(e->ghost, ((size_t)e->ghost_mask + 1) * GHOST_WAYS * sizeof *e->ghost);
    free(e);
}

void evict_clear(struct evict *e)
{
    madvise(e->node, e->slots * sizeof *e->node, MADV_DONTNEED);
    queue_reset(e);
}

/* ---- queues ---- */

static void queue_push(struct evict *e, enum place place, uint32_t slot)
{
    struct queue *q = &e->queue[place];
    struct node *n = &e->node[slot];
    n->place = (uint8_t)place;
    n->next = EVICT_NONE;
    n->prev = q->tail;
    if (q->tail == EVICT_NONE)
        q->head = slot;
    else
        e->node[q->tail].next = slot;
    q->tail = slot;
    q->items++;
    q->weight += n->weight;
}

static void queue_take(struct evict *e, uint32_t slot)
{
    struct node *n = &e->node[slot];
    struct queue *q = &e->queue[n->place];
    if (n->prev == EVICT_NONE)
        q->head = n->next;
    else
        e->node[n->prev].next = n->next;
    if (n->next == EVICT_NONE)
        q->tail = n->prev;
    else
        e->node[n->next].prev = n->prev;
    q->items--;
    q->weight -= n->weight;
    n->place = NOWHERE;
}

/* ---- ghosts ---- */

static struct ghost *ghost_bucket(struct evict *e, uint32_t print)
{
    return &e->ghost[(size_t)(print >> 1 & e->ghost_mask) * GHOST_WAYS];
}

static uint32_t ghost_age(const struct evict *e, const struct ghost *g)
{
    return g->print ? e->departures[g->place] - g->when : UINT32_MAX;
}

static void ghost_add(struct evict *e, uint32_t print, enum place place)
{
    struct ghost *bucket = ghost_bucket(e, print), *oldest = bucket;
    e->departures[place]++;
    for (unsigned i = 0; i < GHOST_WAYS; i++) {
        if (bucket[i].print == print) {
            oldest = &bucket[i];
            break;
        }
        if (ghost_age(e, &bucket[i]) > ghost_age(e, oldest))
            oldest = &bucket[i];
    }
    *oldest = (struct ghost){print, e->departures[place], (uint8_t)place};
}

static void share_move(struct evict *e, enum place place, double held)
{
    const double step = SHARE_STEP / held;
    e->share += place == SMALL ? step : -step;
    if (e->share < SHARE_MIN)
        e->share = SHARE_MIN;
    if (e->share > SHARE_MAX)
        e->share = SHARE_MAX;
}

/* Did it leave a queue among the last as many as the store holds? */
static bool ghost_take(struct evict *e, uint32_t print)
{
    struct ghost *bucket = ghost_bucket(e, print);
    const uint32_t held = e->queue[MAIN].items + e->queue[SMALL].items;
    for (unsigned i = 0; i < GHOST_WAYS; i++)
        if (bucket[i].print == print) {
            const uint32_t age = ghost_age(e, &bucket[i]);
            if (age < held / SOON)
                share_move(e, bucket[i].place, held);
            bucket[i].print = 0;
            return age < held;
        }
    return false;
}

/* ---- the policy ---- */

static bool is_used(const struct evict *e, uint32_t slot)
{
    return access_bits_used(atomic_load_explicit(&e->use[slot], memory_order_relaxed)) > 0;
}

void evict_insert(struct evict *e, uint32_t slot, uint64_t print, uint32_t weight)
{
    const uint32_t short_print = (uint32_t)(print >> 32) | 1;
    evict_adopt(e, slot, print, weight, ghost_take(e, short_print));
}

void evict_adopt(struct evict *e, uint32_t slot, uint64_t print, uint32_t weight, bool settled)
{
    struct node *n = &e->node[slot];
    if (n->place != NOWHERE)
        queue_take(e, slot);
    n->print = (uint32_t)(print >> 32) | 1;
    n->weight = weight;
    queue_push(e, settled ? MAIN : SMALL, slot);
}

bool evict_is_settled(const struct evict *e, uint32_t slot)
{
    return e->node[slot].place == MAIN;
}

void evict_remove(struct evict *e, uint32_t slot)
{
    if (e->node[slot].place != NOWHERE)
        queue_take(e, slot);
}

void evict_resize(struct evict *e, uint32_t slot, uint32_t weight)
{
    struct node *n = &e->node[slot];
    struct queue *q = &e->queue[n->place];
    q->weight = q->weight - n->weight + weight;
    n->weight = weight;
}

static bool small_is_over(const struct evict *e, enum evict_bound bound)
{
    const struct queue *s = &e->queue[SMALL], *m = &e->queue[MAIN];
    if (s->items == 0 || m->items == 0)
        return s->items != 0;
    if (bound == EVICT_ITEMS)
        return s->items > e->share * ((double)s->items + m->items);
    return (double)s->weight > e->share * (double)(s->weight + m->weight);
}

uint32_t evict_victim(struct evict *e, enum evict_bound bound)
{
    for (unsigned step = 0;; step++) {
        const bool small = small_is_over(e, bound);
        const uint32_t slot = e->queue[small ? SMALL : MAIN].head;
        if (slot == EVICT_NONE)
            return EVICT_NONE;
        const bool used = is_used(e, slot) && step < STEPS_MAX;
        queue_take(e, slot);
        if (!used) {
            ghost_add(e, e->node[slot].print, small ? SMALL : MAIN);
            return slot;
        }
        access_bits_forget_used(&e->use[slot]);
        queue_push(e, MAIN, slot);
    }
}

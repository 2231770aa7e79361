/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * evict: S3-FIFO (Yang et al., SOSP 2023).
 *
 * Newcomers enter a small queue of a tenth of the store. Who was used there more than once moves
 * to the main queue, the others leave and are remembered as ghosts; a ghost that comes back enters
 * the main queue at once. The main queue gives everybody another round for each use. Hits move
 * nothing: they raise one byte.
 */
#include "daemons/keeper/evict.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SMALL_SHARE 10    /* the small queue holds one part in so many */
#define STEPS_MAX   16384 /* looked at for one victim; then the next one goes, used or not */
#define GHOST_WAYS  4

enum place { NOWHERE, SMALL, MAIN };

struct node {
    uint32_t next, prev; /* towards the tail (newer), towards the head (older) */
    uint32_t pages;
    uint32_t print;
    uint8_t place; /* enum place */
};

struct queue {
    uint32_t head, tail; /* oldest, newest */
    uint32_t items;
    uint64_t pages;
};

/* Who left the small queue lately: its print and when, counted in departures. */
struct ghost {
    uint32_t print, when;
};

struct evict {
    struct node *node; /* [slots] */
    uint32_t slots;
    _Atomic uint8_t *use;
    struct queue queue[3]; /* by place */
    struct ghost *ghost;
    uint32_t ghost_mask; /* of buckets */
    uint32_t departures;
};

static void *zero_pages(size_t size)
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

struct evict *evict_new(uint32_t slots, _Atomic uint8_t *use)
{
    struct evict *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->slots = slots;
    e->use = use;
    uint32_t buckets = 256;
    while (buckets < slots / GHOST_WAYS && buckets < 1u << 22)
        buckets *= 2;
    e->ghost_mask = buckets - 1;
    e->node = zero_pages(slots * sizeof *e->node);
    e->ghost = zero_pages((size_t)buckets * GHOST_WAYS * sizeof *e->ghost);
    queue_reset(e);
    if (!e->node || !e->ghost) {
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
    q->pages += n->pages;
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
    q->pages -= n->pages;
    n->place = NOWHERE;
}

/* ---- ghosts ---- */

static struct ghost *ghost_bucket(struct evict *e, uint32_t print)
{
    return &e->ghost[(size_t)(print >> 1 & e->ghost_mask) * GHOST_WAYS];
}

static void ghost_add(struct evict *e, uint32_t print)
{
    struct ghost *bucket = ghost_bucket(e, print), *oldest = bucket;
    e->departures++;
    for (unsigned i = 0; i < GHOST_WAYS; i++) {
        if (bucket[i].print == print) {
            oldest = &bucket[i];
            break;
        }
        if (e->departures - bucket[i].when > e->departures - oldest->when)
            oldest = &bucket[i];
    }
    *oldest = (struct ghost){print, e->departures};
}

/* Did it leave among the last as many as the main queue holds? */
static bool ghost_take(struct evict *e, uint32_t print)
{
    struct ghost *bucket = ghost_bucket(e, print);
    const uint32_t memory = e->queue[MAIN].items + e->queue[SMALL].items;
    for (unsigned i = 0; i < GHOST_WAYS; i++)
        if (bucket[i].print == print && bucket[i].when) {
            const bool recent = e->departures - bucket[i].when < memory;
            bucket[i] = (struct ghost){0, 0};
            return recent;
        }
    return false;
}

/* ---- the policy ---- */

static uint8_t use_of(const struct evict *e, uint32_t slot)
{
    return atomic_load_explicit(&e->use[slot], memory_order_relaxed);
}

static void use_set(const struct evict *e, uint32_t slot, uint8_t count)
{
    atomic_store_explicit(&e->use[slot], count, memory_order_relaxed);
}

void evict_insert(struct evict *e, uint32_t slot, uint64_t print, uint32_t pages)
{
    const uint32_t short_print = (uint32_t)(print >> 32) | 1;
    evict_adopt(e, slot, print, pages, ghost_take(e, short_print));
}

void evict_adopt(struct evict *e, uint32_t slot, uint64_t print, uint32_t pages, bool settled)
{
    struct node *n = &e->node[slot];
    if (n->place != NOWHERE)
        queue_take(e, slot);
    n->print = (uint32_t)(print >> 32) | 1;
    n->pages = pages;
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

void evict_resize(struct evict *e, uint32_t slot, uint32_t pages)
{
    struct node *n = &e->node[slot];
    struct queue *q = &e->queue[n->place];
    q->pages = q->pages - n->pages + pages;
    n->pages = pages;
}

static bool small_is_over(const struct evict *e, enum evict_bound bound)
{
    const struct queue *s = &e->queue[SMALL], *m = &e->queue[MAIN];
    if (s->items == 0 || m->items == 0)
        return s->items != 0;
    if (bound == EVICT_ITEMS)
        return (uint64_t)s->items * SMALL_SHARE > (uint64_t)s->items + m->items;
    return s->pages * SMALL_SHARE > s->pages + m->pages;
}

uint32_t evict_victim(struct evict *e, enum evict_bound bound)
{
    for (unsigned step = 0;; step++) {
        const bool small = small_is_over(e, bound);
        const uint32_t slot = e->queue[small ? SMALL : MAIN].head;
        if (slot == EVICT_NONE)
            return EVICT_NONE;
        const uint8_t used = use_of(e, slot);
        queue_take(e, slot);
        if (small && used > 1 && step < STEPS_MAX) {
            use_set(e, slot, 0);
            queue_push(e, MAIN, slot);
        } else if (!small && used > 0 && step < STEPS_MAX) {
            use_set(e, slot, (uint8_t)(used - 1));
            queue_push(e, MAIN, slot);
        } else {
            if (small)
                ghost_add(e, e->node[slot].print);
            return slot;
        }
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * replay_evict: hit ratios of eviction policies over synthetic traces, as a table.
 *
 *   replay_evict [REQUESTS]     3 000 000 over a million objects, unless said otherwise
 *
 * The column S3-FIFO is the keeper's own evict.c; the others are written here in a few lines each,
 * for comparison. Traces: Zipf 0.9; the same with 30 % objects that come once; with a scan of
 * 40 000 objects every 200 000 requests; with a popularity that drifts all the time; and with one
 * that changes at once, four times.
 */
#include "daemons/keeper/store/evict.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OBJECTS 1000000u
#define KEYS    (1u << 23) /* objects, scans and one-hit wonders */
#define NOBODY  UINT32_MAX

static uint64_t random_state = 88172645463325252u;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static double random_share(void)
{
    return (double)(random_next() >> 11) * 0x1p-53;
}

/* ---- traces ---- */

static double *cumulated;

static void zipf_prepare(double exponent)
{
    double sum = 0;
    cumulated = malloc(OBJECTS * sizeof *cumulated);
    for (uint32_t i = 0; i < OBJECTS; i++)
        cumulated[i] = sum += 1 / pow(i + 1, exponent);
    for (uint32_t i = 0; i < OBJECTS; i++)
        cumulated[i] /= sum;
}

static uint32_t zipf_next(void)
{
    const double share = random_share();
    uint32_t low = 0, high = OBJECTS - 1;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (cumulated[middle] < share)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

enum trace { ZIPF, ONE_HIT, SCAN, DRIFT, SHIFT, TRACES };
static const char *const trace_names[] = {"Zipf 0.9", "+ 30 % one-hit", "+ scans", "drifting",
                                          "shifting at once"};

static uint32_t trace_next(enum trace trace, uint32_t i, uint32_t n, uint32_t *fresh)
{
    const uint32_t key = zipf_next();
    switch (trace) {
    case ONE_HIT:
        return random_share() < 0.3 ? (*fresh)++ : key;
    case SCAN:
        return i % 200000 < 40000 ? 1500000 + i % 200000 : key;
    case DRIFT:
        return (key + (uint32_t)((double)i / n * 200000)) % OBJECTS;
    case SHIFT:
        return (key + i / (n / 5 + 1) * 200000) % OBJECTS;
    default:
        return key;
    }
}

static uint32_t *trace_make(enum trace trace, uint32_t n)
{
    uint32_t *keys = malloc(n * sizeof *keys), fresh = 2000000;
    for (uint32_t i = 0; i < n; i++)
        keys[i] = trace_next(trace, i, n, &fresh);
    return keys;
}

/* ---- policies: each returns the number of hits ---- */

struct node {
    uint32_t key, next, prev;
    uint8_t used;
};

struct list {
    struct node *node;
    uint32_t *where; /* [KEYS] slot of a key */
    uint32_t size, used, head, tail;
};

static void list_init(struct list *l, uint32_t size)
{
    l->node = calloc(size, sizeof *l->node);
    l->where = malloc(KEYS * sizeof *l->where);
    memset(l->where, 0xff, KEYS * sizeof *l->where);
    l->size = size;
    l->used = 0;
    l->head = l->tail = NOBODY;
}

static void list_free(struct list *l)
{
    free(l->node);
    free(l->where);
}

static void list_take(struct list *l, uint32_t s)
{
    struct node *n = &l->node[s];
    *(n->prev == NOBODY ? &l->head : &l->node[n->prev].next) = n->next;
    *(n->next == NOBODY ? &l->tail : &l->node[n->next].prev) = n->prev;
}

static void list_push(struct list *l, uint32_t s) /* as the newest */
{
    l->node[s].prev = NOBODY;
    l->node[s].next = l->head;
    *(l->head == NOBODY ? &l->tail : &l->node[l->head].prev) = s;
    l->head = s;
}

static uint64_t run_lru(const uint32_t *keys, uint32_t n, uint32_t size)
{
    struct list l;
    uint64_t hits = 0;
    list_init(&l, size);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = l.where[keys[i]];
        if (s != NOBODY) {
            hits++;
            list_take(&l, s);
        } else if (l.used < size) {
            s = l.used++;
        } else {
            s = l.tail;
            list_take(&l, s);
            l.where[l.node[s].key] = NOBODY;
        }
        l.node[s].key = keys[i];
        l.where[keys[i]] = s;
        list_push(&l, s);
    }
    list_free(&l);
    return hits;
}

static uint64_t run_clock(const uint32_t *keys, uint32_t n, uint32_t size)
{
    struct list l;
    uint64_t hits = 0;
    uint32_t hand = 0;
    list_init(&l, size);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = l.where[keys[i]];
        if (s != NOBODY) {
            hits++;
            l.node[s].used = 1;
            continue;
        }
        if (l.used < size) {
            s = l.used++;
        } else {
            for (; l.node[hand].used; hand = (hand + 1) % size)
                l.node[hand].used = 0;
            s = hand;
            hand = (hand + 1) % size;
            l.where[l.node[s].key] = NOBODY;
        }
        l.node[s] = (struct node){.key = keys[i]};
        l.where[keys[i]] = s;
    }
    list_free(&l);
    return hits;
}

static uint64_t run_sieve(const uint32_t *keys, uint32_t n, uint32_t size)
{
    struct list l;
    uint64_t hits = 0;
    uint32_t hand = NOBODY;
    list_init(&l, size);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = l.where[keys[i]];
        if (s != NOBODY) {
            hits++;
            l.node[s].used = 1;
            continue;
        }
        if (l.used < size) {
            s = l.used++;
        } else {
            for (s = hand == NOBODY ? l.tail : hand; l.node[s].used;
                 s = l.node[s].prev == NOBODY ? l.tail : l.node[s].prev)
                l.node[s].used = 0;
            hand = l.node[s].prev;
            list_take(&l, s);
            l.where[l.node[s].key] = NOBODY;
        }
        l.node[s].key = keys[i];
        l.node[s].used = 0;
        l.where[keys[i]] = s;
        list_push(&l, s);
    }
    list_free(&l);
    return hits;
}

static uint64_t run_keeper(const uint32_t *keys, uint32_t n, uint32_t size)
{
    _Atomic uint8_t *use = calloc(size, 1);
    struct evict *e = evict_new(size, use);
    uint32_t *where = malloc(KEYS * sizeof *where), *key = malloc(size * sizeof *key), used = 0;
    uint64_t hits = 0;
    memset(where, 0xff, KEYS * sizeof *where);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = where[keys[i]];
        if (s != NOBODY) {
            hits++;
            const uint8_t count = atomic_load_explicit(&use[s], memory_order_relaxed);
            if (count < 3) /* what a worker does at a hit */
                atomic_store_explicit(&use[s], (uint8_t)(count + 1), memory_order_relaxed);
            continue;
        }
        if (used < size) {
            s = used++;
        } else {
            s = evict_victim(e, EVICT_ITEMS);
            where[key[s]] = NOBODY;
        }
        atomic_store_explicit(&use[s], 0, memory_order_relaxed);
        key[s] = keys[i];
        where[keys[i]] = s;
        evict_insert(e, s, (keys[i] + UINT64_C(1)) * UINT64_C(0x9E3779B97F4A7C15), 1);
    }
    evict_free(e);
    free((void *)use);
    free(where);
    free(key);
    return hits;
}

/* ---- the table ---- */

struct policy {
    const char *name;
    uint64_t (*run)(const uint32_t *keys, uint32_t n, uint32_t size);
};
static const struct policy policies[] = {
    {"LRU", run_lru}, {"CLOCK", run_clock}, {"SIEVE", run_sieve}, {"S3-FIFO", run_keeper}};
#define POLICIES (sizeof policies / sizeof *policies)

static void row(const uint32_t *keys, uint32_t n, const char *name, uint32_t size)
{
    printf("%-18s %7u", name, size);
    for (size_t p = 0; p < POLICIES; p++) {
        printf("  %7.2f", 100.0 * (double)policies[p].run(keys, n, size) / n);
        fflush(stdout);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    const uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 3000000;
    if (n < 1000 || n > KEYS - 2000000) {
        fprintf(stderr, "usage: replay_evict [REQUESTS], 1000 to %u\n", KEYS - 2000000);
        return 2;
    }
    zipf_prepare(0.9);
    printf("hit ratio, %%         objects");
    for (size_t p = 0; p < POLICIES; p++)
        printf("  %7s", policies[p].name);
    printf("\n");
    for (enum trace t = 0; t < TRACES; t++) {
        uint32_t *keys = trace_make(t, n);
        row(keys, n, trace_names[t], 10000);
        row(keys, n, trace_names[t], 50000);
        free(keys);
    }
    free(cumulated);
    return 0;
}

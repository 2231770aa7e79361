/* SPDX-License-Identifier: BSD-2-Clause */
/* cache_known: a table of two-way buckets, indexed and told apart by bits of the key. */
#include "libshared/cache/cache_known.h"
#include "polder/inval.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define TAG_MASK   ((1u << 20) - 1)
#define LINE       64u
#define LINES      25u /* of a record */
#define KNOWN_SIZE (KNOWN_MAX * sizeof(struct known))

_Static_assert(sizeof(struct known) == 32, "two entries a cache line");
_Static_assert(CACHE_SLOTS_MAX <= 1u << 24 && INVAL_SLOTS <= 1u << 20, "they fit their bits");

int known_init(struct known_table *t)
{
    void *p = mmap(NULL, KNOWN_SIZE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return -ENOMEM;
    *t = (struct known_table){p, KNOWN_FIRST - 1};
    return 0;
}

void known_fini(struct known_table *t)
{
    if (t->entry)
        munmap(t->entry, KNOWN_SIZE);
    t->entry = NULL;
}

void known_clear(struct known_table *t)
{
    madvise(t->entry, KNOWN_SIZE, MADV_DONTNEED);
    t->mask = KNOWN_FIRST - 1;
}

static struct known *bucket_of(const struct known_table *t, const struct cache_key *key,
                               uint32_t *tag)
{
    uint64_t half[2];
    memcpy(half, key->hash, sizeof half);
    *tag = (uint32_t)half[1] & TAG_MASK;
    return &t->entry[half[0] & t->mask & ~(uint64_t)(KNOWN_WAYS - 1)];
}

const struct known *known_find(const struct known_table *t, const struct cache_key *key)
{
    uint32_t tag;
    const struct known *e = bucket_of(t, key, &tag);
    e += e->tag != tag; /* no branch: which of the two it is cannot be predicted */
    return e->tag == tag && e->record ? e : NULL;
}

/* In a file of its own, for a compiler that sees a function do nothing but prefetch leaves out the
 * call. The lines reach over the head and a body of 1 KiB; the rest of a long one is copied in
 * order, which the processor notices itself. */
void known_prefetch(const struct known *entry, const struct shared *shared)
{
    const char *line = (const char *)((uintptr_t)entry->record & ~(uintptr_t)(LINE - 1));
#pragma GCC unroll 25 /* or counting would take most of it */
    for (unsigned i = 0; i < LINES; i++)
        __builtin_prefetch(line + (size_t)i * LINE);
    __builtin_prefetch((const void *)&shared->ref[entry->slot]);
    inval_expect_url(shared->inval, entry->url_slot);
}

static void remember(struct known *e, const struct cache_record *record, uint32_t tag, uint64_t txn)
{
    *e = (struct known){.record = record,
                        .txn = txn,
                        .word = record->checksum ^ record->obj_id,
                        .tag = tag & TAG_MASK,
                        .slot = record->slot & (CACHE_SLOTS_MAX - 1),
                        .url_slot = record->url_slot & (INVAL_SLOTS - 1)};
}

bool known_verified(struct known_table *t, const struct cache_record *record, uint64_t txn)
{
    uint32_t tag;
    struct known *e = bucket_of(t, &record->key, &tag);
    for (unsigned i = 0; i < KNOWN_WAYS; i++)
        if (e[i].record && e[i].tag == tag && e[i].word == (record->checksum ^ record->obj_id)) {
            remember(&e[i], record, tag, txn);
            return true;
        }
    return false;
}

/* A larger mask finds the half of the entries whose next bit is 0 where they were; the others are
 * found missing, and verified again. */
static void grow(struct known_table *t, uint32_t slot)
{
    while (slot * 2 > t->mask && t->mask + 1 < KNOWN_MAX)
        t->mask = t->mask * 2 + 1;
}

void known_add(struct known_table *t, const struct cache_record *record, uint64_t txn)
{
    uint32_t tag;
    grow(t, record->slot);
    struct known *e = bucket_of(t, &record->key, &tag);
    if (e[0].record && e[0].tag != tag) { /* the older one is replaced */
        if (!e[1].record || e[1].tag != tag)
            e[1] = e[0];
        else
            e++;
    }
    remember(e, record, tag, txn);
}

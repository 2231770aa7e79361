/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * deferred_free: chunks of a removed record wait here until no reader is older than that commit and
 * no worker has pinned the object: one may be in the middle of sending them.
 */
#include "daemons/keeper/store/store.h"
#include <lmdb.h>
#include <stdlib.h>

void deferred_free_add(struct store *s, uint64_t obj_id, uint32_t chunks)
{
    if (chunks == 0)
        return;
    if (s->n_freed == s->freed_room) {
        const size_t room = s->freed_room ? s->freed_room * 2 : 64;
        struct deferred_free *larger = realloc(s->freed, room * sizeof *larger);
        if (!larger)
            return; /* found again at the next start */
        s->freed = larger;
        s->freed_room = room;
    }
    /* Outside of one, for instance after a crash, the commit is unknown: the last one at most. */
    const uint64_t txn_id = s->txn ? mdb_txn_id(s->txn) : store_last_txn(s);
    s->freed[s->n_freed++] = (struct deferred_free){obj_id, txn_id, chunks};
}

#define PINS_MAX (sizeof((struct cache_shared *)0)->pin / sizeof(uint64_t))

/* All pins there are now: mostly none. */
static unsigned pins_read(const struct store *s, uint64_t pins[PINS_MAX])
{
    unsigned n = 0;
    for (unsigned row = 0; row < sizeof s->shared->pin / sizeof s->shared->pin[0]; row++)
        for (unsigned i = 0; i < CACHE_PINS; i++) {
            const uint64_t id = atomic_load(&s->shared->pin[row][i]);
            if (id)
                pins[n++] = id;
        }
    return n;
}

static bool is_pinned(const uint64_t *pins, unsigned n, uint64_t obj_id)
{
    for (unsigned i = 0; i < n; i++)
        if (pins[i] == obj_id)
            return true;
    return false;
}

static int free_one(struct store *s, struct deferred_free *t, unsigned max, unsigned *done)
{
    uint8_t key[CACHE_CHUNK_KEY];
    MDB_val k = {sizeof key, key};
    while (t->chunks && *done < max) {
        cache_chunk_key(t->obj_id, t->chunks - 1, key);
        const int rc = mdb_del(s->txn, s->body, &k, NULL);
        if (rc != 0 && rc != MDB_NOTFOUND)
            return rc;
        t->chunks--;
        ++*done;
    }
    return 0;
}

int deferred_free_run(struct store *s, unsigned max, unsigned *done)
{
    uint64_t pins[PINS_MAX];
    struct store_reader oldest;
    /* In this order: a reader of an older state may still set a pin. */
    const bool reading = store_oldest_reader(s, &oldest);
    const unsigned n_pins = pins_read(s, pins);
    size_t kept = 0;
    int rc = 0;
    *done = 0;
    for (size_t i = 0; i < s->n_freed; i++) {
        struct deferred_free *t = &s->freed[i];
        const bool wait = reading && oldest.txn_id < t->txn_id;
        if (rc == 0 && *done < max && !wait && !is_pinned(pins, n_pins, t->obj_id))
            rc = free_one(s, t, max, done);
        if (t->chunks)
            s->freed[kept++] = *t;
    }
    s->n_freed = kept;
    return rc;
}

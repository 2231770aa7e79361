/* SPDX-License-Identifier: BSD-2-Clause */
/* rebuild: the private tables of a store, made of what is in it: when it is opened, and after a
 * transaction that was given up. */
#include "daemons/keeper/store/store.h"
#include <lmdb.h>
#include <string.h>
#include <sys/mman.h>

void store_clear_tables(struct store *s)
{
    madvise(s->items, CACHE_SLOTS_MAX * sizeof *s->items, MADV_DONTNEED);
    evict_clear(s->evict);
    evict_clear(s->personal);
    s->n_free = s->slots_used = 0;
    s->n_objects = s->n_copies = s->n_personal = s->live_units = 0;
    s->n_freed = 0;
}

static int rebuild_one(struct store *s, const MDB_val *k, const MDB_val *v, uint64_t *last_id)
{
    struct cache_index index;
    if (k->mv_size != 8 || v->mv_size != sizeof index)
        return MDB_CORRUPTED;
    memcpy(&index, v->mv_data, sizeof index);
    const uint64_t id = cache_id_of(k->mv_data);
    if (index.check != cache_index_check(&index, id) || id <= *last_id || id >= STORE_ID_MAX ||
        index.slot >= CACHE_SLOTS_MAX || s->items[index.slot].obj_id != 0)
        return MDB_CORRUPTED;
    *last_id = id;
    s->items[index.slot] = store_item_of(&index, id);
    if (index.slot >= s->slots_used)
        s->slots_used = index.slot + 1;
    uint64_t print;
    memcpy(&print, index.key.hash, sizeof print);
    evict_adopt(store_queues_of(s, index.slot), index.slot, print, index.units, true);
    s->n_objects++;
    s->n_personal += s->items[index.slot].is_personal;
    s->n_copies += s->items[index.slot].is_copy;
    s->live_units += index.units;
    return 0;
}

static int rebuild_items(struct store *s, MDB_txn *txn, uint64_t *last_id)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn, s->idx, &cursor);
    if (rc != 0)
        return rc;
    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0)
        if ((rc = rebuild_one(s, &k, &v, last_id)) != 0)
            break;
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* An upper bound of the chunks of an object without an index entry, from its last one. The cursor
 * stands on its first. 0: invalid. */
static uint32_t orphan_chunks(MDB_cursor *cursor, uint64_t id)
{
    uint8_t next[CACHE_CHUNK_KEY];
    MDB_val k = {sizeof next, next}, v;
    cache_chunk_key(id + 1, 0, next);
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    rc = mdb_cursor_get(cursor, &k, &v, rc == 0 ? MDB_PREV : MDB_LAST);
    if (rc != 0 || k.mv_size != CACHE_CHUNK_KEY)
        return 0;
    const uint8_t *key = k.mv_data;
    const uint32_t last =
        (uint32_t)key[8] << 24 | (uint32_t)key[9] << 16 | (uint32_t)key[10] << 8 | key[11];
    return last < STORE_CHUNKS_MAX ? last + 1 : 0;
}

/* One object that has chunks. */
static int rebuild_body(struct store *s, MDB_txn *txn, MDB_cursor *cursor, const uint8_t id_key[8])
{
    MDB_val k = {8, (void *)(uintptr_t)id_key}, v;
    const uint64_t id = cache_id_of(id_key);
    const int rc = mdb_get(txn, s->idx, &k, &v);
    if (rc != MDB_NOTFOUND)
        return rc;
    const uint32_t chunks = orphan_chunks(cursor, id);
    if (chunks == 0)
        return MDB_CORRUPTED;
    deferred_free_add(s, id, chunks);
    return 0;
}

/* Chunks of objects that are not there: of streams and deletions that a crash cut short. Jumps from
 * object to object. */
static int rebuild_orphans(struct store *s, MDB_txn *txn, uint64_t *last_id)
{
    MDB_cursor *cursor;
    uint8_t from[CACHE_CHUNK_KEY], id_key[8];
    uint64_t id = 0;
    int rc = mdb_cursor_open(txn, s->body, &cursor);
    if (rc != 0)
        return rc;
    while (rc == 0) {
        MDB_val k = {sizeof from, from}, v;
        cache_chunk_key(id, 0, from);
        if ((rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE)) != 0)
            break;
        memcpy(id_key, k.mv_data, sizeof id_key);
        id = cache_id_of(id_key) + 1;
        if (k.mv_size != CACHE_CHUNK_KEY || id > STORE_ID_MAX)
            rc = MDB_CORRUPTED;
        else
            rc = rebuild_body(s, txn, cursor, id_key);
        if (id > *last_id)
            *last_id = id - 1;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static void rebuild_free_slots(struct store *s)
{
    for (uint32_t slot = s->slots_used; slot-- > 0;)
        if (s->items[slot].obj_id == 0)
            s->free_slots[s->n_free++] = slot;
}

int store_rebuild(struct store *s)
{
    MDB_txn *txn;
    uint64_t last_id = 0;
    store_clear_tables(s);
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return rc;
    if ((rc = rebuild_items(s, txn, &last_id)) == 0)
        rc = rebuild_orphans(s, txn, &last_id);
    mdb_txn_abort(txn);
    rebuild_free_slots(s);
    if (last_id >= s->next_id)
        s->next_id = last_id + 1;
    s->id_ceiling = s->next_id; /* on record again with the next id */
    return rc;
}

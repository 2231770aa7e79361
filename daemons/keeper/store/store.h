/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * store: the LMDB environment and the keeper's private tables of its objects. Only the files of
 * this folder use LMDB:
 *
 *   store.c          the environment, the private tables, transactions
 *   rebuild.c        makes those tables of what is in it
 *   read.c           records, cursors, readers
 *   object.c         objects are put, renewed, removed
 *   deferred_free.c  chunks that a worker may still be sending
 *   evict.c          chooses which object is evicted
 *   check.c          examines a data.mdb of unknown state, before LMDB opens it
 *   rotate.c         which directory; starts empty ones; the clean flag
 *
 * Everything that changes the database happens between store_begin() and store_commit(). The
 * private tables (items by slot, queues, counts) change along; after store_abort() they are made
 * again from `idx`. Functions return 0, or an LMDB code that store_fault() judges; positive codes
 * of their own are listed where they occur.
 *
 * Bodies in chunks are deleted in two steps, because a worker may be in the middle of sending one:
 * the record goes at once; the chunks wait in `freed` until no reader is older than that commit and
 * no worker has pinned the object. Chunks that nothing refers to after a crash are found when the
 * store is opened.
 */
#ifndef POLDER_KEEPER_STORE_H
#define POLDER_KEEPER_STORE_H
#include "daemons/keeper/store/evict.h"
#include "daemons/keeper/removals.h"
#include "polder/cache.h"
#include "polder/inval.h"
#include "polder/stats.h"
#include "polder/field.h"
#include <stdbool.h>
#include <stdint.h>

#define STORE_URL_CUT 400 /* bytes of a URL in the key of `url`; LMDB keys end at 511 */
#define STORE_URL_KEY (STORE_URL_CUT + 8)

/* An object, by slot. */
struct item {
    uint64_t obj_id;          /* 0: the slot is free */
    uint32_t units : 30;      /* chunks included */
    uint32_t is_copy : 1;     /* in another content coding: no item of its own */
    uint32_t is_personal : 1; /* of one identity */
    uint32_t expires_s;       /* real seconds; then it is useless */
};

static inline struct item store_item_of(const struct cache_index *index, uint64_t obj_id)
{
    return (struct item){.obj_id = obj_id,
                         .units = index->units & 0x3fffffffu,
                         .is_copy = (index->flags & CACHE_INDEX_COPY) != 0,
                         .is_personal = (index->flags & CACHE_INDEX_PERSONAL) != 0,
                         .expires_s = (uint32_t)(index->expires_ms / 1000)};
}

struct deferred_free {
    uint64_t obj_id, txn_id; /* of the commit that took the record away */
    uint32_t chunks;
};

struct store {
    /* given by the keeper */
    struct inval_page *inval;
    struct cache_shared *shared;
    _Atomic uint8_t *ref;
    struct stats_slab *stats;
    uint64_t max_items, max_units; /* what is wanted; never more than fits_units */

    struct MDB_env *env; /* NULL: closed */
    unsigned obj, body, idx, url, meta;
    struct MDB_txn *txn; /* the write transaction, or NULL */
    uint64_t epoch;
    uint64_t map_bytes, fits_units;
    char dir[4096];

    struct item *items;          /* [CACHE_SLOTS_MAX] zero pages until used */
    uint32_t *free_slots;        /* stack */
    uint32_t n_free, slots_used; /* slots_used: all in use are below */
    struct evict *evict;
    struct evict *personal; /* the same for copies of one identity, which take no others' places */
    uint64_t n_objects, n_copies, n_personal;
    uint64_t live_units;          /* of objects and of streams that are not complete */
    uint64_t next_id, id_ceiling; /* ids up to the ceiling are on record as used */

    struct removals_table *gone; /* may be NULL */
    bool removed_probe;          /* it was a copy of polderctl verify's */
    uint64_t removed_url; /* removals_url() of what store_remove() has removed; 0: not known */

    struct deferred_free *freed;
    size_t n_freed, freed_room;
};

/* Meanings of LMDB's codes for other folders. */
#define STORE_END     (-30798) /* there is no such entry */
#define STORE_DAMAGED (-30796) /* the database contradicts itself */
#define STORE_FULL    (-30792) /* the map is */
const char *store_strerror(int rc);
/* NULL, or the version of the LMDB library if its file format is not the one that check.c knows. */
const char *store_unknown_format(void);

/* The private tables. 0 or -ENOMEM. */
int store_init(struct store *s);
void store_fini(struct store *s);

/* Space is counted as it is taken in the file: whole pages for large values, and what trees lose to
 * half-empty pages for small ones; in units, for small ones share a page. */
#define STORE_UNIT 512u
uint32_t store_units_of_record(size_t len, uint32_t url_len); /* with its index entries */
uint32_t store_units_of_chunk(size_t len);
uint64_t store_map_for(uint64_t max_bytes);   /* of data.mdb: all the disk that the store takes */
uint64_t store_units_for(uint64_t map_bytes); /* that content may take in it */
uint64_t store_units_allowed(const struct store *s); /* max_units, or what the map has room for */
#define STORE_ID_MAX     (UINT64_C(1) << 62)
#define STORE_CHUNKS_MAX (1u << 20) /* of one object */
/* The largest object that is admitted, in units. */
uint64_t store_object_units(const struct store *s);
uint64_t store_body_max(const struct store *s); /* the largest body that surely is */

/* ---- life (rotate.c decides which directory) ---- */
enum store_open_mode { STORE_NEW, STORE_EXISTING };
/* 0, or an LMDB code or errno; *what then says what was attempted. */
int store_open(struct store *s, uint64_t epoch, const char *dir, uint64_t map_bytes,
               enum store_open_mode mode, const char **what);
void store_close(struct store *s, bool sync);
/* Makes the file larger in place; readers notice by themselves. No transaction may be open. */
int store_grow(struct store *s, uint64_t map_bytes);
/* Can the file be made smaller? *map_bytes: in: the wanted size; out: the size that its used pages
 * need. */
bool store_can_cut(const struct store *s, uint64_t *map_bytes);
/* Gives the rest back to the disk. No transaction may be open. */
void store_cut(struct store *s, uint64_t map_bytes);

/* ---- rebuild.c ---- */
/* Reads the private tables from the database. STORE_DAMAGED where it contradicts itself. */
int store_rebuild(struct store *s);
void store_clear_tables(struct store *s); /* as of an empty store */

struct store_meta {
    uint32_t format;
    uint8_t uuid[16], boot_id[16];
    uint64_t next_id, real_ms;
};
int store_meta_read(struct store *s, struct store_meta *meta);
int store_meta_write(struct store *s, const struct store_meta *meta);

/* ---- transactions ---- */
int store_begin(struct store *s);
int store_commit(struct store *s);
void store_abort(struct store *s);  /* and rebuilds; closes the store if that fails */
void store_cancel(struct store *s); /* without: nothing was changed that the tables know of */
int store_sync(struct store *s);    /* to the disk */
uint64_t store_txn_id(const struct store *s); /* of the write transaction that is open */

/* ---- objects, within a transaction ---- */
int store_new_id(struct store *s, uint64_t *id);
/* Positive results of store_put() and store_revalidate(): nothing was done. */
enum store_refusal {
    STORE_REFUSED_INVALID = 1000, /* invalidated since its fetch_seq: fetch again */
    STORE_REFUSED_SIZE,           /* does not fit */
    STORE_REFUSED_OLDER,          /* what is there is newer: use that */
    STORE_REFUSED_GONE,           /* revalidate: that object is not there any more */
};
/* Stores r (len bytes with all that follows it, in a buffer with 8 bytes to spare); fills in
 * obj_id, slot and checksum. chunks and chunk_units: already stored under r->obj_id. */
int store_put(struct store *s, struct cache_record *r, size_t len, uint32_t chunks,
              uint32_t chunk_units);
int store_put_chunk(struct store *s, uint64_t obj_id, uint32_t n, const void *data, size_t len);
/* Header and times of r (no body) for the object it names. */
int store_revalidate(struct store *s, const struct cache_record *r, size_t len);
/* Deletes the object of the key if it is damaged or invalidated. */
int store_delete_bad(struct store *s, const struct cache_key *key);
/* The object that must not be kept, if it is still that one. */
int store_delete_object(struct store *s, const struct cache_key *key, uint64_t obj_id);
/* Deletes what is in the slot. */
int store_remove(struct store *s, uint32_t slot);
/* Ends the freshness of what is in the slot. */
int store_soften(struct store *s, uint32_t slot, uint64_t now_ms);
/* Evicts until that many more items and units fit, at most `max` objects; personal: how many of the
 * items are copies of one identity. */
int store_make_room(struct store *s, uint64_t items, uint64_t personal, uint64_t units,
                    unsigned max);
/* More than a record or a chunk ever needs, unless a bound was lowered: what is too much then goes
 * in the background, or what came meanwhile would wait for it. */
#define STORE_EVICTS_A_PUT 64
bool store_is_over(const struct store *s);
/* What max_items bounds: a response and its copies in other codings are one. */
static inline uint64_t store_items(const struct store *s)
{
    return s->n_objects - s->n_copies;
}
/* How many of them may be copies of one identity. */
static inline uint64_t store_personal_allowed(const struct store *s)
{
    return s->max_items / 4;
}
/* The queues that an object in a slot is in. */
static inline struct evict *store_queues_of(const struct store *s, uint32_t slot)
{
    return s->items[slot].is_personal ? s->personal : s->evict;
}
/* Takes away an entry of `url` that no record belongs to; none is fine, too. */
int store_url_drop(struct store *s, struct str url_key);

/* The record of the slot's object, or NULL: missing or not what the index says. */
const struct cache_record *store_record(struct store *s, struct MDB_txn *txn, uint32_t slot,
                                        size_t *len);
/* The slot of a record that is really the one in that slot; EVICT_NONE otherwise. */
uint32_t store_slot_of(const struct store *s, const struct cache_record *r);
size_t store_url_key(const char *url, size_t url_len, uint64_t obj_id, uint8_t key[STORE_URL_KEY]);

/* ---- deferred_free.c ---- */
/* Chunks that no record refers to any more, or will once the open transaction is committed. */
void deferred_free_add(struct store *s, uint64_t obj_id, uint32_t chunks);
/* Deletes unneeded chunks, at most `max`. Returns how many in *done. */
int deferred_free_run(struct store *s, unsigned max, unsigned *done);

/* ---- read.c: within a transaction that only reads, or in s->txn ---- */
int store_read_begin(const struct store *s, struct MDB_txn **txn);
void store_read_end(struct MDB_txn *txn);
/* The record of the key, if it is one and good: cache_record_fits() or cache_record_sound(). */
const struct cache_record *store_find(const struct store *s, struct MDB_txn *txn,
                                      const struct cache_key *key,
                                      bool (*good)(const void *bytes, size_t len));
enum store_table {
    STORE_BY_URL, /* store_url_key() -> struct cache_key */
    STORE_BY_ID,  /* cache_id_key() -> struct cache_index */
};
struct store_cursor {
    struct MDB_cursor *cursor;
    struct str key, value; /* of the entry that it stands at; valid until it moves */
};
int store_cursor_open(const struct store *s, struct MDB_txn *txn, enum store_table table,
                      struct store_cursor *c);
/* To the first entry that is not before `from`; of no length: to the first of all. STORE_END: there
 * is none. */
int store_cursor_seek(struct store_cursor *c, struct str from);
int store_cursor_next(struct store_cursor *c);
void store_cursor_close(struct store_cursor *c);

/* ---- read.c: readers in other processes ---- */
uint64_t store_last_txn(const struct store *s);
struct store_reader {
    uint64_t txn_id;
    int pid;
};
/* The reader with the oldest open transaction; false: none is open. */
bool store_oldest_reader(const struct store *s, struct store_reader *out);
/* Releases the slots of dead readers; returns how many there were. */
int store_readers_bury(struct store *s);

#endif

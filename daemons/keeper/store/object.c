/* SPDX-License-Identifier: BSD-2-Clause */
/* object: putting, renewing and removing objects, within a transaction of the store. */
#include "daemons/keeper/store/store.h"
#include "polder/clock.h"
#include "polder/access_bits.h"
#include "polder/verify.h"
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>

#define ID_BLOCK      65536                        /* ids that one write of the ceiling covers */
#define GRACE_MS      ((uint64_t)3600 * 1000)      /* kept after its last use without a validator */
#define GRACE_LONG_MS ((uint64_t)24 * 3600 * 1000) /* with one: a 304 makes it good again */

size_t store_url_key(const char *url, size_t url_len, uint64_t obj_id, uint8_t key[STORE_URL_KEY])
{
    const size_t cut = url_len < STORE_URL_CUT ? url_len : STORE_URL_CUT;
    memcpy(key, url, cut);
    cache_id_key(obj_id, key + cut);
    return cut + 8;
}

static MDB_val key_val(const struct cache_key *key)
{
    return (MDB_val){sizeof key->hash, (void *)(uintptr_t)key->hash};
}

static uint64_t print_of(const struct cache_key *key)
{
    uint64_t print;
    memcpy(&print, key->hash, sizeof print);
    return print;
}

static uint64_t max_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* From when on an object is not worth its place. Stale ones with a validator are. */
static uint64_t expires_ms(const struct cache_record *r)
{
    const uint64_t last =
        max_of(max_of(r->received_ms, r->fresh_until_ms), max_of(r->swr_until_ms, r->sie_until_ms));
    const bool validator = (r->flags & (CACHE_HAS_ETAG | CACHE_HAS_LAST_MODIFIED)) &&
                           !(r->flags & CACHE_ETAG_OURS && r->last_modified_ms == 0);
    const uint64_t grace = validator || (r->flags & CACHE_VARY_RECORD) ? GRACE_LONG_MS : GRACE_MS;
    const uint64_t latest = (uint64_t)UINT32_MAX * 1000;
    return last < latest - grace ? last + grace : latest;
}

/* ---- ids and slots ---- */

static int ids_reserve(struct store *s)
{
    struct store_meta meta;
    MDB_val k = {4, (void *)(uintptr_t) "meta"}, v;
    int rc = mdb_get(s->txn, s->meta, &k, &v);
    if (rc != 0 || v.mv_size != sizeof meta)
        return rc != 0 ? rc : MDB_CORRUPTED;
    memcpy(&meta, v.mv_data, sizeof meta);
    meta.next_id = s->next_id + ID_BLOCK;
    meta.real_ms = clock_real_ms();
    if ((rc = store_meta_write(s, &meta)) != 0)
        return rc;
    s->id_ceiling = meta.next_id;
    atomic_store(&s->shared->id_floor, s->id_ceiling);
    return 0;
}

int store_new_id(struct store *s, uint64_t *id)
{
    const int rc = s->next_id >= s->id_ceiling ? ids_reserve(s) : 0;
    if (rc == 0)
        *id = s->next_id++;
    return rc;
}

static uint32_t slot_take(struct store *s)
{
    if (s->n_free)
        return s->free_slots[--s->n_free];
    return s->slots_used < CACHE_SLOTS_MAX ? s->slots_used++ : EVICT_NONE;
}

uint32_t store_slot_of(const struct store *s, const struct cache_record *r)
{
    return r->slot < s->slots_used && s->items[r->slot].obj_id == r->obj_id && r->obj_id
               ? r->slot
               : EVICT_NONE;
}

static int index_read(struct store *s, MDB_txn *txn, uint32_t slot, struct cache_index *index)
{
    uint8_t id[8];
    MDB_val k = {sizeof id, id}, v;
    cache_id_key(s->items[slot].obj_id, id);
    const int rc = mdb_get(txn, s->idx, &k, &v);
    if (rc != 0)
        return rc;
    if (v.mv_size != sizeof *index)
        return MDB_CORRUPTED;
    memcpy(index, v.mv_data, sizeof *index);
    return cache_index_check(index, s->items[slot].obj_id) == index->check ? 0 : MDB_CORRUPTED;
}

const struct cache_record *store_record(struct store *s, MDB_txn *txn, uint32_t slot, size_t *len)
{
    struct cache_index index;
    MDB_val v;
    if (index_read(s, txn, slot, &index) != 0)
        return NULL;
    MDB_val k = key_val(&index.key);
    if (mdb_get(txn, s->obj, &k, &v) != 0 || !cache_record_fits(v.mv_data, v.mv_size))
        return NULL;
    const struct cache_record *r = v.mv_data;
    if (r->obj_id != s->items[slot].obj_id)
        return NULL;
    *len = v.mv_size;
    return r;
}

/* ---- removal ---- */

static int not_found_is_fine(int rc)
{
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int store_url_drop(struct store *s, struct str url_key)
{
    MDB_val k = {url_key.len, (void *)(uintptr_t)url_key.at};
    return not_found_is_fine(mdb_del(s->txn, s->url, &k, NULL));
}

static int delete_url(struct store *s, const struct cache_record *r)
{
    uint8_t key[STORE_URL_KEY];
    MDB_val k = {0, key};
    k.mv_size = store_url_key((const char *)(r + 1), r->url_len, r->obj_id, key);
    return not_found_is_fine(mdb_del(s->txn, s->url, &k, NULL));
}

/* What the database knows of the slot's object. The record goes only if it is this object's. */
static int delete_rows(struct store *s, uint32_t slot, const struct cache_index *index)
{
    const uint64_t id = s->items[slot].obj_id;
    uint8_t id_key[8];
    MDB_val k = key_val(&index->key), v, ik = {sizeof id_key, id_key};
    int rc = mdb_get(s->txn, s->obj, &k, &v);
    s->removed_url = 0;
    s->removed_probe = false;
    if (rc != 0 && rc != MDB_NOTFOUND)
        return rc;
    if (rc == 0) {
        const struct cache_record *r = v.mv_data;
        const bool fits = cache_record_fits(r, v.mv_size);
        if (fits && r->obj_id == id) {
            s->removed_url = removals_url((const char *)(r + 1), r->url_len);
            s->removed_probe = verify_is_url((const char *)(r + 1), r->url_len);
        }
        if (fits && r->obj_id == id && (rc = delete_url(s, r)) != 0)
            return rc;
        if ((!fits || r->obj_id == id) && (rc = mdb_del(s->txn, s->obj, &k, NULL)) != 0)
            return rc;
    }
    cache_id_key(id, id_key);
    return mdb_del(s->txn, s->idx, &ik, NULL);
}

int store_remove(struct store *s, uint32_t slot)
{
    struct cache_index index;
    struct item *item = &s->items[slot];
    int rc = index_read(s, s->txn, slot, &index);
    if (rc != 0 || (rc = delete_rows(s, slot, &index)) != 0)
        return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
    deferred_free_add(s, item->obj_id, index.chunks);
    evict_remove(store_queues_of(s, slot), slot);
    s->live_units -= item->units;
    s->n_objects--;
    s->n_copies -= item->is_copy;
    s->n_personal -= item->is_personal;
    *item = (struct item){0};
    s->free_slots[s->n_free++] = slot;
    return 0;
}

/* Copies of identities go first where they are a quarter or more of what there is. */
static uint32_t victim(struct store *s, enum evict_bound bound, bool personal)
{
    const bool many = personal || s->n_personal * 4 >= s->n_objects;
    const uint32_t slot = evict_victim(many ? s->personal : s->evict, bound);
    return slot != EVICT_NONE || personal ? slot
                                          : evict_victim(many ? s->evict : s->personal, bound);
}

int store_make_room(struct store *s, uint64_t items, uint64_t personal, uint64_t units,
                    unsigned max)
{
    const uint64_t allowed = store_units_allowed(s);
    for (unsigned n = 0; n < max; n++) {
        const bool many = s->n_personal && s->n_personal + personal > store_personal_allowed(s);
        enum evict_bound bound;
        if (many || store_items(s) + items > s->max_items)
            bound = EVICT_ITEMS;
        else if (s->live_units + units > allowed)
            bound = EVICT_SPACE;
        else
            return 0;
        const uint32_t slot = victim(s, bound, many);
        if (slot == EVICT_NONE)
            return 0;
        const int rc = store_remove(s, slot);
        if (rc != 0)
            return rc;
        removals_note(s->gone, s->removed_url, REMOVED_EVICTED, clock_real_ms());
        stats_add(s->stats, STATS_CACHE_EVICTIONS, 1);
    }
    return 0;
}

int store_delete_bad(struct store *s, const struct cache_key *key)
{
    MDB_val k = key_val(key), v;
    const int rc = mdb_get(s->txn, s->obj, &k, &v);
    if (rc != 0)
        return not_found_is_fine(rc);
    const struct cache_record *r = v.mv_data;
    const bool sound = cache_record_sound(r, v.mv_size) && memcmp(&r->key, key, sizeof *key) == 0;
    if (sound && cache_record_state(s->inval, r, r->fetch_seq) != INVAL_HARD)
        return 0;
    const uint32_t slot = cache_record_fits(r, v.mv_size) ? store_slot_of(s, r) : EVICT_NONE;
    stats_add(s->stats, sound ? STATS_CACHE_INVALIDATED : STATS_CACHE_BAD_RECORDS, 1);
    if (sound)
        removals_note_invalidated(s->gone, s->inval, r, clock_real_ms());
    if (slot != EVICT_NONE)
        return store_remove(s, slot);
    return mdb_del(s->txn, s->obj, &k, NULL); /* its index entry goes when its turn comes */
}

int store_delete_object(struct store *s, const struct cache_key *key, uint64_t obj_id)
{
    MDB_val k = key_val(key), v;
    const int rc = mdb_get(s->txn, s->obj, &k, &v);
    if (rc != 0)
        return not_found_is_fine(rc);
    const struct cache_record *r = v.mv_data;
    const bool same = cache_record_fits(r, v.mv_size) && r->obj_id == obj_id;
    const uint32_t slot = same ? store_slot_of(s, r) : EVICT_NONE;
    return slot == EVICT_NONE ? 0 : store_remove(s, slot);
}

/* ---- putting ---- */

static bool still_valid(const struct store *s, const struct cache_record *r)
{
    return r->fetch_seq >= inval_ban_floor(s->inval) &&
           cache_record_state(s->inval, r, r->fetch_seq) == INVAL_VALID;
}

/* True if no tag of the stored record was invalidated since. A renewal may replace its tags.
 */
static bool tags_are_calm(const struct store *s, const struct cache_record *old, uint64_t since)
{
    return cache_record_state(s->inval, old, since) == INVAL_VALID;
}

/* Record, index and URL of an object with its id and slot. */
static int put_rows(struct store *s, struct cache_record *r, size_t len, uint32_t units,
                    uint32_t chunks)
{
    const size_t padded = (len + 7) & ~(size_t)7;
    struct cache_index index = {.key = r->key,
                                .expires_ms = expires_ms(r),
                                .units = units,
                                .slot = r->slot,
                                .chunks = chunks,
                                .url_len = (uint16_t)r->url_len,
                                .flags = r->flags & CACHE_ENCODED       ? CACHE_INDEX_COPY
                                         : r->flags & CACHE_OF_IDENTITY ? CACHE_INDEX_PERSONAL
                                                                        : 0};
    const struct iovec whole = {r, len};
    uint8_t id_key[8], url_key[STORE_URL_KEY];
    memset((char *)r + len, 0, padded - len);
    r->checksum = cache_checksum(&whole, 1);
    index.check = cache_index_check(&index, r->obj_id);
    MDB_val k = key_val(&r->key), v = {padded, r};
    int rc = mdb_put(s->txn, s->obj, &k, &v, 0);
    if (rc != 0)
        return rc;
    cache_id_key(r->obj_id, id_key);
    k = (MDB_val){sizeof id_key, id_key};
    v = (MDB_val){sizeof index, &index};
    if ((rc = mdb_put(s->txn, s->idx, &k, &v, 0)) != 0)
        return rc;
    k.mv_data = url_key;
    k.mv_size = store_url_key((const char *)(r + 1), r->url_len, r->obj_id, url_key);
    v = (MDB_val){sizeof r->key, &r->key};
    rc = mdb_put(s->txn, s->url, &k, &v, 0);
    s->items[r->slot] = store_item_of(&index, r->obj_id);
    return rc;
}

/* Takes away what is there under the key. 0, STORE_REFUSED_OLDER, or an LMDB code. *use: what the
 * old one had earned, 0xff where there was none. */
static int replace_old(struct store *s, const struct cache_record *r, bool *settled, uint8_t *use)
{
    MDB_val k = key_val(&r->key), v;
    *settled = false;
    *use = 0xff;
    int rc = mdb_get(s->txn, s->obj, &k, &v);
    if (rc != 0)
        return not_found_is_fine(rc);
    const struct cache_record *old = v.mv_data;
    if (!cache_record_fits(old, v.mv_size))
        return 0; /* overwritten */
    const uint32_t slot = store_slot_of(s, old);
    if (slot == EVICT_NONE)
        return 0;
    if (old->fetch_seq > r->fetch_seq && still_valid(s, old))
        return STORE_REFUSED_OLDER;
    *settled = evict_is_settled(store_queues_of(s, slot), slot);
    *use = (uint8_t)access_bits_used(atomic_load_explicit(&s->ref[slot], memory_order_relaxed));
    return store_remove(s, slot);
}

/* What the store held before a put. */
struct held {
    uint64_t items, units;
};

/* Fits, or would were it not that a bound was lowered just now: then the store at least
 * compressible. */
static bool has_room(const struct store *s, uint64_t items, uint64_t units, const struct held *held)
{
    const uint64_t n = store_items(s) + items, live = s->live_units + units;
    return (n <= s->max_items || n <= held->items) &&
           (live <= store_units_allowed(s) || live <= held->units);
}

static int put_new(struct store *s, struct cache_record *r, size_t len, uint32_t units,
                   uint32_t chunks, const struct held *held)
{
    bool settled;
    uint8_t use;
    const uint64_t items = !(r->flags & CACHE_ENCODED);
    const uint64_t personal = items && r->flags & CACHE_OF_IDENTITY;
    int rc = replace_old(s, r, &settled, &use);
    if (rc != 0 || (rc = store_make_room(s, items, personal, units, STORE_EVICTS_A_PUT)) != 0)
        return rc;
    if (personal && s->n_personal >= store_personal_allowed(s))
        return STORE_REFUSED_SIZE;
    if (!has_room(s, items, units, held))
        return STORE_REFUSED_SIZE; /* unfinished streams hold the rest */
    if (chunks == 0 && (rc = store_new_id(s, &r->obj_id)) != 0)
        return rc;
    if ((r->slot = slot_take(s)) == EVICT_NONE)
        return STORE_REFUSED_SIZE;
    if ((rc = put_rows(s, r, len, units, chunks)) != 0)
        return rc;
    const bool known = use != 0xff;
    access_bits_begin(&s->ref[r->slot], known ? use : 0);
    if (known)
        evict_adopt(store_queues_of(s, r->slot), r->slot, print_of(&r->key), units, settled);
    else
        evict_insert(store_queues_of(s, r->slot), r->slot, print_of(&r->key), units);
    s->n_objects++;
    s->n_copies += !items;
    s->n_personal += personal;
    s->live_units += units;
    return 0;
}

int store_put(struct store *s, struct cache_record *r, size_t len, uint32_t chunks,
              uint32_t chunk_units)
{
    const uint32_t units = store_units_of_record(len, r->url_len) + chunk_units;
    const struct held held = {store_items(s), s->live_units};
    r->url_slot = inval_url_slot(s->inval, r + 1, r->url_len);
    if (!still_valid(s, r))
        return STORE_REFUSED_INVALID;
    if (units > store_object_units(s) || s->max_items == 0)
        return STORE_REFUSED_SIZE;
    /* The chunks were counted as they came; from now on they are the object's. */
    s->live_units -= chunk_units;
    const int rc = put_new(s, r, len, units, chunks, &held);
    if (rc != 0)
        s->live_units += chunk_units;
    return rc;
}

int store_put_chunk(struct store *s, uint64_t obj_id, uint32_t n, const void *data, size_t len)
{
    uint8_t key[CACHE_CHUNK_KEY];
    const uint64_t checksum = cache_chunk_checksum(obj_id, n, data, len);
    MDB_val k = {sizeof key, key}, v = {sizeof checksum + len, NULL};
    cache_chunk_key(obj_id, n, key);
    const int rc = mdb_put(s->txn, s->body, &k, &v, MDB_RESERVE);
    if (rc != 0)
        return rc;
    memcpy(v.mv_data, &checksum, sizeof checksum);
    memcpy((char *)v.mv_data + sizeof checksum, data, len);
    return 0;
}

/* ---- changing ---- */

/* The same object with other bytes in its record, which had old_len of them. */
static int put_again(struct store *s, struct cache_record *r, size_t len, size_t old_len)
{
    struct cache_index index;
    const uint32_t slot = r->slot;
    int rc = index_read(s, s->txn, slot, &index);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
    const uint32_t units = index.units - store_units_of_record(old_len, r->url_len) +
                           store_units_of_record(len, r->url_len);
    if ((rc = put_rows(s, r, len, units, index.chunks)) != 0)
        return rc;
    s->live_units += units;
    s->live_units -= index.units;
    evict_resize(store_queues_of(s, slot), slot, units);
    return 0;
}

int store_revalidate(struct store *s, const struct cache_record *r, size_t len)
{
    _Alignas(8) char buffer[CACHE_VALUE_MAX + 8];
    MDB_val k = key_val(&r->key), v;
    int rc = mdb_get(s->txn, s->obj, &k, &v);
    if (rc != 0)
        return rc == MDB_NOTFOUND ? STORE_REFUSED_GONE : rc;
    const struct cache_record *old = v.mv_data;
    if (!cache_record_sound(old, v.mv_size) || old->obj_id != r->obj_id)
        return STORE_REFUSED_GONE;
    if (store_slot_of(s, old) == EVICT_NONE || old->url_len != r->url_len ||
        memcmp(old + 1, r + 1, r->url_len) != 0)
        return STORE_REFUSED_GONE;
    if (len + old->inline_len > CACHE_VALUE_MAX)
        return STORE_REFUSED_SIZE;
    struct cache_view view;
    cache_view_of(old, &view);
    struct cache_record *new = (struct cache_record *)buffer;
    memcpy(buffer, r, len);
    if (old->inline_len)
        memcpy(buffer + len, view.body, old->inline_len);
    new->slot = old->slot;
    new->body_len = old->body_len;
    new->body_checksum = old->body_checksum;
    new->inline_len = old->inline_len;
    /* What sort of object it is; counts and queues hang on it. */
    const uint32_t stays =
        CACHE_CHUNKED_BODY | CACHE_OF_IDENTITY | CACHE_ENCODED | CACHE_VARY_RECORD;
    new->flags = (r->flags & ~stays) | (old->flags & stays);
    new->source_id = old->source_id;
    new->url_slot = inval_url_slot(s->inval, new + 1, new->url_len);
    if (!still_valid(s, new) || !tags_are_calm(s, old, r->fetch_seq))
        return STORE_REFUSED_INVALID;
    _Atomic uint8_t *uses = &s->ref[new->slot];
    access_bits_begin(uses, access_bits_used(atomic_load_explicit(uses, memory_order_relaxed)));
    return put_again(s, new, len + new->inline_len, v.mv_size);
}

int store_soften(struct store *s, uint32_t slot, uint64_t now_ms)
{
    _Alignas(8) char buffer[CACHE_VALUE_MAX + 8];
    size_t old_len;
    const struct cache_record *old = store_record(s, s->txn, slot, &old_len);
    if (!old || !cache_record_sound(old, old_len))
        return 0; /* never served, so never stale */
    memcpy(buffer, old, old_len);
    struct cache_record *r = (struct cache_record *)buffer;
    r->flags |= CACHE_SOFTENED;
    if (r->fresh_until_ms >= now_ms) { /* the windows after it begin now */
        const uint64_t sooner = r->fresh_until_ms - (now_ms - 1);
        r->fresh_until_ms -= sooner;
        r->swr_until_ms -= r->swr_until_ms > sooner ? sooner : r->swr_until_ms;
        r->sie_until_ms -= r->sie_until_ms > sooner ? sooner : r->sie_until_ms;
    }
    return put_again(s, r, cache_record_len(r), old_len);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * intake: stores the records that workers and control put into their rings.
 *
 * One batch is one transaction: records of all rings in turn, up to 64, 1 MiB or 2 ms. After the
 * commit the permits are released, so that waiters find the object, and last the tails move. A
 * keeper killed before that reads the batch again, which changes nothing: the same object replaces
 * itself, and released permits are not released again. The part of an unfinished stream that it had
 * read is lost; the rest of such a stream is ignored, and its permit is released as failed.
 *
 * Nothing in a record is trusted: length, type and checksum are judged by ring_peek(), lengths
 * inside by cache_record_fits(), and obj_id, slot, url_slot and checksums are made here.
 */
#include "daemons/keeper/keeper.h"
#include "polder/clock.h"
#include "polder/log.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define STREAMS_MAX 1024
#define STREAM_GONE ((enum fetch_lock_result)FETCH_LOCK_FAILED)

struct stream {
    LIST_ENTRY(stream) entry;
    uint32_t ring, incarnation;
    uint64_t number, obj_id, body_len;
    uint32_t chunks, units;
    bool ended;   /* a short chunk came: only END may follow */
    bool refused; /* too large or not well-formed: kept to answer its waiters */
    XXH3_state_t *hash;
    size_t len;
    struct cache_record *record; /* with url, vary and head; room for padding */
};

struct batch {
    uint64_t cursor[SHARED_RINGS];
    bool touched[SHARED_RINGS];
    unsigned records;
    size_t bytes;
    uint64_t until_ns;
    unsigned n_locks;
    struct {
        struct fetch_permit permit;
        enum fetch_lock_result result;
    } lock[KEEPER_BATCH_RECORDS];
};

int intake_init(struct keeper *k)
{
    for (unsigned ring = 0; ring < SHARED_RINGS; ring++)
        k->intake.awake[ring] = true; /* or whatever the predecessor left */
    k->intake.record = aligned_alloc(64, RING_RECORD_MAX + 64);
    return k->intake.record ? 0 : -ENOMEM;
}

void intake_fini(struct keeper *k)
{
    intake_forget(k);
    free(k->intake.record);
    k->intake.record = NULL;
}

/* ---- streams ---- */

static void stream_free(struct stream *s)
{
    if (s->hash)
        XXH3_freeState(s->hash);
    free(s->record);
    free(s);
}

static struct stream *stream_find(struct keeper *k, uint32_t ring, uint64_t number)
{
    struct stream *s;
    LIST_FOREACH (s, &k->intake.streams, entry)
        if (s->ring == ring && s->number == number)
            break;
    return s;
}

/* Unlinks it; what it had stored is deleted. Within or outside of a transaction. */
static void stream_drop(struct keeper *k, struct stream *s)
{
    LIST_REMOVE(s, entry);
    k->intake.n_streams--;
    k->store.live_units -= s->units;
    if (k->store.env)
        deferred_free_add(&k->store, s->obj_id, s->chunks);
    stream_free(s);
}

void intake_forget(struct keeper *k)
{
    while (!LIST_EMPTY(&k->intake.streams)) {
        struct stream *s = LIST_FIRST(&k->intake.streams);
        LIST_REMOVE(s, entry);
        stream_free(s);
    }
    k->intake.n_streams = 0;
}

static void streams_drop_ring(struct keeper *k, uint32_t ring, uint32_t but_incarnation)
{
    for (struct stream *s = LIST_FIRST(&k->intake.streams), *next; s; s = next) {
        next = LIST_NEXT(s, entry);
        if (s->ring == ring && s->incarnation != but_incarnation)
            stream_drop(k, s);
    }
}

static uint32_t producer_slot(unsigned ring)
{
    return ring == SHARED_RING_CONTROL ? (uint32_t)PROC_SLOT_CONTROL
                                       : (uint32_t)PROC_SLOT_WORKER0 + ring;
}

void intake_drop_dead(struct keeper *k)
{
    for (struct stream *s = LIST_FIRST(&k->intake.streams), *next; s; s = next) {
        next = LIST_NEXT(s, entry);
        const struct proc_slot *slot = &k->shared->proc->slot[producer_slot(s->ring)];
        const uint32_t state = atomic_load(&slot->state);
        const bool gone = atomic_load(&slot->incarnation) != s->incarnation || state == PROC_DEAD ||
                          state == PROC_FREE;
        /* What it said last may be the END. */
        const bool silent =
            ring_head(k->shared->ring[s->ring]) == ring_tail(k->shared->ring[s->ring]);
        if (gone && silent)
            stream_drop(k, s);
    }
}

static struct stream *stream_new(const struct ring_record *head, unsigned ring)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->ring = ring;
    s->incarnation = head->incarnation;
    s->number = head->stream;
    s->hash = XXH3_createState();
    s->record = malloc(head->len + 8);
    if (!s->hash || !s->record) {
        stream_free(s);
        return NULL;
    }
    XXH3_64bits_reset(s->hash);
    return s;
}

/* ---- records, one function a type: 0, STORE_REFUSED_…, or an LMDB code ---- */

/* Workers with long polls for it are woken after the commit. */
static int note_put(struct keeper *k, const struct cache_record *r, int rc)
{
    if (rc == 0 && k->intake.n_put < KEEPER_BATCH_RECORDS)
        k->intake.put[k->intake.n_put++] = (uint16_t)cache_stored_slot(&r->key);
    return rc;
}

static int take_store(struct keeper *k, const struct ring_record *head)
{
    struct cache_record *r = (struct cache_record *)k->intake.record;
    if (!cache_record_fits(r, head->len) || (r->flags & CACHE_CHUNKED_BODY))
        return STORE_REFUSED_SIZE;
    return note_put(k, r, store_put(&k->store, r, cache_record_len(r), 0, 0));
}

static int take_begin(struct keeper *k, const struct ring_record *head, unsigned ring)
{
    struct cache_record *r = (struct cache_record *)k->intake.record;
    struct stream *old = stream_find(k, ring, head->stream);
    if (old)
        stream_drop(k, old);
    if (head->len < sizeof *r || k->intake.n_streams >= STREAMS_MAX)
        return STORE_REFUSED_SIZE;
    struct stream *s = stream_new(head, ring);
    if (!s)
        return STORE_REFUSED_SIZE;
    r->flags |= CACHE_CHUNKED_BODY;
    r->inline_len = 0;
    s->refused = !cache_record_fits(r, head->len);
    s->len = s->refused ? 0 : cache_record_len(r);
    memcpy(s->record, r, s->len);
    LIST_INSERT_HEAD(&k->intake.streams, s, entry);
    k->intake.n_streams++;
    return store_new_id(&k->store, &s->obj_id);
}

static int stream_chunk(struct keeper *k, struct stream *s, const void *data, size_t len)
{
    const uint32_t units = store_units_of_chunk(len);
    if (len == 0 || len > CACHE_CHUNK || s->ended ||
        s->units + units > store_object_units(&k->store)) {
        s->refused = true;
        return 0;
    }
    int rc = store_make_room(&k->store, 0, 0, units, STORE_EVICTS_A_PUT);
    if (rc != 0 || (rc = store_put_chunk(&k->store, s->obj_id, s->chunks, data, len)) != 0)
        return rc;
    XXH3_64bits_update(s->hash, data, len);
    s->ended = len < CACHE_CHUNK;
    s->body_len += len;
    s->chunks++;
    s->units += units;
    k->store.live_units += units;
    return 0;
}

static int take_chunk(struct keeper *k, const struct ring_record *head, unsigned ring)
{
    struct stream *s = stream_find(k, ring, head->stream);
    if (!s || s->refused)
        return 0;
    return stream_chunk(k, s, k->intake.record, head->len);
}

static int stream_publish(struct keeper *k, struct stream *s)
{
    struct cache_record *r = s->record;
    r->obj_id = s->obj_id;
    r->body_len = s->body_len;
    r->body_checksum = XXH3_64bits_digest(s->hash);
    if (r->flags & CACHE_ETAG_OURS)
        r->etag_hash = r->body_checksum;
    return note_put(k, r, store_put(&k->store, r, s->len, s->chunks, s->units));
}

static int take_end(struct keeper *k, const struct ring_record *head, unsigned ring)
{
    struct stream *s = stream_find(k, ring, head->stream);
    uint64_t body_len;
    if (!s)
        return STORE_REFUSED_INVALID; /* lost with the keeper or the store before */
    if (head->len != sizeof body_len || s->refused || s->chunks == 0) {
        stream_drop(k, s);
        return STORE_REFUSED_SIZE;
    }
    memcpy(&body_len, k->intake.record, sizeof body_len);
    const int rc = body_len == s->body_len ? stream_publish(k, s) : STORE_REFUSED_INVALID;
    if (rc == 0) { /* the chunks are the object's now */
        s->chunks = 0;
        s->units = 0;
    }
    stream_drop(k, s);
    return rc;
}

static int take_abort(struct keeper *k, const struct ring_record *head, unsigned ring)
{
    struct stream *s = stream_find(k, ring, head->stream);
    if (s)
        stream_drop(k, s);
    return STORE_REFUSED_INVALID;
}

static int take_delete(struct keeper *k, const struct ring_record *head)
{
    struct cache_key key;
    uint64_t obj_id;
    if (head->len != sizeof key && head->len != sizeof key + sizeof obj_id)
        return 0;
    memcpy(&key, k->intake.record, sizeof key);
    if (head->len == sizeof key)
        return store_delete_bad(&k->store, &key);
    memcpy(&obj_id, k->intake.record + sizeof key, sizeof obj_id);
    return store_delete_object(&k->store, &key, obj_id);
}

static int take_revalidate(struct keeper *k, const struct ring_record *head)
{
    struct cache_record *r = (struct cache_record *)k->intake.record;
    if (head->len < sizeof *r)
        return STORE_REFUSED_GONE;
    r->flags |= CACHE_CHUNKED_BODY; /* the body is the old one's; so is this flag, in the end */
    r->inline_len = 0;
    if (!cache_record_fits(r, head->len))
        return STORE_REFUSED_GONE;
    return store_revalidate(&k->store, r, cache_record_len(r));
}

static void take_sweep(struct keeper *k, const struct ring_record *head)
{
    struct ring_sweep sweep;
    if (head->len < sizeof sweep)
        return;
    memcpy(&sweep, k->intake.record, sizeof sweep);
    if (sweep.len <= head->len - sizeof sweep)
        sweep_hint(k, &sweep, k->intake.record + sizeof sweep);
}

static int take(struct keeper *k, const struct ring_record *head, unsigned ring)
{
    switch ((enum ring_type)head->type) {
    case RING_STORE:
        return take_store(k, head);
    case RING_BEGIN:
        return take_begin(k, head, ring);
    case RING_CHUNK:
        return take_chunk(k, head, ring);
    case RING_END:
        return take_end(k, head, ring);
    case RING_ABORT:
        return take_abort(k, head, ring);
    case RING_DELETE:
        return take_delete(k, head);
    case RING_REVALIDATE:
        return take_revalidate(k, head);
    case RING_SWEEP:
        if (ring == SHARED_RING_CONTROL)
            take_sweep(k, head);
        return 0;
    }
    return 0;
}

/* ---- batches ---- */

/* The result for waiters. One that finds nothing after STORED fetches again anyway. */
static enum fetch_lock_result result_of(int rc)
{
    switch (rc) {
    case 0:
    case STORE_REFUSED_OLDER:
        return FETCH_LOCK_STORED;
    case STORE_REFUSED_SIZE:
        return FETCH_LOCK_NOSHARE;
    default:
        return STREAM_GONE;
    }
}

static void batch_note(struct batch *b, const struct ring_record *head, int rc)
{
    b->records++;
    b->bytes += head->len;
    if (head->permit.word == 0 || head->permit.slot == UINT32_MAX)
        return;
    b->lock[b->n_locks].permit = head->permit;
    b->lock[b->n_locks].result = result_of(rc);
    b->n_locks++;
}

static bool batch_full(const struct batch *b)
{
    return b->records >= KEEPER_BATCH_RECORDS || b->bytes >= KEEPER_BATCH_BYTES ||
           clock_mono_ns() >= b->until_ns;
}

static void ring_is_damaged(struct keeper *k, struct batch *b, unsigned ring)
{
    b->cursor[ring] = ring_head(k->shared->ring[ring]);
    streams_drop_ring(k, ring, 0);
    if (k->mono_ms - k->intake.complained_ms < 1000 && k->intake.complained_ms)
        return;
    k->intake.complained_ms = k->mono_ms;
    log_warning("cache: ring %u holds something that is no record; dropped what was in it", ring);
}

/* 0, or an LMDB code: then the transaction cannot go on. */
static int batch_ring(struct keeper *k, struct batch *b, unsigned ring)
{
    struct ring_record head;
    struct ring *from = k->shared->ring[ring];
    b->cursor[ring] = ring_tail(from);
    while (!batch_full(b)) {
        const int got = ring_peek(from, &b->cursor[ring], &head, k->intake.record);
        if (got == 0)
            break;
        b->touched[ring] = true;
        if (got < 0) {
            ring_is_damaged(k, b, ring);
            break;
        }
        streams_drop_ring(k, ring, head.incarnation);
        const int rc = k->store.env ? take(k, &head, ring) : STORE_REFUSED_SIZE;
        if (rc != 0 && (rc < STORE_REFUSED_INVALID || rc > STORE_REFUSED_GONE))
            return rc;
        batch_note(b, &head, rc);
    }
    return 0;
}

static int batch_rings(struct keeper *k, struct batch *b)
{
    int rc = 0;
    unsigned ring = k->intake.first_ring;
    for (unsigned i = 0; i < SHARED_RINGS && rc == 0 && !batch_full(b); i++) {
        if (ring_head(k->shared->ring[ring]) != ring_tail(k->shared->ring[ring]))
            rc = batch_ring(k, b, ring);
        ring = (ring + 1) % SHARED_RINGS;
    }
    k->intake.first_ring = ring;
    return rc;
}

/* The order matters: the objects are visible, then waiters are woken, then their space in the ring
 * is freed. After a death in between the successor reads the batch again and wakes the rest; the
 * other way round they would be forgotten, and waiters would wait until the lease ends. */
static void batch_finish(struct keeper *k, const struct batch *b)
{
    for (unsigned i = 0; i < b->n_locks; i++)
        fetch_lock_release(k->shared->fetch_locks, &b->lock[i].permit, b->lock[i].result,
                           k->shared->worker_event);
    for (unsigned i = 0; i < k->intake.n_put; i++)
        atomic_fetch_add(&k->shared->cache->stored[k->intake.put[i]], 1);
    if (k->intake.n_put)
        shared_wake_holders(k->shared);
    for (unsigned ring = 0; ring < SHARED_RINGS; ring++)
        if (b->touched[ring])
            ring_consume(k->shared->ring[ring], b->cursor[ring]);
}

struct slice_result intake_batch(struct keeper *k)
{
    struct batch b = {.until_ns = clock_mono_ns() + KEEPER_BATCH_NS};
    if (!intake_pending(k))
        return SLICE_IDLE;
    int rc = 0;
    k->intake.n_put = 0;
    if (k->store.env && (rc = store_begin(&k->store)) != 0)
        return (struct slice_result){true, rc, "begin a transaction"};
    rc = batch_rings(k, &b);
    if (rc == 0 && k->store.env)
        rc = store_commit(&k->store);
    if (rc != 0) /* what was in the batch is still in the rings */
        return (struct slice_result){true, rc, "store objects"};
    batch_finish(k, &b);
    return (struct slice_result){.more = true};
}

bool intake_pending(const struct keeper *k)
{
    for (unsigned ring = 0; ring < SHARED_RINGS; ring++)
        if (ring_head(k->shared->ring[ring]) != ring_tail(k->shared->ring[ring]))
            return true;
    return false;
}

/* Unused rings stay marked as asleep: the first writer wakes us. */
void intake_sleep(struct keeper *k, bool asleep)
{
    for (unsigned ring = 0; ring < SHARED_RINGS; ring++) {
        struct ring *r = k->shared->ring[ring];
        const bool wake = !asleep && ring_head(r) != ring_tail(r);
        if (asleep ? k->intake.awake[ring] : wake) {
            ring_sleep(r, asleep);
            k->intake.awake[ring] = !asleep;
        }
    }
}

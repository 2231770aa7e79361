/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cache: what the store looks like, and how a worker reads it.
 *
 * One LMDB environment in state_dir/cache.<epoch>/, written by the keeper alone. Workers read in
 * place: a view is valid until cache_reader_release(), which must be called before control returns
 * to the event loop, for an open read transaction makes the file grow. Every record carries a
 * checksum and its own URL: a damaged page or a hash collision is a miss, never a wrong byte.
 *
 * databases:
 *   obj   cache key (16 B)                 -> struct cache_record + url + vary + head + inline body
 *         A response in another content coding lies under the key of a variant and has a body only;
 *         everything else, such as whether it may be used, is read from the plain one.
 *   body  obj_id BE64 + chunk BE32         -> checksum of the chunk + at most CACHE_CHUNK bytes
 *   idx   obj_id BE64                      -> struct cache_index (insertion order)
 *   url   "host/path?query" cut to 400 B + obj_id BE64 -> cache key
 *   meta  uuid of the invalidation history, format version, boot id, next obj_id
 *
 * LMDB rules (all LMDB calls live in cache*.c and keeper/): open after fork, never before; the
 * keeper opens first; no process ever open()s lock.mdb (closing any fd of it drops the process's
 * locks); values never longer than CACHE_CHUNK; no transaction across loop iterations in a worker.
 */
#ifndef POLDER_CACHE_H
#define POLDER_CACHE_H
#include "polder/inval.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define CACHE_PAGE      4096u
#define CACHE_VALUE_MAX (8u * CACHE_PAGE - 16u) /* 32 752: a value of exactly 8 overflow pages */
/* For this long after it was stored, a short body without an encoded variant yet is compressed for
 * each client that accepts it; later the variant exists, or is never going to. */
#define CACHE_COPY_SOON_MS 2000
#define CACHE_CHUNK        (CACHE_VALUE_MAX - 8u) /* body bytes of a chunk, beside its checksum */
#define CACHE_SLOTS_MAX    (1u << 24)             /* most objects; one byte of shm.ref each */
#define CACHE_TAGS_MAX     32
#define CACHE_VARY_MAX     16
#define CACHE_FORMAT       4

struct cache_key {
    uint8_t hash[16];
};

enum cache_flags {
    CACHE_VARY_RECORD = 1u << 0,     /* no response: `vary` lists the field names to look at */
    CACHE_MUST_REVALIDATE = 1u << 1, /* never stale (must-revalidate, proxy-revalidate, s-maxage) */
    CACHE_NO_CACHE = 1u << 2,        /* validate before each use */
    CACHE_AUTH_OK = 1u << 3,         /* may answer requests with Authorization (RFC 9111 3.5) */
    CACHE_ETAG_OURS = 1u << 4,       /* the validator was made by Polder: not sent to the backend */
    CACHE_HAS_ETAG = 1u << 5,
    CACHE_HAS_LAST_MODIFIED = 1u << 6,
    CACHE_SLOW = 1u << 7,         /* head needs the slow path (qualified no-cache, …) */
    CACHE_CHUNKED_BODY = 1u << 8, /* body in the body database, not inline */
    CACHE_FROM_POST = 1u << 9,
    CACHE_SOFTENED = 1u << 10,     /* keeper: freshness ended by a soft invalidation */
    CACHE_COMPRESSIBLE = 1u << 11, /* encoded variants may be stored beside it */
    CACHE_ENCODED = 1u << 12,      /* an encoded variant: the body of source_id and nothing else */
    CACHE_FOR_OTHERS = 1u << 13,   /* states a lifetime for shared caches: for all requests */
    CACHE_BY_IDENTITY = 1u << 14,  /* fetched by an identified request */
    CACHE_OF_IDENTITY = 1u << 15,  /* its key belongs to one identity: no other finds it */
    CACHE_ORIGIN_OK = 1u << 16,    /* may answer requests with Origin: policy_suits_origin() */
    CACHE_FROM_FLEET = 1u << 17,   /* another host has fetched it */
};

/* Little endian, as LMDB values: 8-byte alignment is promised (values are padded to 8 bytes).
 * A producer calls cache_record_init(), fills in what it knows, sends STORE or BEGIN and leaves
 * obj_id, slot, checksum and body_checksum to the keeper. */
struct cache_record {
    uint32_t magic;   /* CACHE_MAGIC */
    uint16_t version; /* CACHE_FORMAT */
    uint16_t status;
    uint64_t checksum;       /* keeper: XXH3-64 of all that follows, inline body included; the eight
                                bytes before it are the seed */
    uint64_t obj_id;         /* keeper; monotonic; 0 as a worker sends it */
    uint64_t fetch_seq;      /* inval_seq() before the backend request was sent */
    uint64_t received_ms;    /* real ms when the response came (response_time) */
    uint64_t fresh_until_ms; /* real ms */
    uint64_t swr_until_ms, sie_until_ms;
    uint64_t body_len;
    uint64_t body_checksum; /* XXH3-64 of the whole body; chunked bodies only */
    uint64_t etag_hash;
    uint64_t last_modified_ms; /* 0: none */
    uint64_t fetch_ns;         /* what the miss cost: time to the end of the response head */
    uint64_t source_id;        /* CACHE_ENCODED: obj_id of the original; body_len 0: not worth it */
    uint64_t identity;         /* hash of the fetching request's identity fields; 0: none */
    uint32_t slot;             /* keeper; index into shared.ref */
    uint32_t age_s;            /* corrected_initial_age (RFC 9111 4.2.3) when received */
    uint32_t flags;            /* enum cache_flags */
    uint32_t url_slot;         /* inval_url_slot() of url */
    uint32_t url_len;          /* "host/path?query" as normalised for the key */
    uint32_t vary_len;   /* vary_record: "accept\naccept-language\n"; variant: "accept: …\n" */
    uint32_t head_len;   /* ready to send: "HTTP/1.1 200 OK\r\n…", no blank line, no
                            Content-Length, Age, Cache-Status, Connection, and no ETag of ours:
                            those are written at each hit from body_len, age_s, etag_hash */
    uint32_t inline_len; /* body bytes inline */
    uint32_t n_tags;
    uint32_t rules;       /* identity_rules_number() under which it was stored */
    struct cache_key key; /* under which it is stored (the worker knows partition and variant) */
    uint32_t tag_slot[CACHE_TAGS_MAX]; /* with inval_origin() */
    /* then: url, vary, head, body */
};
#define CACHE_MAGIC 0x504c4452u
_Static_assert(sizeof(struct cache_record) == 8 + 8 * 14 + 4 * 10 + 16 + 4 * CACHE_TAGS_MAX,
               "wire format");

/* Negative answers (404, 410). A successful unsafe request to that URL invalidates those at and
 * below its path, and that of the collection above it. Returns how many sequence numbers that
 * took. */
unsigned cache_negative_mark(struct inval_page *page, const char *url, size_t len);
/* The sequence number of the last mark that concerns a negative answer of that URL; 0: none. */
uint64_t cache_negative_ended(const struct inval_page *page, const char *url, size_t len);
static inline bool cache_is_negative(const struct cache_record *record)
{
    return record->status >= 400;
}

/* What inval_check() says of a stored object, URL and tags and all; since: its fetch_seq, or later
 * where it was looked at since. The record lies before its URL. */
static inline enum inval_state cache_record_state(const struct inval_page *page,
                                                  const struct cache_record *record, uint64_t since)
{
    if (cache_is_negative(record) &&
        cache_negative_ended(page, (const char *)(record + 1), record->url_len) > since)
        return INVAL_HARD;
    return inval_check(page, since, record->url_slot, record->tag_slot, record->n_tags,
                       (const char *)(record + 1), record->url_len);
}

enum cache_index_flags {
    CACHE_INDEX_COPY = 1u << 0,     /* CACHE_ENCODED: no item of its own */
    CACHE_INDEX_PERSONAL = 1u << 1, /* CACHE_OF_IDENTITY */
};
struct cache_index {
    struct cache_key key;
    uint64_t expires_ms;  /* when the object is useless (stale windows included) */
    uint32_t units, slot; /* units of 512 bytes that it takes in the file, chunks included */
    uint32_t chunks;
    uint16_t url_len, flags; /* enum cache_index_flags */
    uint64_t check;          /* of all members before, and the obj_id: cache_index_check() */
};
_Static_assert(sizeof(struct cache_index) == 48, "wire format");

/* What inval_explain() says about it, in the same terms. */
unsigned cache_record_causes(const struct inval_page *page, const struct cache_record *record,
                             struct inval_cause out[INVAL_CAUSES_MAX]);

/* Key of "host/path?query" (normalised by the caller) with an optional partition value; and the key
 * of a variant of it. secret: inval_secret(). */
void cache_key_of(const uint8_t secret[32], const char *url, size_t url_len, const char *partition,
                  size_t partition_len, struct cache_key *key);
void cache_key_variant(const uint8_t secret[32], const struct cache_key *primary, const char *vary,
                       size_t vary_len, struct cache_key *key);
/* Of the copy in a content coding ("br") of what is stored under source. */
void cache_key_encoded(const uint8_t secret[32], const struct cache_key *source, const char *coding,
                       struct cache_key *key);

/* Zeroes the record and fills in what every record has. */
void cache_record_init(struct cache_record *record);
/* Body bytes that fit beside url, vary and head (their lengths are set); a longer body is sent as
 * BEGIN, CHUNKs, END. 0 also where the head alone is too long to be stored. */
size_t cache_inline_room(const struct cache_record *record);

/* The checksum of a record whose bytes (record, url, vary, head, inline body) are in iov; the first
 * one holds the whole struct. */
uint64_t cache_checksum(const struct iovec *iov, int n);
/* Bytes of a record with url, vary, head and inline body. */
size_t cache_record_len(const struct cache_record *record);
/* True if the bytes are a whole, untouched record of this format. */
bool cache_record_sound(const void *bytes, size_t len);
/* True only if lengths fit; no checksum (2 ns; for slots already verified). */
bool cache_record_fits(const void *bytes, size_t len);

struct cache_view {
    const struct cache_record *record;
    const char *url, *vary, *head, *body; /* body: inline part, NULL if chunked */
};

/* Where the parts of a record lie, which cache_record_fits(). */
void cache_view_of(const void *bytes, struct cache_view *view);

struct shared;
struct cache_reader;

/* A damaged map may end in SIGSEGV or SIGBUS. While a reader has a transaction open, these set the
 * process slot's `poison` and end the process; elsewhere they do what they did before. Once a
 * process, after the fork. */
void map_fault_install(struct shared *shared, uint32_t slot);
/* From now on faults are blamed on the map of that epoch; 0: on one that has no epoch yet. */
void map_fault_blame(uint64_t epoch);
/* The value of `poison` then: never 0, and different for each store. */
#define CACHE_POISON_UNNAMED 1u
static inline uint32_t cache_poison_of(uint64_t epoch)
{
    return (uint32_t)(epoch << 1) | CACHE_POISON_UNNAMED;
}
/* Keeper: from now on faults are blamed on the map. */
void map_fault_enter(void);

/* Worker: opens lazily; -EAGAIN while the keeper has no store open. */
int cache_reader_open(struct shared *shared, const char *state_dir, struct cache_reader **out);
void cache_reader_close(struct cache_reader *reader);
/* Once an iteration and before lookups: follows rotations (one word compared). false: no store now,
 * and none can be opened; it tries again itself. No view may be held. */
bool cache_reader_ready(struct cache_reader *reader);
/* 1: found and sound, *view set, the transaction stays open until release; several lookups may be
 * made in one. 0: not there; -EIO: a damaged record (counted, reported to the keeper by the caller
 * with RING_DELETE); the transaction is then as it was before the call. The caller compares the
 * URL. */
int cache_reader_get(struct cache_reader *reader, const struct cache_key *key,
                     struct cache_view *view);
/* Chunk n of an object within the same or a later transaction, checksum verified. 1, 0, -EIO. */
int cache_reader_chunk(struct cache_reader *reader, uint64_t obj_id, uint32_t n, const char **data,
                       size_t *len);
void cache_reader_release(struct cache_reader *reader);
/* Keeps the chunks of an object from deletion while a slow client reads them, until it is unpinned
 * as often. Call it while the view of the object is held: then no chunk is missing later. false: no
 * pin free; there are CACHE_PINS, one an object. */
bool cache_reader_pin(struct cache_reader *reader, uint64_t obj_id);
void cache_reader_unpin(struct cache_reader *reader, uint64_t obj_id);

/* Names shared by reader and keeper. */
#define CACHE_CHUNK_KEY 12
#define CACHE_READERS   512 /* reader slots of the environment */
#define CACHE_DBS       8
void cache_id_key(uint64_t obj_id, uint8_t key[8]);
uint64_t cache_id_of(const uint8_t key[8]);
void cache_chunk_key(uint64_t obj_id, uint32_t n, uint8_t key[CACHE_CHUNK_KEY]);
uint64_t cache_index_check(const struct cache_index *index, uint64_t obj_id);
uint64_t cache_chunk_checksum(uint64_t obj_id, uint32_t n, const void *data, size_t len);
int cache_directory(const char *state_dir, uint64_t epoch, char *path, size_t size);

/* What workers and keeper share about the store beside the database (SHM_REF's sibling; in
 * shared.h). */
#define CACHE_PINS         512
#define CACHE_STORED_SLOTS 65536u
#define CACHE_REFUSALS     4096u
static inline uint32_t cache_stored_slot(const struct cache_key *key)
{
    return ((uint32_t)key->hash[0] << 8 | key->hash[1]) % CACHE_STORED_SLOTS;
}
struct cache_shared {
    /* Which directory cache.<epoch> is current; 0: no store. Keeper writes (release). */
    _Alignas(64) _Atomic uint64_t epoch;
    /* Master adds 1 when the store itself seems to kill processes (the keeper died three times in
     * 30 s, or two processes died inside the cache map within 10 s). The next keeper that starts
     * and finds it non-zero rotates to an empty store, then subtracts what it had read. */
    _Atomic uint32_t rotate_requested;
    /* Any process: a process died inside the map; the next keeper examines the whole store before
     * it goes on with it, then stores 0. */
    _Atomic uint32_t suspect;
    /* Reader: this epoch's tree is damaged. The keeper rotates if it is still the current one. */
    _Atomic uint64_t damaged_epoch;
    /* Keeper: no epoch and no obj_id up to these is used again while any process lives that may
     * remember one. */
    _Atomic uint64_t epoch_floor, id_floor;
    /* Keeper: when it last gave up a store as broken, mono ms; three within ten minutes and the
     * cache is off until the ten minutes are over. */
    _Atomic uint64_t rotated_ms[3];
    /* Keeper: the largest body that it takes; 0: no store. */
    _Atomic uint64_t body_max;
    /* Workers: cache_refusal_note(). */
    _Atomic uint64_t refusal[CACHE_REFUSALS];
    /* How many objects were stored, by a hash of their keys: cache_stored_slot(). Keeper adds 1
     * after its commit, then wakes the workers that hold requests until something changes. */
    _Atomic uint32_t stored[CACHE_STORED_SLOTS];
    /* Objects whose chunks a worker still sends; 0: free. Worker writes its row; the master clears
     * a dead worker's row. The keeper does not delete chunks of a pinned object. */
    _Alignas(64) _Atomic uint64_t pin[128][CACHE_PINS];
};
/* Notes why an answer of the URL was not stored (enum policy_store); 0: it was stored. And returns
 * the last known reason; 0: none. */
void cache_refusal_note(struct cache_shared *shared, const uint8_t secret[32], const char *url,
                        size_t len, unsigned reason, uint64_t real_ms);
unsigned cache_refusal_find(const struct cache_shared *shared, const uint8_t secret[32],
                            const char *url, size_t len, uint64_t real_ms, uint64_t *ago_s);
#endif

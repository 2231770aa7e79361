/* SPDX-License-Identifier: BSD-2-Clause */
/* cache: keys, records and their checksums; knows nothing of where they are kept. */
#include "polder/cache.h"
#include "polder/inval.h"
#include <errno.h>
#include <stdalign.h>
#include <stdio.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* for hash states on the stack */
#include <xxhash.h>

#define KEY_STACK 1024 /* texts up to here are hashed in one go */

_Static_assert((CACHE_VALUE_MAX + 16) % CACHE_PAGE == 0, "fills its overflow pages exactly");
_Static_assert(CACHE_VALUE_MAX % 8 == 0, "padded values fit too");
_Static_assert(CACHE_CHUNK + sizeof(uint64_t) == CACHE_VALUE_MAX, "a chunk and its checksum");

/* What a key is made of: the whole secret, the lengths (so that no two pairs of texts look alike),
 * both texts. The seed is secret as well. */
struct key_head {
    uint8_t secret[32];
    uint64_t len[2];
};

static void key_store(XXH128_hash_t hash, struct cache_key *key)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    memcpy(key->hash, canonical.digest, sizeof key->hash);
}

static void key_hash(const uint8_t secret[32], uint64_t salt, const void *a, size_t a_len,
                     const void *b, size_t b_len, struct cache_key *key)
{
    struct key_head head = {.len = {a_len, b_len}};
    uint64_t seed;
    memcpy(head.secret, secret, sizeof head.secret);
    memcpy(&seed, secret + 24, sizeof seed);
    seed ^= salt;
    if (sizeof head + a_len + b_len <= KEY_STACK) {
        char text[KEY_STACK];
        memcpy(text, &head, sizeof head);
        memcpy(text + sizeof head, a, a_len);
        if (b_len)
            memcpy(text + sizeof head + a_len, b, b_len);
        key_store(XXH3_128bits_withSeed(text, sizeof head + a_len + b_len, seed), key);
        return;
    }
    XXH3_state_t state;
    XXH3_128bits_reset_withSeed(&state, seed);
    XXH3_128bits_update(&state, &head, sizeof head);
    XXH3_128bits_update(&state, a, a_len);
    if (b_len)
        XXH3_128bits_update(&state, b, b_len);
    key_store(XXH3_128bits_digest(&state), key);
}

void cache_key_of(const uint8_t secret[32], const char *url, size_t url_len, const char *partition,
                  size_t partition_len, struct cache_key *key)
{
    key_hash(secret, 1, url, url_len, partition, partition_len, key);
}

void cache_key_variant(const uint8_t secret[32], const struct cache_key *primary, const char *vary,
                       size_t vary_len, struct cache_key *key)
{
    const struct cache_key from = *primary; /* key may be the same */
    key_hash(secret, 2, from.hash, sizeof from.hash, vary, vary_len, key);
}

void cache_key_encoded(const uint8_t secret[32], const struct cache_key *source, const char *coding,
                       struct cache_key *key)
{
    char name[16]; /* no field name begins so: never the key of a variant */
    const int n = snprintf(name, sizeof name, "=%.14s", coding);
    cache_key_variant(secret, source, name, (size_t)n, key);
}

/* ---- records ---- */

void cache_record_init(struct cache_record *record)
{
    memset(record, 0, sizeof *record);
    record->magic = CACHE_MAGIC;
    record->version = CACHE_FORMAT;
}

size_t cache_inline_room(const struct cache_record *record)
{
    const uint64_t used =
        sizeof *record + (uint64_t)record->url_len + record->vary_len + record->head_len;
    return used < CACHE_VALUE_MAX ? (size_t)(CACHE_VALUE_MAX - used) : 0;
}

/* magic, version and status stand before the checksum: they are its seed. */
#define CHECKED_FROM (offsetof(struct cache_record, checksum) + sizeof(uint64_t))

static uint64_t checksum_seed(const void *record)
{
    uint64_t seed;
    memcpy(&seed, record, sizeof seed);
    return seed;
}

uint64_t cache_checksum(const struct iovec *iov, int n)
{
    if (n < 1 || iov[0].iov_len < sizeof(struct cache_record))
        return 0;
    const char *first = (const char *)iov[0].iov_base;
    const uint64_t seed = checksum_seed(first);
    if (n == 1)
        return XXH3_64bits_withSeed(first + CHECKED_FROM, iov[0].iov_len - CHECKED_FROM, seed);
    XXH3_state_t state;
    XXH3_64bits_reset_withSeed(&state, seed);
    XXH3_64bits_update(&state, first + CHECKED_FROM, iov[0].iov_len - CHECKED_FROM);
    for (int i = 1; i < n; i++)
        if (iov[i].iov_len)
            XXH3_64bits_update(&state, iov[i].iov_base, iov[i].iov_len);
    return XXH3_64bits_digest(&state);
}

size_t cache_record_len(const struct cache_record *r)
{
    return sizeof *r + (size_t)r->url_len + r->vary_len + r->head_len + r->inline_len;
}

bool cache_record_fits(const void *bytes, size_t len)
{
    const struct cache_record *r = (const struct cache_record *)bytes;
    if (len < sizeof *r || ((uintptr_t)bytes & (alignof(struct cache_record) - 1)) != 0)
        return false;
    if (r->magic != CACHE_MAGIC || r->version != CACHE_FORMAT)
        return false;
    const uint64_t want = cache_record_len(r);
    /* In the store values are padded to 8 bytes, which keeps their neighbours aligned. */
    if (want > CACHE_VALUE_MAX || (len != want && len != ((want + 7) & ~UINT64_C(7))))
        return false;
    if (r->n_tags > CACHE_TAGS_MAX || r->slot >= CACHE_SLOTS_MAX || r->url_slot >= INVAL_SLOTS)
        return false;
    if (!(r->flags & CACHE_ENCODED) != !r->source_id)
        return false;
    if (r->flags & CACHE_CHUNKED_BODY)
        return r->inline_len == 0;
    return r->body_len == r->inline_len;
}

bool cache_record_sound(const void *bytes, size_t len)
{
    if (!cache_record_fits(bytes, len))
        return false;
    const struct cache_record *r = (const struct cache_record *)bytes;
    const struct iovec iov = {(void *)(uintptr_t)bytes, cache_record_len(r)};
    return cache_checksum(&iov, 1) == r->checksum;
}

void cache_view_of(const void *bytes, struct cache_view *view)
{
    const struct cache_record *r = (const struct cache_record *)bytes;
    view->record = r;
    view->url = (const char *)(r + 1);
    view->vary = view->url + r->url_len;
    view->head = view->vary + r->vary_len;
    view->body = r->flags & CACHE_CHUNKED_BODY ? NULL : view->head + r->head_len;
}

uint64_t cache_chunk_checksum(uint64_t obj_id, uint32_t n, const void *data, size_t len)
{
    return XXH3_64bits_withSeed(data, len, obj_id * UINT64_C(0x9E3779B97F4A7C15) + n);
}

uint64_t cache_index_check(const struct cache_index *index, uint64_t obj_id)
{
    return XXH3_64bits_withSeed(index, offsetof(struct cache_index, check), obj_id);
}

void cache_chunk_key(uint64_t obj_id, uint32_t n, uint8_t key[CACHE_CHUNK_KEY])
{
    cache_id_key(obj_id, key);
    for (unsigned i = 0; i < 4; i++)
        key[8 + i] = (uint8_t)(n >> (24 - 8 * i));
}

void cache_id_key(uint64_t obj_id, uint8_t key[8])
{
    for (unsigned i = 0; i < 8; i++)
        key[i] = (uint8_t)(obj_id >> (56 - 8 * i));
}

uint64_t cache_id_of(const uint8_t key[8])
{
    uint64_t id = 0;
    for (unsigned i = 0; i < 8; i++)
        id = id << 8 | key[i];
    return id;
}

int cache_directory(const char *state_dir, uint64_t epoch, char *path, size_t size)
{
    const int n = snprintf(path, size, "%s/cache.%llu", state_dir, (unsigned long long)epoch);
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_object: see fleet_object.h. */
#include "daemons/control/model/fleet_object.h"
#include "polder/head_lines.h"

#include <errno.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <string.h>
#include <zstd.h>

#define LEVEL     1
#define WORTH     8 /* encoded where that makes it shorter by this fraction */
#define NAMES_MAX 4096

enum { ENCODED_NOT, ENCODED_ZSTD };

struct head {
    uint8_t version, coding;
    uint16_t pad_, origin_len, pad2_;
    uint32_t plain_len, pad3_;
    uint64_t epoch, applied;
};
_Static_assert(sizeof(struct head) == FLEET_OBJECT_HEAD, "wire format");

/* ---- names and signatures ---- */

void fleet_object_key(const struct fleet_key *fleet, struct fleet_key *key)
{
    static const char purpose[] = "polder objects";
    static const uint8_t version = FLEET_OBJECT_VERSION;
    struct hmac_sha256_ctx hmac;
    hmac_sha256_set_key(&hmac, sizeof fleet->bytes, fleet->bytes);
    hmac_sha256_update(&hmac, sizeof purpose, (const uint8_t *)purpose);
    hmac_sha256_update(&hmac, sizeof version, &version);
    hmac_sha256_digest(&hmac, sizeof key->bytes, key->bytes);
}

static void add_text(struct hmac_sha256_ctx *hmac, struct str text)
{
    const uint32_t len = (uint32_t)text.len;
    hmac_sha256_update(hmac, sizeof len, (const uint8_t *)&len);
    if (text.len)
        hmac_sha256_update(hmac, text.len, (const uint8_t *)text.at);
}

void fleet_object_name_of(const struct fleet_key *key, const struct fleet_object_of *what,
                          struct fleet_object_name *name)
{
    static const char digits[] = "0123456789abcdef";
    struct hmac_sha256_ctx hmac;
    uint8_t bytes[16];
    hmac_sha256_set_key(&hmac, sizeof key->bytes, key->bytes);
    add_text(&hmac, what->url);
    add_text(&hmac, what->partition);
    add_text(&hmac, what->vary);
    hmac_sha256_digest(&hmac, sizeof bytes, bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        name->hex[2 * i] = digits[bytes[i] >> 4];
        name->hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    name->hex[2 * sizeof bytes] = 0;
}

static void sign(const uint8_t *bytes, size_t len, const struct fleet_key *key,
                 const struct fleet_object_name *name, uint8_t mac[FLEET_MAC])
{
    struct hmac_sha256_ctx hmac;
    hmac_sha256_set_key(&hmac, sizeof key->bytes, key->bytes);
    hmac_sha256_update(&hmac, sizeof name->hex, (const uint8_t *)name->hex);
    hmac_sha256_update(&hmac, len, bytes);
    hmac_sha256_digest(&hmac, FLEET_MAC, mac);
}

/* ---- what is in it ---- */

static bool vary_is_sound(const struct cache_record *r)
{
    const char *vary = (const char *)(r + 1) + r->url_len;
    return !r->vary_len || vary[r->vary_len - 1] == '\n';
}

static bool body_is_sound(const struct fleet_object *o)
{
    if (!(o->record->flags & CACHE_CHUNKED_BODY))
        return !o->body_len;
    return o->body_len && o->body_len <= FLEET_BODY_MAX && o->record->body_len == o->body_len;
}

static bool is_vary_record(const struct cache_record *r)
{
    return r->flags == CACHE_VARY_RECORD && r->vary_len && r->vary_len <= NAMES_MAX &&
           !r->head_len && !r->inline_len && !r->body_len && !r->n_tags;
}

static bool is_response(const struct cache_record *r)
{
    static const struct str set_cookie = {"set-cookie", 10};
    const uint32_t never =
        CACHE_VARY_RECORD | CACHE_FROM_POST | CACHE_ENCODED | CACHE_BY_IDENTITY | CACHE_OF_IDENTITY;
    const char *head = (const char *)(r + 1) + r->url_len + r->vary_len;
    return !(r->flags & never) && !r->identity && r->status >= 200 && r->status < 600 &&
           r->status != 206 && r->status != 304 &&
           !head_lines_find((struct str){head, r->head_len}, set_cookie, NULL);
}

bool fleet_object_is_sound(const struct fleet_object *o)
{
    const struct cache_record *r = o->record;
    return cache_record_fits(r, o->record_len) && cache_record_len(r) == o->record_len &&
           (is_vary_record(r) || is_response(r)) && r->url_len && vary_is_sound(r) &&
           o->origin_len <= UINT16_MAX && body_is_sound(o) &&
           o->record_len + o->origin_len <= RING_RECORD_MAX;
}

/* ---- writing ---- */

static size_t put_plain(const struct fleet_object *o, char out[FLEET_OBJECT_PLAIN])
{
    memcpy(out, o->record, o->record_len);
    if (o->origin_len)
        memcpy(out + o->record_len, o->origin, o->origin_len);
    const size_t len = o->record_len + o->origin_len;
    if (o->body_len)
        memcpy(out + len, o->body, o->body_len);
    return len + o->body_len;
}

/* One for all: to make its tables costs more than most objects do. The length; 0: it is not worth it. */
static size_t encode(const char *plain, size_t len, uint8_t *out)
{
    static ZSTD_CCtx *context;
    if (!context)
        context = ZSTD_createCCtx();
    if (!context)
        return 0;
    const size_t n = ZSTD_compressCCtx(context, out, FLEET_OBJECT_PLAIN, plain, len, LEVEL);
    return !ZSTD_isError(n) && n < len - len / WORTH ? n : 0;
}

size_t fleet_object_write(const struct fleet_object *o, const struct fleet_key *key,
                          const struct fleet_object_name *name, uint8_t out[FLEET_OBJECT_MAX])
{
    static char plain[FLEET_OBJECT_PLAIN];
    if (!fleet_object_is_sound(o))
        return 0;
    size_t len = put_plain(o, plain);
    struct head head = {.version = FLEET_OBJECT_VERSION,
                        .origin_len = (uint16_t)o->origin_len,
                        .plain_len = (uint32_t)len,
                        .epoch = o->epoch,
                        .applied = o->applied};
    const size_t encoded = encode(plain, len, out + sizeof head);
    if (encoded) {
        head.coding = ENCODED_ZSTD;
        len = encoded;
    } else {
        memcpy(out + sizeof head, plain, len);
    }
    memcpy(out, &head, sizeof head);
    sign(out, sizeof head + len, key, name, out + sizeof head + len);
    return sizeof head + len + FLEET_MAC;
}

/* ---- reading ---- */

static bool decompress(const uint8_t *bytes, size_t len, char *space, size_t plain_len)
{
    static ZSTD_DCtx *context;
    if (!context)
        context = ZSTD_createDCtx();
    return context && ZSTD_decompressDCtx(context, space, plain_len, bytes, len) == plain_len;
}

static bool decode(const struct head *head, const uint8_t *bytes, size_t len, char *space)
{
    if (head->plain_len > FLEET_OBJECT_PLAIN)
        return false;
    if (head->coding == ENCODED_ZSTD)
        return decompress(bytes, len, space, head->plain_len);
    if (head->coding != ENCODED_NOT || len != head->plain_len)
        return false;
    memcpy(space, bytes, len);
    return true;
}

int fleet_object_read(const uint8_t *bytes, size_t len, const struct fleet_key *key,
                      const struct fleet_object_name *name, char *space, struct fleet_object *o)
{
    uint8_t mac[FLEET_MAC];
    struct head head;
    if (len < sizeof head + FLEET_MAC || len > FLEET_OBJECT_MAX)
        return -EPERM;
    len -= FLEET_MAC;
    sign(bytes, len, key, name, mac);
    if (!memeql_sec(mac, bytes + len, FLEET_MAC))
        return -EPERM;
    memcpy(&head, bytes, sizeof head);
    if (head.version != FLEET_OBJECT_VERSION ||
        !decode(&head, bytes + sizeof head, len - sizeof head, space) ||
        head.plain_len < sizeof(struct cache_record) + head.origin_len)
        return -ENOTSUP;
    const struct cache_record *r = (const struct cache_record *)(const void *)space;
    const uint64_t body_len = r->flags & CACHE_CHUNKED_BODY ? r->body_len : 0;
    if (body_len > head.plain_len - head.origin_len - sizeof *r)
        return -ENOTSUP;
    const size_t record_len = head.plain_len - head.origin_len - body_len;
    *o = (struct fleet_object){.epoch = head.epoch,
                               .applied = head.applied,
                               .record = r,
                               .record_len = record_len,
                               .origin = space + record_len,
                               .origin_len = head.origin_len,
                               .body = space + head.plain_len - body_len,
                               .body_len = body_len};
    return fleet_object_is_sound(o) ? 0 : -ENOTSUP;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* h1_fields: which field is this, and what follows from that. */
#include "daemons/http/h1_fields.h"
#include "polder/override.h"
#include <string.h>

/* One row a known field: its name in lower case, and 0x20 where a letter stands. */
struct known {
    char name[32];
    char letter[32];
    size_t len;
};
static struct known known[H1_FIELD_IDS] = {
#define FIELD(id, text) [H1_##id] = {.name = text, .len = sizeof text - 1},
#include "h1_fields.def"
#undef FIELD
};

/* Open addressing over h1_fields.def, filled before main(); 0: empty. */
#define SLOTS 512u
static uint8_t slot[SLOTS];
_Static_assert(H1_FIELD_IDS < 256, "ids fit a byte");

/* Any name, validated as a token or not: len ≥ 1. Bit 0x20 makes letters lower-case. */
static inline unsigned hash_of(const char *name, size_t len)
{
    unsigned a = (unsigned char)name[0] | 0x20u, z = (unsigned char)name[len - 1] | 0x20u,
             m = (unsigned char)name[len / 2] | 0x20u;
    return (a * 17u + z * 5u + m * 131u + (unsigned)len * 67u) % SLOTS;
}

__attribute__((constructor)) static void fill_slots(void)
{
    for (unsigned id = 1; id < H1_FIELD_IDS; id++) {
        struct known *k = &known[id];
        unsigned at = hash_of(k->name, k->len);
        while (slot[at])
            at = (at + 1) % SLOTS;
        slot[at] = (uint8_t)id;
        for (size_t i = 0; i < k->len; i++)
            k->letter[i] = k->name[i] >= 'a' && k->name[i] <= 'z' ? 0x20 : 0;
    }
}

static inline uint64_t load(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline bool same_word(const struct known *k, const char *name, size_t i)
{
    return (load(name + i) | load(k->letter + i)) == load(k->name + i);
}

/* name has k->len bytes: compared in words, the last of which may overlap the one before. */
static bool same_name(const struct known *k, const char *name)
{
    size_t i = 0;
    if (k->len < sizeof(uint64_t)) {
        while (i < k->len && (name[i] | k->letter[i]) == k->name[i])
            i++;
        return i == k->len;
    }
    for (; i + sizeof(uint64_t) <= k->len; i += sizeof(uint64_t))
        if (!same_word(k, name, i))
            return false;
    return same_word(k, name, k->len - sizeof(uint64_t));
}

enum h1_field_id h1_field_id_of(struct str name)
{
    if (name.len == 0)
        return H1_OTHER;
    for (unsigned at = hash_of(name.at, name.len); slot[at]; at = (at + 1) % SLOTS) {
        const struct known *k = &known[slot[at]];
        if (k->len == name.len && same_name(k, name.at))
            return (enum h1_field_id)slot[at];
    }
    return H1_OTHER;
}

struct str h1_field_name(enum h1_field_id id)
{
    return (struct str){known[id].name, known[id].len};
}

bool h1_may_trail(struct str name)
{
    /* Whatever Polder itself acts on steers framing, routing, caching or authentication; of the
     * validators alone an ETag may be computed while the body is sent. */
    static const char *const never[] = {
        "proxy-authenticate",
        "proxy-authorization",
        "www-authenticate",
        "authentication-info",
        "max-forwards",
        "retry-after",
        "warning",
        "allow",
        "content-location",
        "content-language",
        "content-disposition",
        "proxy-authentication-info",
        "x-forwarded-port",
        "http2-settings",
    };
    enum h1_field_id id = h1_field_id_of(name);
    uint32_t n;
    const struct str *overrides = override_defaults(&n);
    if (id != H1_OTHER)
        return id == H1_ETAG;
    if (override_is_listed(name, overrides, n))
        return false;
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (field_is(name, never[i]))
            return false;
    return true;
}

/* Hop-by-hop by definition, whether Connection names them or not (RFC 9110 7.6.1). */
static bool is_of_the_hop(enum h1_field_id id)
{
    switch (id) {
    case H1_CONNECTION:
    case H1_KEEP_ALIVE:
    case H1_PROXY_CONNECTION:
    case H1_TE:
    case H1_TRANSFER_ENCODING:
    case H1_UPGRADE:
        return true;
    default:
        return false;
    }
}

bool h1_is_hop_by_hop(const struct h1_head *h, const struct h1_field *f)
{
    size_t n = (size_t)(f - h->field);
    if (f->id != H1_OTHER)
        return is_of_the_hop(f->id);
    return h->nominated[n / 64] >> (n % 64) & 1;
}

const struct h1_field *h1_only(const struct h1_head *h, enum h1_field_id id)
{
    const struct h1_field *f = h1_find(h, id);
    if (f)
        for (uint32_t i = h->first[id]; i < h->n_fields; i++)
            if (h->field[i].id == id)
                return NULL;
    return f;
}

size_t h1_join(const struct h1_head *h, enum h1_field_id id, char *out, size_t size)
{
    size_t len = 0;
    if (!h->first[id])
        return 0;
    for (uint32_t i = h->first[id] - 1u; i < h->n_fields; i++) {
        const struct h1_field *f = &h->field[i];
        if (f->id != id)
            continue;
        size_t comma = len ? 2 : 0;
        if (f->value.len + comma > size - len)
            return 0;
        memcpy(out + len, ", ", comma);
        memcpy(out + len + comma, f->value.at, f->value.len);
        len += comma + f->value.len;
    }
    return len;
}

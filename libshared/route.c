/* SPDX-License-Identifier: BSD-2-Clause */
/* route: see route.h. */
#include "polder/route.h"
#include "polder/config.h"

#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* An open-addressing table of patterns; exact and prefix patterns differ in the seed. */
struct route_index {
    uint32_t mask;
    uint32_t n_lengths;
    uint32_t longest_exact;
    const uint32_t *lengths;                /* of prefixes, longest first */
    const struct config_route *const *slot; /* [mask + 1] */
};

static uint64_t hash_of(const char *text, size_t len, bool exact)
{
    return XXH3_64bits_withSeed(text, len, exact);
}

static const struct config_route *look_up(const struct route_index *index, const char *text,
                                          size_t len, bool exact)
{
    for (uint64_t i = hash_of(text, len, exact);; i++) {
        const struct config_route *r = index->slot[i & index->mask];
        if (!r)
            return NULL;
        if (r->exact == exact && r->prefix_len == len && !memcmp(r->prefix, text, len))
            return r;
    }
}

const struct config_route *route_find(const struct config *config, const char *path, size_t len)
{
    const struct route_index *index = config->route_index;
    const struct config_route *r = NULL;
    if (len <= index->longest_exact)
        r = look_up(index, path, len, true);
    for (uint32_t i = 0; !r && i < index->n_lengths; i++)
        if (index->lengths[i] <= len)
            r = look_up(index, path, index->lengths[i], false);
    return r;
}

static void insert(const struct config_route **slot, uint32_t mask, const struct config_route *r)
{
    uint64_t i = hash_of(r->prefix, r->prefix_len, r->exact);
    while (slot[i & mask])
        i++;
    slot[i & mask] = r;
}

/* Keeps lengths sorted, longest first, without repetition. */
static uint32_t add_length(uint32_t *lengths, uint32_t n, uint32_t len)
{
    uint32_t at = 0;
    while (at < n && lengths[at] > len)
        at++;
    if (at < n && lengths[at] == len)
        return n;
    memmove(lengths + at + 1, lengths + at, (n - at) * sizeof *lengths);
    lengths[at] = len;
    return n + 1;
}

const struct route_index *route_index_build(struct config_arena *arena, const struct config *config)
{
    uint32_t size = 8;
    while (size < config->n_routes * 2 + 1)
        size *= 2;
    struct route_index *index = config_arena_alloc(arena, sizeof *index);
    const struct config_route **slot = config_arena_alloc(arena, size * sizeof *slot);
    uint32_t *lengths = config_arena_alloc(arena, (config->n_routes + 1) * sizeof *lengths);
    if (!index || !slot || !lengths)
        return NULL;
    index->mask = size - 1;
    for (uint32_t i = 0; i < config->n_routes; i++) {
        const struct config_route *r = &config->routes[i];
        insert(slot, index->mask, r);
        if (r->exact)
            index->longest_exact =
                r->prefix_len > index->longest_exact ? r->prefix_len : index->longest_exact;
        else
            index->n_lengths = add_length(lengths, index->n_lengths, r->prefix_len);
    }
    index->lengths = lengths;
    index->slot = slot;
    return index;
}

/* ---- spelling ---- */

static int hex_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_unreserved(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static size_t decode(const char *path, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        const int high = path[i] == '%' && i + 2 < len ? hex_of(path[i + 1]) : -1;
        const int low = high >= 0 ? hex_of(path[i + 2]) : -1;
        if (low < 0) {
            out[n++] = path[i];
            continue;
        }
        if (is_unreserved(high << 4 | low)) {
            out[n++] = (char)(high << 4 | low);
        } else {
            out[n++] = '%';
            out[n++] = "0123456789ABCDEF"[high];
            out[n++] = "0123456789ABCDEF"[low];
        }
        i += 2;
    }
    return n;
}

/* RFC 3986 section 5.2.4, in place; the path starts with '/'. */
static size_t remove_dot_segments(char *path, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        const char *slash = memchr(path + i + 1, '/', len - i - 1);
        const size_t end = slash ? (size_t)(slash - path) : len, seg = end - i;
        if ((seg == 2 && path[i + 1] == '.') ||
            (seg == 3 && path[i + 1] == '.' && path[i + 2] == '.')) {
            if (seg == 3)
                while (n && path[--n] != '/')
                    ;
            if (end == len)
                path[n++] = '/';
        } else {
            memmove(path + n, path + i, seg);
            n += seg;
        }
        i = end;
    }
    return n;
}

size_t route_path_normal(const char *path, size_t len, char *out, size_t size)
{
    if (len > size || len == 0)
        return 0;
    if (!memchr(path, '%', len)) {
        memcpy(out, path, len);
        if (!memmem(path, len, "/.", 2))
            return len;
    } else {
        len = decode(path, len, out);
    }
    if (out[0] != '/')
        return len; /* "*": nothing to spell */
    return remove_dot_segments(out, len);
}

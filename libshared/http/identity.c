/* SPDX-License-Identifier: BSD-2-Clause */
/* identity: see identity.h. */
#include "polder/identity.h"
#include "polder/sticky.h"

#define XXH_STATIC_LINKING_ONLY /* for a hash state on the stack */
#include <string.h>
#include <xxhash.h>

static const char *const known[] = {
#define FIELD(name) name,
#include "libshared/tables/identity_fields.def"
#undef FIELD
};
#define N_KNOWN (sizeof known / sizeof *known)

/* ---- headers ---- */

static char plain(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c == '_' ? '-' : c;
}

/* pattern: lower case, may end in '*'. */
static bool matches(struct str name, const char *pattern)
{
    size_t i = 0;
    for (; i < name.len && pattern[i] && pattern[i] != '*'; i++)
        if (plain(name.at[i]) != plain(pattern[i]))
            return false;
    return pattern[i] == '*' || (i == name.len && !pattern[i]);
}

bool identity_names_header(const struct config *config, const struct config_cache *cache,
                           struct str name)
{
    for (size_t i = 0; i < N_KNOWN; i++)
        if (matches(name, known[i]))
            return true;
    for (uint32_t i = 0; i < cache->n_identity_headers; i++)
        if (matches(name, cache->identity_headers[i]))
            return true;
    for (uint32_t i = 0; i < config->n_identity_keys; i++)
        if (config->identity_keys[i].kind == CONFIG_KEY_HEADER &&
            matches(name, config->identity_keys[i].name))
            return true;
    return false;
}

/* The bits of a byte of a pattern: one that may be another in a field's name has two, one that may
 * be any has all. */
static uint32_t bits_of(char c)
{
    if (!c || c == '*')
        return UINT32_MAX;
    const uint32_t bit = 1u << (c & 31);
    return c == '-' || c == '_' ? 1u << ('-' & 31) | 1u << ('_' & 31) : bit;
}

static void add_pattern(struct identity_filter *out, const char *pattern)
{
    const bool any = !pattern[0] || !pattern[1] || pattern[0] == '*' || pattern[1] == '*';
    const uint32_t first = bits_of(pattern[0]), third = any ? UINT32_MAX : bits_of(pattern[2]);
    for (unsigned i = 0; i < 32; i++)
        if (first >> i & 1)
            out->third[i] |= third;
}

void identity_filter_make(const struct config *config, const struct config_cache *cache,
                          struct identity_filter *out)
{
    *out = (struct identity_filter){{0}};
    for (size_t i = 0; i < N_KNOWN; i++)
        add_pattern(out, known[i]);
    for (uint32_t i = 0; i < cache->n_identity_headers; i++)
        add_pattern(out, cache->identity_headers[i]);
    for (uint32_t i = 0; i < config->n_identity_keys; i++)
        if (config->identity_keys[i].kind == CONFIG_KEY_HEADER)
            add_pattern(out, config->identity_keys[i].name);
}

/* ---- cookies ---- */

/* RFC 6265 4.1.1: no controls, white space, quote, comma or backslash, at which some backends
 * begin another cookie; a semicolon has ended the part. */
static bool is_cookie_value(const char *at, const char *end)
{
    for (; at < end; at++)
        if (*at <= ' ' || *at > '~' || *at == '"' || *at == ',' || *at == '\\')
            return false;
    return true;
}

bool identity_cookie_next(struct str *rest, struct identity_cookie *out)
{
    while (rest->len) {
        const char *at = rest->at, *end = at + rest->len;
        const char *stop = memchr(at, ';', rest->len);
        const size_t used = stop ? (size_t)(stop - at) + 1 : rest->len;
        const struct str part = field_trim((struct str){at, (size_t)((stop ? stop : end) - at)});
        *rest = (struct str){at + used, rest->len - used};
        if (!part.len)
            continue;
        const char *equals = memchr(part.at, '=', part.len);
        const struct str name = {part.at, equals ? (size_t)(equals - part.at) : 0};
        *out = (struct identity_cookie){.part = part};
        if (equals && field_is_token(name)) {
            out->name = name;
            out->readable = is_cookie_value(equals + 1, part.at + part.len);
        }
        return true;
    }
    return false;
}

/* Names of cookies are compared byte by byte. */
static bool is_cookie(struct str name, const char *pattern)
{
    const size_t n = strcspn(pattern, "*");
    return (pattern[n] ? name.len >= n : name.len == n) && !memcmp(name.at, pattern, n);
}

bool identity_ignores_cookie(const struct config *config, const struct config_cache *cache,
                             const struct identity_cookie *cookie)
{
    bool ignored = false;
    if (!cookie->readable)
        return false;
    if (config->sticky_cookie && is_cookie(cookie->name, STICKY_COOKIE))
        return true; /* Polder's own, which no backend sees */
    for (uint32_t i = 0; i < cache->n_ignore_cookies && !ignored; i++)
        ignored = is_cookie(cookie->name, cache->ignore_cookies[i]);
    for (uint32_t i = 0; i < config->n_identity_keys && ignored; i++)
        if (config->identity_keys[i].kind == CONFIG_KEY_COOKIE &&
            strlen(config->identity_keys[i].name) == cookie->name.len &&
            !memcmp(config->identity_keys[i].name, cookie->name.at, cookie->name.len))
            return false;
    return ignored;
}

/* ---- what was stored under which rules ---- */

static void add_text(XXH3_state_t *hash, const char *text)
{
    XXH3_64bits_update(hash, text, strlen(text) + 1);
}

static void add_list(XXH3_state_t *hash, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        add_text(hash, list[i]);
    add_text(hash, "");
}

/* Keys that add no further field do not change the rules: a limit may come and go. */
static bool is_said(const struct config_cache *cache, const struct config_key *key)
{
    static const struct config none;
    const struct str name = {key->name, strlen(key->name)};
    if (key->kind == CONFIG_KEY_HEADER)
        return identity_names_header(&none, cache, name);
    const struct identity_cookie cookie = {.name = name, .readable = true};
    return !identity_ignores_cookie(&none, cache, &cookie);
}

/* What a key is made of: of two partitions, or two lists of parameters, keys may be the same though
 * they mean something else. */
static void add_key(XXH3_state_t *hash, const struct config_cache *cache)
{
    for (uint32_t i = 0; i < cache->n_partition; i++) {
        const uint8_t kind = (uint8_t)cache->partition[i].kind;
        XXH3_64bits_update(hash, &kind, sizeof kind);
        add_text(hash, cache->partition[i].name);
    }
    add_text(hash, "");
    add_list(hash, cache->ignore_query, cache->n_ignore_query);
    add_list(hash, cache->only_query, cache->n_only_query);
    add_text(hash, cache->sort_query ? "sorted" : "");
}

uint32_t identity_rules_number(const struct config *config, const struct config_cache *cache)
{
    XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    XXH3_64bits_update(&hash, &cache->share, sizeof cache->share);
    add_text(&hash, cache->store_set_cookie ? "cookies" : "");
    add_key(&hash, cache);
    add_list(&hash, known, N_KNOWN);
    add_list(&hash, cache->identity_headers, cache->n_identity_headers);
    add_list(&hash, cache->ignore_cookies, cache->n_ignore_cookies);
    for (uint32_t i = 0; i < config->n_identity_keys; i++)
        if (!is_said(cache, &config->identity_keys[i]))
            add_text(&hash, config->identity_keys[i].name);
    const uint32_t number = (uint32_t)XXH3_64bits_digest(&hash);
    return number ? number : 1;
}

/* ---- partitions ---- */

bool identity_covers_all(const struct config_cache *cache)
{
    for (uint32_t i = 0; i < cache->n_partition; i++)
        if (cache->partition[i].kind == CONFIG_KEY_IDENTITY)
            return true;
    return false;
}

bool identity_covers_header(const struct config_cache *cache, struct str name)
{
    for (uint32_t i = 0; i < cache->n_partition; i++) {
        const struct config_key *k = &cache->partition[i];
        if (k->kind == CONFIG_KEY_IDENTITY ||
            (k->kind == CONFIG_KEY_HEADER && field_is(name, k->name)) ||
            (k->kind == CONFIG_KEY_JWT && field_is(name, "authorization")))
            return true;
    }
    return false;
}

bool identity_covers_cookie(const struct config_cache *cache, const struct identity_cookie *cookie)
{
    for (uint32_t i = 0; i < cache->n_partition; i++) {
        const struct config_key *k = &cache->partition[i];
        if (k->kind == CONFIG_KEY_COOKIE && cookie->name.len &&
            strlen(k->name) == cookie->name.len &&
            !memcmp(k->name, cookie->name.at, cookie->name.len))
            return true;
    }
    return identity_covers_header(cache, (struct str){"cookie", 6});
}

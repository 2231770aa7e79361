/* SPDX-License-Identifier: BSD-2-Clause */
/* config_key_parts: what a key is made of: of a limit, of a partition, of sticky. */
#include "libshared/config/config_parse.h"

#include <errno.h>
#include <string.h>

static enum config_key_kind key_kind(const char *word, size_t len, bool *named)
{
    static const struct {
        const char *word;
        enum config_key_kind kind;
        bool named;
    } kinds[] = {
        {"client", CONFIG_KEY_CLIENT, false}, {"header", CONFIG_KEY_HEADER, true},
        {"cookie", CONFIG_KEY_COOKIE, true},  {"query", CONFIG_KEY_QUERY, true},
        {"jwt", CONFIG_KEY_JWT, true},        {"route", CONFIG_KEY_ROUTE, false},
        {"global", CONFIG_KEY_GLOBAL, false}, {"identity", CONFIG_KEY_IDENTITY, false},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strlen(kinds[i].word) == len && !memcmp(kinds[i].word, word, len)) {
            *named = kinds[i].named;
            return kinds[i].kind;
        }
    return CONFIG_KEY_NONE;
}

/* One part, "header:NAME"; arena NULL: only checked. */
static int parse_key_part(struct config_arena *arena, const char *at, size_t len,
                          struct config_key *part)
{
    const char *colon = memchr(at, ':', len);
    bool named;
    part->name = "";
    part->kind = key_kind(at, colon ? (size_t)(colon - at) : len, &named);
    if (part->kind == CONFIG_KEY_NONE || named != (colon != NULL))
        return -EINVAL;
    if (!colon)
        return 0;
    const size_t name_len = (size_t)(at + len - colon) - 1;
    if (name_len == 0 || name_len > 255 || strcspn(colon + 1, " \t\r\n;,=\"") < name_len)
        return -EINVAL;
    if (!arena)
        return 0;
    char *name = config_arena_alloc(arena, name_len + 1);
    if (!name)
        return -ENOMEM;
    for (size_t i = 0; i < name_len; i++) {
        const char c = colon[1 + i];
        name[i] = part->kind == CONFIG_KEY_HEADER && c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    part->name = name;
    return 0;
}

int config_parse_key(struct config_arena *arena, const char *text, struct config_key *parts,
                     uint32_t max, const char **why)
{
    uint32_t n = 0;
    for (const char *at = text;; at++) {
        const size_t len = strcspn(at, "+");
        if (n == max) {
            *why = "at most four parts joined by \"+\"";
            return -EINVAL;
        }
        if (parse_key_part(arena, at, len, &parts[n++])) {
            *why = "client, header:NAME, cookie:NAME, query:NAME, jwt:CLAIM, route, global or (a "
                   "partition only) identity, "
                   "joined by \"+\"";
            return -EINVAL;
        }
        at += len;
        if (!*at)
            return (int)n;
    }
}

/* A token of HTTP (RFC 9110 5.6.2). */
static bool is_field_name(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "!#$%&'*+-.^_`|~";
    return *text && strlen(text) < 128 && strspn(text, letters) == strlen(text);
}

const char *config_parse_sticky(struct config_arena *arena, const char *text,
                                struct config_key *key)
{
    static const char right[] = "none, client, cookie or header:NAME";
    *key = (struct config_key){CONFIG_KEY_NONE, ""};
    if (!strcmp(text, "none"))
        return NULL;
    if (!strcmp(text, "cookie")) {
        key->kind = CONFIG_KEY_COOKIE;
        return NULL;
    }
    if (parse_key_part(arena, text, strlen(text), key) ||
        (key->kind != CONFIG_KEY_CLIENT &&
         (key->kind != CONFIG_KEY_HEADER || !is_field_name(text + strlen("header:")))))
        return right;
    return NULL;
}

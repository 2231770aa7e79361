/* SPDX-License-Identifier: BSD-2-Clause */
/* runtime_cache: what `cache set` may change, in the ranges of the configuration file. */
#include "polder/config.h"
#include "polder/settings.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum unit { UNIT_TIME, UNIT_SIZE, UNIT_COUNT };
static const struct {
    const char *name;
    enum unit unit;
    size_t at; /* in struct runtime_cache */
} keys[] = {
    {"ttl", UNIT_TIME, offsetof(struct runtime_cache, ttl_ms)},
    {"ttl_negative", UNIT_TIME, offsetof(struct runtime_cache, ttl_negative_ms)},
    {"max_items", UNIT_COUNT, offsetof(struct runtime_cache, max_items)},
    {"max_bytes", UNIT_SIZE, offsetof(struct runtime_cache, max_bytes)},
    {"max_body", UNIT_SIZE, offsetof(struct runtime_cache, max_body)},
    {"stale_while_revalidate", UNIT_TIME,
     offsetof(struct runtime_cache, stale_while_revalidate_ms)},
    {"stale_if_error", UNIT_TIME, offsetof(struct runtime_cache, stale_if_error_ms)},
};

struct range {
    uint64_t min, max;
};

static struct range range_of(const char *key)
{
    static const struct {
        const char *section, *key;
        uint64_t min, max;
    } rows[] = {
#define KEY(section, key, type, least, most, initial, help) {section, key, least, most},
#include "libshared/tables/config_keys.def"
#undef KEY
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].section, "cache") && !strcmp(rows[i].key, key))
            return (struct range){rows[i].min, rows[i].max};
    return (struct range){0, 0};
}

static bool parse(enum unit unit, const char *text, uint64_t *out)
{
    if (unit == UNIT_TIME)
        return config_parse_duration(text, out) == 0;
    return config_parse_size(text, out) == 0 &&
           (unit == UNIT_SIZE || strspn(text, "0123456789") == strlen(text));
}

static void explain(enum unit unit, struct range r, char *why, size_t size)
{
    switch (unit) {
    case UNIT_TIME:
        snprintf(why, size, "a duration such as 30s or 5m, from %" PRIu64 " to %" PRIu64 " s",
                 r.min / 1000, r.max / 1000);
        break;
    case UNIT_SIZE:
        snprintf(why, size, "a size such as 64K or 256M, from %" PRIu64 " to %" PRIu64 " bytes",
                 r.min, r.max);
        break;
    case UNIT_COUNT:
        snprintf(why, size, "a whole number from %" PRIu64 " to %" PRIu64, r.min, r.max);
        break;
    }
}

int runtime_cache_set(struct runtime_cache *cache, const char *key, const char *text, char *why,
                      size_t size)
{
    size_t i = 0;
    while (i < sizeof keys / sizeof *keys && strcmp(keys[i].name, key))
        i++;
    if (i == sizeof keys / sizeof *keys) {
        snprintf(why, size,
                 "there are ttl, ttl_negative, max_items, max_bytes, max_body, "
                 "stale_while_revalidate and stale_if_error");
        return -ENOENT;
    }
    const bool is_ttl = keys[i].at == offsetof(struct runtime_cache, ttl_ms);
    const struct range r = range_of(key);
    uint64_t value;
    if (is_ttl && !strcmp(text, "heuristic")) {
        cache->ttl_heuristic = 1;
        return 0;
    }
    if (!parse(keys[i].unit, text, &value) || value < r.min || value > r.max) {
        explain(keys[i].unit, r, why, size);
        return -EINVAL;
    }
    if (is_ttl)
        cache->ttl_heuristic = 0;
    memcpy((char *)cache + keys[i].at, &value, sizeof value);
    return 0;
}

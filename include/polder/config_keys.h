/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_keys: the table of configuration keys, libshared/tables/config_keys.def, for all of its
 * users: the parser of the file, and the commands that change values while Polder runs (rows that
 * are LIVE). Ranges and error texts come from a key's row alone.
 *
 * Two kinds of structs hold values. `in` is a whole section (struct config_cache); `live` is the
 * part that can change while Polder runs: struct runtime_cache, struct runtime_limit, and struct
 * config_websocket itself.
 */
#ifndef POLDER_CONFIG_KEYS_H
#define POLDER_CONFIG_KEYS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_type {
    TYPE_STRING,
    TYPE_STRINGS,
    TYPE_BOOL,
    TYPE_COUNT,
    TYPE_NUMBER,
    TYPE_DURATION,
    TYPE_TTL, /* duration or "heuristic", UINT64_MAX */
    TYPE_SIZE,
    TYPE_MODE,
    TYPE_NETS,
    TYPE_PATH,     /* of a file, absolute */
    TYPE_URL_PATH, /* starts with '/' */
    TYPE_KEYS,
    TYPE_LOG_LEVEL,
    TYPE_ALGORITHM,
    TYPE_HEARTBEAT,
    TYPE_HALF_CLOSE,
    TYPE_MISSING,
    TYPE_CUT_OFF,
    TYPE_LIMIT_CUT_OFF,
    TYPE_SCOPE,
    TYPE_SEVERITY, /* kept as a text */
    TYPE_SHARE,
    TYPE_BALANCE,
    TYPE_STATUSES, /* kept as a text */
    /* parsed by the builder of its section */
    TYPE_ADDRESS,
    TYPE_ADDRESSES,
    TYPE_ACCESS_LOG,
    TYPE_NAME, /* of another section */
    TYPE_NAMES,
    TYPE_CODINGS,
    TYPE_EXEMPT,
    TYPE_DROP_HEADERS,
    TYPE_STICKY,
};

enum config_inherits {
    CONFIG_NONE,
    CONFIG_INHERITS, /* a route inherits the top level's unless it states one */
    CONFIG_ADDS,     /* a route's are added to the top level's */
    CONFIG_TOP_ONLY, /* no key of a route */
};

enum config_section {
#define SECTION(id, name, type, live) CONFIG_SECTION_##id,
#define KEY(...)
#define LIST(...)
#include "../../libshared/tables/config_keys.def"
#undef SECTION
    CONFIG_SECTIONS,
};
#undef KEY
#undef LIST

/* CONFIG_CACHE_ttl and so on: the index of each row in config_rows. */
enum config_row_id {
#define SECTION(id, name, type, live)                                                              \
    CONFIG_##id##_FIRST, CONFIG_##id##_BACK_ = CONFIG_##id##_FIRST - 1,
#define KEY(section, key, ...)  CONFIG_##section##_##key,
#define LIST(section, key, ...) CONFIG_##section##_##key,
#include "../../libshared/tables/config_keys.def"
#undef SECTION
    CONFIG_ROWS,
};
#undef KEY
#undef LIST

struct config_row {
    enum config_section section;
    const char *key;
    enum config_type type;
    uint64_t min, max;
    const char *initial;
    uint16_t at, size; /* of the member, in the struct of the section */
    uint16_t count_at; /* of what counts it; 0: it is no list */
    uint16_t live_at;  /* of the member, in the struct of running values */
    uint8_t nth;       /* in its section */
    enum config_inherits inherits;
    bool live;
};
extern const struct config_row config_rows[CONFIG_ROWS];
/* As in the table: "cache", "upstream.server"; "" for the top level. */
extern const char *const config_section_names[CONFIG_SECTIONS];

/* Which keys a section states itself is kept as a set of these. */
#define CONFIG_BIT(section, key)                                                                   \
    (UINT64_C(1) << (CONFIG_##section##_##key - CONFIG_##section##_FIRST))
static inline uint64_t config_row_bit(const struct config_row *row)
{
    return UINT64_C(1) << row->nth;
}

const struct config_row *config_row_of(enum config_section section, const char *key);
/* The next row of the section. NULL as argument: the first one. Returns NULL at the end. */
const struct config_row *config_row_next(enum config_section section, const struct config_row *row);

/* ---- values as texts ---- */

/* Sets *number or *real (either may be NULL) and returns NULL, or a text that says what is
 * expected, valid until the next call in this thread. */
const char *config_value(const struct config_row *row, const char *text, uint64_t *number,
                         double *real);
/* The same check of the row's range for a number that was not parsed from text; result as above. */
const char *config_number_check(const struct config_row *row, uint64_t number);
/* The word of an enumeration, such as "sliding"; NULL: the row has no words, or not so many. */
const char *config_word(const struct config_row *row, uint64_t number);
/* A number of it as it would be written in the file: "5m", "64M", "gcra", "true". */
#define CONFIG_NUMBER_TEXT 24
void config_number_text(const struct config_row *row, uint64_t number,
                        char out[CONFIG_NUMBER_TEXT]);

/* ---- values in structs ---- */

uint64_t config_number_get(const struct config_row *row, const void *member);
void config_number_put(const struct config_row *row, void *member, uint64_t number);
/* Copies inheritable values that the section does not state from `top`. */
void config_inherit(enum config_section section, void *in, uint64_t stated, const void *top);

/* ---- values that change while Polder runs ---- */

/* NULL: no command changes that key. */
const struct config_row *config_live_row(enum config_section section, const char *key);
/* The keys of a section that commands can change: "requests, window and exempt". */
void config_live_keys(enum config_section section, char *out, size_t size);
/* Sets a value that is no list. Returns NULL, or a text that says what is expected. */
const char *config_live_set(const struct config_row *row, void *live, const char *text);
/* Overwrites running values with those that the section states. */
void config_live_overlay(enum config_section section, const void *own, uint64_t stated,
                         void *running);
/* Compares values that are no lists. */
bool config_live_equal(enum config_section section, const void *a, const void *b);
/* True if all values that are no lists are in range; else *why says what is expected. */
const struct config_row *config_live_wrong(enum config_section section, const void *live,
                                           const char **why);
static inline uint64_t config_live_number(const struct config_row *row, const void *live)
{
    return config_number_get(row, (const char *)live + row->live_at);
}
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* config_keys: see config_keys.h. */
#include "polder/config_keys.h"
#include "polder/config.h"

#include <stdio.h>
#include <string.h>

const char *const config_section_names[CONFIG_SECTIONS] = {
#define SECTION(id, name, type, live) name,
#define KEY(...)
#define LIST(...)
#include "libshared/tables/config_keys.def"
#undef SECTION
#undef KEY
#undef LIST
};

#define SECTION(id, name, type, live)                                                              \
    typedef type in_##id;                                                                          \
    enum { live_at_##id = live };
#define KEY(...)
#define LIST(...)
#include "libshared/tables/config_keys.def"
#undef SECTION
#undef KEY
#undef LIST

#define MEMBER(section, member) offsetof(in_##section, member), sizeof(((in_##section *)0)->member)
#define ROW(section, key, type, min, max, initial, member, count_at, inherits, live)               \
    {CONFIG_SECTION_##section,                                                                     \
     #key,                                                                                         \
     TYPE_##type,                                                                                  \
     min,                                                                                          \
     max,                                                                                          \
     initial,                                                                                      \
     MEMBER(section, member),                                                                      \
     count_at,                                                                                     \
     (uint16_t)(offsetof(in_##section, member) - live_at_##section),                               \
     CONFIG_##section##_##key - CONFIG_##section##_FIRST,                                          \
     CONFIG_##inherits,                                                                            \
     CONFIG_IS_##live},

enum { CONFIG_IS_FIXED, CONFIG_IS_LIVE };

const struct config_row config_rows[CONFIG_ROWS] = {
#define SECTION(id, name, type, live)
#define KEY(section, key, type, min, max, initial, member, inherits, live, help)                   \
    ROW(section, key, type, min, max, initial, member, 0, inherits, live)
#define LIST(section, key, type, min, max, initial, member, inherits, live, help)                  \
    ROW(section, key, type, min, max, initial, member, offsetof(in_##section, n_##member),         \
        inherits, live)
#include "libshared/tables/config_keys.def"
};

const struct config_row *config_row_next(enum config_section section, const struct config_row *row)
{
    for (row = row ? row + 1 : config_rows; row < config_rows + CONFIG_ROWS; row++)
        if (row->section == section)
            return row;
    return NULL;
}

const struct config_row *config_row_of(enum config_section section, const char *key)
{
    const struct config_row *row = NULL;
    while ((row = config_row_next(section, row)) && strcmp(row->key, key))
        ;
    return row;
}

/* ---- values in structs ---- */

uint64_t config_number_get(const struct config_row *row, const void *member)
{
    uint8_t n8;
    uint32_t n32;
    uint64_t n64;
    switch (row->size) {
    case sizeof n8:
        memcpy(&n8, member, sizeof n8);
        return n8;
    case sizeof n32:
        memcpy(&n32, member, sizeof n32);
        return n32;
    default:
        memcpy(&n64, member, sizeof n64);
        return n64;
    }
}

void config_number_put(const struct config_row *row, void *member, uint64_t number)
{
    const uint8_t n8 = (uint8_t)number;
    const uint32_t n32 = (uint32_t)number;
    const void *from = row->size == sizeof n8    ? (const void *)&n8
                       : row->size == sizeof n32 ? (const void *)&n32
                                                 : (const void *)&number;
    memcpy(member, from, row->size);
}

static void copy_member(const struct config_row *row, void *to, const void *from)
{
    memcpy((char *)to + row->at, (const char *)from + row->at, row->size);
    if (row->count_at)
        memcpy((char *)to + row->count_at, (const char *)from + row->count_at, sizeof(uint32_t));
}

void config_inherit(enum config_section section, void *in, uint64_t stated, const void *top)
{
    for (const struct config_row *row = NULL; (row = config_row_next(section, row));)
        if (row->inherits == CONFIG_INHERITS && !(stated & config_row_bit(row)))
            copy_member(row, in, top);
}

/* ---- values that change while Polder runs ---- */

const struct config_row *config_live_row(enum config_section section, const char *key)
{
    const struct config_row *row = config_row_of(section, key);
    return row && row->live ? row : NULL;
}

static const struct config_row *live_next(enum config_section section, const struct config_row *row)
{
    while ((row = config_row_next(section, row)) && !row->live)
        ;
    return row;
}

/* The next one that is no list. */
static const struct config_row *scalar_next(enum config_section section,
                                            const struct config_row *row)
{
    while ((row = live_next(section, row)) && row->count_at)
        ;
    return row;
}

void config_live_keys(enum config_section section, char *out, size_t size)
{
    size_t n = 0;
    *out = 0;
    for (const struct config_row *row = live_next(section, NULL), *next; row && n < size;
         row = next) {
        next = live_next(section, row);
        n += (size_t)snprintf(out + n, size - n, "%s%s", !n ? "" : next ? ", " : " and ", row->key);
    }
}

const char *config_live_set(const struct config_row *row, void *live, const char *text)
{
    uint64_t number;
    double real;
    const char *right = config_value(row, text, &number, &real);
    char *member = (char *)live + row->live_at;
    if (right)
        return right;
    if (row->type == TYPE_NUMBER)
        memcpy(member, &real, sizeof real);
    else
        config_number_put(row, member, number);
    return NULL;
}

void config_live_overlay(enum config_section section, const void *own, uint64_t stated,
                         void *running)
{
    for (const struct config_row *row = NULL; (row = scalar_next(section, row));)
        if (stated & config_row_bit(row))
            memcpy((char *)running + row->live_at, (const char *)own + row->live_at, row->size);
}

bool config_live_equal(enum config_section section, const void *a, const void *b)
{
    for (const struct config_row *row = NULL; (row = scalar_next(section, row));)
        if (config_live_number(row, a) != config_live_number(row, b))
            return false;
    return true;
}

const struct config_row *config_live_wrong(enum config_section section, const void *live,
                                           const char **why)
{
    for (const struct config_row *row = NULL; (row = scalar_next(section, row));)
        if (row->type != TYPE_NUMBER &&
            (*why = config_number_check(row, config_live_number(row, live))))
            return row;
    return NULL;
}

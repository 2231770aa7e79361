/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_values: reads values of sections for the builders of the tree, and has the checks that
 * several of them share.
 */
#include "libshared/config/config_build.h"

#include <string.h>

#define NAME_MAX_LEN 64

const char *config_stated(cfg_t *section, const char *key)
{
    return section && cfg_size(section, key) ? cfg_getnstr(section, key, 0) : NULL;
}

static const char *text_of(cfg_t *section, const struct config_row *row)
{
    const char *text = config_stated(section, row->key);
    return text ? text : row->initial;
}

void *config_take(struct config_parse *p, size_t n, size_t size)
{
    void *memory = config_arena_alloc(p->arena, (n ? n : 1) * size);
    if (!memory) {
        config_complain(p, 0, "does not fit into %zu MiB; use fewer routes, limits or names",
                        p->arena->size >> 20);
        return NULL;
    }
    return memory;
}

const char *const *config_strings_of(struct config_parse *p, cfg_t *section, const char *key,
                                     uint32_t *n)
{
    *n = section ? cfg_size(section, key) : 0;
    const char **list = config_take(p, *n, sizeof *list);
    for (uint32_t i = 0; list && i < *n; i++)
        list[i] = config_arena_strdup(p->arena, cfg_getnstr(section, key, i));
    if (!list)
        *n = 0;
    return list;
}

static const struct clientip_net *config_nets_of(struct config_parse *p, cfg_t *section,
                                                 const char *key, uint32_t *n)
{
    *n = section ? cfg_size(section, key) : 0;
    struct clientip_net *list = config_take(p, *n, sizeof *list);
    for (uint32_t i = 0; list && i < *n; i++)
        clientip_net_parse(cfg_getnstr(section, key, i), &list[i]);
    if (!list)
        *n = 0;
    return list;
}

static uint32_t keys_of(struct config_parse *p, const char *text, struct config_key *parts)
{
    const char *why;
    if (!text || !*text)
        return 0;
    const int n = config_parse_key(p->arena, text, parts, CONFIG_KEY_PARTS_MAX, &why);
    return n < 0 ? 0 : (uint32_t)n;
}

static void read_text(struct config_parse *p, const char *text, char *member)
{
    const char *copy = config_arena_strdup(p->arena, text ? text : "");
    if (!copy)
        copy = "";
    memcpy(member, &copy, sizeof copy);
}

/* What is wrong has been complained of where it stands. */
static void read_number(const struct config_row *row, const char *text, char *member)
{
    uint64_t number = 0;
    double real = 0;
    if (!text)
        return;
    if (config_value(row, text, &number, &real) && row->initial)
        config_value(row, row->initial, &number, &real);
    if (row->type == TYPE_NUMBER)
        memcpy(member, &real, sizeof real);
    else
        config_number_put(row, member, number);
}

static void read_list(struct config_parse *p, cfg_t *section, const struct config_row *row,
                      char *member, uint32_t *count)
{
    const void *list;
    if (row->type == TYPE_KEYS) {
        *count = keys_of(p, text_of(section, row), (struct config_key *)(void *)member);
        return;
    }
    if (row->type == TYPE_NETS)
        list = config_nets_of(p, section, row->key, count);
    else
        list = config_strings_of(p, section, row->key, count);
    memcpy(member, &list, sizeof list);
}

static void read_member(struct config_parse *p, cfg_t *section, const struct config_row *row,
                        char *out)
{
    switch (row->type) {
    case TYPE_STRING:
    case TYPE_PATH:
    case TYPE_URL_PATH:
    case TYPE_SEVERITY:
    case TYPE_STATUSES:
        read_text(p, text_of(section, row), out + row->at);
        break;
    case TYPE_STRINGS:
    case TYPE_NETS:
    case TYPE_KEYS:
        read_list(p, section, row, out + row->at, (uint32_t *)(void *)(out + row->count_at));
        break;
    case TYPE_ADDRESS:
    case TYPE_ADDRESSES:
    case TYPE_ACCESS_LOG:
    case TYPE_NAME:
    case TYPE_NAMES:
    case TYPE_CODINGS:
    case TYPE_EXEMPT:
    case TYPE_DROP_HEADERS:
    case TYPE_STICKY:
        break;
    default:
        read_number(row, text_of(section, row), out + row->at);
        break;
    }
}

uint64_t config_read(struct config_parse *p, cfg_t *section, enum config_section keys, void *out)
{
    uint64_t stated = 0;
    for (const struct config_row *row = NULL; (row = config_row_next(keys, row));) {
        if (section && cfg_size(section, row->key))
            stated |= config_row_bit(row);
        read_member(p, section, row, out);
    }
    return stated;
}

/* ---- a section within a route ---- */

static void add_list(struct config_parse *p, const struct config_row *row, char *in,
                     const char *top)
{
    const char *const *own, *const *above;
    uint32_t n_own, n_above;
    memcpy(&own, in + row->at, sizeof own);
    memcpy(&above, top + row->at, sizeof above);
    memcpy(&n_own, in + row->count_at, sizeof n_own);
    memcpy(&n_above, top + row->count_at, sizeof n_above);
    const uint32_t n = n_own + n_above;
    const char **all = config_take(p, n, sizeof *all);
    if (!all)
        return;
    for (uint32_t i = 0; i < n; i++)
        all[i] = i < n_own ? own[i] : above[i - n_own];
    memcpy(in + row->at, &all, sizeof all);
    memcpy(in + row->count_at, &n, sizeof n);
}

void config_within_route(struct config_parse *p, cfg_t *section, enum config_section keys, void *in,
                         uint64_t stated, const void *top)
{
    config_inherit(keys, in, stated, top);
    for (const struct config_row *row = NULL; (row = config_row_next(keys, row));)
        if (row->inherits == CONFIG_ADDS)
            add_list(p, row, in, top);
        else if (row->inherits == CONFIG_TOP_ONLY && stated & config_row_bit(row))
            config_complain(p, config_line_of(p, section, row->key),
                            "%s belongs to the top-level %s section, not to a route's", row->key,
                            config_section_names[keys]);
}

/* ---- names ---- */

cfg_t *config_section(cfg_t *parent, const char *name)
{
    return cfg_size(parent, name) ? cfg_getnsec(parent, name, 0) : NULL;
}

void config_check_name(struct config_parse *p, const char *what, const char *name, int line)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    const size_t len = strlen(name);
    if (len == 0 || len > NAME_MAX_LEN || strspn(name, good) != len)
        config_complain(p, line,
                        "%s \"%.100s\": expected a name of at most %d letters, digits and _ . -",
                        what, name, NAME_MAX_LEN);
}

bool config_is_field_pattern(const char *text)
{
    const char *star = strchr(text, '*');
    return *text && *text != '*' && strlen(text) < 128 &&
           strcspn(text, " \t\r\n:;,=\"()<>@/[]?{}\\") == strlen(text) && (!star || !star[1]);
}

void config_check_each(struct config_parse *p, const cfg_t *section, const char *key,
                       const char *const *values, uint32_t n, bool (*good)(const char *),
                       const char *right)
{
    for (uint32_t i = 0; i < n; i++)
        if (!good(values[i]))
            config_complain(p, config_line_of_nth(p, section, key, i),
                            "%s: \"%.100s\" is wrong; expected %s", key, values[i], right);
}

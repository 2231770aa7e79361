/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_values: reads values of sections for those who build the tree, and checks what several of
 * them are checked for.
 */
#include "libshared/config/config_build.h"

#include <string.h>

#define NAME_MAX_LEN 64

const char *config_stated(cfg_t *section, const char *key)
{
    return section && cfg_size(section, key) ? cfg_getnstr(section, key, 0) : NULL;
}

const char *config_text_of(struct config_parse *p, cfg_t *section, const char *rows,
                           const char *key)
{
    const char *text = config_stated(section, key);
    if (!text)
        text = config_row_find(rows, key)->initial;
    char *copy = config_arena_strdup(p->arena, text ? text : "");
    return copy ? copy : "";
}

uint64_t config_number_of(cfg_t *section, const char *rows, const char *key)
{
    const struct config_row *row = config_row_find(rows, key);
    const char *text = config_stated(section, key);
    uint64_t n = 0;
    if (text && !config_value(row, text, &n, NULL))
        return n;
    if (row->initial)
        config_value(row, row->initial, &n, NULL);
    return n;
}

double config_real_of(cfg_t *section, const char *rows, const char *key)
{
    const struct config_row *row = config_row_find(rows, key);
    const char *text = config_stated(section, key);
    double d = 0;
    if ((text || row->initial) && config_value(row, text ? text : row->initial, NULL, &d))
        d = 0;
    return d;
}

void *config_take(struct config_parse *p, size_t n, size_t size)
{
    void *memory = config_arena_alloc(p->arena, (n ? n : 1) * size);
    if (!memory) {
        config_complain(p, 0,
                        "does not fit into %zu MiB; fewer routes, limits or names would be right",
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

const struct clientip_net *config_nets_of(struct config_parse *p, cfg_t *section, const char *key,
                                          uint32_t *n)
{
    *n = section ? cfg_size(section, key) : 0;
    struct clientip_net *list = config_take(p, *n, sizeof *list);
    for (uint32_t i = 0; list && i < *n; i++)
        clientip_net_parse(cfg_getnstr(section, key, i), &list[i]);
    if (!list)
        *n = 0;
    return list;
}

uint32_t config_keys_of(struct config_parse *p, cfg_t *section, const char *rows, const char *key,
                        struct config_key *parts)
{
    const char *why, *text = config_stated(section, key);
    if (!text)
        text = config_row_find(rows, key)->initial;
    if (!text || !*text)
        return 0;
    const int n = config_parse_key(p->arena, text, parts, CONFIG_KEY_PARTS_MAX, &why);
    return n < 0 ? 0 : (uint32_t)n;
}

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
                        "%s \"%.100s\": a name of at most %d letters, digits and _ . - would be "
                        "right",
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
                            "%s: \"%.100s\" is wrong; %s would be right", key, values[i], right);
}

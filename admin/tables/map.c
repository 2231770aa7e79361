/* SPDX-License-Identifier: BSD-2-Clause */
/* map: lines of name and value, then the tables and maps within; a list as a table, or as blocks of
 * such lines. */
#include "admin/tables/tables.h"
#include "polder/rpc_in.h"

#include <string.h>

static int name_width(const msgpack_object *map)
{
    char key[64], name[TABLE_NAME];
    int width = 0;
    for (uint32_t i = 0; i < map->via.map.size; i++)
        if (table_key(&map->via.map.ptr[i], key)) {
            table_name(key, name);
            width = table_width(name) > width ? table_width(name) : width;
        }
    return width;
}

static void print_scalar(FILE *to, const msgpack_object *map, const char *key, int width,
                         const char *indent)
{
    char name[TABLE_NAME], cell[TABLE_CELL];
    table_name(key, name);
    table_cell(map, key, cell);
    fputs(indent, to);
    table_pad(to, name, width, false, false);
    fprintf(to, "%s\n", cell);
}

/* Of several tables each has its name above it: their columns may be the same. */
static bool has_tables(const msgpack_object *map)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < map->via.map.size; i++)
        n += table_is_rows(&map->via.map.ptr[i].val);
    return n > 1;
}

/* What only machines read: with --json it is there. */
static bool is_for_machines(enum rpc_method method, const char *key)
{
    static const char *const inner[] = {
        "obj_id",   "uses",         "key",      "tag_slots",
        "tags",     "slot",         "sequence", "refresh_value_seconds",
        "total",    "birth",        "summary",  "hit_for_miss_ms",
        "url_slot", "body_checksum"};
    for (size_t i = 0; method == RPC_METHOD_CACHE_WHY && i < sizeof inner / sizeof *inner; i++)
        if (!strcmp(key, inner[i]))
            return true;
    return false;
}

void table_list(FILE *to, enum rpc_method method, const msgpack_object *list)
{
    if (table_columns(to, method, list))
        return;
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        if (i)
            fputc('\n', to);
        table_map(to, method, &list->via.array.ptr[i], "");
    }
}

void table_map(FILE *to, enum rpc_method method, const msgpack_object *map, const char *indent)
{
    char key[64], name[TABLE_NAME];
    if (map->type != MSGPACK_OBJECT_MAP) { /* among others that are */
        char cell[TABLE_CELL];
        table_value("", map, cell);
        fprintf(to, "%s%s\n", indent, cell);
        return;
    }
    const bool named = has_tables(map);
    const int width = name_width(map);
    const msgpack_object *after = rpc_in_get(map, "after");
    const msgpack_object *summary = rpc_in_get(map, "summary");
    if (summary && summary->type == MSGPACK_OBJECT_STR) {
        char cell[TABLE_CELL];
        table_cell(map, "summary", cell);
        fprintf(to, "%s\n\n", cell);
    }
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *kv = &map->via.map.ptr[i];
        if (table_key(kv, key) && kv->val.type != MSGPACK_OBJECT_MAP &&
            kv->val.type != MSGPACK_OBJECT_NIL && !table_is_rows(&kv->val) &&
            !is_for_machines(method, key))
            print_scalar(to, map, key, width, indent);
    }
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *kv = &map->via.map.ptr[i];
        if (!table_key(kv, key) || !strcmp(key, "file") || (after && !strcmp(key, "before")) ||
            is_for_machines(method, key))
            continue;
        table_name(key, name);
        if (after == &kv->val && after->type == MSGPACK_OBJECT_MAP) {
            table_changes(to, rpc_in_get(map, "before"), after);
        } else if (table_is_rows(&kv->val)) {
            fputc('\n', to);
            if (named)
                fprintf(to, "%s:\n", name);
            table_list(to, method, &kv->val);
        } else if (kv->val.type == MSGPACK_OBJECT_MAP) {
            fprintf(to, "%s%s:\n", indent, name);
            table_map(to, method, &kv->val, "  ");
        }
    }
}

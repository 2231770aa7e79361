/* SPDX-License-Identifier: BSD-2-Clause */
/* changes: what is other in "after" than in "before". */
#include "admin/tables/tables.h"

#include <string.h>

/* The value that is shown under that name: "ttl" may come as ttl_ms, or as a word. */
static const msgpack_object_kv *find_named(const msgpack_object *map, const char *wanted)
{
    char key[64], name[TABLE_NAME];
    if (!map || map->type != MSGPACK_OBJECT_MAP)
        return NULL;
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        if (!table_key(&map->via.map.ptr[i], key))
            continue;
        table_name(key, name);
        if (!strcmp(name, wanted))
            return &map->via.map.ptr[i];
    }
    return NULL;
}

void table_changes(FILE *to, const msgpack_object *before, const msgpack_object *after)
{
    char key[64], old_key[64], name[TABLE_NAME], was[TABLE_CELL], is[TABLE_CELL];
    bool any = false;
    for (uint32_t i = 0; i < after->via.map.size; i++) {
        const msgpack_object_kv *kv = &after->via.map.ptr[i];
        if (!table_key(kv, key))
            continue;
        table_name(key, name);
        const msgpack_object_kv *old = find_named(before, name);
        if (old && table_equal(&old->key, &kv->key) && table_equal(&old->val, &kv->val))
            continue;
        strcpy(was, "-");
        if (old && table_key(old, old_key))
            table_value(old_key, &old->val, was);
        table_value(key, &kv->val, is);
        fprintf(to, "%s: %s -> %s\n", name, was, is);
        any = true;
    }
    if (!any)
        fputs("nothing changed: it was so already\n", to);
}

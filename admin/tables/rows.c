/* SPDX-License-Identifier: BSD-2-Clause */
/* rows: a list of maps, a line each. */
#include "admin/tables/tables.h"
#include "polder/rpc_in.h"

#include <string.h>

#define COLUMNS_MAX 24

bool table_is_rows(const msgpack_object *o)
{
    return o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size > 0 &&
           o->via.array.ptr[0].type == MSGPACK_OBJECT_MAP;
}

struct column {
    char key[64];
    int width;
    bool right;
};

static bool some_row_tells(const msgpack_object *list, const char *key)
{
    for (uint32_t i = 0; i < list->via.array.size; i++)
        if (table_tells(&list->via.array.ptr[i], key))
            return true;
    return false;
}

static unsigned chosen_columns(const msgpack_object *list, const char *names, struct column *column)
{
    unsigned n = 0;
    while (*names && n < COLUMNS_MAX) {
        const size_t len = strcspn(names, " "), key = strcspn(names, "? ");
        snprintf(column[n].key, sizeof column->key, "%.*s", (int)key, names);
        n += key == len || some_row_tells(list, column[n].key);
        names += len + (names[len] == ' ');
    }
    return n;
}

static unsigned wanted_columns(const msgpack_object *list, const char *names, struct column *column)
{
    unsigned n = 0;
    if (names)
        return chosen_columns(list, names, column);
    const msgpack_object *first = &list->via.array.ptr[0];
    for (uint32_t i = 0; i < first->via.map.size && n < COLUMNS_MAX; i++) {
        const msgpack_object_kv *kv = &first->via.map.ptr[i];
        if (kv->val.type != MSGPACK_OBJECT_MAP && table_key(kv, column[n].key))
            n++;
    }
    return n;
}

static void measure(const msgpack_object *list, struct column *column)
{
    char cell[TABLE_CELL];
    double number;
    table_heading(column->key, cell);
    column->width = table_width(cell);
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        const msgpack_object *value = table_member(&list->via.array.ptr[i], column->key);
        table_cell(&list->via.array.ptr[i], column->key, cell);
        if (table_width(cell) > column->width)
            column->width = table_width(cell);
        if (value && table_number(value, &number))
            column->right = true;
    }
}

void table_rows(FILE *to, const msgpack_object *list, const char *names)
{
    struct column column[COLUMNS_MAX] = {0};
    char cell[TABLE_CELL];
    if (list->via.array.size == 0) {
        fputs("none\n", to);
        return;
    }
    const unsigned n = wanted_columns(list, names, column);
    for (unsigned c = 0; c < n; c++)
        measure(list, &column[c]);
    for (unsigned c = 0; c < n; c++) {
        table_heading(column[c].key, cell);
        table_pad(to, cell, column[c].width, column[c].right, c + 1 == n);
    }
    for (uint32_t i = 0; i < list->via.array.size; i++)
        for (unsigned c = 0; c < n; c++) {
            table_cell(&list->via.array.ptr[i], column[c].key, cell);
            table_pad(to, cell, column[c].width, column[c].right, c + 1 == n);
        }
}

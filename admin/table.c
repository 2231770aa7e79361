/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * table: answers for people.
 *
 * The form follows the shape of the answer: a list of maps is a table, a map is lines of key and
 * value, "before" and "after" are the changes between them, "file" is what the configuration file
 * says where it differs. Units follow the key: _ms and _seconds are times, bytes are sizes, _rate
 * is a share. Only which columns matter is known per command.
 */
#include "admin/polderctl.h"
#include "polder/rpc_in.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CELL        512
#define NAME        80
#define COLUMNS_MAX 24

/* With '?' behind it a column is shown where some row has something to say there; with '.' in it,
 * it is a member of a map. */
static const struct {
    enum rpc_method method;
    const char *columns;
} preferred[] = {
    {RPC_METHOD_STATUS, "process number pid state uptime_ms connections crashes generation"},
    {RPC_METHOD_CACHE_LIST, "url state status bytes age ttl reads tags variant"},
    {RPC_METHOD_LIMIT_LIST,
     "name requests window_ms algorithm key dry_run concurrent? exempt? admitted refused "
     "dry_run_refused? persisted confirm_within_ms? try.left_ms?"},
    {RPC_METHOD_UPSTREAM_LIST,
     "upstream server state since_ms weight requests errors last_error? error_ago_ms? "
     "mean_seconds addresses?"},
};

static const char *columns_of(enum rpc_method method)
{
    for (size_t i = 0; i < sizeof preferred / sizeof *preferred; i++)
        if (preferred[i].method == method)
            return preferred[i].columns;
    return NULL;
}

/* ---- one value ---- */

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* In the largest unit that says it exactly; else in the one that reads best. */
static void show_seconds(double s, char *out)
{
    static const struct {
        double seconds, least; /* used from `least` on */
        const char *name;
    } unit[] = {{86400, 172800, "d"}, {3600, 7200, "h"}, {60, 120, "m"}};
    for (size_t i = 0; i < sizeof unit / sizeof *unit; i++) {
        const double n = s / unit[i].seconds;
        const bool whole = n >= 1 && n < 1e9 && n == (double)(uint64_t)n && s > 60;
        if (whole || s >= unit[i].least) {
            snprintf(out, CELL, "%.4g%s", n, unit[i].name);
            return;
        }
    }
    if (s < 0)
        snprintf(out, CELL, "%.4gs", s);
    else if (s == 0)
        strcpy(out, "0");
    else if (s < 0.001)
        snprintf(out, CELL, "%.0fus", s * 1e6);
    else if (s < 1)
        snprintf(out, CELL, "%.4gms", s * 1e3);
    else
        snprintf(out, CELL, "%.4gs", s);
}

static void show_date(double s, char *out)
{
    const time_t at = (time_t)s;
    struct tm tm;
    if (s <= 0 || s > 253402300799. || !gmtime_r(&at, &tm) ||
        !strftime(out, CELL, "%Y-%m-%d %H:%M:%S UTC", &tm))
        strcpy(out, "-");
}

static void show_bytes(double n, char *out)
{
    static const char unit[] = " KMGT";
    size_t u = 0;
    while (n >= 1024 && u + 2 < sizeof unit) {
        n /= 1024;
        u++;
    }
    snprintf(out, CELL, u ? "%.4g%c" : "%.0f", n, unit[u]);
}

/* URLs come from clients: nothing in them may reach the terminal as a command. */
static void show_text(const char *text, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len && n + 4 < CELL; i++) {
        const unsigned char c = (unsigned char)text[i];
        const bool c1 = c == 0xc2 && i + 1 < len && (unsigned char)text[i + 1] < 0xa0;
        if (c == '\n' && i + 1 == len)
            break;
        if (c < ' ' || c == 0x7f || c1) {
            out[n++] = c == '\n' || c == '\r' ? ' ' : '?';
            i += c1;
        } else {
            out[n++] = text[i];
        }
    }
    out[n] = 0;
}

static bool number_of(const msgpack_object *o, double *n)
{
    if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        *n = (double)o->via.u64;
    else if (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        *n = (double)o->via.i64;
    else if (o->type == MSGPACK_OBJECT_FLOAT64 || o->type == MSGPACK_OBJECT_FLOAT32)
        *n = o->via.f64;
    else
        return false;
    return true;
}

static bool listed(const char *key, const char *const *names)
{
    while (*names && strcmp(*names, key))
        names++;
    return *names != NULL;
}

static void show_number(const char *key, const msgpack_object *o, double n, char *out)
{
    static const char *const spans[] = {"age", "ttl", "stale_while_revalidate", "stale_if_error",
                                        NULL},
                             *const dates[] = {"received",      "fresh_until", "kept_until",
                                               "last_modified", "when",        "refresh_from",
                                               "checked",       "since",       NULL};
    if (ends_with(key, "_ms"))
        show_seconds(n / 1000, out);
    else if (ends_with(key, "_seconds") || listed(key, spans))
        show_seconds(n, out);
    else if (listed(key, dates))
        show_date(n, out);
    else if (!strcmp(key, "bytes") || ends_with(key, "_bytes"))
        show_bytes(n, out);
    else if (ends_with(key, "_rate") || ends_with(key, "Success"))
        snprintf(out, CELL, "%.1f%%", n * 100);
    else if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        snprintf(out, CELL, "%" PRIu64, o->via.u64);
    else
        snprintf(out, CELL, "%.6g", n);
}

static void show_value(const char *key, const msgpack_object *o, char *out);

static void show_list(const msgpack_object *o, char *out)
{
    char one[CELL];
    size_t n = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < o->via.array.size && n + 4 < CELL; i++) {
        show_value("", &o->via.array.ptr[i], one);
        n += (size_t)snprintf(out + n, CELL - n, "%s%s", i ? ", " : "", one);
    }
    if (!out[0])
        strcpy(out, "-");
}

static void show_value(const char *key, const msgpack_object *o, char *out)
{
    double n;
    if (number_of(o, &n))
        show_number(key, o, n, out);
    else if (o->type == MSGPACK_OBJECT_BOOLEAN)
        strcpy(out, o->via.boolean ? "yes" : "no");
    else if (o->type == MSGPACK_OBJECT_STR)
        show_text(o->via.str.ptr, o->via.str.size, out);
    else if (o->type == MSGPACK_OBJECT_ARRAY)
        show_list(o, out);
    else
        strcpy(out, "-");
}

static bool equal(const msgpack_object *a, const msgpack_object *b)
{
    return a && b && msgpack_object_equal(*a, *b);
}

/* "key", or "map.key" for what stands in a map of the row. */
static const msgpack_object *member_of(const msgpack_object *row, const char *key)
{
    char map[64];
    const size_t len = strcspn(key, ".");
    if (!key[len] || len >= sizeof map)
        return rpc_in_get(row, key);
    memcpy(map, key, len);
    map[len] = 0;
    return rpc_in_get(rpc_in_get(row, map), key + len + 1);
}

/* The cell of a row; with what the file says where that differs. */
static void show_cell(const msgpack_object *row, const char *key, char *out)
{
    char file[CELL];
    const msgpack_object *value = member_of(row, key);
    const msgpack_object *other = rpc_in_get(rpc_in_get(row, "file"), key);
    if (!value) {
        strcpy(out, "-");
        return;
    }
    show_value(key, value, out);
    if (!other || equal(value, other))
        return;
    show_value(key, other, file);
    const size_t n = strlen(out);
    snprintf(out + n, CELL - n, " (file: %.200s)", file);
}

/* ---- names ---- */

/* "window_ms" is shown as "window", "maxConnections" as "max connections". */
static void plain_name(const char *key, char *out)
{
    static const char *const units[] = {"_ms", "_seconds"};
    size_t len = strlen(key), n = 0;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (ends_with(key, units[i]))
            len -= strlen(units[i]);
    for (size_t i = 0; i < len && n + 2 < NAME; i++) {
        const bool starts =
            isupper((unsigned char)key[i]) && i && islower((unsigned char)key[i - 1]);
        if (starts)
            out[n++] = ' ';
        out[n++] = key[i] == '_' || key[i] == '.' ? ' '
                   : starts                       ? (char)tolower((unsigned char)key[i])
                                                  : key[i];
    }
    out[n] = 0;
}

static void heading(const char *key, char *out)
{
    plain_name(key, out);
    for (char *c = out; *c; c++)
        *c = (char)toupper((unsigned char)*c);
}

static bool key_text(const msgpack_object_kv *kv, char *out)
{
    return rpc_in_object_text(&kv->key, out, 64) >= 0;
}

/* Characters, not bytes. */
static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void put_padded(FILE *to, const char *text, int width, bool right, bool last)
{
    const int fill = width - width_of(text);
    if (right)
        fprintf(to, "%*s%s", fill > 0 ? fill : 0, "", text);
    else
        fprintf(to, "%s%*s", text, last || fill < 0 ? 0 : fill, "");
    fputs(last ? "\n" : "  ", to);
}

/* ---- tables ---- */

struct column {
    char key[64];
    int width;
    bool right;
};

/* Neither absent, nor 0, nor empty; or the file says something else. */
static bool tells_something(const msgpack_object *row, const char *key)
{
    char cell[CELL];
    show_cell(row, key, cell);
    return strcmp(cell, "-") && strcmp(cell, "0");
}

static bool some_row_tells(const msgpack_object *list, const char *key)
{
    for (uint32_t i = 0; i < list->via.array.size; i++)
        if (tells_something(&list->via.array.ptr[i], key))
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
        if (kv->val.type != MSGPACK_OBJECT_MAP && key_text(kv, column[n].key))
            n++;
    }
    return n;
}

static void measure(const msgpack_object *list, struct column *column)
{
    char cell[CELL];
    double number;
    heading(column->key, cell);
    column->width = width_of(cell);
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        const msgpack_object *value = member_of(&list->via.array.ptr[i], column->key);
        show_cell(&list->via.array.ptr[i], column->key, cell);
        if (width_of(cell) > column->width)
            column->width = width_of(cell);
        if (value && number_of(value, &number))
            column->right = true;
    }
}

static void print_table(FILE *to, const msgpack_object *list, const char *names)
{
    struct column column[COLUMNS_MAX] = {0};
    char cell[CELL];
    if (list->via.array.size == 0) {
        fputs("none\n", to);
        return;
    }
    const unsigned n = wanted_columns(list, names, column);
    for (unsigned c = 0; c < n; c++)
        measure(list, &column[c]);
    for (unsigned c = 0; c < n; c++) {
        heading(column[c].key, cell);
        put_padded(to, cell, column[c].width, column[c].right, c + 1 == n);
    }
    for (uint32_t i = 0; i < list->via.array.size; i++)
        for (unsigned c = 0; c < n; c++) {
            show_cell(&list->via.array.ptr[i], column[c].key, cell);
            put_padded(to, cell, column[c].width, column[c].right, c + 1 == n);
        }
}

/* ---- maps ---- */

static bool is_table(const msgpack_object *o)
{
    return o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size > 0 &&
           o->via.array.ptr[0].type == MSGPACK_OBJECT_MAP;
}

static void print_map(FILE *to, enum rpc_method method, const msgpack_object *map,
                      const char *indent);

static void print_blocks(FILE *to, enum rpc_method method, const msgpack_object *list)
{
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        if (i)
            fputc('\n', to);
        print_map(to, method, &list->via.array.ptr[i], "");
    }
}

/* The method's columns, if that is the list they were chosen for. */
static const char *columns_for(enum rpc_method method, const msgpack_object *list)
{
    char first[64];
    const char *names = columns_of(method);
    snprintf(first, sizeof first, "%.*s", (int)strcspn(names ? names : "", " "),
             names ? names : "");
    return names && (!is_table(list) || rpc_in_get(&list->via.array.ptr[0], first)) ? names : NULL;
}

static void print_list(FILE *to, enum rpc_method method, const msgpack_object *list)
{
    const char *names = columns_for(method, list);
    if (names || !is_table(list) || list->via.array.ptr[0].via.map.size <= 10)
        print_table(to, list, names);
    else
        print_blocks(to, method, list);
}

static int name_width(const msgpack_object *map)
{
    char key[64], name[NAME];
    int width = 0;
    for (uint32_t i = 0; i < map->via.map.size; i++)
        if (key_text(&map->via.map.ptr[i], key)) {
            plain_name(key, name);
            width = width_of(name) > width ? width_of(name) : width;
        }
    return width;
}

/* The value that is shown under that name: "ttl" may come as ttl_ms, or as a word. */
static const msgpack_object_kv *find_named(const msgpack_object *map, const char *wanted)
{
    char key[64], name[NAME];
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        if (!key_text(&map->via.map.ptr[i], key))
            continue;
        plain_name(key, name);
        if (!strcmp(name, wanted))
            return &map->via.map.ptr[i];
    }
    return NULL;
}

static void print_changes(FILE *to, const msgpack_object *before, const msgpack_object *after)
{
    char key[64], old_key[64], name[NAME], was[CELL], is[CELL];
    bool any = false;
    for (uint32_t i = 0; i < after->via.map.size; i++) {
        const msgpack_object_kv *kv = &after->via.map.ptr[i];
        if (!key_text(kv, key))
            continue;
        plain_name(key, name);
        const msgpack_object_kv *old = find_named(before, name);
        if (old && equal(&old->key, &kv->key) && equal(&old->val, &kv->val))
            continue;
        strcpy(was, "-");
        if (old && key_text(old, old_key))
            show_value(old_key, &old->val, was);
        show_value(key, &kv->val, is);
        fprintf(to, "%s: %s -> %s\n", name, was, is);
        any = true;
    }
    if (!any)
        fputs("nothing changed: it was so already\n", to);
}

static void print_scalar(FILE *to, const msgpack_object *map, const char *key, int width,
                         const char *indent)
{
    char name[NAME], cell[CELL];
    plain_name(key, name);
    show_cell(map, key, cell);
    fputs(indent, to);
    put_padded(to, name, width, false, false);
    fprintf(to, "%s\n", cell);
}

/* Of several tables each has its name above it: their columns may be the same. */
static bool has_tables(const msgpack_object *map)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < map->via.map.size; i++)
        n += is_table(&map->via.map.ptr[i].val);
    return n > 1;
}

/* What only machines read, and reasons that nothing has ended for: with --json they are there. */
static bool is_for_machines(enum rpc_method method, const msgpack_object *map, const char *key)
{
    static const char *const inner[] = {
        "obj_id",   "uses",         "key",      "tag_slots",
        "tags",     "slot",         "sequence", "refresh_value_seconds",
        "total",    "birth",        "summary",  "hit_for_miss_ms",
        "url_slot", "body_checksum"};
    for (size_t i = 0; method == RPC_METHOD_CACHE_WHY && i < sizeof inner / sizeof *inner; i++)
        if (!strcmp(key, inner[i]))
            return true;
    return method == RPC_METHOD_WS_STATS &&
           (!strncmp(key, "duration", 8) ||
            (rpc_in_get(map, "client-closed") && !tells_something(map, key)));
}

static void print_map(FILE *to, enum rpc_method method, const msgpack_object *map,
                      const char *indent)
{
    char key[64], name[NAME];
    const bool named = has_tables(map);
    const int width = name_width(map);
    const msgpack_object *after = rpc_in_get(map, "after");
    const msgpack_object *summary = rpc_in_get(map, "summary");
    if (summary && summary->type == MSGPACK_OBJECT_STR) {
        char cell[CELL];
        show_cell(map, "summary", cell);
        fprintf(to, "%s\n\n", cell);
    }
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *kv = &map->via.map.ptr[i];
        if (key_text(kv, key) && kv->val.type != MSGPACK_OBJECT_MAP &&
            kv->val.type != MSGPACK_OBJECT_NIL && !is_table(&kv->val) &&
            !is_for_machines(method, map, key))
            print_scalar(to, map, key, width, indent);
    }
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *kv = &map->via.map.ptr[i];
        if (!key_text(kv, key) || !strcmp(key, "file") || (after && !strcmp(key, "before")) ||
            is_for_machines(method, map, key))
            continue;
        plain_name(key, name);
        if (after == &kv->val) {
            print_changes(to, rpc_in_get(map, "before"), after);
        } else if (is_table(&kv->val)) {
            fputc('\n', to);
            if (named)
                fprintf(to, "%s:\n", name);
            print_list(to, method, &kv->val);
        } else if (kv->val.type == MSGPACK_OBJECT_MAP) {
            fprintf(to, "%s%s:\n", indent, name);
            print_map(to, method, &kv->val, "  ");
        }
    }
}

void table_print(FILE *to, enum rpc_method method, const msgpack_object *result)
{
    char cell[CELL];
    if (result->type == MSGPACK_OBJECT_MAP) {
        print_map(to, method, result, "");
    } else if (result->type == MSGPACK_OBJECT_ARRAY) {
        print_list(to, method, result);
    } else {
        show_value("", result, cell);
        fprintf(to, "%s\n", cell);
    }
}

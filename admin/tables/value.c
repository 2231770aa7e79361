/* SPDX-License-Identifier: BSD-2-Clause */
/* value: one value as text. Its key says what it is: _ms and _seconds are times, bytes are sizes,
 * _rate is a share. */
#include "admin/tables/tables.h"
#include "polder/rpc_in.h"
#include "polder/units.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

bool table_ends(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static void show_date(double s, char *out)
{
    const time_t at = (time_t)s;
    struct tm tm;
    if (s <= 0 || s > 253402300799. || !gmtime_r(&at, &tm) ||
        !strftime(out, TABLE_CELL, "%Y-%m-%d %H:%M:%S UTC", &tm))
        strcpy(out, "-");
}

/* Length of what stands there that changes how other text is shown, or is not seen: C1 controls, marks of
 * direction, zero width. 0: a character like others. */
static size_t hidden_length(const unsigned char *c, size_t len)
{
    if (len >= 2 && ((c[0] == 0xc2 && c[1] < 0xa0) || (c[0] == 0xd8 && c[1] == 0x9c)))
        return 2;
    if (len < 3 || (c[0] != 0xe2 && c[0] != 0xef))
        return 0;
    const bool general = c[0] == 0xe2 && c[1] == 0x80 &&
                         ((c[2] >= 0x8b && c[2] <= 0x8f) || (c[2] >= 0xa8 && c[2] <= 0xae));
    const bool other = c[0] == 0xe2 && c[1] == 0x81 && c[2] >= 0xa0 && c[2] <= 0xaf;
    return general || other || (c[0] == 0xef && c[1] == 0xbb && c[2] == 0xbf) ? 3 : 0;
}

/* URLs and keys come from clients: nothing in them may reach the terminal as a command, or turn round
 * what stands beside it. */
void table_text(const char *text, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len && n + 4 < TABLE_CELL;) {
        const unsigned char c = (unsigned char)text[i];
        const size_t hidden = hidden_length((const unsigned char *)text + i, len - i);
        if (c == '\n' && i + 1 == len)
            break;
        if (hidden || c < ' ' || c == 0x7f)
            out[n++] = c == '\n' || c == '\r' ? ' ' : '?';
        else
            out[n++] = text[i];
        i += hidden ? hidden : 1;
    }
    out[n] = 0;
}

const char *table_text_of(const msgpack_object *map, const char *key, char out[TABLE_CELL])
{
    const msgpack_object *o = rpc_in_get(map, key);
    out[0] = 0;
    if (o && o->type == MSGPACK_OBJECT_STR)
        table_text(o->via.str.ptr, o->via.str.size, out);
    return out;
}

bool table_number(const msgpack_object *o, double *n)
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
    if (table_ends(key, "_ms"))
        units_seconds(n / 1000, out);
    else if (table_ends(key, "_seconds") || listed(key, spans))
        units_seconds(n, out);
    else if (listed(key, dates))
        show_date(n, out);
    else if (!strcmp(key, "bytes") || table_ends(key, "_bytes"))
        units_bytes(n, out);
    else if (table_ends(key, "_rate") || table_ends(key, "Success"))
        units_share(n, out);
    else if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        snprintf(out, TABLE_CELL, "%" PRIu64, o->via.u64);
    else if (n > -0.001 && n < 0.001 && n != 0) /* money: without an exponent */
        snprintf(out, TABLE_CELL, "%.9f", n);
    else
        snprintf(out, TABLE_CELL, "%.6g", n);
}

static void show_list(const msgpack_object *o, char *out)
{
    char one[TABLE_CELL];
    size_t n = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < o->via.array.size && n + 4 < TABLE_CELL; i++) {
        table_value("", &o->via.array.ptr[i], one);
        n += (size_t)snprintf(out + n, TABLE_CELL - n, "%s%s", i ? ", " : "", one);
    }
    if (!out[0])
        strcpy(out, "-");
}

void table_value(const char *key, const msgpack_object *o, char *out)
{
    double n;
    if (table_number(o, &n))
        show_number(key, o, n, out);
    else if (o->type == MSGPACK_OBJECT_BOOLEAN)
        strcpy(out, o->via.boolean ? "yes" : "no");
    else if (o->type == MSGPACK_OBJECT_STR)
        table_text(o->via.str.ptr, o->via.str.size, out);
    else if (o->type == MSGPACK_OBJECT_ARRAY)
        show_list(o, out);
    else
        out[0] = 0;
    if (!out[0])
        strcpy(out, "-");
}

bool table_equal(const msgpack_object *a, const msgpack_object *b)
{
    return a && b && msgpack_object_equal(*a, *b);
}

/* "key", or "map.key" for what stands in a map of the row. */
const msgpack_object *table_member(const msgpack_object *row, const char *key)
{
    char map[64];
    const size_t len = strcspn(key, ".");
    const msgpack_object *whole = rpc_in_get(row, key); /* an address has points, too */
    if (whole || !key[len] || len >= sizeof map)
        return whole;
    memcpy(map, key, len);
    map[len] = 0;
    return rpc_in_get(rpc_in_get(row, map), key + len + 1);
}

/* The cell of a row; with what the file says where that differs. */
void table_cell(const msgpack_object *row, const char *key, char *out)
{
    char file[TABLE_CELL];
    const msgpack_object *value = table_member(row, key);
    const msgpack_object *other = rpc_in_get(rpc_in_get(row, "file"), key);
    if (!value) {
        strcpy(out, "-");
        return;
    }
    table_value(key, value, out);
    if (!other || table_equal(value, other))
        return;
    table_value(key, other, file);
    const size_t n = strlen(out);
    snprintf(out + n, TABLE_CELL - n, " (file: %.200s)", file);
}

/* Neither absent, nor 0, nor empty; or the file says something else. */
bool table_tells(const msgpack_object *row, const char *key)
{
    char cell[TABLE_CELL];
    table_cell(row, key, cell);
    return strcmp(cell, "-") && strcmp(cell, "0") && strcmp(cell, "0 s");
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* history: a metric as a line of bars, or all of them as a table. Bars stand on 0, or on the
 * lowest value where that is below it; where nothing was sampled there is a gap. */
#include "admin/tables/tables.h"
#include "polder/rpc_in.h"
#include "polder/units.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BARS      60
#define NAME_SIZE 160

/* ---- values ---- */

/* Three digits, all of those before the point. */
static void show_rounded(double value, const char *unit, char *out)
{
    const bool big = fabs(value) >= 1000;
    snprintf(out, TABLE_CELL, big ? "%.0f%s" : "%.3g%s", value, unit);
}

static void show_value(double value, const char *unit, char *out)
{
    if (isnan(value)) {
        strcpy(out, "-");
    } else if (!strcmp(unit, "s")) {
        units_seconds(value, out);
    } else if (!strcmp(unit, "ratio")) {
        units_share(value, out);
    } else if (!strcmp(unit, "bytes") || !strcmp(unit, "bytes/s")) {
        const size_t n = units_bytes(value, out);
        snprintf(out + n, TABLE_CELL - n, "%s", table_ends(unit, "/s") ? "/s" : "");
    } else if (!strcmp(unit, "1/s")) {
        show_rounded(value, "/s", out);
    } else if (!strcmp(unit, "count")) {
        show_rounded(value, "", out);
    } else {
        char with_space[40];
        snprintf(with_space, sizeof with_space, " %.38s", unit);
        show_rounded(value, with_space, out);
    }
}

static double number_of(const msgpack_object *map, const char *key)
{
    double n;
    const msgpack_object *o = rpc_in_get(map, key);
    return o && table_number(o, &n) ? n : NAN;
}

static void text_of(const msgpack_object *map, const char *key, char *out, size_t size)
{
    if (rpc_in_text(map, key, out, size) < 0)
        strcpy(out, "-");
}

/* ---- one metric ---- */

/* The mean of those of from..to that are known. */
static double mean_of(const msgpack_object_array *values, uint32_t from, uint32_t to)
{
    double sum = 0, one;
    unsigned n = 0;
    for (uint32_t i = from; i < to; i++)
        if (table_number(&values->ptr[i], &one)) {
            sum += one;
            n++;
        }
    return n ? sum / n : NAN;
}

static void put_bars(FILE *to, const msgpack_object_array *values)
{
    double bar[BARS], low = 0, high = 0;
    const uint32_t n = values->size < BARS ? values->size : BARS;
    const bool utf8 = table_utf8();
    for (uint32_t i = 0; i < n; i++) {
        bar[i] = mean_of(values, (uint32_t)((uint64_t)values->size * i / n),
                         (uint32_t)((uint64_t)values->size * (i + 1) / n));
        low = bar[i] < low ? bar[i] : low;
        high = bar[i] > high ? bar[i] : high;
    }
    for (uint32_t i = 0; i < n; i++)
        fputs(table_bar(bar[i], low, high, utf8), to);
    fputc('\n', to);
}

static void put_times(FILE *to, const msgpack_object *r)
{
    char span[UNITS_TEXT], end[32] = "-";
    const double seconds = number_of(r, "end") - number_of(r, "start") + number_of(r, "step");
    const time_t at = (time_t)number_of(r, "end");
    struct tm tm;
    units_seconds(seconds, span);
    if (gmtime_r(&at, &tm))
        strftime(end, sizeof end, "%H:%M:%S UTC", &tm);
    fprintf(to, "%s until %s\n", span, end);
}

static void put_metric(FILE *to, const msgpack_object *r, const msgpack_object *values)
{
    static const char *const keys[] = {"min", "avg", "max", "now"};
    char name[NAME_SIZE], unit[32], what[NAME_SIZE], cell[TABLE_CELL];
    text_of(r, "metric", name, sizeof name);
    text_of(r, "unit", unit, sizeof unit);
    text_of(r, "what", what, sizeof what);
    table_text(name, strlen(name), cell);
    fprintf(to, "%s: %s, ", cell, what);
    put_times(to, r);
    put_bars(to, &values->via.array);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        show_value(number_of(r, keys[i]), unit, cell);
        fprintf(to, "%s%s %s", i ? "  " : "", keys[i], cell);
    }
    fputc('\n', to);
}

/* ---- all of them ---- */

static void put_row(FILE *to, const msgpack_object *row, int name_width)
{
    static const char *const keys[] = {"now", "min", "avg", "max"};
    char name[NAME_SIZE], unit[32], what[NAME_SIZE], cell[TABLE_CELL];
    text_of(row, "metric", name, sizeof name);
    text_of(row, "unit", unit, sizeof unit);
    text_of(row, "what", what, sizeof what);
    table_text(name, strlen(name), cell);
    table_pad(to, cell, name_width, false, false);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        show_value(number_of(row, keys[i]), unit, cell);
        table_pad(to, cell, 12, true, false);
    }
    fprintf(to, "%s\n", what);
}

static void put_table(FILE *to, const msgpack_object *rows)
{
    static const char *const heading[] = {"NOW", "MIN", "AVG", "MAX"};
    int width = 6;
    char name[NAME_SIZE];
    for (uint32_t i = 0; i < rows->via.array.size; i++) {
        text_of(&rows->via.array.ptr[i], "metric", name, sizeof name);
        width = table_width(name) > width ? table_width(name) : width;
    }
    table_pad(to, "METRIC", width, false, false);
    for (size_t i = 0; i < sizeof heading / sizeof *heading; i++)
        table_pad(to, heading[i], 12, true, false);
    fputs("WHAT\n", to);
    for (uint32_t i = 0; i < rows->via.array.size; i++)
        put_row(to, &rows->via.array.ptr[i], width);
}

void form_history(FILE *to, const msgpack_object *result)
{
    const msgpack_object *values = rpc_in_get(result, "values"),
                         *rows = rpc_in_get(result, "metrics");
    if (values && values->type == MSGPACK_OBJECT_ARRAY)
        put_metric(to, result, values);
    else if (rows && table_is_rows(rows))
        put_table(to, rows);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* alert_list: each alert in three lines: its state and since when, what is wrong, what to do. */
#include "admin/tables/tables.h"
#include "polder/rpc_in.h"
#include "polder/units.h"

#include <string.h>

static void print_text(FILE *to, const char *before, const msgpack_object *row, const char *key)
{
    char text[TABLE_CELL], cell[TABLE_CELL];
    if (rpc_in_text(row, key, text, sizeof text) <= 0)
        return;
    table_text(text, strlen(text), cell);
    fprintf(to, "%s%s", before, cell);
}

static void print_alert(FILE *to, const msgpack_object *row)
{
    char since[UNITS_TEXT];
    units_seconds(rpc_in_f64(row, "since_ms", 0) / 1000, since);
    print_text(to, "", row, "state");
    print_text(to, " ", row, "alert");
    print_text(to, " ", row, "subject");
    print_text(to, " (", row, "severity");
    fprintf(to, ") for %s\n", since);
    print_text(to, "    ", row, "summary");
    print_text(to, "\n    do: ", row, "action");
    print_text(to, "\n    see polder-runbook(7), ", row, "runbook");
    fputc('\n', to);
}

void form_alert_list(FILE *to, const msgpack_object *result)
{
    const msgpack_object *rows = rpc_in_get(result, "alerts");
    if (!rows || !table_is_rows(rows)) {
        fputs("nothing is pending, fires or was over within the last hour\n", to);
        return;
    }
    for (uint32_t i = 0; i < rows->via.array.size; i++)
        print_alert(to, &rows->via.array.ptr[i]);
}

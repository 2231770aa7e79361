/* SPDX-License-Identifier: BSD-2-Clause */
/* rpc_values: see rpc_values.h. */
#include "polder/rpc_values.h"

#include <stdio.h>
#include <string.h>

static bool ends_in(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static void put_number(struct rpc_out *o, const struct config_row *row, const char *unit,
                       uint64_t number)
{
    char name[64];
    snprintf(name, sizeof name, "%s%s", row->key, ends_in(row->key, unit) ? "" : unit);
    rpc_out_u64(o, name, number);
}

static void put_value(struct rpc_out *o, const struct config_row *row, const void *live)
{
    const uint64_t number = config_live_number(row, live);
    double real;
    switch (row->type) {
    case TYPE_TTL:
        if (number == UINT64_MAX)
            rpc_out_str(o, row->key, "heuristic");
        else
            put_number(o, row, "_ms", number);
        break;
    case TYPE_DURATION:
        put_number(o, row, "_ms", number);
        break;
    case TYPE_SIZE:
        put_number(o, row, "_bytes", number);
        break;
    case TYPE_BOOL:
        rpc_out_bool(o, row->key, number != 0);
        break;
    case TYPE_NUMBER:
        memcpy(&real, (const char *)live + row->live_at, sizeof real);
        rpc_out_f64(o, row->key, real);
        break;
    default:
        if (config_word(row, number))
            rpc_out_str(o, row->key, config_word(row, number));
        else
            rpc_out_u64(o, row->key, number);
        break;
    }
}

void rpc_put_values(struct rpc_out *o, enum config_section section, const void *live, bool top)
{
    for (const struct config_row *row = NULL; (row = config_row_next(section, row));)
        if (row->live && !row->count_at && (top || row->inherits != CONFIG_TOP_ONLY))
            put_value(o, row, live);
}

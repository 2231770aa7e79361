/* SPDX-License-Identifier: BSD-2-Clause */
/* print: an answer in its form: one that is made for its method, else what its shape asks for. */
#include "admin/tables/tables.h"

static void (*const form[RPC_METHODS])(FILE *to, const msgpack_object *result) = {
    [RPC_METHOD_WS_STATS] = form_ws_stats,
    [RPC_METHOD_HISTORY] = form_history,
    [RPC_METHOD_ALERT_LIST] = form_alert_list,
};

void table_print(FILE *to, enum rpc_method method, const msgpack_object *result)
{
    char cell[TABLE_CELL];
    if (result->type == MSGPACK_OBJECT_MAP && form[method]) {
        form[method](to, result);
    } else if (result->type == MSGPACK_OBJECT_MAP) {
        table_map(to, method, result, "");
    } else if (result->type == MSGPACK_OBJECT_ARRAY &&
               (table_is_rows(result) || !result->via.array.size)) {
        table_list(to, method, result);
    } else {
        table_value("", result, cell);
        fprintf(to, "%s\n", cell);
    }
}

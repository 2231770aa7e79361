/* SPDX-License-Identifier: BSD-2-Clause */
/* list: a list as a table, and which of its columns matter. */
#include "admin/tables/tables.h"
#include "polder/rpc_in.h"

#include <string.h>

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
     "upstream server state since_ms weight requests connects errors last_error? error_ago_ms? "
     "mean_seconds check.last? addresses? shift.percent? shift.error_percent? shift.p95_seconds? "
     "shift.guard? top_key_percent?"},
};

static const char *columns_of(enum rpc_method method)
{
    for (size_t i = 0; i < sizeof preferred / sizeof *preferred; i++)
        if (preferred[i].method == method)
            return preferred[i].columns;
    return NULL;
}

/* The method's columns, if that is the list they were chosen for. */
static const char *columns_for(enum rpc_method method, const msgpack_object *list)
{
    char first[64];
    const char *names = columns_of(method);
    snprintf(first, sizeof first, "%.*s", (int)strcspn(names ? names : "", " "),
             names ? names : "");
    return names && (!table_is_rows(list) || rpc_in_get(&list->via.array.ptr[0], first)) ? names
                                                                                         : NULL;
}

bool table_columns(FILE *to, enum rpc_method method, const msgpack_object *list)
{
    const char *names = columns_for(method, list);
    if (!names && table_is_rows(list) && list->via.array.ptr[0].via.map.size > 10)
        return false;
    table_rows(to, list, names);
    return true;
}

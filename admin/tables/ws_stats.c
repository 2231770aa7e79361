/* SPDX-License-Identifier: BSD-2-Clause */
/* ws_stats: WebSockets at a glance; how long they last as percentiles, for the buckets of the
 * histogram are for machines. */
#include "admin/tables/tables.h"
#include "polder/rpc_in.h"
#include "polder/units.h"

#include <inttypes.h>
#include <string.h>

#define NAME_WIDTH 16

static uint64_t number(const msgpack_object *map, const char *key)
{
    uint64_t n = 0;
    return rpc_in_u64(map, key, UINT64_MAX, &n) == 0 ? n : 0;
}

static void put_line(FILE *to, const char *name, const char *text)
{
    table_pad(to, name, NAME_WIDTH, false, false);
    fprintf(to, "%s\n", text);
}

static void put_counts(FILE *to, const msgpack_object *r)
{
    char text[TABLE_CELL];
    snprintf(text, sizeof text, "%" PRIu64 " of %" PRIu64, number(r, "activeConnections"),
             number(r, "maxConnections"));
    put_line(to, "open", text);
    snprintf(text, sizeof text, "%" PRIu64 " opened, %" PRIu64 " refused, %" PRIu64 " reaped",
             number(r, "opened"), number(r, "refused"), number(r, "reaped"));
    put_line(to, "since the start", text);
    snprintf(text, sizeof text, "%" PRIu64 " in, %" PRIu64 " out", number(r, "messagesIn"),
             number(r, "messagesOut"));
    put_line(to, "messages", text);
}

static void put_heartbeats(FILE *to, const msgpack_object *r)
{
    char share[UNITS_TEXT], text[TABLE_CELL];
    units_share(rpc_in_f64(r, "heartbeatSuccess", 0), share);
    snprintf(text, sizeof text,
             "%" PRIu64 " sent, %s good: %" PRIu64 " JSON, %" PRIu64 " pings, %" PRIu64 " pongs",
             number(r, "heartbeatsSent"), share, number(r, "jsonHeartbeats"), number(r, "pings"),
             number(r, "pongs"));
    put_line(to, "heartbeats", number(r, "heartbeatsSent") ? text : "none sent");
}

static void put_durations(FILE *to, const msgpack_object *r)
{
    static const char *const keys[] = {"p50", "p90", "p95", "p99", "max", "avg"};
    const msgpack_object *d = rpc_in_get(r, "connectionDuration");
    char text[TABLE_CELL] = "", span[UNITS_TEXT];
    size_t n = 0;
    for (size_t i = 0; d && i < sizeof keys / sizeof *keys; i++) {
        const double s = rpc_in_f64(d, keys[i], -1);
        if (s < 0)
            continue;
        units_seconds(s, span);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %s", n ? ", " : "", keys[i], span);
    }
    put_line(to, "lasted", number(r, "durationCount") && n ? text : "none has ended yet");
}

/* What the reaped ones would have cost: the hours of `cost`. */
static void put_leaked(FILE *to, const msgpack_object *r)
{
    char text[TABLE_CELL], over[UNITS_TEXT];
    const double hours = rpc_in_f64(r, "leakedHours", -1);
    if (hours <= 0)
        return;
    units_seconds(rpc_in_f64(r, "countedSeconds", 0), over);
    snprintf(text, sizeof text, "%.4g hours of reaped connections, counted for %s", hours, over);
    put_line(to, "leaks stopped", text);
}

static void put_ends(FILE *to, const msgpack_object *r)
{
    const msgpack_object *ends = rpc_in_get(r, "ends");
    char text[TABLE_CELL] = "", key[64];
    size_t n = 0;
    for (uint32_t i = 0; ends && ends->type == MSGPACK_OBJECT_MAP && i < ends->via.map.size; i++) {
        const msgpack_object_kv *kv = &ends->via.map.ptr[i];
        if (table_key(kv, key) && number(ends, key) && n + sizeof key + 32 < sizeof text)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %" PRIu64, n ? ", " : "", key,
                                  number(ends, key));
    }
    if (n)
        put_line(to, "ended by", text);
}

void form_ws_stats(FILE *to, const msgpack_object *result)
{
    const msgpack_object *routes = rpc_in_get(result, "routes");
    put_counts(to, result);
    put_heartbeats(to, result);
    put_durations(to, result);
    put_ends(to, result);
    put_leaked(to, result);
    if (routes && table_is_rows(routes)) {
        fputc('\n', to);
        table_rows(to, routes, NULL);
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* call: see call.h. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "polder/clientip.h"
#include "polder/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void call_error(struct control *c, struct rpc_reply *reply, enum rpc_error code, const char *format,
                ...)
{
    char message[2048];
    va_list ap;
    va_start(ap, format);
    vsnprintf(message, sizeof message, format, ap);
    va_end(ap);
    stats_add(c->stats, STATS_ADMIN_ERRORS, 1);
    rpc_reply_error(reply, code, "%s", message);
}

/* ---- what others answer ---- */

struct forwarded {
    struct control *control;
    struct rpc_reply *reply;
    const char *who;
};

static void on_forwarded(void *arg, enum rpc_error code, const char *message,
                         const msgpack_object *result)
{
    struct forwarded *f = arg;
    if (code == RPC_UNAVAILABLE) {
        call_error(f->control, f->reply, code, "no %s answers (%s)", f->who, message);
    } else if (code) {
        call_error(f->control, f->reply, code, "%s", message);
    } else {
        rpc_out_object(rpc_reply_result(f->reply), NULL, result);
        rpc_reply_send(f->reply);
    }
    free(f);
}

void call_forward_for(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                      const char *method, struct rpc_out *params, unsigned timeout_ms)
{
    struct forwarded *f = malloc(sizeof *f);
    if (!f) {
        rpc_out_fini(params);
        call_error(c, reply, RPC_FAILED, "out of memory");
        return;
    }
    *f = (struct forwarded){c, reply, peers_name(&c->peers, to)};
    rpc_client_call(to, method, params, timeout_ms, on_forwarded, f);
}

void call_forward(struct control *c, struct rpc_reply *reply, struct rpc_client *to,
                  const char *method, struct rpc_out *params)
{
    call_forward_for(c, reply, to, method, params, PEERS_ANSWER_MS);
}

/* ---- what the master does ---- */

void call_wait(struct control *c, struct call_waits *waits, struct rpc_reply *reply,
               _Atomic uint32_t *counter, unsigned patience_ms)
{
    struct call_wait *w = calloc(1, sizeof *w);
    if (!w) {
        call_error(c, reply, RPC_FAILED, "out of memory");
        return;
    }
    w->requested = atomic_fetch_add(counter, 1) + 1;
    w->reply = reply;
    w->until_ms = clock_mono_ms() + patience_ms;
    LIST_INSERT_HEAD(waits, w, entry);
    shared_wake_master(c->shared);
}

void call_waits_follow(struct control *c, struct call_waits *waits, call_look_fn look)
{
    for (struct call_wait *w = LIST_FIRST(waits), *next; w; w = next) {
        next = LIST_NEXT(w, entry);
        if (look(c, w)) {
            LIST_REMOVE(w, entry);
            free(w);
        }
    }
}

/* ---- for the log ---- */

/* One line, whatever bytes came. */
static void make_printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || (unsigned char)*text >= 0x7f)
            *text = '?';
}

/* Keys of clients, texts and queries of URLs may be secrets: they are not logged. */
static void describe_value(enum rpc_method method, const char *name, char *value)
{
    struct clientip ip;
    if (method == RPC_METHOD_LIMIT_RESET && !strcmp(name, "client") &&
        clientip_parse(value, strlen(value), &ip))
        strcpy(value, "...");
    const bool sets_limit = method == RPC_METHOD_LIMIT_SET || method == RPC_METHOD_LIMIT_TRY;
    if (method == RPC_METHOD_WS_BROADCAST || (sets_limit && !strcmp(name, "exempt") && *value))
        strcpy(value, "...");
    char *query = strchr(value, '?');
    if (query && method == RPC_METHOD_CACHE_INVALIDATE)
        strcpy(query, "?");
}

static void describe_map(enum rpc_method method, const msgpack_object *map, char *out, size_t size)
{
    char name[64], value[256];
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *kv = &map->via.map.ptr[i];
        const size_t at = strlen(out);
        if (rpc_in_object_text(&kv->key, name, sizeof name) < 0)
            strcpy(name, "?");
        if (kv->val.type == MSGPACK_OBJECT_MAP) {
            describe_map(method, &kv->val, out, size);
            continue;
        }
        if (rpc_in_object_text(&kv->val, value, sizeof value - 4) < 0)
            strcpy(value, "...");
        describe_value(method, name, value);
        make_printable(name);
        make_printable(value);
        snprintf(out + at, size - at, " %s=%s", name, value);
    }
}

void call_describe(enum rpc_method method, const msgpack_object *params, char *out, size_t size)
{
    *out = 0;
    describe_map(method, params, out, size);
}

void call_put_listeners(const struct control *c, struct rpc_out *o)
{
    const struct proc_table *proc = c->shared->proc;
    char text[sizeof proc->listeners], *next = text;
    memcpy(text, proc->listeners, sizeof text);
    text[sizeof text - 1] = 0;
    rpc_out_list(o, "listeners");
    for (char *one; (one = strsep(&next, ","));)
        if (*(one += strspn(one, " ")))
            rpc_out_str(o, NULL, one);
    rpc_out_end(o);
}

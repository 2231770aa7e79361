/* SPDX-License-Identifier: BSD-2-Clause */
/* message: see message.h. */
#include "daemons/rpc/message.h"

#include <errno.h>
#include <string.h>

/* A map, [map], [] and nil: all of these are met in the wild. */
static const msgpack_object *params_map(const msgpack_object *params)
{
    static const msgpack_object none = {.type = MSGPACK_OBJECT_MAP};
    if (params->type == MSGPACK_OBJECT_ARRAY && params->via.array.size == 1)
        params = &params->via.array.ptr[0];
    else if (params->type == MSGPACK_OBJECT_ARRAY && params->via.array.size == 0)
        return &none;
    if (params->type == MSGPACK_OBJECT_NIL)
        return &none;
    return params->type == MSGPACK_OBJECT_MAP ? params : NULL;
}

static int fail(const char **why, const char *reason)
{
    *why = reason;
    return -EPROTO;
}

static int read_id(const msgpack_object *o, struct rpc_message *m, const char **why)
{
    if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER || o->via.u64 > UINT32_MAX)
        return fail(why, "the message id is a whole number of at most 32 bits");
    m->id = (uint32_t)o->via.u64;
    m->has_id = true;
    return 0;
}

static int read_call(const msgpack_object *method, const msgpack_object *params,
                     struct rpc_message *m, const char **why)
{
    if (method->type != MSGPACK_OBJECT_STR)
        return fail(why, "the method is a string, \"noun.verb\"");
    m->method = method->via.str.ptr;
    m->method_len = method->via.str.size;
    m->params = params_map(params);
    return m->params ? 0 : fail(why, "parameters are one map, or [map], or []");
}

int rpc_message_read(msgpack_unpacked *space, const void *bytes, size_t len, struct rpc_message *m,
                     const char **why)
{
    memset(m, 0, sizeof *m);
    if (msgpack_unpack_next(space, bytes, len, NULL) != MSGPACK_UNPACK_SUCCESS)
        return fail(why, "no msgpack");
    const msgpack_object *o = &space->data;
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size == 0 ||
        o->via.array.ptr[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
        o->via.array.ptr[0].via.u64 > RPC_NOTIFICATION)
        return fail(why, "a message is [0, id, method, params] or [2, method, params]");
    const msgpack_object *at = o->via.array.ptr;
    const uint32_t n = o->via.array.size;
    m->type = (enum rpc_message_type)at[0].via.u64;
    if (m->type == RPC_NOTIFICATION)
        return n == 3 ? read_call(&at[1], &at[2], m, why)
                      : fail(why, "a notification is [2, method, params]");
    if (n < 2 || read_id(&at[1], m, why))
        return n < 2 ? fail(why, "a request is [0, id, method, params]") : -EPROTO;
    if (n != 4)
        return fail(why, "a request is [0, id, method, params]");
    if (m->type == RPC_REQUEST)
        return read_call(&at[2], &at[3], m, why);
    m->error = &at[2];
    m->result = &at[3];
    return 0;
}

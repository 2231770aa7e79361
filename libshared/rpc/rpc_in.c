/* SPDX-License-Identifier: BSD-2-Clause */
/* rpc_in: see rpc_in.h. */
#include "polder/rpc_in.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool rpc_in_is(const msgpack_object *object, const char *text)
{
    const size_t len = strlen(text);
    return object->type == MSGPACK_OBJECT_STR && object->via.str.size == len &&
           !memcmp(object->via.str.ptr, text, len);
}

const msgpack_object *rpc_in_get(const msgpack_object *map, const char *key)
{
    if (!map || map->type != MSGPACK_OBJECT_MAP)
        return NULL;
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object_kv *kv = &map->via.map.ptr[i];
        if (rpc_in_is(&kv->key, key))
            return kv->val.type == MSGPACK_OBJECT_NIL ? NULL : &kv->val;
    }
    return NULL;
}

int rpc_in_object_text(const msgpack_object *o, char *out, size_t size)
{
    int n = -1;
    if (o->type == MSGPACK_OBJECT_STR) {
        const uint32_t len = o->via.str.size;
        if (len >= size || (len && memchr(o->via.str.ptr, 0, len)))
            return -EINVAL;
        if (len)
            memcpy(out, o->via.str.ptr, len);
        out[len] = 0;
        return (int)len;
    }
    if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        n = snprintf(out, size, "%" PRIu64, o->via.u64);
    else if (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        n = snprintf(out, size, "%" PRId64, o->via.i64);
    else if (o->type == MSGPACK_OBJECT_BOOLEAN)
        n = snprintf(out, size, "%s", o->via.boolean ? "true" : "false");
    else if (o->type == MSGPACK_OBJECT_FLOAT32 || o->type == MSGPACK_OBJECT_FLOAT64)
        n = snprintf(out, size, "%.15g", o->via.f64);
    return n >= 0 && (size_t)n < size ? n : -EINVAL;
}

int rpc_in_text(const msgpack_object *map, const char *key, char *out, size_t size)
{
    const msgpack_object *o = rpc_in_get(map, key);
    return o ? rpc_in_object_text(o, out, size) : -ENOENT;
}

int rpc_in_u64(const msgpack_object *map, const char *key, uint64_t max, uint64_t *out)
{
    char text[32], *end;
    const int len = rpc_in_text(map, key, text, sizeof text);
    if (len == -ENOENT)
        return len;
    if (len <= 0 || strspn(text, "0123456789") != (size_t)len)
        return -EINVAL;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno || *out > max ? -ERANGE : 0;
}

double rpc_in_f64(const msgpack_object *map, const char *key, double absent)
{
    const msgpack_object *o = rpc_in_get(map, key);
    if (!o)
        return absent;
    if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        return (double)o->via.u64;
    return o->type == MSGPACK_OBJECT_FLOAT64 || o->type == MSGPACK_OBJECT_FLOAT32 ? o->via.f64
                                                                                  : absent;
}

bool rpc_in_flag(const msgpack_object *map, const char *key)
{
    char text[8];
    if (rpc_in_text(map, key, text, sizeof text) < 0)
        return false;
    return !strcmp(text, "true") || !strcmp(text, "yes") || !strcmp(text, "on") ||
           !strcmp(text, "1");
}

/* ---- against the table ---- */

static int complain(char *why, size_t size, const char *format, const char *name)
{
    snprintf(why, size, format, name); /* NOLINT: formats are those below */
    return -EINVAL;
}

static bool fits(const struct rpc_arg *a, const msgpack_object *value)
{
    switch (a->kind) {
    case RPC_ARG_WORD:
    case RPC_ARG_OPTION:
        return value->type != MSGPACK_OBJECT_MAP && value->type != MSGPACK_OBJECT_ARRAY;
    case RPC_ARG_WORDS:
        return value->type == MSGPACK_OBJECT_ARRAY && value->via.array.size > 0;
    case RPC_ARG_SET:
        return value->type == MSGPACK_OBJECT_MAP && value->via.map.size > 0;
    case RPC_ARG_FLAG:
        return value->type == MSGPACK_OBJECT_BOOLEAN;
    }
    return false;
}

static int check_one(const struct rpc_args *args, const msgpack_object_kv *kv, unsigned *seen,
                     char *why, size_t size)
{
    char name[64];
    if (rpc_in_object_text(&kv->key, name, sizeof name) < 0)
        return complain(why, size, "a parameter's name is %s", "a short string");
    for (unsigned i = 0; i < args->n; i++) {
        if (strcmp(args->at[i].name, name))
            continue;
        if (*seen & 1u << i)
            return complain(why, size, "%s is given twice", name);
        *seen |= 1u << i;
        if (!fits(&args->at[i], &kv->val))
            return complain(why, size, "%s has a value of the wrong type", name);
        return 0;
    }
    return complain(why, size, "unknown parameter %s", name);
}

static int check_choices(const struct rpc_args *args, unsigned seen, char *why, size_t size)
{
    for (unsigned choice = 1; choice <= args->choices; choice++) {
        unsigned given = 0;
        char names[160] = "";
        for (unsigned i = 0; i < args->n; i++) {
            if (args->at[i].choice != choice)
                continue;
            given += seen >> i & 1;
            const size_t at = strlen(names);
            snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", args->at[i].name);
        }
        if (given != 1)
            return complain(why, size, "exactly one of these is needed: %s", names);
    }
    return 0;
}

int rpc_in_check(enum rpc_method method, const msgpack_object *params, char *why, size_t size)
{
    struct rpc_args args;
    unsigned seen = 0;
    if (rpc_args_parse(rpc_methods[method].args, &args))
        return complain(why, size, "the table of methods is wrong for %s",
                        rpc_methods[method].noun);
    for (uint32_t i = 0; i < params->via.map.size; i++) {
        const msgpack_object_kv *kv = &params->via.map.ptr[i];
        if (kv->val.type != MSGPACK_OBJECT_NIL && check_one(&args, kv, &seen, why, size))
            return -EINVAL;
    }
    for (unsigned i = 0; i < args.n; i++)
        if (args.at[i].required && !(seen & 1u << i))
            return complain(why, size, "%s is missing", args.at[i].name);
    return check_choices(&args, seen, why, size);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* json: an answer as one JSON document. */
#include "admin/polderctl.h"

#include <jansson.h>
#include <stdlib.h>

static json_t *convert(const msgpack_object *o);

static json_t *convert_map(const msgpack_object *o)
{
    json_t *map = json_object();
    for (uint32_t i = 0; i < o->via.map.size; i++) {
        const msgpack_object_kv *kv = &o->via.map.ptr[i];
        if (kv->key.type == MSGPACK_OBJECT_STR)
            json_object_setn_new(map, kv->key.via.str.ptr, kv->key.via.str.size, convert(&kv->val));
    }
    return map;
}

static json_t *convert_list(const msgpack_object *o)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < o->via.array.size; i++)
        json_array_append_new(list, convert(&o->via.array.ptr[i]));
    return list;
}

static json_t *convert(const msgpack_object *o)
{
    switch (o->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        return json_boolean(o->via.boolean);
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        return o->via.u64 <= INT64_MAX ? json_integer((json_int_t)o->via.u64)
                                       : json_real((double)o->via.u64);
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return json_integer(o->via.i64);
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return json_real(o->via.f64);
    case MSGPACK_OBJECT_STR:
        return json_stringn(o->via.str.ptr, o->via.str.size);
    case MSGPACK_OBJECT_ARRAY:
        return convert_list(o);
    case MSGPACK_OBJECT_MAP:
        return convert_map(o);
    default:
        return json_null();
    }
}

static bool print(FILE *to, const msgpack_object *result, size_t form)
{
    json_t *document = convert(result);
    const bool done =
        document && json_dumpf(document, to, form | JSON_ENCODE_ANY | JSON_REAL_PRECISION(13)) == 0;
    json_decref(document);
    if (done)
        fputc('\n', to);
    else
        fputs("polderctl: the answer cannot be written as JSON\n", stderr);
    return done;
}

bool json_print(FILE *to, const msgpack_object *result)
{
    return print(to, result, JSON_INDENT(2));
}

bool json_print_line(FILE *to, const msgpack_object *result)
{
    return print(to, result, JSON_COMPACT);
}

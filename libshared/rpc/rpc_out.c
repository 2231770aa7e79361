/* SPDX-License-Identifier: BSD-2-Clause */
/* rpc_out: see rpc_out.h. Maps and lists have 32-bit headers, for their counts come last. */
#include "polder/rpc_out.h"
#include "polder/utf8.h"

#include <string.h>

void rpc_out_init(struct rpc_out *o)
{
    memset(o, 0, sizeof *o);
    msgpack_sbuffer_init(&o->buffer);
    msgpack_packer_init(&o->packer, &o->buffer, msgpack_sbuffer_write);
}

void rpc_out_fini(struct rpc_out *o)
{
    msgpack_sbuffer_destroy(&o->buffer);
}

static void note(struct rpc_out *o, int packed)
{
    if (packed)
        o->failed = true;
}

static void put_text(struct rpc_out *o, const char *text, size_t len)
{
    note(o, msgpack_pack_str(&o->packer, len));
    for (size_t from = 0, at = 0; from < len; from = at) {
        size_t n = 0;
        while (at < len && (n = utf8_length(text + at, len - at)))
            at += n;
        note(o, msgpack_pack_str_body(&o->packer, text + from, at - from));
        if (at < len) {
            note(o, msgpack_pack_str_body(&o->packer, "?", 1));
            at++;
        }
    }
}

static void begin_value(struct rpc_out *o, const char *key)
{
    if (o->depth && o->depth <= RPC_DEPTH_MAX)
        o->open[o->depth - 1].n++;
    if (key)
        put_text(o, key, strlen(key));
}

static void open_container(struct rpc_out *o, const char *key, uint8_t type)
{
    const char head[5] = {(char)type, 0, 0, 0, 0};
    begin_value(o, key);
    if (o->depth++ < RPC_DEPTH_MAX) {
        o->open[o->depth - 1].head = o->buffer.size;
        o->open[o->depth - 1].n = 0;
    } else {
        o->failed = true;
    }
    note(o, msgpack_sbuffer_write(&o->buffer, head, sizeof head));
}

void rpc_out_map(struct rpc_out *o, const char *key)
{
    open_container(o, key, 0xdf);
}

void rpc_out_list(struct rpc_out *o, const char *key)
{
    open_container(o, key, 0xdd);
}

void rpc_out_end(struct rpc_out *o)
{
    if (o->depth == 0) {
        o->failed = true;
        return;
    }
    if (--o->depth >= RPC_DEPTH_MAX || o->failed)
        return;
    const uint32_t n = o->open[o->depth].n;
    char *at = o->buffer.data + o->open[o->depth].head + 1;
    for (int i = 0; i < 4; i++)
        at[i] = (char)(n >> (24 - 8 * i) & 0xff);
}

void rpc_out_u64(struct rpc_out *o, const char *key, uint64_t value)
{
    begin_value(o, key);
    note(o, msgpack_pack_uint64(&o->packer, value));
}

void rpc_out_f64(struct rpc_out *o, const char *key, double value)
{
    begin_value(o, key);
    note(o, msgpack_pack_double(&o->packer, value));
}

void rpc_out_bool(struct rpc_out *o, const char *key, bool value)
{
    begin_value(o, key);
    note(o, value ? msgpack_pack_true(&o->packer) : msgpack_pack_false(&o->packer));
}

void rpc_out_nil(struct rpc_out *o, const char *key)
{
    begin_value(o, key);
    note(o, msgpack_pack_nil(&o->packer));
}

void rpc_out_str(struct rpc_out *o, const char *key, const char *text)
{
    rpc_out_strn(o, key, text, strlen(text));
}

void rpc_out_strn(struct rpc_out *o, const char *key, const char *text, size_t len)
{
    begin_value(o, key);
    put_text(o, text, len);
}

void rpc_out_object(struct rpc_out *o, const char *key, const msgpack_object *value)
{
    begin_value(o, key);
    note(o, msgpack_pack_object(&o->packer, *value));
}

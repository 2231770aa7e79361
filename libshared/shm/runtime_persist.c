/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * runtime_persist: limits changed with `limit set --persist`, in state_dir/runtime.mp: a msgpack
 * map of limit names to [requests, algorithm, window_ms, concurrent, dry_run], and where whom it
 * exempts was changed too a sixth: the list of them. Written whole to a temporary file, synced,
 * renamed: a crash leaves the old or the new one.
 */
#include "polder/config.h"
#include "polder/log.h"
#include "polder/rpc_in.h"
#include "polder/runtime.h"
#include "polder/state_file.h"

#include <errno.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX  RPC_MESSAGE_MAX /* what rpc_scan() takes; 256 longest lists are half of it */
#define FIELDS    5
#define FILE_NAME "runtime.mp"

struct entry {
    char name[65];
    struct runtime_limit value;
    bool has_exempt;
    struct exempt exempt;
};
struct entries {
    struct entry *at;
    size_t n;
};

static bool get_field(const msgpack_object *o, uint64_t most, uint64_t *out)
{
    if (o->type != MSGPACK_OBJECT_POSITIVE_INTEGER || o->via.u64 > most)
        return false;
    *out = o->via.u64;
    return true;
}

static bool read_exempt(const msgpack_object *o, struct exempt *list)
{
    char item[EXEMPT_TEXT_BYTES];
    const char *why;
    if (o->type != MSGPACK_OBJECT_ARRAY)
        return false;
    for (uint32_t i = 0; i < o->via.array.size; i++) {
        const int len = rpc_in_object_text(&o->via.array.ptr[i], item, sizeof item);
        if (len < 0 || exempt_add(list, item, &why))
            return false;
    }
    return true;
}

static bool read_entry(const msgpack_object_kv *kv, struct entry *e)
{
    uint64_t f[FIELDS];
    const char *why;
    const msgpack_object *list = &kv->val;
    memset(e, 0, sizeof *e);
    if (kv->key.type != MSGPACK_OBJECT_STR ||
        rpc_in_object_text(&kv->key, e->name, sizeof e->name) <= 0 ||
        list->type != MSGPACK_OBJECT_ARRAY || list->via.array.size < FIELDS ||
        list->via.array.size > FIELDS + 1)
        return false;
    for (size_t i = 0; i < FIELDS; i++)
        if (!get_field(&list->via.array.ptr[i], i == 2 ? UINT64_MAX : UINT32_MAX, &f[i]))
            return false;
    e->value = (struct runtime_limit){.requests = (uint32_t)f[0],
                                      .algorithm = (uint32_t)f[1],
                                      .window_ms = f[2],
                                      .concurrent = (uint32_t)f[3],
                                      .dry_run = f[4] != 0};
    e->has_exempt = list->via.array.size > FIELDS;
    if (e->has_exempt && !read_exempt(&list->via.array.ptr[FIELDS], &e->exempt))
        return false;
    return runtime_limit_check(&e->value, &why) == 0;
}

static struct entry *find(struct entries *all, const char *name)
{
    for (size_t i = 0; i < all->n; i++)
        if (!strcmp(all->at[i].name, name))
            return &all->at[i];
    return NULL;
}

/* A name that is there twice would hide what is saved under it. */
static bool read_next(const msgpack_object_kv *kv, struct entries *out)
{
    struct entry *e = &out->at[out->n];
    if (!read_entry(kv, e) || find(out, e->name))
        return false;
    out->n++;
    return true;
}

static int unpack(const char *bytes, size_t len, struct entries *out)
{
    /* the scan bounds what msgpack-c would allocate */
    if (rpc_scan((const uint8_t *)bytes, len) != (int64_t)len)
        return -EPROTO;
    msgpack_unpacked u;
    msgpack_unpacked_init(&u);
    int code = -EPROTO;
    if (msgpack_unpack_next(&u, bytes, len, NULL) == MSGPACK_UNPACK_SUCCESS &&
        u.data.type == MSGPACK_OBJECT_MAP && u.data.via.map.size <= RUNTIME_LIMITS_MAX) {
        out->at = calloc(u.data.via.map.size + 1, sizeof *out->at);
        code = out->at ? 0 : -ENOMEM;
        for (uint32_t i = 0; code == 0 && i < u.data.via.map.size; i++)
            code = read_next(&u.data.via.map.ptr[i], out) ? 0 : -EPROTO;
    }
    msgpack_unpacked_destroy(&u);
    return code;
}

/* 0, also where there is no file. */
static int read_all(const char *state_dir, struct entries *out)
{
    char *bytes;
    size_t len;
    memset(out, 0, sizeof *out);
    int code = state_file_read(state_dir, FILE_NAME, FILE_MAX, &bytes, &len);
    if (!code && bytes)
        code = unpack(bytes, len, out);
    free(bytes);
    if (code) {
        free(out->at);
        memset(out, 0, sizeof *out);
    }
    return code;
}

static void pack_text(msgpack_packer *pk, const char *text)
{
    const size_t len = strlen(text);
    msgpack_pack_str(pk, len);
    msgpack_pack_str_body(pk, text, len);
}

static void pack_exempt(msgpack_packer *pk, const struct exempt *list)
{
    char text[64];
    size_t values = 0;
    for (const char *v = NULL; (v = exempt_next(list, v));)
        values++;
    msgpack_pack_array(pk, list->n_nets + values);
    for (uint32_t i = 0; i < list->n_nets; i++) {
        clientip_net_format(&list->net[i], text);
        pack_text(pk, text);
    }
    for (const char *v = NULL; (v = exempt_next(list, v));)
        pack_text(pk, v);
}

static void pack_entry(msgpack_packer *pk, const struct entry *e)
{
    const struct runtime_limit *v = &e->value;
    pack_text(pk, e->name);
    msgpack_pack_array(pk, FIELDS + (e->has_exempt ? 1 : 0));
    msgpack_pack_uint32(pk, v->requests);
    msgpack_pack_uint32(pk, v->algorithm);
    msgpack_pack_uint64(pk, v->window_ms);
    msgpack_pack_uint32(pk, v->concurrent);
    msgpack_pack_uint32(pk, v->dry_run);
    if (e->has_exempt)
        pack_exempt(pk, &e->exempt);
}

static int write_all(const char *state_dir, const struct entries *all)
{
    msgpack_sbuffer buf;
    msgpack_packer pk;
    msgpack_sbuffer_init(&buf);
    msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
    msgpack_pack_map(&pk, all->n);
    for (size_t i = 0; i < all->n; i++)
        pack_entry(&pk, &all->at[i]);
    const int code = state_file_write(state_dir, FILE_NAME, buf.data, buf.size);
    msgpack_sbuffer_destroy(&buf);
    return code;
}

static void apply(const struct entry *e, uint32_t index, struct runtime_page *page,
                  struct runtime_values *values)
{
    values->limit[index] = e->value;
    if (e->has_exempt)
        values->limit[index].exempt = runtime_exempt_put(page, index, &e->exempt);
}

static bool is_foreign(int code)
{
    return code == -EPROTO || code == -EFBIG;
}

int runtime_persist_load(const char *state_dir, const struct config *config,
                         struct runtime_page *page, struct runtime_values *values)
{
    struct entries all;
    const int code = read_all(state_dir, &all);
    if (code)
        log_warning("config: %s/runtime.mp cannot be used (%s); limits start with the values of "
                    "the file, and limit set --persist writes it anew",
                    state_dir, is_foreign(code) ? "it is damaged, or not ours" : strerror(-code));
    for (size_t i = 0; i < all.n; i++)
        for (uint32_t k = 0; k < config->n_limits; k++)
            if (!strcmp(config->limits[k].name, all.at[i].name))
                apply(&all.at[i], k, page, values);
    free(all.at);
    return code;
}

int runtime_persist_save(const char *state_dir, const char *limit_name,
                         const struct runtime_limit *value, const struct exempt *exempt)
{
    struct entries all;
    if (strlen(limit_name) >= sizeof all.at->name)
        return -ENAMETOOLONG;
    const int have = read_all(state_dir, &all);
    if (have && !is_foreign(have))
        return have; /* it may be a good one that cannot be read now; a foreign one is replaced */
    struct entry *e = find(&all, limit_name);
    if (!e && all.n == RUNTIME_LIMITS_MAX) { /* what unpack takes back */
        free(all.at);
        return -ENOSPC;
    }
    if (!e) {
        struct entry *grown = realloc(all.at, (all.n + 1) * sizeof *grown);
        if (!grown) {
            free(all.at);
            return -ENOMEM;
        }
        all.at = grown;
        e = &grown[all.n++];
        memset(e, 0, sizeof *e);
        memcpy(e->name, limit_name, strlen(limit_name));
    }
    e->value = *value;
    e->has_exempt = exempt != NULL;
    if (exempt)
        e->exempt = *exempt;
    const int code = write_all(state_dir, &all);
    free(all.at);
    return code;
}

int runtime_persist_forget(const char *state_dir, const char *limit_name)
{
    struct entries all;
    int code = read_all(state_dir, &all);
    struct entry *e = code ? NULL : find(&all, limit_name);
    if (is_foreign(code))
        code = 0; /* nothing of it was applied */
    if (e) {
        *e = all.at[--all.n];
        code = write_all(state_dir, &all);
    }
    free(all.at);
    return code;
}

int runtime_persist_has(const char *state_dir, const char *limit_name)
{
    struct entries all;
    const int has = read_all(state_dir, &all) == 0 && find(&all, limit_name);
    free(all.at);
    return has;
}

void runtime_persist_which(const char *state_dir, const struct config *config,
                           bool persisted[RUNTIME_LIMITS_MAX])
{
    struct entries all;
    read_all(state_dir, &all);
    for (uint32_t i = 0; i < config->n_limits; i++)
        persisted[i] = find(&all, config->limits[i].name) != NULL;
    free(all.at);
}

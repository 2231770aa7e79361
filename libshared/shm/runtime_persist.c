/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * runtime_persist: limits changed with `limit set --persist`, in state_dir/runtime.mp: a msgpack
 * map of limit names to arrays: the numbers that `limit set` changes, in the order of
 * config_keys.def; its exempt list, or nil where that was not changed; the numbers that the file
 * said then, and a hash of the file's list. A number or list holds only while the file says so
 * still. Earlier versions wrote neither the last two nor a nil, and such entries always hold. The
 * longest lists of 256 limits are half of what such a file may hold.
 */
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/log.h"
#include "polder/rpc_in.h"
#include "polder/runtime.h"
#include "polder/state_msgpack.h"

#include <errno.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FILE_NAME "runtime.mp"

struct entry {
    char name[65];
    struct runtime_limit value;
    bool has_exempt;
    struct exempt exempt;
    bool has_base;
    struct runtime_limit base;
    uint64_t base_exempt;
};
struct entries {
    struct entry *at;
    size_t n;
};

static const struct config_row *next_number(const struct config_row *row)
{
    while ((row = config_row_next(CONFIG_SECTION_LIMIT, row)) && (!row->live || row->count_at))
        ;
    return row;
}

/* How many there were; 0: one is no number, or too large. */
static uint32_t read_numbers(const msgpack_object_array *list, struct runtime_limit *value)
{
    uint32_t n = 0;
    for (const struct config_row *row = NULL; (row = next_number(row)); n++) {
        const msgpack_object *o = &list->ptr[n];
        if (n == list->size || o->type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
            config_number_check(row, o->via.u64))
            return 0;
        config_number_put(row, (char *)value + row->live_at, o->via.u64);
    }
    return n;
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

/* What is behind the numbers. */
static bool read_behind(const msgpack_object_array *list, uint32_t n, struct entry *e)
{
    const msgpack_object *o = list->ptr + n;
    e->has_exempt = list->size > n && o->type != MSGPACK_OBJECT_NIL;
    e->has_base = list->size == n + 3;
    if (list->size != n && list->size != n + 1 && !e->has_base)
        return false;
    if (e->has_exempt && !read_exempt(o, &e->exempt))
        return false;
    if (!e->has_base)
        return true;
    if (o[1].type != MSGPACK_OBJECT_ARRAY || o[1].via.array.size != n ||
        o[2].type != MSGPACK_OBJECT_POSITIVE_INTEGER)
        return false;
    e->base_exempt = o[2].via.u64;
    return read_numbers(&o[1].via.array, &e->base) == n;
}

static bool read_entry(const msgpack_object_kv *kv, struct entry *e)
{
    const char *why;
    const msgpack_object *o = &kv->val;
    memset(e, 0, sizeof *e);
    if (kv->key.type != MSGPACK_OBJECT_STR ||
        rpc_in_object_text(&kv->key, e->name, sizeof e->name) <= 0 ||
        o->type != MSGPACK_OBJECT_ARRAY)
        return false;
    const uint32_t n = read_numbers(&o->via.array, &e->value);
    if (n == 0)
        return false;
    if (!read_behind(&o->via.array, n, e))
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

static int take_all(void *arg, const msgpack_object *map)
{
    struct entries *out = arg;
    if (map->type != MSGPACK_OBJECT_MAP || map->via.map.size > RUNTIME_LIMITS_MAX)
        return -EPROTO;
    out->at = calloc(map->via.map.size + 1, sizeof *out->at);
    if (!out->at)
        return -ENOMEM;
    for (uint32_t i = 0; i < map->via.map.size; i++)
        if (!read_next(&map->via.map.ptr[i], out))
            return -EPROTO;
    return 0;
}

/* 0, also where there is no file. */
static int read_all(const char *state_dir, struct entries *out)
{
    memset(out, 0, sizeof *out);
    const int code = state_msgpack_read(state_dir, FILE_NAME, take_all, out);
    if (code) {
        free(out->at);
        memset(out, 0, sizeof *out);
    }
    return code;
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
        state_msgpack_text(pk, text);
    }
    for (const char *v = NULL; (v = exempt_next(list, v));)
        state_msgpack_text(pk, v);
}

static void pack_numbers(msgpack_packer *pk, const struct runtime_limit *value)
{
    for (const struct config_row *row = NULL; (row = next_number(row));)
        msgpack_pack_uint64(pk, config_live_number(row, value));
}

static void pack_entry(msgpack_packer *pk, const struct entry *e)
{
    uint32_t n = 0;
    for (const struct config_row *row = NULL; (row = next_number(row));)
        n++;
    state_msgpack_text(pk, e->name);
    msgpack_pack_array(pk, n + (e->has_base ? 3 : e->has_exempt ? 1 : 0));
    pack_numbers(pk, &e->value);
    if (e->has_exempt)
        pack_exempt(pk, &e->exempt);
    else if (e->has_base)
        msgpack_pack_nil(pk);
    if (!e->has_base)
        return;
    msgpack_pack_array(pk, n);
    pack_numbers(pk, &e->base);
    msgpack_pack_uint64(pk, e->base_exempt);
}

static void put_all(msgpack_packer *pk, const void *arg)
{
    const struct entries *all = arg;
    msgpack_pack_map(pk, all->n);
    for (size_t i = 0; i < all->n; i++)
        pack_entry(pk, &all->at[i]);
}

static int write_all(const char *state_dir, const struct entries *all)
{
    return state_msgpack_write(state_dir, FILE_NAME, put_all, all);
}

/* ---- what of it holds ---- */

static uint64_t hash_of_exempt(const struct config_limit *l)
{
    char text[64];
    uint64_t hash = l->n_exempt_nets;
    for (uint32_t i = 0; i < l->n_exempt_nets; i++) {
        clientip_net_format(&l->exempt_nets[i], text);
        hash = XXH3_64bits_withSeed(text, strlen(text), hash);
    }
    for (uint32_t i = 0; i < l->n_exempt_values; i++)
        hash = XXH3_64bits_withSeed(l->exempt_values[i], strlen(l->exempt_values[i]), hash);
    return hash;
}

static void base_on(struct entry *e, const struct config_limit *l)
{
    e->has_base = true;
    e->base = l->value;
    e->base_exempt = hash_of_exempt(l);
}

/* Takes out what the file has overruled. True: there was any. */
static bool overrule(struct entry *e, const struct config_limit *l)
{
    const char *why;
    bool any = false;
    if (!e->has_base)
        return false;
    for (const struct config_row *row = NULL; (row = next_number(row));) {
        const uint64_t file = config_live_number(row, &l->value);
        if (file == config_live_number(row, &e->base))
            continue;
        config_number_put(row, (char *)&e->value + row->live_at, file);
        any = true;
    }
    if (e->base_exempt != hash_of_exempt(l)) {
        e->has_exempt = false;
        any = true;
    }
    if (runtime_limit_check(&e->value, &why))
        e->value = l->value;
    base_on(e, l);
    return any;
}

static void apply(struct entry *e, const struct config_limit *l, struct runtime_page *page,
                  struct runtime_values *values)
{
    overrule(e, l);
    values->limit[l->index] = e->value;
    if (e->has_exempt)
        values->limit[l->index].exempt = runtime_exempt_put(page, l->index, &e->exempt);
}

static const struct config_limit *limit_of(const struct config *config, const struct entry *e)
{
    for (uint32_t k = 0; k < config->n_limits; k++)
        if (!strcmp(config->limits[k].name, e->name))
            return &config->limits[k];
    return NULL;
}

int runtime_persist_load(const char *state_dir, const struct config *config,
                         struct runtime_page *page, struct runtime_values *values)
{
    struct entries all;
    const int code = read_all(state_dir, &all);
    if (code)
        log_warning("config: %s/runtime.mp cannot be used (%s); limits start with the values of "
                    "the file, and limit set --persist overwrites it",
                    state_dir, state_msgpack_fault(code));
    for (size_t i = 0; i < all.n; i++) {
        const struct config_limit *l = limit_of(config, &all.at[i]);
        if (l)
            apply(&all.at[i], l, page, values);
    }
    free(all.at);
    return code;
}

int runtime_persist_forget_overruled(const char *state_dir, const struct config *config)
{
    struct entries all;
    int code = read_all(state_dir, &all);
    bool any = false;
    for (size_t i = 0; i < all.n;) {
        struct entry *e = &all.at[i];
        const struct config_limit *l = limit_of(config, e);
        const bool overruled = l && overrule(e, l);
        any |= overruled;
        if (overruled && !e->has_exempt &&
            config_live_equal(CONFIG_SECTION_LIMIT, &e->value, &l->value))
            *e = all.at[--all.n]; /* nothing is left of it */
        else
            i++;
    }
    if (any)
        code = write_all(state_dir, &all);
    free(all.at);
    return code;
}

int runtime_persist_save(const char *state_dir, const char *limit_name,
                         const struct runtime_limit *value, const struct exempt *exempt,
                         const struct config_limit *file)
{
    struct entries all;
    if (strlen(limit_name) >= sizeof all.at->name)
        return -ENAMETOOLONG;
    const int have = read_all(state_dir, &all);
    if (have && !state_msgpack_is_foreign(have))
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
    e->has_base = false;
    if (file)
        base_on(e, file);
    const int code = write_all(state_dir, &all);
    free(all.at);
    return code;
}

int runtime_persist_forget(const char *state_dir, const char *limit_name)
{
    struct entries all;
    int code = read_all(state_dir, &all);
    struct entry *e = code ? NULL : find(&all, limit_name);
    if (state_msgpack_is_foreign(code))
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

/* SPDX-License-Identifier: BSD-2-Clause */
/* settings: see settings.h. */
#include "polder/settings.h"
#include "polder/config.h"
#include "polder/log.h"
#include "polder/rpc.h"
#include "polder/rpc_in.h"
#include "polder/state_file.h"

#include <errno.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME "settings.mp"

/* ---- reading ---- */

static bool read_one(const msgpack_object *o, struct setting *s)
{
    return o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size == 3 &&
           rpc_in_object_text(&o->via.array.ptr[0], s->section, sizeof s->section) > 0 &&
           rpc_in_object_text(&o->via.array.ptr[1], s->key, sizeof s->key) > 0 &&
           rpc_in_object_text(&o->via.array.ptr[2], s->value, sizeof s->value) >= 0;
}

static int unpack(const char *bytes, size_t len, struct settings *out)
{
    /* the scan bounds what msgpack-c would allocate */
    if (rpc_scan((const uint8_t *)bytes, len) != (int64_t)len)
        return -EPROTO;
    msgpack_unpacked u;
    msgpack_unpacked_init(&u);
    int code = -EPROTO;
    if (msgpack_unpack_next(&u, bytes, len, NULL) == MSGPACK_UNPACK_SUCCESS &&
        u.data.type == MSGPACK_OBJECT_ARRAY && u.data.via.array.size <= SETTINGS_MAX) {
        out->at = calloc(u.data.via.array.size + 1, sizeof *out->at);
        code = out->at ? 0 : -ENOMEM;
        for (uint32_t i = 0; code == 0 && i < u.data.via.array.size; i++)
            code = read_one(&u.data.via.array.ptr[i], &out->at[out->n++]) ? 0 : -EPROTO;
    }
    msgpack_unpacked_destroy(&u);
    return code;
}

void settings_free(struct settings *s)
{
    free(s->at);
    memset(s, 0, sizeof *s);
}

int settings_read(const char *state_dir, struct settings *out)
{
    char *bytes;
    size_t len;
    memset(out, 0, sizeof *out);
    int code = state_file_read(state_dir, FILE_NAME, RPC_MESSAGE_MAX, &bytes, &len);
    if (!code && bytes)
        code = unpack(bytes, len, out);
    free(bytes);
    if (code)
        settings_free(out);
    return code;
}

/* ---- writing ---- */

static void pack_text(msgpack_packer *pk, const char *text)
{
    const size_t len = strlen(text);
    msgpack_pack_str(pk, len);
    msgpack_pack_str_body(pk, text, len);
}

static int write_all(const char *state_dir, const struct settings *all)
{
    msgpack_sbuffer buf;
    msgpack_packer pk;
    msgpack_sbuffer_init(&buf);
    msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
    msgpack_pack_array(&pk, all->n);
    for (size_t i = 0; i < all->n; i++) {
        msgpack_pack_array(&pk, 3);
        pack_text(&pk, all->at[i].section);
        pack_text(&pk, all->at[i].key);
        pack_text(&pk, all->at[i].value);
    }
    const int code = buf.size <= RPC_MESSAGE_MAX
                         ? state_file_write(state_dir, FILE_NAME, buf.data, buf.size)
                         : -EFBIG;
    msgpack_sbuffer_destroy(&buf);
    return code;
}

static bool is_foreign(int code)
{
    return code == -EPROTO || code == -EFBIG;
}

static struct setting *find(const struct settings *all, const struct setting *s)
{
    for (size_t i = 0; i < all->n; i++)
        if (!strcmp(all->at[i].section, s->section) && !strcmp(all->at[i].key, s->key))
            return &all->at[i];
    return NULL;
}

int settings_save(const char *state_dir, const struct setting *with, size_t n)
{
    struct settings all;
    int code = settings_read(state_dir, &all);
    if (code && !is_foreign(code))
        return code; /* it may be a good one that cannot be read now; a foreign one is replaced */
    struct setting *grown = realloc(all.at, (all.n + n + 1) * sizeof *grown);
    if (grown)
        all.at = grown;
    for (size_t i = 0; grown && i < n; i++) {
        struct setting *s = find(&all, &with[i]);
        *(s ? s : &all.at[all.n++]) = with[i];
    }
    code = !grown ? -ENOMEM : all.n > SETTINGS_MAX ? -ENOSPC : write_all(state_dir, &all);
    settings_free(&all);
    return code;
}

int settings_forget(const char *state_dir, const char *section, const char *key)
{
    struct settings all;
    int code = settings_read(state_dir, &all);
    size_t kept = 0;
    if (is_foreign(code))
        code = 0; /* nothing of it was applied */
    for (size_t i = 0; i < all.n; i++)
        if (strcmp(all.at[i].section, section) || (key && strcmp(all.at[i].key, key)))
            all.at[kept++] = all.at[i];
    if (kept < all.n) {
        all.n = kept;
        code = write_all(state_dir, &all);
    }
    settings_free(&all);
    return code;
}

/* ---- applying ---- */

static void apply_weight(const struct setting *s, const struct config *config,
                         struct runtime_values *values)
{
    char *end;
    const unsigned long weight = strtoul(s->value, &end, 10);
    if (*end || end == s->value || weight > RUNTIME_WEIGHT_MAX)
        return;
    for (uint32_t i = 0; i < config->n_upstreams; i++) {
        const struct config_upstream *u = &config->upstreams[i];
        if (strcmp(u->name, s->section + strlen("upstream ")))
            continue;
        for (uint32_t k = 0; k < u->n_servers; k++)
            if (!strcmp(u->servers[k].address.text, s->key))
                values->server[u->servers[k].index].weight = (uint32_t)weight;
    }
}

void settings_apply(const struct settings *settings, const struct config *config,
                    struct runtime_values *values)
{
    char why[160];
    for (size_t i = 0; i < settings->n; i++) {
        const struct setting *s = &settings->at[i];
        if (!strncmp(s->section, "upstream ", strlen("upstream ")))
            apply_weight(s, config, values);
        else if (!strcmp(s->section, "cache") &&
                 runtime_cache_set(&values->cache, s->key, s->value, why, sizeof why))
            log_warning("config: settings.mp: cache %s=%s is left out: %s", s->key, s->value, why);
    }
}

int settings_load(const char *state_dir, const struct config *config, struct runtime_values *values)
{
    struct settings settings;
    const int code = settings_read(state_dir, &settings);
    if (code)
        log_warning(
            "config: %s/settings.mp cannot be used (%s); upstreams and cache start with the "
            "values of the file, and the next --persist writes it anew",
            state_dir, is_foreign(code) ? "it is damaged, or not ours" : strerror(-code));
    settings_apply(&settings, config, values);
    settings_free(&settings);
    return code;
}

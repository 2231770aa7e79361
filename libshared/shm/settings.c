/* SPDX-License-Identifier: BSD-2-Clause */
/* settings: see settings.h. */
#include "polder/settings.h"
#include "polder/config.h"
#include "polder/config_keys.h"
#include "polder/log.h"
#include "polder/rpc_in.h"
#include "polder/state_msgpack.h"

#include <errno.h>
#include <inttypes.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FILE_NAME "settings.mp"

/* ---- reading ---- */

static bool read_one(const msgpack_object *o, struct setting *s)
{
    return o->type == MSGPACK_OBJECT_ARRAY && (o->via.array.size == 3 || o->via.array.size == 4) &&
           rpc_in_object_text(&o->via.array.ptr[0], s->section, sizeof s->section) > 0 &&
           rpc_in_object_text(&o->via.array.ptr[1], s->key, sizeof s->key) > 0 &&
           rpc_in_object_text(&o->via.array.ptr[2], s->value, sizeof s->value) >= 0 &&
           (o->via.array.size == 3 ||
            rpc_in_object_text(&o->via.array.ptr[3], s->base, sizeof s->base) >= 0);
}

static int take_all(void *arg, const msgpack_object *list)
{
    struct settings *out = arg;
    if (list->type != MSGPACK_OBJECT_ARRAY || list->via.array.size > SETTINGS_MAX)
        return -EPROTO;
    out->at = calloc(list->via.array.size + 1, sizeof *out->at);
    if (!out->at)
        return -ENOMEM;
    for (uint32_t i = 0; i < list->via.array.size; i++)
        if (!read_one(&list->via.array.ptr[i], &out->at[out->n++]))
            return -EPROTO;
    return 0;
}

void settings_free(struct settings *s)
{
    free(s->at);
    memset(s, 0, sizeof *s);
}

int settings_read(const char *state_dir, struct settings *out)
{
    memset(out, 0, sizeof *out);
    const int code = state_msgpack_read(state_dir, FILE_NAME, take_all, out);
    if (code)
        settings_free(out);
    return code;
}

/* ---- writing ---- */

static void put_all(msgpack_packer *pk, const void *arg)
{
    const struct settings *all = arg;
    msgpack_pack_array(pk, all->n);
    for (size_t i = 0; i < all->n; i++) {
        msgpack_pack_array(pk, 4);
        state_msgpack_text(pk, all->at[i].section);
        state_msgpack_text(pk, all->at[i].key);
        state_msgpack_text(pk, all->at[i].value);
        state_msgpack_text(pk, all->at[i].base);
    }
}

static int write_all(const char *state_dir, const struct settings *all)
{
    return state_msgpack_write(state_dir, FILE_NAME, put_all, all);
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
    if (code && !state_msgpack_is_foreign(code))
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
    if (state_msgpack_is_foreign(code))
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

/* ---- what the file says ---- */

static const char weights[] = "upstream ", ws_route[] = "websocket ";

static const struct config_server *server_of(const struct config *config, const struct setting *s)
{
    for (uint32_t i = 0; i < config->n_upstreams; i++) {
        const struct config_upstream *u = &config->upstreams[i];
        for (uint32_t k = 0; k < u->n_servers && !strcmp(u->name, s->section + sizeof weights - 1);
             k++)
            if (!strcmp(u->servers[k].address.text, s->key))
                return &u->servers[k];
    }
    return NULL;
}

/* NULL: no such route has WebSockets. */
static const struct config_websocket *websocket_of(const struct config *config, const char *pattern)
{
    for (uint32_t i = 0; i < config->n_routes; i++)
        if (config->routes[i].websocket && !strcmp(config->routes[i].pattern, pattern))
            return config->routes[i].websocket;
    return NULL;
}

static uint64_t hash_of_origins(const struct config_websocket *w)
{
    uint64_t hash = w->n_origins;
    for (uint32_t i = 0; i < w->n_origins; i++)
        hash = XXH3_64bits_withSeed(w->origins[i], strlen(w->origins[i]), hash);
    return hash;
}

static void websocket_base(const struct config_websocket *w, bool of_route, struct setting *s)
{
    const struct config_row *row = config_live_row(CONFIG_SECTION_WEBSOCKET, s->key);
    double real;
    if (!row || !w)
        return;
    if (of_route && !(w->set & config_row_bit(row)))
        strcpy(s->base, "-"); /* it states none */
    else if (row->count_at)
        snprintf(s->base, sizeof s->base, "%016" PRIx64, hash_of_origins(w));
    else if (row->type == TYPE_NUMBER) {
        memcpy(&real, (const char *)w + row->live_at, sizeof real);
        snprintf(s->base, sizeof s->base, "%.17g", real);
    } else
        snprintf(s->base, sizeof s->base, "%" PRIu64, config_live_number(row, w));
}

void settings_base(const struct config *config, struct setting *s)
{
    const struct config_row *row = config_live_row(CONFIG_SECTION_CACHE, s->key);
    const struct config_server *server;
    *s->base = 0;
    if (!strcmp(s->section, "cache") && row)
        snprintf(s->base, sizeof s->base, "%" PRIu64,
                 config_live_number(row, &config->cache.value));
    else if (!strncmp(s->section, weights, sizeof weights - 1) && (server = server_of(config, s)))
        snprintf(s->base, sizeof s->base, "%u", server->weight);
    else if (!strcmp(s->section, "websocket"))
        websocket_base(&config->websocket, false, s);
    else if (!strncmp(s->section, ws_route, sizeof ws_route - 1))
        websocket_base(websocket_of(config, s->section + sizeof ws_route - 1), true, s);
}

bool settings_holds(const struct config *config, const struct setting *s)
{
    struct setting now = *s;
    if (!*s->base)
        return true;
    settings_base(config, &now);
    return !*now.base || !strcmp(now.base, s->base);
}

int settings_forget_overruled(const char *state_dir, const struct config *config)
{
    struct settings all;
    int code = settings_read(state_dir, &all);
    size_t kept = 0;
    for (size_t i = 0; i < all.n; i++)
        if (settings_holds(config, &all.at[i]))
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
    uint64_t weight;
    const struct config_server *server = server_of(config, s);
    if (server && !config_value(&config_rows[CONFIG_SERVER_weight], s->value, &weight, NULL))
        values->server[server->index].weight = (uint32_t)weight;
}

static void apply_cache(const struct setting *s, struct runtime_cache *cache)
{
    const struct config_row *row = config_live_row(CONFIG_SECTION_CACHE, s->key);
    const char *right =
        row ? config_live_set(row, cache, s->value) : "a key that cache set can change";
    if (right)
        log_warning("config: settings.mp: cache %s=%s is left out; expected %s", s->key, s->value,
                    right);
}

void settings_apply(const struct settings *settings, const struct config *config,
                    struct runtime_values *values)
{
    for (size_t i = 0; i < settings->n; i++) {
        const struct setting *s = &settings->at[i];
        if (!settings_holds(config, s))
            continue;
        if (!strncmp(s->section, weights, sizeof weights - 1))
            apply_weight(s, config, values);
        else if (!strcmp(s->section, "cache"))
            apply_cache(s, &values->cache);
    }
}

int settings_load(const char *state_dir, const struct config *config, struct runtime_values *values)
{
    struct settings settings;
    const int code = settings_read(state_dir, &settings);
    if (code)
        log_warning(
            "config: %s/settings.mp cannot be used (%s); upstreams and cache start with the "
            "values of the file, and the next --persist overwrites it",
            state_dir, state_msgpack_fault(code));
    settings_apply(&settings, config, values);
    settings_free(&settings);
    return code;
}

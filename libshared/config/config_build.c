/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_build: makes the tree in the arena from what libconfuse has, and checks what one value has
 * to do with another. Each value has been checked by itself already. The larger sections have files
 * of their own (config_build.h); here are costs.
 */
#include "libshared/config/config_build.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

static bool is_currency(const char *text)
{
    return strlen(text) == 3 && strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 3;
}

static uint64_t cost_by_id(const struct config *c)
{
    uint64_t id = c->n_cost_by;
    for (uint32_t i = 0; i < c->n_cost_by; i++) {
        const char *name = c->cost_by[i].name ? c->cost_by[i].name : "";
        id = XXH3_64bits_withSeed(name, strlen(name), id + (uint64_t)c->cost_by[i].kind + 1);
    }
    return id;
}

/* Fields that carry credentials. */
static bool cost_by_is_secret(const struct config *c)
{
    static const char *const headers[] = {"authorization", "proxy-authorization", "cookie",
                                          "x-api-key", "x-auth-token"};
    for (uint32_t i = 0; i < c->n_cost_by; i++) {
        const struct config_key *k = &c->cost_by[i];
        if (k->kind == CONFIG_KEY_COOKIE)
            return true;
        for (size_t h = 0; k->kind == CONFIG_KEY_HEADER && h < sizeof headers / sizeof *headers;
             h++)
            if (!strcasecmp(k->name, headers[h]))
                return true;
    }
    return false;
}

static void build_cost(struct config_parse *p, struct config *c)
{
    cfg_t *s = config_section(p->root, "cost");
    config_read(p, s, CONFIG_SECTION_COST, c);
    c->cost_by_id = cost_by_id(c);
    c->cost_by_is_secret = cost_by_is_secret(c);
    if (!is_currency(c->cost.currency))
        config_complain(p, config_line_of(p, s, "currency"),
                        "currency = \"%.40s\": expected three capital letters, such as "
                        "\"EUR\"",
                        c->cost.currency);
}

/* ---- identity ---- */

struct key_list {
    struct config_key *list;
    uint32_t n;
};

static void add_keys(struct key_list *out, const struct config_key *keys, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (keys[i].kind == CONFIG_KEY_HEADER || keys[i].kind == CONFIG_KEY_COOKIE)
            out->list[out->n++] = keys[i];
}

/* The fields in keys of limits and partitions identify the caller, on every route. */
static void build_identity_keys(struct config_parse *p, struct config *c)
{
    const size_t max = (size_t)(c->n_limits + c->n_routes) * CONFIG_KEY_PARTS_MAX;
    struct key_list keys = {config_take(p, max, sizeof *keys.list), 0};
    if (!keys.list)
        return;
    for (uint32_t i = 0; i < c->n_limits; i++)
        add_keys(&keys, c->limits[i].key, c->limits[i].n_key);
    for (uint32_t i = 0; i < c->n_routes; i++)
        if (c->routes[i].cache)
            add_keys(&keys, c->routes[i].cache->partition, c->routes[i].cache->n_partition);
    c->identity_keys = keys.list;
    c->n_identity_keys = keys.n;
}

static void keep_warnings(struct config_parse *p, struct config *c)
{
    const char **list = config_take(p, p->n_warnings, sizeof *list);
    for (uint32_t i = 0; list && i < p->n_warnings; i++)
        list[i] = p->warnings[i];
    c->warnings = list;
    c->n_warnings = list ? p->n_warnings : 0;
}

/* ---- the whole ---- */

struct config *config_build(struct config_parse *p)
{
    struct config *c = config_take(p, 1, sizeof *c);
    if (!c)
        return NULL;
    cfg_t *cache = config_section(p->root, "cache"),
          *websocket = config_section(p->root, "websocket");
    config_build_process(p, c);
    config_build_listen(p, c);
    config_build_resolver(p, c);
    config_build_cache(p, cache, &c->cache);
    config_check_max_body(p, cache, &c->cache, c->cache.value.max_bytes);
    config_build_websocket(p, websocket, c);
    config_build_cors(p, config_section(p->root, "cors"), &c->cors);
    config_build_upstreams(p, c);
    config_build_limits(p, c);
    if (c->upstreams && c->limits)
        config_build_routes(p, c);
    if (c->limits && c->routes)
        build_identity_keys(p, c);
    config_build_alerts(p, c);
    build_cost(p, c);
    config_build_fleet(p, c);
    if (!p->errors)
        config_check(p, c);
    if (!p->errors) {
        keep_warnings(p, c);
    }
    return p->errors ? NULL : c;
}

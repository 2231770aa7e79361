/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_build_routes: routes, with the upstream and the limits that they name, in the order in
 * which they are tried.
 */
#include "libshared/config/config_build.h"
#include "polder/route.h"

#define XXH_INLINE_ALL
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define PATTERN_MAX_LEN 8000

/* What is wrong with a pattern, or NULL. */
static const char *pattern_fault(const char *pattern)
{
    const char *star = strchr(pattern, '*');
    if (*pattern != '/')
        return "expected a path that starts with \"/\"";
    if (star && star[1])
        return "\"*\" may only be the last character; expected a prefix and one \"*\"";
    if (strpbrk(pattern, "?#"))
        return "expected a path without query and fragment";
    for (const char *c = pattern; *c; c++)
        if (*c <= ' ' || *c > '~')
            return "expected only visible ASCII characters and escapes such as %20 or %C3%BC";
    return strlen(pattern) > PATTERN_MAX_LEN ? "expected a path of at most 8000 bytes" : NULL;
}

static void build_pattern(struct config_parse *p, struct config_route *r, const char *title)
{
    char normal[PATTERN_MAX_LEN];
    const char *fault = pattern_fault(title), *star = strchr(title, '*');
    const size_t len = star ? (size_t)(star - title) : strlen(title);
    char *prefix = config_arena_alloc(p->arena, len + 1);
    r->pattern = config_arena_strdup(p->arena, title);
    r->exact = !star;
    r->prefix = prefix ? memcpy(prefix, title, len) : "";
    r->prefix_len = prefix ? (uint32_t)len : 0;
    if (!r->pattern || !prefix)
        config_take(p, p->arena->size, 1); /* complains */
    if (fault) {
        config_complain(p, r->line, "route \"%.200s\": %s", title, fault);
        return;
    }
    const int n = route_path_normal(title, len, normal, sizeof normal);
    if (n < 0)
        config_complain(p, r->line,
                        "route \"%.200s\": a \"%%\" that is no escape; expected \"%%25\"", title);
    else if ((size_t)n != len || memcmp(normal, title, len))
        config_complain(p, r->line,
                        "route \"%.200s\": the path is not in normal form; expected \"%.*s%s\"",
                        title, n < 200 ? n : 200, normal, star ? "*" : "");
}

static void complain_reference(struct config_parse *p, int line, const struct config_route *r,
                               const char *what, const char *name, const char *near)
{
    config_complain(p, line, "route \"%.200s\": there is no %s \"%.100s\"; %s%s%s", r->pattern,
                    what, name, near ? "did you mean \"" : "define it, or name one that is defined",
                    near ? near : "", near ? "\"?" : "");
}

static void build_route_upstream(struct config_parse *p, cfg_t *s, const struct config *c,
                                 struct config_route *r)
{
    const char *name = config_stated(s, "upstream"), *near = NULL;
    unsigned fewest = CONFIG_NEAR_EDITS;
    for (uint32_t i = 0; name && i < c->n_upstreams; i++) {
        if (!strcmp(c->upstreams[i].name, name))
            r->upstream = &c->upstreams[i];
        config_nearer(name, c->upstreams[i].name, &near, &fewest);
    }
    if (name && !r->upstream)
        complain_reference(p, config_line_of(p, s, "upstream"), r, "upstream", name, near);
    else if (!name && !cfg_size(s, "websocket"))
        config_complain(p, r->line,
                        "route \"%.200s\" has no upstream; expected upstream = \"NAME\"",
                        r->pattern);
    else if (!name && (cfg_size(s, "cache") || cfg_size(s, "poll")))
        config_complain(p, r->line,
                        "route \"%.200s\" has a cache but no upstream to fill it; expected "
                        "upstream = \"NAME\"",
                        r->pattern);
}

static void build_route_limit(struct config_parse *p, int line, const char *name,
                              const struct config *c, struct config_route *r)
{
    const struct config_limit *found = NULL;
    const char *near = NULL;
    unsigned fewest = CONFIG_NEAR_EDITS;
    for (uint32_t i = 0; i < c->n_limits; i++) {
        if (!strcmp(c->limits[i].name, name))
            found = &c->limits[i];
        config_nearer(name, c->limits[i].name, &near, &fewest);
    }
    if (!found) {
        complain_reference(p, line, r, "limit", name, near);
        return;
    }
    for (uint32_t i = 0; i < r->n_limits; i++)
        if (r->limits[i] == found) {
            config_complain(p, line, "route \"%.200s\": limit \"%s\" is listed twice", r->pattern,
                            name);
            return;
        }
    r->limits[r->n_limits++] = found;
    r->has_fleet_limits |= found->scope == CONFIG_SCOPE_FLEET;
}

static void build_route_limits(struct config_parse *p, cfg_t *s, const struct config *c,
                               struct config_route *r)
{
    const uint32_t n = cfg_size(s, "limits");
    if (n > CONFIG_ROUTE_LIMITS_MAX)
        config_complain(p, config_line_of(p, s, "limits"),
                        "route \"%.200s\" has %u limits; expected at most %d", r->pattern, n,
                        CONFIG_ROUTE_LIMITS_MAX);
    for (uint32_t i = 0; i < n && i < CONFIG_ROUTE_LIMITS_MAX; i++)
        build_route_limit(p, config_line_of_nth(p, s, "limits", i), cfg_getnstr(s, "limits", i), c,
                          r);
}

/* "*", or scheme and host as browsers send them; the first label may be a star. */
static bool is_origin(const char *text)
{
    const char *host = strstr(text, "://");
    if (!strcmp(text, "*"))
        return true;
    if (!host || host == text || strlen(text) > 256 || !host[3] ||
        strcspn(text, "* \t\r\n\",;?#@") < (size_t)(host + 3 - text))
        return false;
    host += 3;
    if (host[0] == '*' && host[1] == '.')
        host += 2;
    return *host && strcspn(host, "* \t\r\n\",;?#@/") == strlen(host);
}

void config_build_cors(struct config_parse *p, cfg_t *s, struct config_cors *c)
{
    if (!s)
        return;
    config_read(p, s, CONFIG_SECTION_CORS, c);
    config_check_each(p, s, "origins", c->origins, c->n_origins, is_origin,
                      "\"https://app.example\", \"https://*.app.example\" or \"*\"");
    for (uint32_t i = 0; i < c->n_origins; i++) {
        for (char *at = (char *)(uintptr_t)c->origins[i]; at && *at; at++)
            *at = *at >= 'A' && *at <= 'Z' ? (char)(*at | 0x20) : *at;
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) */
        if (c->credentials && !strcmp(c->origins[i], "*"))
            config_complain(p, config_line_of_nth(p, s, "origins", i),
                            "origins: \"*\" beside credentials would let every site read what its "
                            "visitors may see; expected the names of origins");
    }
}

/* The route's own words are also those of its cache section, where that has none. */
static void build_route_compress(struct config_parse *p, cfg_t *s, struct config_route *r,
                                 struct config_cache *cache)
{
    cfg_t *cache_section = cache ? cfg_getnsec(s, "cache", 0) : NULL;
    r->compress_is_stated = cfg_size(s, "compress") > 0;
    r->n_compress = config_codings_of(p, s, r->compress);
    if (!cache)
        return;
    if (r->compress_is_stated && !cfg_size(cache_section, "compress")) {
        memcpy(cache->compress, r->compress, sizeof cache->compress);
        cache->n_compress = r->n_compress;
    }
    if (config_stated(s, "compress_min") && !config_stated(cache_section, "compress_min"))
        cache->compress_min = r->compress_min;
    memcpy(r->compress, cache->compress, sizeof r->compress);
    r->n_compress = cache->n_compress;
    r->compress_min = cache->compress_min;
}

static void build_route(struct config_parse *p, cfg_t *s, struct config *c, struct config_route *r)
{
    build_pattern(p, r, cfg_title(s));
    if (!r->pattern)
        return;
    build_route_upstream(p, s, c, r);
    build_route_limits(p, s, c, r);
    config_read(p, s, CONFIG_SECTION_ROUTE, r);
    r->verify_line = config_line_of(p, s, "verify");
    struct config_cache *cache = NULL;
    if (cfg_size(s, "cache"))
        cache = config_build_route_cache(p, cfg_getnsec(s, "cache", 0), &c->cache,
                                         cfg_size(s, "poll") > 0);
    r->cache = cache;
    build_route_compress(p, s, r, cache);
    for (uint32_t i = 0; i < r->n_limits; i++)
        config_check_query_keys(p, r, r->limits[i]->key, r->limits[i]->n_key);
    if (cfg_size(s, "websocket"))
        r->websocket =
            config_build_route_websocket(p, cfg_getnsec(s, "websocket", 0), &c->websocket);
    if (cfg_size(s, "cors")) {
        struct config_cors *cors = config_take(p, 1, sizeof *cors);
        if (cors)
            config_build_cors(p, cfg_getnsec(s, "cors", 0), cors);
        r->cors = cors;
    }
    if (cfg_size(s, "poll")) {
        struct config_poll *v = config_take(p, 1, sizeof *v);
        if (v)
            config_read(p, cfg_getnsec(s, "poll", 0), CONFIG_SECTION_POLL, v);
        r->poll = v;
        if (!r->cache)
            config_complain(
                p, r->line,
                "route \"%s\" has poll but no cache; expected a cache { } section beside it",
                r->pattern);
    }
}

static int more_specific(const void *a, const void *b)
{
    const struct config_route *x = a, *y = b;
    if (x->exact != y->exact)
        return x->exact ? -1 : 1;
    if (x->prefix_len != y->prefix_len)
        return x->prefix_len > y->prefix_len ? -1 : 1;
    return x->line - y->line;
}

/* What polderctl verify asks for goes into a request as it stands, and to that very route. */
static void check_verify(struct config_parse *p, const struct config *c,
                         const struct config_route *r)
{
    char normal[PATTERN_MAX_LEN];
    const size_t len = strcspn(r->verify, "?");
    const char *fault = NULL;
    for (const char *at = r->verify; *at; at++)
        if (*at <= ' ' || *at > '~' || *at == '#')
            fault = "visible ASCII characters, escapes such as %20 and no fragment";
    if (!*r->verify)
        return;
    const int n = len < sizeof normal && !fault
                      ? route_path_normal(r->verify, len, normal, sizeof normal)
                      : -1;
    if (!fault && (n < 0 || route_find(c, normal, (size_t)n) != r))
        fault = "a path that goes to this route";
    if (fault)
        config_complain(p, r->verify_line, "route \"%.200s\": verify = \"%.200s\"; expected %s",
                        r->pattern, r->verify, fault);
}

void config_build_routes(struct config_parse *p, struct config *c)
{
    c->n_routes = cfg_size(p->root, "route");
    c->routes = config_take(p, c->n_routes, sizeof *c->routes);
    for (uint32_t i = 0; c->routes && i < c->n_routes; i++) {
        c->routes[i].line = config_section_line(p, "route", 0, i);
        build_route(p, cfg_getnsec(p->root, "route", i), c, &c->routes[i]);
    }
    if (!c->routes)
        return;
    qsort(c->routes, c->n_routes, sizeof *c->routes, more_specific);
    for (uint32_t i = 0; i < c->n_routes; i++) {
        const char *pattern = c->routes[i].pattern ? c->routes[i].pattern : "";
        const uint64_t id = XXH3_64bits(pattern, strlen(pattern));
        c->routes[i].index = i;
        c->routes[i].id = id ? id : 1;
    }
    const struct config_route *twins[2];
    c->route_index = route_index_build(p->arena, c, twins);
    if (!c->route_index)
        config_take(p, p->arena->size, 1); /* complains */
    if (twins[0])
        config_complain(p, twins[1]->line,
                        "route \"%.200s\" is for the same requests as the one of line %d; remove "
                        "one of them",
                        twins[1]->pattern, twins[0]->line);
    for (uint32_t i = 0; c->route_index && i < c->n_routes; i++)
        if (c->routes[i].verify)
            check_verify(p, c, &c->routes[i]);
}

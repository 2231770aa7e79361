/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * config_build: makes the tree in the arena from what libconfuse has, and checks what one value has
 * to do with another. Each value has been checked by itself already.
 */
#include "libshared/config_parse.h"
#include "polder/exempt.h"
#include "polder/route.h"

#define XXH_INLINE_ALL
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <xxhash.h>

#define WARM_URL_MAX 4096

#define NAME_MAX_LEN    64
#define PATTERN_MAX_LEN 8000

/* ---- values ---- */

/* As written, or NULL. */
static const char *stated(cfg_t *section, const char *key)
{
    return section && cfg_size(section, key) ? cfg_getnstr(section, key, 0) : NULL;
}

static const char *text_of(struct config_parse *p, cfg_t *section, const char *rows,
                           const char *key)
{
    const char *text = stated(section, key);
    if (!text)
        text = config_row_find(rows, key)->initial;
    char *copy = config_arena_strdup(p->arena, text ? text : "");
    return copy ? copy : "";
}

static uint64_t number_of(cfg_t *section, const char *rows, const char *key)
{
    const struct config_row *row = config_row_find(rows, key);
    const char *text = stated(section, key);
    uint64_t n = 0;
    if (text && !config_value(row, text, &n, NULL))
        return n;
    if (row->initial)
        config_value(row, row->initial, &n, NULL);
    return n;
}

static double real_of(cfg_t *section, const char *rows, const char *key)
{
    const struct config_row *row = config_row_find(rows, key);
    const char *text = stated(section, key);
    double d = 0;
    if ((text || row->initial) && config_value(row, text ? text : row->initial, NULL, &d))
        d = 0;
    return d;
}

static void *take(struct config_parse *p, size_t n, size_t size)
{
    void *memory = config_arena_alloc(p->arena, (n ? n : 1) * size);
    if (!memory) {
        config_complain(p, 0,
                        "does not fit into %zu MiB; fewer routes, limits or names would be right",
                        p->arena->size >> 20);
        return NULL;
    }
    return memory;
}

static const char *const *strings_of(struct config_parse *p, cfg_t *section, const char *key,
                                     uint32_t *n)
{
    *n = section ? cfg_size(section, key) : 0;
    const char **list = take(p, *n, sizeof *list);
    for (uint32_t i = 0; list && i < *n; i++)
        list[i] = config_arena_strdup(p->arena, cfg_getnstr(section, key, i));
    if (!list)
        *n = 0;
    return list;
}

/* Names of header fields: their case does not matter. */
static void lower_all(const char *const *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (char *at = (char *)(uintptr_t)list[i]; at && *at; at++)
            *at = *at >= 'A' && *at <= 'Z' ? (char)(*at | 0x20) : *at;
}

static const struct clientip_net *nets_of(struct config_parse *p, cfg_t *section, const char *key,
                                          uint32_t *n)
{
    *n = section ? cfg_size(section, key) : 0;
    struct clientip_net *list = take(p, *n, sizeof *list);
    for (uint32_t i = 0; list && i < *n; i++)
        clientip_net_parse(cfg_getnstr(section, key, i), &list[i]);
    if (!list)
        *n = 0;
    return list;
}

static uint32_t keys_of(struct config_parse *p, cfg_t *section, const char *rows, const char *key,
                        struct config_key *parts)
{
    const char *why, *text = stated(section, key);
    if (!text)
        text = config_row_find(rows, key)->initial;
    if (!text || !*text)
        return 0;
    const int n = config_parse_key(p->arena, text, parts, CONFIG_KEY_PARTS_MAX, &why);
    return n < 0 ? 0 : (uint32_t)n;
}

/* The section of that name, or NULL. */
static cfg_t *only(cfg_t *parent, const char *name)
{
    return cfg_size(parent, name) ? cfg_getnsec(parent, name, 0) : NULL;
}

/* A name of an upstream, limit or alert: it is typed on command lines and shown in metrics. */
static void check_name(struct config_parse *p, const char *what, const char *name, int line)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    const size_t len = strlen(name);
    if (len == 0 || len > NAME_MAX_LEN || strspn(name, good) != len)
        config_complain(p, line,
                        "%s \"%.100s\": a name of at most %d letters, digits and _ . - would be "
                        "right",
                        what, name, NAME_MAX_LEN);
}

/* Each value of a list, with its own line. */
static void check_each(struct config_parse *p, const cfg_t *section, const char *key,
                       const char *const *values, uint32_t n, bool (*good)(const char *),
                       const char *right)
{
    for (uint32_t i = 0; i < n; i++)
        if (!good(values[i]))
            config_complain(p, config_line_of_nth(p, section, key, i),
                            "%s: \"%.100s\" is wrong; %s would be right", key, values[i], right);
}

/* "utm_*", "fbclid" */
static bool is_query_name(const char *text)
{
    const char *star = strchr(text, '*');
    return *text && strcspn(text, "&=#? ") == strlen(text) && (!star || !star[1]);
}

/* "x-shop-id", "x-shop-*" */
static bool is_field_pattern(const char *text)
{
    const char *star = strchr(text, '*');
    return *text && *text != '*' && strlen(text) < 128 &&
           strcspn(text, " \t\r\n:;,=\"()<>@/[]?{}") == strlen(text) && (!star || !star[1]);
}

/* As browsers send it: "https://app.example.org:8443", no path. */
static bool is_origin(const char *text)
{
    const char *host = strstr(text, "://");
    return !strcmp(text, "null") ||
           (host && host > text && host[3] && strcspn(host + 3, "/?#* ") == strlen(host + 3));
}

static bool is_request_path(const char *text)
{
    return *text == '/' && strcspn(text, "# ") == strlen(text);
}

/* "/path?query", or with the host that clients ask for before it. */
static bool is_warm_url(const char *text)
{
    const char *path = strchr(text, '/');
    if (!path || !is_request_path(path) || strlen(text) > WARM_URL_MAX)
        return false;
    for (const char *at = text; at < path; at++)
        if (!((*at >= '0' && *at <= '9') || ((*at | 0x20) >= 'a' && (*at | 0x20) <= 'z') ||
              strchr(".-_:[]", *at)))
            return false;
    return path[1] != '/';
}

/* ---- sections ---- */

static void build_listen(struct config_parse *p, struct config *c)
{
    const uint32_t n = cfg_size(p->root, "listen");
    const char *why, *initial = config_row_find("", "listen")->initial;
    if (n > CONFIG_LISTEN_MAX) {
        config_complain(p, config_line_of(p, p->root, "listen"),
                        "listen: %u addresses; at most %d would be right", n, CONFIG_LISTEN_MAX);
        return;
    }
    c->n_listen = n ? n : 1;
    c->listen = take(p, c->n_listen, sizeof *c->listen);
    for (uint32_t i = 0; c->listen && i < c->n_listen; i++) {
        const char *text = n ? cfg_getnstr(p->root, "listen", i) : initial;
        const int line = config_line_of_nth(p, p->root, "listen", i);
        for (uint32_t k = 0; k < i; k++)
            if (!strcmp(c->listen[k].text, text))
                config_complain(p, line, "listen: \"%s\" stands there twice", text);
        if (config_address_parse(p->arena, text, true, &c->listen[i], &why))
            config_complain(p, line, "listen: \"%.100s\" is wrong; %s would be right", text, why);
    }
}

static uint32_t cores(void)
{
    cpu_set_t set;
    const int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n > CONFIG_WORKERS_MAX ? CONFIG_WORKERS_MAX : (uint32_t)n;
}

/* Workers that cannot open it would die, again and again. */
static void check_log_path(struct config_parse *p, const char *path)
{
    struct stat st;
    const char *slash = strrchr(path, '/');
    char directory[PATH_MAX];
    if (!*path)
        return;
    snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    if (stat(directory, &st) || !S_ISDIR(st.st_mode))
        config_complain(p, config_line_of(p, p->root, "access_log"),
                        "access_log: there is no directory %s; a file in one that exists would be "
                        "right",
                        directory);
    else if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        config_complain(p, config_line_of(p, p->root, "access_log"),
                        "access_log: %s is a directory; a file would be right", path);
}

static void build_process(struct config_parse *p, struct config *c)
{
    cfg_t *r = p->root, *ops = only(r, "ops"), *admin = only(r, "admin"),
          *telemetry = only(r, "telemetry");
    const char *log = text_of(p, r, "", "access_log"), *colon = strchr(log, ':'), *why;
    c->path = config_arena_strdup(p->arena, p->path);
    c->workers = (uint32_t)number_of(r, "", "workers");
    c->workers = c->workers ? c->workers : cores();
    c->user = text_of(p, r, "", "user");
    c->state_dir = text_of(p, r, "", "state_dir");
    c->runtime_dir = text_of(p, r, "", "runtime_dir");
    if (strlen(c->runtime_dir) > 80)
        config_complain(
            p, config_line_of(p, r, "runtime_dir"),
            "runtime_dir: is too long for UNIX sockets; at most 80 bytes would be right");
    c->trusted_proxies = nets_of(p, r, "trusted_proxies", &c->n_trusted_proxies);
    c->proxy_protocol = number_of(r, "", "proxy_protocol");
    c->access_log = (enum config_access_log)number_of(r, "", "access_log");
    c->access_log_path = colon ? colon + 1 : "";
    check_log_path(p, c->access_log_path);
    c->max_connections = (uint32_t)number_of(r, "", "max_connections");
    c->max_connections_per_client = (uint32_t)number_of(r, "", "max_connections_per_client");
    c->client_timeout_ms = (uint32_t)number_of(r, "", "client_timeout");
    c->keepalive_timeout_ms = (uint32_t)number_of(r, "", "keepalive_timeout");
    c->limit_entries = (uint32_t)number_of(r, "", "limit_entries");
    const char *ops_listen = stated(ops, "listen");
    if (ops_listen && config_address_parse(p->arena, ops_listen, true, &c->ops_listen, &why))
        config_complain(p, config_line_of(p, ops, "listen"),
                        "ops.listen: \"%s\" is wrong; %s would be right", ops_listen, why);
    c->admin_mode = (uint32_t)number_of(admin, "admin", "mode");
    c->admin_group = text_of(p, admin, "admin", "group");
    c->telemetry_path = telemetry ? text_of(p, telemetry, "telemetry", "path") : "";
    c->telemetry_allow = nets_of(p, telemetry, "allow", &c->n_telemetry_allow);
}

/* Nothing stated: all there are, the one that makes them smallest first. */
static void build_compress(struct config_parse *p, cfg_t *s, struct config_cache *c)
{
    static const uint8_t all[] = {CODING_BR, CODING_ZSTD, CODING_GZIP};
    uint32_t n;
    const char *const *names = strings_of(p, s, "compress", &n);
    c->compress_min = number_of(s, "cache", "compress_min");
    c->n_compress = 0;
    if (!cfg_size(s, "compress")) {
        c->n_compress = sizeof all;
        memcpy(c->compress, all, sizeof all);
    }
    for (uint32_t i = 0; i < n; i++) {
        const enum coding coding = coding_of((struct field_text){names[i], strlen(names[i])});
        if (n == 1 && !strcmp(names[i], "off"))
            return;
        if (coding == CODING_IDENTITY || coding == CODINGS ||
            memchr(c->compress, (int)coding, c->n_compress))
            config_complain(p, config_line_of(p, s, "compress"),
                            "compress: \"%s\" is wrong; br, zstd and gzip, each once, or \"off\" "
                            "alone would be right",
                            names[i]);
        else
            c->compress[c->n_compress++] = (uint8_t)coding;
    }
}

static void build_cache(struct config_parse *p, cfg_t *s, struct config_cache *c)
{
    static const struct {
        const char *key;
        enum runtime_cache_key bit;
    } keys[] = {{"ttl", RUNTIME_CACHE_TTL},
                {"max_body", RUNTIME_CACHE_MAX_BODY},
                {"stale_while_revalidate", RUNTIME_CACHE_SWR},
                {"stale_if_error", RUNTIME_CACHE_SIE},
                {"max_items", RUNTIME_CACHE_MAX_ITEMS},
                {"max_bytes", RUNTIME_CACHE_MAX_BYTES}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (stated(s, keys[i].key))
            c->set |= 1u << keys[i].bit;
    c->value.ttl_ms = number_of(s, "cache", "ttl");
    c->value.ttl_heuristic = c->value.ttl_ms == UINT64_MAX;
    if (c->value.ttl_heuristic)
        c->value.ttl_ms = 0;
    c->value.max_body = number_of(s, "cache", "max_body");
    c->value.stale_while_revalidate_ms = number_of(s, "cache", "stale_while_revalidate");
    c->value.stale_if_error_ms = number_of(s, "cache", "stale_if_error");
    c->value.max_items = number_of(s, "cache", "max_items");
    c->value.max_bytes = number_of(s, "cache", "max_bytes");
    c->store_set_cookie = number_of(s, "cache", "store_set_cookie");
    c->ignore_query = strings_of(p, s, "ignore_query", &c->n_ignore_query);
    check_each(p, s, "ignore_query", c->ignore_query, c->n_ignore_query, is_query_name,
               "the name of a parameter, which may end in *,");
    c->only_query = strings_of(p, s, "only_query", &c->n_only_query);
    check_each(p, s, "only_query", c->only_query, c->n_only_query, is_query_name,
               "the name of a parameter, which may end in *,");
    c->sort_query = number_of(s, "cache", "sort_query");
    c->n_partition = keys_of(p, s, "cache", "partition", c->partition);
    build_compress(p, s, c);
    c->leak_guard = real_of(s, "cache", "leak_guard");
    c->guard_fields = strings_of(p, s, "leak_guard_headers", &c->n_guard_fields);
    check_each(p, s, "leak_guard_headers", c->guard_fields, c->n_guard_fields, is_field_pattern,
               "the name of a header, which may end in *,");
    lower_all(c->guard_fields, c->n_guard_fields);
}

/* A route's cache section: what it does not state comes from the top-level one. */
static const struct config_cache *build_route_cache(struct config_parse *p, cfg_t *s,
                                                    const struct config_cache *top)
{
    static const char *const top_only[] = {"max_items", "max_bytes", "warm"};
    struct config_cache *c = take(p, 1, sizeof *c);
    if (!c)
        return NULL;
    build_cache(p, s, c);
    for (size_t i = 0; i < sizeof top_only / sizeof *top_only; i++)
        if (cfg_size(s, top_only[i]))
            config_complain(p, config_line_of(p, s, top_only[i]),
                            "%s belongs to the top-level cache section, not to a route's",
                            top_only[i]);
    if (!(c->set & 1u << RUNTIME_CACHE_TTL)) {
        c->value.ttl_ms = top->value.ttl_ms;
        c->value.ttl_heuristic = top->value.ttl_heuristic;
    }
    if (!(c->set & 1u << RUNTIME_CACHE_MAX_BODY))
        c->value.max_body = top->value.max_body;
    if (!(c->set & 1u << RUNTIME_CACHE_SWR))
        c->value.stale_while_revalidate_ms = top->value.stale_while_revalidate_ms;
    if (!(c->set & 1u << RUNTIME_CACHE_SIE))
        c->value.stale_if_error_ms = top->value.stale_if_error_ms;
    if (!stated(s, "store_set_cookie"))
        c->store_set_cookie = top->store_set_cookie;
    if (!cfg_size(s, "ignore_query")) {
        c->ignore_query = top->ignore_query;
        c->n_ignore_query = top->n_ignore_query;
    }
    if (!cfg_size(s, "only_query")) {
        c->only_query = top->only_query;
        c->n_only_query = top->n_only_query;
    }
    if (!stated(s, "sort_query"))
        c->sort_query = top->sort_query;
    if (!cfg_size(s, "compress")) {
        memcpy(c->compress, top->compress, sizeof c->compress);
        c->n_compress = top->n_compress;
    }
    if (!stated(s, "compress_min"))
        c->compress_min = top->compress_min;
    if (!stated(s, "partition")) {
        memcpy(c->partition, top->partition, sizeof c->partition);
        c->n_partition = top->n_partition;
    }
    if (!stated(s, "leak_guard"))
        c->leak_guard = top->leak_guard;
    if (!cfg_size(s, "leak_guard_headers")) {
        c->guard_fields = top->guard_fields;
        c->n_guard_fields = top->n_guard_fields;
    }
    return c;
}

static void build_websocket(struct config_parse *p, cfg_t *s, struct config_websocket *w,
                            const struct config_websocket *top)
{
    struct config_websocket own = {
        .heartbeat = (enum config_heartbeat)number_of(s, "websocket", "heartbeat"),
        .interval_ms = (uint32_t)number_of(s, "websocket", "interval"),
        .timeout_ms = (uint32_t)number_of(s, "websocket", "timeout"),
        .max_connections = (uint32_t)number_of(s, "websocket", "max_connections"),
        .max_per_client = (uint32_t)number_of(s, "websocket", "max_per_client"),
        .max_message = number_of(s, "websocket", "max_message"),
        .connect_rate = real_of(s, "websocket", "connect_rate"),
    };
    own.origins = strings_of(p, s, "origins", &own.n_origins);
    check_each(p, s, "origins", own.origins, own.n_origins, is_origin,
               "an origin such as \"https://app.example.org\"");
    *w = top ? *top : own;
    if (stated(s, "heartbeat"))
        w->heartbeat = own.heartbeat;
    if (stated(s, "interval"))
        w->interval_ms = own.interval_ms;
    if (stated(s, "timeout"))
        w->timeout_ms = own.timeout_ms;
    if (stated(s, "max_connections"))
        w->max_connections = own.max_connections;
    if (stated(s, "max_per_client"))
        w->max_per_client = own.max_per_client;
    if (stated(s, "max_message"))
        w->max_message = own.max_message;
    if (stated(s, "connect_rate"))
        w->connect_rate = own.connect_rate;
    if (own.n_origins) {
        w->origins = own.origins;
        w->n_origins = own.n_origins;
    }
}

static void build_servers(struct config_parse *p, cfg_t *s, struct config *c,
                          struct config_upstream *u, uint32_t parent)
{
    u->n_servers = cfg_size(s, "server");
    u->servers = take(p, u->n_servers, sizeof *u->servers);
    if (u->n_servers == 0)
        config_complain(
            p, u->line,
            "upstream \"%s\" has no server; at least one server \"HOST:PORT\" { } would be right",
            u->name);
    for (uint32_t i = 0; u->servers && i < u->n_servers; i++) {
        cfg_t *one = cfg_getnsec(s, "server", i);
        struct config_server *v = &u->servers[i];
        const char *why, *text = cfg_title(one);
        v->line = config_section_line(p, "server", parent, i);
        v->weight = (uint32_t)number_of(one, "upstream.server", "weight");
        v->upstream = u;
        v->index = c->n_servers++;
        if (config_address_parse(p->arena, text, true, &v->address, &why))
            config_complain(p, v->line, "server: \"%s\" is wrong; %s would be right", text, why);
    }
}

/* Ordinal + 1 of the nth section of a kind among all at the top. */
static uint32_t top_ordinal(const struct config_parse *p, const char *name, uint32_t nth)
{
    uint32_t ordinal = 0;
    for (size_t i = 0; i < p->n_sections; i++) {
        if (p->sections[i].parent)
            continue;
        ordinal++;
        if (!strcmp(p->sections[i].row->section, name) && nth-- == 0)
            break;
    }
    return ordinal;
}

static void build_upstreams(struct config_parse *p, struct config *c)
{
    c->n_upstreams = cfg_size(p->root, "upstream");
    c->upstreams = take(p, c->n_upstreams, sizeof *c->upstreams);
    for (uint32_t i = 0; c->upstreams && i < c->n_upstreams; i++) {
        cfg_t *s = cfg_getnsec(p->root, "upstream", i);
        struct config_upstream *u = &c->upstreams[i];
        u->index = i;
        u->line = config_section_line(p, "upstream", 0, i);
        u->name = config_arena_strdup(p->arena, cfg_title(s));
        check_name(p, "upstream", cfg_title(s), u->line);
        u->connect_timeout_ms = (uint32_t)number_of(s, "upstream", "connect_timeout");
        u->park_ms = (uint32_t)number_of(s, "upstream", "park");
        u->park_requests = (uint32_t)number_of(s, "upstream", "park_requests");
        u->park_bytes = (uint64_t)number_of(s, "upstream", "park_bytes");
        u->refresh_share = (uint32_t)number_of(s, "upstream", "refresh_share");
        u->timeout_ms = (uint32_t)number_of(s, "upstream", "timeout");
        u->health = text_of(p, s, "upstream", "health");
        u->health_interval_ms = (uint32_t)number_of(s, "upstream", "health_interval");
        build_servers(p, s, c, u, top_ordinal(p, "upstream", i));
    }
    if (c->n_servers > RUNTIME_SERVERS_MAX)
        config_complain(p, c->upstreams[c->n_upstreams - 1].line,
                        "%u servers in all upstreams; at most %d would be right", c->n_servers,
                        RUNTIME_SERVERS_MAX);
}

static void build_exempt(struct config_parse *p, cfg_t *s, struct config_limit *l)
{
    uint32_t n;
    const char *const *all = strings_of(p, s, "exempt", &n);
    struct clientip_net *nets = take(p, n, sizeof *nets);
    const char **values = take(p, n, sizeof *values);
    for (uint32_t i = 0; nets && values && i < n; i++)
        if (clientip_net_parse(all[i], &nets[l->n_exempt_nets]) == 0)
            l->n_exempt_nets++;
        else if (exempt_is_meant_as_network(all[i]))
            config_complain(
                p, config_line_of_nth(p, s, "exempt", i),
                "exempt: \"%s\" is wrong; a network such as \"10.0.0.0/8\" would be right", all[i]);
        else
            values[l->n_exempt_values++] = all[i];
    l->exempt_nets = nets;
    l->exempt_values = values;
}

static void build_limit(struct config_parse *p, cfg_t *s, struct config_limit *l)
{
    const char *why;
    l->name = config_arena_strdup(p->arena, cfg_title(s));
    if (!l->name)
        return;
    l->id = XXH3_64bits(l->name, strlen(l->name));
    l->value.requests = (uint32_t)number_of(s, "limit", "requests");
    l->value.window_ms = number_of(s, "limit", "window");
    l->value.algorithm = (uint32_t)number_of(s, "limit", "algorithm");
    l->value.dry_run = (uint32_t)number_of(s, "limit", "dry_run");
    l->value.concurrent = (uint32_t)number_of(s, "limit", "concurrent");
    l->missing = (enum config_missing)number_of(s, "limit", "missing");
    l->legacy_headers = number_of(s, "limit", "legacy_headers");
    l->n_key = keys_of(p, s, "limit", "key", l->key);
    build_exempt(p, s, l);
    if (!stated(s, "requests"))
        config_complain(p, l->line,
                        "limit \"%s\" does not say how many; requests = 20 would be right",
                        l->name);
    else if (runtime_limit_check(&l->value, &why))
        config_complain(p, config_line_of(p, s, "requests"), "limit \"%s\": %s", l->name, why);
    check_name(p, "limit", l->name, l->line);
}

static void build_limits(struct config_parse *p, struct config *c)
{
    c->n_limits = cfg_size(p->root, "limit");
    c->limits = take(p, c->n_limits, sizeof *c->limits);
    for (uint32_t i = 0; c->limits && i < c->n_limits; i++) {
        c->limits[i].index = i;
        c->limits[i].line = config_section_line(p, "limit", 0, i);
        build_limit(p, cfg_getnsec(p->root, "limit", i), &c->limits[i]);
    }
}

/* ---- routes ---- */

/* What is wrong with a pattern, or NULL. */
static const char *pattern_fault(const char *pattern)
{
    const char *star = strchr(pattern, '*');
    if (*pattern != '/')
        return "a path that starts with \"/\" would be right";
    if (star && star[1])
        return "\"*\" may only be the last character; a prefix and one \"*\" would be right";
    if (strpbrk(pattern, "?#"))
        return "a path without query and fragment would be right";
    for (const char *c = pattern; *c; c++)
        if (*c <= ' ' || *c > '~')
            return "only visible ASCII characters and escapes such as %20 or %C3%BC would be right";
    return strlen(pattern) > PATTERN_MAX_LEN ? "a path of at most 8000 bytes would be right" : NULL;
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
        take(p, p->arena->size, 1); /* complains */
    if (fault) {
        config_complain(p, r->line, "route \"%.200s\": %s", title, fault);
        return;
    }
    const int n = route_path_normal(title, len, normal, sizeof normal);
    if (n < 0)
        config_complain(p, r->line,
                        "route \"%.200s\": a \"%%\" that is no escape; \"%%25\" would be right",
                        title);
    else if ((size_t)n != len || memcmp(normal, title, len))
        config_complain(
            p, r->line,
            "route \"%.200s\": no request is spelled like that; \"%.*s%s\" would be right", title,
            n < 200 ? n : 200, normal, star ? "*" : "");
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
    const char *name = stated(s, "upstream"), *near = NULL;
    unsigned least = CONFIG_NEAR_EDITS;
    for (uint32_t i = 0; name && i < c->n_upstreams; i++) {
        if (!strcmp(c->upstreams[i].name, name))
            r->upstream = &c->upstreams[i];
        config_nearer(name, c->upstreams[i].name, &near, &least);
    }
    if (name && !r->upstream)
        complain_reference(p, config_line_of(p, s, "upstream"), r, "upstream", name, near);
    else if (!name && !cfg_size(s, "websocket"))
        config_complain(p, r->line,
                        "route \"%.200s\" has nobody to answer; upstream = \"NAME\" would be right",
                        r->pattern);
    else if (!name && (cfg_size(s, "cache") || cfg_size(s, "poll")))
        config_complain(p, r->line,
                        "route \"%.200s\" has a cache but no upstream to fill it; upstream = "
                        "\"NAME\" would be right",
                        r->pattern);
}

static void build_route_limit(struct config_parse *p, int line, const char *name,
                              const struct config *c, struct config_route *r)
{
    const struct config_limit *found = NULL;
    const char *near = NULL;
    unsigned least = CONFIG_NEAR_EDITS;
    for (uint32_t i = 0; i < c->n_limits; i++) {
        if (!strcmp(c->limits[i].name, name))
            found = &c->limits[i];
        config_nearer(name, c->limits[i].name, &near, &least);
    }
    if (!found) {
        complain_reference(p, line, r, "limit", name, near);
        return;
    }
    for (uint32_t i = 0; i < r->n_limits; i++)
        if (r->limits[i] == found) {
            config_complain(p, line, "route \"%.200s\": limit \"%s\" stands there twice",
                            r->pattern, name);
            return;
        }
    r->limits[r->n_limits++] = found;
}

static void build_route_limits(struct config_parse *p, cfg_t *s, const struct config *c,
                               struct config_route *r)
{
    const uint32_t n = cfg_size(s, "limits");
    if (n > CONFIG_ROUTE_LIMITS_MAX)
        config_complain(p, config_line_of(p, s, "limits"),
                        "route \"%.200s\" has %u limits; at most %d would be right", r->pattern, n,
                        CONFIG_ROUTE_LIMITS_MAX);
    for (uint32_t i = 0; i < n && i < CONFIG_ROUTE_LIMITS_MAX; i++)
        build_route_limit(p, config_line_of_nth(p, s, "limits", i), cfg_getnstr(s, "limits", i), c,
                          r);
}

static void build_route(struct config_parse *p, cfg_t *s, struct config *c, struct config_route *r)
{
    build_pattern(p, r, cfg_title(s));
    if (!r->pattern)
        return;
    build_route_upstream(p, s, c, r);
    build_route_limits(p, s, c, r);
    r->cost = (uint32_t)number_of(s, "route", "cost");
    if (cfg_size(s, "cache"))
        r->cache = build_route_cache(p, cfg_getnsec(s, "cache", 0), &c->cache);
    if (cfg_size(s, "websocket")) {
        struct config_websocket *w = take(p, 1, sizeof *w);
        if (w)
            build_websocket(p, cfg_getnsec(s, "websocket", 0), w, &c->websocket);
        r->websocket = w;
    }
    if (cfg_size(s, "poll")) {
        cfg_t *poll = cfg_getnsec(s, "poll", 0);
        struct config_poll *v = take(p, 1, sizeof *v);
        if (v) {
            v->min_interval_ms = (uint32_t)number_of(poll, "poll", "min_interval");
            v->max_wait_ms = (uint32_t)number_of(poll, "poll", "max_wait");
        }
        r->poll = v;
        if (!r->cache)
            config_complain(
                p, r->line,
                "route \"%s\" has poll but no cache; a cache { } section beside it would be right",
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

static void build_routes(struct config_parse *p, struct config *c)
{
    c->n_routes = cfg_size(p->root, "route");
    c->routes = take(p, c->n_routes, sizeof *c->routes);
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
        take(p, p->arena->size, 1); /* complains */
    if (twins[0])
        config_complain(p, twins[1]->line,
                        "route \"%.200s\" is for the same requests as the one of line %d; one of "
                        "them would be right",
                        twins[1]->pattern, twins[0]->line);
}

/* ---- the rest ---- */

static void build_alerts(struct config_parse *p, struct config *c)
{
    c->n_alerts = cfg_size(p->root, "alert");
    c->alerts = take(p, c->n_alerts, sizeof *c->alerts);
    for (uint32_t i = 0; c->alerts && i < c->n_alerts; i++) {
        cfg_t *s = cfg_getnsec(p->root, "alert", i);
        struct config_alert *a = &c->alerts[i];
        a->name = config_arena_strdup(p->arena, cfg_title(s));
        a->line = config_section_line(p, "alert", 0, i);
        a->below = stated(s, "below");
        a->threshold = real_of(s, "alert", a->below ? "below" : "above");
        a->unit = text_of(p, s, "alert", "unit");
        a->severity = text_of(p, s, "alert", "severity");
        a->for_ms = (uint32_t)number_of(s, "alert", "for");
        check_name(p, "alert", cfg_title(s), a->line);
        if (!stated(s, "above") == !stated(s, "below"))
            config_complain(p, a->line, "alert \"%s\": either above or below would be right",
                            cfg_title(s));
    }
}

static void build_cost(struct config_parse *p, struct config *c)
{
    cfg_t *s = only(p->root, "cost");
    c->cost.currency = text_of(p, s, "cost", "currency");
    c->cost.upstream_call = real_of(s, "cost", "upstream_call");
    c->cost.websocket_hour = real_of(s, "cost", "websocket_hour");
}

/* ---- what this build does not do yet ---- */

struct inactive {
    struct config_parse *p;
    const struct config *config;
    const char **list;
    uint32_t n, room;
};

static void note_inactive(struct inactive *in, const char *feature, const char *where)
{
    char text[256];
    snprintf(text, sizeof text, "%s%s%s", feature, *where ? ": " : "", where);
    const char *copy = config_arena_strdup(in->p->arena, text);
    if (copy && in->n < in->room)
        in->list[in->n++] = copy;
}

static void note_health(struct inactive *in, const char *feature)
{
    for (uint32_t i = 0; i < in->config->n_upstreams; i++)
        if (*in->config->upstreams[i].health)
            note_inactive(in, feature, in->config->upstreams[i].name);
}

static void note_alerts(struct inactive *in, const char *feature)
{
    for (uint32_t i = 0; i < in->config->n_alerts; i++)
        note_inactive(in, feature, in->config->alerts[i].name);
}

static void note_cost(struct inactive *in, const char *feature)
{
    if (cfg_size(in->p->root, "cost"))
        note_inactive(in, feature, "");
}

/* A feature becomes active by the removal of its row, and of its function with it. */
static const struct {
    const char *feature;
    void (*note)(struct inactive *in, const char *feature);
} inactive_features[] = {
    {"upstream health", note_health},
    {"alert", note_alerts},
    {"cost", note_cost},
};

static void build_inactive(struct config_parse *p, struct config *c)
{
    struct inactive in = {
        .p = p, .config = c, .room = c->n_routes + c->n_limits + c->n_upstreams + c->n_alerts + 4};
    in.list = take(p, in.room, sizeof *in.list);
    for (size_t i = 0; in.list && i < sizeof inactive_features / sizeof *inactive_features; i++)
        inactive_features[i].note(&in, inactive_features[i].feature);
    c->inactive = in.list;
    c->n_inactive = in.n;
}

struct config *config_build(struct config_parse *p)
{
    struct config *c = take(p, 1, sizeof *c);
    if (!c)
        return NULL;
    cfg_t *cache = only(p->root, "cache"), *websocket = only(p->root, "websocket");
    build_process(p, c);
    build_listen(p, c);
    build_cache(p, cache, &c->cache);
    c->warm = strings_of(p, cache, "warm", &c->n_warm);
    check_each(p, cache, "warm", c->warm, c->n_warm, is_warm_url,
               "a path such as \"/api/items/1\", or \"api.example.org/api/items/1\"");
    build_websocket(p, websocket, &c->websocket, NULL);
    build_upstreams(p, c);
    build_limits(p, c);
    if (c->upstreams && c->limits)
        build_routes(p, c);
    build_alerts(p, c);
    build_cost(p, c);
    if (!p->errors)
        build_inactive(p, c);
    return p->errors ? NULL : c;
}

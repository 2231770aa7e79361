/* SPDX-License-Identifier: BSD-2-Clause */
/* config_build_cache: the cache section, and a route's, which states what is different there. */
#include "libshared/config/config_build.h"
#include "polder/field.h"

#include <string.h>
#include <strings.h>

#define WARM_URL_MAX 4096

/* "utm_*", "fbclid" */
static bool is_query_name(const char *text)
{
    const char *star = strchr(text, '*');
    return *text && strcspn(text, "&=#? ") == strlen(text) && (!star || !star[1]);
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

/* Names of header fields: their case does not matter. */
static void lower_all(const char *const *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (char *at = (char *)(uintptr_t)list[i]; at && *at; at++)
            *at = *at >= 'A' && *at <= 'Z' ? (char)(*at | 0x20) : *at;
}

uint32_t config_codings_of(struct config_parse *p, cfg_t *s, uint8_t codings[CODINGS])
{
    uint32_t n, count = 0;
    const char *const *names = config_strings_of(p, s, "compress", &n);
    for (uint32_t i = 0; i < n; i++) {
        const enum coding coding = coding_of((struct str){names[i], strlen(names[i])});
        if (n == 1 && !strcmp(names[i], "off"))
            return 0;
        if (coding == CODING_IDENTITY || coding == CODINGS || memchr(codings, (int)coding, count))
            config_complain(p, config_line_of(p, s, "compress"),
                            "compress: \"%s\" is wrong; expected br, zstd and gzip, each once, "
                            "or \"off\" alone",
                            names[i]);
        else
            codings[count++] = (uint8_t)coding;
    }
    return count;
}

/* Nothing stated: all there are, the one that makes them smallest first. */
static void build_compress(struct config_parse *p, cfg_t *s, struct config_cache *c)
{
    static const uint8_t all[] = {CODING_BR, CODING_ZSTD, CODING_GZIP};
    c->n_compress = config_codings_of(p, s, c->compress);
    if (!cfg_size(s, "compress")) {
        c->n_compress = sizeof all;
        memcpy(c->compress, all, sizeof all);
    }
}

/* "_ga*", "consent" */
static bool is_cookie_pattern(const char *text)
{
    const size_t n = strcspn(text, "*");
    return n > 0 && field_is_token((struct str){text, n}) && (!text[n] || !text[n + 1]);
}

/* Nothing stated: what the usual counters of visits set. */
static void build_ignore_cookies(struct config_parse *p, cfg_t *s, struct config_cache *c)
{
    static const char *const usual[] = {"_ga*", "_gid", "_gat*", "_fbp", "__utm*"};
    if (!cfg_size(s, "ignore_cookies")) {
        c->ignore_cookies = usual;
        c->n_ignore_cookies = sizeof usual / sizeof *usual;
        return;
    }
    if (c->n_ignore_cookies == 1 && !strcmp(c->ignore_cookies[0], "off"))
        c->n_ignore_cookies = 0;
    config_check_each(p, s, "ignore_cookies", c->ignore_cookies, c->n_ignore_cookies,
                      is_cookie_pattern, "the name of a cookie, which may end in *,");
}

/* Parameters that grant access. */
static bool is_secret(const char *name, size_t len)
{
    static const char *const names[] = {
        "api_key",      "api-key",       "apikey",     "key",           "token",
        "access_token", "id_token",      "auth",       "secret",        "sig",
        "signature",    "hmac",          "password",   "passwd",        "pwd",
        "session",      "sessionid",     "session_id", "sid",           "jwt",
        "ticket",       "refresh_token", "code",       "authorization", "x-amz-signature",
        "auth_token"};
    const bool star = len && name[len - 1] == '*';
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (star ? !strncasecmp(names[i], name, len - 1)
                 : strlen(names[i]) == len && !strncasecmp(names[i], name, len))
            return true;
    return false;
}

static void warn_secrets(struct config_parse *p, cfg_t *s, const struct config_cache *c)
{
    for (uint32_t i = 0; cfg_size(s, "ignore_query") && i < c->n_ignore_query; i++)
        if (is_secret(c->ignore_query[i], strlen(c->ignore_query[i])))
            config_warn(
                p, config_line_of_nth(p, s, "ignore_query", i),
                "ignore_query: \"%.100s\" looks like a secret: the answer to one who has it "
                "would be given to all; leave it in the key",
                c->ignore_query[i]);
}

static bool is_listed(const char *name, const char *const *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const size_t len = strcspn(list[i], "*");
        if (list[i][len] ? !strncmp(name, list[i], len) : !strcmp(name, list[i]))
            return true;
    }
    return false;
}

void config_check_query_keys(struct config_parse *p, const struct config_route *r,
                             const struct config_key *keys, uint32_t n)
{
    const struct config_cache *c = r->cache;
    for (uint32_t i = 0; c && i < n; i++) {
        const char *name = keys[i].name;
        const bool ignored = is_listed(name, c->ignore_query, c->n_ignore_query);
        if (keys[i].kind == CONFIG_KEY_QUERY &&
            (ignored || (c->n_only_query && !is_listed(name, c->only_query, c->n_only_query))))
            config_warn(p, r->line,
                        "route \"%.200s\": %s drops \"%.100s\", which a limit or partition tells "
                        "clients apart by: their answers would be mixed up",
                        r->pattern, ignored ? "ignore_query" : "only_query", name);
    }
}

static void build_identity(struct config_parse *p, cfg_t *s, struct config_cache *c)
{
    build_ignore_cookies(p, s, c);
    config_check_each(p, s, "identity_headers", c->identity_headers, c->n_identity_headers,
                      config_is_field_pattern, "the name of a header, which may end in *,");
    lower_all(c->identity_headers, c->n_identity_headers);
}

void config_check_max_body(struct config_parse *p, cfg_t *s, struct config_cache *c,
                           uint64_t max_bytes)
{
    const uint64_t max = config_max_body_of(max_bytes);
    if (c->value.max_body <= max)
        return;
    if (c->set & CONFIG_BIT(CACHE, max_body)) {
        char text[CONFIG_NUMBER_TEXT];
        config_number_text(&config_rows[CONFIG_CACHE_max_body], max, text);
        config_complain(p, config_line_of(p, s, "max_body"),
                        "max_body is more than a quarter of max_bytes, which is the longest body "
                        "that the store takes; expected at most %s",
                        text);
    }
    c->value.max_body = max;
}

void config_build_cache(struct config_parse *p, cfg_t *s, struct config_cache *c)
{
    c->set = config_read(p, s, CONFIG_SECTION_CACHE, c);
    config_check_each(p, s, "ignore_query", c->ignore_query, c->n_ignore_query, is_query_name,
                      "the name of a parameter, which may end in *,");
    config_check_each(p, s, "only_query", c->only_query, c->n_only_query, is_query_name,
                      "the name of a parameter, which may end in *,");
    warn_secrets(p, s, c);
    build_identity(p, s, c);
    build_compress(p, s, c);
    config_check_each(p, s, "leak_guard_headers", c->guard_fields, c->n_guard_fields,
                      config_is_field_pattern, "the name of a header, which may end in *,");
    lower_all(c->guard_fields, c->n_guard_fields);
    config_check_each(p, s, "warm", c->warm, c->n_warm, is_warm_url,
                      "a path such as \"/api/items/1\", or \"api.example.org/api/items/1\"");
}

/* What polls is mostly logged in: each has its own copies there, unless the file says how it is
 * shared. */
static void partition_polls(struct config_cache *c, bool stated)
{
    if (stated || c->share != CONFIG_SHARE_STATED)
        return;
    c->partition[0] = (struct config_key){CONFIG_KEY_IDENTITY, ""};
    c->n_partition = 1;
}

struct config_cache *config_build_route_cache(struct config_parse *p, cfg_t *s,
                                              const struct config_cache *top, bool polled)
{
    struct config_cache *c = config_take(p, 1, sizeof *c);
    if (!c)
        return NULL;
    config_build_cache(p, s, c);
    config_within_route(p, s, CONFIG_SECTION_CACHE, c, c->set, top);
    config_check_max_body(p, s, c, top->value.max_bytes);
    if (polled)
        partition_polls(c, c->set & CONFIG_BIT(CACHE, partition) || top->n_partition);
    return c;
}

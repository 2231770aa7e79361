/* SPDX-License-Identifier: BSD-2-Clause */
/* config_build_fleet: the hosts that share a store. */
#include "libshared/config/config_build.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REDIS_PORT   6379
#define DATABASE_MAX 65535
#define EXPECTED                                                                                   \
    "expected \"redis://HOST\", \"redis://USER:PASSWORD@HOST:PORT/DATABASE\", \"unix:/PATH\" or "  \
    "\"unix://USER:PASSWORD@/PATH?db=DATABASE\""

/* Resolves %XX in place. False: one is incomplete, or stands for NUL. */
static bool decode(char *text)
{
    char *out = text;
    for (; *text; text++, out++) {
        *out = *text;
        if (*text != '%')
            continue;
        if (!isxdigit((unsigned char)text[1]) || !isxdigit((unsigned char)text[2]))
            return false;
        const char digits[3] = {text[1], text[2], 0};
        *out = (char)strtoul(digits, NULL, 16);
        if (!*out)
            return false;
        text += 2;
    }
    *out = 0;
    return true;
}

static bool number_of(const char *text, unsigned long max, unsigned long *out)
{
    if (!*text || strlen(text) > 5 || strspn(text, "0123456789") != strlen(text))
        return false;
    *out = strtoul(text, NULL, 10);
    return *out <= max;
}

/* "USER:PASSWORD", ":PASSWORD", "PASSWORD" */
static bool put_credentials(struct config_store *s, char *text)
{
    char *colon = strchr(text, ':');
    if (colon)
        *colon = 0;
    s->password = colon ? colon + 1 : text;
    s->user = colon && *text ? text : NULL;
    return *s->password && decode(colon ? colon + 1 : text) && (!s->user || decode(text));
}

/* "HOST", "HOST:PORT", "[V6]:PORT" */
static bool put_host(struct config_store *s, char *text)
{
    unsigned long port = REDIS_PORT;
    char *end = *text == '[' ? strchr(text, ']') : NULL;
    if (*text == '[' && !end)
        return false;
    char *colon = end ? end + 1 : strchr(text, ':');
    if (colon && *colon) {
        if (*colon != ':' || !number_of(colon + 1, 65535, &port) || !port)
            return false;
        *colon = 0;
    }
    if (end) {
        *end = 0;
        text++;
    }
    s->host = text;
    s->port = (uint16_t)port;
    return *text && strlen(text) <= 253;
}

/* "/PATH", or "//USER:PASSWORD@/PATH"; "?db=N" may follow. text: a copy, which is taken apart. */
static bool put_socket(struct config_store *s, char *text)
{
    static const char database_key[] = "?db=";
    unsigned long database = 0;
    char *query = strstr(text, database_key);
    if (query) {
        *query = 0;
        if (!number_of(query + sizeof database_key - 1, DATABASE_MAX, &database))
            return false;
    }
    s->database = (uint32_t)database;
    s->path = text;
    if (!strncmp(text, "//", 2)) {
        char *path = strchr(text + 2, '/');
        if (!path || (path > text + 2 && path[-1] != '@'))
            return false;
        s->path = path;
        if (path > text + 2) {
            path[-1] = 0;
            if (!put_credentials(s, text + 2))
                return false;
        }
    }
    return *s->path == '/' && strlen(s->path) < 100;
}

/* text: a copy, which is taken apart. */
static bool put_url(struct config_store *s, char *text)
{
    unsigned long database = 0;
    char *slash = strchr(text, '/');
    if (slash) {
        *slash = 0;
        if (slash[1] && !number_of(slash + 1, DATABASE_MAX, &database))
            return false;
    }
    s->database = (uint32_t)database;
    char *at = strrchr(text, '@');
    if (at) {
        *at = 0;
        if (!put_credentials(s, text))
            return false;
    }
    return put_host(s, at ? at + 1 : text);
}

/* Without what may be a secret. */
static const char *shown(struct config_parse *p, const struct config_store *s)
{
    char text[300];
    if (s->host)
        snprintf(text, sizeof text,
                 strchr(s->host, ':') ? "redis://[%s]:%u/%u" : "redis://%s:%u/%u", s->host, s->port,
                 s->database);
    else if (s->database)
        snprintf(text, sizeof text, "unix:%s?db=%u", s->path, s->database);
    else
        snprintf(text, sizeof text, "unix:%s", s->path);
    return config_arena_strdup(p->arena, text);
}

static bool put_store(struct config_parse *p, struct config_store *s, const char *text)
{
    static const char unix_scheme[] = "unix:", redis_scheme[] = "redis://";
    bool good = false;
    char *copy = config_arena_strdup(p->arena, text);
    if (!copy)
        return true; /* that was complained of */
    if (!strncmp(text, unix_scheme, sizeof unix_scheme - 1)) {
        good = put_socket(s, copy + sizeof unix_scheme - 1);
    } else if (!strncmp(text, redis_scheme, sizeof redis_scheme - 1)) {
        good = put_url(s, copy + sizeof redis_scheme - 1);
    }
    if (good)
        s->text = shown(p, s);
    return good;
}

/* Of a key, or of the section where the key is not stated. */
static int line_of(struct config_parse *p, cfg_t *s, const char *key)
{
    return config_stated(s, key) ? config_line_of(p, s, key)
                                 : config_section_line(p, "fleet", 0, 0);
}

static void put_stores(struct config_parse *p, cfg_t *s, struct config_fleet *f)
{
    const uint32_t n = f->n_store;
    if (!n || n > CONFIG_STORES_MAX)
        config_complain(p,
                        n ? config_line_of(p, s, "store") : config_section_line(p, "fleet", 0, 0),
                        "fleet.store: %u servers; expected 1 to %d", n, CONFIG_STORES_MAX);
    struct config_store *stores = config_take(p, n ? n : 1, sizeof *stores);
    for (uint32_t i = 0; stores && i < n; i++)
        if (!put_store(p, &stores[i], f->store[i])) /* it may hold a password: it is not shown */
            config_complain(p, config_line_of_nth(p, s, "store", i),
                            "fleet.store: number %u is wrong; " EXPECTED, i + 1);
    f->stores = stores;
}

static const char *name_of_system(struct config_parse *p)
{
    char name[65] = "";
    if (gethostname(name, sizeof name - 1))
        return "";
    return config_arena_strdup(p->arena, name);
}

void config_build_fleet(struct config_parse *p, struct config *c)
{
    cfg_t *s = config_section(p->root, "fleet");
    struct config_fleet *f = &c->fleet;
    config_read(p, s, CONFIG_SECTION_FLEET, f);
    if (!s) {
        f->n_store = 0;
        return;
    }
    put_stores(p, s, f);
    if (!*f->host)
        f->host = name_of_system(p);
    config_check_name(p, "fleet.name", f->name, line_of(p, s, "name"));
    config_check_name(p, "fleet.host", f->host, line_of(p, s, "host"));
    if (strlen(f->secret) < CONFIG_SECRET_MIN)
        config_complain(p, line_of(p, s, "secret"),
                        "fleet.secret: expected at least %d characters that all hosts of the fleet "
                        "have, such as \"${POLDER_FLEET_SECRET}\"",
                        CONFIG_SECRET_MIN);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* leak_guard_fields: see leak_guard_fields.h. */
#include "daemons/worker/leak_guard/leak_guard_fields.h"
#include "daemons/http/h1.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/leak_guard/leak_guard.h"
#include "daemons/worker/message/guard.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/cache.h"
#include "polder/config.h"
#include "polder/field.h"
#include "polder/head_lines.h"
#include "polder/identity.h"
#include "polder/inval.h"

#include <stdio.h>
#include <string.h>

/* ---- what key and variant hold already ---- */

static bool in_partition(const struct guard_fields *g, bool cookie, const char *name)
{
    const struct config_cache *cache = g->cache;
    if (identity_covers_all(cache) &&
        (cookie || identity_names_header(g->config, cache, (struct str){name, strlen(name)})))
        return true;
    for (uint32_t i = 0; i < cache->n_partition; i++) {
        const struct config_key *k = &cache->partition[i];
        const bool holds = cookie ? k->kind == CONFIG_KEY_COOKIE : k->kind == CONFIG_KEY_HEADER;
        if ((holds && !strcmp(k->name, name)) ||
            (!cookie && k->kind == CONFIG_KEY_JWT && !strcmp(name, "authorization")))
            return true;
    }
    return false;
}

static bool in_variant(const struct cache_view *v, const char *name)
{
    return v && head_lines_find((struct str){v->vary, v->record->vary_len},
                                (struct str){name, strlen(name)}, NULL);
}

/* ---- the list ---- */

/* Which one it is; n: none of them. */
static uint32_t index_of(const struct guard_fields *k, bool cookie, const char *name)
{
    uint32_t i = 0;
    if (in_partition(k, cookie, name))
        return k->n;
    while (i < k->n && (k->field[i].cookie != cookie || strcmp(k->field[i].name, name)))
        i++;
    if (i == k->n && cookie && i && k->field[i - 1].cookie && !k->field[i - 1].name[0])
        return i - 1;
    return i;
}

static void add(struct guard_fields *k, bool cookie, const char *name)
{
    if (in_partition(k, cookie, name) || index_of(k, cookie, name) < k->n)
        return;
    if (k->n < GUARD_FIELDS_MAX) {
        k->field[k->n].cookie = cookie;
        strcpy(k->field[k->n++].name, name);
    } else if (cookie && k->field[k->n - 1].cookie) {
        k->field[k->n - 1].name[0] = 0; /* too many to be told apart */
    }
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* One pair of a Cookie field: its bytes without the blanks around them, and its name. False at the
 * end. */
static bool next_cookie(struct str *rest, struct str *pair, char name[GUARD_FIELD_NAME])
{
    const char *at = rest->at, *end = rest->at + rest->len;
    while (at < end && (is_blank(*at) || *at == ';'))
        at++;
    if (at == end)
        return false;
    const char *stop = memchr(at, ';', (size_t)(end - at));
    stop = stop ? stop : end;
    *rest = (struct str){stop, (size_t)(end - stop)};
    while (is_blank(stop[-1]))
        stop--;
    *pair = (struct str){at, (size_t)(stop - at)};
    const char *equals = memchr(at, '=', pair->len);
    size_t n = equals ? (size_t)(equals - at) : pair->len;
    n = n < GUARD_FIELD_NAME ? n : GUARD_FIELD_NAME - 1;
    memcpy(name, at, n);
    name[n] = 0;
    return true;
}

static bool is_sent(const struct request *r, struct str pair)
{
    struct identity_cookie cookie;
    return !identity_edits_cookies(r) || !identity_cookie_next(&pair, &cookie) ||
           identity_sends_cookie(r, &cookie);
}

static void add_cookies(struct guard_fields *k, const struct request *r, struct str value)
{
    char name[GUARD_FIELD_NAME];
    struct str pair;
    while (next_cookie(&value, &pair, name))
        if (*name && is_sent(r, pair))
            add(k, true, name);
}

void guard_fields_list(struct guard_fields *k, const struct request *r, const struct cache_view *v)
{
    k->config = r->worker ? r->worker->config : NULL;
    k->cache = r->route->cache;
    k->n = 0;
    for (int cookies = 0; cookies < 2; cookies++) /* last, for there may be many */
        for (uint32_t i = 0; i < r->head->n_fields; i++) {
            const struct h1_field *f = &r->head->field[i];
            char name[GUARD_FIELD_NAME];
            guard_lower_name(f->name, name);
            if ((f->id == H1_COOKIE) != cookies || !guard_field_tells(k->cache, r->head, f) ||
                in_variant(v, name))
                continue;
            if (cookies)
                add_cookies(k, r, f->value);
            else
                add(k, false, name);
        }
}

/* ---- heads ---- */

static bool is_omitted(const struct guard_fields *k, bool cookie, const char *name, uint32_t omits)
{
    const uint32_t i = index_of(k, cookie, name);
    return i < k->n && omits >> i & 1;
}

static bool loses_cookies(const struct guard_fields *k, const struct h1_field *f, uint32_t omits)
{
    char name[GUARD_FIELD_NAME];
    struct str rest = f->value, pair;
    while (next_cookie(&rest, &pair, name))
        if (is_omitted(k, true, name, omits))
            return true;
    return false;
}

static void put_cookies(const struct guard_fields *k, struct h1_out *o, const struct h1_field *f,
                        uint32_t omits)
{
    char name[GUARD_FIELD_NAME];
    struct str rest = f->value, pair;
    const char *between = "Cookie: ";
    while (next_cookie(&rest, &pair, name)) {
        if (is_omitted(k, true, name, omits))
            continue;
        h1_puts(o, between);
        h1_put(o, pair.at, pair.len);
        between = "; ";
    }
    if (*between == ';')
        h1_puts(o, "\r\n");
}

size_t guard_fields_write(const struct guard_fields *k, const struct h1_head *head, uint32_t omits,
                          char *out, size_t size)
{
    struct h1_out o = {out, out + size, false};
    h1_put(&o, head->method.at, head->method.len);
    h1_puts(&o, " ");
    h1_put(&o, head->target.at, head->target.len);
    h1_puts(&o, head->minor ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n");
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        char name[GUARD_FIELD_NAME];
        guard_lower_name(f->name, name);
        if (f->id == H1_COOKIE && loses_cookies(k, f, omits))
            put_cookies(k, &o, f, omits);
        else if (f->id != H1_X_REQUEST_ID && !is_omitted(k, false, name, omits))
            h1_copy_field(&o, f);
    }
    h1_puts(&o, "\r\n");
    return o.overflow ? 0 : (size_t)(o.at - out);
}

uint32_t guard_fields_varied(const struct guard_fields *k, const struct h1_head *head)
{
    struct h1_vary walk = {0};
    struct str name;
    uint32_t bits = 0;
    while (h1_vary_next(head, &walk, &name))
        for (uint32_t i = 0; i < k->n; i++)
            if (field_is(name, "*") || !field_is_token(name) ||
                field_is(name, k->field[i].cookie ? "cookie" : k->field[i].name))
                bits |= 1u << i;
    return bits;
}

/* Names of cookies are the client's; what is no letter of a name is not shown. */
static void put_name(struct h1_out *o, const char *name)
{
    for (; *name; name++) {
        const bool plain = *name > ' ' && *name < 0x7f && !strchr(",;\"\\", *name);
        h1_put(o, plain ? name : "?", 1);
    }
}

size_t guard_fields_name(const struct guard_fields *k, uint32_t bits, char *out, size_t size)
{
    struct h1_out o = {out, out + size, false};
    for (uint32_t i = 0; i < k->n; i++) {
        const char *name = k->field[i].name;
        if (!(bits >> i & 1) || (size_t)(o.end - o.at) < strlen(name) + 16)
            continue; /* no room for all: the first ones do */
        h1_puts(&o, o.at > out ? ", " : "");
        h1_puts(&o, k->field[i].cookie ? "cookie" : "");
        h1_puts(&o, k->field[i].cookie && *name ? ":" : "");
        put_name(&o, name);
    }
    return (size_t)(o.at - out);
}

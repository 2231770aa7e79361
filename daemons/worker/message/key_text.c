/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * key_text: what a request says of itself where limits and partitions ask (headers, cookies,
 * parameters, claims of a token). What backends may read in two ways is ambiguous, and said to be.
 */
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/key_text.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/clientip.h"
#include "polder/field.h"
#include "polder/limitkey.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PRESENT '\x1e' /* before a part that is there: an empty one is not a missing one */

/* Decodes "%41" and '+'; unchanged if there are none, or if it does not fit. */
static struct str decoded(struct str text, char *space, size_t size)
{
    size_t n = 0;
    if (text.len > size || (!memchr(text.at, '%', text.len) && !memchr(text.at, '+', text.len)))
        return text;
    for (size_t i = 0; i < text.len; i++) {
        unsigned byte;
        char hex[3] = {0};
        if (text.at[i] == '%' && i + 2 < text.len && isxdigit((unsigned char)text.at[i + 1]) &&
            isxdigit((unsigned char)text.at[i + 2])) {
            memcpy(hex, text.at + i + 1, 2);
            byte = (unsigned)strtoul(hex, NULL, 16);
            i += 2;
        } else {
            byte = text.at[i] == '+' ? ' ' : (unsigned char)text.at[i];
        }
        space[n++] = (char)byte;
    }
    return (struct str){space, n};
}

/* sid="1" is what sid=1 is. */
static struct str unquoted(struct str text)
{
    const bool quoted = text.len >= 2 && text.at[0] == '"' && text.at[text.len - 1] == '"';
    return quoted ? (struct str){text.at + 1, text.len - 2} : text;
}

/* One value of a name in a request. Two that differ are ambiguous: it is unknown which one the
 * backend takes. */
struct found {
    struct str value;
    bool ambiguous;
};

static void found_one(struct found *f, struct str value)
{
    if (!f->value.at)
        f->value = value;
    else if (f->value.len != value.len || memcmp(f->value.at, value.at, value.len))
        f->ambiguous = true;
}

/* What some languages call white space, and strip. */
static bool is_blank(char c)
{
    return c <= ' ' || (unsigned char)c >= 0x7f;
}

/* A cookie "name=value" between at and stop. With blanks around its name only some backends accept
 * it, so it is ambiguous. */
static void look_cookie(struct found *f, const char *at, const char *stop, const char *name)
{
    const char *equals = memchr(at, '=', (size_t)(stop - at)), *end = equals, *start = at;
    const size_t name_len = strlen(name);
    if (!equals)
        return;
    while (start < end && is_blank(*start))
        start++;
    while (start < end && is_blank(end[-1]))
        end--;
    if ((size_t)(end - start) != name_len || memcmp(start, name, name_len))
        return;
    f->ambiguous |= start != at || end != equals;
    found_one(f, (struct str){equals + 1, (size_t)(stop - equals) - 1});
}

static struct found cookie_value(const struct h1_head *head, const char *name)
{
    struct found f = {0};
    for (uint32_t i = 0; i < head->n_fields; i++) {
        if (head->field[i].id != H1_COOKIE)
            continue;
        const char *at = head->field[i].value.at, *end = at + head->field[i].value.len;
        while (at < end) {
            while (at < end && (*at == ' ' || *at == ';' || *at == '\t'))
                at++;
            const char *stop = memchr(at, ';', (size_t)(end - at));
            if (!stop)
                stop = end;
            look_cookie(&f, at, stop, name);
            at = stop;
        }
    }
    return f;
}

/* The name before '=' as backends read it. */
static bool is_named(const char *at, size_t len, const char *name)
{
    char plain[256];
    const size_t name_len = strlen(name);
    if (len == name_len && !memcmp(at, name, len))
        return true;
    if (len > 3 * sizeof plain || !memchr(at, '%', len))
        return false;
    const struct str text = decoded((struct str){at, len}, plain, sizeof plain);
    return text.len == name_len && !memcmp(text.at, name, name_len);
}

static struct found query_value(struct str query, const char *name)
{
    const char *at = query.at, *end = at ? at + query.len : at;
    struct found f = {0};
    while (at && at < end) {
        const char *stop = memchr(at, '&', (size_t)(end - at));
        if (!stop)
            stop = end;
        const char *equals = memchr(at, '=', (size_t)(stop - at));
        if (equals && is_named(at, (size_t)(equals - at), name))
            found_one(&f, (struct str){equals + 1, (size_t)(stop - equals) - 1});
        at = stop + 1;
    }
    return f;
}

/* Gateways of the CGI kind turn '-' into '_', and then X_Tenant is X-Tenant. */
static bool shadows(struct str field, const char *name)
{
    size_t i = 0;
    for (; i < field.len && name[i]; i++)
        if (tolower((unsigned char)field.at[i]) != name[i] &&
            !(name[i] == '-' && field.at[i] == '_'))
            return false;
    return i == field.len && !name[i];
}

/* A field that Connection names does not reach the backend: it is not there. In two lines, even of
 * the same, it is one value to some backends and a list to others. */
static struct found header_value(const struct h1_head *head, const char *name)
{
    struct found f = {0};
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *field = &head->field[i];
        if (!shadows(field->name, name) || h1_is_hop_by_hop(head, field))
            continue;
        f.ambiguous |= f.value.at || !field_is(field->name, name);
        found_one(&f, field->value);
    }
    return f;
}

static int base64url(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' || c == '+' ? 62 : c == '_' || c == '/' ? 63 : -1;
}

/* Decodes a JWT's payload. The signature is not looked at: good enough to tell callers apart when
 * the backend verifies it, worthless as a proof. */
static size_t jwt_payload(struct str authorization, char *out, size_t size)
{
    if (authorization.len < 7 || !field_is((struct str){authorization.at, 7}, "bearer "))
        return 0;
    const char *at = authorization.at + 7, *end = authorization.at + authorization.len;
    at = memchr(at, '.', (size_t)(end - at));
    if (!at++)
        return 0;
    uint32_t bits = 0, have = 0;
    size_t n = 0;
    for (; at < end && *at != '.'; at++) {
        const int v = base64url(*at);
        if (v < 0 || n == size)
            return 0;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (char)(bits >> have & 0xff);
        }
    }
    return n;
}

/* The raw value of a member at the top level of a JSON object; quotes taken off a string. */
static struct str json_member(const char *at, size_t len, const char *name)
{
    const char *end = at + len;
    const size_t name_len = strlen(name);
    int depth = 0;
    for (; at < end; at++) {
        if (*at == '{' || *at == '[')
            depth++;
        else if (*at == '}' || *at == ']')
            depth--;
        if (*at != '"')
            continue;
        const char *text = ++at;
        while (at < end && *at != '"')
            at += *at == '\\' ? 2 : 1;
        if (at >= end)
            break;
        const bool named =
            depth == 1 && (size_t)(at - text) == name_len && !memcmp(text, name, name_len);
        const char *colon = at + 1;
        while (colon < end && (*colon == ' ' || *colon == '\n' || *colon == '\t'))
            colon++;
        if (!named || colon >= end || *colon != ':')
            continue;
        const char *value = colon + 1;
        while (value < end && *value == ' ')
            value++;
        const bool string = value < end && *value == '"';
        const char *stop = value += string;
        while (stop < end && (string ? *stop != '"' : *stop != ',' && *stop != '}'))
            stop += string && *stop == '\\' ? 2 : 1;
        return stop < end ? (struct str){value, (size_t)(stop - value)} : (struct str){0};
    }
    return (struct str){0};
}

static struct found one(struct str value)
{
    return (struct found){.value = value};
}

/* One part's value; .at NULL where the request does not have it. spelled: in the client's bytes;
 * otherwise what spells the same to a backend is the same. */
static struct found part_value(const struct request *r, const struct config_key *part, bool spelled,
                               char *space, size_t size)
{
    struct found f;
    struct clientip group;
    switch (part->kind) {
    case CONFIG_KEY_CLIENT:
        clientip_group(&r->ip, &group);
        memcpy(space, group.addr, sizeof group.addr);
        return one((struct str){space, sizeof group.addr});
    case CONFIG_KEY_HEADER:
        return header_value(r->head, part->name);
    case CONFIG_KEY_COOKIE:
        f = cookie_value(r->head, part->name);
        if (f.value.at && !spelled)
            f.value = decoded(unquoted(f.value), space, size);
        return f;
    case CONFIG_KEY_QUERY:
        f = query_value(r->head->query, part->name);
        if (f.value.at && !spelled)
            f.value = decoded(f.value, space, size);
        return f;
    case CONFIG_KEY_JWT: {
        f = header_value(r->head, "authorization");
        if (spelled) /* tokens are not verified: the whole of it, or a made-up one would do */
            return f;
        const size_t n = f.value.at ? jwt_payload(f.value, space, size) : 0;
        f.value = json_member(space, n, part->name);
        return f;
    }
    case CONFIG_KEY_ROUTE:
        return one((struct str){r->route->pattern, strlen(r->route->pattern)});
    case CONFIG_KEY_IDENTITY:
        return one(identity_text(r, space));
    case CONFIG_KEY_GLOBAL:
    case CONFIG_KEY_NONE:
        break;
    }
    return one((struct str){"*", 1});
}

int key_text_join(const struct request *r, const struct config_key *parts, uint32_t n, bool spelled,
                  char *out, size_t size)
{
    char space[KEY_TEXT_MAX];
    size_t len = 0;
    bool any = false;
    for (uint32_t i = 0; i < n; i++) {
        const struct found f = part_value(r, &parts[i], spelled, space, sizeof space);
        const struct str v = f.value;
        any |= v.at != NULL;
        if (f.ambiguous)
            return -EINVAL;
        if (!v.at && !spelled)
            return -ENOENT;
        if (len + v.len + 2 > size)
            return -ENOBUFS;
        if (i)
            out[len++] = LIMITKEY_SEPARATOR;
        if (v.at && spelled)
            out[len++] = PRESENT;
        if (v.len)
            memcpy(out + len, v.at, v.len);
        len += v.len;
    }
    return any ? (int)len : -ENOENT;
}

int key_text_of_limit(const struct request *r, const struct config_limit *l, char *text)
{
    const struct config_key client = {CONFIG_KEY_CLIENT, ""};
    const int len = key_text_join(r, l->key, l->n_key, false, text, KEY_TEXT_MAX);
    if (len >= 0)
        return len;
    if (len == -ENOENT && l->missing == CONFIG_MISSING_SKIP)
        return -ENODATA;
    if ((len == -ENOENT || len == -EINVAL) && l->missing == CONFIG_MISSING_REFUSE)
        return -ENOENT;
    /* missing, ambiguous, longer than any honest key: the client's address is used */
    return key_text_join(r, &client, 1, false, text, KEY_TEXT_MAX);
}

bool key_text_needs_head(const struct config_route *route)
{
    for (uint32_t i = 0; i < route->n_limits; i++)
        for (uint32_t k = 0; k < route->limits[i]->n_key; k++) {
            const enum config_key_kind kind = route->limits[i]->key[k].kind;
            if (kind != CONFIG_KEY_CLIENT && kind != CONFIG_KEY_ROUTE && kind != CONFIG_KEY_GLOBAL)
                return true;
        }
    return false;
}

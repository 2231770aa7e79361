/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * field_sf: Structured Fields (RFC 9651): Lists and Dictionaries are walked member by member, every
 * item is checked as section 4.2 says, and what we do not use is skipped. One error anywhere makes
 * the whole field invalid.
 */
#include "polder/field.h"
#include <string.h>

enum sf_type {
    SF_INTEGER,
    SF_DECIMAL,
    SF_STRING,
    SF_TOKEN,
    SF_BYTES,
    SF_BOOLEAN,
    SF_DATE,
    SF_DISPLAY,
    SF_INNER_LIST
};

struct sf {
    const char *at, *end;
    bool bad;
};

struct sf_item {
    enum sf_type type;
    int64_t integer; /* INTEGER, DATE, BOOLEAN */
    struct str text; /* STRING without quotes, escapes kept */
};

static bool peek(const struct sf *s, char c)
{
    return s->at < s->end && *s->at == c;
}

static bool take(struct sf *s, char c)
{
    if (!peek(s, c))
        return false;
    s->at++;
    return true;
}

static void fail(struct sf *s)
{
    s->bad = true;
    s->at = s->end;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void skip_spaces(struct sf *s, bool tabs)
{
    while (s->at < s->end && (*s->at == ' ' || (tabs && *s->at == '\t')))
        s->at++;
}

/* ---- bare items (4.2.3.1 and on) ---- */

static void number(struct sf *s, struct sf_item *item)
{
    bool negative = take(s, '-');
    int whole = 0, fraction = 0;
    item->type = SF_INTEGER;
    item->integer = 0;
    for (; s->at < s->end && is_digit(*s->at) && whole < 16; s->at++, whole++)
        item->integer = item->integer * 10 + (*s->at - '0');
    if (whole == 0 || whole > 15) {
        fail(s);
        return;
    }
    if (negative)
        item->integer = -item->integer;
    if (!take(s, '.'))
        return;
    item->type = SF_DECIMAL;
    for (; s->at < s->end && is_digit(*s->at) && fraction < 4; s->at++)
        fraction++;
    if (whole > 12 || fraction < 1 || fraction > 3)
        fail(s);
}

static void string(struct sf *s, struct sf_item *item)
{
    item->type = SF_STRING;
    item->text.at = ++s->at;
    for (; s->at < s->end; s->at++) {
        if (*s->at == '"') {
            item->text.len = (size_t)(s->at++ - item->text.at);
            return;
        }
        if (*s->at == '\\' && (++s->at == s->end || (*s->at != '"' && *s->at != '\\')))
            break;
        if (*s->at < 0x20 || *s->at > 0x7e)
            break;
    }
    fail(s);
}

static void token(struct sf *s, struct sf_item *item)
{
    item->type = SF_TOKEN;
    for (; s->at < s->end; s->at++)
        if (*s->at != ':' && *s->at != '/' && !field_is_token((struct str){s->at, 1}))
            return;
}

static void byte_sequence(struct sf *s, struct sf_item *item)
{
    item->type = SF_BYTES;
    for (s->at++; s->at < s->end; s->at++) {
        char c = *s->at;
        if (c == ':') {
            s->at++;
            return;
        }
        if (!is_alpha(c) && !is_digit(c) && c != '+' && c != '/' && c != '=')
            break;
    }
    fail(s);
}

static void boolean(struct sf *s, struct sf_item *item)
{
    item->type = SF_BOOLEAN;
    s->at++;
    item->integer = peek(s, '1');
    if (!take(s, '0') && !take(s, '1'))
        fail(s);
}

static void date(struct sf *s, struct sf_item *item)
{
    s->at++;
    number(s, item);
    if (!s->bad && item->type != SF_INTEGER)
        fail(s);
    item->type = SF_DATE;
}

/* %"…": ASCII, with %xx in lower case for the bytes of UTF-8. */
static void display_string(struct sf *s, struct sf_item *item)
{
    item->type = SF_DISPLAY;
    s->at++;
    if (!take(s, '"')) {
        fail(s);
        return;
    }
    for (; s->at < s->end && *s->at >= 0x20 && *s->at <= 0x7e; s->at++) {
        if (*s->at == '"') {
            s->at++;
            return;
        }
        if (*s->at != '%')
            continue;
        if (s->end - s->at < 3 || !memchr("0123456789abcdef", s->at[1], 16) ||
            !memchr("0123456789abcdef", s->at[2], 16))
            break;
        s->at += 2;
    }
    fail(s);
}

static void bare_item(struct sf *s, struct sf_item *item)
{
    *item = (struct sf_item){.type = SF_TOKEN};
    char c = s->at < s->end ? *s->at : '\0';
    if (c == '-' || is_digit(c))
        number(s, item);
    else if (c == '"')
        string(s, item);
    else if (c == '*' || is_alpha(c))
        token(s, item);
    else if (c == ':')
        byte_sequence(s, item);
    else if (c == '?')
        boolean(s, item);
    else if (c == '@')
        date(s, item);
    else if (c == '%')
        display_string(s, item);
    else
        fail(s);
}

/* ---- keys, parameters, members ---- */

static struct str key(struct sf *s)
{
    struct str k = {s->at, 0};
    if (s->at == s->end || (!(*s->at >= 'a' && *s->at <= 'z') && *s->at != '*')) {
        fail(s);
        return k;
    }
    while (s->at < s->end && ((*s->at >= 'a' && *s->at <= 'z') || is_digit(*s->at) ||
                              (*s->at && strchr("_-.*", *s->at))))
        s->at++;
    k.len = (size_t)(s->at - k.at);
    return k;
}

static void parameters(struct sf *s)
{
    struct sf_item ignored;
    while (!s->bad && take(s, ';')) {
        skip_spaces(s, false);
        key(s);
        if (!s->bad && take(s, '='))
            bare_item(s, &ignored);
    }
}

static void inner_list(struct sf *s)
{
    struct sf_item ignored;
    s->at++;
    while (!s->bad) {
        skip_spaces(s, false);
        if (take(s, ')'))
            return;
        bare_item(s, &ignored);
        parameters(s);
        if (!peek(s, ' ') && !peek(s, ')'))
            fail(s);
    }
}

static void member(struct sf *s, struct sf_item *item)
{
    if (peek(s, '(')) {
        *item = (struct sf_item){.type = SF_INNER_LIST};
        inner_list(s);
    } else {
        bare_item(s, item);
    }
    parameters(s);
}

/* Behind a member: to the next one, or the end. A comma must be followed by something. */
static void next_member(struct sf *s)
{
    skip_spaces(s, true);
    if (s->bad || s->at == s->end)
        return;
    if (!take(s, ',')) {
        fail(s);
        return;
    }
    skip_spaces(s, true);
    if (s->at == s->end)
        fail(s);
}

static struct sf start(struct str value)
{
    struct sf s = {value.at, value.at + value.len, false};
    skip_spaces(&s, false);
    while (s.end > s.at && s.end[-1] == ' ')
        s.end--;
    return s;
}

/* ---- List of Strings ---- */

/* The text that is meant: without the backslashes (RFC 9651 4.2.5). Longer ones than any tag stay
 * as they are. */
static struct str unescaped(struct str text, char *space, size_t size)
{
    size_t n = 0;
    if (text.len > size || !memchr(text.at, '\\', text.len))
        return text;
    for (size_t i = 0; i < text.len; i++) {
        i += text.at[i] == '\\';
        space[n++] = text.at[i];
    }
    return (struct str){space, n};
}

static bool walk_strings(struct str value, void (*each)(void *, struct str), void *arg)
{
    struct sf s = start(value);
    while (s.at < s.end) {
        struct sf_item item;
        member(&s, &item);
        if (s.bad || item.type != SF_STRING)
            return false;
        char space[1024];
        if (each)
            each(arg, unescaped(item.text, space, sizeof space));
        next_member(&s);
    }
    return !s.bad;
}

bool field_sf_strings(struct str value, void (*each)(void *arg, struct str text), void *arg)
{
    return walk_strings(value, NULL, NULL) && walk_strings(value, each, arg);
}

/* ---- CDN-Cache-Control ---- */

/* A Dictionary's later member replaces an earlier one of the same name. An age that is no
 * non-negative Integer is not made into one (RFC 9213 2.1): the response is stale. */
static void set_seconds(struct field_cc *cc, uint32_t flag, uint32_t *to,
                        const struct sf_item *item)
{
    const uint32_t max = UINT32_C(1) << 31;
    cc->flags &= ~flag;
    if (item->type == SF_INTEGER && item->integer >= 0) {
        *to = item->integer > max ? max : (uint32_t)item->integer;
        cc->flags |= flag;
    } else if (flag == FIELD_CC_MAX_AGE || flag == FIELD_CC_S_MAXAGE) {
        cc->flags |= FIELD_CC_INVALID;
    }
}

static void set_directive(struct field_cc *cc, struct str name, const struct sf_item *item)
{
    static const struct {
        const char *name;
        uint32_t flag;
    } plain[] = {
        {"no-store", FIELD_CC_NO_STORE},
        {"no-cache", FIELD_CC_NO_CACHE},
        {"private", FIELD_CC_PRIVATE},
        {"public", FIELD_CC_PUBLIC},
        {"must-revalidate", FIELD_CC_MUST_REVALIDATE},
        {"proxy-revalidate", FIELD_CC_PROXY_REVALIDATE},
        {"must-understand", FIELD_CC_MUST_UNDERSTAND},
        {"no-transform", FIELD_CC_NO_TRANSFORM},
        {"immutable", FIELD_CC_IMMUTABLE},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (!field_is(name, plain[i].name))
            continue;
        if (item->type == SF_BOOLEAN && !item->integer)
            cc->flags &= ~plain[i].flag;
        else
            cc->flags |= plain[i].flag;
    }
    if (field_is(name, "max-age"))
        set_seconds(cc, FIELD_CC_MAX_AGE, &cc->max_age, item);
    else if (field_is(name, "s-maxage"))
        set_seconds(cc, FIELD_CC_S_MAXAGE, &cc->s_maxage, item);
    else if (field_is(name, "stale-while-revalidate"))
        set_seconds(cc, FIELD_CC_SWR, &cc->swr, item);
    else if (field_is(name, "stale-if-error"))
        set_seconds(cc, FIELD_CC_SIE, &cc->sie, item);
}

bool field_cdn_cc(struct str value, struct field_cc *cc)
{
    struct sf s = start(value);
    struct field_cc found = {0};
    if (s.at == s.end)
        return false;
    while (s.at < s.end) {
        struct sf_item item = {.type = SF_BOOLEAN, .integer = 1};
        struct str name = key(&s);
        if (!s.bad && take(&s, '='))
            member(&s, &item);
        else
            parameters(&s);
        if (s.bad)
            return false;
        set_directive(&found, name, &item);
        next_member(&s);
    }
    if (s.bad)
        return false;
    *cc = found;
    return true;
}

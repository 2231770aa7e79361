/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * field: HTTP field values other than structured fields (field_sf.c) and dates (field_date.c).
 */
#include "polder/field.h"
#include <errno.h>
#include <string.h>

#define AGE_MAX (UINT32_C(1) << 31) /* RFC 9111 1.2.2 */

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

struct str field_trim(struct str t)
{
    while (t.len && is_space(*t.at))
        t.at++, t.len--;
    while (t.len && is_space(t.at[t.len - 1]))
        t.len--;
    return t;
}

bool field_is(struct str a, const char *name)
{
    for (size_t i = 0; i < a.len; i++)
        if (!name[i] || lower(a.at[i]) != (unsigned char)name[i])
            return false;
    return !name[a.len];
}

bool field_is_token(struct str t)
{
    /* ALPHA DIGIT ! # $ % & ' * + - . ^ _ ` | ~, a bit each (RFC 9110 5.6.2) */
    static const uint64_t set[2] = {0x03ff6cfa00000000u, 0x57ffffffc7fffffeu};
    for (size_t i = 0; i < t.len; i++) {
        unsigned char c = (unsigned char)t.at[i];
        if (c >= 128 || !(set[c / 64] >> (c % 64) & 1))
            return false;
    }
    return t.len > 0;
}

/* ---- lists and parameters ---- */

/* at points to a '"': behind its closing one, or NULL where there is none. */
static const char *behind_quotes(const char *at, const char *end)
{
    for (at++; at < end; at++) {
        if (*at == '"')
            return at + 1;
        if (*at == '\\' && at + 1 < end)
            at++;
    }
    return NULL;
}

#define QUOTES_MAX  16 /* at the end of a value, that a backslash is before */
#define ESCAPES_MAX 63 /* in a row; odd */

/* Will a quote behind the one that at points to close it? A closing one has an even number of
 * backslashes before it. Looked for from the end, where the last of them mostly stands, so that
 * thousands of quotes that nothing closes cost no more than others. */
static bool is_closed(const char *at, const char *end)
{
    for (unsigned i = 0; i < QUOTES_MAX; i++) {
        const char *quote = memrchr(at + 1, '"', (size_t)(end - at - 1)), *run = quote;
        if (!quote)
            return false;
        while (run > at + 1 && run[-1] == '\\' && quote - run < ESCAPES_MAX)
            run--;
        if ((quote - run) % 2 == 0)
            return true;
        end = quote;
    }
    return false;
}

/* A quote that is never closed is an ordinary character, because a no-store may be hidden behind
 * it. */
static size_t element_length(struct str t)
{
    const char *at = t.at, *end = t.at + t.len;
    bool quotes = true;
    while (at < end && *at != ',') {
        const char *behind = NULL;
        if (*at == '"' && quotes && (quotes = is_closed(at, end)))
            behind = behind_quotes(at, end);
        at = behind ? behind : at + 1;
    }
    return (size_t)(at - t.at);
}

bool field_list_next(struct str *rest, struct str *element)
{
    while (rest->len) {
        size_t n = element_length(*rest);
        *element = field_trim((struct str){rest->at, n});
        size_t used = n < rest->len ? n + 1 : n;
        rest->at += used;
        rest->len -= used;
        if (element->len)
            return true;
    }
    return false;
}

int field_qvalue(struct str text)
{
    if (!text.len || text.len > 5 || (text.at[0] != '0' && text.at[0] != '1'))
        return -EINVAL;
    int q = (text.at[0] - '0') * 1000, step = 100;
    if (text.len > 1 && text.at[1] != '.')
        return -EINVAL;
    for (size_t i = 2; i < text.len; i++, step /= 10) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return -EINVAL;
        q += (text.at[i] - '0') * step;
    }
    return q <= 1000 ? q : -EINVAL;
}

/* "text" without its quotes; unquoted text as it is. */
static struct str unquote(struct str t)
{
    if (t.len >= 2 && t.at[0] == '"' && behind_quotes(t.at, t.at + t.len) == t.at + t.len)
        return (struct str){t.at + 1, t.len - 2};
    return t;
}

void field_parameter(struct str element, struct str *name, struct str *value)
{
    const char *equals = element.len ? memchr(element.at, '=', element.len) : NULL;
    *name = field_trim(element);
    *value = (struct str){NULL, 0};
    if (!equals)
        return;
    size_t n = (size_t)(equals - element.at);
    *name = field_trim((struct str){element.at, n});
    *value = unquote(field_trim((struct str){equals + 1, element.len - n - 1}));
}

int field_seconds(struct str value, uint32_t *seconds)
{
    uint64_t n = 0;
    if (value.len == 0)
        return -EINVAL;
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] < '0' || value.at[i] > '9')
            return -EINVAL;
        n = n * 10 + (uint64_t)(value.at[i] - '0');
        if (n > AGE_MAX)
            n = AGE_MAX;
    }
    *seconds = (uint32_t)n;
    return 0;
}

int field_age(struct str value, uint32_t *age)
{
    struct str first;
    return field_list_next(&value, &first) ? field_seconds(first, age) : -EINVAL;
}

/* ---- Cache-Control ---- */

/* An age directive; the first that is no number, and any that contradicts an earlier one, makes the
 * response stale (RFC 9111 4.2.1). A window behind freshness that is no number is none. */
static void add_seconds(struct field_cc *cc, uint32_t flag, uint32_t *to, struct str value)
{
    uint32_t seconds;
    bool lifetime = flag == FIELD_CC_MAX_AGE || flag == FIELD_CC_S_MAXAGE;
    if (field_seconds(value, &seconds) != 0) {
        if (lifetime)
            cc->flags |= FIELD_CC_INVALID;
        if (flag != FIELD_CC_SWR && flag != FIELD_CC_SIE)
            return;
        seconds = 0;
    }
    if (!(cc->flags & flag))
        *to = seconds;
    else if (*to != seconds && lifetime)
        cc->flags |= FIELD_CC_INVALID;
    else if (seconds < *to)
        *to = seconds;
    cc->flags |= flag;
}

/* A list of field names, and not longer than is worth looking through for each field. An apostrophe
 * may stand in a token, but no field is named so: it was meant as a quote. */
static bool names_fields(struct str list)
{
    struct str name;
    unsigned n = 0;
    while (field_list_next(&list, &name))
        if (!field_is_token(name) || memchr(name.at, '\'', name.len) || ++n > FIELD_CC_MAX)
            return false;
    return n > 0;
}

/* no-cache and private: a list of fields limits them to those. All of the response is
 * concerned where that list cannot be read (an open quote may hide what stands behind it), and
 * where there is a second one, which does not fit in here. */
static void add_qualified(struct field_cc *cc, uint32_t whole, uint32_t part, struct str *to,
                          struct str value)
{
    if (!value.at || (cc->flags & part) || !names_fields(value)) {
        cc->flags |= whole;
        return;
    }
    cc->flags |= part;
    *to = value;
}

static const struct {
    const char *name;
    uint32_t flag;
} plain[] = {
    {"no-store", FIELD_CC_NO_STORE},
    {"public", FIELD_CC_PUBLIC},
    {"must-revalidate", FIELD_CC_MUST_REVALIDATE},
    {"proxy-revalidate", FIELD_CC_PROXY_REVALIDATE},
    {"must-understand", FIELD_CC_MUST_UNDERSTAND},
    {"no-transform", FIELD_CC_NO_TRANSFORM},
    {"only-if-cached", FIELD_CC_ONLY_IF_CACHED},
    {"immutable", FIELD_CC_IMMUTABLE},
};

static void add_directive(struct field_cc *cc, struct str name, struct str value)
{
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (field_is(name, plain[i].name))
            cc->flags |= plain[i].flag;
    if (field_is(name, "max-age"))
        add_seconds(cc, FIELD_CC_MAX_AGE, &cc->max_age, value);
    else if (field_is(name, "s-maxage"))
        add_seconds(cc, FIELD_CC_S_MAXAGE, &cc->s_maxage, value);
    else if (field_is(name, "min-fresh"))
        add_seconds(cc, FIELD_CC_MIN_FRESH, &cc->min_fresh, value);
    else if (field_is(name, "stale-while-revalidate"))
        add_seconds(cc, FIELD_CC_SWR, &cc->swr, value);
    else if (field_is(name, "stale-if-error"))
        add_seconds(cc, FIELD_CC_SIE, &cc->sie, value);
    else if (field_is(name, "no-cache"))
        add_qualified(cc, FIELD_CC_NO_CACHE, FIELD_CC_NO_CACHE_FIELDS, &cc->no_cache_fields, value);
    else if (field_is(name, "private"))
        add_qualified(cc, FIELD_CC_PRIVATE, FIELD_CC_PRIVATE_FIELDS, &cc->private_fields, value);
    else if (field_is(name, "max-stale") && value.at)
        add_seconds(cc, FIELD_CC_MAX_STALE, &cc->max_stale, value);
    else if (field_is(name, "max-stale")) {
        cc->max_stale = UINT32_MAX;
        cc->flags |= FIELD_CC_MAX_STALE;
    }
}

/* A token, and behind '=' a token or quoted text, or nothing: no field and no directive is named
 * with an apostrophe. */
static bool is_directive(struct str element)
{
    const char *equals = memchr(element.at, '=', element.len);
    const size_t n = equals ? (size_t)(equals - element.at) : element.len;
    const struct str name = field_trim((struct str){element.at, n});
    if (!name.len || !field_is_token(name) || memchr(name.at, '\'', name.len))
        return false;
    if (!equals)
        return true;
    const struct str value = field_trim((struct str){equals + 1, element.len - n - 1});
    return !value.len || field_is_token(value) || unquote(value).len + 2 == value.len;
}

/* White space beside '=' is no Cache-Control syntax: the value does not count, which makes a
 * lifetime invalid and no-cache or private unqualified. */
static void add_element(struct field_cc *cc, struct str element)
{
    struct str name, value;
    const char *equals = memchr(element.at, '=', element.len);
    if (!is_directive(element))
        cc->flags |= FIELD_CC_UNREADABLE;
    field_parameter(element, &name, &value);
    if (equals && equals > element.at && equals + 1 < element.at + element.len &&
        (is_space(equals[-1]) || is_space(equals[1])))
        value = (struct str){NULL, 0};
    add_directive(cc, name, value);
}

void field_cc_add(struct field_cc *cc, struct str value)
{
    struct str element;
    while (!(cc->flags & FIELD_CC_TOO_MANY) && field_list_next(&value, &element)) {
        if (cc->n++ == FIELD_CC_MAX)
            cc->flags |= FIELD_CC_TOO_MANY;
        else
            add_element(cc, element);
    }
}

bool field_surrogate_cc(struct str value, struct field_cc *cc)
{
    struct str element;
    while (field_list_next(&value, &element)) {
        const char *semicolon = memchr(element.at, ';', element.len);
        if (semicolon) {
            size_t n = (size_t)(semicolon - element.at);
            struct str target = {semicolon + 1, element.len - n - 1};
            if (!field_is(field_trim(target), "polder"))
                continue;
            element.len = n;
        }
        if (element.len)
            add_element(cc, element);
    }
    return cc->flags != 0;
}

/* ---- entity tags ---- */

/* Length of the entity tag at the start of t, 0 where there is none. */
static size_t etag_length(struct str t)
{
    size_t i = t.len >= 2 && t.at[0] == 'W' && t.at[1] == '/' ? 2 : 0;
    if (i >= t.len || t.at[i++] != '"')
        return 0;
    for (; i < t.len; i++) {
        unsigned char c = (unsigned char)t.at[i];
        if (c == '"')
            return i + 1;
        if (c <= 0x20 || c == 0x7f)
            return 0;
    }
    return 0;
}

bool field_etag_valid(struct str etag)
{
    return etag.len && etag_length(etag) == etag.len;
}

bool field_etag_unmark(struct str tag, struct str *opaque)
{
    static const char end[] = FIELD_ETAG_MARK "\"";
    const size_t n = sizeof end - 1;
    if (tag.len < 3 + n || tag.at[0] != 'W' || memcmp(tag.at + tag.len - n, end, n) != 0)
        return false;
    *opaque = (struct str){tag.at + 3, tag.len - 3 - n};
    return true;
}

/* mine: of the list; it may be one that we have made weak. */
static bool same_etag(struct str mine, struct str etag, bool weak)
{
    struct str opaque;
    const bool mine_weak = mine.at[0] == 'W', etag_weak = etag.at[0] == 'W';
    if ((mine_weak || etag_weak) && !weak)
        return false;
    if (!etag_weak && field_etag_unmark(mine, &opaque) && opaque.len + 2 == etag.len &&
        memcmp(opaque.at, etag.at + 1, opaque.len) == 0)
        return true;
    if (mine_weak)
        mine.at += 2, mine.len -= 2;
    if (etag_weak)
        etag.at += 2, etag.len -= 2;
    return mine.len == etag.len && memcmp(mine.at, etag.at, mine.len) == 0;
}

bool field_etag_next(struct str *rest, struct str *tag)
{
    while (rest->len) {
        const size_t n = etag_length(*rest);
        size_t skip = n;
        *tag = (struct str){rest->at, n};
        if (n == 0) /* not a tag: on to the next comma */
            while (skip < rest->len && rest->at[skip] != ',')
                skip++;
        while (skip < rest->len && (rest->at[skip] == ',' || is_space(rest->at[skip])))
            skip++;
        rest->at += skip;
        rest->len -= skip;
        if (n)
            return true;
    }
    return false;
}

bool field_etag_listed(struct str list, struct str etag, bool weak)
{
    struct str tag;
    list = field_trim(list);
    if (list.len == 1 && *list.at == '*')
        return true;
    if (!field_etag_valid(etag))
        return false;
    while (field_etag_next(&list, &tag))
        if (same_etag(tag, etag, weak))
            return true;
    return false;
}

/* ---- ranges ---- */

/* Decimal digits from *at on, saturated; false where there are none. */
static bool number(const char **at, const char *end, uint64_t *n)
{
    const char *start = *at;
    for (*n = 0; *at < end && **at >= '0' && **at <= '9'; (*at)++) {
        unsigned digit = (unsigned)(**at - '0');
        *n = *n > (UINT64_MAX - digit) / 10 ? UINT64_MAX : *n * 10 + digit;
    }
    return *at > start;
}

int field_range(struct str value, uint64_t size, uint64_t *first, uint64_t *last)
{
    struct str rest = {value.at, value.len}, spec, more;
    if (value.len < 6 || !field_is((struct str){value.at, 6}, "bytes="))
        return 0;
    rest.at += 6, rest.len -= 6;
    if (!field_list_next(&rest, &spec) || field_list_next(&rest, &more))
        return 0;
    const char *at = spec.at, *end = spec.at + spec.len;
    uint64_t a, b = UINT64_MAX;
    bool has_first = number(&at, end, &a);
    if (at == end || *at++ != '-')
        return 0;
    bool has_last = number(&at, end, &b);
    if (at != end || (!has_first && !has_last) || (has_first && has_last && b < a))
        return 0;
    if (!has_first) { /* the last b bytes */
        if (b == 0 || size == 0)
            return -ERANGE;
        *first = b < size ? size - b : 0;
        *last = size - 1;
        return 1;
    }
    if (a >= size)
        return -ERANGE;
    *first = a;
    *last = has_last && b < size ? b : size - 1;
    return 1;
}

int field_content_range(struct str value, struct field_span *span)
{
    const char *at = value.at + 6, *end = value.at + value.len;
    if (value.len < 6 || !field_is((struct str){value.at, 5}, "bytes") || value.at[5] != ' ')
        return -EINVAL;
    if (!number(&at, end, &span->first) || at == end || *at++ != '-' ||
        !number(&at, end, &span->last) || at == end || *at++ != '/' ||
        !number(&at, end, &span->size) || at != end)
        return -EINVAL;
    return span->first <= span->last && span->last < span->size && span->size < UINT64_MAX
               ? 0
               : -EINVAL;
}

bool field_span_join(const struct field_span *a, const struct field_span *b,
                     struct field_span *joined)
{
    if (a->size != b->size || a->first > b->last + 1 || b->first > a->last + 1)
        return false;
    joined->first = a->first < b->first ? a->first : b->first;
    joined->last = a->last > b->last ? a->last : b->last;
    joined->size = a->size;
    return true;
}

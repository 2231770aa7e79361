/* SPDX-License-Identifier: BSD-2-Clause */
/* h1_cache: reads the caching fields of a head, all lines of each. */
#include "daemons/http/h1_cache.h"
#include <string.h>
#include <strings.h>

/* The lines of a field: for (i = first_of(h, id); i < h->n_fields; i = next_of(h, id, i)) */
static uint32_t next_of(const struct h1_head *h, enum h1_field_id id, uint32_t i)
{
    for (i++; i < h->n_fields && h->field[i].id != id; i++)
        ;
    return i;
}

static uint32_t first_of(const struct h1_head *h, enum h1_field_id id)
{
    return h->first[id] ? h->first[id] - 1u : h->n_fields;
}

static void read_cache_control(const struct h1_head *h, struct field_cc *cc)
{
    for (uint32_t i = first_of(h, H1_CACHE_CONTROL); i < h->n_fields;
         i = next_of(h, H1_CACHE_CONTROL, i))
        field_cc_add(cc, h->field[i].value);
}

static bool pragma_says_no_cache(const struct h1_head *h)
{
    for (uint32_t i = first_of(h, H1_PRAGMA); i < h->n_fields; i = next_of(h, H1_PRAGMA, i)) {
        struct str rest = h->field[i].value, element;
        while (field_list_next(&rest, &element))
            if (field_is(element, "no-cache"))
                return true;
    }
    return false;
}

void h1_policy_request(const struct h1_head *h, struct policy_request *req)
{
    *req = (struct policy_request){
        .is_get = h->is_get,
        .is_head = h->is_head,
        .is_post = h->method.len == 4 && memcmp(h->method.at, "POST", 4) == 0,
        .has_authorization = h->first[H1_AUTHORIZATION] != 0,
        .has_range = h->first[H1_RANGE] != 0,
        .has_origin = h->first[H1_ORIGIN] != 0,
    };
    read_cache_control(h, &req->cc);
    if (!h->first[H1_CACHE_CONTROL] && pragma_says_no_cache(h))
        req->cc.flags |= FIELD_CC_NO_CACHE; /* RFC 9111 5.4 */
}

/* CDN-Cache-Control; *unreadable: it says something that cannot be read. */
static bool read_cdn(const struct h1_head *h, char *scratch, struct field_cc *cc, bool *unreadable)
{
    const struct h1_field *cdn = h1_find(h, H1_CDN_CACHE_CONTROL);
    if (!cdn)
        return false;
    struct str value = cdn->value;
    if (next_of(h, H1_CDN_CACHE_CONTROL, first_of(h, H1_CDN_CACHE_CONTROL)) < h->n_fields)
        value = (struct str){scratch, h1_join(h, H1_CDN_CACHE_CONTROL, scratch, H1_CACHE_SCRATCH)};
    const bool valid = value.len && field_cdn_cc(value, cc);
    *unreadable = !valid && (value.len || value.at == scratch);
    return valid;
}

/* CDN-Cache-Control, else Surrogate-Control, if valid. */
static bool read_targeted(const struct h1_head *h, char *scratch, struct field_cc *cc,
                          bool *unreadable)
{
    if (read_cdn(h, scratch, cc, unreadable))
        return true;
    bool found = false;
    for (uint32_t i = first_of(h, H1_SURROGATE_CONTROL); i < h->n_fields;
         i = next_of(h, H1_SURROGATE_CONTROL, i))
        found = field_surrogate_cc(h->field[i].value, cc) || found;
    return found;
}

/* A date of one line, or several that say the same. */
bool h1_read_date(const struct h1_head *h, enum h1_field_id id, int64_t *seconds)
{
    uint32_t i = first_of(h, id);
    if (i >= h->n_fields || field_date(h->field[i].value, seconds) != 0)
        return false;
    while ((i = next_of(h, id, i)) < h->n_fields) {
        int64_t other;
        if (field_date(h->field[i].value, &other) != 0 || other != *seconds)
            return false;
    }
    return true;
}

/* Of several lines the first counts (RFC 9111 5.1). */
void h1_policy_age(const struct h1_head *h, struct policy_response *resp)
{
    const struct h1_field *age = h1_find(h, H1_AGE);
    resp->has_age = age && field_age(age->value, &resp->age) == 0;
    if (!resp->has_age)
        resp->age = 0;
}

bool h1_vary_next(const struct h1_head *h, struct h1_vary *walk, struct str *name)
{
    while (!field_list_next(&walk->rest, name)) {
        uint32_t i = walk->field ? next_of(h, H1_VARY, walk->field - 1) : first_of(h, H1_VARY);
        if (i >= h->n_fields)
            return false;
        walk->field = i + 1;
        walk->rest = h->field[i].value;
    }
    return true;
}

/* ---- selecting fields ------------------------------------------------------------------------ */

#define SORTED_MAX 32
#define SHADOW     "\1" /* no value has such a byte */

static bool is_unordered(struct str name)
{
    return field_is(name, "accept-language") || field_is(name, "accept-encoding") ||
           field_is(name, "accept-charset");
}

/* Commas and spaces are a part of these values. */
static bool is_opaque(enum h1_field_id id)
{
    return id == H1_COOKIE || id == H1_AUTHORIZATION;
}

/* The byte at *i of an element without white space, in lower case; 0 at the end. */
static unsigned char plain_byte(struct str t, size_t *i)
{
    while (*i < t.len && (t.at[*i] == ' ' || t.at[*i] == '\t'))
        ++*i;
    if (*i == t.len)
        return 0;
    char c = t.at[(*i)++];
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
}

static int compare_plain(struct str a, struct str b)
{
    for (size_t i = 0, j = 0;;) {
        int x = plain_byte(a, &i), y = plain_byte(b, &j);
        if (x != y || x == 0)
            return x - y;
    }
}

static void put_plain(struct h1_out *out, struct str t)
{
    char c;
    for (size_t i = 0; (c = (char)plain_byte(t, &i));)
        h1_put(out, &c, 1);
}

/* Keeps the n first elements sorted; false where there are too many. */
static bool insert_sorted(struct str *sorted, unsigned *n, struct str t)
{
    unsigned at = *n;
    if (at == SORTED_MAX)
        return false;
    for (; at > 0 && compare_plain(sorted[at - 1], t) > 0; at--)
        sorted[at] = sorted[at - 1];
    sorted[at] = t;
    ++*n;
    return true;
}

struct selecting {
    struct h1_out *out;
    bool any; /* something is written */
    bool unordered;
    struct str sorted[SORTED_MAX]; /* to be written at the end */
    unsigned n_sorted;
};

static void put_comma(struct selecting *s)
{
    h1_put(s->out, ",", s->any);
    s->any = true;
}

static void put_line(struct selecting *s, const struct h1_field *f)
{
    struct str rest = f->value, element;
    if (is_opaque(f->id)) {
        put_comma(s);
        h1_put(s->out, f->value.at, f->value.len);
        return;
    }
    while (field_list_next(&rest, &element)) {
        if (s->unordered && insert_sorted(s->sorted, &s->n_sorted, element))
            continue;
        put_comma(s);
        h1_put(s->out, element.at, element.len);
    }
}

/* Is it that name, or with '_' for '-', as which gateways of the CGI kind take it (*shadow)? */
static bool is_named(struct str field, struct str name, bool *shadow)
{
    *shadow = false;
    if (field.len != name.len || !strncasecmp(field.at, name.at, name.len))
        return field.len == name.len;
    if (!memchr(field.at, '_', field.len))
        return false;
    *shadow = true;
    for (size_t i = 0; i < name.len; i++)
        if (!(field.at[i] == '_' && name.at[i] == '-') &&
            strncasecmp(field.at + i, name.at + i, 1) != 0)
            return false;
    return true;
}

bool h1_selecting(const struct h1_head *h, struct str name, struct h1_out *out)
{
    struct selecting s;
    bool found = false;
    s.out = out, s.any = false, s.n_sorted = 0;
    s.unordered = is_unordered(name);
    for (uint32_t i = 0; i < h->n_fields; i++) {
        const struct h1_field *f = &h->field[i];
        bool shadow;
        if (!is_named(f->name, name, &shadow) || h1_is_hop_by_hop(h, f))
            continue;
        found = true;
        h1_put(out, SHADOW, shadow); /* not what the field itself would say */
        put_line(&s, f);
    }
    for (unsigned i = 0; i < s.n_sorted; i++) {
        put_comma(&s);
        put_plain(out, s.sorted[i]);
    }
    return found;
}

/* ---- responses ------------------------------------------------------------------------------- */

/* What cannot be read as names of fields may vary by anything, as "*" does (RFC 9110 12.5.5). */
static void read_vary(const struct h1_head *h, struct policy_response *resp)
{
    struct h1_vary walk = {0};
    struct str name;
    while (h1_vary_next(h, &walk, &name)) {
        resp->vary_star |= field_is(name, "*");
        resp->vary_unreadable |= !field_is_token(name);
    }
}

void h1_policy_response(const struct h1_head *h, int64_t now_s, char scratch[H1_CACHE_SCRATCH],
                        struct policy_response *resp)
{
    *resp = (struct policy_response){
        .status = h->status,
        .has_expires = h->first[H1_EXPIRES] != 0,
        .has_set_cookie = h->first[H1_SET_COOKIE] != 0,
        .has_etag = h1_only(h, H1_ETAG) != NULL,
        .complete_length_known = h->framing == H1_LENGTH || h->framing == H1_NO_BODY,
        .length = h->framing == H1_LENGTH ? h->length : 0,
    };
    read_vary(h, resp);
    read_cache_control(h, &resp->cc);
    resp->has_cdn_cc = read_targeted(h, scratch, &resp->cdn_cc, &resp->cdn_cc_unreadable);
    resp->expires_valid = h1_read_date(h, H1_EXPIRES, &resp->expires);
    resp->has_last_modified = h1_read_date(h, H1_LAST_MODIFIED, &resp->last_modified);
    resp->has_date = true;
    if (!h1_read_date(h, H1_DATE, &resp->date))
        resp->date = now_s;
    h1_policy_age(h, resp);
}

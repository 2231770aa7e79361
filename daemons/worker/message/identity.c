/* SPDX-License-Identifier: BSD-2-Clause */
/* identity: see identity.h. */
#include "daemons/worker/message/identity.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/route_state.h"
#include "polder/config.h"
#include "polder/head_lines.h"
#include "polder/identity.h"
#include "polder/inval.h"
#include "polder/policy.h"
#include "polder/sticky.h"

#include <stdlib.h>
#include <string.h>

#define NAME_SHOWN 40
#define VARY_NAMES 1024

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* ---- rules ---- */

static void make_rules(const struct worker *w, const struct config_route *route,
                       struct identity_rules *rules)
{
    const struct config_cache *cache = route->cache;
    *rules = (struct identity_rules){.cache = cache,
                                     .covers_all = identity_covers_all(cache),
                                     .covers_none = cache->n_partition == 0};
    rules->number = identity_rules_number(w->config, cache);
    identity_filter_make(w->config, cache, &rules->filter);
    for (unsigned id = H1_OTHER + 1; id < H1_FIELD_IDS; id++)
        rules->tells[id] =
            identity_names_header(w->config, cache, h1_field_name((enum h1_field_id)id));
    rules->tells[H1_COOKIE] = true;
}

void identity_prepare(struct worker *w)
{
    for (uint32_t i = 0; i < w->config->n_routes; i++) {
        const struct config_route *route = &w->config->routes[i];
        if (route->cache)
            make_rules(w, route, &w->routes[route->index].identity);
    }
}

static const struct identity_rules *rules_of(const struct request *r)
{
    return &r->worker->routes[r->route->index].identity;
}

/* A field that Connection names does not reach the backend: it says nothing. */
static inline bool tells(const struct worker *w, const struct identity_rules *rules,
                         const struct h1_head *head, const struct h1_field *f)
{
    if (f->id != H1_OTHER)
        return rules->tells[f->id];
    return identity_filter_lets(&rules->filter, f->name) &&
           identity_names_header(w->config, rules->cache, f->name) && !h1_is_hop_by_hop(head, f);
}

/* ---- the fields of a request, one by one ---- */

struct walk {
    uint32_t next;   /* field to look at */
    struct str rest; /* of a Cookie field */
    const struct h1_field *field;
    struct identity_cookie cookie; /* where field is a Cookie: the part of it */
};

static bool next_identity(const struct request *r, struct walk *at)
{
    const struct worker *w = r->worker;
    const struct identity_rules *rules = rules_of(r);
    for (;;) {
        while (at->rest.len && identity_cookie_next(&at->rest, &at->cookie))
            if (!identity_ignores_cookie(w->config, rules->cache, &at->cookie))
                return true;
        if (at->next == r->head->n_fields)
            return false;
        at->field = &r->head->field[at->next++];
        if (!tells(w, rules, r->head, at->field))
            continue;
        if (at->field->id != H1_COOKIE)
            return true;
        at->rest = at->field->value;
    }
}

static bool is_covered(const struct identity_rules *rules, const struct walk *at)
{
    if (rules->covers_all || rules->covers_none)
        return rules->covers_all;
    return at->field->id == H1_COOKIE ? identity_covers_cookie(rules->cache, &at->cookie)
                                      : identity_covers_header(rules->cache, at->field->name);
}

/* ---- classes ---- */

static enum policy_identity class_of(const struct request *r)
{
    const struct identity_rules *rules = rules_of(r);
    struct walk at = {0};
    bool any = false, covered = true;
    while (covered && next_identity(r, &at)) {
        any = true;
        covered = is_covered(rules, &at);
    }
    return !any                                         ? POLICY_ANONYMOUS
           : covered                                    ? POLICY_PARTITION
           : rules->cache->share == CONFIG_SHARE_STATED ? POLICY_SHARED
                                                        : POLICY_OPEN;
}

/* Most requests have no field that could say so. */
static bool says_anything(const struct request *r)
{
    const struct identity_rules *rules = rules_of(r);
    for (uint32_t i = 0; i < r->head->n_fields; i++)
        if (tells(r->worker, rules, r->head, &r->head->field[i]))
            return true;
    return false;
}

void identity_classify(struct request *r)
{
    const enum policy_identity class = says_anything(r) ? class_of(r) : POLICY_ANONYMOUS;
    r->policy.identity = (uint8_t) class;
    r->has_identity = class != POLICY_ANONYMOUS;
    r->drops_cookies = rules_of(r)->cache->share != CONFIG_SHARE_RFC;
    if (rules_of(r)->cache->share != CONFIG_SHARE_RFC)
        r->policy.has_authorization = false; /* it is in the class */
}

/* ---- what may be taken, and made ---- */

/* Is that the field's name, in lower case? One with '_' for '-' selects by it too: h1_selecting().
 */
static bool is_named(const struct walk *at, const char *line, size_t len)
{
    const struct str name = at->field->name;
    if (len != name.len)
        return false;
    for (size_t i = 0; i < len; i++) {
        const char c = name.at[i];
        if (lower(c) != line[i] && !(c == '_' && line[i] == '-'))
            return false;
    }
    return true;
}

/* Lines "name" or "name: value". */
static bool has_line(const struct walk *at, const char *lines, size_t len)
{
    struct str rest = {lines, len}, line, value;
    while (head_line_next(&rest, &line)) {
        const struct str name = head_line_name(line, &value);
        if (is_named(at, name.at, name.len))
            return true;
    }
    return false;
}

static bool names_all(const struct request *r, const char *names, size_t len)
{
    struct walk at = {0};
    while (next_identity(r, &at))
        if (!has_line(&at, names, len))
            return false;
    return true;
}

bool identity_varies_by_any(const struct request *r, const char *names, size_t len)
{
    struct walk at = {0};
    while (next_identity(r, &at))
        if (has_line(&at, names, len))
            return true;
    return false;
}

bool identity_varies_by_all(const struct request *r, const struct h1_head *response)
{
    char names[VARY_NAMES];
    struct h1_out o = {names, names + sizeof names, false};
    struct h1_vary walk = {0};
    struct str name;
    if (r->policy.identity != POLICY_SHARED)
        return false;
    while (h1_vary_next(response, &walk, &name)) {
        for (size_t i = 0; i < name.len; i++) {
            const char c = lower(name.at[i]);
            h1_put(&o, &c, 1);
        }
        h1_put(&o, "\n", 1);
    }
    return !o.overflow && names_all(r, names, (size_t)(o.at - names));
}

bool identity_may_take(const struct request *r, const struct cache_view *v)
{
    if (v->record->flags & CACHE_FOR_OTHERS)
        return true;
    return r->head && v->record->vary_len && names_all(r, v->vary, v->record->vary_len);
}

/* ---- keys ---- */

struct str identity_text(const struct request *r, char space[IDENTITY_TEXT])
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t *secret = inval_secret(r->worker->shared->inval);
    struct cache_key key = {{0}};
    struct walk at = {0};
    bool any = false;
    while (next_identity(r, &at)) {
        const bool cookie = at.field->id == H1_COOKIE;
        const struct str value = cookie ? at.cookie.part : at.field->value;
        struct cache_key part;
        cache_key_of(secret, at.field->name.at, at.field->name.len, value.at, value.len, &part);
        cache_key_variant(secret, &key, (const char *)part.hash, sizeof part.hash, &key);
        any = true;
    }
    for (size_t i = 0; any && i < sizeof key.hash; i++) {
        space[2 * i] = hex[key.hash[i] >> 4];
        space[2 * i + 1] = hex[key.hash[i] & 15];
    }
    return any ? (struct str){space, IDENTITY_TEXT} : (struct str){0};
}

/* Requests that may not share another's response must not wait for it. */
void identity_lock_key(const struct request *r, struct cache_key *key)
{
    static const char name[] = "\nidentity"; /* no field of a variant's has such a name */
    const struct cache_key of = *key;
    if (r->policy.identity == POLICY_SHARED)
        cache_key_variant(inval_secret(r->worker->shared->inval), &of, name, sizeof name - 1, key);
}

/* ---- names ---- */

static void put_name(struct h1_out *o, struct str name)
{
    const size_t n = name.len < NAME_SHOWN ? name.len : NAME_SHOWN;
    for (size_t i = 0; i < n; i++) {
        const char c = name.at[i];
        const bool plain = c > ' ' && c <= '~' && c != '"' && c != '\\' && c != ',';
        h1_put(o, plain ? &c : "?", 1);
    }
    if (n < name.len)
        h1_puts(o, "...");
}

static void put_one(struct h1_out *o, const struct walk *at)
{
    char text[NAME_SHOWN + 1];
    struct str name = at->field->name;
    if (at->field->id == H1_COOKIE) {
        h1_puts(o, "cookie ");
        put_name(o, at->cookie.name.len ? at->cookie.name : (struct str){"?", 1});
        return;
    }
    const size_t n = name.len < sizeof text ? name.len : sizeof text;
    for (size_t i = 0; i < n; i++)
        text[i] = lower(name.at[i]);
    put_name(o, (struct str){text, n});
}

static bool describe(const struct request *r, bool covered, struct h1_out *o)
{
    const struct identity_rules *rules = rules_of(r);
    struct walk at = {0};
    bool any = false;
    while (next_identity(r, &at)) {
        if (is_covered(rules, &at) != covered)
            continue;
        if ((size_t)(o->end - o->at) < NAME_SHOWN + 24) {
            h1_puts(o, ", ...");
            break;
        }
        h1_puts(o, any ? ", " : "");
        put_one(o, &at);
        any = true;
    }
    return any;
}

void identity_describe(const struct request *r, char out[IDENTITY_DETAIL])
{
    struct h1_out o = {out, out + IDENTITY_DETAIL - 1, false};
    h1_puts(&o, "identity: ");
    if (!describe(r, false, &o))
        describe(r, true, &o); /* in the key, yet ambiguous: it can be read in two ways */
    *o.at = 0;
}

/* ---- heads ---- */

bool identity_edits_cookies(const struct request *r)
{
    return r->drops_cookies || (r->worker && r->worker->config->sticky_cookie);
}

bool identity_sends_cookie(const struct request *r, const struct identity_cookie *cookie)
{
    const struct config *config = r->worker->config;
    const struct str name = {STICKY_COOKIE, sizeof STICKY_COOKIE - 1};
    if (config->sticky_cookie && cookie->name.len == name.len &&
        !memcmp(cookie->name.at, name.at, name.len))
        return false;
    return !r->drops_cookies || !identity_ignores_cookie(config, r->route->cache, cookie);
}

static bool keeps_all(const struct request *r, struct str value)
{
    struct identity_cookie part;
    while (identity_cookie_next(&value, &part))
        if (!identity_sends_cookie(r, &part))
            return false;
    return true;
}

static bool put_kept(const struct request *r, struct h1_out *o, struct str value,
                     const char *before)
{
    struct identity_cookie part;
    bool any = false;
    while (identity_cookie_next(&value, &part)) {
        if (!identity_sends_cookie(r, &part))
            continue;
        h1_puts(o, any ? "; " : before);
        h1_put(o, part.part.at, part.part.len);
        any = true;
    }
    return any;
}

void identity_put_cookie(const struct request *r, struct h1_out *o, const struct h1_field *f)
{
    if (keeps_all(r, f->value)) {
        h1_puts(o, "Cookie: ");
        h1_put(o, f->value.at, f->value.len);
        h1_puts(o, "\r\n");
    } else if (put_kept(r, o, f->value, "Cookie: ")) {
        h1_puts(o, "\r\n");
    }
}

bool identity_put_selecting(const struct request *r, struct h1_out *o)
{
    bool any = false;
    for (uint32_t i = 0; i < r->head->n_fields; i++)
        if (r->head->field[i].id == H1_COOKIE)
            any |= put_kept(r, o, r->head->field[i].value, any ? "," : "");
    return any;
}

void identity_strip(const struct request *r, struct h1_head *head)
{
    const struct identity_rules *rules = rules_of(r);
    struct h1_head all;
    h1_copy_head(&all, head);
    head->n_fields = 0;
    memset(head->first, 0, sizeof head->first);
    memset(head->nominated, 0, sizeof head->nominated);
    for (uint32_t i = 0; i < all.n_fields; i++) {
        const struct h1_field *f = &all.field[i];
        const uint32_t to = head->n_fields;
        if (tells(r->worker, rules, &all, f))
            continue;
        head->field[to] = *f;
        if (all.nominated[i / 64] >> (i % 64) & 1)
            head->nominated[to / 64] |= UINT64_C(1) << (to % 64);
        head->n_fields++;
        if (f->id != H1_OTHER && !head->first[f->id])
            head->first[f->id] = (uint16_t)(to + 1);
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* guard: see guard.h. */
#include "daemons/worker/message/guard.h"
#include "daemons/http/h1_cache.h"
#include "daemons/worker/message/identity.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/route_state.h"
#include "polder/cache.h"
#include "polder/config.h"
#include "polder/field.h"
#include "polder/inval.h"
#include "polder/leak_guard.h"

#include <stdio.h>
#include <string.h>

size_t guard_lower_name(struct str name, char out[GUARD_FIELD_NAME])
{
    const size_t n = name.len < GUARD_FIELD_NAME ? name.len : GUARD_FIELD_NAME - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = name.at[i] >= 'A' && name.at[i] <= 'Z' ? (char)(name.at[i] | 0x20) : name.at[i];
    out[n] = 0;
    return n;
}

bool guard_field_tells(const struct config_cache *cache, const struct h1_head *head,
                       const struct h1_field *f)
{
    return guard_tells_who(f->name, cache->guard_fields, cache->n_guard_fields) &&
           !h1_is_hop_by_hop(head, f);
}

static uint64_t kind_of(const struct h1_field *f)
{
    return f->id == H1_AUTHORIZATION ? GUARD_ID_AUTHORIZATION
           : f->id == H1_COOKIE      ? GUARD_ID_COOKIE
                                     : GUARD_ID_OTHER;
}

/* Cookies that do not go to the backend do not count. False: there are no others. */
static bool add_sent_cookies(const struct request *r, const uint8_t *secret, uint64_t *sum)
{
    char text[H1_HEAD_MAX];
    struct h1_out o = {text, text + sizeof text, false};
    struct cache_key key;
    uint64_t part;
    if (!identity_put_selecting(r, &o))
        return false;
    cache_key_of(secret, "cookie", 6, text, (size_t)(o.at - text), &key);
    memcpy(&part, key.hash, sizeof part);
    *sum += part;
    return true;
}

/* Sums of keyed hashes: the order of the fields does not matter. */
uint64_t guard_identity(const struct request *r)
{
    const uint8_t *secret = inval_secret(r->worker->shared->inval);
    uint64_t sum = 0, kinds = 0;
    bool cookies = false;
    for (uint32_t i = 0; i < r->head->n_fields; i++) {
        const struct h1_field *f = &r->head->field[i];
        char name[GUARD_FIELD_NAME];
        struct cache_key key;
        uint64_t part;
        if (!guard_field_tells(r->route->cache, r->head, f))
            continue;
        if (f->id == H1_COOKIE && identity_edits_cookies(r)) {
            cookies = true;
            continue;
        }
        cache_key_of(secret, name, guard_lower_name(f->name, name), f->value.at, f->value.len,
                     &key);
        memcpy(&part, key.hash, sizeof part);
        sum += part;
        kinds |= kind_of(f);
    }
    if (cookies && add_sent_cookies(r, secret, &sum))
        kinds |= GUARD_ID_COOKIE;
    return (sum & ~GUARD_ID_KINDS) | kinds;
}

const char *guard_detail(const struct request *r)
{
    struct route_state *s = &r->worker->routes[r->route->index];
    const struct guard_scope *scope = guard_scope_of(s->guard, r->url, r->url_len);
    char names[GUARD_NAMES + 1] = "";
    if (scope)
        guard_scope_names(scope, names);
    snprintf(s->guard_detail, sizeof s->guard_detail, "quarantined%s%s%s",
             *names ? ": differs by " : "", names,
             !scope || scope == &s->guard->scope[0] ? ""
             : guard_scope_is_prefix(scope)         ? " (this directory)"
                                                    : " (this URL)");
    if (scope == &s->guard->scope[0])
        s->guard_left = s->guard_step = 1; /* once released, it is looked at soon */
    return s->guard_detail;
}

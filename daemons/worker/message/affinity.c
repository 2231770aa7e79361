/* SPDX-License-Identifier: BSD-2-Clause */
/* affinity: see affinity.h. */
#include "daemons/worker/message/affinity.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/worker.h"
#include "polder/clientip.h"
#include "polder/identity.h"
#include "polder/random.h"
#include "polder/shared.h"
#include "polder/stats.h"

#include <string.h>
#include <strings.h>

/* ---- the key ---- */

static void by_client(const struct request *r, struct sticky_key *out)
{
    struct clientip group;
    clientip_group(&r->ip, &group);
    out->hash = sticky_hash(group.addr, sizeof group.addr);
}

static bool cookie_hash(const struct h1_head *head, uint64_t *hash)
{
    struct identity_cookie cookie;
    const struct str name = {STICKY_COOKIE, sizeof STICKY_COOKIE - 1};
    for (uint32_t i = 0; i < head->n_fields; i++) {
        struct str rest = head->field[i].value;
        if (head->field[i].id != H1_COOKIE)
            continue;
        while (identity_cookie_next(&rest, &cookie))
            if (cookie.readable && cookie.name.len == name.len &&
                !memcmp(cookie.name.at, name.at, name.len) &&
                sticky_value_read(cookie.part.at + name.len + 1, cookie.part.len - name.len - 1,
                                  hash))
                return true;
    }
    return false;
}

static void by_cookie(const struct request *r, struct sticky_key *out)
{
    if (cookie_hash(r->head, &out->hash))
        return;
    while (!out->hash)
        random_fill(&out->hash, sizeof out->hash);
    out->fresh = true;
}

/* NULL: it is not there, or in several lines. */
static const struct h1_field *field_named(const struct h1_head *head, const char *name)
{
    const struct h1_field *found = NULL;
    for (uint32_t i = 0; i < head->n_fields; i++) {
        if (!field_is(head->field[i].name, name))
            continue;
        if (found)
            return NULL;
        found = &head->field[i];
    }
    return found && found->value.len && found->value.len <= STICKY_NAME_MAX ? found : NULL;
}

/* Sessions of two upstreams may have the same name. */
static uint64_t session_hash(const struct config_upstream *upstream, struct str name)
{
    const uint64_t of[2] = {sticky_hash(upstream->name, strlen(upstream->name)),
                            sticky_hash(name.at, name.len)};
    return sticky_hash(of, sizeof of);
}

static void by_header(const struct request *r, const struct config_upstream *u,
                      struct sticky_key *out)
{
    struct sticky_page *page = r->worker->shared->sticky;
    const struct h1_field *f = field_named(r->head, u->sticky.name);
    if (!f)
        return;
    out->hash = session_hash(u, f->value);
    out->server = page ? sticky_recall(page, out->hash, r->worker->real_ms) : 0;
}

void affinity_of(const struct request *r, const struct config_upstream *u, struct sticky_key *out)
{
    *out = (struct sticky_key){0};
    if (u->sticky.kind == CONFIG_KEY_NONE || !r->client || !r->head || r->probe)
        return;
    if (u->sticky.kind == CONFIG_KEY_CLIENT)
        by_client(r, out);
    else if (u->sticky.kind == CONFIG_KEY_COOKIE)
        by_cookie(r, out);
    else
        by_header(r, u, out);
    if (out->hash && r->worker->shared->sticky_counts)
        sticky_count(r->worker->shared->sticky_counts, u->name, out->hash);
}

/* ---- answers ---- */

void affinity_learn(const struct worker *w, const struct config_server *server,
                    const struct h1_head *head)
{
    const struct config_upstream *u = server->upstream;
    if (u->sticky.kind != CONFIG_KEY_HEADER || !w->shared->sticky)
        return;
    const struct h1_field *f = field_named(head, u->sticky.name);
    if (f)
        sticky_remember(w->shared->sticky, session_hash(u, f->value), stats_server_id(server),
                        w->real_ms);
}

/* May a cache between here and the client give it to others? */
static bool is_for_all(const struct h1_head *head)
{
    struct str rest, element;
    for (uint32_t i = 0; i < head->n_fields; i++) {
        if (head->field[i].id != H1_CACHE_CONTROL)
            continue;
        rest = head->field[i].value;
        while (field_list_next(&rest, &element))
            if (field_is(element, "public") ||
                (element.len >= 8 && !strncasecmp(element.at, "s-maxage", 8)))
                return true;
    }
    return false;
}

void affinity_put_cookie(struct h1_out *o, const struct sticky_key *key, const struct h1_head *head,
                         bool stored)
{
    char value[STICKY_VALUE];
    if (!key->fresh || stored || (head && is_for_all(head)))
        return;
    sticky_value_write(key->hash, value);
    h1_puts(o, "Set-Cookie: " STICKY_COOKIE "=");
    h1_put(o, value, sizeof value);
    h1_puts(o, "; Path=/; HttpOnly; SameSite=Lax\r\n");
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * key_origin: what a trusted proxy says of the URL that its client sees, where that is not what we
 * see: a backend makes links and redirects of it, so its answers differ by it, and it is part of
 * the key. Proxies pass on what they do not set themselves, and backends know some of these fields,
 * not all: what contradicts the scheme counts, and of a field in two lines both do, for a backend
 * may take either one.
 */
#include "daemons/http/h1_cache.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/request/steps.h"
#include "polder/forwarded.h"

#include <string.h>
#include <strings.h>

/* Members of Forwarded that tell a backend its own scheme and host (RFC 7239 5.3, 5.4). A backend
 * may read any of it where a quote does not end. */
static void put_forwarded_origin(struct h1_out *o, struct str list)
{
    struct str member, pair;
    if (!forwarded_is_closed(list)) {
        h1_put(o, "\nf ", 3);
        h1_put(o, list.at, list.len);
        return;
    }
    while (forwarded_next(&list, &member))
        while (forwarded_pair_next(&member, &pair))
            if ((pair.len > 6 && !strncasecmp(pair.at, "proto=", 6)) ||
                (pair.len > 5 && !strncasecmp(pair.at, "host=", 5))) {
                h1_put(o, "\n", 1);
                h1_put(o, pair.at, pair.len);
            }
}

/* The scheme that backends are told, where they can read that in one way alone. */
enum stated_scheme { STATED_HTTP, STATED_HTTPS, STATED_OTHER };
static enum stated_scheme stated_scheme(const struct h1_head *head)
{
    const struct h1_field *f = h1_only(head, H1_X_FORWARDED_PROTO);
    if (head->first[H1_FORWARDED])
        return STATED_OTHER;
    if (!head->first[H1_X_FORWARDED_PROTO] || (f && field_is(f->value, "http")))
        return STATED_HTTP;
    return f && field_is(f->value, "https") ? STATED_HTTPS : STATED_OTHER;
}

static bool is_in_one_line(const struct h1_head *head, const char *name)
{
    unsigned lines = 0;
    for (uint32_t i = 0; i < head->n_fields; i++)
        lines += head->field[i].id == H1_OTHER && field_is(head->field[i].name, name);
    return lines == 1;
}

/* What else of that family backends look at, unless it says what the scheme says already. */
static bool tells_origin(const struct h1_head *head, const struct h1_field *f)
{
    static const struct {
        const char *name, *usual[STATED_OTHER];
    } known[] = {{"x-forwarded-port", {"80", "443"}},
                 {"x-forwarded-prefix", {"/", "/"}},
                 {"x-forwarded-scheme", {"http", "https"}},
                 {"x-forwarded-ssl", {"off", "on"}}};
    for (size_t i = 0; f->id == H1_OTHER && i < sizeof known / sizeof *known; i++) {
        if (!field_is(f->name, known[i].name))
            continue;
        const enum stated_scheme scheme = stated_scheme(head);
        return scheme == STATED_OTHER || !is_in_one_line(head, known[i].name) ||
               !field_is(f->value, known[i].usual[scheme]);
    }
    return false;
}

void request_put_origin(struct h1_out *o, const struct request *r)
{
    const struct h1_head *head = r->head;
    const bool one_proto = h1_only(head, H1_X_FORWARDED_PROTO),
               one_host = h1_only(head, H1_X_FORWARDED_HOST);
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        const struct str v = f->value;
        if (f->id == H1_FORWARDED) {
            put_forwarded_origin(o, v);
        } else if ((f->id == H1_X_FORWARDED_PROTO && !(one_proto && field_is(v, "http"))) ||
                   (f->id == H1_X_FORWARDED_HOST && !(one_host && v.len == head->host.len &&
                                                      !strncasecmp(v.at, head->host.at, v.len)))) {
            h1_puts(o, f->id == H1_X_FORWARDED_PROTO ? "\np " : "\nh ");
            h1_put(o, v.at, v.len);
        } else if (tells_origin(head, f) && !h1_is_hop_by_hop(head, f)) {
            h1_puts(o, "\n");
            h1_put(o, f->name.at, f->name.len);
            h1_puts(o, " ");
            h1_put(o, v.at, v.len);
        }
    }
}

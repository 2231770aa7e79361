/* SPDX-License-Identifier: BSD-2-Clause */
/* origin: see origin.h. */
#include "daemons/worker/message/origin.h"
#include "daemons/http/h1.h"
#include "daemons/worker/message/request.h"
#include "polder/forwarded.h"

#include <string.h>

/* The last member of a list is what the proxy that we trust has said itself. */
static void take_last(struct str list, struct str *out)
{
    struct str member;
    if (!forwarded_last(&list, &member) || !member.len)
        return;
    *out = member;
    if (member.len >= 2 && *member.at == '"' && member.at[member.len - 1] == '"')
        *out = (struct str){member.at + 1, member.len - 2};
}

/* RFC 7239 5.3, 5.4 */
static void take_forwarded(struct str list, struct str *scheme, struct str *host)
{
    struct str member;
    if (!forwarded_last(&list, &member))
        return;
    forwarded_value(member, "proto=", scheme);
    forwarded_value(member, "host=", host);
}

static void take_proxied(const struct h1_head *head, struct str *scheme, struct str *host)
{
    for (uint32_t i = 0; i < head->n_fields; i++)
        if (head->field[i].id == H1_FORWARDED)
            take_forwarded(head->field[i].value, scheme, host);
    for (uint32_t i = 0; i < head->n_fields; i++) { /* these win, as with many backends */
        if (head->field[i].id == H1_X_FORWARDED_PROTO)
            take_last(head->field[i].value, scheme);
        else if (head->field[i].id == H1_X_FORWARDED_HOST)
            take_last(head->field[i].value, host);
    }
}

static void put_lower(struct h1_out *o, struct str t)
{
    for (size_t i = 0; i < t.len && o->at < o->end; i++)
        *o->at++ = t.at[i] >= 'A' && t.at[i] <= 'Z' ? (char)(t.at[i] | 0x20) : t.at[i];
}

size_t origin_text(const struct request *r, char out[ORIGIN_MAX])
{
    struct h1_out o = {out, out + ORIGIN_MAX, false};
    const char *slash = memchr(r->url, '/', r->url_len);
    struct str scheme = {"http", 4}, host = {r->url, slash ? (size_t)(slash - r->url) : r->url_len};
    if (r->trusted_peer)
        take_proxied(r->head, &scheme, &host);
    if (field_is(scheme, "https") && host.len > 4 && !memcmp(host.at + host.len - 4, ":443", 4))
        host.len -= 4;
    else if (field_is(scheme, "http") && host.len > 3 && !memcmp(host.at + host.len - 3, ":80", 3))
        host.len -= 3;
    put_lower(&o, scheme);
    put_lower(&o, (struct str){"://", 3});
    put_lower(&o, host);
    return (size_t)(o.at - out);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* origin: see origin.h. */
#include "daemons/worker/message/origin.h"
#include "daemons/http/h1.h"
#include "daemons/worker/message/request.h"
#include "polder/field.h"

#include <string.h>
#include <strings.h>

static struct str trimmed(const char *at, const char *end)
{
    const struct str t = field_trim((struct str){at, (size_t)(end - at)});
    const bool quoted = t.len >= 2 && t.at[0] == '"' && t.at[t.len - 1] == '"';
    return quoted ? (struct str){t.at + 1, t.len - 2} : t;
}

/* Up to one of the marks, or to the end; what is quoted is no mark. */
static const char *stop_at(const char *at, const char *end, const char *marks)
{
    for (bool quoted = false; at < end && (quoted || !strchr(marks, *at)); at++)
        quoted ^= *at == '"';
    return at;
}

/* The last member of a list is what the proxy that we trust has said itself. */
static void take_last(struct str value, struct str *out)
{
    const char *at = value.at, *end = value.at + value.len;
    for (const char *stop; (stop = stop_at(at, end, ",")) < end; at = stop + 1) {
    }
    const struct str member = trimmed(at, end);
    if (member.len)
        *out = member;
}

/* RFC 7239 5.3, 5.4 */
static void take_forwarded(struct str value, struct str *scheme, struct str *host)
{
    struct str element = {"", 0};
    take_last(value, &element);
    const char *at = element.at, *end = element.at + element.len;
    while (at < end) {
        const char *stop = stop_at(at, end, ";");
        const struct str pair = trimmed(at, stop);
        if (pair.len > 6 && !strncasecmp(pair.at, "proto=", 6))
            *scheme = trimmed(pair.at + 6, pair.at + pair.len);
        else if (pair.len > 5 && !strncasecmp(pair.at, "host=", 5))
            *host = trimmed(pair.at + 5, pair.at + pair.len);
        at = stop < end ? stop + 1 : end;
    }
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

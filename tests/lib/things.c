/* SPDX-License-Identifier: BSD-2-Clause */
/* things: see things.h. */
#include "things.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BODY_MAX (300u << 10)
#define LINE     64

struct of { /* what a body is made of */
    unsigned number, version, identity, host;
    char lang[8];
};

struct place { /* of a backend */
    struct things *things;
    unsigned host;
};
static struct place places[THING_HOSTS];

enum thing_kind thing_kind(unsigned number)
{
    return number % THING_KINDS;
}

void thing_path(const struct things *t, unsigned number, char out[64])
{
    snprintf(out, 64, "/w%u/p%u/%u", t->world, number % 2, number);
}

/* ---- bodies ---- */

static uint64_t mixed(uint64_t x)
{
    x ^= x >> 33, x *= 0xff51afd7ed558ccd;
    x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53;
    return x ^ x >> 33;
}

static size_t length_of(const struct of *o)
{
    /* the shared cache takes 256 KiB and not a byte more */
    static const size_t lengths[] = {0,      1,      300,    5000,   40000,
                                     100000, 262144, 262145, 300000, 262143};
    const uint64_t by = mixed((uint64_t)o->number << 32 | o->version);
    if (thing_kind(o->number) == LONG)
        return lengths[4 + by % 6];
    return lengths[by % 6];
}

static size_t body_of(const struct of *o, char *out)
{
    const size_t len = length_of(o);
    char head[LINE + 1];
    const int n = snprintf(head, sizeof head, "%u %u %s %u %u\n", o->number, o->version, o->lang,
                           o->identity, o->host);
    const uint64_t seed = mixed((uint64_t)o->number << 40 | (uint64_t)o->version << 8 |
                                (uint64_t)o->identity << 4 | o->host) +
                          (unsigned char)*o->lang;
    const bool is_random = thing_kind(o->number) == ENCODED || o->number % 3 == 0;
    for (size_t i = 0; i < len; i++) {
        if (i % (LINE * 4) < (size_t)n)
            out[i] = head[i % (LINE * 4)];
        else
            out[i] = is_random ? (char)mixed(seed + i) : 'x';
    }
    return len;
}

/* ---- the backend ---- */

static unsigned identity_of(const struct message *m)
{
    const char *at = field_of(m, "Authorization");
    if (at && !strncmp(at, "Bearer u", 8))
        return (unsigned)atoi(at + 8);
    at = field_of(m, "Cookie");
    at = at ? strstr(at, "session=u") : NULL;
    return at ? (unsigned)atoi(at + 9) : 0;
}

static const char *caching_of(enum thing_kind kind)
{
    switch (kind) {
    case ASKED:
        return "no-cache";
    case SHORT:
        return "max-age=1";
    case PRIVATE:
        return "private, max-age=60";
    case UNSTORED:
        return "no-store";
    case PUBLIC:
        return "public, s-maxage=60";
    case REFRESHED:
        return "max-age=1, stale-while-revalidate=60";
    case FORGIVING:
        return "max-age=1, stale-if-error=60";
    case ALWAYS:
        return "max-age=0, must-revalidate";
    default:
        return "max-age=60";
    }
}

bool thing_fits(unsigned number)
{
    const struct of o = {.number = number, .version = 1};
    return length_of(&o) <= 262144;
}

static bool has_entity_tag(enum thing_kind kind)
{
    return kind == LONG || kind == ASKED || kind == ALWAYS;
}

/* Lines of its head, without its length. */
static void describe(const struct things *t, const struct of *o, char *out, size_t size)
{
    const enum thing_kind kind = thing_kind(o->number);
    int n = snprintf(out, size,
                     "X-Version: %u\r\nX-Lang: %s\r\nX-Id: %u\r\nX-Host: %u\r\n"
                     "Cache-Control: %s\r\nCache-Tag: w%ut%u\r\n",
                     o->version, o->lang, o->identity, o->host, caching_of(kind), t->world,
                     o->number % 3);
    if (has_entity_tag(kind))
        n += snprintf(out + n, size - (size_t)n, "ETag: \"%u-%u-%u\"\r\n", o->number, o->version,
                      o->identity);
    if (kind == VARYING)
        n += snprintf(out + n, size - (size_t)n, "Vary: X-Lang\r\n");
    if (kind == ENCODED)
        n += snprintf(out + n, size - (size_t)n, "Content-Encoding: gzip\r\n");
    if (kind == GROUPED)
        snprintf(out + n, size - (size_t)n, "Cache-Groups: \"g%u\"\r\nX-Long: %015000d\r\n",
                 o->number / THING_KINDS % 2, 1);
}

static bool answer_whole(struct asked *ask, const struct things *t, const struct of *o)
{
    static const char *const not_found = "404 Not Found", *const ok = "200 OK";
    const enum thing_kind kind = thing_kind(o->number);
    char *body = malloc(BODY_MAX), lines[16384];
    assert_non_null(body);
    const size_t len = body_of(o, body);
    bool good;
    describe(t, o, lines, sizeof lines);
    if (!strcmp(ask->method, "HEAD")) {
        good = reply(ask, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n",
                     kind == NEGATIVE ? not_found : ok, lines, len);
    } else if (kind == CHUNKED) {
        good = reply(ask, "HTTP/1.1 200 OK\r\n%sTransfer-Encoding: chunked\r\n\r\n", lines);
        for (size_t at = 0, n; at < len && good; at += n) {
            n = len - at < 7000 ? len - at : 7000;
            good = reply(ask, "%zx\r\n", n) && reply_bytes(ask, body + at, n) && reply(ask, "\r\n");
        }
        good = good && reply(ask, "0\r\nX-Trailer: %u\r\n\r\n", o->version);
    } else {
        good = reply(ask, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n",
                     kind == NEGATIVE ? not_found : ok, lines, len) &&
               reply_bytes(ask, body, len);
    }
    free(body);
    return good;
}

static bool is_current(const struct message *m, const struct of *o)
{
    char tag[64];
    const char *asked = field_of(m, "If-None-Match");
    snprintf(tag, sizeof tag, "\"%u-%u-%u\"", o->number, o->version, o->identity);
    return has_entity_tag(thing_kind(o->number)) && asked && strstr(asked, tag);
}

static bool read_thing(struct asked *ask, struct things *t, struct of *o)
{
    const unsigned delay_ms = atomic_load(&t->delay_ms);
    const unsigned nth = atomic_fetch_add(&t->calls[o->number], 1);
    o->version = o->number < THINGS ? atomic_load(&t->version[o->number]) : 1;
    o->identity = identity_of(&ask->m);
    strcpy(o->lang, "-");
    if (has_entity_tag(thing_kind(o->number)))
        o->host = 0; /* one representation, whoever fetches it */
    if (thing_kind(o->number) == VARYING && field_of(&ask->m, "X-Lang"))
        snprintf(o->lang, sizeof o->lang, "%s", field_of(&ask->m, "X-Lang"));
    if (delay_ms)
        nap_ms((unsigned)(mixed(nth + o->number) % delay_ms));
    if (thing_kind(o->number) == FORGIVING && atomic_load(&t->fails))
        return reply(ask, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    char lines[16384];
    describe(t, o, lines, sizeof lines);
    const bool good = is_current(&ask->m, o)
                          ? reply(ask, "HTTP/1.1 304 Not Modified\r\n%s\r\n", lines)
                          : answer_whole(ask, t, o);
    if (o->number < THINGS && atomic_load(&t->version[o->number]) != o->version)
        atomic_store(&t->said_ms[o->number], mono_ms());
    return good;
}

static void change(struct things *t, unsigned number)
{
    if (number < THINGS)
        atomic_fetch_add(&t->version[number], 1);
}

/* X-Also: names another thing that changes with it; X-Group: all of a group do. */
static bool change_things(struct asked *ask, struct things *t, unsigned number)
{
    char lines[200] = "", path[64];
    const char *text = field_of(&ask->m, "X-Also");
    change(t, number);
    if (text) {
        const unsigned other = (unsigned)atoi(text);
        change(t, other);
        thing_path(t, other, path);
        snprintf(lines, sizeof lines, "%s: %s\r\n", other % 2 ? "Location" : "Content-Location",
                 path);
    }
    text = field_of(&ask->m, "X-Group");
    for (unsigned i = 0; text && i < THINGS; i++)
        if (thing_kind(i) == GROUPED && i / THING_KINDS % 2 == (unsigned)atoi(text))
            change(t, i);
    if (text)
        snprintf(lines, sizeof lines, "Cache-Group-Invalidation: \"g%u\"\r\n",
                 (unsigned)atoi(text));
    return reply(ask, "HTTP/1.1 %s\r\n%sContent-Length: 0\r\n\r\n",
                 !strcmp(ask->method, "POST") ? "201 Created" : "200 OK", lines);
}

static bool answers(struct asked *ask)
{
    const struct place *place = ask->arg;
    struct things *t = place->things;
    struct of o = {.host = place->host};
    unsigned world, part;
    if (sscanf(ask->target, "/w%u/p%u/%u", &world, &part, &o.number) != 3 ||
        o.number >= THINGS + COLD_THINGS)
        return reply(ask, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    if (strcmp(ask->method, "GET") != 0 && strcmp(ask->method, "HEAD") != 0)
        return change_things(ask, t, o.number);
    return read_thing(ask, t, &o);
}

void things_start(struct things *t)
{
    for (unsigned i = 0; i < THINGS; i++)
        atomic_store(&t->version[i], 1);
    for (unsigned i = 0; i < THING_HOSTS; i++) {
        places[i] = (struct place){t, i};
        t->backend[i] = backend_start(answers, &places[i]);
    }
}

void things_stop(struct things *t)
{
    for (unsigned i = 0; i < THING_HOSTS; i++)
        backend_stop(t->backend[i]);
}

/* ---- judging ---- */

static char wrong[400];

#define WRONG(...) (snprintf(wrong, sizeof wrong, __VA_ARGS__), wrong)

static unsigned number_of(const struct message *m, const char *name)
{
    const char *text = field_of(m, name);
    return text ? (unsigned)atoi(text) : 0;
}

static bool is_of_the_client(const struct thing_asked *a, const struct of *o)
{
    const enum thing_kind kind = thing_kind(a->number);
    if (o->identity == a->identity)
        return true;
    /* what all may have was made by anybody on that host, or by nobody in particular */
    return kind == PUBLIC && (!o->identity || o->host == a->host);
}

static const char *judge_body(const struct thing_asked *a, const struct of *o,
                              const struct message *m)
{
    static char body[BODY_MAX];
    const size_t len = body_of(o, body);
    size_t from = 0, n = len;
    if (m->status == 206) {
        size_t last, all;
        const char *range = field_of(m, "Content-Range");
        if (!range || sscanf(range, "bytes %zu-%zu/%zu", &from, &last, &all) != 3 || all != len ||
            last < from || last >= len)
            return WRONG("Content-Range is %s, of %zu", range ? range : "missing", len);
        n = last - from + 1;
    }
    if (a->is_head || m->status == 304)
        return NULL;
    if (m->body_len != n)
        return WRONG("%zu bytes, not %zu", m->body_len, n);
    for (size_t i = 0; i < n; i++)
        if (m->body[i] != body[from + i])
            return WRONG("byte %zu differs", from + i);
    return NULL;
}

const char *thing_judge(const struct things *t, const struct thing_asked *a,
                        const struct message *m, unsigned *version)
{
    struct of o = {a->number, number_of(m, "X-Version"), number_of(m, "X-Id"),
                   number_of(m, "X-Host"), "-"};
    const char *lang = field_of(m, "X-Lang");
    *version = 0;
    if (m->status == 416 && a->is_range)
        return NULL;
    if (m->status == 304 && a->is_conditional && !o.version)
        return NULL;
    if (m->status != 200 && m->status != 206 && m->status != 304 && m->status != 404)
        return WRONG("status %d", m->status);
    if ((m->status == 206 && !a->is_range) || (m->status == 304 && !a->is_conditional) ||
        (m->status == 200 && thing_kind(a->number) == NEGATIVE) ||
        (m->status == 404 && thing_kind(a->number) != NEGATIVE))
        return WRONG("status %d, not asked for", m->status);
    if (!m->complete)
        return WRONG("it was cut off");
    if (a->number < THINGS && o.version > atomic_load(&t->version[a->number]))
        return WRONG("version %u, which there is not yet", o.version);
    if (!lang || strcmp(lang, a->lang) != 0)
        return WRONG("language %s, not %s", lang ? lang : "none", a->lang);
    strcpy(o.lang, a->lang);
    if (!is_of_the_client(a, &o))
        return WRONG("fetched for %u by host %u, given to %u", o.identity, o.host, a->identity);
    *version = o.version;
    return judge_body(a, &o, m);
}

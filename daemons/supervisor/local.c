/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * local: routes without a backend are answered here: heartbeats, and invalidations for clients that
 * would rather be told than poll. A client says
 * {"type":"subscribe","tags":["item-7"],"prefix":"/api/items/"}; without that it hears of all.
 */
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/survive.h"
#include "polder/clock.h"
#include "polder/field.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX     256
#define MISTAKES_MAX 8           /* in a row: after these there are no more answers */
#define BEHIND_MAX   (64u << 10) /* bytes of events that a client has not read */

struct subscription {
    bool chosen; /* tells only what is asked for */
    char *prefix;
    char *tags[SUBSCRIPTION_TAGS_MAX];
    unsigned n_tags;
    size_t len;    /* of the message being collected */
    uint8_t *text; /* SUBSCRIPTION_MESSAGE_MAX, while there is one */
    bool overlong;
    uint8_t mistakes; /* in a row */
};

void local_free(struct session *x)
{
    struct subscription *b = x->subscription;
    if (!b)
        return;
    free(b->prefix);
    free(b->text);
    for (unsigned i = 0; i < b->n_tags; i++)
        free(b->tags[i]);
    free(b);
    x->subscription = NULL;
}

void local_describe(const struct session *x, struct subscription_record *r)
{
    const struct subscription *b = x->subscription;
    *r = (struct subscription_record){.prefix = b->prefix,
                                      .n_tags = b->n_tags,
                                      .text = b->text,
                                      .len = b->len,
                                      .overlong = b->overlong,
                                      .mistakes = b->mistakes};
    for (unsigned i = 0; i < b->n_tags; i++)
        r->tags[i] = b->tags[i];
}

bool local_resume(struct session *x, const struct subscription_record *r)
{
    struct subscription *b = x->subscription = calloc(1, sizeof *b);
    if (!b || (r->prefix && !(b->prefix = strdup(r->prefix))) ||
        (r->text && !(b->text = malloc(SUBSCRIPTION_MESSAGE_MAX))))
        return false;
    for (; b->n_tags < r->n_tags; b->n_tags++)
        if (!(b->tags[b->n_tags] = strdup(r->tags[b->n_tags])))
            return false;
    if (r->text)
        memcpy(b->text, r->text, r->len);
    b->len = r->len;
    b->overlong = r->overlong;
    b->mistakes = r->mistakes;
    b->chosen = b->n_tags || b->prefix;
    return true;
}

void local_begin(struct supervisor *s, struct session *x)
{
    struct pending *p = x->pending;
    const struct lines limits = pending_lines(p);
    char head[512 + HANDOVER_LINES_MAX], date[FIELD_DATE_LEN + 1];
    field_date_format((int64_t)(clock_real_ms() / 1000), date);
    x->subscription = calloc(1, sizeof *x->subscription);
    const int n = snprintf(head, sizeof head,
                           "HTTP/1.1 101 Switching Protocols\r\nDate: %s\r\nUpgrade: "
                           "websocket\r\nConnection: Upgrade\r\n%.*sSec-WebSocket-Accept: "
                           "%.28s\r\n\r\n",
                           date, (int)limits.len, limits.at, p->accept_key);
    survive_opened(s, x);
    turn_begin(x);
    if (!x->subscription || !leg_put(s, &x->client, (const uint8_t *)head, (size_t)n)) {
        session_end(s, x, END_FAILED);
        return;
    }
    x->pending = NULL;
    x->head_left = (uint32_t)n;
    session_opened(s, x);
    heartbeat_arm(s, x);
    if (p->pipelined_len)
        relay_feed(s, &x->client, (const uint8_t *)pending_pipelined(p), p->pipelined_len);
    free(p);
    turn_end(s, x);
    if (x->state != SESSION_ENDED)
        relay_watch(s, x);
}

/* ---- what the client says ---- */

static void add_tag(struct subscription *b, const char *tag)
{
    if (b->n_tags < SUBSCRIPTION_TAGS_MAX && strlen(tag) <= TEXT_MAX &&
        (b->tags[b->n_tags] = strdup(tag)))
        b->n_tags++;
}

static void subscribe(struct supervisor *s, struct session *x, const json_t *root)
{
    static const char done[] = "{\"type\":\"subscribed\"}",
                      too_much[] = "{\"type\":\"error\",\"detail\":\"at most 64 tags and a prefix, "
                                   "each a text of at most 256 bytes\"}";
    struct subscription *b = x->subscription;
    const char *prefix = json_string_value(json_object_get(root, "prefix"));
    json_t *tags = json_object_get(root, "tags"), *tag;
    size_t i;
    bool fits = b->n_tags + json_array_size(tags) <= SUBSCRIPTION_TAGS_MAX &&
                (!prefix || strlen(prefix) <= TEXT_MAX);
    json_array_foreach(tags, i, tag) fits &=
        json_is_string(tag) && json_string_length(tag) <= TEXT_MAX;
    if (!fits) { /* half a subscription would be missed events */
        leg_put_frame(s, &x->client, FRAMES_TEXT, too_much, sizeof too_much - 1);
        return;
    }
    json_array_foreach(tags, i, tag)
    {
        if (json_is_string(tag))
            add_tag(b, json_string_value(tag));
    }
    if (prefix && strlen(prefix) <= TEXT_MAX) {
        free(b->prefix);
        b->prefix = strdup(prefix);
    }
    b->chosen = b->n_tags || b->prefix;
    leg_put_frame(s, &x->client, FRAMES_TEXT, done, sizeof done - 1);
}

static void understand(struct supervisor *s, struct session *x)
{
    static const char wrong[] =
        "{\"type\":\"error\",\"detail\":\"only "
        "{\\\"type\\\":\\\"subscribe\\\",\\\"tags\\\":[],\\\"prefix\\\":\\\"\\\"} is understood\"}";
    struct subscription *b = x->subscription;
    json_t *root = b->overlong
                       ? NULL
                       : json_loadb((const char *)b->text, b->len, JSON_REJECT_DUPLICATES, NULL);
    const char *type = json_string_value(json_object_get(root, "type"));
    const bool subscribes = type && !strcmp(type, "subscribe"),
               pong = type && !strcmp(type, "pong");
    b->mistakes = subscribes || pong ? 0 : (uint8_t)(b->mistakes + 1);
    if (subscribes)
        subscribe(s, x, root);
    else if (b->mistakes > MISTAKES_MAX)
        session_close(s, x, 1008, "only subscriptions are understood", END_PROTOCOL);
    else if (!pong)
        leg_put_frame(s, &x->client, FRAMES_TEXT, wrong, sizeof wrong - 1);
    json_decref(root);
    free(b->text);
    b->text = NULL;
    b->len = 0;
    b->overlong = false;
}

/* Bytes of a data piece as they stand on the wire: a header may come first. The frame reader knows
 * what it has taken, so the payload's length follows from it. */
void local_message(struct supervisor *s, struct session *x, const uint8_t *bytes, size_t len)
{
    struct subscription *b = x->subscription;
    const struct frames *f = &x->client.in;
    size_t header = 0;
    if (f->started) { /* this piece began with a header */
        const unsigned small = bytes[1] & 0x7f;
        header = 2 + (small == 126 ? 2u : small == 127 ? 8u : 0u) + 4;
    }
    const size_t n = len - header;
    if (!b->text && !(b->text = malloc(SUBSCRIPTION_MESSAGE_MAX)))
        b->overlong = true;
    for (size_t i = 0; i < n; i++) {
        const uint8_t c = bytes[header + i] ^ f->mask[(f->phase + 4 - (n - i) % 4) & 3];
        if (b->text && b->len < SUBSCRIPTION_MESSAGE_MAX)
            b->text[b->len++] = c;
        else
            b->overlong = true;
    }
    if (f->left == 0 && f->fin)
        understand(s, x);
}

/* ---- what is told ---- */

static bool wants(const struct subscription *b, const char *const *tags, size_t n,
                  const char *prefix)
{
    if (!b->chosen || (!n && !prefix))
        return true;
    for (unsigned i = 0; i < b->n_tags; i++)
        for (size_t k = 0; k < n; k++)
            if (!strcmp(b->tags[i], tags[k]))
                return true;
    if (!b->prefix || !prefix)
        return false;
    /* either one lies below the other */
    const size_t own = strlen(b->prefix), notified = strlen(prefix);
    return !strncmp(b->prefix, prefix, own < notified ? own : notified);
}

unsigned local_invalidated(struct supervisor *s, const char *const *tags, size_t n,
                           const char *prefix)
{
    if (prefix && *prefix != '/') /* clients know their host, and ask by path */
        prefix = strchr(prefix, '/');
    json_t *list = json_array(),
           *event = json_pack("{s:s, s:o, s:o}", "type", "invalidated", "tags", list, "prefix",
                              prefix ? json_string(prefix) : json_null());
    unsigned notified = 0;
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_string(tags[i]));
    char *text = json_dumps(event, JSON_COMPACT);
    json_decref(event);
    for (struct session *x = LIST_FIRST(&s->sessions), *next; text && x; x = next) {
        next = LIST_NEXT(x, entry);
        if (x->state != SESSION_OPEN || x->probe || !x->subscription ||
            !wants(x->subscription, tags, n, prefix))
            continue;
        if (x->client.out.len > BEHIND_MAX) { /* a repeated request is better than a gap */
            session_close(s, x, 1013, "events are read too slowly", END_SHED);
            continue;
        }
        notified += leg_put_frame(s, &x->client, FRAMES_TEXT, text, strlen(text));
        relay_watch(s, x);
    }
    free(text);
    return notified;
}

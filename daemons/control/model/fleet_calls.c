/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_calls: see fleet_calls.h. */
#include "daemons/control/model/fleet_calls.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CLAIM_MS "2000"
#define VARIANTS "64" /* of one URL, the most */
#define KEY_MAX  160

struct words {
    const char *at[16];
    size_t len[16];
    int n;
};

static void add_bytes(struct words *w, const void *bytes, size_t len)
{
    w->at[w->n] = bytes;
    w->len[w->n++] = len;
}

static void add(struct words *w, const char *text)
{
    add_bytes(w, text, strlen(text));
}

static void name_key(const struct fleet_calls *c, char kind, const struct fleet_object_name *name,
                     char out[KEY_MAX])
{
    snprintf(out, KEY_MAX, "polder:{%s}:%c:%s", c->identity.name, kind, name->hex);
}

void fleet_calls_init(struct fleet_calls *c, struct fleet *f)
{
    c->fleet = f;
    fleet_identity(f, &c->identity);
    snprintf(c->stored, sizeof c->stored, "polder:{%s}:stored", c->identity.name);
}

bool fleet_calls_get(const struct fleet_calls *c, const struct fleet_object_name *name,
                     const uint8_t useless[FLEET_MAC], bool claims, fleet_reply_fn done, void *arg)
{
    char object[KEY_MAX], claim[KEY_MAX];
    struct words w = {.n = 0};
    name_key(c, 'o', name, object);
    name_key(c, 'f', name, claim);
    add(&w, object);
    add(&w, claim);
    add(&w, claims ? c->identity.instance : "");
    add(&w, CLAIM_MS);
    add_bytes(&w, useless, FLEET_MAC);
    return fleet_store_run(fleet_link(c->fleet), FLEET_SCRIPT_SHARE_GET, 2, w.n, w.at, w.len, done,
                           arg);
}

static void add_object(struct words *w, const struct fleet_exported *e, const char *nothing_ms)
{
    const bool varies = strcmp(e->name.hex, e->url.hex) != 0;
    add_bytes(w, e->bytes, e->len);
    add(w, nothing_ms);
    add(w, varies ? e->name.hex : "");
    add_bytes(w, e->marks, e->marks_len);
    add(w, VARIANTS);
}

bool fleet_calls_put(const struct fleet_calls *c, const struct fleet_object_name *claim,
                     const struct fleet_exported *e, uint32_t nothing_ms, fleet_reply_fn done,
                     void *arg)
{
    static const struct fleet_exported none = {.bytes = (const uint8_t *)"",
                                               .marks = (const uint8_t *)""};
    char object[KEY_MAX], fetch[KEY_MAX], marks[KEY_MAX], variants[KEY_MAX], ms[24], nothing[16];
    struct words w = {.n = 0};
    e = e ? e : &none;
    name_key(c, 'o', &e->name, object);
    name_key(c, 'f', claim, fetch);
    name_key(c, 'o', &e->url, marks);
    name_key(c, 'v', &e->url, variants);
    snprintf(ms, sizeof ms, "%" PRIu64, e->len ? e->ms : 0);
    snprintf(nothing, sizeof nothing, "%" PRIu32, nothing_ms);
    add(&w, object);
    add(&w, fetch);
    add(&w, c->stored);
    add(&w, marks);
    add(&w, variants);
    add(&w, c->identity.instance);
    add(&w, claim->hex);
    add(&w, ms);
    add_object(&w, e, nothing);
    return fleet_store_run(fleet_link(c->fleet), FLEET_SCRIPT_SHARE_PUT, 5, w.n, w.at, w.len, done,
                           arg);
}

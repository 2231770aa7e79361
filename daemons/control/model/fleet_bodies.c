/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_bodies: see fleet_bodies.h. */
#include "daemons/control/model/fleet_bodies.h"
#include "polder/clock.h"
#include "polder/fleet.h"

#include <stdlib.h>
#include <string.h>

#define BODIES     32
#define ABANDON_MS 5000 /* one that has not grown for so long makes room */

struct fleet_bodies {
    struct body {
        uint64_t stream, grown_ms; /* stream 0: it is free */
        unsigned worker;
        uint32_t incarnation;
        size_t len;
        char *bytes; /* of FLEET_BODY_MAX */
    } at[BODIES];
};

struct fleet_bodies *fleet_bodies_new(void)
{
    return calloc(1, sizeof(struct fleet_bodies));
}

static void drop(struct body *body)
{
    free(body->bytes);
    *body = (struct body){0};
}

void fleet_bodies_free(struct fleet_bodies *b)
{
    for (unsigned i = 0; b && i < BODIES; i++)
        drop(&b->at[i]);
    free(b);
}

static struct body *find(const struct fleet_bodies *b, unsigned worker, uint64_t stream)
{
    for (unsigned i = 0; stream && i < BODIES; i++)
        if (b->at[i].stream == stream && b->at[i].worker == worker)
            return (struct body *)(uintptr_t)&b->at[i];
    return NULL;
}

/* A free place; those that grow keep theirs, or none of many would ever be whole. */
static struct body *place(struct fleet_bodies *b, uint64_t now_ms)
{
    for (unsigned i = 0; i < BODIES; i++)
        if (!b->at[i].stream || now_ms > b->at[i].grown_ms + ABANDON_MS)
            return &b->at[i];
    return NULL;
}

static struct body *begin(struct fleet_bodies *b, unsigned worker, const struct ring_record *head,
                          uint64_t now_ms)
{
    struct body *body = place(b, now_ms);
    if (!body)
        return NULL;
    drop(body);
    body->bytes = malloc(FLEET_BODY_MAX);
    if (!body->bytes)
        return NULL;
    body->stream = head->stream;
    body->worker = worker;
    body->incarnation = head->incarnation;
    return body;
}

void fleet_bodies_add(struct fleet_bodies *b, unsigned worker, const struct ring_record *head,
                      const char *chunk)
{
    const uint64_t now_ms = clock_mono_ms();
    struct body *body = find(b, worker, head->stream);
    uint64_t from;
    if (head->len < sizeof from)
        return;
    memcpy(&from, chunk, sizeof from);
    const size_t len = head->len - sizeof from;
    if (body && (body->incarnation != head->incarnation || !from)) {
        drop(body);
        body = NULL;
    }
    if (!body && head->stream && !from)
        body = begin(b, worker, head, now_ms);
    if (!body)
        return;
    if (from != body->len || len > FLEET_BODY_MAX - body->len) {
        drop(body);
        return;
    }
    memcpy(body->bytes + body->len, chunk + sizeof from, len);
    body->len += len;
    body->grown_ms = now_ms;
}

struct str fleet_bodies_get(const struct fleet_bodies *b, unsigned worker,
                            const struct ring_record *head)
{
    const struct body *body = find(b, worker, head->stream);
    return body && body->incarnation == head->incarnation ? (struct str){body->bytes, body->len}
                                                          : (struct str){"", 0};
}

void fleet_bodies_drop(struct fleet_bodies *b, unsigned worker, uint64_t stream)
{
    struct body *body = find(b, worker, stream);
    if (body)
        drop(body);
}

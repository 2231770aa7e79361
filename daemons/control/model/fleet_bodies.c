/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_bodies: see fleet_bodies.h. */
#include "daemons/control/model/fleet_bodies.h"
#include "polder/fleet.h"

#include <stdlib.h>
#include <string.h>

#define BODIES 32

struct fleet_bodies {
    uint64_t turn;
    struct body {
        uint64_t stream, turn; /* stream 0: it is free */
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

/* A free place, or that of the body that has grown the longest time ago. */
static struct body *begin(struct fleet_bodies *b, unsigned worker, const struct ring_record *head)
{
    struct body *body = &b->at[0];
    for (unsigned i = 1; i < BODIES; i++)
        if (b->at[i].turn < body->turn)
            body = &b->at[i];
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
    struct body *body = find(b, worker, head->stream);
    if (body && body->incarnation != head->incarnation) {
        drop(body);
        body = NULL;
    }
    if (!body && head->stream)
        body = begin(b, worker, head);
    if (!body)
        return;
    if (head->len > FLEET_BODY_MAX - body->len) {
        drop(body);
        return;
    }
    memcpy(body->bytes + body->len, chunk, head->len);
    body->len += head->len;
    body->turn = ++b->turn;
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

/* SPDX-License-Identifier: BSD-2-Clause */
/* fetch_state: the states of a fetch, and what is tied to it: its client, and a watcher. */
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/fetch.h"

#include <assert.h>

#define MAY(state) (1u << (state))
static const unsigned moves[FETCH_STATES] = {
    [FETCH_NEW] =
        MAY(FETCH_COLLAPSED) | MAY(FETCH_BUFFERING) | MAY(FETCH_CONNECT) | MAY(FETCH_DONE),
    [FETCH_BUFFERING] = MAY(FETCH_CONNECT) | MAY(FETCH_DONE),
    [FETCH_COLLAPSED] = MAY(FETCH_NEW) | MAY(FETCH_DONE),
    [FETCH_CONNECT] = MAY(FETCH_HEAD) | MAY(FETCH_WAITING) | MAY(FETCH_DONE),
    [FETCH_WAITING] = MAY(FETCH_CONNECT) | MAY(FETCH_DONE),
    [FETCH_HEAD] = MAY(FETCH_CONNECT) | MAY(FETCH_BODY) | MAY(FETCH_DONE),
    [FETCH_BODY] = MAY(FETCH_DONE),
};

void fetch_move(struct fetch *ex, enum fetch_state to)
{
    assert(moves[ex->state] & MAY(to));
    ex->state = (uint8_t)to;
}

struct client *fetch_let_go(struct fetch *ex)
{
    struct client *c = ex->req.client;
    if (c) {
        if (ex->let_go)
            ex->let_go(ex);
        c->fetch = NULL;
        h1_body_keep_trailer(&c->body, NULL, 0);
    }
    ex->req.client = NULL;
    return c;
}

struct client *fetch_lend_client(struct fetch *ex)
{
    struct client *c = ex->req.client;
    c->fetch = NULL;
    ex->req.client = NULL;
    return c;
}

void fetch_take_client(struct fetch *ex, struct client *c)
{
    c->fetch = ex;
    ex->req.client = c;
}

void fetch_watch(struct fetch *ex, struct fetch_watcher *at)
{
    ex->watcher = at;
    at->fetch = ex;
}

void fetch_unwatch(struct fetch_watcher *at)
{
    if (at->fetch)
        at->fetch->watcher = NULL;
    at->fetch = NULL;
}

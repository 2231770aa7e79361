/* SPDX-License-Identifier: BSD-2-Clause */
/* stop: see stop.h. */
#include "daemons/worker/client/stop.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/client/cut.h"
#include "daemons/worker/worker.h"
#include "polder/proc.h"

void stop_begin(struct worker *w)
{
    struct client *c;
    w->clients->stop_began_ms = w->mono_ms;
    LIST_FOREACH (c, &w->clients->all, entry)
        c->was_there = true;
}

void stop_let_go(struct worker *w)
{
    w->clients->letting_go = true;
}

/* Nothing of a request has come whole: does the connection end now? */
static bool waits_in_vain(const struct client *c)
{
    const bool letting_go = c->worker->clients->letting_go;
    const uint64_t age_ms = c->worker->mono_ms - c->first_ms;
    switch (c->state) {
    case CLIENT_HEAD:
        return (c->was_there || letting_go) && age_ms >= STOP_HEAD_MS;
    case CLIENT_PROXY:
        return c->was_there ? age_ms >= STOP_HEAD_MS : letting_go && age_ms >= STOP_NEW_MS;
    case CLIENT_IDLE: /* before, its timer says when */
        return letting_go && (c->seen_request || age_ms >= STOP_NEW_MS);
    case CLIENT_LINGER:
        return letting_go && age_ms >= STOP_NEW_MS;
    default:
        return false;
    }
}

static bool is_cut_now(const struct client *c)
{
    const struct worker *w = c->worker;
    if (c->state != CLIENT_BUSY || c->cut)
        return false;
    if (w->clients->letting_go) /* what else is not finished in time is cut with the worker */
        return w->clients->ops->streams(c);
    return c->was_there && (w->mono_ms >= w->drain_until_ms ||
                            (w->mono_ms >= w->clients->stop_began_ms + STOP_STREAM_MS &&
                             w->clients->ops->streams(c)));
}

static void client_look(struct client *c)
{
    if (waits_in_vain(c) && c->state == CLIENT_HEAD) {
        c->discard = true;
        c->worker->clients->ops->timed_out(c);
    } else if (waits_in_vain(c)) {
        client_close(c);
    } else if (is_cut_now(c)) {
        cut_client(c);
    } else {
        cut_finish(c);
    }
}

static bool is_waited_for(const struct client *c)
{
    return c->was_there && c->state != CLIENT_LINGER && !c->cut;
}

void stop_look(struct worker *w)
{
    struct client *c, *next;
    bool settled = true;
    for (c = LIST_FIRST(&w->clients->all); c; c = next) {
        next = LIST_NEXT(c, entry);
        client_look(c);
        if (c->state != CLIENT_CLOSED && is_waited_for(c))
            settled = false;
    }
    if (settled && !atomic_exchange(&w->slot->settled, 1))
        shared_wake_master(w->shared);
}

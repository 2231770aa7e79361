/* SPDX-License-Identifier: BSD-2-Clause */
/* cut: see cut.h. */
#include "daemons/worker/client/cut.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/worker.h"
#include "polder/log.h"
#include "polder/proc.h"

#define OUT_MS 500 /* for what was received to get out to slow readers */

void cut_count(struct worker *w, const struct client *c)
{
    if (c->state == CLIENT_BUSY && !c->cut)
        atomic_fetch_add(&w->slot->cut, 1);
}

void cut_client(struct client *c)
{
    struct worker *w = c->worker;
    const struct client_ops *ops = w->clients->ops;
    if (c->held)
        ops->end_hold(c);
    if (c->state == CLIENT_LINGER || c->state == CLIENT_CLOSED || c->answered)
        return; /* nothing is missing but that it is read */
    if (c->state != CLIENT_BUSY) {
        client_close(c);
        return;
    }
    cut_count(w, c);
    c->cut = true;
    if (!c->out.len && !c->stored && !ops->response_begun(c)) {
        ops->unanswered(c);
        return;
    }
    c->note.cut = "drain";
    ops->let_go(c);
    if (!c->out.len)
        client_close(c);
}

void cut_begin(struct worker *w)
{
    struct client *c, *next;
    uint32_t n = 0;
    w->clients->cut = true;
    w->clients->cut_until_ms = w->mono_ms + OUT_MS;
    for (c = LIST_FIRST(&w->clients->all); c; c = next) {
        next = LIST_NEXT(c, entry);
        cut_client(c);
        n += c->cut;
    }
    if (n)
        log_warning("worker: %u requests are cut: the time to finish them is over", n);
}

void cut_finish(struct client *c)
{
    if (c->state == CLIENT_BUSY && c->cut && !c->answered && !c->out.len && !c->stored)
        client_close(c);
}

bool cut_is_over(struct worker *w)
{
    struct client *c, *next;
    for (c = LIST_FIRST(&w->clients->all); c; c = next) {
        next = LIST_NEXT(c, entry);
        cut_finish(c);
    }
    return LIST_EMPTY(&w->clients->all) || w->mono_ms >= w->clients->cut_until_ms;
}

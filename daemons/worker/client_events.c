/* SPDX-License-Identifier: BSD-2-Clause */
/* client_events: see client_events.h. */
#include "daemons/worker/client_events.h"
#include "daemons/worker/background/budget.h"
#include "daemons/worker/cache/long_poll.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/client/repeat.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/leak_guard/leak_guard.h"
#include "daemons/worker/request/access.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/worker.h"
#include "polder/problem.h"

static void on_cut(struct client *c)
{
    access_gone(c);
}

static void on_gone(struct client *c)
{
    if (c->n_inside)
        limits_leave(c);
    if (c->exchange)
        fetch_client_left(c->exchange);
    long_poll_drop(c);
    answer_stop(c);
    repeat_forget(c);
    accept_dismiss(c);
}

static void on_writable(struct client *c)
{
    if (c->stored)
        answer_continue(c);
    else if (c->exchange)
        upstream_resume(c->exchange->up);
}

static bool response_begun(const struct client *c)
{
    return c->exchange && c->exchange->status;
}

static uint64_t held_until_ms(const struct client *c)
{
    return long_poll_due(c);
}

static void on_end_hold(struct client *c)
{
    long_poll_end(c);
}

static void on_timed_out(struct client *c)
{
    const struct request *r = c->exchange ? &c->exchange->req : NULL;
    if (r)
        fetch_drop_client(c->exchange);
    else
        access_unread(c, NULL, 0);
    response_problem(r, c, PROBLEM_REQUEST_TIMEOUT, "", "", false);
}

void client_events_init(struct worker *w)
{
    static const struct client_ops ops = {.on = {client_on_readable, client_on_writable},
                                          .use_input = client_use_input,
                                          .watch_read = client_watch_read,
                                          .cut = on_cut,
                                          .gone = on_gone,
                                          .writable = on_writable,
                                          .response_begun = response_begun,
                                          .held_until_ms = held_until_ms,
                                          .end_hold = on_end_hold,
                                          .describe_held = long_poll_describe,
                                          .timed_out = on_timed_out};
    static const struct hit_ops hit_ops = {
        .soon_stale = refresh_note, .look = guard_look, .begin = guard_begin, .retry = guard_retry};
    static const struct hold_ops hold_ops = {long_poll_unchanged, long_poll_for_fetch};
    w->client_ops = &ops;
    w->hold_ops = &hold_ops;
    w->hit_ops = &hit_ops;
}

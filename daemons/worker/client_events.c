/* SPDX-License-Identifier: BSD-2-Clause */
/* client_events: see client_events.h. */
#include "daemons/worker/client_events.h"
#include "daemons/worker/background/budget.h"
#include "daemons/worker/request/limits.h"
#include "daemons/worker/request/long_poll.h"
#include "daemons/worker/cache/lookup.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/request/repeat.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/leak_guard/leak_guard.h"
#include "daemons/worker/message/access.h"
#include "daemons/worker/request/limits_wait.h"
#include "daemons/worker/request/steps.h"
#include "daemons/worker/worker.h"
#include "polder/problem.h"
#include "polder/stats.h"

static void on_cut(struct client *c)
{
    if (!access_is_wanted(c->worker))
        return;
    struct request r;
    if (c->line)
        access_cut(c);
    else if (c->fetch)
        fetch_log_lost(c->fetch);
    else if (c->held)
        access_lost(c, long_poll_describe(c, &r) ? &r : NULL, 0, 0);
    else if (c->state == CLIENT_HEAD) {
        access_unread(c, NULL, 0);
        access_lost(c, NULL, 0, 0);
    }
}

static void on_body(struct client *c, struct h1_spans *spans, bool end)
{
    request_body_feed(c->fetch, spans, end);
}

static void on_body_malformed(struct client *c)
{
    struct fetch *ex = c->fetch;
    const bool begun = c->answered || (ex && ex->status);
    stats_add(c->worker->stats, STATS_BAD_REQUESTS, 1);
    if (begun || c->state == CLIENT_DISCARD) {
        c->note.cut = "bad-request";
        on_cut(c);
        if (ex)
            fetch_drop_client(ex);
        client_break(c);
        return;
    }
    c->discard = true;
    if (ex)
        fetch_drop_client(ex);
    response_problem(ex ? &ex->req : NULL, c, PROBLEM_BAD_REQUEST, "", "", false);
}

static void on_refused(struct client *c, const char *members)
{
    response_problem(NULL, c, PROBLEM_UNAVAILABLE, "Retry-After: 1\r\n", members, false);
}

static void on_gone(struct client *c)
{
    if (c->n_inside)
        client_leave_limits(c);
    if (c->fetch)
        fetch_client_left(c->fetch);
    long_poll_drop(c);
    limits_wait_drop(c);
    answer_stop(c);
    repeat_forget(c);
    accept_dismiss(c);
}

static void on_writable(struct client *c)
{
    if (c->stored)
        answer_continue(c);
    else if (c->fetch)
        upstream_resume(c->fetch->up);
}

static bool response_begun(const struct client *c)
{
    return c->fetch && c->fetch->status;
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
    const struct request *r = c->fetch ? &c->fetch->req : NULL;
    limits_wait_drop(c);
    if (r)
        fetch_drop_client(c->fetch);
    else
        access_unread(c, NULL, 0);
    response_problem(r, c, PROBLEM_REQUEST_TIMEOUT, "", "", false);
}

static void on_unanswered(struct client *c)
{
    const struct request *r = c->fetch ? &c->fetch->req : NULL;
    limits_wait_drop(c);
    if (r)
        fetch_drop_client(c->fetch);
    response_problem(r, c, PROBLEM_UNAVAILABLE, "Retry-After: 1\r\n",
                     ",\"reason\":\"this process is being replaced\"", false);
}

static bool on_streams(const struct client *c)
{
    return c->fetch && c->fetch->up && c->fetch->up->event_stream;
}

static void on_let_go(struct client *c)
{
    on_cut(c);
    limits_wait_drop(c);
    if (c->fetch)
        fetch_drop_client(c->fetch);
}

void client_events_init(struct worker *w)
{
    static const struct client_ops ops = {.on = {client_on_readable, client_on_writable},
                                          .begin = client_begin,
                                          .use_input = client_use_input,
                                          .watch_read = client_watch_read,
                                          .head = request_read,
                                          .body = on_body,
                                          .body_malformed = on_body_malformed,
                                          .refused = on_refused,
                                          .out = access_sent,
                                          .cut = on_cut,
                                          .gone = on_gone,
                                          .writable = on_writable,
                                          .response_begun = response_begun,
                                          .streams = on_streams,
                                          .held_until_ms = held_until_ms,
                                          .end_hold = on_end_hold,
                                          .unanswered = on_unanswered,
                                          .let_go = on_let_go,
                                          .timed_out = on_timed_out};
    static const struct hit_ops hit_ops = {
        .soon_stale = refresh_note, .look = guard_look, .begin = guard_begin, .retry = guard_retry};
    static const struct hold_ops hold_ops = {long_poll_unchanged, long_poll_for_fetch};
    w->clients->ops = &ops;
    w->fetches->look_again = request_look_again;
    w->long_polls->again = w->limits->waiters.again = request_again;
    w->lookups->hold_ops = &hold_ops;
    w->lookups->hit_ops = &hit_ops;
}

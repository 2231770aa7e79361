/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fetch_events: what a connection to a backend tells the fetch that it works for, and which part of
 * the fetch takes that. The one place where the parts above a connection are known by name.
 */
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/worker.h"

static void on_connected(void *user)
{
    fetch_send(user);
}

static void on_unconnected(void *user, const struct upstream_error *e)
{
    retry_unconnected(user, e);
}

static void on_failed(void *user, const struct upstream_error *e, bool timeout)
{
    retry_broken(user, e, timeout);
}

static size_t on_readable(void *user, char *at, size_t len)
{
    return response_receive(user, at, len);
}

static bool on_ended(void *user)
{
    return response_eof(user);
}

static void on_writable(void *user)
{
    request_body_resume(user);
}

static void on_out_of_memory(void *user)
{
    fetch_fail(user, PROBLEM_UNAVAILABLE);
}

static bool is_slow(const void *user)
{
    const struct fetch *ex = user;
    const struct client *c = ex->req.client;
    return c && c->body_pending && c->body_wanted;
}

static void on_closed(void *user)
{
    struct fetch *ex = user;
    ex->up = NULL;
}

void fetch_events_init(struct worker *w)
{
    static const struct upstream_ops ops = {.connected = on_connected,
                                            .unconnected = on_unconnected,
                                            .failed = on_failed,
                                            .readable = on_readable,
                                            .ended = on_ended,
                                            .writable = on_writable,
                                            .out_of_memory = on_out_of_memory,
                                            .is_slow = is_slow,
                                            .closed = on_closed};
    w->fetches->upstream_ops = &ops;
}

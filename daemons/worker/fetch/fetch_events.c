/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fetch_events: what a connection to a backend tells the fetch that it works for, and which part of
 * the fetch takes that. The one place where the parts above a connection are known by name.
 */
#include "daemons/worker/client/client.h"
#include "daemons/worker/fetch/fetch.h"
#include "daemons/worker/fetch/upstream.h"
#include "daemons/worker/uncounted.h"
#include "daemons/worker/worker.h"

/* What probes cause is not counted. */
static struct stats_slab *counts_enter(const struct fetch *ex)
{
    return ex->req.probe ? uncounted_begin(ex->worker) : ex->worker->stats;
}

static void on_connected(void *user)
{
    struct fetch *ex = user;
    struct stats_slab *counts = counts_enter(ex);
    fetch_send(ex);
    uncounted_end(ex->worker, counts);
}

static void on_unconnected(void *user, const struct upstream_error *e)
{
    struct fetch *ex = user;
    struct stats_slab *counts = counts_enter(ex);
    retry_unconnected(ex, e);
    uncounted_end(ex->worker, counts);
}

static void on_failed(void *user, const struct upstream_error *e, bool timeout)
{
    struct fetch *ex = user;
    struct stats_slab *counts = counts_enter(ex);
    retry_broken(ex, e, timeout);
    uncounted_end(ex->worker, counts);
}

static size_t on_readable(void *user, char *at, size_t len)
{
    struct fetch *ex = user;
    struct stats_slab *counts = counts_enter(ex);
    const size_t used = response_receive(ex, at, len);
    uncounted_end(ex->worker, counts);
    return used;
}

static bool on_ended(void *user)
{
    struct fetch *ex = user;
    struct stats_slab *counts = counts_enter(ex);
    const bool whole = response_eof(ex);
    uncounted_end(ex->worker, counts);
    return whole;
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
    w->upstream_ops = &ops;
}

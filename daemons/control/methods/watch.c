/* SPDX-License-Identifier: BSD-2-Clause */
/* watch: the last requests and events, behind those that the caller has. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "polder/clock.h"
#include "polder/recent.h"

#include <errno.h>
#include <string.h>

#define ROWS_MAX 256 /* of each kind in one answer */

/* ---- what is asked for ---- */

static bool is_noun(const char *word)
{
    const char *at = RECENT_NOUNS;
    const size_t len = strlen(word);
    for (; *at; at += strspn(at, " ")) {
        const size_t n = strcspn(at, " ");
        if (n == len && !memcmp(at, word, n))
            return true;
        at += n;
    }
    return false;
}

static const msgpack_object *nouns_of(const struct rpc_call *call)
{
    const msgpack_object *list = rpc_in_get(call->params, "noun");
    return list && list->type == MSGPACK_OBJECT_ARRAY && list->via.array.size ? list : NULL;
}

/* No noun: all. */
static bool is_wanted(const msgpack_object *nouns, const char *noun)
{
    for (uint32_t i = 0; nouns && i < nouns->via.array.size; i++)
        if (rpc_in_is(&nouns->via.array.ptr[i], noun))
            return true;
    return !nouns;
}

static bool nouns_are_known(struct control *c, const struct rpc_call *call)
{
    const msgpack_object *nouns = nouns_of(call);
    char word[32];
    for (uint32_t i = 0; nouns && i < nouns->via.array.size; i++)
        if (rpc_in_object_text(&nouns->via.array.ptr[i], word, sizeof word) < 0 || !is_noun(word)) {
            call_error(c, call->reply, RPC_BAD_ARGUMENT, "watch: there is %s", RECENT_NOUNS);
            return false;
        }
    return true;
}

/* The number to begin with; absent: what comes from now on. */
static bool read_from(struct control *c, const struct rpc_call *call, const char *name,
                      uint64_t next, uint64_t *from)
{
    const int code = rpc_in_u64(call->params, name, UINT64_MAX, from);
    if (code == -ENOENT)
        *from = next;
    else if (code)
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "watch: %s is a whole number", name);
    return code == 0 || code == -ENOENT;
}

/* ---- answers ---- */

static void put_request(struct rpc_out *o, const struct recent_request *q)
{
    rpc_out_map(o, NULL);
    rpc_out_u64(o, "number", q->number);
    rpc_out_f64(o, "time", (double)q->real_ms / 1000);
    rpc_out_str(o, "noun", "requests");
    rpc_out_str(o, "method", q->method);
    rpc_out_str(o, "target", q->target);
    rpc_out_str(o, "route", q->route);
    rpc_out_u64(o, "status", q->status);
    rpc_out_f64(o, "seconds", (double)q->us / 1e6);
    rpc_out_str(o, "cache", q->cache);
    rpc_out_str(o, "detail", q->detail);
    rpc_out_str(o, "limit_decision", q->limit_decision);
    rpc_out_str(o, "limit", q->limit);
    rpc_out_str(o, "key", q->key);
    rpc_out_str(o, "client", q->client);
    rpc_out_u64(o, "stands_for", q->stands_for);
    rpc_out_end(o);
}

static void put_requests(struct control *c, struct rpc_out *o, bool wanted, uint64_t from)
{
    struct recent_request row[ROWS_MAX];
    uint64_t lost = 0;
    size_t n = 0;
    if (wanted) {
        recent_watch(c->shared->recent, clock_mono_ms());
        n = recent_read_requests(c->shared->recent, &from, row, ROWS_MAX, &lost);
    }
    rpc_out_list(o, "requests");
    for (size_t i = 0; i < n; i++)
        put_request(o, &row[i]);
    rpc_out_end(o);
    rpc_out_u64(o, "next_request", from);
    rpc_out_u64(o, "lost_requests", lost);
}

static void put_event(struct rpc_out *o, const struct recent_event *e)
{
    rpc_out_map(o, NULL);
    rpc_out_u64(o, "number", e->number);
    rpc_out_f64(o, "time", (double)e->real_ms / 1000);
    rpc_out_str(o, "noun", e->noun);
    rpc_out_str(o, "what", e->what);
    rpc_out_str(o, "subject", e->subject);
    rpc_out_u64(o, "count", e->count);
    rpc_out_str(o, "detail", e->detail);
    rpc_out_end(o);
}

static void put_events(struct control *c, struct rpc_out *o, const msgpack_object *nouns,
                       uint64_t from)
{
    struct recent_event row[ROWS_MAX];
    uint64_t lost;
    const size_t n = recent_read_events(c->shared->recent, &from, row, ROWS_MAX, &lost);
    rpc_out_list(o, "events");
    for (size_t i = 0; i < n; i++)
        if (is_wanted(nouns, row[i].noun))
            put_event(o, &row[i]);
    rpc_out_end(o);
    rpc_out_u64(o, "next_event", from);
    rpc_out_u64(o, "lost_events", lost);
}

void watch_run(struct control *c, const struct rpc_call *call)
{
    const struct recent_page *page = c->shared->recent;
    const msgpack_object *nouns = nouns_of(call);
    uint64_t requests, events;
    if (!nouns_are_known(c, call) ||
        !read_from(c, call, "requests", recent_requests_next(page), &requests) ||
        !read_from(c, call, "events", recent_events_next(page), &events))
        return;
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    put_requests(c, o, is_wanted(nouns, "requests"), requests);
    put_events(c, o, nouns, events);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

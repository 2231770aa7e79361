/* SPDX-License-Identifier: BSD-2-Clause */
/* cache: cache.stats, list, show, why and invalidate. */
#include "daemons/control/call.h"
#include "daemons/control/control.h"
#include "daemons/control/methods/methods.h"
#include "daemons/control/model/cache_names.h"
#include "daemons/control/model/fleet_member.h"
#include "daemons/control/model/invalidation.h"
#include "daemons/control/model/quarantine.h"
#include "daemons/control/model/traffic.h"
#include "polder/config.h"
#include "polder/inval.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cache_stats(struct control *c, const struct rpc_call *call)
{
    const struct stats_slab *s = c->shared->stats;
    struct cache_sums sums;
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    traffic_cache_sums(s, &sums);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "ready", stats_gauge_total(s, STATS_GAUGE_CACHE_READY) > 0);
    rpc_out_u64(o, "items", stats_gauge_total(s, STATS_GAUGE_CACHE_ITEMS));
    rpc_out_u64(o, "max_items", values.cache.max_items);
    rpc_out_u64(o, "bytes", stats_gauge_total(s, STATS_GAUGE_CACHE_BYTES));
    rpc_out_u64(o, "max_bytes", values.cache.max_bytes);
    rpc_out_f64(o, "hit_rate", sums.hit_rate);
    rpc_out_u64(o, "hits", sums.hits);
    rpc_out_u64(o, "stale", sums.stale);
    rpc_out_u64(o, "misses", sums.misses);
    rpc_out_f64(o, "miss_rate", sums.miss_rate);
    rpc_out_f64(o, "mean_response_seconds", traffic_mean_response_s(s));
    static const struct {
        const char *key;
        enum stats_counter counter;
    } more[] = {
        {"collapsed", STATS_CACHE_COLLAPSED},
        {"revalidated", STATS_CACHE_REVALIDATED},
        {"refreshed", STATS_CACHE_REFRESHED},
        {"refresh_missed", STATS_CACHE_REFRESH_MISSED},
        {"bypass", STATS_CACHE_BYPASS},
        {"stores", STATS_CACHE_STORES},
        {"evictions", STATS_CACHE_EVICTIONS},
        {"expired", STATS_CACHE_EXPIRED},
        {"invalidations", STATS_CACHE_INVALIDATIONS},
        {"invalidated", STATS_CACHE_INVALIDATED},
        {"ring_full", STATS_CACHE_RING_FULL},
        {"bad_records", STATS_CACHE_BAD_RECORDS},
        {"rotations", STATS_CACHE_ROTATIONS},
    };
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        rpc_out_u64(o, more[i].key, stats_total(s, more[i].counter));
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- what is stored ---- */

void cache_list(struct control *c, const struct rpc_call *call)
{
    static const char *const others[] = {"limit", "cursor"};
    char text[CACHE_URL_SIZE], prefix[CACHE_URL_SIZE];
    const int given = rpc_in_text(call->params, "prefix", text, sizeof text);
    const int len = given > 0 ? cache_prefix_normal(text, prefix, sizeof prefix) : 0;
    if (given == -EINVAL || len < 0) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "prefix is HOST/PATH or /PATH");
        return;
    }
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    if (len)
        rpc_out_strn(&params, "prefix", prefix, (size_t)len);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const msgpack_object *value = rpc_in_get(call->params, others[i]);
        if (value)
            rpc_out_object(&params, others[i], value);
    }
    rpc_out_end(&params);
    call_forward(c, call->reply, &c->peers.keeper, "cache.list", &params);
}

/* The URL as it is keyed; its length, or the call is answered. */
static int url_of(struct control *c, const struct rpc_call *call, char *url, size_t size)
{
    char text[CACHE_URL_SIZE];
    int len = rpc_in_text(call->params, "url", text, sizeof text);
    if (len > 0)
        len = cache_url_normal(c->config, text, url, size);
    if (len <= 0)
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "url is http://HOST/PATH, HOST/PATH or, on all hosts, /PATH");
    return len;
}

/* other: a parameter that goes along as it came, if it did; or NULL. */
static void forward_url(struct control *c, const struct rpc_call *call, const char *method,
                        const char *url, size_t len, const char *other)
{
    const msgpack_object *value = other ? rpc_in_get(call->params, other) : NULL;
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_strn(&params, "url", url, len);
    if (value)
        rpc_out_object(&params, other, value);
    rpc_out_end(&params);
    call_forward(c, call->reply, &c->peers.keeper, method, &params);
}

void cache_show(struct control *c, const struct rpc_call *call)
{
    char url[CACHE_URL_SIZE];
    const int len = url_of(c, call, url, sizeof url);
    if (len > 0)
        forward_url(c, call, "cache.show", url, (size_t)len, NULL);
}

/* What cache why says in quarantine, in a static buffer; NULL: it is not. */
static const char *why_quarantined(const struct control *c, const struct config_route *route,
                                   const char *url, size_t len)
{
    static char text[GUARD_NAMES + GUARD_URL + 160];
    char names[GUARD_NAMES + 1], covers[GUARD_URL + 2];
    const struct guard_scope *s = quarantine_of(c, route, url, len);
    if (!s)
        return NULL;
    quarantine_names(s, names);
    guard_scope_covers(s, covers);
    snprintf(text, sizeof text,
             "passes to the backend: %s is quarantined, its responses "
             "differ by %s; see cache guard",
             *covers ? covers : "the route", names);
    return text;
}

void cache_why(struct control *c, const struct rpc_call *call)
{
    char url[CACHE_URL_SIZE], summary[GUARD_NAMES + GUARD_URL + 192];
    const int len = url_of(c, call, url, sizeof url);
    if (len <= 0)
        return;
    const struct config_route *route = cache_url_route(c->config, url, (size_t)len);
    const char *quarantined =
        route && route->cache ? why_quarantined(c, route, url, (size_t)len) : NULL;
    if (route && route->cache && !quarantined) {
        /* it depends on what is stored */
        forward_url(c, call, "cache.why", url, (size_t)len, "accept-encoding");
        return;
    }
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_strn(o, "url", url, (size_t)len);
    rpc_out_str(o, "route", route ? route->pattern : "");
    const char *next = quarantined ? quarantined
                       : route     ? "passes to the backend: the route has no cache section"
                                   : "404: no route matches";
    rpc_out_bool(o, "cache", quarantined != NULL);
    rpc_out_str(o, "next", next);
    snprintf(summary, sizeof summary, "the next GET %s%s", route ? "" : "gets ", next);
    rpc_out_str(o, "summary", summary);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- invalidate ---- */

static bool mark_url(struct control *c, const struct rpc_call *call, struct invalidation *in)
{
    in->len = url_of(c, call, in->text, sizeof in->text);
    if (in->len > 0)
        invalidate_url(c, in);
    return in->len > 0;
}

static bool mark_prefix(struct control *c, const struct rpc_call *call, struct invalidation *in)
{
    char text[CACHE_URL_SIZE];
    in->len = rpc_in_text(call->params, "prefix", text, sizeof text);
    /* what no stored URL begins with would be done, and do nothing */
    const bool host_alone = !strchr(text, '/');
    if (in->len > 0 && (strpbrk(text, " \t\r\n*") ||
                        (host_alone && !strpbrk(text, ".:") && strcmp(text, "localhost")))) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "prefix is HOST/PATH or, on all hosts, /PATH, without spaces and '*': all that "
                   "begins with it is meant");
        return false;
    }
    if (in->len > 0)
        in->len = cache_prefix_normal(text, in->text, sizeof in->text);
    const int code = invalidate_prefix(c, in);
    if (code == -EINVAL)
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "prefix is HOST/PATH or, on all hosts, /PATH");
    else if (code == -ENAMETOOLONG)
        call_error(c, call->reply, RPC_BAD_ARGUMENT,
                   "a prefix has at most %d bytes; a shorter one invalidates more",
                   INVAL_PREFIX_MAX);
    else if (code)
        call_error(c, call->reply, RPC_BUSY,
                   "%d prefixes are being swept already; try again in a moment, or use --all",
                   INVAL_BANS);
    return code == 0;
}

static bool mark_tag(struct control *c, const struct rpc_call *call, struct invalidation *in)
{
    in->len = rpc_in_text(call->params, "tag", in->text, sizeof in->text);
    if (in->len <= 0) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "tag is a word of at most %d bytes",
                   CACHE_URL_SIZE);
        return false;
    }
    invalidate_tag(c, in);
    return true;
}

static bool mark_all(struct control *c, const struct rpc_call *call, struct invalidation *in)
{
    if (!rpc_in_flag(call->params, "all")) {
        call_error(c, call->reply, RPC_BAD_ARGUMENT, "all is true or not there");
        return false;
    }
    invalidate_all(c, in);
    return true;
}

struct invalidated {
    struct control *control;
    struct rpc_reply *reply;
    struct invalidation in;
};

static void put_fleet(struct rpc_out *o, const struct fleet_result *r)
{
    rpc_out_str(o, "fleet", r->connected ? "member" : "cut off");
    rpc_out_u64(o, "hosts", r->hosts);
    if (r->missing)
        rpc_out_str(o, "not_reached", r->missing_names);
}

/* What stands before the first slash: "items/1" is a path of the host "items". */
static void put_host(struct rpc_out *o, const struct invalidation *in)
{
    const char *slash = memchr(in->text, '/', (size_t)in->len);
    if ((in->kind == SWEEP_URL || in->kind == SWEEP_PREFIX) && slash != in->text)
        rpc_out_strn(o, "host", in->text, slash ? (size_t)(slash - in->text) : (size_t)in->len);
}

/* result NULL: no other host is asked. */
static void answer_invalidated(struct rpc_reply *reply, const struct invalidation *in,
                               const struct fleet_result *result)
{
    struct rpc_out *o = rpc_reply_result(reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "invalidated", in->what);
    if (in->len)
        rpc_out_strn(o, in->what, in->text, (size_t)in->len);
    put_host(o, in);
    rpc_out_bool(o, "soft", in->soft);
    rpc_out_u64(o, "seq", in->seq);
    if (result)
        put_fleet(o, result);
    rpc_out_end(o);
    rpc_reply_send(reply);
}

static void on_notified(void *arg, const struct fleet_result *result)
{
    struct invalidated *done = arg;
    answer_invalidated(done->reply, &done->in, result);
    free(done);
}

static enum fleet_kind fleet_kind_of(const struct invalidation *in)
{
    switch (in->kind) {
    case SWEEP_URL:
        return FLEET_URL;
    case SWEEP_TAG:
        return FLEET_TAG;
    case SWEEP_PREFIX:
        return FLEET_PREFIX;
    default:
        return in->len ? FLEET_PATH : FLEET_ALL;
    }
}

void cache_invalidate(struct control *c, const struct rpc_call *call)
{
    struct invalidation in = {.soft = rpc_in_flag(call->params, "soft")};
    const bool done = rpc_in_get(call->params, "url")      ? mark_url(c, call, &in)
                      : rpc_in_get(call->params, "prefix") ? mark_prefix(c, call, &in)
                      : rpc_in_get(call->params, "tag")    ? mark_tag(c, call, &in)
                                                           : mark_all(c, call, &in);
    if (!done)
        return;
    struct invalidated *notified =
        rpc_in_flag(call->params, "local") ? NULL : malloc(sizeof *notified);
    if (notified)
        *notified = (struct invalidated){c, call->reply, in};
    if (fleet_member_tell(c, fleet_kind_of(&in), in.soft, in.text, (size_t)in.len,
                          in.seq ? in.seq - 1 : 0, notified ? on_notified : NULL, notified) &&
        notified)
        return; /* answered by on_notified() */
    free(notified);
    answer_invalidated(call->reply, &in, NULL);
}

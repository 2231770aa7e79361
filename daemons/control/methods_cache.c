/* SPDX-License-Identifier: BSD-2-Clause */
/* methods_cache: cache.stats, list, show, invalidate and set. */
#include "daemons/control/control.h"
#include "daemons/control/model/traffic.h"
#include "polder/config.h"
#include "polder/inval.h"
#include "polder/ring.h"
#include "polder/route.h"
#include "polder/url.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define URL_MAX 8400 /* a target of 8 KiB and a host */

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

/* ---- what a person writes ---- */

/* "http://HOST/…", "HOST/…" or "/…" as prefixes are compared: host in lower case, path normalised,
 * query as it is. Returns the length or a negative errno. */
static int prefix_normal(const char *text, char *out, size_t size)
{
    if (!strncasecmp(text, "http://", 7))
        text += 7;
    else if (!strncasecmp(text, "https://", 8))
        text += 8;
    const size_t host = strcspn(text, "/");
    if (host && text[host - 1] == ':' && text[host] && text[host + 1] == '/')
        return -EINVAL; /* "ftp://" */
    const char *path = text[host] ? text + host : "/";
    const size_t path_len = strcspn(path, "?");
    size_t n = 0;
    if (strlen(text) + 2 > size)
        return -ENAMETOOLONG;
    for (; n < host; n++)
        out[n] = text[n] >= 'A' && text[n] <= 'Z' ? (char)(text[n] | 0x20) : text[n];
    if (n > 3 && !memcmp(out + n - 3, ":80", 3))
        n -= 3;
    else if (n > 1 && out[n - 1] == ':')
        n--;
    const int written = route_path_normal(path, path_len, out + n, size - n);
    if (written < 0)
        return written;
    n += (size_t)written;
    const size_t query = strlen(path + path_len);
    if (n + query >= size)
        return -ENAMETOOLONG;
    memcpy(out + n, path + path_len, query + 1);
    return (int)(n + query);
}

/* "/path?query" of all hosts. */
static int path_normal(const struct control *c, const char *text, char *out, size_t size)
{
    const struct config_route *route;
    const size_t len = strcspn(text, "#"), path_len = strcspn(text, "?#");
    const struct str host = {text, 0}, path = {text, path_len};
    struct str query = {NULL, 0};
    if (text[path_len] == '?')
        query = (struct str){text + path_len + 1, len - path_len - 1};
    return url_normalise(c->config, host, path, query, out, size, &route);
}

void cache_list(struct control *c, const struct rpc_call *call)
{
    static const char *const others[] = {"limit", "cursor"};
    char text[URL_MAX], prefix[URL_MAX];
    const int given = rpc_in_text(call->params, "prefix", text, sizeof text);
    const int len = given > 0 ? prefix_normal(text, prefix, sizeof prefix) : 0;
    if (given == -EINVAL || len < 0) {
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, "prefix is HOST/PATH or /PATH");
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
    admin_forward(c, call->reply, &c->peers.keeper, "cache.list", &params);
}

/* The URL as it is keyed; RPC_OK or the call is answered. */
static int url_of(struct control *c, const struct rpc_call *call, char *url, size_t size)
{
    char text[URL_MAX];
    const struct config_route *route;
    int len = rpc_in_text(call->params, "url", text, sizeof text);
    if (len > 0 && text[0] == '/')
        len = path_normal(c, text, url, size);
    else if (len > 0)
        len = url_normalise_text(c->config, text, (size_t)len, url, size, &route);
    if (len <= 0)
        admin_error(c, call->reply, RPC_BAD_ARGUMENT,
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
    admin_forward(c, call->reply, &c->peers.keeper, method, &params);
}

void cache_show(struct control *c, const struct rpc_call *call)
{
    char url[URL_MAX];
    const int len = url_of(c, call, url, sizeof url);
    if (len > 0)
        forward_url(c, call, "cache.show", url, (size_t)len, NULL);
}

/* The route of a URL as url_of() gives it. */
static const struct config_route *route_of(const struct control *c, const char *url, size_t len)
{
    const char *path = memchr(url, '/', len);
    if (!path)
        return NULL;
    const size_t rest = len - (size_t)(path - url);
    const char *mark = memchr(path, '?', rest);
    return route_find(c->config, path, mark ? (size_t)(mark - path) : rest);
}

void cache_why(struct control *c, const struct rpc_call *call)
{
    char url[URL_MAX];
    const int len = url_of(c, call, url, sizeof url);
    if (len <= 0)
        return;
    const struct config_route *route = route_of(c, url, (size_t)len);
    const char *quarantined = route && route->cache ? guard_why(c, route) : NULL;
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
    rpc_out_str(o, "summary", next);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

/* ---- invalidate ---- */

enum { SWEEP_URL, SWEEP_TAG, SWEEP_PREFIX, SWEEP_ALL }; /* ring_sweep.kind */

struct invalidation {
    const char *what; /* url, path, tag, prefix, all */
    uint32_t kind;
    bool soft;
    uint64_t seq;
    int len;
    char text[URL_MAX];
};

/* It holds already; this only lets the keeper delete soon what is of no use any more. A full ring
 * costs nothing but room. */
static void tell_keeper(struct control *c, const struct invalidation *in)
{
    const struct ring_record head = {.type = RING_SWEEP, .incarnation = c->process->incarnation};
    struct ring_sweep sweep = {
        .seq = in->seq, .kind = in->kind, .soft = in->soft, .len = (uint32_t)in->len};
    struct iovec iov[2] = {{&sweep, sizeof sweep}, {(void *)(uintptr_t)in->text, (size_t)in->len}};
    ring_push(c->shared->ring[SHARED_RING_CONTROL], &head, iov, 2, c->shared->keeper_event);
}

/* For clients of routes that Polder answers alone: they would rather be told than poll. */
static void tell_supervisor(struct control *c, const struct invalidation *in)
{
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    if (in->kind == SWEEP_TAG)
        rpc_out_strn(&params, "tag", in->text, (size_t)in->len);
    else if (in->len)
        rpc_out_strn(&params, in->kind == SWEEP_PREFIX ? "prefix" : "url", in->text,
                     (size_t)in->len);
    else
        rpc_out_str(&params, "prefix", "/");
    rpc_out_end(&params);
    peers_tell_supervisor(&c->peers, "ws.invalidated", &params);
}

static bool mark_url(struct control *c, const struct rpc_call *call, struct invalidation *in)
{
    struct inval_page *page = c->shared->inval;
    in->len = url_of(c, call, in->text, sizeof in->text);
    if (in->len <= 0)
        return false;
    if (in->text[0] == '/') { /* the keeper has to look at all to find it */
        in->what = "path";
        in->kind = SWEEP_ALL;
        in->seq = inval_mark_path(page, in->text, (size_t)in->len, in->soft);
    } else {
        in->what = "url";
        in->kind = SWEEP_URL;
        in->seq = inval_mark_url(page, in->text, (size_t)in->len, in->soft);
    }
    return true;
}

static bool mark_prefix(struct control *c, const struct rpc_call *call, struct invalidation *in)
{
    char text[URL_MAX];
    in->what = "prefix";
    in->kind = SWEEP_PREFIX;
    in->len = rpc_in_text(call->params, "prefix", text, sizeof text);
    /* what no stored URL begins with would be done, and do nothing */
    const bool host_alone = !strchr(text, '/');
    if (in->len > 0 && (strpbrk(text, " \t\r\n*") ||
                        (host_alone && !strpbrk(text, ".:") && strcmp(text, "localhost")))) {
        admin_error(c, call->reply, RPC_BAD_ARGUMENT,
                    "prefix is HOST/PATH or, on all hosts, /PATH, without spaces and '*': all that "
                    "begins with it is meant");
        return false;
    }
    if (in->len > 0)
        in->len = prefix_normal(text, in->text, sizeof in->text);
    const int code = in->len <= 0 ? -EINVAL
                                  : inval_mark_prefix(c->shared->inval, in->text, (size_t)in->len,
                                                      in->soft, &in->seq);
    if (code == -EINVAL)
        admin_error(c, call->reply, RPC_BAD_ARGUMENT,
                    "prefix is HOST/PATH or, on all hosts, /PATH");
    else if (code == -ENAMETOOLONG)
        admin_error(c, call->reply, RPC_BAD_ARGUMENT,
                    "a prefix has at most %d bytes; a shorter one invalidates more",
                    INVAL_PREFIX_MAX);
    else if (code)
        admin_error(c, call->reply, RPC_BUSY,
                    "%d prefixes are being swept already; try again in a moment, or use --all",
                    INVAL_BANS);
    return code == 0;
}

static bool mark_tag(struct control *c, const struct rpc_call *call, struct invalidation *in)
{
    in->what = "tag";
    in->kind = SWEEP_TAG;
    in->len = rpc_in_text(call->params, "tag", in->text, sizeof in->text);
    if (in->len <= 0) {
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, "tag is a word of at most %d bytes", URL_MAX);
        return false;
    }
    in->seq = inval_mark_tag(c->shared->inval, in->text, (size_t)in->len, in->soft);
    return true;
}

static bool mark_all(struct control *c, const struct rpc_call *call, struct invalidation *in)
{
    in->what = "all";
    in->kind = SWEEP_ALL;
    if (!rpc_in_flag(call->params, "all")) {
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, "all is true or not there");
        return false;
    }
    in->seq = inval_mark_all(c->shared->inval, in->soft);
    return true;
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
    stats_add(c->stats, STATS_CACHE_INVALIDATIONS, 1);
    shared_wake_holders(c->shared);
    tell_keeper(c, &in);
    tell_supervisor(c, &in);
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_str(o, "invalidated", in.what);
    if (in.len)
        rpc_out_strn(o, in.what, in.text, (size_t)in.len);
    rpc_out_bool(o, "soft", in.soft);
    rpc_out_u64(o, "seq", in.seq);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void cache_forget_prefix(struct control *c, const char *path)
{
    struct invalidation in = {.what = "prefix", .kind = SWEEP_PREFIX};
    in.len = prefix_normal(path, in.text, sizeof in.text);
    if (in.len <= 0 ||
        inval_mark_prefix(c->shared->inval, in.text, (size_t)in.len, false, &in.seq)) {
        in.kind = SWEEP_ALL;
        in.len = 0;
        in.seq = inval_mark_all(c->shared->inval, false);
    }
    stats_add(c->stats, STATS_CACHE_INVALIDATIONS, 1);
    shared_wake_holders(c->shared);
    tell_keeper(c, &in);
    tell_supervisor(c, &in);
}

/* ---- set ---- */

#define SET_MAX 16

static bool set_one(struct control *c, const struct rpc_call *call, const msgpack_object_kv *kv,
                    struct runtime_cache *cache, struct setting *setting)
{
    char why[160];
    memset(setting, 0, sizeof *setting);
    strcpy(setting->section, "cache");
    if (rpc_in_object_text(&kv->key, setting->key, 64) < 0 ||
        rpc_in_object_text(&kv->val, setting->value, 64) < 0) {
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, "set is a map of short texts and numbers");
        return false;
    }
    switch (runtime_cache_set(cache, setting->key, setting->value, why, sizeof why)) {
    case 0:
        return true;
    case -ENOENT:
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, "unknown key %s; %s", setting->key, why);
        return false;
    default:
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, "%s = \"%s\" is wrong; %s would be right",
                    setting->key, setting->value, why);
        return false;
    }
}

static void put_cache(struct rpc_out *o, const char *key, const struct runtime_cache *cache)
{
    rpc_out_map(o, key);
    if (cache->ttl_heuristic)
        rpc_out_str(o, "ttl", "heuristic");
    else
        rpc_out_u64(o, "ttl_ms", cache->ttl_ms);
    rpc_out_u64(o, "ttl_negative_ms", cache->ttl_negative_ms);
    rpc_out_u64(o, "max_items", cache->max_items);
    rpc_out_u64(o, "max_bytes", cache->max_bytes);
    rpc_out_u64(o, "max_body_bytes", cache->max_body);
    rpc_out_u64(o, "stale_while_revalidate_ms", cache->stale_while_revalidate_ms);
    rpc_out_u64(o, "stale_if_error_ms", cache->stale_if_error_ms);
    rpc_out_end(o);
}

static void publish(struct control *c, const struct runtime_cache *cache)
{
    struct config_region *region[SHARED_REGIONS];
    struct runtime_values values;
    const uint64_t one = 1;
    const size_t n = control_live_regions(c, region);
    for (size_t i = 0; i < n; i++) {
        runtime_read(&region[i]->runtime, &values);
        values.cache = *cache;
        runtime_publish(&region[i]->runtime, &values);
    }
    const ssize_t written = write(c->shared->keeper_event, &one, sizeof one);
    (void)written; /* EAGAIN: it wakes anyway */
}

static void answer_change(const struct rpc_call *call, bool persisted,
                          const struct runtime_cache *before, const struct runtime_cache *after)
{
    struct rpc_out *o = rpc_reply_result(call->reply);
    rpc_out_map(o, NULL);
    rpc_out_bool(o, "persisted", persisted);
    put_cache(o, "before", before);
    put_cache(o, "after", after);
    rpc_out_end(o);
    rpc_reply_send(call->reply);
}

void cache_set(struct control *c, const struct rpc_call *call)
{
    const msgpack_object *set = rpc_in_get(call->params, "set");
    const bool persist = rpc_in_flag(call->params, "persist");
    struct setting setting[SET_MAX];
    struct runtime_values values;
    runtime_read(c->runtime, &values);
    const struct runtime_cache before = values.cache;
    if (set->via.map.size > SET_MAX) {
        admin_error(c, call->reply, RPC_BAD_ARGUMENT, "at most %d keys at once", SET_MAX);
        return;
    }
    for (uint32_t i = 0; i < set->via.map.size; i++)
        if (!set_one(c, call, &set->via.map.ptr[i], &values.cache, &setting[i]))
            return;
    if (values.cache.max_body > config_max_body_of(values.cache.max_bytes)) {
        admin_error(c, call->reply, RPC_BAD_ARGUMENT,
                    "max_body (%llu bytes) is more than a quarter of max_bytes (%llu bytes), which "
                    "is the longest body that the store takes; set both",
                    (unsigned long long)values.cache.max_body,
                    (unsigned long long)values.cache.max_bytes);
        return;
    }
    if (persist && !settings_keep(c, call, setting, set->via.map.size))
        return;
    publish(c, &values.cache);
    answer_change(call, persist, &before, &values.cache);
}

void cache_revert(struct control *c, const struct rpc_call *call)
{
    struct runtime_values values;
    if (!settings_drop(c, call, "cache", NULL))
        return;
    runtime_read(c->runtime, &values);
    publish(c, &c->config->cache.value);
    answer_change(call, false, &values.cache, &c->config->cache.value);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* plan: what the running configuration says, where it is to be seen, and what to ask for. */
#include "admin/verify/verify.h"
#include "polder/rpc_in.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* ---- where ---- */

static int plan_wrong(const char *what, const char *text)
{
    fprintf(stderr, "polderctl: verify: %s \"%.200s\"\n", what, text);
    return CTL_USAGE;
}

static void plan_loopback(struct sockaddr_storage *sa)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)sa;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)sa;
    if (sa->ss_family == AF_INET && v4->sin_addr.s_addr == htonl(INADDR_ANY))
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (sa->ss_family == AF_INET6 && !memcmp(&v6->sin6_addr, &in6addr_any, sizeof in6addr_any))
        v6->sin6_addr = in6addr_loopback;
}

/* "HOST:PORT", "[V6]:PORT" or "HOST", of len bytes. */
static int plan_resolve(struct verify *v, const char *text, size_t len)
{
    char host[256], port[8] = "80";
    const char *colon = memrchr(text, ':', len), *bracket = memrchr(text, ']', len);
    if (colon && (!bracket || colon > bracket)) {
        snprintf(port, sizeof port, "%.*s", (int)(text + len - colon - 1), colon + 1);
        snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    } else {
        snprintf(host, sizeof host, "%.*s", (int)len, text);
    }
    const size_t n = strlen(host);
    const bool bare = host[0] == '[' && n > 2 && host[n - 1] == ']';
    if (bare)
        host[n - 1] = 0;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    const int code = getaddrinfo(host + bare, port, &hints, &found);
    if (code || !found) {
        fprintf(stderr, "polderctl: verify: %s:%s: %s\n", host, port, gai_strerror(code));
        return CTL_FAILED;
    }
    memcpy(&v->address, found->ai_addr, found->ai_addrlen);
    v->address_len = found->ai_addrlen;
    freeaddrinfo(found);
    plan_loopback(&v->address);
    snprintf(v->host, sizeof v->host, "%.*s", (int)len, text);
    return 0;
}

static int plan_unix(struct verify *v, const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path)
        return plan_wrong("the path of that socket is too long:", path);
    strcpy(sa.sun_path, path);
    memcpy(&v->address, &sa, sizeof sa);
    v->address_len = sizeof sa;
    strcpy(v->host, "localhost");
    return 0;
}

/* http://HOST[:PORT][/PATH] */
static int plan_url(struct verify *v, const char *url)
{
    if (!strncmp(url, "https://", 8))
        return plan_wrong("TLS is not spoken; give the address that the proxy in front of Polder "
                          "connects to, as http://HOST:PORT, instead of",
                          url);
    const char *text = strncmp(url, "http://", 7) ? url : url + 7;
    const size_t len = strcspn(text, "/");
    for (const char *at = text; *at; at++)
        if (*at <= ' ' || *at > '~')
            return plan_wrong("spaces and such stand in", url);
    if (len == 0 || len > 255 || strlen(text + len) >= sizeof v->path || strpbrk(text, "@#"))
        return plan_wrong("expected http://HOST:PORT or http://HOST:PORT/PATH, not", url);
    if (text[len] && text[len + 1])
        snprintf(v->path, sizeof v->path, "%s", text + len);
    snprintf(v->where, sizeof v->where, "http://%.*s", (int)len, text);
    return plan_resolve(v, text, len);
}

static int plan_address(struct verify *v, const char *url)
{
    const msgpack_object *list = rpc_in_get(v->plan.result, "listeners");
    char text[128];
    if (url)
        return plan_url(v, url);
    v->proxy_protocol = rpc_in_flag(v->plan.result, "proxy_protocol");
    if (!list || list->type != MSGPACK_OBJECT_ARRAY || !list->via.array.size ||
        rpc_in_object_text(&list->via.array.ptr[0], text, sizeof text) <= 0) {
        fputs("polderctl: verify: Polder names no address that it listens on; give its URL\n",
              stderr);
        return CTL_FAILED;
    }
    snprintf(v->where, sizeof v->where, "%s%s", strncmp(text, "unix:", 5) ? "http://" : "", text);
    return strncmp(text, "unix:", 5) ? plan_resolve(v, text, strlen(text)) : plan_unix(v, text + 5);
}

/* ---- what ---- */

static const msgpack_object *member_list(const msgpack_object *map, const char *key, uint32_t *n)
{
    const msgpack_object *list = rpc_in_get(map, key);
    const bool good = list && list->type == MSGPACK_OBJECT_ARRAY;
    *n = good ? list->via.array.size : 0;
    return good ? list->via.array.ptr : NULL;
}

static void read_ws(struct verify *v, struct route_plan *r)
{
    uint32_t n;
    const msgpack_object *list = member_list(v->ws.result, "routes", &n);
    for (uint32_t i = 0; i < n; i++) {
        const msgpack_object *name = rpc_in_get(&list[i], "route");
        if (!name || !rpc_in_is(name, r->pattern))
            continue;
        const msgpack_object *values = rpc_in_get(&list[i], "values");
        rpc_in_u64(values, "max_connections", UINT64_MAX, &r->ws.max_connections);
        rpc_in_u64(values, "max_per_client", UINT64_MAX, &r->ws.max_per_client);
        rpc_in_u64(values, "interval_ms", UINT64_MAX, &r->ws.interval_ms);
        rpc_in_u64(values, "timeout_ms", UINT64_MAX, &r->ws.timeout_ms);
        rpc_in_text(values, "heartbeat", r->ws.heartbeat, sizeof r->ws.heartbeat);
    }
}

static void read_route(struct verify *v, const msgpack_object *o, struct route_plan *r)
{
    rpc_in_text(o, "route", r->pattern, sizeof r->pattern);
    rpc_in_text(o, "verify", r->verify, sizeof r->verify);
    r->upstream = rpc_in_flag(o, "upstream");
    r->cache = rpc_in_flag(o, "cache");
    r->websocket = rpc_in_flag(o, "websocket");
    r->poll = rpc_in_u64(o, "min_interval_ms", UINT64_MAX, &r->min_interval_ms) == 0;
    r->cost = 1;
    rpc_in_u64(o, "cost", UINT64_MAX, &r->cost);
    r->limits = rpc_in_get(o, "limits");
    if (r->websocket)
        read_ws(v, r);
}

static void read_limit(const msgpack_object *o, struct limit_plan *l)
{
    rpc_in_text(o, "name", l->name, sizeof l->name);
    rpc_in_text(o, "algorithm", l->algorithm, sizeof l->algorithm);
    rpc_in_u64(o, "requests", UINT64_MAX, &l->requests);
    rpc_in_u64(o, "file_requests", UINT64_MAX, &l->file_requests);
    rpc_in_u64(o, "window_ms", UINT64_MAX, &l->window_ms);
    l->dry_run = rpc_in_flag(o, "dry_run");
    l->key = rpc_in_get(o, "key");
}

static bool any_websocket(const msgpack_object *routes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (rpc_in_flag(&routes[i], "websocket"))
            return true;
    return false;
}

/* What the supervisor says of them; without it there is nothing in v->ws. */
static void ask_ws(struct verify *v)
{
    struct rpc_out params;
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_end(&params);
    ctl_call(v->socket, RPC_METHOD_WS_STATS, &params, v->timeout_ms, &v->ws);
    rpc_out_fini(&params);
}

int plan_read(struct verify *v, const char *url)
{
    uint32_t n;
    const int status = plan_address(v, url);
    const msgpack_object *list = member_list(v->plan.result, "routes", &n);
    if (status)
        return status;
    rpc_in_text(v->plan.result, "note", v->note, sizeof v->note);
    if (any_websocket(list, n))
        ask_ws(v);
    v->routes = calloc(n + 1, sizeof *v->routes);
    for (uint32_t i = 0; v->routes && i < n; i++)
        read_route(v, &list[i], &v->routes[v->n_routes++]);
    list = member_list(v->plan.result, "limits", &n);
    v->limits = calloc(n + 1, sizeof *v->limits);
    for (uint32_t i = 0; v->limits && i < n; i++)
        read_limit(&list[i], &v->limits[v->n_limits++]);
    return v->routes && v->limits ? 0 : CTL_FAILED;
}

void plan_free(struct verify *v)
{
    ctl_answer_free(&v->plan);
    if (v->ws.bytes)
        ctl_answer_free(&v->ws);
    free(v->routes);
    free(v->limits);
    free(v->checks);
}

/* ---- which path ---- */

static size_t fits(const struct route_plan *r, const char *path)
{
    const size_t n = strcspn(r->pattern, "*"), len = strcspn(path, "?");
    const bool exact = !r->pattern[n];
    return (exact ? len == n : len >= n) && !strncmp(path, r->pattern, n) ? n + exact : 0;
}

/* Does that path go to this route? The longest pattern has it. */
static bool is_of(const struct verify *v, const struct route_plan *r, const char *path)
{
    const size_t own = fits(r, path);
    for (uint32_t i = 0; i < v->n_routes; i++)
        if (fits(&v->routes[i], path) > own)
            return false;
    return own > 0;
}

/* The path of something that clients have asked for there. */
static bool stored_path(const struct verify *v, const struct route_plan *r, char out[VERIFY_PATH])
{
    struct rpc_out params;
    struct ctl_answer a;
    char prefix[VERIFY_PATH], url[VERIFY_PATH];
    uint32_t n = 0;
    snprintf(prefix, sizeof prefix, "%.*s", (int)strcspn(r->pattern, "*"), r->pattern);
    rpc_out_init(&params);
    rpc_out_map(&params, NULL);
    rpc_out_str(&params, "prefix", prefix);
    rpc_out_u64(&params, "limit", 20);
    rpc_out_end(&params);
    bool found = false;
    const msgpack_object *list =
        ctl_call(v->socket, RPC_METHOD_CACHE_LIST, &params, v->timeout_ms, &a)
            ? NULL
            : member_list(a.result, "objects", &n);
    for (uint32_t i = 0; i < n && !found; i++) {
        const char *path =
            rpc_in_text(&list[i], "url", url, sizeof url) > 0 ? strchr(url, '/') : NULL;
        uint64_t status = 0;
        rpc_in_u64(&list[i], "status", UINT64_MAX, &status);
        found = path && status < 400 && strncmp(url, "verify-", 7) && is_of(v, r, path);
        if (found)
            snprintf(out, VERIFY_PATH, "%s", path);
    }
    ctl_answer_free(&a);
    rpc_out_fini(&params);
    return found;
}

void plan_path(const struct verify *v, const struct route_plan *r, char out[VERIFY_PATH])
{
    if (*v->path && is_of(v, r, v->path))
        snprintf(out, VERIFY_PATH, "%s", v->path);
    else if (*r->verify)
        snprintf(out, VERIFY_PATH, "%s", r->verify);
    else if (!strchr(r->pattern, '*') || !r->cache || !stored_path(v, r, out))
        snprintf(out, VERIFY_PATH, "%.*s%s", (int)strcspn(r->pattern, "*"), r->pattern,
                 strchr(r->pattern, '*') && r->websocket ? "polder-verify" : "");
}

const char *plan_advice(const struct route_plan *r)
{
    return strchr(r->pattern, '*')
               ? "name another path with \"verify\" in that route"
               : "the route has this path alone, and probes carry no credentials";
}

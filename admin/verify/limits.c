/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limits: of five requests too many, exactly five are refused, with a Retry-After that is right.
 * Polder answers these probes itself, so no backend has to.
 */
#include "admin/verify/verify.h"
#include "polder/clock.h"
#include "polder/rpc_in.h"

#include <stdlib.h>
#include <string.h>

#define OVER         5
#define REQUESTS_MAX 20000 /* requests for one limit */
#define ATTEMPTS     3     /* a window may end in the middle of one */
#define PATIENCE     5     /* s: a Retry-After that is waited for */

struct count {
    unsigned admitted, refused, other;
    bool no_retry_after;
    uint64_t retry_s; /* of the first that was refused */
    struct reply last;
};

static void on_reply(void *arg, const struct reply *reply)
{
    struct count *c = arg;
    if (reply->status == 429) {
        c->no_retry_after |= !reply->has_retry_after;
        if (!c->refused)
            c->retry_s = reply->retry_after_s;
        c->refused++;
    } else if (reply->status == 204) {
        c->admitted++;
    } else {
        c->other++;
        c->last = *reply;
    }
}

/* ---- what has the limit count it ---- */

static void add(char *out, size_t size, const char *format, const char *name)
{
    const size_t n = strlen(out);
    snprintf(out + n, size - n, format, name);
}

/* {"CLAIM":"polder-verify"} in base64url, as the middle of an unsigned token. */
static void add_token(char *out, size_t size, const char *claim)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char text[300], encoded[420];
    const size_t len = (size_t)snprintf(text, sizeof text, "{\"%.200s\":\"polder-verify\"}", claim);
    size_t n = 0;
    for (size_t i = 0; i < len; i += 3) {
        const unsigned left = (unsigned)(len - i < 3 ? len - i : 3);
        const unsigned bits = (unsigned)(unsigned char)text[i] << 16 |
                              (left > 1 ? (unsigned)(unsigned char)text[i + 1] << 8 : 0) |
                              (left > 2 ? (unsigned)(unsigned char)text[i + 2] : 0);
        for (unsigned k = 0; k <= left; k++)
            encoded[n++] = letters[bits >> (18 - 6 * k) & 63];
    }
    encoded[n] = 0;
    add(out, size, "Authorization: Bearer eyJhbGciOiJub25lIn0.%s.c2ln\r\n", encoded);
}

/* Header lines and a query, so that the limit has a key to count by. total: it counts all
 * together. */
static void satisfy(const struct limit_plan *l, char *headers, size_t size, char *path,
                    size_t path_size, bool *total)
{
    char kind[16], name[200];
    const bool list = l->key && l->key->type == MSGPACK_OBJECT_ARRAY;
    *total = true;
    for (uint32_t i = 0; list && i < l->key->via.array.size; i++) {
        const msgpack_object *part = &l->key->via.array.ptr[i];
        *name = 0;
        if (rpc_in_text(part, "kind", kind, sizeof kind) <= 0)
            continue;
        rpc_in_text(part, "name", name, sizeof name);
        if (!strcmp(kind, "header"))
            add(headers, size, "%s: polder-verify\r\n", name);
        else if (!strcmp(kind, "cookie"))
            add(headers, size, "Cookie: %s=polder-verify\r\n", name);
        else if (!strcmp(kind, "jwt"))
            add_token(headers, size, name);
        else if (!strcmp(kind, "query"))
            add(path, path_size, strchr(path, '?') ? "&%s=polder-verify" : "?%s=polder-verify",
                name);
        *total &= !strcmp(kind, "route") || !strcmp(kind, "global");
    }
}

/* ---- which route, and how many it admits ---- */

static bool names_limit(const struct route_plan *r, const char *limit)
{
    const bool list = r->limits && r->limits->type == MSGPACK_OBJECT_ARRAY;
    for (uint32_t i = 0; list && i < r->limits->via.array.size; i++)
        if (rpc_in_is(&r->limits->via.array.ptr[i], limit))
            return true;
    return false;
}

static uint64_t admits(const struct route_plan *r, const struct limit_plan *l)
{
    return l->requests / r->cost;
}

/* Does another limit of the route refuse before this one? */
static bool is_hidden(const struct verify *v, const struct route_plan *r,
                      const struct limit_plan *l)
{
    for (uint32_t i = 0; i < v->n_limits; i++) {
        const struct limit_plan *other = &v->limits[i];
        if (other != l && names_limit(r, other->name) && !other->dry_run &&
            admits(r, other) <= admits(r, l))
            return true;
    }
    return false;
}

static const struct route_plan *route_of(const struct verify *v, const struct limit_plan *l,
                                         bool *named)
{
    *named = false;
    for (uint32_t i = 0; i < v->n_routes; i++) {
        if (!names_limit(&v->routes[i], l->name))
            continue;
        *named = true;
        if (!is_hidden(v, &v->routes[i], l))
            return &v->routes[i];
    }
    return NULL;
}

/* ---- the probe ---- */

/* What may come on top while it lasts. */
static uint64_t refilled(const struct limit_plan *l, uint64_t cost, uint64_t ms)
{
    return strcmp(l->algorithm, "gcra") ? 0 : ms * l->requests / l->window_ms / cost + 1;
}

static bool is_exact(const struct limit_plan *l, const struct route_plan *r, const struct count *c,
                     uint64_t ms)
{
    const uint64_t n = admits(r, l);
    return c->admitted >= n && c->admitted <= n + refilled(l, r->cost, ms) && !c->other;
}

/* Retry-After is at most how long a used place can be away: 1.2 windows where they slide. */
static bool retry_is_plausible(const struct limit_plan *l, const struct count *c)
{
    return !c->no_retry_after && c->retry_s >= 1 &&
           c->retry_s * 1000 <= l->window_ms + l->window_ms / 5 + 1999;
}

/* Where it is short, it is taken at its word. */
static bool retry_is_kept(struct verify *v, const struct ask *ask, const struct count *c)
{
    struct reply reply;
    if (c->retry_s > PATIENCE || c->retry_s * 1000 > v->wait_ms)
        return true;
    if (!verify_wait(v, c->retry_s * 1000))
        return true;
    http_get(v, ask, &reply);
    return reply.status == 204;
}

static void judge(struct verify *v, const struct limit_plan *l, const struct route_plan *r,
                  const struct ask *ask, const struct count *c, uint64_t ms)
{
    char window[32];
    const uint64_t n = admits(r, l);
    const unsigned sent = c->admitted + c->refused + c->other;
    report_time(l->window_ms, window);
    if (c->other)
        report(v, RATE_LIMITING, l->name, "exact", SEEN_FAILED, "GET %s: the answer is %u",
               ask->path, c->last.status);
    else if (!c->refused)
        report(v, RATE_LIMITING, l->name, "exact", SEEN_FAILED,
               "all of %u requests of one client for %s were admitted, %llu in %s may be: is it "
               "exempt?",
               sent, ask->path, (unsigned long long)n, window);
    else
        report(v, RATE_LIMITING, l->name, "exact", is_exact(l, r, c, ms) ? SEEN_OK : SEEN_FAILED,
               "%u of %u requests for %s were admitted, %llu in %s may be%s", c->admitted, sent,
               ask->path, (unsigned long long)n, window,
               l->requests > l->file_requests ? " (the file says less)" : "");
    if (!c->refused)
        return;
    if (c->no_retry_after || !retry_is_plausible(l, c))
        report(v, RATE_LIMITING, l->name, "Retry-After", SEEN_FAILED, "%s; the window is %s",
               c->no_retry_after ? "it is missing" : "it is not plausible", window);
    else
        report(v, RATE_LIMITING, l->name, "Retry-After",
               retry_is_kept(v, ask, c) ? SEEN_OK : SEEN_FAILED, "%llu s, the window is %s",
               (unsigned long long)c->retry_s, window);
}

static void probe(struct verify *v, const struct limit_plan *l, const struct route_plan *r)
{
    char path[VERIFY_PATH], headers[2048] = "", why[160];
    bool total;
    struct count c;
    uint64_t ms = 0;
    plan_path(v, r, path);
    satisfy(l, headers, sizeof headers, path, sizeof path, &total);
    struct ask ask = {.path = path, .kind = "limit", .headers = headers, .client = 1};
    const uint64_t n = admits(r, l);
    if (n > REQUESTS_MAX) {
        char window[32];
        report(v, RATE_LIMITING, l->name, "exact", total ? NOT_PROBED : SEEN_FAILED,
               "%llu requests in %s%s: too many to be probed%s", (unsigned long long)n,
               report_time(l->window_ms, window), total ? "" : " for each client",
               total ? "" : ", and too many to have an effect");
        return;
    }
    report_progress(v, "rateLimiting: %s, %llu requests", l->name, (unsigned long long)n + OVER);
    for (; ask.client <= ATTEMPTS; ask.client++) {
        const uint64_t from_ms = clock_mono_ms();
        c = (struct count){0};
        if (!http_many(v, &ask, (unsigned)n + OVER, on_reply, &c, why, sizeof why)) {
            if (verify_goes_on(v))
                report(v, RATE_LIMITING, l->name, "exact", SEEN_FAILED, "GET %s: %s", path, why);
            return;
        }
        ms = clock_mono_ms() - from_ms;
        if (total || is_exact(l, r, &c, ms) || ask.client == ATTEMPTS)
            break;
    }
    judge(v, l, r, &ask, &c, ms);
}

static void check_limit(struct verify *v, const struct limit_plan *l)
{
    bool named;
    const struct route_plan *r = route_of(v, l, &named);
    if (l->dry_run && named)
        report(v, RATE_LIMITING, l->name, "exact", SEEN_FAILED, "dry_run: it never refuses");
    else if (r)
        probe(v, l, r);
    else
        report(v, RATE_LIMITING, l->name, "exact", NOT_PROBED,
               named ? "on each of its routes another limit refuses earlier" : "no route names it");
}

void check_limits(struct verify *v)
{
    for (uint32_t i = 0; i < v->n_limits && i < VERIFY_ROUTES && verify_goes_on(v); i++)
        check_limit(v, &v->limits[i]);
    report_more(v, RATE_LIMITING, v->n_limits > VERIFY_ROUTES ? v->n_limits - VERIFY_ROUTES : 0);
    if (v->n_limits == 0)
        report(v, RATE_LIMITING, "", "", NOT_CONFIGURED, "no limit is configured");
}

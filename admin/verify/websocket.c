/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * websocket: heartbeats come, the limit holds, a peer that is dead is let go. But for one of each
 * route, probes are answered by polder-supervisor alone, and count in places of their own: of more
 * than a hundred the last hundred.
 */
#include "admin/verify/verify.h"
#include "polder/clock.h"
#include "polder/units.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define PLACES       100 /* ADMIT_PROBES of the supervisor */
#define OVER         3
#define IDLE_CUT_MS  60000 /* what proxies on the way have for connections without traffic */
#define HOLD_MAX_MS  300000
#define CLOSED_MS    5000 /* for places to be free again */
#define SLACK_MS     3000
#define CLIENT_ALIVE 1
#define CLIENT_DEAD  2
#define CLIENT_FIRST 3

struct places {
    struct ws ws[PLACES + OVER];
    unsigned n, of_client; /* open; of the client that is at it */
    struct reply refusal;
};

static uint64_t min_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* ---- the limit ---- */

/* Opens until one is refused, or more are open than can be right. */
static bool fill_client(struct verify *v, const char *path, unsigned client, struct places *p)
{
    for (p->of_client = 0; p->n < PLACES + OVER && verify_goes_on(v); p->n++, p->of_client++)
        if (!ws_open(v, &p->ws[p->n], path, "local", client)) {
            p->refusal = p->ws[p->n].reply;
            return true;
        }
    return false;
}

/* Of one client after the other, until one gets no place at all. */
static void fill_route(struct verify *v, const char *path, struct places *p, unsigned *per_client)
{
    for (unsigned client = CLIENT_FIRST; client <= VERIFY_CLIENTS; client++) {
        if (!fill_client(v, path, client, p))
            return;
        if (client == CLIENT_FIRST)
            *per_client = p->of_client;
        if (p->of_client == 0 || p->refusal.status != 503)
            return;
    }
}

static void judge_limit(struct verify *v, const struct route_plan *r, const struct places *p,
                        unsigned per_client)
{
    const uint64_t max = min_of(r->ws.max_connections, PLACES),
                   max_per_client = min_of(min_of(r->ws.max_per_client, PLACES), max);
    char limit_name[96] = "";
    const char *limit = strstr(p->refusal.body, "\"limit\":\"");
    if (limit)
        snprintf(limit_name, sizeof limit_name, " (%.*s)", (int)strcspn(limit + 9, "\""),
                 limit + 9);
    const bool exact = p->n == max && per_client == max_per_client && p->refusal.status == 503 &&
                       p->refusal.has_retry_after;
    report(v, WEBSOCKET, r->pattern, "limit", exact ? SEEN_OK : SEEN_FAILED,
           "%u of %s%llu places were given, %u to one client; then %u%s%s; max_connections = %llu, "
           "max_per_client = %llu",
           p->n, r->ws.max_connections > PLACES ? "the last " : "", (unsigned long long)max,
           per_client, p->refusal.status,
           p->refusal.has_retry_after ? " with Retry-After" : " without Retry-After", limit_name,
           (unsigned long long)r->ws.max_connections, (unsigned long long)r->ws.max_per_client);
}

static void check_limit(struct verify *v, const struct route_plan *r, const char *path)
{
    struct places *p = calloc(1, sizeof *p);
    unsigned per_client = 0;
    if (!p)
        return;
    report_progress(v, "websocket: %s, the limit of %llu", path,
                    (unsigned long long)r->ws.max_connections);
    if (r->ws.max_connections)
        fill_route(v, path, p, &per_client);
    if (verify_goes_on(v) && r->ws.max_connections)
        judge_limit(v, r, p, per_client);
    for (unsigned i = 0; i < p->n; i++)
        ws_close(&p->ws[i]);
    free(p);
}

/* ---- heartbeats, and the dead ---- */

static bool sends(const struct route_plan *r, const char *kind)
{
    return !strcmp(r->ws.heartbeat, kind) || !strcmp(r->ws.heartbeat, "both");
}

/* Places may still be taken by what has just been closed. */
static bool open_soon(struct verify *v, struct ws *ws, const char *path, const char *kind,
                      unsigned client)
{
    const uint64_t until_ms = clock_mono_ms() + CLOSED_MS;
    while (!ws_open(v, ws, path, kind, client))
        if (ws->reply.status != 503 || clock_mono_ms() > until_ms || !verify_wait(v, 100))
            return false;
    return true;
}

struct watched {
    const struct route_plan *route;
    char path[VERIFY_PATH];
    struct ws alive, dead; /* fd -1: not watched */
    uint64_t opened_ms, heartbeat_until_ms, reap_until_ms, reaped_ms;
};

/* A WebSocket through the backend; where that refuses, without it. */
static void open_alive(struct verify *v, struct watched *w)
{
    const struct route_plan *r = w->route;
    const bool own = open_soon(v, &w->alive, w->path, "", CLIENT_ALIVE);
    const unsigned status = w->alive.reply.status;
    if (own)
        report(v, WEBSOCKET, r->pattern, "handshake", SEEN_OK, "GET %s: 101 Switching Protocols",
               w->path);
    else if (status >= 300 && status < 500)
        report(v, WEBSOCKET, r->pattern, "handshake", NOT_PROBED,
               "GET %s: the answer is %u; %s; the other checks do without the backend", w->path,
               status, plan_advice(r));
    else if (status)
        report(v, WEBSOCKET, r->pattern, "handshake", SEEN_FAILED, "GET %s: the answer is %u",
               w->path, status);
    else
        report(v, WEBSOCKET, r->pattern, "handshake", SEEN_FAILED, "GET %s: %s", w->path,
               w->alive.reply.why);
    if (!own)
        open_soon(v, &w->alive, w->path, "local", CLIENT_ALIVE);
    w->alive.answers = true;
}

static bool heartbeat_may_come(struct verify *v, struct watched *w, uint64_t *due_ms)
{
    const struct ws_plan *p = &w->route->ws;
    char interval[32];
    *due_ms = p->interval_ms + SLACK_MS;
    if (!strcmp(p->heartbeat, "off"))
        report(v, WEBSOCKET, w->route->pattern, "heartbeat", SEEN_FAILED,
               "heartbeat = off: nothing is sent on idle connections, and dead clients are not "
               "noticed");
    else if (p->interval_ms >= IDLE_CUT_MS)
        report(v, WEBSOCKET, w->route->pattern, "heartbeat", SEEN_FAILED,
               "interval = %s is too slow: proxies on the way cut what is idle for %d s",
               report_time(p->interval_ms, interval), IDLE_CUT_MS / 1000);
    else if (*due_ms > v->wait_ms)
        report(v, WEBSOCKET, w->route->pattern, "heartbeat", NOT_PROBED,
               "interval = %s is longer than --wait", report_time(p->interval_ms, interval));
    else
        return w->alive.fd >= 0;
    return false;
}

static bool dead_may_be_reaped(struct verify *v, struct watched *w, uint64_t *due_ms)
{
    const struct ws_plan *p = &w->route->ws;
    char all[32];
    *due_ms = p->interval_ms + p->timeout_ms + SLACK_MS;
    report_time(p->interval_ms + p->timeout_ms, all);
    if (!sends(w->route, "ping"))
        report(v, WEBSOCKET, w->route->pattern, "dead peer", SEEN_FAILED,
               "heartbeat = %s asks nothing of clients, so one that is gone is not noticed; "
               "\"both\" or \"ping\" does",
               p->heartbeat);
    else if (*due_ms > HOLD_MAX_MS)
        report(v, WEBSOCKET, w->route->pattern, "dead peer", SEEN_FAILED,
               "interval and timeout: a client that is gone keeps its place for %s", all);
    else if (*due_ms > v->wait_ms)
        report(v, WEBSOCKET, w->route->pattern, "dead peer", NOT_PROBED,
               "it is let go after %s, which is longer than --wait", all);
    else
        return true;
    return false;
}

static void begin_watch(struct verify *v, const struct route_plan *r, struct watched *w)
{
    uint64_t due_ms;
    *w = (struct watched){.route = r, .alive.fd = -1, .dead.fd = -1};
    plan_path(v, r, w->path);
    check_limit(v, r, w->path);
    open_alive(v, w);
    w->opened_ms = clock_mono_ms();
    if (heartbeat_may_come(v, w, &due_ms))
        w->heartbeat_until_ms = w->opened_ms + due_ms;
    if (!dead_may_be_reaped(v, w, &due_ms))
        return;
    if (open_soon(v, &w->dead, w->path, "local", CLIENT_DEAD))
        w->reap_until_ms = clock_mono_ms() + due_ms;
    else
        report(v, WEBSOCKET, r->pattern, "dead peer", SEEN_FAILED, "the answer is %u %s",
               w->dead.reply.status, w->dead.reply.why);
}

/* What was measured, not what is configured. */
static const char *seen_time(uint64_t ms, char out[UNITS_TEXT])
{
    units_seconds((double)ms / 1000, out);
    return out;
}

static bool has_heartbeats(const struct watched *w)
{
    return (!sends(w->route, "json") || w->alive.json_heartbeat) &&
           (!sends(w->route, "ping") || w->alive.ping);
}

static void judge_heartbeat(struct verify *v, struct watched *w, uint64_t now_ms)
{
    char interval[32], took[UNITS_TEXT];
    if (!w->heartbeat_until_ms ||
        (!has_heartbeats(w) && !w->alive.ended && now_ms < w->heartbeat_until_ms))
        return;
    w->heartbeat_until_ms = 0;
    report(v, WEBSOCKET, w->route->pattern, "heartbeat", has_heartbeats(w) ? SEEN_OK : SEEN_FAILED,
           "%s%s%s after %s; heartbeat = %s, interval = %s", w->alive.json_heartbeat ? "JSON" : "",
           w->alive.json_heartbeat && w->alive.ping ? " and " : "",
           w->alive.ping             ? "ping"
           : w->alive.json_heartbeat ? ""
           : w->alive.ended          ? "the connection ended"
                                     : "none",
           seen_time(now_ms - w->opened_ms, took), w->route->ws.heartbeat,
           report_time(w->route->ws.interval_ms, interval));
}

static void judge_dead(struct verify *v, struct watched *w, uint64_t now_ms)
{
    char timeout[32], took[UNITS_TEXT];
    if (!w->reap_until_ms || (!w->dead.ended && now_ms < w->reap_until_ms))
        return;
    w->reap_until_ms = 0;
    seen_time(now_ms - w->opened_ms, took);
    report_time(w->route->ws.timeout_ms, timeout);
    if (w->dead.ended)
        report(v, WEBSOCKET, w->route->pattern, "dead peer", SEEN_OK,
               "a client that answers no ping was let go after %s; timeout = %s", took, timeout);
    else
        report(v, WEBSOCKET, w->route->pattern, "dead peer", SEEN_FAILED,
               "a client that answers no ping still has its place after %s; timeout = %s", took,
               timeout);
}

static void look(struct verify *v, struct watched *w)
{
    const uint64_t now_ms = clock_mono_ms();
    if (w->alive.fd >= 0 && !w->alive.ended)
        ws_read(&w->alive);
    if (w->dead.fd >= 0 && !w->dead.ended)
        ws_read(&w->dead);
    judge_heartbeat(v, w, now_ms);
    judge_dead(v, w, now_ms);
}

static void watch_all(struct verify *v, struct watched *w, unsigned n)
{
    uint64_t until_ms = 0;
    for (unsigned i = 0; i < n; i++) {
        until_ms = w[i].heartbeat_until_ms > until_ms ? w[i].heartbeat_until_ms : until_ms;
        until_ms = w[i].reap_until_ms > until_ms ? w[i].reap_until_ms : until_ms;
    }
    if (until_ms)
        report_progress(v,
                        "websocket: waiting for heartbeats, and for dead peers to be let go; at "
                        "most %llu s",
                        (unsigned long long)(until_ms - clock_mono_ms()) / 1000);
    for (bool left = until_ms > 0; left && verify_wait(v, 20);) {
        left = false;
        for (unsigned i = 0; i < n; i++) {
            look(v, &w[i]);
            left |= w[i].heartbeat_until_ms || w[i].reap_until_ms;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        ws_close(&w[i].alive);
        ws_close(&w[i].dead);
    }
}

void check_websockets(struct verify *v)
{
    unsigned n = 0, more = 0;
    struct watched *w = calloc(VERIFY_ROUTES, sizeof *w);
    bool any = false;
    for (uint32_t i = 0; w && i < v->n_routes && verify_goes_on(v); i++) {
        const struct route_plan *r = &v->routes[i];
        any |= r->websocket;
        if (r->websocket && !*r->ws.heartbeat)
            report(v, WEBSOCKET, r->pattern, "handshake", SEEN_FAILED,
                   "polder-supervisor does not answer");
        else if (r->websocket && n == VERIFY_ROUTES)
            more++;
        else if (r->websocket)
            begin_watch(v, r, &w[n++]);
    }
    report_more(v, WEBSOCKET, more);
    if (w)
        watch_all(v, w, n);
    free(w);
    if (!any)
        report(v, WEBSOCKET, "", "", NOT_CONFIGURED, "no route has a websocket section");
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* admit: is there room for one more? Exact, for all sessions are in this process. */
#include "daemons/supervisor/supervisor.h"
#include "polder/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define BUCKETS (sizeof((struct supervisor *)0)->clients / sizeof(struct client_count *))

static struct client_count **find(struct supervisor *s, const struct clientip *ip)
{
    struct client_count **at = &s->clients[XXH3_64bits_withSeed(ip, sizeof *ip, s->seed) % BUCKETS];
    while (*at && memcmp(&(*at)->ip, ip, sizeof *ip))
        at = &(*at)->next;
    return at;
}

/* A token bucket on handshakes: a second's worth of burst, so that a deploy does not stampede the
 * backend. */
static bool has_token(const struct supervisor *s, struct bucket *b, double rate)
{
    const double burst = rate < 1 ? 1 : rate;
    b->tokens += (double)(s->now_ms - b->ms) / 1000 * rate;
    b->ms = s->now_ms;
    if (b->tokens > burst)
        b->tokens = burst;
    return rate <= 0 || b->tokens >= 1;
}

static bool take_token(struct supervisor *s, struct route_values *own)
{
    if (!has_token(s, &own->bucket, own->ws.connect_rate))
        return false;
    own->bucket.tokens -= own->ws.connect_rate > 0;
    return true;
}

void admit_again(struct supervisor *s, const struct config_route *route)
{
    struct route_values *own = &s->route_values[route->index];
    own->bucket.tokens += own->ws.connect_rate > 0;
}

/* Of one client on one route. Looked at only where it may be too many. */
static uint32_t on_route(const struct supervisor *s, const struct client_count *c,
                         const struct config_route *route)
{
    uint32_t n = 0;
    for (const struct session *x = LIST_FIRST(&s->sessions); x; x = LIST_NEXT(x, entry))
        n += x->count == c && x->route == route;
    return n;
}

static bool is_full(uint32_t total, uint32_t n)
{
    return total && n >= total;
}

/* So many probes at most can be open where that many clients may be; all further places are taken,
 * as they see it. */
static uint32_t taken(uint32_t max, uint32_t probes)
{
    return probes + (max > ADMIT_PROBES ? max - ADMIT_PROBES : 0);
}

/* As many as there are for this one: those of clients, or of probes. */
static uint32_t count_for(bool probe, uint32_t max, uint32_t clients, uint32_t probes)
{
    return probe ? taken(max, probes) : clients;
}

static bool client_is_full(const struct supervisor *s, const struct client_count *c,
                           const struct config_route *route, bool probe)
{
    const uint32_t max = config_websocket_per_client(&s->route_values[route->index].ws);
    if (!c || max == 0)
        return max == 0;
    if (count_for(probe, max, c->n, c->n) < max)
        return false;
    const uint32_t n = on_route(s, c, route);
    return count_for(probe, max, n, n) >= max;
}

/* Probes leave descriptors for clients. */
static bool descriptors_are_out(const struct supervisor *s, const struct config_route *route,
                                bool probe)
{
    const uint32_t wanted = route->upstream ? 2 : 1;
    return s->held + (probe ? 4 * ADMIT_PROBES : wanted) > s->may_hold;
}

enum admit admit_check(struct supervisor *s, const struct config_route *route,
                       const struct clientip *ip, bool probe)
{
    struct route_values *values = &s->route_values[route->index];
    const struct route_count *count = &s->routes[route->index];
    const struct client_count *c = *find(s, ip);
    const uint32_t total = s->values.max_connections_total,
                   total_client = s->values.max_per_client_total, max = values->ws.max_connections;
    if (s->draining)
        return ADMIT_STOPPING;
    if (is_full(total, count_for(probe, total, s->open, s->probes)))
        return ADMIT_TOTAL;
    if (count_for(probe, max, count->open, count->probes) >= max)
        return ADMIT_ROUTE;
    if (c && is_full(total_client, count_for(probe, total_client, c->n, c->n)))
        return ADMIT_CLIENT_TOTAL;
    if (client_is_full(s, c, route, probe))
        return ADMIT_CLIENT;
    if (descriptors_are_out(s, route, probe))
        return ADMIT_DESCRIPTORS;
    return probe || take_token(s, values) ? ADMIT_YES : ADMIT_RATE;
}

const char *admit_reason(enum admit why)
{
    static const char *const text[] = {
        [ADMIT_YES] = "",
        [ADMIT_STOPPING] = "the service is stopping",
        [ADMIT_TOTAL] = "too many WebSockets are open",
        [ADMIT_ROUTE] = "too many WebSockets are open on this route",
        [ADMIT_CLIENT_TOTAL] = "too many WebSockets are open from this client",
        [ADMIT_CLIENT] = "too many WebSockets are open from this client on this route",
        [ADMIT_DESCRIPTORS] = "no descriptor is left",
        [ADMIT_RATE] = "too many WebSockets are being opened",
    };
    return text[why];
}

const char *admit_limit(enum admit why)
{
    static const char *const key[] = {
        [ADMIT_TOTAL] = "websocket.max_connections_total",
        [ADMIT_ROUTE] = "websocket.max_connections",
        [ADMIT_CLIENT_TOTAL] = "websocket.max_per_client_total",
        [ADMIT_CLIENT] = "websocket.max_per_client",
        [ADMIT_DESCRIPTORS] = "descriptors",
        [ADMIT_RATE] = "websocket.connect_rate",
    };
    return key[why];
}

/* What the operator may change, and what it is now. */
static void describe_bound(const struct supervisor *s, const struct config_route *route,
                           enum admit why, char *out, size_t size)
{
    const struct config_websocket *w = &s->route_values[route->index].ws;
    switch (why) {
    case ADMIT_TOTAL:
        snprintf(out, size, "; max_connections_total is %u", s->values.max_connections_total);
        break;
    case ADMIT_ROUTE:
        snprintf(out, size, "; max_connections is %u", w->max_connections);
        break;
    case ADMIT_CLIENT_TOTAL:
        snprintf(out, size, "; max_per_client_total is %u", s->values.max_per_client_total);
        break;
    case ADMIT_CLIENT:
        snprintf(out, size, "; max_per_client is %u", config_websocket_per_client(w));
        break;
    case ADMIT_RATE:
        snprintf(out, size, "; connect_rate is %g", w->connect_rate);
        break;
    case ADMIT_DESCRIPTORS:
        snprintf(out, size, "; the limit of open files is reached at %u", s->may_hold);
        break;
    default:
        *out = '\0';
        break;
    }
}

void admit_log(struct supervisor *s, const struct config_route *route, const struct clientip *ip,
               enum admit why)
{
    char client[46], bound[96], more[48] = "";
    if (why == ADMIT_STOPPING || s->now_ms - s->refusal_logged_ms < LOG_EVERY_MS) {
        s->refusals_unlogged++;
        return;
    }
    clientip_format(ip, client);
    describe_bound(s, route, why, bound, sizeof bound);
    if (s->refusals_unlogged)
        snprintf(more, sizeof more, " (%u more since the last line)", s->refusals_unlogged);
    log_warning("admit: %s on route %s gets 503: %s%s%s", client, route->pattern, admit_reason(why),
                bound, more);
    s->refusal_logged_ms = s->now_ms;
    s->refusals_unlogged = 0;
}

struct client_count *admit_enter(struct supervisor *s, const struct clientip *ip)
{
    struct client_count **at = find(s, ip);
    if (!*at && !(*at = calloc(1, sizeof **at)))
        return NULL;
    (*at)->ip = *ip;
    (*at)->n++;
    return *at;
}

void admit_leave(struct supervisor *s, struct client_count *c)
{
    if (--c->n)
        return;
    *find(s, &c->ip) = c->next;
    free(c);
}

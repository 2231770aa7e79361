/* SPDX-License-Identifier: BSD-2-Clause */
/* admit: is there room for one more? Exact, for all sessions are in this process. */
#include "daemons/supervisor/supervisor.h"

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

/* One of the route and one of all, or none. */
static bool take_tokens(struct supervisor *s, struct route_values *own)
{
    if (!has_token(s, &own->bucket, own->ws.connect_rate) ||
        !has_token(s, &s->bucket, s->values.connect_rate))
        return false;
    own->bucket.tokens -= own->ws.connect_rate > 0;
    s->bucket.tokens -= s->values.connect_rate > 0;
    return true;
}

/* Of one client on one route. Looked at only where it may be too many. */
static uint32_t on_route(const struct supervisor *s, const struct client_count *c,
                         const struct config_route *route)
{
    uint32_t n = 0;
    for (const struct session *x = s->sessions; x; x = x->next)
        n += x->count == c && x->route == route;
    return n;
}

const char *admit_check(struct supervisor *s, const struct config_route *route,
                        const struct clientip *ip)
{
    struct route_values *values = &s->route_values[route->index];
    const struct config_websocket *own = &values->ws;
    const struct client_count *c = *find(s, ip);
    if (s->draining)
        return "the service is stopping";
    if (s->open >= s->values.max_connections)
        return "too many WebSockets are open";
    if (s->routes[route->index].open >= own->max_connections)
        return "too many WebSockets are open on this route";
    if (c && (c->n >= s->values.max_per_client ||
              (c->n >= own->max_per_client && on_route(s, c, route) >= own->max_per_client)))
        return "too many WebSockets are open from this client";
    if (s->held + (route->upstream ? 2 : 1) > s->may_hold)
        return "no descriptor is left";
    if (!take_tokens(s, values))
        return "too many WebSockets are being opened";
    return NULL;
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

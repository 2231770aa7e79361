/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * handshake: what becomes of an upgrade that a worker has handed over: a session with what its
 * handshake needs, a refusal, or it waits for the store of the fleet.
 */
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/survive.h"

#include <stdlib.h>
#include <string.h>

static const struct config_route *find_route(const struct supervisor *s, const char *pattern,
                                             size_t len)
{
    for (uint32_t i = 0; i < s->config->n_routes; i++) {
        const struct config_route *r = &s->config->routes[i];
        if (r->websocket && strlen(r->pattern) == len && !memcmp(r->pattern, pattern, len))
            return r;
    }
    return NULL;
}

/* bytes: lines of the limits, head, pipelined. */
static bool make_pending(struct session *x, const struct handover *h, const char *bytes)
{
    const size_t len = (size_t)h->limit_len + h->head_len + h->pipelined_len;
    struct pending *p = x->pending = calloc(1, sizeof *p + len);
    if (!p)
        return false;
    memcpy(p->accept_key, h->accept_key, sizeof p->accept_key);
    p->sticky = (struct sticky_key){.hash = h->sticky_hash, .server = h->sticky_server};
    p->limit_len = h->limit_len;
    p->head_len = h->head_len;
    p->pipelined_len = h->pipelined_len;
    memcpy(p->bytes, bytes, len);
    return true;
}

/* May pages of this origin open WebSockets here? One that says none is no browser's. */
static bool origin_allowed(const struct config_websocket *w, const char *head, size_t len)
{
    static struct h1_head h; /* 5 KiB, used within this call alone */
    size_t scanned = 0;
    enum problem problem;
    if (!w->n_origins)
        return true;
    if (h1_parse_request(head, len, &scanned, &h, &problem) != H1_DONE)
        return false;
    const struct h1_field *f = h1_only(&h, H1_ORIGIN);
    for (uint32_t i = 0; f && i < w->n_origins; i++)
        if (strlen(w->origins[i]) == f->value.len &&
            !memcmp(w->origins[i], f->value.at, f->value.len))
            return true;
    return false;
}

/* NULL: it may come in. Otherwise *r is what to answer. */
static const struct refusal *look_at(struct supervisor *s, const struct config_route *route,
                                     const struct clientip *ip, bool probe, const char *head,
                                     size_t head_len, struct refusal *r)
{
    *r = (struct refusal){PROBLEM_UNAVAILABLE, 1 + (unsigned)(random_next(&s->random) % 10),
                          "the route has no websocket section here", NULL};
    if (!route)
        return r;
    if (!origin_allowed(&s->route_values[route->index].ws, head, head_len)) {
        *r = (struct refusal){PROBLEM_FORBIDDEN, 0, "this Origin may not open WebSockets here",
                              NULL};
        return r;
    }
    const enum admit admit = admit_check(s, route, ip, probe);
    if (admit == ADMIT_YES)
        return NULL;
    if (!probe)
        admit_log(s, route, ip, admit);
    r->why = admit_reason(admit);
    r->limit = admit_limit(admit);
    return r;
}

/* The same of one that the whole fleet has no room for. */
static const struct refusal *refused_by(struct supervisor *s, const struct clientip *ip,
                                        const struct config_route *route, enum admit why,
                                        struct refusal *r)
{
    *r = (struct refusal){PROBLEM_UNAVAILABLE, 1 + (unsigned)(random_next(&s->random) % 10),
                          admit_reason(why), admit_limit(why)};
    admit_log(s, route, ip, why);
    return r;
}

static void turn_away(struct supervisor *s, int fd, const struct refusal *r, struct lines limits,
                      struct ws_refused *line)
{
    line->status = problem_status(r->problem);
    line->bytes = refuse(s, fd, r, limits);
    if (line->probe)
        return;
    s->refused++;
    if (line->route)
        s->routes[line->route->index].refused++;
    ws_line_refused(s, line);
}

/* What a worker's message says. */
struct handshake {
    const struct handover *h;
    const char *id, *lines, *head;
    const struct config_route *route;
    struct clientip ip; /* a client with a /64 has as many addresses as it likes */
    bool probe;
};

static struct handshake handshake_of(const struct supervisor *s, const struct handover *h,
                                     const char *rest)
{
    struct clientip peer;
    struct handshake hs = {.h = h,
                           .id = rest + h->route_len,
                           .route = find_route(s, rest, h->route_len),
                           .probe = h->flags & HANDOVER_PROBE};
    hs.lines = hs.id + h->id_len;
    hs.head = hs.lines + h->limit_len;
    memcpy(peer.addr, h->peer, sizeof peer.addr);
    clientip_group(&peer, &hs.ip);
    return hs;
}

static void turn_away_handshake(struct supervisor *s, const struct handshake *hs, int fd,
                                const struct refusal *no)
{
    turn_away(s, fd, no, (struct lines){hs->lines, hs->h->limit_len},
              &(struct ws_refused){.route = hs->route,
                                   .peer = hs->h->peer,
                                   .head = hs->head,
                                   .head_len = hs->h->head_len,
                                   .limit = no->limit,
                                   .probe = hs->probe});
}

static const struct refusal no_memory = {PROBLEM_UNAVAILABLE, 1, "out of memory", NULL};

/* It may come in; takes fd. rows: where it is counted already. */
static void begin_session(struct supervisor *s, const struct handshake *hs, int fd, uint8_t rows)
{
    const struct handover *h = hs->h;
    struct session *x = session_new(s, fd, hs->route, &hs->ip, hs->probe);
    if (!x) {
        ws_fleet_leave(s, hs->route, &hs->ip, rows);
        turn_away_handshake(s, hs, fd, &no_memory);
        return;
    }
    x->fleet = rows;
    x->client_id = client_id_make(hs->id, h->id_len);
    survive_asking(s, x);
    if (!make_pending(x, h, hs->lines)) {
        refuse_session(s, x, &no_memory, END_FAILED);
        return;
    }
    if (!hs->probe)
        ws_line_begin(s, x, h->peer);
    if (hs->route->upstream && !(h->flags & HANDOVER_LOCAL))
        backend_begin(s, x);
    else
        local_begin(s, x);
}

/* Takes fd, unless it is false: then the handshake waits for the store of the fleet. */
static bool handshake_decide(struct supervisor *s, const struct handover *h, const char *rest,
                             int fd, enum ws_fleet_try try)
{
    const struct handshake hs = handshake_of(s, h, rest);
    struct refusal refusal;
    enum admit why;
    uint8_t rows = 0;
    const struct refusal *no =
        look_at(s, hs.route, &hs.ip, hs.probe, hs.head, h->head_len, &refusal);
    const enum ws_fleet_result fleet =
        no || hs.probe ? WS_FLEET_ADMITS : ws_fleet_enter(s, hs.route, &hs.ip, try, &rows, &why);
    if (fleet == WS_FLEET_WAITS) {
        admit_again(s, hs.route);
        return false;
    }
    if (fleet == WS_FLEET_REFUSES) {
        admit_again(s, hs.route);
        no = refused_by(s, &hs.ip, hs.route, why, &refusal);
    }
    if (no)
        turn_away_handshake(s, &hs, fd, no);
    else
        begin_session(s, &hs, fd, rows);
    return true;
}

void handshake_take(struct supervisor *s, const struct handover *h, const char *rest, size_t len,
                    int fd)
{
    if (!handshake_decide(s, h, rest, fd, WS_FLEET_FIRST) && !ws_fleet_wait(s, h, rest, len, fd))
        handshake_decide(s, h, rest, fd, WS_FLEET_LAST);
}

void handshake_begin(struct supervisor *s)
{
    ws_fleet_begin(s, handshake_decide);
    ws_fleet_end_begin(s);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* session: how a WebSocket begins, moves through its states, and ends; the only place that counts.
 */
#include "daemons/supervisor/supervisor.h"
#include "daemons/supervisor/survive/survive.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

const char *const session_end_names[END_REASONS] = {
    [END_CLIENT_CLOSED] = "client-closed",
    [END_CLIENT_LOST] = "client-lost",
    [END_BACKEND_CLOSED] = "backend-closed",
    [END_BACKEND_LOST] = "backend-lost",
    [END_BACKEND_REFUSED] = "backend-refused",
    [END_TIMEOUT] = "timeout",
    [END_PROTOCOL] = "protocol-error",
    [END_TOO_BIG] = "too-big",
    [END_CLOSED_BY_ADMIN] = "closed-by-admin",
    [END_SHED] = "shed",
    [END_DRAIN] = "drain",
    [END_FAILED] = "failed",
};

/* From state to states. */
static const uint8_t moves[SESSION_STATES] = {
    [SESSION_CONNECTING] = 1 << SESSION_ASKING | 1 << SESSION_OPEN | 1 << SESSION_ENDED,
    [SESSION_ASKING] =
        1 << SESSION_CONNECTING | 1 << SESSION_REFUSING | 1 << SESSION_OPEN | 1 << SESSION_ENDED,
    [SESSION_REFUSING] = 1 << SESSION_ENDED,
    [SESSION_OPEN] = 1 << SESSION_CLOSING | 1 << SESSION_ENDED,
    [SESSION_CLOSING] = 1 << SESSION_ENDED,
    [SESSION_ENDED] = 0,
};

void session_move(struct session *x, enum session_state to)
{
    assert(moves[x->state] & 1 << to);
    x->state = (uint8_t)to;
}

const struct config_websocket *session_values(const struct supervisor *s, const struct session *x)
{
    return &s->route_values[x->route->index].ws;
}

static void tune(int fd)
{
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
}

/* A second line behind pings. Elsewhere a reader may stand still for as long as it likes. */
void session_tune(const struct supervisor *s, const struct session *x)
{
    const struct config_websocket *w = session_values(s, x);
    const bool reaps =
        w->heartbeat == CONFIG_HEARTBEAT_PING || w->heartbeat == CONFIG_HEARTBEAT_BOTH;
    const unsigned ms = reaps ? w->timeout_ms * 2 : 0;
    setsockopt(x->client.io.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
    if (x->backend.io.fd >= 0)
        setsockopt(x->backend.io.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

/* Probes are counted apart: no client is refused because of them. */
static void count_open(struct supervisor *s, const struct session *x, uint32_t by)
{
    struct route_count *r = &s->routes[x->route->index];
    *(x->probe ? &s->probes : &s->open) += by;
    *(x->probe ? &r->probes : &r->open) += by;
}

struct session *session_new(struct supervisor *s, int fd, const struct config_route *route,
                            const struct clientip *ip, bool probe)
{
    struct session *x = calloc(1, sizeof *x);
    if (!x || !(x->count = admit_enter(s, ip))) {
        free(x);
        return NULL;
    }
    x->route = route;
    x->probe = probe;
    x->id = ++s->next_id;
    x->client.session = x->backend.session = x;
    x->client.in.from_client = true;
    ev_init(&x->client.io, NULL);
    ev_init(&x->backend.io, NULL);
    x->client.io.fd = fd;
    s->held++;
    x->backend.io.fd = -1;
    x->opened_ms = x->from_client_ms = x->to_client_ms = s->now_ms;
    x->supervisor = s;
    x->timer.fire = s->on_due;
    LIST_INSERT_HEAD(&s->sessions, x, entry);
    count_open(s, x, 1);
    tune(fd);
    return x;
}

void session_opened(struct supervisor *s, struct session *x)
{
    assert(!x->pending);
    session_move(x, SESSION_OPEN);
    x->opened_ms = x->to_client_ms = x->from_client_ms = s->now_ms;
    x->bytes = 0;
    s->opened += !x->probe;
    s->routes[x->route->index].opened += !x->probe;
    if (x->backend.io.fd >= 0)
        tune(x->backend.io.fd);
}

static void note_lifetime(struct lifetimes *l, uint64_t ms)
{
    const uint64_t ns = ms * 1000000;
    histogram_add(&l->histogram, histogram_bucket(HISTOGRAM_LIFETIME, ns), ns);
    l->sum_s += (double)ms / 1000;
    l->max_ms = ms > l->max_ms ? ms : l->max_ms;
}

void session_end(struct supervisor *s, struct session *x, enum session_end why)
{
    if (x->state == SESSION_ENDED)
        return;
    const bool was_open = x->state == SESSION_OPEN || x->state == SESSION_CLOSING;
    if (x->state != SESSION_CLOSING)
        x->end = (uint8_t)why;
    servers_forget(s, x);
    survive_ended(s, x);
    session_move(x, SESSION_ENDED);
    s->ends[x->end] += !x->probe;
    s->routes[x->route->index].reaped += x->end == END_TIMEOUT && !x->probe;
    if (x->end == END_TIMEOUT && x->route->upstream && !x->probe)
        leaked_add(&s->leaked, s->now_ms);
    if (was_open && !x->probe)
        note_lifetime(&s->lifetimes, s->now_ms - x->opened_ms);
    ws_line_end(s, x, was_open);
    leg_close(s, &x->client);
    leg_close(s, &x->backend);
    timer_stop(&s->wheel, &x->timer);
    ws_fleet_leave(s, x->route, &x->count->ip, x->fleet);
    admit_leave(s, x->count);
    count_open(s, x, -1u);
    LIST_REMOVE(x, entry);
    SLIST_INSERT_HEAD(&s->ended, x, ended_entry);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* session: how a WebSocket begins, moves through its states, and ends; the only place that counts.
 */
#include "daemons/supervisor/supervisor.h"
#include "polder/log.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

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
    [SESSION_ASKING] = 1 << SESSION_CONNECTING | 1 << SESSION_OPEN | 1 << SESSION_ENDED,
    [SESSION_OPEN] = 1 << SESSION_CLOSING | 1 << SESSION_ENDED,
    [SESSION_CLOSING] = 1 << SESSION_ENDED,
    [SESSION_ENDED] = 0,
};

void session_move(struct session *x, enum session_state to)
{
    assert(moves[x->state] & 1 << to);
    x->state = (uint8_t)to;
}

/* xorshift64*, seeded by the kernel: spreads timers and makes ids; no secret depends on it. */
uint64_t supervisor_random(struct supervisor *s)
{
    while (!s->random)
        if (getrandom(&s->random, sizeof s->random, 0) < 0)
            s->random = (uint64_t)getpid() * 0x9e3779b97f4a7c15u;
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return s->random * 0x2545f4914f6cdd1du;
}

const struct config_websocket *session_values(const struct supervisor *s, const struct session *x)
{
    return &s->route_values[x->route->index].ws;
}

/* A second line behind heartbeats: the kernel gives up on a peer that acknowledges nothing. */
static void tune(int fd, unsigned timeout_ms)
{
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

struct session *session_new(struct supervisor *s, int fd, const struct config_route *route,
                            const struct clientip *ip)
{
    struct session *x = calloc(1, sizeof *x);
    if (!x || !(x->count = admit_enter(s, ip))) {
        free(x);
        return NULL;
    }
    x->route = route;
    x->id = ++s->next_id;
    x->client.session = x->backend.session = x;
    x->client.in.from_client = true;
    ev_init(&x->client.io, NULL);
    ev_init(&x->backend.io, NULL);
    x->client.io.fd = fd;
    s->held++;
    x->backend.io.fd = -1;
    x->opened_ms = x->from_client_ms = x->from_backend_ms = x->to_client_ms = s->now_ms;
    x->next = s->sessions;
    x->link = &s->sessions;
    if (x->next)
        x->next->link = &x->next;
    s->sessions = x;
    s->open++;
    s->routes[route->index].open++;
    tune(fd, s->values.timeout_ms * 2);
    return x;
}

void session_opened(struct supervisor *s, struct session *x)
{
    session_move(x, SESSION_OPEN);
    free(x->pending);
    x->pending = NULL;
    x->opened_ms = x->to_client_ms = x->from_client_ms = x->from_backend_ms = s->now_ms;
    s->opened++;
    s->routes[x->route->index].opened++;
    if (x->backend.io.fd >= 0)
        tune(x->backend.io.fd, s->values.timeout_ms * 2);
    heartbeat_arm(s, x);
}

static void note_duration(struct histogram *h, uint64_t ms)
{
    unsigned b = 0;
    for (double edge = 10; b < 63 && (double)ms >= edge; edge *= 1.4142135623730951)
        b++;
    h->bucket[b]++;
    h->count++;
    h->sum_s += (double)ms / 1000;
    h->max_ms = ms > h->max_ms ? ms : h->max_ms;
}

void session_end(struct supervisor *s, struct session *x, enum session_end why)
{
    if (x->state == SESSION_ENDED)
        return;
    const bool was_open = x->state == SESSION_OPEN || x->state == SESSION_CLOSING;
    if (x->state != SESSION_CLOSING)
        x->end = (uint8_t)why;
    servers_forget(s, x);
    session_move(x, SESSION_ENDED);
    s->ends[x->end]++;
    if (was_open)
        note_duration(&s->durations, s->now_ms - x->opened_ms);
    relay_close(s, &x->client);
    relay_close(s, &x->backend);
    wheel_drop(x);
    admit_leave(s, x->count);
    s->open--;
    s->routes[x->route->index].open--;
    *x->link = x->next;
    if (x->next)
        x->next->link = x->link;
    x->mate_next = s->graveyard;
    s->graveyard = x;
}

void session_bury(struct supervisor *s)
{
    while (s->graveyard) {
        struct session *x = s->graveyard;
        s->graveyard = x->mate_next;
        local_free(x);
        free(x->pending);
        free(x->client_id);
        free(x);
    }
}

void session_close(struct supervisor *s, struct session *x, uint16_t code, const char *reason,
                   enum session_end why)
{
    uint8_t payload[125];
    if (x->state != SESSION_OPEN) {
        if (x->state == SESSION_CONNECTING || x->state == SESSION_ASKING)
            intake_refuse(x->client.io.fd, 503, 1 + (unsigned)(supervisor_random(s) % 10), reason);
        session_end(s, x, why);
        return;
    }
    const size_t len = frames_close_payload(payload, code, reason);
    x->end = (uint8_t)why;
    x->goodbye = true;
    session_move(x, SESSION_CLOSING);
    x->deadline_ms = s->now_ms + CLOSE_TIMEOUT_MS;
    /* A leg in the middle of a frame cannot be told: it sees the connection end. */
    const bool told = frames_between(&x->backend.in);
    if (told)
        relay_put_frame(s, &x->client, FRAMES_CLOSE, payload, len);
    if (x->backend.io.fd >= 0 && frames_between(&x->client.in))
        relay_put_frame(s, &x->backend, FRAMES_CLOSE, payload, len);
    if (!told) {
        session_end(s, x, why);
        return;
    }
    wheel_set(s, x, x->deadline_ms);
    relay_watch(s, x);
}

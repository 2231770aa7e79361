/* SPDX-License-Identifier: BSD-2-Clause */
/* session: how a WebSocket begins, moves through its states, and ends; the only place that counts.
 */
#include "daemons/supervisor/supervisor.h"
#include "polder/log.h"

#include <assert.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
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
    x->opened_ms = x->from_client_ms = x->to_client_ms = s->now_ms;
    x->next = s->sessions;
    x->link = &s->sessions;
    if (x->next)
        x->next->link = &x->next;
    s->sessions = x;
    s->open++;
    s->routes[route->index].open++;
    tune(fd);
    return x;
}

void session_opened(struct supervisor *s, struct session *x)
{
    session_move(x, SESSION_OPEN);
    free(x->pending);
    x->pending = NULL;
    x->opened_ms = x->to_client_ms = x->from_client_ms = s->now_ms;
    x->bytes = 0;
    s->opened++;
    s->routes[x->route->index].opened++;
    if (x->backend.io.fd >= 0)
        tune(x->backend.io.fd);
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
    ws_line_end(s, x, was_open);
    relay_close(s, &x->client);
    relay_close(s, &x->backend);
    wheel_drop(x);
    admit_leave(s, x->count);
    s->open--;
    s->routes[x->route->index].open--;
    *x->link = x->next;
    if (x->next)
        x->next->link = x->link;
    x->wheel_next = s->graveyard;
    s->graveyard = x;
}

void session_bury(struct supervisor *s)
{
    while (s->graveyard) {
        struct session *x = s->graveyard;
        s->graveyard = x->wheel_next;
        local_free(x);
        free(x->pending);
        free(x->client_id);
        free(x->line);
        free(x);
    }
}

void session_close(struct supervisor *s, struct session *x, uint16_t code, const char *reason,
                   enum session_end why)
{
    const struct farewell both = {code, reason};
    session_close_with(s, x, both, both, why);
}

static void say_goodbye(struct supervisor *s, struct leg *to, struct farewell f)
{
    uint8_t payload[125];
    relay_put_frame(s, to, FRAMES_CLOSE, payload, frames_close_payload(payload, f.code, f.reason));
}

void session_close_with(struct supervisor *s, struct session *x, struct farewell client,
                        struct farewell backend, enum session_end why)
{
    if (x->state != SESSION_OPEN) {
        const struct refusal r = {PROBLEM_UNAVAILABLE, 1 + (unsigned)(supervisor_random(s) % 10),
                                  client.reason, NULL};
        if (x->state == SESSION_CONNECTING || x->state == SESSION_ASKING)
            refuse_session(s, x, &r, why);
        else if (x->state == SESSION_REFUSING)
            refuse_cut(s, x, why == END_DRAIN ? "drain" : "polder");
        else
            session_end(s, x, why);
        return;
    }
    x->end = (uint8_t)why;
    x->close_code = client.code;
    x->goodbye = true;
    session_move(x, SESSION_CLOSING);
    /* A leg in the middle of a frame cannot be told: it sees the connection end. */
    const bool told = frames_between(&x->backend.in);
    if (told)
        say_goodbye(s, &x->client, client);
    if (x->backend.io.fd >= 0 && frames_between(&x->client.in))
        say_goodbye(s, &x->backend, backend);
    x->untold = !told;
    x->deadline_ms = x->moved_ms = s->now_ms;
    session_close_due(s, x);
    if (x->state != SESSION_ENDED)
        relay_watch(s, x);
}

/* ---- closing in time ---- */

static uint64_t undelivered(const struct leg *leg)
{
    int n = 0; /* in the kernel */
    if (leg->io.fd < 0 || leg->cut)
        return 0;
    return leg->out.len + (ioctl(leg->io.fd, SIOCOUTQ, &n) == 0 && n > 0 ? (uint64_t)n : 0);
}

/* What somebody wants to be rid of has had its notice. */
static bool is_waited_for(const struct session *x)
{
    return x->end != END_CLOSED_BY_ADMIN && x->end != END_SHED && x->end != END_DRAIN &&
           x->end != END_TIMEOUT && x->end != END_FAILED && x->end != END_PROTOCOL;
}

/* What was said before the goodbye is delivered while it moves, and for `timeout` after it has
 * stopped; who has it all gets CLOSE_TIMEOUT_MS to answer. */
void session_close_due(struct supervisor *s, struct session *x)
{
    const uint64_t left = undelivered(&x->client) + undelivered(&x->backend),
                   most = session_values(s, x)->timeout_ms;
    uint64_t patience = CLOSE_TIMEOUT_MS;
    if (left != x->undelivered && is_waited_for(x))
        x->moved_ms = s->now_ms;
    x->undelivered = left;
    if (left && is_waited_for(x) && most > patience)
        patience = most;
    if (s->now_ms >= x->moved_ms + patience) {
        session_end(s, x, (enum session_end)x->end);
        return;
    }
    x->deadline_ms = x->moved_ms + patience;
    if (left && x->deadline_ms > s->now_ms + CLOSE_LOOK_MS)
        x->deadline_ms = s->now_ms + CLOSE_LOOK_MS;
    wheel_set(s, x, x->deadline_ms);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * close: ends a session: with close frames to both sides, or with a refusal if its client has no
 * WebSocket yet; and waits for data that is still on its way.
 */
#include "daemons/supervisor/supervisor.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

void session_close(struct supervisor *s, struct session *x, uint16_t code, const char *reason,
                   enum session_end why)
{
    const struct farewell both = {code, reason};
    session_close_with(s, x, both, both, why);
}

static void say_goodbye(struct supervisor *s, struct leg *to, struct farewell f)
{
    uint8_t payload[125];
    leg_put_frame(s, to, FRAMES_CLOSE, payload, frames_close_payload(payload, f.code, f.reason));
}

void session_close_with(struct supervisor *s, struct session *x, struct farewell client,
                        struct farewell backend, enum session_end why)
{
    if (x->state != SESSION_OPEN) {
        const struct refusal r = {PROBLEM_UNAVAILABLE, 1 + (unsigned)(random_next(&s->random) % 10),
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
    const bool notified = frames_between(&x->backend.in);
    if (notified)
        say_goodbye(s, &x->client, client);
    if (x->backend.io.fd >= 0 && frames_between(&x->client.in))
        say_goodbye(s, &x->backend, backend);
    x->untold = !notified;
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

/* A session that is to be forced out has had its notice. At a stop there is an end to waiting. */
static bool is_waited_for(const struct session *x)
{
    return x->end != END_CLOSED_BY_ADMIN && x->end != END_SHED && x->end != END_TIMEOUT &&
           x->end != END_FAILED && x->end != END_PROTOCOL;
}

/* Data sent before the close frame is delivered while it moves, and for `timeout` after it stalls
 * (at a stop, for CLOSE_TIMEOUT_MS); a side that has all of it gets CLOSE_TIMEOUT_MS to answer. */
void session_close_due(struct supervisor *s, struct session *x)
{
    const uint64_t left = undelivered(&x->client) + undelivered(&x->backend),
                   max = session_values(s, x)->timeout_ms;
    uint64_t patience = CLOSE_TIMEOUT_MS;
    if (left != x->undelivered && is_waited_for(x))
        x->moved_ms = s->now_ms;
    x->undelivered = left;
    if (left && is_waited_for(x) && x->end != END_DRAIN && max > patience)
        patience = max;
    if (s->now_ms >= x->moved_ms + patience) {
        session_end(s, x, (enum session_end)x->end);
        return;
    }
    x->deadline_ms = x->moved_ms + patience;
    if (left && x->deadline_ms > s->now_ms + CLOSE_LOOK_MS)
        x->deadline_ms = s->now_ms + CLOSE_LOOK_MS;
    timer_set(&s->wheel, &x->timer, x->deadline_ms);
}

/* ---- all at once ---- */

void session_leave_between(struct supervisor *s, struct session *x)
{
    if (x->state == SESSION_OPEN && frames_between_messages(&x->backend.in) &&
        frames_between_messages(&x->client.in))
        session_close(s, x, 1012, "the service restarts", END_DRAIN);
}

/* A message that does not end in time is cut. */
void session_leave(struct supervisor *s, struct session *x)
{
    if (x->leaves) {
        session_close(s, x, 1012, "the service restarts", END_DRAIN);
        return;
    }
    x->leaves = true;
    session_leave_between(s, x);
    if (x->state != SESSION_OPEN)
        return;
    x->deadline_ms = s->now_ms + CLOSE_TIMEOUT_MS;
    timer_set(&s->wheel, &x->timer, x->deadline_ms);
}

#define SPREAD_SESSIONS 10000 /* that are told over drain_spread */

/* Sessions are closed over some time, not all at once. */
void drain_begin(struct supervisor *s)
{
    const uint64_t spread_ms = s->config->websocket.drain_spread_ms;
    uint64_t max_ms = 4 * TIMER_TICK_MS + spread_ms * s->open / SPREAD_SESSIONS;
    if (max_ms > spread_ms)
        max_ms = spread_ms;
    s->draining = true;
    s->drain_until_ms = s->now_ms + max_ms + CLOSE_TIMEOUT_MS + DELIVER_MS;
    for (struct session *x = LIST_FIRST(&s->sessions), *next; x; x = next) {
        next = LIST_NEXT(x, entry);
        if (x->state == SESSION_OPEN) {
            x->deadline_ms = s->now_ms + random_next(&s->random) % max_ms;
            timer_set(&s->wheel, &x->timer, x->deadline_ms);
        } else if (x->state != SESSION_CLOSING) {
            session_close(s, x, 1012, "the service restarts", END_DRAIN);
        }
    }
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * heartbeat: what is due of an open session: beats, reaping, the end of a drain. First beats are
 * spread over an eighth of the interval, and stay spread.
 */
#include "daemons/supervisor/supervisor.h"

#include <stdio.h>
#include <time.h>

static uint64_t spread(struct supervisor *s, uint64_t interval_ms)
{
    return interval_ms - random_next(&s->random) % (interval_ms / 8 + 1);
}

static bool pings(const struct config_websocket *w)
{
    return w->heartbeat == CONFIG_HEARTBEAT_PING || w->heartbeat == CONFIG_HEARTBEAT_BOTH;
}

void heartbeat_arm(struct supervisor *s, struct session *x)
{
    const struct config_websocket *w = session_values(s, x);
    const uint64_t due = x->to_client_ms + spread(s, w->interval_ms);
    if (!pings(w))
        x->client.pinged_ms = x->backend.pinged_ms = 0;
    session_tune(s, x);
    timer_set(&s->wheel, &x->timer, due > s->now_ms ? due : s->now_ms);
}

/* ---- beats ---- */

/* JSON strings of a client id: it comes from a URL. */
static size_t escape(const char *text, char *out, size_t size)
{
    size_t n = 0;
    for (; *text && n + 7 < size; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            n += (size_t)sprintf(out + n, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            n += (size_t)sprintf(out + n, "\\u%04x", c);
        else
            out[n++] = (char)c;
    }
    out[n] = 0;
    return n;
}

static size_t heartbeat_text(const struct supervisor *s, const struct session *x, char *out,
                             size_t size)
{
    char id[800], made[32], stamp[32];
    struct tm tm;
    const time_t now = (time_t)(s->real_ms / 1000);
    gmtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(made, sizeof made, "ws-%llu", (unsigned long long)x->id);
    escape(x->client_id ? x->client_id : made, id, sizeof id);
    const int n = snprintf(
        out, size, "{\"type\":\"heartbeat\",\"timestamp\":\"%s.%03uZ\",\"client_id\":\"%s\"}",
        stamp, (unsigned)(s->real_ms % 1000), id);
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

static void heartbeat_json(struct supervisor *s, struct session *x)
{
    char text[1024];
    const size_t len = heartbeat_text(s, x, text, sizeof text);
    if (!len)
        return;
    const bool written = leg_put_frame(s, &x->client, FRAMES_TEXT, text, len);
    s->heartbeats += !x->probe;
    s->heartbeats_acked += written && !x->probe;
}

/* A ping may stand between the frames of a message, a text message may not. Where nothing can be
 * put in now, the wheel comes again: what is under way is traffic, too. */
static void heartbeat(struct supervisor *s, struct session *x)
{
    const struct config_websocket *w = session_values(s, x);
    if (!frames_between(&x->backend.in) || x->client.out.len)
        return;
    if (pings(w) && !x->client.pinged_ms)
        ping_send(s, &x->client);
    if (pings(w) && !x->backend.pinged_ms && x->backend.io.fd >= 0 && frames_between(&x->client.in))
        ping_send(s, &x->backend);
    if ((w->heartbeat == CONFIG_HEARTBEAT_JSON || w->heartbeat == CONFIG_HEARTBEAT_BOTH) &&
        frames_between_messages(&x->backend.in))
        heartbeat_json(s, x);
}

/* ---- when a session is due ---- */

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Asked, and not a byte since. */
static bool unanswered(const struct supervisor *s, const struct leg *leg,
                       const struct config_websocket *w)
{
    return pings(w) && leg->pinged_ms && s->now_ms - leg->pinged_ms >= w->timeout_ms;
}

void heartbeat_due(struct supervisor *s, struct session *x)
{
    const struct config_websocket *w = session_values(s, x);
    if (x->deadline_ms && s->now_ms >= x->deadline_ms) {
        session_leave(s, x);
        return;
    }
    if (unanswered(s, &x->client, w)) {
        session_close(s, x, 1001, "nothing heard for too long", END_TIMEOUT);
        /* it is most likely dead: do not wait for its close frame */
        if (x->state == SESSION_CLOSING)
            session_end(s, x, END_TIMEOUT);
        return;
    }
    if (x->backend.io.fd >= 0 && unanswered(s, &x->backend, w)) {
        session_close(s, x, 1011, "the backend does not answer", END_BACKEND_LOST);
        return;
    }
    const uint64_t early = w->interval_ms / 8 + TIMER_TICK_MS; /* of the spread, of the wheel */
    if (w->heartbeat != CONFIG_HEARTBEAT_OFF &&
        s->now_ms - x->to_client_ms + early >= w->interval_ms)
        heartbeat(s, x);
    uint64_t due =
        later(x->to_client_ms, s->now_ms - w->interval_ms / 2) + spread(s, w->interval_ms);
    if (x->client.pinged_ms && due > x->client.pinged_ms + w->timeout_ms)
        due = x->client.pinged_ms + w->timeout_ms;
    if (x->backend.pinged_ms && due > x->backend.pinged_ms + w->timeout_ms)
        due = x->backend.pinged_ms + w->timeout_ms;
    if (x->deadline_ms && due > x->deadline_ms)
        due = x->deadline_ms;
    timer_set(&s->wheel, &x->timer, due);
    relay_watch(s, x);
}

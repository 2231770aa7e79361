/* SPDX-License-Identifier: BSD-2-Clause */
/* ws: a WebSocket as a client sees it: the handshake, heartbeats, pings, the end. What else is said
 * on it is read and dropped. */
#include "admin/verify/verify.h"
#include "polder/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define HANDSHAKE_MS 10000

enum { OPCODE_TEXT = 1, OPCODE_CLOSE = 8, OPCODE_PING = 9, OPCODE_PONG = 10 };

/* ---- the handshake ---- */

static size_t head_length(const struct ws *ws)
{
    const void *end = memmem(ws->in, ws->have, "\r\n\r\n", 4);
    return end ? (size_t)((const uint8_t *)end - ws->in) + 4 : 0;
}

static void read_head(struct ws *ws, size_t len)
{
    char head[sizeof ws->in + 1];
    memcpy(head, ws->in, len);
    head[len] = 0;
    unsigned status = 0;
    if (sscanf(head, "HTTP/1.1 %3u", &status) == 1)
        ws->reply.status = status;
    const char *retry = strcasestr(head, "\nretry-after:");
    if (retry) {
        ws->reply.retry_after_s = strtoull(retry + 13, NULL, 10);
        ws->reply.has_retry_after = ws->reply.retry_after_s > 0;
    }
    snprintf(ws->reply.body, sizeof ws->reply.body, "%.*s", (int)(ws->have - len),
             (const char *)ws->in + len);
}

/* More bytes; false: none will come. */
static bool fill(struct verify *v, struct ws *ws, uint64_t until_ms)
{
    if (ws->have == sizeof ws->in || !http_wait(v, ws->fd, POLLIN, until_ms))
        return false;
    const ssize_t n = recv(ws->fd, ws->in + ws->have, sizeof ws->in - ws->have, 0);
    if (n > 0)
        ws->have += (size_t)n;
    return n > 0;
}

static bool shake_hands(struct verify *v, struct ws *ws, const char *path, const char *kind,
                        unsigned client)
{
    char field[512], request[VERIFY_PATH + 1024];
    const uint64_t until_ms = clock_mono_ms() + HANDSHAKE_MS;
    const struct ask ask = {.kind = kind, .client = client};
    http_field(v, &ask, field, sizeof field);
    const int n = snprintf(request, sizeof request,
                           "GET %s HTTP/1.1\r\n%sUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Version: 13\r\n"
                           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                           path, field);
    size_t len = 0;
    if (n <= 0 || (size_t)n >= sizeof request ||
        send(ws->fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        return false;
    while (!(len = head_length(ws)))
        if (!fill(v, ws, until_ms))
            return false;
    read_head(ws, len);
    if (ws->reply.status != 101) {
        while (fill(v, ws, until_ms)) /* the problem says which limit it was */
            ;
        read_head(ws, len);
        return false;
    }
    ws->have -= len;
    memmove(ws->in, ws->in + len, ws->have);
    return true;
}

bool ws_open(struct verify *v, struct ws *ws, const char *path, const char *kind, unsigned client)
{
    *ws = (struct ws){.fd = http_dial(v, ws->reply.why, sizeof ws->reply.why)};
    if (ws->fd < 0)
        return false;
    if (shake_hands(v, ws, path, kind, client)) {
        fcntl(ws->fd, F_SETFL, O_NONBLOCK);
        return true;
    }
    if (!ws->reply.status)
        snprintf(ws->reply.why, sizeof ws->reply.why, "no answer to the handshake");
    ws_close(ws);
    return false;
}

void ws_close(struct ws *ws)
{
    if (ws->fd >= 0)
        close(ws->fd);
    ws->fd = -1;
}

/* ---- frames ---- */

static void answer_ping(struct ws *ws, const uint8_t *payload, size_t len)
{
    uint8_t frame[6 + 125] = {0x80 | OPCODE_PONG, (uint8_t)(0x80 | len)}; /* masked with zeros */
    if (len > 125)
        return;
    memcpy(frame + 6, payload, len);
    const ssize_t n = send(ws->fd, frame, 6 + len, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n; /* its end shows when reading */
}

static void take_frame(struct ws *ws, unsigned opcode, const uint8_t *payload, size_t len)
{
    if (opcode == OPCODE_TEXT && memmem(payload, len, "\"type\":\"heartbeat\"", 18) &&
        memmem(payload, len, "\"timestamp\":\"", 13))
        ws->json_heartbeat = true;
    if (opcode == OPCODE_PING) {
        ws->ping = true;
        if (ws->answers)
            answer_ping(ws, payload, len);
    }
    if (opcode == OPCODE_CLOSE && len >= 2)
        ws->close_code = (uint16_t)(payload[0] << 8 | payload[1]);
}

/* Bytes of a whole frame that begins there; 0: more are needed; a frame that fits nowhere is cut. */
static size_t next_frame(struct ws *ws)
{
    const uint8_t *at = ws->in;
    if (ws->have < 2)
        return 0;
    uint64_t len = at[1] & 0x7f;
    size_t head = 2;
    const size_t wide = len == 126 ? 2 : len == 127 ? 8 : 0;
    if (ws->have < head + wide)
        return 0;
    for (size_t i = 0; i < wide; i++)
        len = (i ? len : 0) << 8 | at[2 + i];
    head += wide;
    if (len > sizeof ws->in - 16) { /* longer than any heartbeat */
        ws->ended = true;
        return 0;
    }
    if (ws->have < head + len)
        return 0;
    take_frame(ws, at[0] & 0x0f, at + head, (size_t)len);
    return head + (size_t)len;
}

void ws_read(struct ws *ws)
{
    const ssize_t n = recv(ws->fd, ws->in + ws->have, sizeof ws->in - ws->have, MSG_DONTWAIT);
    size_t used;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        ws->ended = true;
    if (n > 0)
        ws->have += (size_t)n;
    while ((used = next_frame(ws))) {
        ws->have -= used;
        memmove(ws->in, ws->in + used, ws->have);
    }
}

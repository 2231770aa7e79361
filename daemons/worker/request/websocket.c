/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * websocket: a valid WebSocket upgrade leaves the worker: the client's socket, the request as the
 * backend is to get it, and what the client has already sent go to polder-supervisor in one
 * message. Before that nothing has been answered; if the supervisor is away or its queue is full,
 * the worker still has the socket and says 503.
 */
#include "daemons/worker/request/websocket.h"
#include "daemons/http/h1.h"
#include "daemons/worker/client/client.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/supervisor_link.h"
#include "daemons/worker/worker.h"
#include "polder/config.h"
#include "polder/handover.h"
#include "polder/problem.h"
#include "polder/stats.h"
#include "polder/verify.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- SHA-1 and base64, for Sec-WebSocket-Accept alone (RFC 6455 4.2.2) ---- */

static uint32_t rotate(uint32_t v, unsigned n)
{
    return v << n | v >> (32 - n);
}

static void sha1_block(uint32_t h[5], const uint8_t block[64])
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ed9eba1;
        } else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        } else {
            f = b ^ c ^ d;
            k = 0xca62c1d6;
        }
        const uint32_t t = rotate(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = t;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
}

/* Of at most 119 bytes. */
static void sha1(const uint8_t *bytes, size_t len, uint8_t digest[20])
{
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t padded[128] = {0};
    const size_t blocks = len < 56 ? 1 : 2;
    memcpy(padded, bytes, len);
    padded[len] = 0x80;
    padded[blocks * 64 - 2] = (uint8_t)(len * 8 >> 8);
    padded[blocks * 64 - 1] = (uint8_t)(len * 8);
    for (size_t i = 0; i < blocks; i++)
        sha1_block(h, padded + i * 64);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64_20(const uint8_t in[20], char out[28])
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t padded[21] = {0};
    memcpy(padded, in, 20);
    for (int i = 0; i < 7; i++) {
        const uint32_t v =
            (uint32_t)padded[3 * i] << 16 | (uint32_t)padded[3 * i + 1] << 8 | padded[3 * i + 2];
        for (int j = 0; j < 4; j++)
            out[4 * i + j] = letters[v >> (18 - 6 * j) & 63];
    }
    out[27] = '=';
}

static void accept_key(struct str key, char out[28])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t text[24 + sizeof guid - 1], digest[20];
    memcpy(text, key.at, 24);
    memcpy(text + 24, guid, sizeof guid - 1);
    sha1(text, sizeof text, digest);
    base64_20(digest, out);
}

/* ---- is it a proper upgrade? ---- */

/* 16 bytes in base64: 22 letters, the last of which has four bits to spare, and two '='. */
static bool valid_key(struct str key)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (key.len != 24 || key.at[22] != '=' || key.at[23] != '=')
        return false;
    for (int i = 0; i < 22; i++)
        if (!key.at[i] || !strchr(letters, key.at[i]))
            return false;
    return strchr("AQgw", key.at[21]) != NULL;
}

bool websocket_is_asked(const struct h1_head *head)
{
    for (uint32_t i = 0; head->asks_upgrade && i < head->n_fields; i++) {
        struct str rest = head->field[i].value, element;
        while (head->field[i].id == H1_UPGRADE && field_list_next(&rest, &element))
            if (field_is(element, "websocket"))
                return true;
    }
    return false;
}

bool websocket_validate(struct client *c, const struct request *r)
{
    const struct h1_head *head = r->head;
    const struct h1_field *version = h1_only(head, H1_SEC_WEBSOCKET_VERSION);
    const struct h1_field *key = h1_only(head, H1_SEC_WEBSOCKET_KEY);
    const char *wrong = NULL;
    if (!head->is_get || head->minor == 0 || c->body_pending)
        wrong = ",\"reason\":\"a WebSocket opens with GET, HTTP/1.1 and no body\"";
    else if (!key || !valid_key(key->value))
        wrong = ",\"reason\":\"Sec-WebSocket-Key must be 16 bytes in base64\"";
    if (wrong) {
        stats_add(c->worker->stats, STATS_BAD_REQUESTS, 1);
        response_problem(r, c, PROBLEM_BAD_REQUEST, "", wrong, false);
        return false;
    }
    if (!version || !field_is(version->value, "13")) {
        response_problem(r, c, PROBLEM_UPGRADE_REQUIRED, RESPONSE_UPGRADE_LINES, "", true);
        return false;
    }
    return true;
}

/* ---- handing over ---- */

/* The path's last segment as the '*' of the route sees it. */
static struct str client_id(const struct request *r)
{
    const char *at = r->target.at, *end = at + r->target.len;
    const char *mark = memchr(at, '?', r->target.len);
    if (mark)
        end = mark;
    if (r->route->exact)
        return (struct str){0};
    const char *start = end;
    while (start > at && start[-1] != '/')
        start--;
    return (struct str){start, (size_t)(end - start)};
}

static uint16_t handover_flags(const struct request *r)
{
    const unsigned flags =
        (r->probe ? HANDOVER_PROBE : 0) | (r->probe == VERIFY_LOCAL ? HANDOVER_LOCAL : 0);
    return (uint16_t)flags;
}

static int hand_over(struct client *c, const struct request *r, struct str pipelined)
{
    struct worker *w = c->worker;
    char text[HANDOVER_LINES_MAX];
    struct h1_out lines = {text, text + sizeof text, false};
    h1_put(&lines, r->limit_lines, r->limit_len);
    if (w->config->request_id)
        request_id_put(&lines, r);
    const struct str id = client_id(r);
    const size_t head_len =
        response_request_head(w, &(struct response_request){.request = r, .upgrade = true});
    struct handover h = {.magic = HANDOVER_MAGIC,
                         .version = HANDOVER_VERSION,
                         .flags = handover_flags(r),
                         .accepted_ms = w->mono_ms,
                         .route_len = (uint32_t)strlen(r->route->pattern),
                         .id_len = (uint32_t)id.len,
                         .limit_len = (uint32_t)(lines.at - text),
                         .head_len = (uint32_t)head_len,
                         .pipelined_len = (uint32_t)pipelined.len};
    memcpy(h.peer, r->ip.addr, sizeof h.peer);
    accept_key(h1_find(r->head, H1_SEC_WEBSOCKET_KEY)->value, h.accept_key);
    struct iovec iov[6] = {{&h, sizeof h},          {(void *)r->route->pattern, h.route_len},
                           {(void *)id.at, id.len}, {text, h.limit_len},
                           {w->scratch, head_len},  {(void *)pipelined.at, pipelined.len}};
    if (!head_len || lines.overflow ||
        sizeof h + h.route_len + id.len + h.limit_len + head_len + pipelined.len > HANDOVER_MAX)
        return -EMSGSIZE;
    return supervisor_link_send(w, iov, 6, transport_fd(&c->transport));
}

void websocket_hand_over(struct client *c, const struct request *r, struct str pipelined)
{
    struct worker *w = c->worker;
    if (c->out.len) { /* it does not read what it has asked for before */
        client_close(c);
        return;
    }
    client_leave_unwatch(c);
    socket_transport_leave(&c->transport, w->epoll_fd); /* before it is somebody else's */
    if (hand_over(c, r, pipelined) < 0) {
        socket_transport_return(&c->transport);
        response_problem(r, c, PROBLEM_UNAVAILABLE, "Retry-After: 1\r\n", "", false);
        return;
    }
    stats_add(w->stats, STATS_WEBSOCKETS_HANDED, 1);
    client_close(c); /* for this worker; the supervisor has it open */
}

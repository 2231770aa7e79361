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
#include "daemons/worker/message/affinity.h"
#include "daemons/worker/message/request.h"
#include "daemons/worker/message/request_id.h"
#include "daemons/worker/fetch/headers.h"
#include "daemons/worker/supervisor_link.h"
#include "daemons/worker/worker.h"
#include "daemons/worker/message/messages.h"
#include "polder/config.h"
#include "polder/handover.h"
#include "polder/problem.h"
#include "polder/stats.h"
#include "polder/verify.h"

#include <errno.h>
#include <nettle/base64.h>
#include <nettle/sha1.h>
#include <string.h>
#include <unistd.h>

/* Sec-WebSocket-Accept (RFC 6455 4.2.2) */
static void accept_key(struct str key, char out[28])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t digest[SHA1_DIGEST_SIZE];
    struct sha1_ctx sha1;
    sha1_init(&sha1);
    sha1_update(&sha1, 24, (const uint8_t *)key.at);
    sha1_update(&sha1, sizeof guid - 1, (const uint8_t *)guid);
    sha1_digest(&sha1, sizeof digest, digest);
    _Static_assert(BASE64_ENCODE_RAW_LENGTH(sizeof digest) == 28, "room");
    base64_encode_raw(out, sizeof digest, digest);
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

bool websocket_is_wanted(const struct h1_head *head)
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
    struct sticky_key sticky = {0};
    h1_put(&lines, r->limit_lines, r->limit_len);
    if (w->config->request_id)
        request_id_put(&lines, r);
    if (r->route->upstream)
        affinity_of(r, r->route->upstream, &sticky);
    affinity_put_cookie(&lines, &sticky, NULL, false);
    const struct str id = client_id(r);
    const size_t head_len =
        response_request_head(w, &(struct response_request){.request = r, .upgrade = true});
    struct handover h = {.magic = HANDOVER_MAGIC,
                         .version = HANDOVER_VERSION,
                         .flags = handover_flags(r),
                         .route_len = (uint32_t)strlen(r->route->pattern),
                         .id_len = (uint32_t)id.len,
                         .limit_len = (uint32_t)(lines.at - text),
                         .head_len = (uint32_t)head_len,
                         .pipelined_len = (uint32_t)pipelined.len,
                         .sticky_hash = sticky.hash,
                         .sticky_server = sticky.server};
    memcpy(h.peer, r->ip.addr, sizeof h.peer);
    accept_key(h1_find(r->head, H1_SEC_WEBSOCKET_KEY)->value, h.accept_key);
    struct iovec iov[6] = {{&h, sizeof h},
                           {(void *)r->route->pattern, h.route_len},
                           {(void *)id.at, id.len},
                           {text, h.limit_len},
                           {w->texts->scratch, head_len},
                           {(void *)pipelined.at, pipelined.len}};
    if (!head_len || lines.overflow ||
        sizeof h + h.route_len + id.len + h.limit_len + head_len + pipelined.len > HANDOVER_MAX)
        return -EMSGSIZE;
    supervisor_link_send_slots(w);
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
    socket_transport_leave(&c->transport, w->epoll_fd); /* before another process has it */
    if (hand_over(c, r, pipelined) < 0) {
        socket_transport_return(&c->transport);
        response_problem(r, c, PROBLEM_UNAVAILABLE, "Retry-After: 1\r\n", "", false);
        return;
    }
    stats_add(w->stats, STATS_WEBSOCKETS_HANDED, 1);
    client_close(c); /* for this worker; the supervisor has it open */
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * access: the supervisor's lines of the access log, one for each WebSocket at its end and one for
 * each upgrade that is refused.
 *
 * What the line says of the request is copied when the session begins, for its head is given up
 * when the WebSocket is open; what the session counts is added at the end. A session of a log that
 * is off, or for which there was no memory, has no line.
 */
#include "daemons/http/h1.h"
#include "daemons/supervisor/supervisor.h"
#include "polder/access_log.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/log.h"

#include <stdlib.h>
#include <string.h>

#define CLIENT_LEFT 499

/* ---- the file ---- */

int supervisor_log_open(struct supervisor *s, char *why, size_t size)
{
    const char *path = s->config->access_log_path;
    int fd;
    const int code = access_log_open(s->config, &fd);
    condition_set(s->conditions, COND_ACCESS_LOG_FAILED, path, code < 0, strerror(-code),
                  clock_real_ms());
    if (code < 0) {
        access_log_explain(s->config, code, why, size);
        return code;
    }
    access_log_stop(&s->log);
    return access_log_start(&s->log, s->config->access_log, fd);
}

void supervisor_log_flush(struct supervisor *s)
{
    if (!s->log.len && !s->log.raised)
        return;
    access_log_flush(&s->log);
    access_log_report(&s->log, s->conditions, s->config->access_log_path, clock_real_ms());
}

/* ---- lines ---- */

static struct str text_of(const char *text)
{
    return (struct str){text, strlen(text)};
}

static struct str value_of(const struct h1_head *head, enum h1_field_id id)
{
    const struct h1_field *f = h1_find(head, id);
    return f ? f->value : (struct str){0};
}

/* The handshake, as the worker has written it for the backend. */
static void describe(struct access_line *l, const struct config_route *route,
                     const uint8_t peer[16], const char *bytes, size_t len)
{
    static struct h1_head head; /* 5 KiB; the line borrows the bytes, not the head */
    enum problem problem;
    size_t scanned = 0;
    *l = (struct access_line){.cache = "none"};
    memcpy(l->client.addr, peer, sizeof l->client.addr);
    if (route)
        l->route = text_of(route->pattern);
    if (h1_parse_request(bytes, len, &scanned, &head, &problem) != H1_DONE)
        return;
    l->method = head.method;
    l->host = head.host;
    l->target = head.target;
    l->protocol = text_of("HTTP/1.1");
    l->user_agent = value_of(&head, H1_USER_AGENT);
    l->referer = value_of(&head, H1_REFERER);
    l->request_id = value_of(&head, H1_X_REQUEST_ID);
}

struct str ws_request_id(const struct pending *p)
{
    static const char name[] = "\r\nX-Request-Id: ";
    const char *head = pending_head(p), *end = head + p->head_len;
    const char *at = memmem(head, p->head_len, name, sizeof name - 1);
    if (!at)
        return (struct str){0};
    at += sizeof name - 1;
    const char *stop = memchr(at, '\r', (size_t)(end - at));
    return (struct str){at, stop ? (size_t)(stop - at) : 0};
}

void ws_line_begin(const struct supervisor *s, struct session *x, const uint8_t peer[16])
{
    struct access_line l;
    if (!access_log_is_on(&s->log))
        return;
    describe(&l, x->route, peer, pending_head(x->pending), x->pending->head_len);
    x->line = access_line_copy(&l);
    x->begun_ns = clock_mono_ns();
}

struct access_line ws_line_taken_up(const struct config_route *route, const struct clientip *ip)
{
    return (struct access_line){.cache = "none", .client = *ip, .route = text_of(route->pattern)};
}

void ws_line_refused(struct supervisor *s, const struct ws_refused *r)
{
    struct access_line l;
    if (!access_log_is_on(&s->log))
        return;
    describe(&l, r->route, r->peer, r->head, r->head_len);
    l.real_ms = clock_real_ms();
    l.status = r->status;
    l.bytes = r->bytes;
    l.limit = r->limit ? text_of(r->limit) : (struct str){0};
    access_log_put(&s->log, &l);
}

void ws_line_requested(struct session *x)
{
    x->requested_ns = x->line ? clock_mono_ns() : 0;
}

/* The configuration may be another one when the line is written: its texts are copied. */
void ws_line_server(struct session *x)
{
    const struct config_server *server = x->pending->server;
    if (!x->line || !server)
        return;
    struct access_line l = *x->line;
    l.upstream = text_of(server->address.text);
    l.upstream_us = x->requested_ns ? (clock_mono_ns() - x->requested_ns) / 1000 : 0;
    struct access_line *copy = access_line_copy(&l);
    if (!copy)
        return;
    free(x->line);
    x->line = copy;
}

static void describe_websocket(const struct supervisor *s, const struct session *x,
                               struct access_line *l)
{
    l->websocket = true;
    l->status = 101;
    l->us = (s->now_ms - x->opened_ms) * 1000;
    l->bytes = x->bytes;
    l->messages_in = x->messages_in;
    l->messages_out = x->messages_out;
    l->close_code = x->close_code;
    l->reason = session_end_names[x->end];
}

/* No answer was sent: the client had gone, or there was no memory for an answer. */
static void describe_unanswered(const struct session *x, struct access_line *l)
{
    if (x->end == END_CLIENT_LOST) {
        l->status = CLIENT_LEFT;
    } else {
        l->status = 503;
        l->cut = x->end == END_DRAIN ? "drain" : "polder";
    }
}

void ws_line_end(struct supervisor *s, struct session *x, bool was_open)
{
    struct access_line *l = x->line;
    if (!l)
        return;
    l->real_ms = clock_real_ms();
    if (was_open) {
        describe_websocket(s, x, l);
    } else {
        l->status = x->refused_with;
        l->bytes = x->bytes;
        l->us = (clock_mono_ns() - x->begun_ns) / 1000;
        l->cut = x->cut_by;
        if (!l->status)
            describe_unanswered(x, l);
        else if (x->end == END_CLIENT_LOST)
            l->status = CLIENT_LEFT;
    }
    access_log_put(&s->log, l);
    free(l);
    x->line = NULL;
}

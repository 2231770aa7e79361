/* SPDX-License-Identifier: BSD-2-Clause */
/* check: see check.h. */
#include "daemons/control/model/check.h"
#include "daemons/http/h1.h"
#include "daemons/net/transport.h"
#include "polder/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    struct transport transport;
    struct ev_loop *loop;
    ev_timer timeout;
    const struct config_server *server;
    struct server_addresses addresses; /* of a name */
    uint32_t next;                     /* address */
    check_done_fn done;
    void *arg;
    struct check_outcome outcome;
    bool open, connected, has_head;
    char weight[16];
    size_t request_len, sent, in_len, scanned, text_len;
    struct h1_body body;
    char in[H1_HEAD_MAX];
    char text[CHECK_BODY_MAX]; /* of the body, decoded */
    char request[];
};

/* ---- its end ---- */

static void disconnect(struct check *k)
{
    if (k->open)
        k->transport.ops->close(&k->transport);
    k->open = k->connected = false;
}

void check_stop(struct check *k)
{
    if (!k)
        return;
    disconnect(k);
    ev_timer_stop(k->loop, &k->timeout);
    free(k);
}

static void end(struct check *k, enum server_check_result result)
{
    const check_done_fn done = k->done;
    void *arg = k->arg;
    k->outcome.result = result;
    struct check_outcome outcome = k->outcome;
    char weight[sizeof k->weight];
    memcpy(weight, k->weight, sizeof weight);
    if (outcome.weight.at)
        outcome.weight.at = weight;
    check_stop(k);
    done(arg, &outcome);
}

static void on_timeout(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct check *k = timer->data;
    (void)loop, (void)events;
    end(k, k->next || k->open ? SERVER_CHECK_TIMEOUT : SERVER_CHECK_NO_ADDRESS);
}

/* ---- its answer ---- */

/* Longer ones than any that can be read are cut, and stay unreadable. */
static void keep_weight(struct check *k, const struct h1_head *head)
{
    static const char name[] = "polder-weight";
    for (uint32_t i = 0; i < head->n_fields; i++) {
        const struct h1_field *f = &head->field[i];
        if (f->name.len != sizeof name - 1 || strncasecmp(f->name.at, name, f->name.len) != 0)
            continue;
        const size_t len = f->value.len < sizeof k->weight ? f->value.len : sizeof k->weight;
        memcpy(k->weight, f->value.at, len);
        k->outcome.weight = (struct str){k->weight, len};
        return;
    }
}

/* 0: more is to come. */
static int judge_head(struct check *k, const struct h1_head *head)
{
    struct server_check_statuses statuses;
    const struct config_upstream *u = k->server->upstream;
    k->outcome.status = head->status;
    keep_weight(k, head);
    if (!server_check_parse_statuses(u->health_status, &statuses) ||
        !server_check_passes(&statuses, head->status)) {
        end(k, SERVER_CHECK_STATUS);
        return -1;
    }
    if (!*u->health_body) {
        end(k, SERVER_CHECK_PASSED);
        return -1;
    }
    k->has_head = true;
    h1_body_init(&k->body, head->framing, head->length);
    return 0;
}

/* Looks at what has come of the body. */
static void judge_body(struct check *k, bool whole)
{
    const char *wanted = k->server->upstream->health_body;
    if (memmem(k->text, k->text_len, wanted, strlen(wanted)))
        end(k, SERVER_CHECK_PASSED);
    else if (whole || k->text_len == sizeof k->text)
        end(k, SERVER_CHECK_BODY);
}

static void take_body(struct check *k, const char *at, size_t len)
{
    while (len && !k->body.done && k->text_len < sizeof k->text) {
        struct str content;
        size_t used;
        if (h1_body_read(&k->body, at, len, &used, &content)) {
            end(k, SERVER_CHECK_MALFORMED);
            return;
        }
        const size_t room = sizeof k->text - k->text_len;
        const size_t n = content.len < room ? content.len : room;
        if (n)
            memcpy(k->text + k->text_len, content.at, n);
        k->text_len += n;
        at += used;
        len -= used;
    }
    k->in_len = 0;
    judge_body(k, k->body.done);
}

static void take_head(struct check *k)
{
    struct h1_head head;
    size_t at = 0;
    for (;;) {
        const enum h1_result result =
            h1_parse_response(k->in + at, k->in_len - at, &k->scanned, false, &head);
        if (result == H1_BAD || (result == H1_DONE && head.status == 101) ||
            (result == H1_MORE && k->in_len - at == sizeof k->in)) {
            end(k, SERVER_CHECK_MALFORMED);
            return;
        }
        if (result == H1_MORE)
            break;
        at += head.head_len;
        k->scanned = 0;
        if (head.status >= 200) {
            if (judge_head(k, &head) == 0)
                take_body(k, k->in + at, k->in_len - at);
            return;
        }
    }
    memmove(k->in, k->in + at, k->in_len - at); /* behind 1xx */
    k->in_len -= at;
}

/* ---- its connection ---- */

static void connect_next(struct check *k);

static void lost(struct check *k)
{
    if (!k->connected)
        connect_next(k);
    else if (k->has_head && h1_body_eof(&k->body))
        judge_body(k, true);
    else
        end(k, SERVER_CHECK_MALFORMED);
}

static void on_readable(struct transport *t)
{
    struct check *k = TRANSPORT_OWNER(t, struct check, transport);
    const ssize_t n = t->ops->read(t, k->in + k->in_len, sizeof k->in - k->in_len);
    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        lost(k);
        return;
    }
    k->in_len += (size_t)n;
    if (k->has_head)
        take_body(k, k->in, k->in_len);
    else
        take_head(k);
}

static void on_writable(struct transport *t)
{
    struct check *k = TRANSPORT_OWNER(t, struct check, transport);
    if (!k->connected && t->ops->established(t)) {
        connect_next(k);
        return;
    }
    if (!k->connected)
        transport_start(t, TRANSPORT_READ);
    k->connected = true;
    const struct iovec iov = {k->request + k->sent, k->request_len - k->sent};
    const ssize_t n = t->ops->write(t, &iov, 1);
    if (n > 0)
        k->sent += (size_t)n;
    if (n < 0 || k->sent == k->request_len) /* its answer may be here even so */
        transport_stop(t, TRANSPORT_WRITE);
}

/* 0: it has no further address. */
static socklen_t next_address(struct check *k, struct sockaddr_storage *sa)
{
    const struct config_address *fixed = &k->server->address;
    const uint32_t n = k->next++;
    if (fixed->len) {
        *sa = fixed->sa;
        return n ? 0 : fixed->len;
    }
    return n < k->addresses.n ? server_address_to(&k->addresses.at[n], sa) : 0;
}

/* Connects to the next address of the server that takes a connection, or ends. */
static void connect_next(struct check *k)
{
    static const struct transport_user on = {on_readable, on_writable};
    struct sockaddr_storage sa;
    socklen_t len;
    disconnect(k);
    while ((len = next_address(k, &sa))) {
        transport_init(&k->transport, &socket_transport, &on, k->loop, -1);
        if (k->transport.ops->connect(&k->transport, (const struct sockaddr *)&sa, len) == 0) {
            k->open = true;
            transport_start(&k->transport, TRANSPORT_WRITE);
            return;
        }
    }
    const bool none = !k->server->address.len && !k->addresses.n;
    end(k, none ? SERVER_CHECK_NO_ADDRESS : SERVER_CHECK_CONNECT);
}

/* From the loop, so that its caller has it before it ends. */
static void on_begin(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct check *k = timer->data;
    (void)loop, (void)events;
    ev_timer_stop(k->loop, timer);
    ev_timer_init(timer, on_timeout, k->server->upstream->health_timeout_ms / 1000., 0.);
    ev_timer_start(k->loop, timer);
    connect_next(k);
}

struct check *check_start(struct ev_loop *loop, const struct config_server *server,
                          const struct server_row *row, check_done_fn done, void *arg)
{
    static const char form[] = "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: polder-health\r\n"
                               "Accept: */*\r\nConnection: close\r\n\r\n";
    const char *path = server->upstream->health, *name = server->address.text;
    const char *host =
        server->address.len && server->address.sa.ss_family == AF_UNIX ? "localhost" : name;
    const size_t size = sizeof form + strlen(path) + strlen(host);
    struct check *k = calloc(1, sizeof *k + size);
    if (!k)
        return NULL;
    k->loop = loop;
    k->server = server;
    k->done = done;
    k->arg = arg;
    k->request_len = (size_t)snprintf(k->request, size, form, path, host);
    if (row)
        server_addresses_get(row, &k->addresses);
    ev_timer_init(&k->timeout, on_begin, 0., 0.);
    k->timeout.data = k;
    ev_timer_start(loop, &k->timeout);
    return k;
}

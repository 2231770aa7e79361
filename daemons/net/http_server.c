/* SPDX-License-Identifier: BSD-2-Clause */
/* http_server: see http_server.h. */
#include "daemons/net/http_server.h"
#include "polder/clock.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define HEAD_S          10.
#define KEEPALIVE_S     60.
#define WRITE_S         30.
#define LINGER_S        2.
#define STREAM_MAX      (256u << 10) /* of a stream that a client has not taken */
#define STREAM_SOCKET   (64 << 10)   /* of it in the kernel */
#define NO_LENGTH       SIZE_MAX
#define ANSWER_HEAD     2048

enum http_state { HTTP_READING, HTTP_WAITING, HTTP_WRITING, HTTP_STREAMING, HTTP_LINGERING };

/* A connection, and the request on it that waits for its answer. */
struct http_request {
    struct http_server *server;
    LIST_ENTRY(http_request) entry;
    int fd; /* -1: the client has left; freed with the answer */
    ev_io io;
    ev_timer timer;
    enum http_state state;
    unsigned origin;
    bool is_head, keep, chunks; /* chunks: it knows them */
    bool is_stream;             /* or was one, until it is closed */
    char in[H1_HEAD_MAX];
    size_t in_len, scanned;
    char *out;
    size_t out_len, out_size, sent;
    http_gone_fn gone; /* while it streams, or is answered in parts */
    void *gone_arg;
    http_next_fn more; /* NULL: there is no further part */
    bool doomed;       /* it does not keep up with its stream */
    ev_tstamp moved;   /* when it last took a part of its answer, or began to */
};

struct http_server {
    struct ev_loop *loop;
    http_handler handler;
    void *arg;
    LIST_HEAD(, http_request) connections;
    unsigned n_connections; /* but streams */
};

/* ---- connections ---- */

static void unlink_connection(struct http_request *r)
{
    LIST_REMOVE(r, entry);
    r->server->n_connections -= !r->is_stream;
}

static void hang_up(struct http_request *r)
{
    const http_gone_fn gone = r->gone;
    void *arg = r->gone_arg;
    ev_io_stop(r->server->loop, &r->io);
    ev_timer_stop(r->server->loop, &r->timer);
    unlink_connection(r);
    close(r->fd);
    r->fd = -1;
    free(r->out);
    r->out = NULL;
    if (r->state != HTTP_WAITING)
        free(r);
    if (gone)
        gone(arg);
}

static void request_watch(struct http_request *r, int events, double seconds)
{
    ev_io_stop(r->server->loop, &r->io);
    if (events) {
        ev_io_set(&r->io, r->fd, events);
        ev_io_start(r->server->loop, &r->io);
    }
    r->timer.repeat = seconds;
    ev_timer_again(r->server->loop, &r->timer);
}

static void request_enter(struct http_request *r, enum http_state state)
{
    r->state = state;
    switch (state) {
    case HTTP_READING:
        request_watch(r, EV_READ, r->in_len ? HEAD_S : KEEPALIVE_S);
        break;
    case HTTP_WAITING:
        request_watch(r, 0, 0.); /* the handler has its own deadline */
        break;
    case HTTP_WRITING:
        r->moved = ev_now(r->server->loop);
        request_watch(r, EV_WRITE, WRITE_S);
        break;
    case HTTP_STREAMING: /* how long nothing of it is taken counts from each part */
        r->moved = ev_now(r->server->loop);
        request_watch(r, r->out_len ? EV_READ | EV_WRITE : EV_READ, r->out_len ? WRITE_S : 0.);
        break;
    case HTTP_LINGERING:
        shutdown(r->fd, SHUT_WR);
        request_watch(r, EV_READ, LINGER_S);
        break;
    }
}

/* ---- answers ---- */

static size_t write_head(const struct http_request *r, unsigned status, const char *type,
                         const char *fields, size_t len, char *at, size_t size)
{
    struct h1_out o = {at, at + size, false};
    char date[FIELD_DATE_LEN + 1];
    field_date_format((int64_t)(clock_real_ms() / 1000), date);
    h1_put_status_line(&o, status, (struct str){0});
    h1_put_field(&o, "Date", (struct str){date, FIELD_DATE_LEN});
    h1_put_field(&o, "Content-Type", (struct str){type, strlen(type)});
    if (len == NO_LENGTH && r->more && r->chunks) {
        h1_puts(&o, "Transfer-Encoding: chunked\r\n");
    } else if (len != NO_LENGTH) {
        h1_puts(&o, "Content-Length: ");
        h1_put_u64(&o, len);
        h1_puts(&o, "\r\n");
    }
    h1_puts(&o, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    h1_puts(&o, fields);
    if (status == 405)
        h1_puts(&o, "Allow: GET, HEAD\r\n");
    h1_puts(&o, r->keep ? "\r\n" : "Connection: close\r\n\r\n");
    return o.overflow ? 0 : (size_t)(o.at - at);
}

void http_answer_with(struct http_request *r, unsigned status, const char *type, const char *fields,
                      const char *body, size_t len)
{
    if (r->fd < 0) {
        free(r);
        return;
    }
    char head[ANSWER_HEAD];
    const size_t head_len = write_head(r, status, type, fields, len, head, sizeof head);
    r->out_len = head_len + (r->is_head ? 0 : len);
    r->out = malloc(r->out_len); /* NOLINT(clang-analyzer-optin.portability.UnixAPI) */
    r->sent = 0;
    if (!r->out || !head_len) {
        r->state = HTTP_READING; /* hang_up() then frees it */
        hang_up(r);
        return;
    }
    memcpy(r->out, head, head_len);
    if (!r->is_head)
        memcpy(r->out + head_len, body, len);
    request_enter(r, HTTP_WRITING);
}

void http_answer(struct http_request *r, unsigned status, const char *type, const char *body,
                 size_t len)
{
    http_answer_with(r, status, type, "", body, len);
}

void http_answer_problem_with(struct http_request *r, unsigned status, const char *fields,
                              const char *detail)
{
    char body[1024];
    const struct problem_body words = {.title = problem_reason(status), .detail = detail};
    const size_t n = problem_write_body(status, &words, body, sizeof body);
    http_answer_with(r, status, PROBLEM_TYPE, fields, body, n);
}

void http_answer_problem(struct http_request *r, unsigned status, const char *detail)
{
    http_answer_problem_with(r, status, "", detail);
}

/* ---- streams ---- */

/* Room for len bytes more behind those that were not sent yet. */
static bool make_room(struct http_request *r, size_t len)
{
    if (r->sent) {
        r->out_len -= r->sent;
        memmove(r->out, r->out + r->sent, r->out_len);
        r->sent = 0;
    }
    if (r->out_len + len > STREAM_MAX)
        return false;
    if (r->out_len + len <= r->out_size)
        return true;
    const size_t size = r->out_len + len < 4096 ? 4096 : (r->out_len + len) * 2;
    char *out = realloc(r->out, size);
    if (!out)
        return false;
    r->out = out;
    r->out_size = size;
    return true;
}

void http_stream_put(struct http_request *r, const char *bytes, size_t len)
{
    if (!len)
        return;
    if (r->doomed)
        return;
    if (!make_room(r, len)) { /* hung up from the loop: the caller still holds it */
        r->doomed = true;
        ev_io_stop(r->server->loop, &r->io);
        ev_feed_event(r->server->loop, &r->timer, EV_TIMER);
        return;
    }
    memcpy(r->out + r->out_len, bytes, len);
    r->out_len += len;
    if (r->out_len == len) /* it was idle */
        request_enter(r, HTTP_STREAMING);
}

/* Little of it waits in the kernel, and not for long after the client's host has gone without a
 * word. */
static void bound_socket(int fd)
{
    const int size = STREAM_SOCKET;
    const unsigned silence_ms = (unsigned)(WRITE_S * 1000);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms);
}

bool http_stream_begin(struct http_request *r, const char *type, http_gone_fn gone, void *arg)
{
    char head[ANSWER_HEAD];
    if (r->fd < 0 || r->is_head) {
        http_answer(r, 200, type, "", NO_LENGTH);
        return false;
    }
    r->keep = false;
    r->is_stream = true;
    r->gone = gone;
    r->gone_arg = arg;
    r->server->n_connections--;
    bound_socket(r->fd);
    request_enter(r, HTTP_STREAMING);
    http_stream_put(r, head, write_head(r, 200, type, "", NO_LENGTH, head, sizeof head));
    return true;
}

static void stream_on(struct http_request *r)
{
    r->out_len = r->sent = 0;
    request_enter(r, HTTP_STREAMING);
}

/* ---- answers in parts ---- */

#define CHUNK_FRAME 24 /* a chunk's length, and the ends of lines */

static void parts_done(struct http_request *r)
{
    const http_gone_fn done = r->gone;
    r->gone = NULL;
    r->more = NULL;
    done(r->gone_arg);
}

/* The next part is ready to be sent. False: the connection is gone. */
static bool next_part(struct http_request *r)
{
    const char *part = NULL;
    size_t len = 0;
    if (!r->more(r->gone_arg, &part, &len) || (len && !make_room(r, len + CHUNK_FRAME))) {
        hang_up(r);
        return false;
    }
    if (r->chunks)
        r->out_len += (size_t)snprintf(r->out + r->out_len, CHUNK_FRAME, "%zx\r\n", len);
    if (len)
        memcpy(r->out + r->out_len, part, len);
    r->out_len += len;
    if (r->chunks) {
        memcpy(r->out + r->out_len, "\r\n", 2);
        r->out_len += 2;
    }
    if (!len)
        parts_done(r);
    return true;
}

void http_answer_parts(struct http_request *r, const char *type, http_next_fn next,
                       http_gone_fn done, void *arg)
{
    if (r->fd < 0 || r->is_head) {
        http_answer(r, 200, type, "", NO_LENGTH);
        done(arg);
        return;
    }
    r->keep = r->keep && r->chunks;
    r->more = next;
    r->gone = done;
    r->gone_arg = arg;
    r->out_len = r->sent = 0;
    request_enter(r, HTTP_WRITING);
    if (!make_room(r, ANSWER_HEAD)) {
        hang_up(r);
        return;
    }
    r->out_len = write_head(r, 200, type, "", NO_LENGTH, r->out, r->out_size);
}

/* ---- requests ---- */

static void take_head(struct http_request *r, const struct h1_head *h)
{
    const struct http_call call = {.request = r, .head = h, .origin = r->origin};
    const bool get = h->is_get || h->is_head;
    r->is_head = h->is_head;
    r->chunks = h->minor > 0;
    r->keep = h->keep_alive && h->minor && h->framing == H1_NO_BODY && get;
    request_enter(r, HTTP_WAITING);
    /* the handler looks at nothing of the head after it has returned */
    if (get)
        r->server->handler(r->server->arg, &call);
    else
        http_answer_problem(r, 405, "Only GET and HEAD are answered here.");
}

static void read_request(struct http_request *r)
{
    struct h1_head head;
    enum problem problem;
    const size_t blank = h1_skip_blank(r->in, r->in_len);
    if (blank && r->scanned == 0) {
        r->in_len -= blank;
        memmove(r->in, r->in + blank, r->in_len);
    }
    switch (h1_parse_request(r->in, r->in_len, &r->scanned, &head, &problem)) {
    case H1_MORE:
        if (r->in_len == sizeof r->in) {
            r->keep = r->is_head = false;
            request_enter(r, HTTP_WAITING);
            http_answer_problem(r, 431, "the request head is too large");
        }
        break;
    case H1_BAD:
        r->keep = r->is_head = false;
        request_enter(r, HTTP_WAITING);
        http_answer_problem(r, problem_status(problem), problem_title(problem));
        break;
    case H1_DONE: {
        /* the head's texts lie in `in`: it is moved on when the answer is out */
        const uint32_t len = head.head_len;
        r->scanned = len;
        take_head(r, &head);
        break;
    }
    }
}

static void on_readable(struct http_request *r)
{
    char sink[4096];
    const bool drops = r->state == HTTP_LINGERING || r->state == HTTP_STREAMING;
    const ssize_t n = drops ? recv(r->fd, sink, sizeof sink, 0)
                            : recv(r->fd, r->in + r->in_len, sizeof r->in - r->in_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        hang_up(r);
        return;
    }
    if (drops)
        return;
    if (r->in_len == 0)
        request_watch(r, EV_READ, HEAD_S); /* of the whole head, not of each byte */
    r->in_len += (size_t)n;
    read_request(r);
}

static void on_writable(struct http_request *r)
{
    const ssize_t n = send(r->fd, r->out + r->sent, r->out_len - r->sent, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        hang_up(r);
        return;
    }
    r->sent += (size_t)n;
    r->moved = ev_now(r->server->loop);
    if (r->state == HTTP_STREAMING && r->sent < r->out_len)
        ev_timer_again(r->server->loop, &r->timer);
    if (r->sent < r->out_len)
        return;
    if (r->state == HTTP_STREAMING) {
        stream_on(r);
        return;
    }
    if (r->more) { /* sent at the next turn: others are served between two parts */
        r->out_len = r->sent = 0;
        if (!next_part(r))
            return;
        if (r->out_len) {
            request_enter(r, HTTP_WRITING);
            return;
        }
    }
    free(r->out);
    r->out = NULL;
    r->out_size = 0;
    if (!r->keep) {
        request_enter(r, HTTP_LINGERING);
        return;
    }
    r->in_len -= r->scanned;
    memmove(r->in, r->in + r->scanned, r->in_len);
    r->scanned = 0;
    request_enter(r, HTTP_READING);
    if (r->in_len)
        read_request(r);
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    if (revents & EV_WRITE) /* where both: the other at the next turn */
        on_writable(w->data);
    else
        on_readable(w->data);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    hang_up(w->data);
}

/* ---- the server ---- */

static void make_place(struct http_server *s)
{
    struct http_request *r, *idle = NULL, *writer = NULL, *waiting = NULL;
    if (s->n_connections < CONNECTIONS_MAX)
        return;
    LIST_FOREACH (r, &s->connections, entry) /* the youngest first */
        if (r->state == HTTP_READING || r->state == HTTP_LINGERING)
            idle = r;
        else if (r->state == HTTP_WAITING)
            waiting = r;
        else if (r->is_stream)
            ; /* a stream */
        else if (!writer || r->moved <= writer->moved)
            writer = r;
    struct http_request *last = idle ? idle : writer ? writer : waiting;
    if (last)
        hang_up(last);
}

void http_server_add(struct http_server *s, int fd, unsigned origin)
{
    make_place(s);
    struct http_request *r = calloc(1, sizeof *r);
    if (!r) {
        close(fd);
        return;
    }
    r->server = s;
    r->fd = fd;
    r->origin = origin;
    ev_io_init(&r->io, on_io, fd, EV_READ);
    ev_init(&r->timer, on_timer);
    r->io.data = r->timer.data = r;
    LIST_INSERT_HEAD(&s->connections, r, entry);
    s->n_connections++;
    request_enter(r, HTTP_READING);
}

struct http_server *http_server_new(struct ev_loop *loop, http_handler handler, void *arg)
{
    struct http_server *s = calloc(1, sizeof *s);
    if (s)
        *s = (struct http_server){.loop = loop, .handler = handler, .arg = arg};
    return s;
}

void http_server_free(struct http_server *s)
{
    while (!LIST_EMPTY(&s->connections))
        hang_up(LIST_FIRST(&s->connections)); /* NOLINT(clang-analyzer-unix.Malloc) */
    free(s);
}

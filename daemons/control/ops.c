/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ops: a small HTTP/1.1 server for the ops pages, on ops.listen and on runtime_dir/ops.sock.
 *
 * A connection answers one request after the other; one that waits for its page is not read. Heads
 * must come within HEAD_S, answers must be taken within WRITE_S. When there are too many
 * connections, one has to go for each that comes: the oldest that owes us a request, else the one
 * that has not taken anything of its answer for longest: clients that do not read lock nobody out.
 * After an answer that ends the connection what the client still sends is read and dropped for a
 * while, for a reset would take the answer with it.
 */
#include "daemons/control/control.h"
#include "daemons/http/h1.h"
#include "daemons/rpc/socket.h"
#include "polder/clock.h"
#include "polder/conditions.h"
#include "polder/config.h"
#include "polder/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define HEAD_S          10.
#define KEEPALIVE_S     60.
#define WRITE_S         30.
#define LINGER_S        2.
#define BACKLOG         128

enum ops_state { OPS_READING, OPS_WAITING, OPS_WRITING, OPS_LINGERING };

/* A connection, and the request on it that waits for its answer. */
struct ops_request {
    struct ops *ops;
    struct ops_request *next;
    int fd; /* -1: the client has left; freed with the answer */
    ev_io io;
    ev_timer timer;
    enum ops_state state;
    bool public, is_head, keep;
    char in[H1_HEAD_MAX];
    size_t in_len, scanned;
    char *out;
    size_t out_len, sent;
    ev_tstamp moved; /* when it last took a part of its answer, or began to */
};

struct ops_listener {
    struct ops *ops;
    struct rpc_socket unix_socket; /* or just its fd, for TCP */
    ev_io io;
    ev_timer pause;
    bool open, is_unix, public;
    char text[128]; /* where it listens */
};

struct ops {
    struct control *control;
    struct ev_loop *loop;
    struct ops_listener tcp, local;
    struct ops_request *connections;
    unsigned n_connections;
};

/* ---- connections ---- */

static void unlink_connection(struct ops_request *r)
{
    struct ops_request **at = &r->ops->connections;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    r->ops->n_connections--;
}

static void hang_up(struct ops_request *r)
{
    ev_io_stop(r->ops->loop, &r->io);
    ev_timer_stop(r->ops->loop, &r->timer);
    unlink_connection(r);
    close(r->fd);
    r->fd = -1;
    free(r->out);
    r->out = NULL;
    if (r->state != OPS_WAITING)
        free(r);
}

static void watch(struct ops_request *r, int events, double seconds)
{
    ev_io_stop(r->ops->loop, &r->io);
    if (events) {
        ev_io_set(&r->io, r->fd, events);
        ev_io_start(r->ops->loop, &r->io);
    }
    r->timer.repeat = seconds;
    ev_timer_again(r->ops->loop, &r->timer);
}

static void enter(struct ops_request *r, enum ops_state state)
{
    r->state = state;
    switch (state) {
    case OPS_READING:
        watch(r, EV_READ, r->in_len ? HEAD_S : KEEPALIVE_S);
        break;
    case OPS_WAITING:
        watch(r, 0, 0.); /* whoever answers has a deadline of his own */
        break;
    case OPS_WRITING:
        r->moved = ev_now(r->ops->loop);
        watch(r, EV_WRITE, WRITE_S);
        break;
    case OPS_LINGERING:
        shutdown(r->fd, SHUT_WR);
        watch(r, EV_READ, LINGER_S);
        break;
    }
}

/* ---- answers ---- */

static size_t write_head(const struct ops_request *r, unsigned status, const char *type, size_t len,
                         char *at, size_t size)
{
    struct h1_out o = {at, at + size, false};
    char date[FIELD_DATE_LEN + 1];
    field_date_format((int64_t)(clock_real_ms() / 1000), date);
    h1_put_status_line(&o, status, (struct field_text){0});
    h1_put_field(&o, "Date", (struct field_text){date, FIELD_DATE_LEN});
    h1_put_field(&o, "Content-Type", (struct field_text){type, strlen(type)});
    h1_puts(&o, "Content-Length: ");
    h1_put_u64(&o, len);
    h1_puts(&o, "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
    if (status == 405)
        h1_puts(&o, "Allow: GET, HEAD\r\n");
    h1_puts(&o, r->keep ? "\r\n" : "Connection: close\r\n\r\n");
    return o.overflow ? 0 : (size_t)(o.at - at);
}

void ops_answer(struct ops_request *r, unsigned status, const char *type, const char *body,
                size_t len)
{
    if (r->fd < 0) {
        free(r);
        return;
    }
    char head[512];
    const size_t head_len = write_head(r, status, type, len, head, sizeof head);
    r->out_len = head_len + (r->is_head ? 0 : len);
    r->out = malloc(r->out_len); /* NOLINT(clang-analyzer-optin.portability.UnixAPI) */
    r->sent = 0;
    if (!r->out || !head_len) {
        r->state = OPS_READING; /* hang_up() then frees it */
        hang_up(r);
        return;
    }
    memcpy(r->out, head, head_len);
    if (!r->is_head)
        memcpy(r->out + head_len, body, len);
    enter(r, OPS_WRITING);
}

static void answer_problem(struct ops_request *r, unsigned status, const char *detail)
{
    char body[256];
    const int n =
        snprintf(body, sizeof body, "{\"title\":\"%s\",\"status\":%u,\"detail\":\"%s\"}\n",
                 problem_reason(status), status, detail);
    ops_answer(r, status, "application/problem+json", body, (size_t)n);
}

/* ---- requests ---- */

static bool wants_openmetrics(const struct h1_head *h)
{
    char accept[1024];
    struct field_text rest = {accept, h1_join(h, H1_ACCEPT, accept, sizeof accept)}, element;
    while (rest.len && field_list_next(&rest, &element)) {
        const char *end = memchr(element.at, ';', element.len);
        size_t n = end ? (size_t)(end - element.at) : element.len;
        while (n && element.at[n - 1] == ' ')
            n--;
        if (field_is((struct field_text){element.at, n}, "application/openmetrics-text"))
            return true;
    }
    return false;
}

static void take_head(struct ops_request *r, const struct h1_head *h)
{
    const bool get = h->is_get || h->is_head;
    const struct page_call call = {.request = r,
                                   .path = h->path,
                                   .get = get,
                                   .openmetrics = wants_openmetrics(h),
                                   .public = r->public};
    r->is_head = h->is_head;
    r->keep = h->keep_alive && h->minor && h->framing == H1_NO_BODY && get;
    enter(r, OPS_WAITING);
    /* the page looks at nothing of the head after it has returned */
    pages_answer(r->ops->control, &call);
}

static void read_request(struct ops_request *r)
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
            enter(r, OPS_WAITING);
            answer_problem(r, 431, "the request head is too large");
        }
        break;
    case H1_BAD:
        r->keep = r->is_head = false;
        enter(r, OPS_WAITING);
        answer_problem(r, problem_status(problem), problem_title(problem));
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

static void on_readable(struct ops_request *r)
{
    char sink[4096];
    const bool lingers = r->state == OPS_LINGERING;
    const ssize_t n = lingers ? recv(r->fd, sink, sizeof sink, 0)
                              : recv(r->fd, r->in + r->in_len, sizeof r->in - r->in_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        hang_up(r);
        return;
    }
    if (lingers)
        return;
    if (r->in_len == 0)
        watch(r, EV_READ, HEAD_S); /* of the whole head, not of each byte */
    r->in_len += (size_t)n;
    read_request(r);
}

static void on_writable(struct ops_request *r)
{
    const ssize_t n = send(r->fd, r->out + r->sent, r->out_len - r->sent, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        hang_up(r);
        return;
    }
    r->sent += (size_t)n;
    r->moved = ev_now(r->ops->loop);
    if (r->sent < r->out_len)
        return;
    free(r->out);
    r->out = NULL;
    if (!r->keep) {
        enter(r, OPS_LINGERING);
        return;
    }
    r->in_len -= r->scanned;
    memmove(r->in, r->in + r->scanned, r->in_len);
    r->scanned = 0;
    enter(r, OPS_READING);
    if (r->in_len)
        read_request(r);
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    if (revents & EV_WRITE)
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

/* ---- accepting ---- */

static void make_place(struct ops *ops)
{
    struct ops_request *idle = NULL, *writer = NULL, *waiting = NULL;
    if (ops->n_connections < CONNECTIONS_MAX)
        return;
    for (struct ops_request *r = ops->connections; r; r = r->next) /* the youngest first */
        if (r->state == OPS_READING || r->state == OPS_LINGERING)
            idle = r;
        else if (r->state == OPS_WAITING)
            waiting = r;
        else if (!writer || r->moved <= writer->moved)
            writer = r;
    hang_up(idle ? idle : writer ? writer : waiting);
}

static void on_accept(struct ev_loop *loop, ev_io *w, int revents)
{
    struct ops_listener *l = w->data;
    (void)revents;
    const int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            ev_io_stop(loop, w);
            ev_timer_again(loop, &l->pause);
        }
        return;
    }
    make_place(l->ops);
    struct ops_request *r = calloc(1, sizeof *r);
    if (!r) {
        close(fd);
        return;
    }
    if (!l->is_unix)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    r->ops = l->ops;
    r->fd = fd;
    r->public = l->public;
    ev_io_init(&r->io, on_io, fd, EV_READ);
    ev_init(&r->timer, on_timer);
    r->io.data = r->timer.data = r;
    r->next = r->ops->connections;
    r->ops->connections = r;
    r->ops->n_connections++;
    enter(r, OPS_READING);
}

static void on_pause(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct ops_listener *l = w->data;
    (void)revents;
    ev_timer_stop(loop, w);
    if (l->open)
        ev_io_start(loop, &l->io);
}

/* ---- listeners ---- */

static int tcp_listen(const struct config_address *address)
{
    const int one = 1;
    const int fd = socket(address->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (address->sa.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)&address->sa, address->len) < 0 ||
        listen(fd, BACKLOG) < 0) {
        const int code = -errno;
        close(fd);
        return code;
    }
    return fd;
}

static void listener_close(struct ops_listener *l)
{
    if (!l->open)
        return;
    ev_io_stop(l->ops->loop, &l->io);
    ev_timer_stop(l->ops->loop, &l->pause);
    if (l->is_unix)
        rpc_socket_close(&l->unix_socket);
    else
        close(l->unix_socket.fd);
    l->open = false;
}

/* path NULL: by address. mode is of a UNIX socket. */
static void listener_open(struct ops_listener *l, const char *path, mode_t mode,
                          const struct config_address *address)
{
    int code;
    l->is_unix = path != NULL;
    if (path) {
        code = rpc_socket_listen(&l->unix_socket, path, mode, (gid_t)-1);
    } else {
        code = tcp_listen(address);
        l->unix_socket.fd = code;
    }
    /* tried again each second */
    condition_set(l->ops->control->shared->conditions, COND_OPS_NOT_BOUND, l->text, code < 0,
                  code < 0 ? strerror(-code) : NULL, clock_real_ms());
    if (code < 0)
        return;
    l->open = true;
    ev_io_init(&l->io, on_accept, l->unix_socket.fd, EV_READ);
    ev_init(&l->pause, on_pause);
    l->pause.repeat = 1.;
    l->io.data = l->pause.data = l;
    ev_io_start(l->ops->loop, &l->io);
}

static void follow_ops_listen(struct ops *ops)
{
    const struct config_address *address = &ops->control->config->ops_listen;
    struct ops_listener *l = &ops->tcp;
    if (l->open && address->len && !strncmp(l->text, address->text, sizeof l->text - 1))
        return;
    listener_close(l);
    if (!address->len)
        return;
    snprintf(l->text, sizeof l->text, "%s", address->text);
    const struct sockaddr_un *sun = (const struct sockaddr_un *)&address->sa;
    listener_open(l, address->sa.ss_family == AF_UNIX ? sun->sun_path : NULL, 0666, address);
}

static void follow_local(struct ops *ops)
{
    struct ops_listener *l = &ops->local;
    if (l->open)
        return;
    snprintf(l->text, sizeof l->text, "%s/ops.sock", ops->control->config->runtime_dir);
    listener_open(l, l->text, 0600, NULL);
}

static bool is_wanted(void *arg, const char *subject)
{
    const struct ops *ops = arg;
    return (ops->control->config->ops_listen.len && condition_subject_is(subject, ops->tcp.text)) ||
           condition_subject_is(subject, ops->local.text);
}

void ops_follow(struct ops *ops)
{
    follow_ops_listen(ops);
    follow_local(ops);
    condition_clear_except(ops->control->shared->conditions, COND_OPS_NOT_BOUND, is_wanted, ops,
                           clock_real_ms());
}

struct ops *ops_new(struct control *c)
{
    struct ops *ops = calloc(1, sizeof *ops);
    if (!ops)
        return NULL;
    ops->control = c;
    ops->loop = c->loop;
    ops->tcp.ops = ops->local.ops = ops;
    ops->local.public = true;
    return ops;
}

void ops_free(struct ops *ops)
{
    while (ops->connections)
        hang_up(ops->connections); /* NOLINT(clang-analyzer-unix.Malloc) */
    listener_close(&ops->tcp);
    listener_close(&ops->local);
    free(ops);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * server: see server.h.
 *
 * A connection is read and parsed while it has few requests under way and little unsent; else it
 * waits, and with it the client (back-pressure). Answers are only appended; all writing and closing
 * happens in the connection's own watchers, so no handler ever sees its connection vanish.
 */
#include "daemons/rpc/server.h"
#include "daemons/net/listener.h"
#include "daemons/rpc/message.h"
#include "polder/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define UNDER_WAY_MAX   64
#define UNSENT_PAUSE    (256u << 10)
#define UNSENT_MAX      (4u << 20)
#define READ_MIN        4096u
#define LINGER_S        1.
#define IDLE_S          60.
#define TURNS           16 /* messages of one connection before others have their turn */
#define GROUPS_MAX      1024

struct rpc_connection {
    struct rpc_server *server;
    LIST_ENTRY(rpc_connection) entry;
    int fd;
    ev_io read, write;
    ev_timer idle;
    struct rpc_peer peer;
    uint8_t *in;
    size_t in_len, in_size;
    struct rpc_scan_state scan;
    msgpack_sbuffer unsent;
    size_t sent;
    LIST_HEAD(, rpc_reply) replies; /* under way */
    unsigned n_replies;
    bool last;    /* nothing more is taken; ends when all is sent */
    bool lingers; /* has had its last answer: what it still says is dropped */
    bool ended;   /* the client has sent all it will send */
    bool starved; /* no whole message is left in `in` */
    bool doomed;
};

struct rpc_reply {
    struct rpc_connection *connection; /* NULL: it is gone */
    LIST_ENTRY(rpc_reply) entry;
    bool wanted; /* a request, no notification */
    bool begun;
    uint32_t id;
    struct rpc_out out;
};

struct rpc_server {
    struct ev_loop *loop;
    struct listener listener;
    gid_t gid;
    rpc_handler handler;
    void *arg;
    LIST_HEAD(, rpc_connection) connections;
    unsigned n_connections;
    ev_tstamp refused_s; /* when a client was last refused */
};

/* ---- access ---- */

static bool in_group(int fd, gid_t own, gid_t wanted)
{
    gid_t groups[GROUPS_MAX];
    socklen_t len = sizeof groups;
    if (wanted == (gid_t)-1)
        return false;
    if (own == wanted)
        return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
        return false;
    for (size_t i = 0; i < len / sizeof *groups; i++)
        if (groups[i] == wanted)
            return true;
    return false;
}

static bool may_enter(const struct rpc_server *s, int fd, struct rpc_peer *peer)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return false;
    *peer = (struct rpc_peer){cred.uid, cred.gid, cred.pid};
    return cred.uid == 0 || cred.uid == geteuid() || in_group(fd, cred.gid, s->gid);
}

/* ---- answers ---- */

static void pack_error(msgpack_packer *pk, enum rpc_error code, const char *message)
{
    const char *const word[] = {"code", rpc_error_name(code), "message", message};
    msgpack_pack_map(pk, 2);
    for (int i = 0; i < 4; i++) {
        msgpack_pack_str(pk, strlen(word[i]));
        msgpack_pack_str_body(pk, word[i], strlen(word[i]));
    }
}

static void pack_head(msgpack_packer *pk, bool has_id, uint32_t id)
{
    msgpack_pack_array(pk, 4);
    msgpack_pack_int(pk, RPC_RESPONSE);
    if (has_id)
        msgpack_pack_uint32(pk, id);
    else
        msgpack_pack_nil(pk);
}

static void send_bytes(struct rpc_connection *c, const char *bytes, size_t len)
{
    if (c->unsent.size - c->sent + len > UNSENT_MAX ||
        msgpack_sbuffer_write(&c->unsent, bytes, len) < 0)
        c->doomed = true;
    ev_io_start(c->server->loop, &c->write);
}

/* The connection's last words. */
static void refuse(struct rpc_connection *c, bool has_id, uint32_t id, enum rpc_error code,
                   const char *why)
{
    msgpack_sbuffer buffer;
    msgpack_packer pk;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&pk, &buffer, msgpack_sbuffer_write);
    pack_head(&pk, has_id, id);
    pack_error(&pk, code, why);
    msgpack_pack_nil(&pk);
    send_bytes(c, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    c->last = true;
    ev_io_stop(c->server->loop, &c->read);
}

static struct rpc_reply *reply_new(struct rpc_connection *c, const struct rpc_message *m)
{
    struct rpc_reply *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->connection = c;
    r->wanted = m->type == RPC_REQUEST;
    r->id = m->id;
    LIST_INSERT_HEAD(&c->replies, r, entry);
    c->n_replies++;
    return r;
}

static void reply_free(struct rpc_reply *r)
{
    struct rpc_connection *c = r->connection;
    if (c) {
        LIST_REMOVE(r, entry);
        c->n_replies--;
        /* room for a further request, or the end that waited for this */
        ev_io_start(c->server->loop, &c->write);
    }
    if (r->begun)
        rpc_out_fini(&r->out);
    free(r);
}

static struct rpc_out *begin(struct rpc_reply *r)
{
    if (r->begun)
        rpc_out_fini(&r->out);
    r->begun = true;
    rpc_out_init(&r->out);
    pack_head(&r->out.packer, true, r->id);
    return &r->out;
}

struct rpc_out *rpc_reply_result(struct rpc_reply *r)
{
    struct rpc_out *o = begin(r);
    msgpack_pack_nil(&o->packer);
    return o;
}

void rpc_reply_error(struct rpc_reply *r, enum rpc_error code, const char *format, ...)
{
    char message[2048];
    va_list ap;
    va_start(ap, format);
    vsnprintf(message, sizeof message, format, ap);
    va_end(ap);
    struct rpc_out *o = begin(r);
    pack_error(&o->packer, code, message);
    msgpack_pack_nil(&o->packer);
    rpc_reply_send(r);
}

void rpc_reply_send(struct rpc_reply *r)
{
    if (r->begun && (r->out.failed || r->out.depth || r->out.buffer.size > RPC_MESSAGE_MAX)) {
        const bool large = r->out.buffer.size > RPC_MESSAGE_MAX;
        rpc_reply_error(r, RPC_FAILED, "%s",
                        large ? "the answer is longer than a message may be; ask for less"
                              : "the answer could not be made");
        return;
    }
    if (r->connection && r->wanted && r->begun)
        send_bytes(r->connection, r->out.buffer.data, r->out.buffer.size);
    reply_free(r);
}

bool rpc_call_check(const struct rpc_call *call, enum rpc_method method)
{
    char why[256];
    if (rpc_in_check(method, call->params, why, sizeof why) == 0)
        return true;
    rpc_reply_error(call->reply, RPC_BAD_ARGUMENT, "%.*s: %s", (int)call->method_len, call->method,
                    why);
    return false;
}

/* ---- connections ---- */

static void connection_close(struct rpc_connection *c)
{
    struct rpc_server *s = c->server;
    struct rpc_reply *r;
    LIST_REMOVE(c, entry);
    s->n_connections--;
    LIST_FOREACH (r, &c->replies, entry)
        r->connection = NULL;
    ev_io_stop(s->loop, &c->read);
    ev_io_stop(s->loop, &c->write);
    ev_timer_stop(s->loop, &c->idle);
    close(c->fd);
    msgpack_sbuffer_destroy(&c->unsent);
    free(c->in);
    free(c);
}

static bool must_wait(const struct rpc_connection *c)
{
    return c->n_replies >= UNDER_WAY_MAX || c->unsent.size - c->sent > UNSENT_PAUSE;
}

static void take_message(struct rpc_connection *c, size_t len)
{
    struct rpc_message m;
    msgpack_unpacked space;
    const char *why = "";
    msgpack_unpacked_init(&space);
    if (rpc_message_read(&space, c->in, len, &m, &why)) {
        refuse(c, m.has_id, m.id, RPC_BAD_MESSAGE, why);
    } else if (m.type == RPC_RESPONSE) {
        refuse(c, m.has_id, m.id, RPC_BAD_MESSAGE, "an answer, but nothing was asked");
    } else {
        struct rpc_call call = {.reply = reply_new(c, &m),
                                .peer = c->peer,
                                .method = m.method,
                                .method_len = m.method_len,
                                .params = m.params};
        if (call.reply)
            c->server->handler(c->server->arg, &call);
        else
            refuse(c, m.has_id, m.id, RPC_FAILED, "out of memory");
    }
    msgpack_unpacked_destroy(&space);
    memset(&c->scan, 0, sizeof c->scan);
    c->in_len -= len;
    memmove(c->in, c->in + len, c->in_len);
}

static const char *scan_error(int64_t code)
{
    return code == -EMSGSIZE ? "a message is at most 1 MiB"
           : code == -ELOOP  ? "nested too deeply"
                             : "no msgpack";
}

/* Whole messages are taken while the connection may have more under way. */
static void take_messages(struct rpc_connection *c)
{
    struct ev_loop *loop = c->server->loop;
    for (unsigned turn = 0; c->in_len && !c->last && !c->doomed; turn++) {
        if (must_wait(c)) {
            ev_io_stop(loop, &c->read);
            return;
        }
        if (turn == TURNS) {
            ev_feed_event(loop, &c->write, EV_CUSTOM);
            return;
        }
        const int64_t len = rpc_scan_on(&c->scan, c->in, c->in_len);
        c->starved = len == 0;
        if (len == 0)
            break;
        if (len < 0) {
            refuse(c, false, 0, RPC_BAD_MESSAGE, scan_error(len));
            return;
        }
        take_message(c, (size_t)len);
    }
    if (c->in_len == 0) {
        free(c->in);
        c->in = NULL;
        c->in_size = 0;
        c->starved = true;
    }
    if (!c->last && !c->ended && !must_wait(c))
        ev_io_start(loop, &c->read);
}

/* Room for at least one byte more; never more than one message and a bit. */
static bool make_room(struct rpc_connection *c)
{
    if (c->in_len < c->in_size)
        return true;
    const size_t size = c->in_size ? c->in_size * 2 : READ_MIN;
    if (size > 2 * (size_t)RPC_MESSAGE_MAX)
        return false;
    uint8_t *in = realloc(c->in, size);
    if (!in)
        return false;
    c->in = in;
    c->in_size = size;
    return true;
}

/* One that is closed while it writes sees a broken pipe instead of why it was refused. */
static void linger(struct rpc_connection *c)
{
    c->lingers = true;
    shutdown(c->fd, SHUT_WR);
    ev_io_stop(c->server->loop, &c->write);
    ev_io_start(c->server->loop, &c->read);
    c->idle.repeat = LINGER_S;
    ev_timer_again(c->server->loop, &c->idle);
}

static void drop_input(struct rpc_connection *c)
{
    uint8_t sink[4096];
    const ssize_t n = recv(c->fd, sink, sizeof sink, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        connection_close(c);
}

static void on_read(struct ev_loop *loop, ev_io *w, int revents)
{
    struct rpc_connection *c = w->data;
    (void)revents;
    if (c->lingers) {
        drop_input(c);
        return;
    }
    if (!make_room(c)) {
        connection_close(c);
        return;
    }
    const ssize_t n = recv(c->fd, c->in + c->in_len, c->in_size - c->in_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        connection_close(c);
        return;
    }
    if (n == 0) { /* what was asked is still answered */
        c->ended = true;
        ev_io_stop(loop, &c->read);
        ev_io_start(loop, &c->write);
        return;
    }
    c->in_len += (size_t)n;
    ev_timer_again(loop, &c->idle);
    take_messages(c);
}

/* Sends what there is. false: the connection is broken. */
static bool flush(struct rpc_connection *c)
{
    while (c->sent < c->unsent.size) {
        const ssize_t n = send(c->fd, c->unsent.data + c->sent, c->unsent.size - c->sent,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        c->sent += (size_t)n;
        ev_timer_again(c->server->loop, &c->idle);
    }
    c->sent = 0;
    if (c->unsent.alloc <= UNSENT_PAUSE) {
        msgpack_sbuffer_clear(&c->unsent);
    } else {
        msgpack_sbuffer_destroy(&c->unsent);
        msgpack_sbuffer_init(&c->unsent);
    }
    return true;
}

static void on_write(struct ev_loop *loop, ev_io *w, int revents)
{
    struct rpc_connection *c = w->data;
    (void)revents;
    if (c->doomed || !flush(c)) {
        connection_close(c);
        return;
    }
    if (c->unsent.size == 0)
        ev_io_stop(loop, &c->write);
    take_messages(c);
    if (c->n_replies || c->unsent.size)
        return;
    if (c->ended && (c->last || c->starved))
        connection_close(c);
    else if (c->last)
        linger(c);
}

/* A client that waits for an answer may be silent; one that neither asks nor reads may not. */
static void on_idle(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct rpc_connection *c = w->data;
    (void)revents;
    if (c->n_replies && c->unsent.size == c->sent)
        ev_timer_again(loop, w);
    else
        connection_close(c);
}

/* ---- accepting ---- */

/* When all places are taken, the client that has been silent longest and waits for nothing is
 * disconnected. */
static bool make_place(struct rpc_server *s)
{
    struct rpc_connection *c, *oldest = NULL;
    if (s->n_connections < CONNECTIONS_MAX)
        return true;
    LIST_FOREACH (c, &s->connections, entry)
        if (!c->n_replies && (!oldest || ev_timer_remaining(s->loop, &c->idle) <
                                             ev_timer_remaining(s->loop, &oldest->idle)))
            oldest = c;
    if (oldest)
        connection_close(oldest);
    return oldest != NULL;
}

static struct rpc_connection *connection_new(struct rpc_server *s, int fd)
{
    struct rpc_connection *c = make_place(s) ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        close(fd);
        return NULL;
    }
    c->server = s;
    c->fd = fd;
    c->starved = true;
    msgpack_sbuffer_init(&c->unsent);
    ev_io_init(&c->read, on_read, fd, EV_READ);
    ev_io_init(&c->write, on_write, fd, EV_WRITE);
    ev_init(&c->idle, on_idle);
    c->idle.repeat = IDLE_S;
    c->read.data = c->write.data = c->idle.data = c;
    LIST_INSERT_HEAD(&s->connections, c, entry);
    s->n_connections++;
    ev_timer_again(s->loop, &c->idle);
    return c;
}

static void on_accepted(void *arg, int fd, const struct sockaddr *peer)
{
    (void)peer;
    struct rpc_server *s = arg;
    struct rpc_connection *c = connection_new(s, fd);
    if (!c)
        return;
    if (may_enter(s, fd, &c->peer)) {
        ev_io_start(s->loop, &c->read);
        return;
    }
    if (ev_now(s->loop) - s->refused_s >= 1.) /* unauthorised clients must not fill the log */
        log_warning(
            "rpc: refused uid %u, pid %d on %s: neither root, nor our user, nor of the group",
            (unsigned)c->peer.uid, (int)c->peer.pid, s->listener.socket.path);
    s->refused_s = ev_now(s->loop);
    refuse(c, false, 0, RPC_DENIED,
           "only root, the user that Polder runs as and members of admin.group have access");
}

/* ---- the server ---- */

static struct rpc_server *server_new(struct ev_loop *loop, gid_t gid, rpc_handler handler,
                                     void *arg)
{
    struct rpc_server *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    listener_init(&s->listener, loop, on_accepted, s);
    LIST_INIT(&s->connections);
    s->loop = loop;
    s->gid = gid;
    s->handler = handler;
    s->arg = arg;
    return s;
}

int rpc_server_new(struct rpc_server **out, struct ev_loop *loop, const char *path, mode_t mode,
                   gid_t gid, rpc_handler handler, void *arg)
{
    struct rpc_server *s = server_new(loop, gid, handler, arg);
    const int code = s ? listener_open_path(&s->listener, path, SOCK_STREAM, mode, gid) : -ENOMEM;
    if (code) {
        free(s);
        return code;
    }
    *out = s;
    return 0;
}

int rpc_server_adopt(struct rpc_server **out, struct ev_loop *loop, int fd, const char *path,
                     gid_t gid, rpc_handler handler, void *arg)
{
    struct rpc_server *s = server_new(loop, gid, handler, arg);
    const int code = s ? listener_adopt_path(&s->listener, fd, path, SOCK_STREAM) : -ENOMEM;
    if (code) {
        free(s);
        return code;
    }
    *out = s;
    return 0;
}

void rpc_server_take(struct rpc_server *s, int fd)
{
    on_accepted(s, fd, NULL);
}

static bool is_quiet(const struct rpc_connection *c)
{
    return !c->in_len && !c->n_replies && !c->unsent.size && !c->last && !c->ended && !c->doomed;
}

bool rpc_server_is_quiet(const struct rpc_server *s)
{
    const struct rpc_connection *c;
    LIST_FOREACH (c, &s->connections, entry)
        if (!is_quiet(c) && !c->lingers)
            return false;
    return true;
}

int rpc_server_fd(const struct rpc_server *s)
{
    return s->listener.fd;
}

void rpc_server_each_quiet(const struct rpc_server *s, void (*fn)(void *arg, int fd), void *arg)
{
    const struct rpc_connection *c;
    LIST_FOREACH (c, &s->connections, entry)
        if (is_quiet(c))
            fn(arg, c->fd);
}

void rpc_server_permit(struct rpc_server *s, mode_t mode, gid_t gid)
{
    s->gid = gid;
    unix_socket_permit(s->listener.socket.path, mode, gid);
}

void rpc_server_take_no_more(struct rpc_server *s)
{
    struct rpc_connection *c;
    listener_close(&s->listener);
    LIST_FOREACH (c, &s->connections, entry) {
        c->last = true;
        if (!c->lingers)
            ev_io_stop(s->loop, &c->read);
    }
}

void rpc_server_free(struct rpc_server *s)
{
    if (!s)
        return;
    while (!LIST_EMPTY(&s->connections))
        connection_close(LIST_FIRST(&s->connections)); /* NOLINT(clang-analyzer-unix.Malloc) */
    listener_close(&s->listener);
    free(s);
}

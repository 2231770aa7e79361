/* SPDX-License-Identifier: BSD-2-Clause */
/* client: see client.h. */
#include "daemons/rpc/client.h"
#include "daemons/rpc/message.h"
#include "daemons/net/unix_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASKS_MAX 256

struct rpc_ask {
    struct rpc_client *client;
    LIST_ENTRY(rpc_ask) entry;
    int fd; /* -1: could not connect, the timer tells */
    ev_io io;
    ev_timer timer;
    rpc_answer_fn done;
    void *arg;
    char why[160];
    msgpack_sbuffer request;
    size_t sent;
    uint8_t *in;
    size_t in_len, in_size;
    struct rpc_scan_state scan;
};

void rpc_client_init(struct rpc_client *client, struct ev_loop *loop, const char *path)
{
    memset(client, 0, sizeof *client);
    client->loop = loop;
    snprintf(client->path, sizeof client->path, "%s", path);
}

static void finish(struct rpc_ask *a, enum rpc_error code, const char *message,
                   const msgpack_object *result)
{
    struct rpc_client *client = a->client;
    LIST_REMOVE(a, entry);
    client->n_asks--;
    ev_io_stop(client->loop, &a->io);
    ev_timer_stop(client->loop, &a->timer);
    if (a->fd >= 0)
        close(a->fd);
    a->done(a->arg, code, message, result);
    msgpack_sbuffer_destroy(&a->request);
    free(a->in);
    free(a);
}

static void give_up(struct rpc_ask *a, const char *why)
{
    char message[300];
    snprintf(message, sizeof message, "%s: %s", a->client->path, why);
    finish(a, RPC_UNAVAILABLE, message, NULL);
}

void rpc_client_fini(struct rpc_client *client)
{
    while (!LIST_EMPTY(&client->asks))
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
        give_up(LIST_FIRST(&client->asks), "this process is stopping");
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct rpc_ask *a = w->data;
    (void)loop;
    (void)revents;
    give_up(a, a->why[0] ? a->why : "no answer in time");
}

static void finish_with_error(struct rpc_ask *a, const msgpack_object *error)
{
    char code[32], message[1024];
    if (rpc_in_text(error, "code", code, sizeof code) < 0)
        strcpy(code, "failed");
    if (rpc_in_text(error, "message", message, sizeof message) < 0)
        strcpy(message, "an error without a message");
    finish(a, rpc_error_of(code), message, NULL);
}

static void take_answer(struct rpc_ask *a, size_t len)
{
    struct rpc_message m;
    msgpack_unpacked space;
    const char *why;
    msgpack_unpacked_init(&space);
    if (rpc_message_read(&space, a->in, len, &m, &why) || m.type != RPC_RESPONSE)
        give_up(a, "the answer is malformed");
    else if (m.error->type != MSGPACK_OBJECT_NIL)
        finish_with_error(a, m.error);
    else
        finish(a, RPC_OK, "", m.result);
    msgpack_unpacked_destroy(&space);
}

static bool make_room(struct rpc_ask *a)
{
    if (a->in_len < a->in_size)
        return true;
    const size_t size = a->in_size ? a->in_size * 2 : 4096;
    uint8_t *in = realloc(a->in, size);
    if (!in)
        return false;
    a->in = in;
    a->in_size = size;
    return true;
}

static void read_answer(struct rpc_ask *a)
{
    const ssize_t n = make_room(a) ? recv(a->fd, a->in + a->in_len, a->in_size - a->in_len, 0) : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        give_up(a, n ? strerror(errno) : "it closed the connection");
        return;
    }
    a->in_len += (size_t)n;
    const int64_t len = rpc_scan_on(&a->scan, a->in, a->in_len);
    if (len < 0)
        give_up(a, "the answer is malformed");
    else if (len > 0)
        take_answer(a, (size_t)len);
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
    struct rpc_ask *a = w->data;
    if (!(revents & EV_WRITE)) {
        read_answer(a);
        return;
    }
    const ssize_t n =
        send(a->fd, a->request.data + a->sent, a->request.size - a->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        give_up(a, strerror(errno));
        return;
    }
    a->sent += n > 0 ? (size_t)n : 0;
    if (a->sent == a->request.size) {
        ev_io_stop(loop, w);
        ev_io_set(w, a->fd, EV_READ);
        ev_io_start(loop, w);
    }
}

static void write_request(struct rpc_ask *a, const char *method, const struct rpc_out *params)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, &a->request, msgpack_sbuffer_write);
    msgpack_pack_array(&pk, 4);
    msgpack_pack_int(&pk, RPC_REQUEST);
    msgpack_pack_int(&pk, 1);
    msgpack_pack_str(&pk, strlen(method));
    msgpack_pack_str_body(&pk, method, strlen(method));
    if (params)
        msgpack_sbuffer_write(&a->request, params->buffer.data, params->buffer.size);
    else
        msgpack_pack_map(&pk, 0);
}

void rpc_client_call(struct rpc_client *client, const char *method, struct rpc_out *params,
                     unsigned timeout_ms, rpc_answer_fn done, void *arg)
{
    struct rpc_ask *a = calloc(1, sizeof *a);
    if (!a)
        abort(); /* the caller's caller waits for an answer that could never come */
    a->client = client;
    a->done = done;
    a->arg = arg;
    LIST_INSERT_HEAD(&client->asks, a, entry);
    client->n_asks++;
    msgpack_sbuffer_init(&a->request);
    write_request(a, method, params);
    if (params)
        rpc_out_fini(params);
    a->fd = client->n_asks > ASKS_MAX ? -EAGAIN : unix_socket_connect(client->path);
    ev_io_init(&a->io, on_io, a->fd, EV_WRITE);
    ev_timer_init(&a->timer, on_timer, a->fd < 0 ? 0. : timeout_ms / 1000., 0.);
    a->io.data = a->timer.data = a;
    if (a->fd >= 0)
        ev_io_start(client->loop, &a->io);
    else
        snprintf(a->why, sizeof a->why, "%s", strerror(-a->fd));
    ev_timer_start(client->loop, &a->timer);
}

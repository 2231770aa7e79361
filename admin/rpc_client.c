/* SPDX-License-Identifier: BSD-2-Clause */
/* rpc_client: one MessagePack-RPC call over the admin socket, blocking, with a deadline. */
#include "admin/polderctl.h"
#include "polder/clock.h"
#include "polder/rpc_in.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int fail(struct ctl_answer *a, int status, const char *socket, const char *why)
{
    snprintf(a->why, sizeof a->why, "%s: %s", socket, why);
    return status;
}

/* The queue of a daemon that accepts no connections gets full: then connect() blocks, too. */
static void wait_at_most(int fd, unsigned timeout_ms)
{
    const struct timeval tv = {timeout_ms / 1000, (suseconds_t)(timeout_ms % 1000) * 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
}

static int dial(const char *path, unsigned timeout_ms, struct ctl_answer *a, int *out)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path)
        return fail(a, CTL_USAGE, path, "the path of a socket has at most 107 bytes");
    strcpy(sa.sun_path, path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        wait_at_most(fd, timeout_ms);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&sa, sizeof sa) == 0) {
        *out = fd;
        return 0;
    }
    const int code = errno;
    if (fd >= 0)
        close(fd);
    if (code == EACCES || code == EPERM)
        return fail(a, CTL_FAILED, path,
                    "permission denied; root, the user that Polder runs as and members of "
                    "admin.group have access");
    if (code == ENOENT || code == ECONNREFUSED)
        return fail(a, CTL_NO_DAEMON, path, "no daemon answers; is polderd running? (-s SOCKET)");
    return fail(a, CTL_NO_DAEMON, path, code == EAGAIN ? "no answer in time" : strerror(code));
}

static void pack(msgpack_sbuffer *buffer, enum rpc_method method, const struct rpc_out *params)
{
    msgpack_packer pk;
    char name[64];
    const struct rpc_method_info *m = &rpc_methods[method];
    const int n = snprintf(name, sizeof name, "%s%s%s", m->noun, *m->verb ? "." : "", m->verb);
    msgpack_packer_init(&pk, buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&pk, 4);
    msgpack_pack_int(&pk, 0);
    msgpack_pack_int(&pk, 1);
    msgpack_pack_str(&pk, (size_t)n);
    msgpack_pack_str_body(&pk, name, (size_t)n);
    msgpack_pack_array(&pk, 1);
    msgpack_sbuffer_write(buffer, params->buffer.data, params->buffer.size);
}

static int wait_for(int fd, short events, uint64_t deadline_ms)
{
    struct pollfd p = {fd, events, 0};
    const uint64_t now_ms = clock_mono_ms();
    if (now_ms >= deadline_ms)
        return 0;
    return poll(&p, 1, (int)(deadline_ms - now_ms));
}

/* A daemon that refuses us may close before it has read all: then its answer is there already. */
static bool send_all(int fd, const char *bytes, size_t len, uint64_t deadline_ms)
{
    while (len) {
        const ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return true;
        } else if ((errno != EAGAIN && errno != EINTR) || wait_for(fd, POLLOUT, deadline_ms) == 0) {
            return false;
        }
    }
    return true;
}

/* Length of the message in a->bytes; 0: too late or too soon the end. */
static int64_t receive(int fd, struct ctl_answer *a, uint64_t deadline_ms)
{
    struct rpc_scan_state scan = {0};
    size_t len = 0;
    int64_t whole = 0;
    a->bytes = malloc(RPC_MESSAGE_MAX);
    while (a->bytes && whole == 0 && len < RPC_MESSAGE_MAX) {
        const int ready = wait_for(fd, POLLIN, deadline_ms);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return -ETIMEDOUT;
        const ssize_t n = recv(fd, a->bytes + len, RPC_MESSAGE_MAX - len, 0);
        if (n <= 0)
            return -ECONNRESET;
        len += (size_t)n;
        whole = rpc_scan_on(&scan, (const uint8_t *)a->bytes, len);
    }
    return whole ? whole : -EPROTO;
}

static bool unpack(struct ctl_answer *a, size_t len)
{
    if (msgpack_unpack_next(&a->space, a->bytes, len, NULL) != MSGPACK_UNPACK_SUCCESS)
        return false;
    const msgpack_object *o = &a->space.data;
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size != 4 ||
        o->via.array.ptr[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
        o->via.array.ptr[0].via.u64 != 1)
        return false;
    a->error = &o->via.array.ptr[2];
    a->result = &o->via.array.ptr[3];
    return true;
}

int ctl_call(const char *socket, enum rpc_method method, const struct rpc_out *params,
             unsigned timeout_ms, struct ctl_answer *a)
{
    const uint64_t deadline_ms = clock_mono_ms() + timeout_ms;
    msgpack_sbuffer request;
    int fd;
    memset(a, 0, sizeof *a);
    msgpack_unpacked_init(&a->space);
    int status = dial(socket, timeout_ms, a, &fd);
    if (status)
        return status;
    msgpack_sbuffer_init(&request);
    pack(&request, method, params);
    int64_t len = -ETIMEDOUT;
    if (send_all(fd, request.data, request.size, deadline_ms))
        len = receive(fd, a, deadline_ms);
    if (len == -ETIMEDOUT)
        status = fail(a, CTL_NO_DAEMON, socket, "no answer in time");
    else if (len == -ECONNRESET)
        status = fail(a, CTL_NO_DAEMON, socket, "the daemon went away before it had answered");
    else if (len < 0 || !unpack(a, (size_t)len))
        status = fail(a, CTL_FAILED, socket, "the answer is no msgpack-rpc");
    msgpack_sbuffer_destroy(&request);
    close(fd);
    return status;
}

void ctl_answer_free(struct ctl_answer *a)
{
    msgpack_unpacked_destroy(&a->space);
    free(a->bytes);
}

int ctl_show_error(const struct ctl_answer *answer)
{
    char code[64], message[2048];
    if (rpc_in_text(answer->error, "message", message, sizeof message) < 0)
        strcpy(message, "an error without a message");
    if (rpc_in_text(answer->error, "code", code, sizeof code) < 0)
        strcpy(code, "failed");
    fprintf(stderr, "polderctl: %s\n", message);
    return rpc_error_of(code) == RPC_BAD_ARGUMENT ? CTL_USAGE : CTL_FAILED;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* caller: see caller.h; msgpack by hand. */
#include "tests/chaos/caller.h"
#include "polder/rpc.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MS 10000

static int admin_connect(const char *sock)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(sa.sun_path, sizeof sa.sun_path, "%.100s", sock);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
        return fd;
    close(fd);
    return -1;
}

/* [0, id, "cache.invalidate", [{key: value}]]; no value: true */
static size_t call_make(uint8_t *out, uint32_t id, const char *key, const char *value)
{
    static const char method[] = "cache.invalidate";
    const size_t key_len = strlen(key), len = value ? strlen(value) : 0;
    uint8_t *at = out;
    *at++ = 0x94;
    *at++ = 0x00;
    *at++ = 0xce;
    for (int shift = 24; shift >= 0; shift -= 8)
        *at++ = (uint8_t)(id >> shift);
    *at++ = 0xa0 | (sizeof method - 1);
    memcpy(at, method, sizeof method - 1);
    at += sizeof method - 1;
    *at++ = 0x91;
    *at++ = 0x81;
    *at++ = (uint8_t)(0xa0 | key_len);
    memcpy(at, key, key_len);
    at += key_len;
    if (value) {
        *at++ = 0xd9;
        *at++ = (uint8_t)len;
        memcpy(at, value, len);
        at += len;
    } else {
        *at++ = 0xc3;
    }
    return (size_t)(at - out);
}

/* [1, id, nil, …] is an acknowledgement. */
static enum verdict answer_judge(const uint8_t *in, size_t len, uint32_t id)
{
    size_t at = 2;
    uint32_t got = 0;
    unsigned bytes = 0;
    if (len < 4 || in[0] != 0x94 || in[1] != 0x01)
        return FAILED;
    if (in[at] < 0x80)
        got = in[at];
    else
        bytes = in[at] == 0xcc ? 1 : in[at] == 0xcd ? 2 : in[at] == 0xce ? 4 : 99;
    for (at++; bytes && bytes != 99 && at < len; bytes--)
        got = got << 8 | in[at++];
    if (bytes || got != id || at >= len)
        return FAILED;
    if (in[at] == 0xc0) /* it holds here; do other hosts of a fleet know? */
        return memmem(in, len, "cut off", 7) ? BUSY : DONE;
    return memmem(in, len, "busy", 4) ? BUSY : FAILED;
}

enum verdict caller_invalidate(struct caller *c, const char *key, const char *value)
{
    uint8_t buf[4096];
    size_t have = 0;
    if (c->fd < 0 && (c->fd = admin_connect(c->sock)) < 0)
        return FAILED;
    const size_t len = call_make(buf, ++c->calls, key, value);
    if (send(c->fd, buf, len, MSG_NOSIGNAL) == (ssize_t)len)
        while (have < sizeof buf) {
            struct pollfd p = {c->fd, POLLIN, 0};
            const ssize_t n =
                poll(&p, 1, ANSWER_MS) > 0 ? recv(c->fd, buf + have, sizeof buf - have, 0) : -1;
            if (n <= 0)
                break;
            have += (size_t)n;
            if (rpc_scan(buf, have) > 0)
                return answer_judge(buf, have, c->calls);
        }
    close(c->fd);
    c->fd = -1;
    return FAILED;
}

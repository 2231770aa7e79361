/* SPDX-License-Identifier: BSD-2-Clause */
/* rpc: see rpc.h. */
#include "polder/rpc.h"

#include <errno.h>
#include <string.h>

const struct rpc_method_info rpc_methods[RPC_METHODS] = {
#define METHOD(id, noun, verb, args, changes, help) {noun, verb, args, changes, help},
#include "libshared/tables/methods.def"
#undef METHOD
};

const char *rpc_error_name(enum rpc_error e)
{
    static const char *const names[] = {
        [RPC_OK] = "ok",
        [RPC_BAD_MESSAGE] = "bad-message",
        [RPC_NO_METHOD] = "no-method",
        [RPC_BAD_ARGUMENT] = "bad-argument",
        [RPC_NOT_FOUND] = "not-found",
        [RPC_BUSY] = "busy",
        [RPC_FAILED] = "failed",
        [RPC_UNAVAILABLE] = "unavailable",
    };
    return (size_t)e < sizeof names / sizeof *names ? names[e] : "failed";
}

int rpc_method_find(const char *name, size_t len)
{
    const char *dot = memchr(name, '.', len);
    const size_t noun = dot ? (size_t)(dot - name) : len, verb = dot ? len - noun - 1 : 0;
    for (int i = 0; i < RPC_METHODS; i++) {
        const struct rpc_method_info *m = &rpc_methods[i];
        if (strlen(m->noun) == noun && !memcmp(m->noun, name, noun) && strlen(m->verb) == verb &&
            (verb == 0) == !dot && !memcmp(m->verb, name + noun + (dot != NULL), verb))
            return i;
    }
    return -1;
}

/* ---- scan ---- */

static uint64_t big_endian(const uint8_t *at, size_t n)
{
    uint64_t v = 0;
    while (n--)
        v = v << 8 | *at++;
    return v;
}

/* One element: its header is `head` bytes (length fields included), then `data` bytes follow, then
 * `elements` further elements belong to it. -EAGAIN: more bytes are needed to tell; -EPROTO: no
 * msgpack. */
struct element {
    uint64_t head, data, elements;
};

static int read_lengths(const uint8_t *at, size_t len, size_t width, struct element *e, uint64_t *n)
{
    e->head = 1 + width;
    if (len < e->head)
        return -EAGAIN;
    *n = big_endian(at + 1, width);
    return 0;
}

static int read_element(const uint8_t *at, size_t len, struct element *e)
{
    /* data bytes of the types that have a fixed size, 0xca to 0xd3 and 0xd4 to 0xd8 */
    static const uint8_t fixed[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17};
    const uint8_t t = at[0];
    uint64_t n;
    int code;
    *e = (struct element){.head = 1};
    if (t <= 0x7f || t >= 0xe0 || t == 0xc0 || t == 0xc2 || t == 0xc3)
        return 0;
    if (t <= 0x8f) {
        e->elements = 2 * (t & 0x0fu);
    } else if (t <= 0x9f) {
        e->elements = t & 0x0fu;
    } else if (t <= 0xbf) {
        e->data = t & 0x1fu;
    } else if (t >= 0xca && t <= 0xd8) {
        e->data = fixed[t - 0xca];
    } else if ((t >= 0xc4 && t <= 0xc9) || (t >= 0xd9 && t <= 0xdb)) { /* bin, ext, str */
        const unsigned step = t >= 0xd9 ? t - 0xd9u : (t - 0xc4u) % 3;
        if ((code = read_lengths(at, len, (size_t)1 << step, e, &n)))
            return code;
        e->data = n + (t >= 0xc7 && t <= 0xc9);
    } else if (t >= 0xdc) { /* array, map */
        if ((code = read_lengths(at, len, t & 1 ? 4 : 2, e, &n)))
            return code;
        e->elements = t >= 0xde ? 2 * n : n;
    } else {
        return -EPROTO; /* 0xc1 */
    }
    return 0;
}

int64_t rpc_scan(const uint8_t *buf, size_t len)
{
    uint64_t left[RPC_DEPTH_MAX + 1] = {1}; /* elements still to come on each level */
    size_t depth = 0;
    uint64_t at = 0;
    for (;;) {
        while (left[depth] == 0) {
            if (depth-- == 0)
                return (int64_t)at;
        }
        if (at >= len)
            return len >= RPC_MESSAGE_MAX ? -EMSGSIZE : 0;
        struct element e;
        const int code = read_element(buf + at, len - at, &e);
        if (code == -EAGAIN)
            return len >= RPC_MESSAGE_MAX ? -EMSGSIZE : 0;
        if (code)
            return code;
        at += e.head + e.data;
        if (at > RPC_MESSAGE_MAX)
            return -EMSGSIZE;
        left[depth]--;
        if (e.elements == 0)
            continue;
        if (e.elements > RPC_MESSAGE_MAX - at) /* each takes a byte at least */
            return -EPROTO;
        if (depth == RPC_DEPTH_MAX)
            return -ELOOP;
        left[++depth] = e.elements;
    }
}

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
        [RPC_DENIED] = "denied",
    };
    return (size_t)e < sizeof names / sizeof *names ? names[e] : "failed";
}

enum rpc_error rpc_error_of(const char *name)
{
    for (int e = RPC_OK; e <= RPC_DENIED; e++)
        if (!strcmp(name, rpc_error_name((enum rpc_error)e)))
            return (enum rpc_error)e;
    return RPC_FAILED;
}

int rpc_method_find(const char *name, size_t len)
{
    const char *dot = len ? memchr(name, '.', len) : NULL;
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

int64_t rpc_scan_on(struct rpc_scan_state *s, const uint8_t *buf, size_t len)
{
    if (!s->begun) {
        s->begun = 1;
        s->left[0] = 1;
    }
    for (;;) {
        while (s->left[s->depth] == 0) {
            if (s->depth == 0)
                return (int64_t)s->at;
            s->depth--;
        }
        struct element e;
        const int code = s->at < len ? read_element(buf + s->at, len - s->at, &e) : -EAGAIN;
        if (code == -EAGAIN)
            return len >= RPC_MESSAGE_MAX ? -EMSGSIZE : 0;
        if (code)
            return code;
        const uint64_t end = s->at + e.head + e.data;
        if (end > RPC_MESSAGE_MAX)
            return -EMSGSIZE;
        if (e.elements > RPC_MESSAGE_MAX - end) /* each takes a byte at least */
            return -EPROTO;
        if (e.elements && s->depth == RPC_DEPTH_MAX)
            return -ELOOP;
        if (end > len) /* the element itself may be looked at again, what it holds is not */
            return len >= RPC_MESSAGE_MAX ? -EMSGSIZE : 0;
        s->at = end;
        s->left[s->depth]--;
        if (e.elements)
            s->left[++s->depth] = e.elements;
    }
}

int64_t rpc_scan(const uint8_t *buf, size_t len)
{
    struct rpc_scan_state state = {0};
    return rpc_scan_on(&state, buf, len);
}

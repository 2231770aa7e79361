/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ws: as much of RFC 6455 as the load client and the echo server need: one fixed handshake key (so
 * that nobody has to compute a hash), frame headers, masks. Apart from Polder's own code on
 * purpose: two readings of the standard check each other.
 */
#ifndef POLDER_BENCH_WS_H
#define POLDER_BENCH_WS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WS_KEY    "dGhlIHNhbXBsZSBub25jZQ==" /* section 1.3 */
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum { WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

struct ws_frame {
    unsigned opcode;
    bool fin;
    size_t head, payload; /* lengths */
    const uint8_t *mask;  /* NULL: none */
};

/* false: the frame is not whole. */
static inline bool ws_read(const uint8_t *at, size_t len, struct ws_frame *f)
{
    if (len < 2)
        return false;
    const unsigned small = at[1] & 0x7f, extra = small == 126 ? 2 : small == 127 ? 8 : 0;
    const bool masked = at[1] & 0x80;
    f->opcode = at[0] & 0xf;
    f->fin = at[0] & 0x80;
    f->head = 2 + extra + (masked ? 4 : 0);
    if (len < f->head)
        return false;
    f->payload = extra ? 0 : small;
    for (unsigned i = 0; i < extra; i++)
        f->payload = f->payload << 8 | at[2 + i];
    f->mask = masked ? at + 2 + extra : NULL;
    return len - f->head >= f->payload;
}

/* Writes a whole frame; out has room for len + 14. Returns its length. */
static inline size_t ws_write(uint8_t *out, unsigned opcode, const void *payload, size_t len,
                              const uint8_t *mask)
{
    const unsigned extra = len < 126 ? 0 : len < 65536 ? 2 : 8;
    const uint8_t *from = payload;
    size_t n = 2;
    out[0] = (uint8_t)(0x80 | opcode);
    out[1] = (uint8_t)((mask ? 0x80 : 0) | (extra == 0 ? len : extra == 2 ? 126 : 127));
    for (unsigned i = extra; i-- > 0;)
        out[n++] = (uint8_t)((uint64_t)len >> (8 * i));
    if (mask)
        memcpy(out + n, mask, 4), n += 4;
    for (size_t i = 0; i < len; i++)
        out[n + i] = mask ? from[i] ^ mask[i & 3] : from[i];
    return n + len;
}
#endif

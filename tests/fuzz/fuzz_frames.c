/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_frames: what a WebSocket client sends. However it is cut, the verdict is the same; and
 * wslay, which shares no line with it, takes the same messages and control frames with the same
 * contents and refuses with the same close code. Byte 0 seeds the cuts, bit 0 of byte 1 allows RSV1
 * (then text may be compressed, and wslay is not asked).
 *
 * Where the two rightly differ:
 * - 1012, 1013 and 1014 are registered close codes (IANA) that wslay 1.1.1 refuses as unassigned;
 * - wslay judges what it has of an unfinished header or control frame; Polder waits for the rest;
 *   and a whole header with nothing behind it is judged by Polder, while wslay waits;
 * - a close frame of one byte is an error (RFC 6455 5.5.1), which wslay lets pass;
 * - where a close frame has both a bad code and a bad reason, either may be named;
 * - wslay closes without a code where a single frame's form is wrong: 1002 is meant;
 * - after a close frame wslay reads on no more; Polder calls further bytes an error (RFC 6455 5.5.1
 *   forbids sending them).
 */
#include "daemons/supervisor/frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#define MOST 300 /* max_message */

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct taken {
    unsigned n; /* messages and control frames */
    uint64_t sum;
    uint64_t message; /* contents so far */
    size_t len;
    unsigned code; /* of an error; 0: none */
    bool closed, unfinished, bad_close;
    size_t left; /* bytes behind what was taken */
    uint16_t close_code;
};

static uint64_t mix(uint64_t h, uint64_t v)
{
    return (h ^ v) * 0x100000001b3u;
}

static void note(struct taken *t, unsigned opcode, uint64_t contents, size_t len)
{
    t->n++;
    t->sum = mix(mix(mix(t->sum, opcode), contents), len);
}

static uint64_t hash(uint64_t h, const uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        h = mix(h, at[i]);
    return h;
}

/* ---- Polder ---- */

static void take_data(struct taken *t, const struct frames *f, const struct frames_piece *p,
                      const uint8_t *at)
{
    size_t header = 0;
    if (f->started) {
        const unsigned small = at[1] & 0x7f;
        header = 2u + (small == 126 ? 2 : small == 127 ? 8 : 0) + 4;
    }
    must(header <= p->len);
    const size_t n = p->len - header;
    for (size_t i = 0; i < n; i++)
        t->message = mix(t->message, at[header + i] ^ f->mask[(f->phase + 4 - (n - i) % 4) & 3]);
    t->len += n;
    must(t->len <= MOST);
    if (!p->message_end)
        return;
    note(t, p->opcode, t->message, t->len);
    t->message = 0;
    t->len = 0;
}

/* seed 0: not cut. */
static void by_polder(const uint8_t *bytes, size_t len, uint32_t seed, bool rsv1, struct taken *t)
{
    struct frames f = {.from_client = true, .rsv1_allowed = rsv1};
    struct frames_piece p;
    size_t at = 0, end = seed ? 0 : len;
    memset(t, 0, sizeof *t);
    while (!t->code && !t->closed) {
        /* a copy of its own, so that a byte too far is seen */
        uint8_t *part = malloc(end - at + 1);
        memcpy(part, bytes + at, end - at);
        part = realloc(part, end - at ? end - at : 1);
        size_t used = 0;
        for (;;) {
            frames_next(&f, part + used, end - at - used, MOST, &p);
            must(p.len <= end - at - used);
            if (p.kind == FRAMES_NEED_MORE)
                break;
            if (p.kind == FRAMES_BAD) {
                must(p.code == 1002 || p.code == 1007 || p.code == 1009);
                t->code = p.code;
                t->bad_close = p.opcode == FRAMES_CLOSE;
                break;
            }
            must(p.len > 0);
            if (p.kind == FRAMES_DATA) {
                take_data(t, &f, &p, part + used);
            } else {
                note(t, p.opcode, hash(0, p.payload, p.payload_len), p.payload_len);
                t->closed = p.opcode == FRAMES_CLOSE;
                t->close_code = t->closed ? p.code : 0;
            }
            used += p.len;
            if (t->closed)
                break;
        }
        must(t->code || t->closed || end - at - used < FRAMES_CONTROL_MAX);
        free(part);
        at += used;
        if (end == len)
            break;
        seed = seed * 1664525u + 1013904223u;
        end += 1 + (seed >> 16) % ((seed >> 28) + 2);
        end = end > len ? len : end;
    }
    t->left = len - at;
    t->unfinished = t->left || f.left;
}

/* ---- wslay ---- */

struct input {
    const uint8_t *at;
    size_t left;
    struct taken *t;
};

static ssize_t on_recv(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, int flags, void *arg)
{
    struct input *in = arg;
    (void)flags;
    if (!in->left) {
        wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    const size_t n = in->left < len ? in->left : len;
    memcpy(buf, in->at, n);
    in->at += n;
    in->left -= n;
    return (ssize_t)n;
}

static void on_message(wslay_event_context_ptr ctx, const struct wslay_event_on_msg_recv_arg *m,
                       void *arg)
{
    struct taken *t = ((struct input *)arg)->t;
    (void)ctx;
    note(t, m->opcode, hash(0, m->msg, m->msg_length), m->msg_length);
    if (m->opcode == WSLAY_CONNECTION_CLOSE) {
        t->closed = true;
        t->close_code = m->status_code ? m->status_code : 1005;
    }
}

static ssize_t on_send(wslay_event_context_ptr ctx, const uint8_t *data, size_t len, int flags,
                       void *arg)
{
    (void)ctx, (void)data, (void)flags, (void)arg;
    return (ssize_t)len;
}

static void by_wslay(const uint8_t *bytes, size_t len, struct taken *t)
{
    const struct wslay_event_callbacks calls = {
        .recv_callback = on_recv, .send_callback = on_send, .on_msg_recv_callback = on_message};
    struct input in = {bytes, len, t};
    wslay_event_context_ptr ctx;
    memset(t, 0, sizeof *t);
    must(wslay_event_context_server_init(&ctx, &calls, &in) == 0);
    wslay_event_config_set_max_recv_msg_length(ctx, MOST);
    wslay_event_recv(ctx);
    if (!t->closed && wslay_event_get_close_received(ctx) == 0) {
        wslay_event_send(ctx); /* the close frame that it has queued */
        if (wslay_event_get_close_sent(ctx))
            t->code = wslay_event_get_status_code_sent(ctx);
        if (t->code == 1005)
            t->code = 1002;
    }
    wslay_event_context_free(ctx);
}

static bool newer_code(unsigned code)
{
    return code >= 1012 && code <= 1014;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct taken whole, cut, other;
    if (size < 2)
        return 0;
    const bool rsv1 = data[1] & 1;
    by_polder(data + 2, size - 2, 0, rsv1, &whole);
    for (uint32_t k = 0; k < 3; k++) {
        by_polder(data + 2, size - 2, 1 + data[0] * 3u + k, rsv1, &cut);
        must(cut.n == whole.n && cut.sum == whole.sum && cut.code == whole.code &&
             cut.closed == whole.closed && cut.close_code == whole.close_code);
    }
    if (rsv1)
        return 0;
    by_wslay(data + 2, size - 2, &other);
    if (newer_code(whole.close_code) || (whole.unfinished && !whole.code && other.code) ||
        (whole.code && !other.code && whole.left <= FRAMES_HEADER_MAX))
        return 0;
    if (whole.bad_close && (other.code || other.close_code == 1005))
        return 0;
    if (whole.n != other.n || whole.sum != other.sum || whole.code != other.code ||
        whole.closed != other.closed || whole.close_code != other.close_code)
        fprintf(stderr,
                "polder: %u frames, error %u, close %u; wslay: %u frames, error %u, close %u\n",
                whole.n, whole.code, whole.close_code, other.n, other.code, other.close_code);
    must(whole.n == other.n && whole.sum == other.sum && whole.code == other.code &&
         whole.closed == other.closed && whole.close_code == other.close_code);
    return 0;
}

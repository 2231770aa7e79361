/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_frames: what a WebSocket peer sends. However it is cut, the verdict and the state behind it
 * are the same; and wslay, which shares no line with it, takes the same messages and control frames
 * with the same contents and refuses with the same close code. Byte 0 seeds the cuts; of byte 1,
 * bit 0 allows RSV1 (then text may be compressed, and wslay is not asked), bit 1 allows long
 * messages, and bit 2 makes the peer a backend, whose frames are not masked.
 *
 * What one has taken, the other has taken as well, up to where the first stops. Only the verdict
 * there may differ, and rightly does:
 * - 1012, 1013 and 1014 are registered close codes (IANA; RFC 6455 7.4.2) that wslay 1.1.1 refuses
 *   as unassigned;
 * - wslay judges what it has of an unfinished header or control frame; Polder waits for the rest;
 *   and a whole header with nothing behind it is judged by Polder, while wslay waits: RFC
 * 6455 7.1.7 does not say when to fail;
 * - a close frame of one byte is an error (RFC 6455 5.5.1), which wslay lets pass;
 * - where a close frame has both a bad code and a bad reason, either may be named (RFC 6455 7.4.1);
 * - wslay closes without a code where a single frame's form is wrong: 1002 is meant;
 * - text from a backend passes unread: the client's end checks it (RFC 6455 8.1), where wslay ends
 *   with 1007;
 * - after a close frame wslay reads on no more; Polder calls further bytes an error (RFC 6455 5.5.1
 *   forbids sending them).
 */
#include "daemons/supervisor/ws/frames.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#define MOST      300 /* max_message */
#define MOST_LONG 70000
#define TAKEN_MAX 36000 /* of the shortest frames, more than in any input */

#define must(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct peer {
    bool rsv1, backend;
    size_t most;
};

struct taken {
    uint64_t message; /* contents so far */
    size_t len;
    unsigned code; /* of an error; 0: none */
    bool closed, bad_close;
    size_t left; /* bytes behind what was taken */
    uint16_t close_code;
    struct frames end;
    unsigned n;              /* messages and control frames */
    uint64_t sum[TAKEN_MAX]; /* of the first i + 1 of them */
};

static void clear(struct taken *t)
{
    memset(t, 0, offsetof(struct taken, sum));
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    return (h ^ v) * 0x100000001b3u;
}

static void note(struct taken *t, unsigned opcode, uint64_t contents, size_t len)
{
    must(t->n < TAKEN_MAX);
    const uint64_t before = t->n ? t->sum[t->n - 1] : 0;
    t->sum[t->n++] = mix(mix(mix(before, opcode), contents), len);
}

static uint64_t hash(uint64_t h, const uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        h = mix(h, at[i]);
    return h;
}

/* ---- Polder ---- */

static void take_data(struct taken *t, const struct frames *f, const struct frames_piece *p,
                      const uint8_t *at, size_t most)
{
    size_t header = 0;
    if (f->started) {
        const unsigned small = at[1] & 0x7f;
        header = 2u + (small == 126 ? 2 : small == 127 ? 8 : 0) + (f->from_client ? 4 : 0);
    }
    must(header <= p->len);
    const size_t n = p->len - header;
    for (size_t i = 0; i < n; i++)
        t->message = mix(t->message, at[header + i] ^ f->mask[(f->phase + 4 - (n - i) % 4) & 3]);
    t->len += n;
    must(t->len <= most);
    if (!p->message_end)
        return;
    note(t, p->opcode, t->message, t->len);
    t->message = 0;
    t->len = 0;
}

/* seed 0: not cut. */
static void by_polder(const uint8_t *bytes, size_t len, uint32_t seed, const struct peer *peer,
                      struct taken *t)
{
    struct frames f = {.from_client = !peer->backend, .rsv1_allowed = peer->rsv1};
    struct frames_piece p;
    size_t at = 0, end = seed ? 0 : len;
    clear(t);
    while (!t->code && !t->closed) {
        /* a copy of its own, so that a byte too far is seen */
        uint8_t *part = malloc(end - at + 1);
        memcpy(part, bytes + at, end - at);
        part = realloc(part, end - at ? end - at : 1);
        size_t used = 0;
        for (;;) {
            frames_next(&f, part + used, end - at - used, peer->most, &p);
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
                take_data(t, &f, &p, part + used, peer->most);
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
        must(t->code || frames_between(&f) || used == end - at);
        free(part);
        at += used;
        if (end == len)
            break;
        seed = seed * 1664525u + 1013904223u;
        end += 1 + (seed >> 16) % ((seed >> 28) + 2);
        end = end > len ? len : end;
    }
    t->left = len - at;
    t->end = f;
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

static int on_genmask(wslay_event_context_ptr ctx, uint8_t *mask, size_t len, void *arg)
{
    (void)ctx, (void)arg;
    memset(mask, 0x5a, len);
    return 0;
}

static void by_wslay(const uint8_t *bytes, size_t len, const struct peer *peer, struct taken *t)
{
    const struct wslay_event_callbacks calls = {.recv_callback = on_recv,
                                                .send_callback = on_send,
                                                .genmask_callback = on_genmask,
                                                .on_msg_recv_callback = on_message};
    struct input in = {bytes, len, t};
    wslay_event_context_ptr ctx;
    clear(t);
    must((peer->backend ? wslay_event_context_client_init(&ctx, &calls, &in)
                        : wslay_event_context_server_init(&ctx, &calls, &in)) == 0);
    wslay_event_config_set_max_recv_msg_length(ctx, peer->most);
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

/* ---- both ---- */

static void must_agree_however_cut(const struct taken *a, const struct taken *b)
{
    must(a->n == b->n && (!a->n || a->sum[a->n - 1] == b->sum[a->n - 1]));
    must(a->code == b->code && a->closed == b->closed && a->close_code == b->close_code);
    if (a->code)
        return;
    const struct frames *f = &a->end, *g = &b->end;
    must(a->left == b->left && f->left == g->left && f->message == g->message);
    must(f->opcode == g->opcode && f->fin == g->fin && f->compressed == g->compressed);
    must(memcmp(f->mask, g->mask, 4) == 0 && f->phase == g->phase && f->utf8 == g->utf8);
    must(f->close_seen == g->close_seen && f->close_seen == a->closed);
}

/* One of the differences above; what both took before it has been compared. */
static bool known_difference(const struct peer *peer, const struct taken *ours,
                             const struct taken *theirs)
{
    if (peer->backend && theirs->code == 1007)
        return theirs->n <= ours->n;
    if (ours->closed && ours->close_code >= 1012 && ours->close_code <= 1014)
        return theirs->code == 1002 && theirs->n + 1 == ours->n;
    if (ours->bad_close && theirs->closed)
        return theirs->close_code == 1005 && theirs->n == ours->n + 1;
    if (ours->bad_close && theirs->code)
        return theirs->n == ours->n && (theirs->code == 1002 || theirs->code == 1007);
    if (theirs->n != ours->n || theirs->closed || ours->closed)
        return false;
    if (theirs->code && !ours->code)
        return ours->left > 0;
    return ours->code && !theirs->code && ours->left <= FRAMES_HEADER_MAX;
}

static bool same(const struct taken *ours, const struct taken *theirs)
{
    return ours->n == theirs->n && ours->code == theirs->code && ours->closed == theirs->closed &&
           ours->close_code == theirs->close_code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct taken whole, other;
    if (size < 2 || size > 2 * TAKEN_MAX)
        return 0;
    const struct peer peer = {data[1] & 1, data[1] & 4, data[1] & 2 ? MOST_LONG : MOST};
    by_polder(data + 2, size - 2, 0, &peer, &whole);
    for (uint32_t k = 0; k < 3; k++) {
        by_polder(data + 2, size - 2, 1 + data[0] * 3u + k, &peer, &other);
        must_agree_however_cut(&whole, &other);
    }
    if (peer.rsv1)
        return 0;
    by_wslay(data + 2, size - 2, &peer, &other);
    const unsigned n = whole.n < other.n ? whole.n : other.n;
    must(!n || whole.sum[n - 1] == other.sum[n - 1]);
    if (!same(&whole, &other) && !known_difference(&peer, &whole, &other)) {
        fprintf(stderr,
                "polder: %u frames, error %u, close %u; wslay: %u frames, error %u, close %u\n",
                whole.n, whole.code, whole.close_code, other.n, other.code, other.close_code);
        abort();
    }
    return 0;
}

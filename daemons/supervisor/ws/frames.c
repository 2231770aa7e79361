/* SPDX-License-Identifier: BSD-2-Clause */
/* frames: see frames.h. */
#include "daemons/supervisor/ws/frames.h"

#include <stddef.h>
#include <string.h>

/* ---- UTF-8 ------------------------------------------------------------------------------- */

/* States: 0 between characters; 1, 2, 3 that many continuation bytes to come; 4 after E0 (A0..BF),
 * 5 after ED (80..9F), 6 after F0 (90..BF), 7 after F4 (80..8F). */
enum { UTF8_BAD = 255 };

static uint8_t utf8_lead(uint8_t c)
{
    if (c < 0x80)
        return 0;
    if (c < 0xc2 || c > 0xf4)
        return UTF8_BAD;
    if (c < 0xe0)
        return 1;
    if (c < 0xf0)
        return c == 0xe0 ? 4 : c == 0xed ? 5 : 2;
    return c == 0xf0 ? 6 : c == 0xf4 ? 7 : 3;
}

static uint8_t utf8_step(uint8_t state, uint8_t c)
{
    static const struct {
        uint8_t low, high, next;
    } after[] = {{0, 0, 0},       {0x80, 0xbf, 0}, {0x80, 0xbf, 1}, {0x80, 0xbf, 2},
                 {0xa0, 0xbf, 1}, {0x80, 0x9f, 1}, {0x90, 0xbf, 2}, {0x80, 0x8f, 2}};
    if (state == 0)
        return utf8_lead(c);
    return c >= after[state].low && c <= after[state].high ? after[state].next : UTF8_BAD;
}

/* mask: of the first byte on. Eight plain ASCII bytes at a time where nothing is under way. */
static uint8_t utf8_run(uint8_t state, const uint8_t *at, size_t len, const uint8_t mask[4],
                        unsigned phase)
{
    uint8_t key[8];
    uint64_t wide;
    size_t i = 0;
    for (unsigned k = 0; k < 8; k++)
        key[k] = mask[(phase + k) & 3];
    memcpy(&wide, key, 8);
    while (i < len && state != UTF8_BAD) {
        uint64_t eight;
        if (state == 0 && len - i >= 8 && (i & 3) == 0) {
            memcpy(&eight, at + i, 8);
            if (!((eight ^ wide) & UINT64_C(0x8080808080808080))) {
                i += 8;
                continue;
            }
        }
        state = utf8_step(state, at[i] ^ key[i & 3]);
        i++;
    }
    return state;
}

bool frames_utf8_valid(const uint8_t *text, size_t len)
{
    static const uint8_t none[4] = {0};
    return utf8_run(0, text, len, none, 0) == 0;
}

/* ---- close codes ------------------------------------------------------------------------- */

bool frames_code_valid(unsigned code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

/* ---- reading ----------------------------------------------------------------------------- */

struct header {
    size_t len;
    uint64_t payload;
    uint8_t opcode, mask[4];
    bool fin, rsv1, rsv23, masked;
};

static void bad(struct frames_piece *p, uint16_t code, const char *why)
{
    p->kind = FRAMES_BAD;
    p->code = code;
    p->why = why;
}

/* false: more bytes are needed. A length that is not the shortest form is refused by the caller
 * (payload is set to UINT64_MAX). */
static bool read_header(const uint8_t *buf, size_t len, struct header *h)
{
    if (len < 2)
        return false;
    h->fin = buf[0] & 0x80;
    h->rsv1 = buf[0] & 0x40;
    h->rsv23 = buf[0] & 0x30;
    h->opcode = buf[0] & 0x0f;
    h->masked = buf[1] & 0x80;
    const unsigned small = buf[1] & 0x7f, extra = small == 126 ? 2 : small == 127 ? 8 : 0;
    h->len = 2 + extra + (h->masked ? 4 : 0);
    if (len < h->len)
        return false;
    h->payload = extra ? 0 : small;
    for (unsigned i = 0; i < extra; i++)
        h->payload = h->payload << 8 | buf[2 + i];
    if ((extra == 2 && h->payload < 126) ||
        (extra == 8 && (h->payload < 65536 || h->payload >> 63)))
        h->payload = UINT64_MAX;
    memset(h->mask, 0, 4);
    if (h->masked)
        memcpy(h->mask, buf + 2 + extra, 4);
    return true;
}

static const char *check_header(const struct frames *f, const struct header *h)
{
    const bool control = h->opcode & 8;
    if (h->rsv23 || (h->rsv1 && (!f->rsv1_allowed || control || h->opcode == FRAMES_CONTINUATION)))
        return "a reserved bit is set";
    if (h->opcode > FRAMES_PONG || (h->opcode > FRAMES_BINARY && h->opcode < FRAMES_CLOSE))
        return "an unknown opcode";
    if (h->masked != f->from_client)
        return f->from_client ? "a client's frame is not masked" : "a backend's frame is masked";
    if (h->payload == UINT64_MAX)
        return "a length is not in its shortest form";
    if (control)
        return !h->fin            ? "a control frame is fragmented"
               : h->payload > 125 ? "a control frame is longer than 125 bytes"
                                  : NULL;
    if (h->opcode == FRAMES_CONTINUATION)
        return f->opcode ? NULL : "a continuation of nothing";
    return f->opcode ? "a message begins within another" : NULL;
}

/* A whole control frame, or more bytes are needed. */
static void read_control(struct frames *f, const uint8_t *buf, size_t len, const struct header *h,
                         struct frames_piece *p)
{
    if (len < h->len + h->payload)
        return;
    p->kind = FRAMES_CONTROL;
    p->len = h->len + (size_t)h->payload;
    p->opcode = h->opcode;
    p->payload_len = (uint8_t)h->payload;
    for (unsigned i = 0; i < p->payload_len; i++)
        p->payload[i] = buf[h->len + i] ^ h->mask[i & 3];
    if (h->opcode != FRAMES_CLOSE)
        return;
    f->close_seen = true;
    p->code = 1005;
    if (p->payload_len >= 2)
        p->code = (uint16_t)(p->payload[0] << 8 | p->payload[1]);
    if (p->payload_len == 1)
        bad(p, 1002, "a close frame with one byte");
    else if (p->payload_len && !frames_code_valid(p->code))
        bad(p, 1002, "a close code that may not be sent");
    else if (p->payload_len > 2 && !frames_utf8_valid(p->payload + 2, p->payload_len - 2u))
        bad(p, 1007, "a close reason that is not UTF-8");
}

static void begin_data(struct frames *f, const struct header *h)
{
    if (h->opcode != FRAMES_CONTINUATION) {
        f->opcode = h->opcode;
        f->compressed = h->rsv1;
        f->message = 0;
        f->utf8 = 0;
    }
    f->fin = h->fin;
    f->left = h->payload;
    memcpy(f->mask, h->mask, 4);
    f->phase = 0;
}

/* Payload at buf[skip..]; a header may stand before it. */
static void pass_data(struct frames *f, const uint8_t *buf, size_t len, size_t skip,
                      struct frames_piece *p)
{
    const size_t n = len - skip < f->left ? len - skip : (size_t)f->left;
    const bool text = f->opcode == FRAMES_TEXT && f->from_client && !f->compressed;
    if (text)
        f->utf8 = utf8_run(f->utf8, buf + skip, n, f->mask, f->phase);
    f->phase = (uint8_t)((f->phase + n) & 3);
    f->started = skip > 0;
    f->left -= n;
    f->message += n;
    p->kind = FRAMES_DATA;
    p->len = skip + n;
    p->header = (uint8_t)skip;
    p->opcode = f->opcode;
    p->message_end = f->left == 0 && f->fin;
    if (text && (f->utf8 == UTF8_BAD || (p->message_end && f->utf8))) {
        bad(p, 1007, "text that is not UTF-8");
        p->within = skip == 0;
        return;
    }
    if (p->message_end)
        f->opcode = 0;
}

void frames_next(struct frames *f, const uint8_t *buf, size_t len, uint64_t max_message,
                 struct frames_piece *piece)
{
    struct header h;
    memset(piece, 0, offsetof(struct frames_piece, payload));
    piece->kind = FRAMES_NEED_MORE;
    piece->payload_len = 0;
    piece->why = NULL;
    piece->within = false;
    if (f->left) {
        if (len)
            pass_data(f, buf, len, 0, piece);
        return;
    }
    if (f->close_seen) {
        if (len)
            bad(piece, 1002, "data after a close frame");
        return;
    }
    if (!read_header(buf, len, &h))
        return;
    const char *why = check_header(f, &h);
    if (why) {
        bad(piece, 1002, why);
    } else if (h.opcode & 8) {
        read_control(f, buf, len, &h, piece);
    } else if (max_message &&
               (h.payload > max_message ||
                (h.opcode == FRAMES_CONTINUATION ? f->message : 0) > max_message - h.payload)) {
        bad(piece, 1009, "a message is too long");
    } else {
        begin_data(f, &h);
        pass_data(f, buf, len, h.len, piece);
    }
}

/* ---- writing ----------------------------------------------------------------------------- */

size_t frames_write(uint8_t *out, enum frames_opcode opcode, const void *payload, size_t len,
                    const uint8_t mask[4])
{
    size_t n = 2;
    out[0] = (uint8_t)(0x80 | opcode);
    if (len < 126) {
        out[1] = (uint8_t)len;
    } else {
        const unsigned bytes = len < 65536 ? 2 : 8;
        out[1] = bytes == 2 ? 126 : 127;
        for (unsigned i = 0; i < bytes; i++)
            out[n++] = (uint8_t)((uint64_t)len >> (8 * (bytes - 1 - i)));
    }
    if (mask) {
        out[1] |= 0x80;
        memcpy(out + n, mask, 4);
        n += 4;
    }
    for (size_t i = 0; i < len; i++)
        out[n + i] = (uint8_t)(((const uint8_t *)payload)[i] ^ (mask ? mask[i & 3] : 0));
    return n + len;
}

size_t frames_close_payload(uint8_t out[125], uint16_t code, const char *reason)
{
    size_t len = strlen(reason);
    len = len > 123 ? 123 : len;
    out[0] = (uint8_t)(code >> 8);
    out[1] = (uint8_t)code;
    memcpy(out + 2, reason, len);
    return 2 + len;
}

bool frames_sound(const struct frames *f, bool from_client)
{
    return f->phase < 4 && f->opcode <= FRAMES_BINARY && f->utf8 <= FRAMES_UTF8_MAX &&
           f->from_client == from_client;
}

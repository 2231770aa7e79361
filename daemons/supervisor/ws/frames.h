/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * frames: WebSocket frames (RFC 6455 section 5), read as they stream by.
 *
 * The relay forwards the bytes that it has read, unchanged; this reader walks over them and says
 * which may pass. It keeps a few words of plain data for each direction, and no bytes: an
 * incomplete header or control frame is left to the caller to bring again with what follows. Data
 * payloads pass in whatever pieces they arrive.
 *
 * Client frames must be masked and backend frames must not be; text from the client is checked as
 * UTF-8 (unless compressed), control frames, opcodes, lengths and close codes are checked on both
 * sides.
 */
#ifndef POLDER_FRAMES_H
#define POLDER_FRAMES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAMES_HEADER_MAX  14
#define FRAMES_CONTROL_MAX (FRAMES_HEADER_MAX + 125)
#define FRAMES_UTF8_MAX    7 /* the highest state of the automaton */

enum frames_opcode {
    FRAMES_CONTINUATION = 0,
    FRAMES_TEXT = 1,
    FRAMES_BINARY = 2,
    FRAMES_CLOSE = 8,
    FRAMES_PING = 9,
    FRAMES_PONG = 10,
};

struct frames {
    uint64_t left;     /* payload bytes of the current data frame still to come */
    uint64_t message;  /* payload bytes of the current message so far */
    uint8_t mask[4];   /* of the current frame */
    uint8_t phase;     /* where in the mask its next byte is */
    uint8_t opcode;    /* of the message in progress: text or binary; 0: none */
    bool fin;          /* the current frame is its last */
    bool compressed;   /* RSV1: permessage-deflate, not looked into */
    bool from_client;  /* masked, and text is checked */
    bool rsv1_allowed; /* permessage-deflate was agreed on */
    bool close_seen;
    bool started; /* the last DATA piece began with a header */
    uint8_t utf8; /* state of the automaton; 0: between characters */
};
_Static_assert(sizeof(struct frames) <= 40, "two of these in each session");

struct frames_piece {
    enum { FRAMES_NEED_MORE, FRAMES_DATA, FRAMES_CONTROL, FRAMES_BAD } kind;
    size_t len;           /* bytes at the start of buf that it covers */
    uint8_t header;       /* DATA: how many of them are a header */
    uint8_t opcode;       /* CONTROL; DATA: of the message */
    bool message_end;     /* DATA: its last byte is the last of the message */
    uint8_t payload[125]; /* CONTROL: unmasked */
    uint8_t payload_len;
    uint16_t code; /* BAD: close code to end with (1002, 1007, 1009). Of a CLOSE: its code, 1005 if
                      none */
    const char *why; /* BAD */
    bool within;     /* BAD: part of this frame has passed before */
};

/* Looks at the next piece in buf. max_message: 0: unlimited. Call again with the rest until
 * NEED_MORE, which leaves at most FRAMES_CONTROL_MAX - 1 bytes. */
void frames_next(struct frames *f, const uint8_t *buf, size_t len, uint64_t max_message,
                 struct frames_piece *piece);

/* Is it one that the reader can have come to? */
bool frames_sound(const struct frames *f, bool from_client);
/* Nothing of a frame, or of a message, is under way: a control frame, or a message, may be put in
 * here. */
static inline bool frames_between(const struct frames *f)
{
    return f->left == 0;
}
static inline bool frames_between_messages(const struct frames *f)
{
    return f->left == 0 && f->opcode == 0;
}

/* Writes a whole frame of ours; mask NULL: unmasked (towards a client). out has room for
 * FRAMES_HEADER_MAX + len. Returns its length. */
size_t frames_write(uint8_t *out, enum frames_opcode opcode, const void *payload, size_t len,
                    const uint8_t mask[4]);
/* A close frame's payload: code and reason (cut to fit). Returns its length. */
size_t frames_close_payload(uint8_t out[125], uint16_t code, const char *reason);
/* May this code be sent in a close frame? (RFC 6455 7.4; IANA) */
bool frames_code_valid(unsigned code);
/* Whole text at once. */
bool frames_utf8_valid(const uint8_t *text, size_t len);
#endif

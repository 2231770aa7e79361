/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * inflate_count: the length of a compressed message when expanded, without expanding it.
 *
 * A deflate stream (RFC 1951, as RFC 7692 cuts it into messages) says for each symbol how many
 * bytes it stands for; which bytes they are, and so the window of 32 KiB, does not matter here. The
 * counter takes the bytes as they pass, in whatever pieces, and needs 4 KiB, while a message is
 * under way. Each message begins at a block's head, so it starts from the beginning.
 *
 * It never counts less than a decoder puts out. Invalid data ends the count: the
 * receiver fails there too.
 */
#ifndef POLDER_INFLATE_COUNT_H
#define POLDER_INFLATE_COUNT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The most that one byte can expand to: four matches of 258 bytes, of two bits each. */
#define INFLATE_RATIO_MAX 1032

struct inflate_count;

struct inflate_count *inflate_count_new(void); /* NULL: no memory */
void inflate_count_free(struct inflate_count *c);
/* mask: of the WebSocket frame, phase: of the first byte in it. Returns the bytes counted since it
 * was made; it may stop early once they are more than `max`. */
uint64_t inflate_count_feed(struct inflate_count *c, const uint8_t *bytes, size_t len,
                            const uint8_t mask[4], unsigned phase, uint64_t max);

/* A count under way, for another process: a code is the length of each symbol's. */
struct inflate_packed {
    uint64_t out, bits;
    uint32_t n_bits, stored;
    uint16_t n_lit, n_dist, n_code, at;
    uint8_t final, state, pad_[2];
    uint8_t length[320], lit[288], dist[32];
    uint8_t pad2_[4];
};
_Static_assert(sizeof(struct inflate_packed) == 680, "wire format");
void inflate_count_pack(const struct inflate_count *c, struct inflate_packed *to);
/* NULL: no memory, or it is not sound. */
struct inflate_count *inflate_count_unpack(const struct inflate_packed *from);
/* Whether that is one that a counter could have come to. */
bool inflate_packed_sound(const struct inflate_packed *p);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* inflate_count: see inflate_count.h. */
#include "daemons/supervisor/ws/inflate_count.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CODE_MAX     15 /* bits of a code */
#define FAST_BITS    9
#define LITERALS     288
#define DISTANCES    32
#define CODE_LENGTHS 19

enum state {
    BLOCK,      /* the three bits at its head */
    STORED_LEN, /* of a block without codes */
    STORED,
    DYNAMIC,     /* how many code lengths */
    LENGTH_CODE, /* the code that they are written in */
    LENGTHS,
    SYMBOLS,
    BROKEN,
};

/* A canonical code: how many of each length, symbols in their order; and by the next FAST_BITS
 * bits, symbol << 4 | length, 0: a longer one. */
struct code {
    uint16_t count[CODE_MAX + 1];
    uint16_t symbol[LITERALS];
    uint16_t fast[1 << FAST_BITS];
};

struct inflate_count {
    uint64_t out, bits;
    uint32_t n_bits;
    uint32_t stored;                    /* bytes of the block that are still to come */
    bool final;                         /* the block is the last of a stream */
    uint8_t state;                      /* enum state */
    uint16_t n_lit, n_dist, n_code, at; /* of the lengths that are read */
    uint8_t length[LITERALS + DISTANCES];
    struct code lit, dist; /* lit: while lengths are read, the code of those */
};

static void inflate_count_restart(struct inflate_count *c)
{
    c->out = c->bits = 0;
    c->n_bits = c->stored = 0;
    c->final = false;
    c->state = BLOCK;
}

struct inflate_count *inflate_count_new(void)
{
    struct inflate_count *c = malloc(sizeof *c);
    if (c)
        inflate_count_restart(c);
    return c;
}

void inflate_count_free(struct inflate_count *c)
{
    free(c);
}

/* ---- codes ---- */

static unsigned reversed(unsigned code, unsigned len)
{
    unsigned r = 0;
    for (unsigned i = 0; i < len; i++)
        r |= (code >> i & 1) << (len - 1 - i);
    return r;
}

/* false: there are more codes than bits allow. */
static bool code_make(struct code *c, const uint8_t *length, unsigned n)
{
    uint16_t offset[CODE_MAX + 2] = {0};
    unsigned next[CODE_MAX + 2] = {0};
    int left = 1;
    memset(c->count, 0, sizeof c->count);
    memset(c->fast, 0, sizeof c->fast);
    for (unsigned i = 0; i < n; i++)
        c->count[length[i]]++;
    c->count[0] = 0;
    for (unsigned len = 1; len <= CODE_MAX; len++) {
        left = 2 * left - c->count[len];
        if (left < 0)
            return false;
        offset[len + 1] = (uint16_t)(offset[len] + c->count[len]);
        next[len + 1] = (next[len] + c->count[len]) << 1;
    }
    for (unsigned i = 0; i < n; i++) {
        const unsigned len = length[i];
        if (!len)
            continue;
        c->symbol[offset[len]++] = (uint16_t)i;
        const unsigned code = next[len]++;
        if (len <= FAST_BITS)
            for (unsigned k = reversed(code, len); k < 1u << FAST_BITS; k += 1u << len)
                c->fast[k] = (uint16_t)(i << 4 | len);
    }
    return true;
}

/* Returns the symbol, and how many bits it takes; -1: more bits are needed; -2: none begins so. */
static int code_read(const struct code *c, uint64_t bits, unsigned n_bits, unsigned *used)
{
    const unsigned fast = c->fast[bits & ((1u << FAST_BITS) - 1)];
    unsigned code = 0, first = 0, index = 0;
    if (fast && (fast & 15) <= n_bits) {
        *used = fast & 15;
        return (int)(fast >> 4);
    }
    for (unsigned len = 1; len <= CODE_MAX; len++) {
        if (len > n_bits)
            return -1;
        code |= (unsigned)(bits >> (len - 1) & 1);
        const unsigned count = c->count[len];
        if (code < first + count) {
            *used = len;
            return c->symbol[index + (code - first)];
        }
        index += count;
        first = (first + count) << 1;
        code <<= 1;
    }
    return -2;
}

/* ---- carried to another process ---- */

/* How long each symbol's code is. */
static void code_lengths(const struct code *c, uint8_t *length)
{
    unsigned at = 0;
    for (unsigned len = 1; len <= CODE_MAX; len++)
        for (unsigned i = 0; i < c->count[len]; i++)
            length[c->symbol[at++]] = (uint8_t)len;
}

static bool has_codes(unsigned state)
{
    return state == LENGTHS || state == SYMBOLS;
}

void inflate_count_pack(const struct inflate_count *c, struct inflate_packed *to)
{
    *to = (struct inflate_packed){.out = c->out,
                                  .bits = c->bits,
                                  .n_bits = c->n_bits,
                                  .stored = c->stored,
                                  .final = c->final,
                                  .state = c->state};
    if (c->state >= LENGTH_CODE && c->state <= LENGTHS) {
        to->n_lit = c->n_lit;
        to->n_dist = c->n_dist;
        to->n_code = c->n_code;
        to->at = c->at;
        memcpy(to->length, c->length, sizeof to->length);
    }
    if (has_codes(c->state))
        code_lengths(&c->lit, to->lit);
    if (c->state == SYMBOLS)
        code_lengths(&c->dist, to->dist);
}

static bool lengths_sound(const uint8_t *length, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (length[i] > CODE_MAX)
            return false;
    return true;
}

bool inflate_packed_sound(const struct inflate_packed *p)
{
    struct code code;
    if (p->n_bits > 64 || p->stored > UINT16_MAX || p->state > BROKEN || p->n_lit > 286 ||
        p->n_dist > 30 || p->n_code > 19 || !lengths_sound(p->length, sizeof p->length) ||
        !lengths_sound(p->lit, sizeof p->lit) || !lengths_sound(p->dist, sizeof p->dist))
        return false;
    if (p->at > (p->state == LENGTH_CODE ? p->n_code : p->n_lit + p->n_dist))
        return false;
    /* the code of lengths has 19 symbols */
    for (unsigned i = CODE_LENGTHS; p->state == LENGTHS && i < sizeof p->lit; i++)
        if (p->lit[i])
            return false;
    return code_make(&code, p->lit, LITERALS) && code_make(&code, p->dist, DISTANCES);
}

struct inflate_count *inflate_count_unpack(const struct inflate_packed *from)
{
    struct inflate_count *c = inflate_packed_sound(from) ? inflate_count_new() : NULL;
    if (!c)
        return NULL;
    c->out = from->out;
    c->bits = from->bits;
    c->n_bits = from->n_bits;
    c->stored = from->stored;
    c->final = from->final;
    c->state = from->state;
    c->n_lit = from->n_lit;
    c->n_dist = from->n_dist;
    c->n_code = from->n_code;
    c->at = from->at;
    memcpy(c->length, from->length, sizeof c->length);
    code_make(&c->lit, from->lit, LITERALS);
    code_make(&c->dist, from->dist, DISTANCES);
    return c;
}

/* ---- one step: false: more bits are needed ---- */

static void drop(struct inflate_count *c, unsigned n)
{
    c->bits >>= n;
    c->n_bits -= n;
}

static unsigned take(struct inflate_count *c, unsigned n)
{
    const unsigned v = (unsigned)(c->bits & ((UINT64_C(1) << n) - 1));
    drop(c, n);
    return v;
}

/* Behind the last block of a stream another one may follow, at a byte's beginning. */
static void block_end(struct inflate_count *c)
{
    if (c->final)
        drop(c, c->n_bits & 7);
    c->state = BLOCK;
}

static void fixed_codes(struct inflate_count *c)
{
    uint8_t length[LITERALS];
    memset(length, 8, 144);
    memset(length + 144, 9, 112);
    memset(length + 256, 7, 24);
    memset(length + 280, 8, 8);
    code_make(&c->lit, length, LITERALS);
    memset(length, 5, DISTANCES);
    code_make(&c->dist, length, DISTANCES);
}

static bool step_block(struct inflate_count *c)
{
    if (c->n_bits < 3)
        return false;
    c->final = take(c, 1);
    switch (take(c, 2)) {
    case 0:
        drop(c, c->n_bits & 7);
        c->state = STORED_LEN;
        break;
    case 1:
        fixed_codes(c);
        c->state = SYMBOLS;
        break;
    case 2:
        c->state = DYNAMIC;
        break;
    default:
        c->state = BROKEN;
        break;
    }
    return true;
}

static bool step_stored_len(struct inflate_count *c)
{
    if (c->n_bits < 32)
        return false;
    const unsigned len = take(c, 16), check = take(c, 16);
    c->stored = len;
    c->state = len == (check ^ 0xffff) ? STORED : BROKEN;
    return true;
}

static bool step_stored(struct inflate_count *c)
{
    if (!c->stored) {
        block_end(c);
        return true;
    }
    if (c->n_bits < 8)
        return false;
    drop(c, 8);
    c->stored--;
    c->out++;
    return true;
}

static bool step_dynamic(struct inflate_count *c)
{
    if (c->n_bits < 14)
        return false;
    c->n_lit = (uint16_t)(take(c, 5) + 257);
    c->n_dist = (uint16_t)(take(c, 5) + 1);
    c->n_code = (uint16_t)(take(c, 4) + 4);
    c->at = 0;
    memset(c->length, 0, sizeof c->length);
    c->state = c->n_lit > 286 || c->n_dist > 30 ? BROKEN : LENGTH_CODE;
    return true;
}

static bool step_length_code(struct inflate_count *c)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                      11, 4,  12, 3, 13, 2, 14, 1, 15};
    if (c->at < c->n_code) {
        if (c->n_bits < 3)
            return false;
        c->length[order[c->at++]] = (uint8_t)take(c, 3);
        return true;
    }
    c->state = code_make(&c->lit, c->length, 19) ? LENGTHS : BROKEN;
    c->at = 0;
    return true;
}

static void lengths_end(struct inflate_count *c)
{
    uint8_t dist[DISTANCES];
    memcpy(dist, c->length + c->n_lit, c->n_dist);
    const bool good =
        code_make(&c->lit, c->length, c->n_lit) && code_make(&c->dist, dist, c->n_dist);
    c->state = good ? SYMBOLS : BROKEN;
}

static bool step_lengths(struct inflate_count *c)
{
    static const uint8_t extra[3] = {2, 3, 7}, min[3] = {3, 3, 11};
    unsigned used;
    if (c->at == c->n_lit + c->n_dist) {
        lengths_end(c);
        return true;
    }
    const int symbol = code_read(&c->lit, c->bits, c->n_bits, &used);
    if (symbol < 16) {
        if (symbol == -1)
            return false;
        if (symbol < 0) {
            c->state = BROKEN;
        } else {
            drop(c, used);
            c->length[c->at++] = (uint8_t)symbol;
        }
        return true;
    }
    const unsigned more = extra[symbol - 16];
    if (c->n_bits < used + more)
        return false;
    drop(c, used);
    const unsigned n = min[symbol - 16] + take(c, more);
    if ((symbol == 16 && !c->at) || c->at + n > (unsigned)c->n_lit + c->n_dist) {
        c->state = BROKEN;
        return true;
    }
    memset(c->length + c->at, symbol == 16 ? c->length[c->at - 1] : 0, n);
    c->at = (uint16_t)(c->at + n);
    return true;
}

/* A match: its length, and the distance, which does not matter. */
static bool step_match(struct inflate_count *c, unsigned symbol, unsigned used)
{
    static const uint16_t base[29] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                      15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                      67, 83, 99, 115, 131, 163, 195, 227, 258};
    static const uint8_t extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                      2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    if (symbol > 28) {
        c->state = BROKEN;
        return true;
    }
    unsigned sum = used + extra[symbol], far_used;
    if (c->n_bits < sum)
        return false;
    const int far = code_read(&c->dist, c->bits >> sum, c->n_bits - sum, &far_used);
    if (far == -1)
        return false;
    if (far < 0 || far > 29) {
        c->state = BROKEN;
        return true;
    }
    sum += far_used + (far > 1 ? (unsigned)far / 2 - 1 : 0);
    if (c->n_bits < sum)
        return false;
    c->out += base[symbol] + (c->bits >> used & ((1u << extra[symbol]) - 1));
    drop(c, sum);
    return true;
}

static bool step_symbols(struct inflate_count *c)
{
    unsigned used;
    const int symbol = code_read(&c->lit, c->bits, c->n_bits, &used);
    if (symbol == -1)
        return false;
    if (symbol > 256)
        return step_match(c, (unsigned)symbol - 257, used);
    if (symbol < 0) {
        c->state = BROKEN;
        return true;
    }
    drop(c, used);
    if (symbol == 256)
        block_end(c);
    else
        c->out++;
    return true;
}

static bool step(struct inflate_count *c)
{
    switch ((enum state)c->state) {
    case BLOCK:
        return step_block(c);
    case STORED_LEN:
        return step_stored_len(c);
    case STORED:
        return step_stored(c);
    case DYNAMIC:
        return step_dynamic(c);
    case LENGTH_CODE:
        return step_length_code(c);
    case LENGTHS:
        return step_lengths(c);
    case SYMBOLS:
        return step_symbols(c);
    case BROKEN:
        break;
    }
    return false;
}

uint64_t inflate_count_feed(struct inflate_count *c, const uint8_t *bytes, size_t len,
                            const uint8_t mask[4], unsigned phase, uint64_t max)
{
    size_t i = 0;
    do {
        while (c->n_bits <= 56 && i < len) {
            c->bits |= (uint64_t)(bytes[i] ^ mask[(phase + i) & 3]) << c->n_bits;
            c->n_bits += 8;
            i++;
        }
        while (c->out <= max && step(c))
            ;
    } while (i < len && c->out <= max && c->state != BROKEN);
    return c->out;
}

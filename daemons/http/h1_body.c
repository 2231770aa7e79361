/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * h1_body: where a body ends (RFC 9112 6 and 7). The chunked decoder is our own and not llhttp's:
 * it hands out one span a call without callbacks, stops and goes on at any byte with a few words of
 * state instead of a parser object, bounds each line, refuses what llhttp 8.1 lets through in
 * trailers (folded lines), and takes what it refuses without reason (quoted values of extensions).
 * The fuzz target compares the two.
 */
#include "daemons/http/h1.h"
#include "daemons/http/h1_fields.h"
#include <errno.h>
#include <string.h>

#define CHUNK_LINE_MAX 256
#define SIZE_DIGITS    16
#define MOVED_MAX      512 /* shorter pieces are moved together rather than listed */

enum state {
    SIZE_FIRST, /* the first digit of a chunk-size */
    SIZE,
    BWS,        /* white space that only a ';' may end */
    EXT,        /* behind a ';': white space, or the first byte of a name */
    EXT_NAME,   /* chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ) */
    EXT_EQUALS, /* white space behind a name, that '=' or ';' may end */
    EXT_VALUE,  /* behind '=': white space, a quote, or the first byte of a token */
    EXT_TOKEN,
    EXT_QUOTED,
    EXT_ESCAPED, /* behind a backslash in quotes */
    EXT_END,     /* behind the closing quote */
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST, /* a trailer line's first byte, or the CR of the last line */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
};

void h1_body_init(struct h1_body *b, enum h1_framing framing, uint64_t length)
{
    *b = (struct h1_body){.framing = framing, .state = SIZE_FIRST};
    if (framing == H1_LENGTH)
        b->left = length;
    b->done = framing == H1_NO_BODY || (framing == H1_LENGTH && length == 0);
}

void h1_body_keep_trailer(struct h1_body *b, char *buffer, size_t size)
{
    b->kept = buffer;
    b->kept_len = 0;
    b->kept_line = b->state > TRAILER_FIRST && b->state <= TRAILER_LF ? UINT32_MAX : 0;
    b->kept_size = size > H1_TRAILER_MAX ? H1_TRAILER_MAX : (uint32_t)size;
}

bool h1_body_resume(struct h1_body *b, const struct h1_body *from)
{
    *b = (struct h1_body){.framing = from->framing,
                          .left = from->left,
                          .total = from->total,
                          .state = from->state,
                          .done = from->done,
                          .line = from->line,
                          .trailer = from->trailer};
    return (unsigned)b->framing <= H1_TO_CLOSE && b->state <= LAST_LF &&
           b->line <= CHUNK_LINE_MAX && b->trailer <= H1_TRAILER_MAX;
}

bool h1_body_eof(struct h1_body *b)
{
    if (b->framing == H1_TO_CLOSE)
        b->done = true;
    return b->done;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- the trailer ----------------------------------------------------------------------------- */

static void keep_byte(struct h1_body *b, char c)
{
    if (!b->kept || b->kept_line == UINT32_MAX)
        return;
    if (b->kept_len + b->kept_line == b->kept_size)
        b->kept_line = UINT32_MAX; /* this line does not fit */
    else
        b->kept[b->kept_len + b->kept_line++] = c;
}

/* A whole line "name:value" CRLF is there: it stays if it fits and may be passed on. */
static void keep_line(struct h1_body *b)
{
    uint32_t len = b->kept_line;
    b->kept_line = 0;
    if (!b->kept || len == UINT32_MAX)
        return;
    const char *line = b->kept + b->kept_len;
    const char *colon = memchr(line, ':', len);
    if (colon && h1_may_trail((struct str){line, (size_t)(colon - line)}))
        b->kept_len += len;
}

static int trailer_byte(struct h1_body *b, char c)
{
    if (++b->trailer > H1_TRAILER_MAX)
        return -EPROTO;
    if (b->state == TRAILER_FIRST && c == '\r') {
        b->state = LAST_LF;
        return 0;
    }
    keep_byte(b, c);
    switch (b->state) {
    case TRAILER_FIRST:
    case TRAILER_NAME:
        if (c == ':' && b->state == TRAILER_NAME)
            b->state = TRAILER_VALUE;
        else if (h1_is_token_byte((unsigned char)c))
            b->state = TRAILER_NAME;
        else
            return -EPROTO;
        return 0;
    case TRAILER_VALUE:
        if (c == '\r')
            b->state = TRAILER_LF;
        else if (!h1_is_value_byte((unsigned char)c))
            return -EPROTO;
        return 0;
    default: /* TRAILER_LF */
        if (c != '\n')
            return -EPROTO;
        keep_line(b);
        b->state = TRAILER_FIRST;
        return 0;
    }
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static int size_digit(struct h1_body *b, char c)
{
    int digit = hex_value(c);
    if (digit < 0 || b->line > SIZE_DIGITS || b->left > (INT64_MAX - (uint64_t)digit) / 16)
        return -EPROTO;
    b->left = b->left * 16 + (uint64_t)digit;
    b->state = SIZE;
    return 0;
}

/* Where a name, a value or the size may end: the next extension, white space before it, or the end
 * of the line. */
static int extension_end(struct h1_body *b, char c, enum state blank)
{
    if (c == ';')
        b->state = EXT;
    else if (c == ' ' || c == '\t')
        b->state = (uint8_t)blank;
    else if (c == '\r' && b->state != BWS && b->state != EXT_EQUALS)
        b->state = SIZE_LF;
    else
        return -EPROTO;
    return 0;
}

/* In quotes, or at their end. */
static int quoted_byte(struct h1_body *b, char c)
{
    if (b->state == EXT_ESCAPED)
        b->state = EXT_QUOTED;
    else if (c == '"')
        b->state = EXT_END;
    else if (c == '\\')
        b->state = EXT_ESCAPED;
    return h1_is_value_byte((unsigned char)c) ? 0 : -EPROTO;
}

/* Chunk extensions mean nothing to us, but if they are passed unchecked, a line may end for us that
 * goes on for another parser (RFC 9112 7.1.1). */
static int extension_byte(struct h1_body *b, char c)
{
    const bool blank = c == ' ' || c == '\t', token = h1_is_token_byte((unsigned char)c);
    switch (b->state) {
    case EXT:
        if (token)
            b->state = EXT_NAME;
        return token || blank ? 0 : -EPROTO;
    case EXT_VALUE:
        if (token || c == '"')
            b->state = token ? EXT_TOKEN : EXT_QUOTED;
        return token || blank || c == '"' ? 0 : -EPROTO;
    case EXT_NAME:
    case EXT_EQUALS:
        if (token && b->state == EXT_NAME)
            return 0;
        if (c == '=') {
            b->state = EXT_VALUE;
            return 0;
        }
        return extension_end(b, c, EXT_EQUALS);
    case EXT_TOKEN:
        return token ? 0 : extension_end(b, c, BWS);
    case EXT_END:
        return extension_end(b, c, BWS);
    default:
        return quoted_byte(b, c);
    }
}

static int size_line_byte(struct h1_body *b, char c)
{
    if (++b->line > CHUNK_LINE_MAX)
        return -EPROTO;
    switch (b->state) {
    case SIZE_FIRST:
        return size_digit(b, c);
    case SIZE:
        return hex_value(c) < 0 ? extension_end(b, c, BWS) : size_digit(b, c);
    case BWS:
        return extension_end(b, c, BWS);
    case SIZE_LF:
        b->line = 0;
        b->state = b->left ? DATA : TRAILER_FIRST;
        return c == '\n' ? 0 : -EPROTO;
    default:
        return extension_byte(b, c);
    }
}

static int framing_byte(struct h1_body *b, char c)
{
    switch (b->state) {
    case DATA_CR:
        b->state = DATA_LF;
        return c == '\r' ? 0 : -EPROTO;
    case DATA_LF:
        b->state = SIZE_FIRST;
        return c == '\n' ? 0 : -EPROTO;
    case LAST_LF:
        b->done = c == '\n' && ++b->trailer <= H1_TRAILER_MAX;
        return b->done ? 0 : -EPROTO;
    default:
        return b->state < DATA ? size_line_byte(b, c) : trailer_byte(b, c);
    }
}

/* Up to len bytes of what is left are content. */
static size_t take(struct h1_body *b, const char *buf, size_t len, struct str *out)
{
    size_t n = len < b->left ? len : (size_t)b->left;
    *out = (struct str){buf, n};
    b->left -= n;
    b->total += n;
    return n;
}

static int read_chunked(struct h1_body *b, const char *buf, size_t len, size_t *used,
                        struct str *out)
{
    for (size_t i = 0; i < len; i++) {
        if (b->state == DATA) {
            i += take(b, buf + i, len - i, out);
            if (b->left == 0)
                b->state = DATA_CR;
            *used = i;
            return 0;
        }
        if (framing_byte(b, buf[i]) != 0)
            return -EPROTO;
        if (b->done) {
            *used = i + 1;
            return 0;
        }
    }
    *used = len;
    return 0;
}

int h1_body_read(struct h1_body *b, const char *buf, size_t len, size_t *used, struct str *out)
{
    *used = 0;
    *out = (struct str){buf, 0};
    if (b->done || len == 0)
        return 0;
    switch (b->framing) {
    case H1_LENGTH:
        *used = take(b, buf, len, out);
        b->done = b->left == 0;
        return 0;
    case H1_CHUNKED:
        return read_chunked(b, buf, len, used, out);
    case H1_TO_CLOSE:
        *used = len;
        *out = (struct str){buf, len};
        b->total += len;
        return 0;
    default:
        return 0;
    }
}

static void span_add(struct h1_spans *spans, struct str content)
{
    struct iovec *last = spans->n ? &spans->iov[spans->n - 1] : NULL;
    if (last && content.len < MOVED_MAX) {
        memmove((char *)last->iov_base + last->iov_len, content.at, content.len);
        last->iov_len += content.len;
    } else {
        spans->iov[spans->n++] = (struct iovec){(void *)(uintptr_t)content.at, content.len};
    }
    spans->total += content.len;
}

int h1_body_gather(struct h1_body *b, char *buf, size_t len, size_t *used, struct h1_spans *spans)
{
    spans->n = 0;
    spans->total = 0;
    *used = 0;
    while (*used < len && !b->done && spans->n < spans->max) {
        struct str content;
        size_t n;
        if (h1_body_read(b, buf + *used, len - *used, &n, &content) < 0)
            return -EPROTO;
        *used += n;
        if (content.len)
            span_add(spans, content);
    }
    return 0;
}

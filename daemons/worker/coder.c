/* SPDX-License-Identifier: BSD-2-Clause */
/* coder: one stream, whichever library makes it. */
#include "daemons/worker/coder.h"

#include <brotli/encode.h>
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

/* Once per stored response, so a little more than what is usual on the fly; never what takes
 * milliseconds a piece. */
#define GZIP_LEVEL  6
#define GZIP_WINDOW (15 + 16) /* with a gzip head */
#define GZIP_MEMORY 8
#define BR_QUALITY  5
#define BR_WINDOW   22
#define BR_BLOCK    65536u /* flushed after so much: what is kept for longer is worked off at once */
#define ZSTD_LEVEL  6
#define ZSTD_WINDOW 23 /* 8 MiB: what browsers accept at most (RFC 9659) */

struct coder {
    enum coding coding;
    z_stream zlib;
    BrotliEncoderState *brotli;
    ZSTD_CCtx *zstd;
    size_t unflushed;
    size_t len, size, most; /* of bytes */
    char *bytes;
};

static bool begin_zlib(struct coder *c)
{
    return deflateInit2(&c->zlib, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW, GZIP_MEMORY,
                        Z_DEFAULT_STRATEGY) == Z_OK;
}

static bool begin_brotli(struct coder *c, uint64_t source_len)
{
    c->brotli = BrotliEncoderCreateInstance(NULL, NULL, NULL);
    if (!c->brotli)
        return false;
    uint32_t window = BROTLI_MIN_WINDOW_BITS;
    while (window < BR_WINDOW && ((uint64_t)1 << window) - 16 < source_len)
        window++;
    const uint32_t hint = source_len > UINT32_MAX ? 0 : (uint32_t)source_len;
    return BrotliEncoderSetParameter(c->brotli, BROTLI_PARAM_QUALITY, BR_QUALITY) &&
           BrotliEncoderSetParameter(c->brotli, BROTLI_PARAM_LGWIN, window) &&
           BrotliEncoderSetParameter(c->brotli, BROTLI_PARAM_SIZE_HINT, hint);
}

static bool begin_zstd(struct coder *c, uint64_t source_len)
{
    c->zstd = ZSTD_createCCtx();
    if (!c->zstd)
        return false;
    ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    if (source_len > (uint64_t)1 << ZSTD_WINDOW)
        ZSTD_CCtx_setParameter(c->zstd, ZSTD_c_windowLog, ZSTD_WINDOW);
    return !ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(c->zstd, source_len));
}

struct coder *coder_new(enum coding coding, uint64_t source_len)
{
    struct coder *c = calloc(1, sizeof *c);
    bool begun = false;
    if (!c)
        return NULL;
    c->coding = coding;
    c->most = (size_t)(source_len - source_len / 10);
    if (coding == CODING_GZIP)
        begun = begin_zlib(c);
    else if (coding == CODING_BR)
        begun = begin_brotli(c, source_len);
    else if (coding == CODING_ZSTD)
        begun = begin_zstd(c, source_len);
    if (begun)
        return c;
    coder_free(c);
    return NULL;
}

void coder_free(struct coder *c)
{
    if (!c)
        return;
    deflateEnd(&c->zlib);
    if (c->brotli)
        BrotliEncoderDestroyInstance(c->brotli);
    ZSTD_freeCCtx(c->zstd);
    free(c->bytes);
    free(c);
}

#define STEP 16384u

/* Room for at least a step more. */
static int make_room(struct coder *c)
{
    if (c->len > c->most)
        return -EFBIG;
    if (c->size - c->len >= STEP)
        return 0;
    const size_t size = c->size ? c->size * 2 : 2 * STEP;
    char *larger = realloc(c->bytes, size);
    if (!larger)
        return -ENOMEM;
    c->bytes = larger;
    c->size = size;
    return 0;
}

static int feed_zlib(struct coder *c, const char *bytes, size_t len, bool last)
{
    c->zlib.next_in = (Bytef *)(uintptr_t)bytes;
    c->zlib.avail_in = (uInt)len;
    for (;;) {
        const int rc = make_room(c);
        if (rc < 0)
            return rc;
        const uInt room = (uInt)(c->size - c->len);
        c->zlib.next_out = (Bytef *)c->bytes + c->len;
        c->zlib.avail_out = room;
        const int done = deflate(&c->zlib, last ? Z_FINISH : Z_NO_FLUSH);
        c->len += room - c->zlib.avail_out;
        if (last ? done == Z_STREAM_END : c->zlib.avail_out > 0)
            return 0;
        if (done != Z_OK && done != Z_BUF_ERROR)
            return -ENOMEM;
    }
}

static int feed_brotli(struct coder *c, const char *bytes, size_t len, bool last)
{
    BrotliEncoderOperation op = BROTLI_OPERATION_PROCESS;
    const uint8_t *in = (const uint8_t *)bytes;
    c->unflushed += len;
    if (last) {
        op = BROTLI_OPERATION_FINISH;
    } else if (c->unflushed >= BR_BLOCK) {
        op = BROTLI_OPERATION_FLUSH;
        c->unflushed = 0;
    }
    for (;;) {
        const int rc = make_room(c);
        if (rc < 0)
            return rc;
        size_t room = c->size - c->len;
        uint8_t *out = (uint8_t *)c->bytes + c->len;
        if (!BrotliEncoderCompressStream(c->brotli, op, &len, &in, &room, &out, NULL))
            return -ENOMEM;
        c->len = c->size - room;
        if (last ? BrotliEncoderIsFinished(c->brotli) != 0
                 : len == 0 && !BrotliEncoderHasMoreOutput(c->brotli))
            return 0;
    }
}

static int feed_zstd(struct coder *c, const char *bytes, size_t len, bool last)
{
    ZSTD_inBuffer in = {bytes, len, 0};
    for (;;) {
        const int rc = make_room(c);
        if (rc < 0)
            return rc;
        ZSTD_outBuffer out = {c->bytes + c->len, c->size - c->len, 0};
        const size_t left =
            ZSTD_compressStream2(c->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return -ENOMEM;
        c->len += out.pos;
        if (last ? left == 0 : in.pos == in.size)
            return 0;
    }
}

int coder_feed(struct coder *c, const char *bytes, size_t len, bool last)
{
    int rc = -EINVAL;
    if (c->coding == CODING_GZIP)
        rc = feed_zlib(c, bytes, len, last);
    else if (c->coding == CODING_BR)
        rc = feed_brotli(c, bytes, len, last);
    else if (c->coding == CODING_ZSTD)
        rc = feed_zstd(c, bytes, len, last);
    return rc == 0 && c->len > c->most ? -EFBIG : rc;
}

const char *coder_bytes(const struct coder *c, size_t *len)
{
    *len = c->len;
    return c->bytes;
}

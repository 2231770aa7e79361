/* SPDX-License-Identifier: BSD-2-Clause */
/* encoder: see encoder.h. */
#include "daemons/worker/fetch/encoder.h"

#include <brotli/encode.h>
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define GZIP_WINDOW (15 + 16) /* with a gzip head */
#define GZIP_MEMORY 8
#define BR_BLOCK    65536u /* flushed after so much: a longer backlog would take too long */

/* By effort. Windows: those of streams keep an encoder at about a megabyte; 8 MiB for zstd is what
 * browsers accept at most (RFC 9659). */
static const struct {
    int gzip_level, br_quality, br_window, zstd_level, zstd_window;
} efforts[] = {[ENCODER_STREAM] = {5, 4, 18, 3, 18}, [ENCODER_STORE] = {6, 5, 22, 6, 23}};

struct encoder {
    enum coding coding;
    enum encoder_effort effort;
    z_stream zlib;
    BrotliEncoderState *brotli;
    ZSTD_CCtx *zstd;
    size_t unflushed; /* brotli */
    bool flushing;    /* brotli: of its own accord, and not through with it */
};

static bool begin_zlib(struct encoder *e)
{
    return deflateInit2(&e->zlib, efforts[e->effort].gzip_level, Z_DEFLATED, GZIP_WINDOW,
                        GZIP_MEMORY, Z_DEFAULT_STRATEGY) == Z_OK;
}

static bool begin_brotli(struct encoder *e, uint64_t source_len)
{
    const uint32_t max_window = (uint32_t)efforts[e->effort].br_window;
    uint32_t window = BROTLI_MIN_WINDOW_BITS;
    e->brotli = BrotliEncoderCreateInstance(NULL, NULL, NULL);
    if (!e->brotli)
        return false;
    while (window < max_window && ((uint64_t)1 << window) - 16 < source_len)
        window++;
    const uint32_t hint = source_len > UINT32_MAX ? 0 : (uint32_t)source_len;
    return BrotliEncoderSetParameter(e->brotli, BROTLI_PARAM_QUALITY,
                                     (uint32_t)efforts[e->effort].br_quality) &&
           BrotliEncoderSetParameter(e->brotli, BROTLI_PARAM_LGWIN, window) &&
           BrotliEncoderSetParameter(e->brotli, BROTLI_PARAM_SIZE_HINT, hint);
}

static bool begin_zstd(struct encoder *e, uint64_t source_len)
{
    const int window = efforts[e->effort].zstd_window;
    e->zstd = ZSTD_createCCtx();
    if (!e->zstd)
        return false;
    ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_compressionLevel, efforts[e->effort].zstd_level);
    if (source_len > (uint64_t)1 << window)
        ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_windowLog, window);
    return source_len == ENCODER_UNKNOWN ||
           !ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(e->zstd, source_len));
}

struct encoder *encoder_new(enum coding coding, enum encoder_effort effort, uint64_t source_len)
{
    struct encoder *e = calloc(1, sizeof *e);
    bool begun = false;
    if (!e)
        return NULL;
    e->coding = coding;
    e->effort = effort;
    if (coding == CODING_GZIP)
        begun = begin_zlib(e);
    else if (coding == CODING_BR)
        begun = begin_brotli(e, source_len);
    else if (coding == CODING_ZSTD)
        begun = begin_zstd(e, source_len);
    if (begun)
        return e;
    encoder_free(e);
    return NULL;
}

void encoder_free(struct encoder *e)
{
    if (!e)
        return;
    if (e->coding == CODING_GZIP)
        deflateEnd(&e->zlib);
    if (e->brotli)
        BrotliEncoderDestroyInstance(e->brotli);
    ZSTD_freeCCtx(e->zstd);
    free(e);
}

bool encoder_reset(struct encoder *e)
{
    e->unflushed = 0;
    e->flushing = false;
    if (e->coding == CODING_GZIP)
        return deflateReset(&e->zlib) == Z_OK;
    if (e->coding == CODING_ZSTD) /* keeps the parameters, forgets a pledged length */
        return !ZSTD_isError(ZSTD_CCtx_reset(e->zstd, ZSTD_reset_session_only));
    BrotliEncoderDestroyInstance(e->brotli);
    return begin_brotli(e, ENCODER_UNKNOWN);
}

static int run_zlib(struct encoder *e, enum encoder_op op, struct encoder_io *io)
{
    static const int flush[] = {
        [ENCODER_MORE] = Z_NO_FLUSH, [ENCODER_FLUSH] = Z_SYNC_FLUSH, [ENCODER_END] = Z_FINISH};
    e->zlib.next_in = (Bytef *)(uintptr_t)io->in;
    e->zlib.avail_in = (uInt)io->in_len;
    e->zlib.next_out = (Bytef *)io->out;
    e->zlib.avail_out = (uInt)io->out_size;
    const int rc = deflate(&e->zlib, flush[op]);
    io->out_len = io->out_size - e->zlib.avail_out;
    io->in += io->in_len - e->zlib.avail_in;
    io->in_len = e->zlib.avail_in;
    if (rc == Z_STREAM_END)
        return 0;
    if (rc != Z_OK && rc != Z_BUF_ERROR)
        return -ENOMEM;
    return op == ENCODER_END || e->zlib.avail_out == 0;
}

static int run_brotli(struct encoder *e, enum encoder_op op, struct encoder_io *io)
{
    static const BrotliEncoderOperation ops[] = {[ENCODER_MORE] = BROTLI_OPERATION_PROCESS,
                                                 [ENCODER_FLUSH] = BROTLI_OPERATION_FLUSH,
                                                 [ENCODER_END] = BROTLI_OPERATION_FINISH};
    const uint8_t *in = (const uint8_t *)io->in;
    uint8_t *out = (uint8_t *)io->out;
    size_t room = io->out_size;
    if (!e->flushing)
        e->unflushed += io->in_len;
    e->flushing = op == ENCODER_MORE && (e->flushing || e->unflushed >= BR_BLOCK);
    const BrotliEncoderOperation what = e->flushing ? BROTLI_OPERATION_FLUSH : ops[op];
    if (!BrotliEncoderCompressStream(e->brotli, what, &io->in_len, &in, &room, &out, NULL))
        return -ENOMEM;
    io->in = (const char *)in;
    io->out_len = io->out_size - room;
    const bool done = op == ENCODER_END ? BrotliEncoderIsFinished(e->brotli)
                                        : io->in_len == 0 && !BrotliEncoderHasMoreOutput(e->brotli);
    if (done && what != BROTLI_OPERATION_PROCESS) {
        e->unflushed = 0;
        e->flushing = false;
    }
    return !done;
}

static int run_zstd(struct encoder *e, enum encoder_op op, struct encoder_io *io)
{
    static const ZSTD_EndDirective ops[] = {[ENCODER_MORE] = ZSTD_e_continue,
                                            [ENCODER_FLUSH] = ZSTD_e_flush,
                                            [ENCODER_END] = ZSTD_e_end};
    ZSTD_inBuffer in = {io->in, io->in_len, 0};
    ZSTD_outBuffer out = {io->out, io->out_size, 0};
    const size_t left = ZSTD_compressStream2(e->zstd, &out, &in, ops[op]);
    if (ZSTD_isError(left))
        return -ENOMEM;
    io->in += in.pos;
    io->in_len -= in.pos;
    io->out_len = out.pos;
    return op == ENCODER_MORE ? io->in_len > 0 : left > 0;
}

int encoder_run(struct encoder *e, enum encoder_op op, struct encoder_io *io)
{
    io->out_len = 0;
    if (e->coding == CODING_GZIP)
        return run_zlib(e, op, io);
    return e->coding == CODING_BR ? run_brotli(e, op, io) : run_zstd(e, op, io);
}

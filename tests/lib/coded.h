/* SPDX-License-Identifier: BSD-2-Clause */
/* coded: bodies in content codings, read by the libraries' decoders. For programs that link those.
 */
#ifndef POLDER_TEST_CODED_H
#define POLDER_TEST_CODED_H
#include "harness.h"

#include <string.h>

#include <brotli/decode.h>
#include <zlib.h>
#include <zstd.h>

#define BODY_MOST (4u << 20)

static char *decoded; /* BODY_MOST + 1 bytes of the program's */

static inline const char *coding_of(const struct message *m)
{
    const char *coding = field_of(m, "Content-Encoding");
    return coding ? coding : "identity";
}

/* The body as its sender meant it, NUL-terminated. */
static inline const char *plain_of(const struct message *m)
{
    size_t n = BODY_MOST;
    const char *coding = field_of(m, "Content-Encoding");
    if (!coding)
        return m->body;
    if (!strcmp(coding, "br")) {
        assert_int_equal(
            BrotliDecoderDecompress(m->body_len, (const uint8_t *)m->body, &n, (uint8_t *)decoded),
            BROTLI_DECODER_RESULT_SUCCESS);
    } else if (!strcmp(coding, "zstd")) {
        ZSTD_DStream *stream = ZSTD_createDStream(); /* frames may not tell their length */
        ZSTD_inBuffer in = {m->body, m->body_len, 0};
        ZSTD_outBuffer out = {decoded, BODY_MOST, 0};
        assert_int_equal(ZSTD_decompressStream(stream, &out, &in), 0);
        assert_int_equal(in.pos, in.size);
        ZSTD_freeDStream(stream);
        n = out.pos;
    } else {
        z_stream z = {.next_in = (Bytef *)m->body,
                      .avail_in = (uInt)m->body_len,
                      .next_out = (Bytef *)decoded,
                      .avail_out = BODY_MOST};
        assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
        assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
        n = z.total_out;
        inflateEnd(&z);
    }
    decoded[n] = 0;
    return decoded;
}
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* Which content coding a client gets, what is worth one, and that what is made can be read. */
#include "daemons/worker/cache/copy_encoder.h"
#include "daemons/worker/fetch/encoder.h"
#include "polder/coding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <brotli/decode.h>
#include <cmocka.h>
#include <errno.h>
#include <zlib.h>
#include <zstd.h>

static struct str text(const char *s)
{
    return (struct str){s, strlen(s)};
}

static const char *chosen(const char *accept)
{
    static const uint8_t offer[] = {CODING_BR, CODING_ZSTD, CODING_GZIP};
    return coding_name(coding_choose(text(accept), offer, 3));
}

static void the_heaviest_coding_is_chosen_and_among_equals_ours(void **state)
{
    (void)state;
    assert_string_equal(chosen("gzip"), "gzip");
    assert_string_equal(chosen("gzip, deflate, br, zstd"), "br");
    assert_string_equal(chosen("gzip, br;q=0.5, zstd;q=0.8"), "gzip");
    assert_string_equal(chosen("br;q=0.1,zstd;q=0.12"), "zstd");
    assert_string_equal(chosen("x-gzip"), "gzip");
    assert_string_equal(chosen("GZIP"), "gzip");
    assert_string_equal(chosen(" , ,gzip ; q=1.000 ,"), "gzip");
    assert_string_equal(chosen("*"), "br");
    assert_string_equal(chosen("br;q=0, *;q=0.5"), "zstd");
}

static void who_takes_none_gets_none(void **state)
{
    (void)state;
    assert_string_equal(chosen(""), "identity");
    assert_string_equal(chosen("identity"), "identity");
    assert_string_equal(chosen("deflate, compress"), "identity");
    assert_string_equal(chosen("gzip;q=0"), "identity");
    assert_string_equal(chosen("gzip;q=0.000, *;q=0"), "identity");
    assert_string_equal(chosen("identity;q=1, br;q=0.5"), "identity");
    assert_string_equal(chosen("identity;q=0.5, br;q=0.5"), "br");
}

static void weights_that_are_none_are_not_guessed(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "gzip;q=2",     "gzip;q=1.001", "gzip;q=.5", "gzip;q=", "gzip;q=0.12345", "gzip;q=-1",
        "gzip;level=9", "gzip;",        "gzipp",     "g zip",   "\"gzip\""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_string_equal(chosen(bad[i]), "identity");
}

static void dense_types_are_left_alone(void **state)
{
    (void)state;
    static const char *const yes[] = {"application/json",    "text/html; charset=utf-8",
                                      "application/ld+json", "image/svg+xml",
                                      "APPLICATION/XML",     "application/vnd.api+json",
                                      "application/wasm",    "application/x-ndjson"};
    static const char *const no[] = {
        "image/png",       "IMAGE/JPEG",        "video/mp4",  "audio/ogg",
        "application/zip", "application/gzip",  "font/woff2", "application/octet-stream",
        "application/pdf", "text/event-stream", "",           "json"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        assert_true(coding_type_is_compressible(text(yes[i])));
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_false(coding_type_is_compressible(text(no[i])));
    assert_false(coding_type_is_compressible((struct str){NULL, 0}));
}

/* ---- what is made can be read ---- */

static size_t decode(enum coding coding, const char *in, size_t len, char *out, size_t size)
{
    if (coding == CODING_GZIP) {
        z_stream z = {.next_in = (Bytef *)(uintptr_t)in,
                      .avail_in = (uInt)len,
                      .next_out = (Bytef *)out,
                      .avail_out = (uInt)size};
        assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
        assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
        const size_t n = z.total_out;
        inflateEnd(&z);
        return n;
    }
    if (coding == CODING_BR) {
        size_t n = size;
        assert_int_equal(BrotliDecoderDecompress(len, (const uint8_t *)in, &n, (uint8_t *)out),
                         BROTLI_DECODER_RESULT_SUCCESS);
        return n;
    }
    const size_t n = ZSTD_decompress(out, size, in, len);
    assert_false(ZSTD_isError(n));
    return n;
}

static char *plain(size_t size)
{
    char *s = malloc(size + 64);
    for (size_t n = 0, i = 0; n < size; i++)
        n += (size_t)sprintf(s + n, "{\"id\":%zu,\"name\":\"item %zu\"},", i, i * 31 % 97);
    return s;
}

static void round_trip(enum coding coding, size_t size, size_t piece)
{
    char *source = plain(size), *back = malloc(size + 1);
    struct copy_encoder *c = copy_encoder_new(coding, size);
    size_t len;
    assert_non_null(c);
    for (size_t at = 0; at < size; at += piece) {
        const size_t n = size - at < piece ? size - at : piece;
        assert_int_equal(copy_encoder_feed(c, source + at, n, at + n == size), 0);
    }
    const char *bytes = copy_encoder_bytes(c, &len);
    assert_true(len < size);
    assert_int_equal(decode(coding, bytes, len, back, size + 1), size);
    assert_memory_equal(back, source, size);
    copy_encoder_free(c);
    free(source);
    free(back);
}

static void what_is_made_in_pieces_can_be_read_as_a_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = {1024, 1500, 16384, 16385, 300000, 9000000};
    for (unsigned coding = CODING_GZIP; coding < CODINGS; coding++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            round_trip((enum coding)coding, sizes[i], 16384);
    for (unsigned coding = CODING_GZIP; coding < CODINGS; coding++)
        round_trip((enum coding)coding, 5000, 1);
}

static void what_does_not_shrink_is_given_up(void **state)
{
    (void)state;
    uint64_t random = 88172645463325252u;
    char noise[65536];
    for (size_t i = 0; i < sizeof noise; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        noise[i] = (char)random;
    }
    for (unsigned coding = CODING_GZIP; coding < CODINGS; coding++) {
        struct copy_encoder *c = copy_encoder_new((enum coding)coding, sizeof noise);
        int rc = 0;
        for (size_t at = 0; rc == 0 && at < sizeof noise; at += 4096)
            rc = copy_encoder_feed(c, noise + at, 4096, at + 4096 == sizeof noise);
        assert_int_equal(rc, -EFBIG);
        copy_encoder_free(c);
    }
    assert_null(copy_encoder_new(CODING_IDENTITY, 100));
    copy_encoder_free(NULL);
}

/* ---- streams ---- */

static size_t put(struct encoder *e, enum encoder_op op, const char *in, size_t len, char *out,
                  size_t room)
{
    struct encoder_io io = {.in = in, .in_len = len};
    size_t made = 0;
    int rc;
    do {
        io.out = out + made;
        io.out_size = room; /* far less than it needs */
        rc = encoder_run(e, op, &io);
        assert_true(rc >= 0);
        made += io.out_len;
    } while (rc > 0);
    assert_int_equal(io.in_len, 0);
    return made;
}

/* In pieces, flushed now and then, through small buffers, and twice with one encoder. */
static void a_stream_can_be_flushed_and_its_encoder_used_again(void **state)
{
    (void)state;
    static const size_t size = 200000, pieces[] = {1, 777, 16384, 200000}, rooms[] = {16, 16384};
    char *source = plain(size), *coded = malloc(2 * size + 65536), *back = malloc(size + 1);
    for (enum coding coding = CODING_GZIP; coding < CODINGS; coding++) {
        struct encoder *e = encoder_new(coding, ENCODER_STREAM, ENCODER_UNKNOWN);
        assert_non_null(e);
        for (size_t p = 0; p < 4; p++)
            for (size_t r = 0; r < 2; r++) {
                const size_t piece = pieces[p], most = piece == 1 ? 3000 : size;
                size_t len = 0, at = 0;
                for (unsigned k = 0; at < most; k++) {
                    const size_t n = most - at < piece ? most - at : piece;
                    len += put(e, ENCODER_MORE, source + at, n, coded + len, rooms[r]);
                    if (k % 7 == 3)
                        len += put(e, ENCODER_FLUSH, NULL, 0, coded + len, rooms[r]);
                    at += n;
                }
                len += put(e, ENCODER_END, NULL, 0, coded + len, rooms[r]);
                assert_int_equal(decode(coding, coded, len, back, size + 1), most);
                assert_memory_equal(back, source, most);
                assert_true(encoder_reset(e));
            }
        encoder_free(e);
    }
    assert_null(encoder_new(CODING_IDENTITY, ENCODER_STREAM, ENCODER_UNKNOWN));
    free(source);
    free(coded);
    free(back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_heaviest_coding_is_chosen_and_among_equals_ours),
        cmocka_unit_test(who_takes_none_gets_none),
        cmocka_unit_test(weights_that_are_none_are_not_guessed),
        cmocka_unit_test(dense_types_are_left_alone),
        cmocka_unit_test(what_is_made_in_pieces_can_be_read_as_a_whole),
        cmocka_unit_test(what_does_not_shrink_is_given_up),
        cmocka_unit_test(a_stream_can_be_flushed_and_its_encoder_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* How long compressed messages are: the same as zlib says, whatever the pieces. */
#include "daemons/supervisor/ws/inflate_count.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#define SIZE 300000

static const uint8_t no_mask[4];
static uint8_t plain[SIZE], packed[2 * SIZE], masked[2 * SIZE];
static uint64_t seed = 88172645463325252u;

static unsigned number(unsigned below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 33) % below;
}

/* kind: how much of it repeats. */
static void make_plain(size_t len, int kind)
{
    for (size_t i = 0; i < len; i++)
        plain[i] = kind == 0   ? 0
                   : kind == 1 ? (uint8_t)number(256)
                   : kind == 2 ? (uint8_t) "abcdefgh \n{}\":,0"[number(16)]
                   : i < 40    ? (uint8_t)number(256)
                               : plain[i - 1 - number(40)];
}

static uint64_t counted(const uint8_t *bytes, size_t len, const uint8_t mask[4], size_t piece)
{
    struct inflate_count *c = inflate_count_new();
    uint64_t n = 0;
    assert_non_null(c);
    for (size_t at = 0; at < len;) {
        const size_t part = piece < len - at ? piece : len - at;
        n = inflate_count_feed(c, bytes + at, part, mask, at & 3, UINT64_MAX);
        at += part;
    }
    inflate_count_free(c);
    return n;
}

static void it_counts_what_zlib_puts_out(void **state)
{
    (void)state;
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    for (int round = 0; round < 200; round++) {
        z_stream z = {0};
        const size_t len = number(round % 10 ? 3000 : SIZE);
        make_plain(len, round % 4);
        assert_int_equal(
            deflateInit2(&z, (int)number(10), Z_DEFLATED, -(9 + (int)number(7)), 8, (int)number(5)),
            Z_OK);
        z.next_in = plain, z.avail_in = (unsigned)len;
        z.next_out = packed, z.avail_out = sizeof packed;
        const bool ends = number(4) == 0; /* BFINAL */
        deflate(&z, ends ? Z_FINISH : Z_SYNC_FLUSH);
        const size_t n = z.total_out - (ends ? 0 : 4); /* a message has no 00 00 ff ff */
        deflateEnd(&z);
        for (size_t i = 0; i < n; i++)
            masked[i] = packed[i] ^ mask[i & 3];
        static const size_t pieces[] = {1, 2, 7, 1000, SIZE * 2};
        for (size_t k = 0; k < 5; k++) {
            assert_int_equal(counted(packed, n, no_mask, pieces[k]), len);
            assert_int_equal(counted(masked, n, mask, pieces[k]), len);
        }
    }
}

static void a_second_message_may_point_into_the_first(void **state)
{
    (void)state;
    z_stream z = {0};
    make_plain(20000, 2);
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 8, 0), Z_OK);
    for (int i = 0; i < 5; i++) {
        z.next_in = plain, z.avail_in = 20000;
        z.next_out = packed, z.avail_out = sizeof packed;
        deflate(&z, Z_SYNC_FLUSH);
        const size_t n = sizeof packed - z.avail_out - 4;
        assert_int_equal(counted(packed, n, no_mask, 100), 20000);
    }
    deflateEnd(&z);
}

static void it_stops_once_it_is_too_much(void **state)
{
    (void)state;
    z_stream z = {0};
    make_plain(SIZE, 0);
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 8, 0), Z_OK);
    z.next_in = plain, z.avail_in = SIZE;
    z.next_out = packed, z.avail_out = sizeof packed;
    deflate(&z, Z_SYNC_FLUSH);
    struct inflate_count *c = inflate_count_new();
    const uint64_t n = inflate_count_feed(c, packed, z.total_out, no_mask, 0, 1000);
    assert_in_range(n, 1001, 1000 + 258);
    inflate_count_free(c);
    assert_true(SIZE <= (uint64_t)z.total_out * INFLATE_RATIO_MAX);
    deflateEnd(&z);
}

static uint64_t zlib_output(const uint8_t *bytes, size_t len)
{
    z_stream z = {0};
    static uint8_t out[1 << 20];
    inflateInit2(&z, -15);
    z.next_in = (uint8_t *)(uintptr_t)bytes, z.avail_in = (unsigned)len;
    z.next_out = out, z.avail_out = sizeof out;
    inflate(&z, Z_SYNC_FLUSH);
    const uint64_t n = z.total_out;
    inflateEnd(&z);
    return n;
}

/* Damaged or made up: never less than a decoder makes of it. */
static void it_is_not_fooled_by_garbage(void **state)
{
    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t n = 1 + number(300);
        if (round % 2) {
            z_stream z = {0};
            make_plain(2000, round % 4);
            deflateInit2(&z, 1 + (int)number(9), Z_DEFLATED, -15, 8, (int)number(5));
            z.next_in = plain, z.avail_in = 2000;
            z.next_out = packed, z.avail_out = sizeof packed;
            deflate(&z, Z_SYNC_FLUSH);
            n = z.total_out;
            deflateEnd(&z);
            for (unsigned k = number(4); k-- > 0;)
                packed[number((unsigned)n)] ^= (uint8_t)(1u << number(8));
        } else {
            for (size_t i = 0; i < n; i++)
                packed[i] = (uint8_t)number(256);
        }
        const uint64_t want = zlib_output(packed, n);
        const uint64_t got = counted(packed, n, no_mask, 1 + number(50));
        if (got < want)
            fail_msg("round %d: %llu instead of %llu", round, (unsigned long long)got,
                     (unsigned long long)want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_counts_what_zlib_puts_out),
        cmocka_unit_test(a_second_message_may_point_into_the_first),
        cmocka_unit_test(it_stops_once_it_is_too_much),
        cmocka_unit_test(it_is_not_fooled_by_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

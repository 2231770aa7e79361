/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fuzz_inflate_count: whatever a client compresses, the counter says no less than zlib puts out of
 * it, and the same in any pieces. Byte 0 is the size of the pieces.
 */
#include "daemons/supervisor/ws/inflate_count.c"

#include <zlib.h>

static uint64_t counted(const uint8_t *data, size_t size, size_t piece)
{
    static const uint8_t mask[4];
    struct inflate_count *c = inflate_count_new();
    uint64_t n = 0;
    for (size_t at = 0; at < size; at += piece) {
        const size_t part = piece < size - at ? piece : size - at;
        n = inflate_count_feed(c, data + at, part, mask, 0, UINT64_MAX);
    }
    inflate_count_free(c);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t out[1 << 22];
    z_stream z = {0};
    if (size < 2)
        return 0;
    inflateInit2(&z, -15);
    z.next_in = (uint8_t *)(uintptr_t)data + 1, z.avail_in = (unsigned)size - 1;
    z.next_out = out, z.avail_out = sizeof out;
    inflate(&z, Z_SYNC_FLUSH);
    const uint64_t want = z.total_out, whole = counted(data + 1, size - 1, size);
    inflateEnd(&z);
    if (whole < want || counted(data + 1, size - 1, 1 + data[0]) != whole)
        abort();
    return 0;
}

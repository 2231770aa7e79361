/* SPDX-License-Identifier: BSD-2-Clause */
/* block_maker: see block_maker.h. The numbers are written out here once more, so that a change of
 * the format is seen. */
#include "block_maker.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

void block_header_make(uint8_t header[BLOCK_HEADER], uint32_t format, uint32_t kind,
                       const void *records, size_t len)
{
    const uint64_t length = BLOCK_HEADER + len;
    memset(header, 0, BLOCK_HEADER);
    memcpy(header, "PLrBlock", 8);
    memcpy(header + 8, &format, 4);
    memcpy(header + 12, &kind, 4);
    memcpy(header + 16, &length, 8);
    memcpy(header + 48, "9.9.9", 5);
    const uint64_t sum = XXH3_64bits_withSeed(header, BLOCK_HEADER, XXH3_64bits(records, len));
    memcpy(header + 32, &sum, 8);
}

int block_seal(const void *header, size_t header_len, const void *records, size_t len)
{
    const int fd = memfd_create("test-block", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (write(fd, header, header_len) == (ssize_t)header_len &&
        write(fd, records, len) == (ssize_t)len &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0)
        return fd;
    close(fd);
    return -1;
}

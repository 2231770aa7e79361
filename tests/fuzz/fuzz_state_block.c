/* SPDX-License-Identifier: BSD-2-Clause */
/* Any records behind a header that fits, and any bytes as a block: nothing is read beyond the end,
 * and the reader comes to an end. The first byte says which, and in which order it asks. */
#include "polder/state_block.h"
#include "tests/lib/block_maker.h"
#include "tests/lib/block_maker.c"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define check(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t sum; /* so that each byte is read */

static void read_value(struct state_reader *r, unsigned what)
{
    size_t len = 0;
    const uint8_t *bytes = NULL;
    switch (what % 4) {
    case 0:
        sum += state_get_u64(r);
        break;
    case 1:
        sum += strlen(state_get_text(r));
        break;
    case 2:
        bytes = state_get_bytes(r, &len);
        break;
    case 3:
        sum += state_get_number(r, 1000);
        break;
    }
    for (size_t i = 0; bytes && i < len; i++)
        sum += bytes[i];
}

/* Walks all values, of whatever kind: asks for one kind after the other. */
static void read_block(int fd, unsigned order)
{
    struct state_reader r;
    if (state_reader_open(&r, fd, STATE_OF_POLDERD, 8) < 0) {
        check(r.why[0] && memchr(r.why, 0, sizeof r.why));
        return;
    }
    while (state_next(&r)) {
        check(r.type >= 1 && r.type <= 8);
        for (unsigned i = 0; state_more(&r); i++)
            read_value(&r, order >> (i % 4) * 2);
    }
    check(memchr(r.why, 0, sizeof r.why));
    state_reader_close(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint8_t header[BLOCK_HEADER];
    if (len < 2)
        return 0;
    const unsigned order = data[0];
    block_header_make(header, STATE_FORMAT, STATE_OF_POLDERD, data + 2, len - 2);
    const int fd = data[1] & 1 ? block_seal("", 0, data + 2, len - 2)
                               : block_seal(header, sizeof header, data + 2, len - 2);
    check(fd >= 0);
    read_block(fd, order);
    close(fd);
    return 0;
}

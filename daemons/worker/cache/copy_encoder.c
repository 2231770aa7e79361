/* SPDX-License-Identifier: BSD-2-Clause */
/* copy_encoder: one stored body in a coding, collected until it is whole. */
#include "daemons/worker/cache/copy_encoder.h"
#include "daemons/worker/fetch/encoder.h"

#include <errno.h>
#include <stdlib.h>

struct copy_encoder {
    struct encoder *encoder;
    size_t len, size, max; /* of bytes */
    char *bytes;
};

struct copy_encoder *copy_encoder_new(enum coding coding, uint64_t source_len)
{
    struct copy_encoder *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->max = (size_t)(source_len - source_len / 10);
    c->encoder = encoder_new(coding, ENCODER_STORE, source_len);
    if (c->encoder)
        return c;
    free(c);
    return NULL;
}

void copy_encoder_free(struct copy_encoder *c)
{
    if (!c)
        return;
    encoder_free(c->encoder);
    free(c->bytes);
    free(c);
}

#define STEP 16384u

/* Room for at least a step more. */
static int make_room(struct copy_encoder *c)
{
    if (c->len > c->max)
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

int copy_encoder_feed(struct copy_encoder *c, const char *bytes, size_t len, bool last)
{
    struct encoder_io io = {.in = bytes, .in_len = len};
    int rc;
    do {
        if ((rc = make_room(c)) < 0)
            return rc;
        io.out = c->bytes + c->len;
        io.out_size = c->size - c->len;
        rc = encoder_run(c->encoder, last ? ENCODER_END : ENCODER_MORE, &io);
        c->len += io.out_len;
    } while (rc > 0);
    return rc == 0 && c->len > c->max ? -EFBIG : rc;
}

const char *copy_encoder_bytes(const struct copy_encoder *c, size_t *len)
{
    *len = c->len;
    return c->bytes;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * encoder: one stream in a content coding, whichever library makes it: gzip (RFC 1952, zlib), br
 * (RFC 7932, libbrotli), zstd (RFC 8878, libzstd). Decoders need no larger windows than the RFCs
 * require all of them to support.
 *
 * The caller owns input and output; a call works on what it is given and never blocks. Nothing here
 * knows connections.
 */
#ifndef POLDER_WORKER_FETCH_ENCODER_H
#define POLDER_WORKER_FETCH_ENCODER_H
#include "polder/coding.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct encoder;

enum encoder_effort {
    ENCODER_STREAM, /* while a client waits: little memory, some 50 MB/s */
    ENCODER_STORE   /* once for many: smaller, and never what takes milliseconds a piece */
};
#define ENCODER_UNKNOWN UINT64_MAX /* length of the source */

/* NULL: no memory, or an unknown coding. source_len: exact, or ENCODER_UNKNOWN. */
struct encoder *encoder_new(enum coding coding, enum encoder_effort effort, uint64_t source_len);
void encoder_free(struct encoder *e);
/* Makes one of ENCODER_STREAM ready for another source of unknown length. False: free it. */
bool encoder_reset(struct encoder *e);

enum encoder_op {
    ENCODER_MORE,  /* takes the input; puts out what is ready */
    ENCODER_FLUSH, /* puts out all of it, so that a decoder can show it */
    ENCODER_END    /* the same, and the end of the stream */
};
struct encoder_io {
    const char *in; /* advanced as it is taken */
    size_t in_len;
    char *out;
    size_t out_size, out_len; /* room, and what was put there by this call */
};
/* 0: done. 1: there is more to put out; again, with the same op and the rest of the input. A
 * negative errno: the stream is unusable. */
int encoder_run(struct encoder *e, enum encoder_op op, struct encoder_io *io);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * copy_encoder: compresses a stored body piece by piece, so that the loop is never blocked for
 * long, and collects the output (encoder.h).
 */
#ifndef POLDER_WORKER_CACHE_COPY_ENCODER_H
#define POLDER_WORKER_CACHE_COPY_ENCODER_H
#include "polder/coding.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct copy_encoder;

/* For a body of that many bytes. NULL: no memory, or an unknown coding. */
struct copy_encoder *copy_encoder_new(enum coding coding, uint64_t source_len);
void copy_encoder_free(struct copy_encoder *c);
/* The next bytes; last: there are no more. 0, -EFBIG: it does not become a tenth smaller, or
 * -ENOMEM; then nothing more may be fed. */
int copy_encoder_feed(struct copy_encoder *c, const char *bytes, size_t len, bool last);
/* The output so far; all of it after the last feed. Valid until the next call. */
const char *copy_encoder_bytes(const struct copy_encoder *c, size_t *len);

#endif

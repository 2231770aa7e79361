/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * coder: makes a stored body smaller, piece by piece, so that the loop is never held up for long,
 * and collects what comes out (encoder.h).
 */
#ifndef POLDER_CODER_H
#define POLDER_CODER_H
#include "polder/coding.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct coder;

/* For a body of that many bytes. NULL: no memory, or a coding that is none. */
struct coder *coder_new(enum coding coding, uint64_t source_len);
void coder_free(struct coder *c);
/* The next bytes; last: there are no more. 0, -EFBIG: it does not become a tenth smaller, or
 * -ENOMEM; then nothing more may be fed. */
int coder_feed(struct coder *c, const char *bytes, size_t len, bool last);
/* What there is so far; all of it after the last feed. Lent until the next call. */
const char *coder_bytes(const struct coder *c, size_t *len);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * compress: answers of backends are made smaller for their client while they stream.
 *
 * Which ones. A backend that is asked for something to be stored is asked without a content coding,
 * for stored bodies are plain; what it then answers is compressed here for the one who asked, so
 * that a cache section never makes an answer larger. So is every answer of a route that says
 * `compress` itself. What is passed on with the client's own Accept-Encoding is the backend's to
 * compress. Never: what has a coding already, no-transform, parts, what vouches for its bytes
 * (digests), types that gain nothing, event streams, bodies known to be shorter than compress_min.
 *
 * A strong entity tag of such an answer becomes a weak one that tells what it was (field.h,
 * FIELD_ETAG_MARK); Vary names Accept-Encoding also where the client got it plain.
 *
 * Bounds. A worker has COMPRESS_STREAMS encoders of about a megabyte at most; further answers go
 * plain. In one turn of the loop COMPRESS_TURN bytes go into encoders; then backends wait for the
 * next turn, and others have theirs. What an encoder holds back goes out after COMPRESS_FLUSH_MS
 * without more.
 */
#ifndef POLDER_WORKER_FETCH_COMPRESS_H
#define POLDER_WORKER_FETCH_COMPRESS_H
#include "daemons/http/h1.h"
#include "polder/coding.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct fetch;
struct request;
struct worker;

#define COMPRESS_STREAMS  64
#define COMPRESS_TURN     (256u << 10)
#define COMPRESS_FLUSH_MS 5

/* The coding that the client likes best of those that its route has; ranges, and who says
 * no-transform, get none. */
enum coding compress_choose(const struct request *r);

/* A final head has come: sets ex->compressible and ex->coding, and takes an encoder if there is a
 * body. Before the client's head is written. */
void compress_begin(struct fetch *ex, const struct h1_head *head, uint16_t status);
/* Body bytes go through the encoder to the client, after the head where that is unsent; end: there
 * are no more. */
void compress_send(struct fetch *ex, const struct iovec *iov, unsigned n, bool end);
/* A whole short body at once, for a hit whose copy is not made yet: 0, or the length of what *out
 * is, lent until the next call; 0 where this turn has done enough, or nothing is gained. */
size_t compress_whole(struct worker *w, enum coding coding, const char *bytes, size_t len,
                      const char **out);
/* Has this turn's work been done? Then the backend is not read until the next one. */
bool compress_is_due_later(const struct fetch *ex);

void compress_turn(struct worker *w); /* before the loop sleeps */
void compress_close(struct worker *w);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * compress: compresses answers of backends for their client while they stream.
 *
 * Which ones. A request for a response that may be stored is sent without Accept-Encoding, because
 * stored bodies are plain; the answer is compressed here for its client, so that a cache section
 * never makes an answer larger. So is every answer of a route that states `compress` itself.
 * Requests passed on with the client's own Accept-Encoding are left to the backend. Never
 * compressed: bodies with a coding, no-transform, parts, bodies with digest fields, types that gain
 * nothing, event streams, bodies known to be shorter than compress_min.
 *
 * A strong entity tag of such an answer becomes a weak one from which the original can be derived
 * (field.h, FIELD_ETAG_MARK); Vary names Accept-Encoding also where the client got it plain.
 *
 * Bounds. A worker has COMPRESS_STREAMS encoders of about a megabyte at most; further answers go
 * plain. In one turn of the loop COMPRESS_TURN bytes go into encoders; then reading from backends
 * pauses until the next turn. Data that an encoder holds back is flushed after COMPRESS_FLUSH_MS
 * without input.
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

/* The route's coding that the client prefers; none for ranges and requests with no-transform. */
enum coding compress_choose(const struct request *r);

/* A final head has come: sets ex->compressible and ex->coding, and takes an encoder if there is a
 * body. Before the client's head is written. */
void compress_begin(struct fetch *ex, const struct h1_head *head, uint16_t status);
/* Body bytes go through the encoder to the client, after the head where that is unsent; end: there
 * are no more. */
void compress_send(struct fetch *ex, const struct iovec *iov, unsigned n, bool end);
/* A whole short body at once, for a hit without an encoded variant yet: the length of *out, valid
 * until the next call; 0 if this turn has done enough, or nothing is gained. */
size_t compress_whole(struct worker *w, enum coding coding, const char *bytes, size_t len,
                      const char **out);
/* Has this turn's work been done? Then the backend is not read until the next one. */
bool compress_is_due_later(const struct fetch *ex);

void compress_turn(struct worker *w); /* before the loop sleeps */
void compress_close(struct worker *w);

#endif

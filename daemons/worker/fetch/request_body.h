/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * request_body: the body of a request on its way to a backend.
 *
 * No backend is asked before the whole body is there, or its first `request_buffer` bytes: a slow
 * client holds no connection to one. Until the response head has come the bytes read so far are
 * kept in memory of the fetch, so that the request can be retried; the rest of a longer body is
 * passed on as it comes, and then it cannot. Memory for that is bounded by request_buffers_total,
 * of which each worker has its share; when it is used up, a backend is asked at once.
 */
#ifndef POLDER_WORKER_FETCH_REQUEST_BODY_H
#define POLDER_WORKER_FETCH_REQUEST_BODY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fetch;
struct h1_spans;

struct request_buffer {
    char *bytes;
    size_t len, room;
    const char *trailer; /* its fields, complete lines; in the fetch's own memory */
    uint32_t trailer_len;
    bool whole; /* the body has ended, and all of it is here */
};

/* True: a backend is asked when enough of the body is there; fetch.resume() is called then. */
bool request_body_waits(struct fetch *ex);
/* Body bytes of the request; all are taken. end: the last ones. The client is not read while too
 * many wait. There is room for one span before and four behind. */
void request_body_feed(struct fetch *ex, struct h1_spans *spans, bool end);
/* Sends the head, and what is kept of the body, and asks for the rest. */
void request_body_send(struct fetch *ex, const char *head, size_t len);
/* Can the request be retried? Not after body bytes that are not kept were sent. */
bool request_body_is_at_hand(const struct fetch *ex);
/* The backend takes more. */
void request_body_resume(struct fetch *ex);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * headers: the heads that Polder writes: a backend's response for its client or for the store, an
 * answer of its own (headers.c), and the request as a backend gets it (request_head.c).
 */
#ifndef POLDER_WORKER_FETCH_HEADERS_H
#define POLDER_WORKER_FETCH_HEADERS_H
#include "daemons/http/h1.h"
#include "polder/cache_status.h"
#include "polder/policy.h"
#include "polder/problem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct fetch;
struct request;
struct stored_copy;
struct worker;

/* An answer of Polder's own; keep: the connection may go on. extra: complete lines. */
void response_problem(const struct request *r, struct client *c, enum problem p, const char *extra,
                      const char *members, bool keep);
/* The fields that a 426 requires (RFC 9110 15.5.22, 7.8). */
#define RESPONSE_UPGRADE_LINES                                                                     \
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
void response_simple(const struct request *r, unsigned status, const char *lines);
/* The end-to-end fields of a backend's head, without framing. stored: as they go into the store;
 * NULL: as a client gets them. compressible: adds Accept-Encoding to Vary; own_id: the answer has
 * an X-Request-Id of ours. */
void response_fields(struct h1_out *o, const struct h1_head *head,
                     const struct policy_response *stored, bool compressible, bool own_id);
/* The backend's head as the client gets it; length in texts.scratch, 0 if too long. */
size_t response_head(struct fetch *ex, const struct h1_head *head, uint16_t status);
/* Date and Cache-Control of an answer on a polled route: the client may ask again in rest_ms. Age
 * and the backend's own lines are left out, or clients would subtract the Age. */
void response_poll(struct h1_out *o, const struct request *r, uint64_t rest_ms);
void response_preference(struct h1_out *o, const struct request *r); /* RFC 7240 3 */
void response_connection(struct h1_out *o, const struct request *r, bool keep_alive);
void response_interim(struct fetch *ex, const struct h1_head *head);
/* The request as a backend gets it; length in texts.scratch, 0 if too long. */
struct response_request {
    const struct request *request;
    const struct stored_copy *conditions; /* ask whether this is still good; NULL */
    bool for_store;                       /* a plain GET, for the store */
    bool upgrade;                         /* a WebSocket's handshake */
};
size_t response_request_head(struct worker *w, const struct response_request *what);

#endif

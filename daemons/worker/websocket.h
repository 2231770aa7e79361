/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * websocket: gives clients that have asked for a WebSocket to polder-supervisor, and tells it what
 * this worker invalidates.
 */
#ifndef POLDER_WORKER_WEBSOCKET_H
#define POLDER_WORKER_WEBSOCKET_H
#include "polder/field.h"

struct client;
struct request;
struct worker;

/* Takes the client away (closed for this worker), or answers it. worker.pipelined: what followed.
 */
void handover_begin(struct client *c, struct request *r);
void handover_close(struct worker *w);
/* Clients of WebSocket routes that Polder answers alone hear of what this worker has invalidated:
 * a URL ("host/path?query") or a tag, the other one empty. Never waits. */
void handover_tell(struct worker *w, struct str url, struct str tag);
void handover_catch_up(struct worker *w); /* now and then: what the queue had no room for */

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * websocket: gives clients that have asked for a WebSocket to polder-supervisor.
 */
#ifndef POLDER_WORKER_REQUEST_WEBSOCKET_H
#define POLDER_WORKER_REQUEST_WEBSOCKET_H
struct client;
struct request;
struct worker;

/* Takes the client away (closed for this worker), or answers it. worker.pipelined: what followed.
 */
void handover_begin(struct client *c, struct request *r);

#endif

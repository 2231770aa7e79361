/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * websocket: passes WebSocket upgrades to polder-supervisor.
 */
#ifndef POLDER_WORKER_REQUEST_WEBSOCKET_H
#define POLDER_WORKER_REQUEST_WEBSOCKET_H
#include "daemons/http/h1.h"
#include "polder/field.h"

#include <stdbool.h>

struct client;
struct request;

bool websocket_is_wanted(const struct h1_head *head);
/* Is it a proper upgrade (RFC 6455 4.2)? Otherwise it has been answered. */
bool websocket_validate(struct client *c, const struct request *r);
/* Passes the client on (closed for this worker), or answers it. pipelined: what followed the
 * head. */
void websocket_hand_over(struct client *c, const struct request *r, struct str pipelined);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hints: hints at settings that a configuration probably lacks, found where that shows
 * (conditions.h; one hint per subject, cleared after a day). A worker checks each request of the
 * kind, which is rare, and raises the hint once.
 */
#ifndef POLDER_WORKER_MESSAGE_HINTS_H
#define POLDER_WORKER_MESSAGE_HINTS_H
#include "daemons/http/h1.h"

struct config_upstream;
struct request;

/* A WebSocket handshake came on a route without a websocket section. */
void hints_upgrade(const struct request *r);
/* A backend redirects a request to its own URL over https, although its peer, which is not trusted,
 * says that it came over https: it will come back, and again. */
void hints_redirect(const struct request *r, const struct h1_head *head);
/* An event stream was silent for longer than its upstream's stream_timeout. */
void hints_stream_cut(const struct request *r, const struct config_upstream *of);
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cors: the fields that let scripts in browsers read an answer of Polder's own (Fetch standard,
 * section 3.2). A backend's answers carry the backend's lines; a 429 or 502 made by Polder has
 * none, and a script only sees "CORS error". Where the configuration names origins, their requests
 * get the lines. Preflights are answered by backends.
 */
#ifndef POLDER_WORKER_MESSAGE_CORS_H
#define POLDER_WORKER_MESSAGE_CORS_H
#include "daemons/http/h1.h"
#include <stdbool.h>

struct request;

/* Is it a preflight: OPTIONS that a browser sends before the request itself? */
bool cors_is_preflight(const struct h1_head *head);
/* The lines for an answer of Polder's own to this request; none where its origin is not named. */
void cors_put(struct h1_out *o, const struct request *r);
#endif

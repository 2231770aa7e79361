/* SPDX-License-Identifier: BSD-2-Clause */
/* content: what a response head says about its content. */
#ifndef POLDER_WORKER_FETCH_CONTENT_H
#define POLDER_WORKER_FETCH_CONTENT_H
#include "daemons/http/h1.h"

#include <stdbool.h>

bool content_is_event_stream(const struct h1_head *head); /* text/event-stream */
/* Does a field carry a digest of the content (RFC 9530; RFC 3230; RFC 2616 14.15)? */
bool content_is_vouched_for(const struct h1_head *head);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * invalidate: what a successful answer to an unsafe method invalidates (RFC 9111 4.4, RFC 9875).
 */
#ifndef POLDER_WORKER_FETCH_INVALIDATE_H
#define POLDER_WORKER_FETCH_INVALIDATE_H
#include "daemons/http/h1.h"

#include <stdbool.h>

struct fetch;
struct request;
struct worker;

void invalidate_after(struct fetch *ex, const struct h1_head *head);
/* Does this Content-Location name the request's own URL? */
bool invalidate_is_target(struct worker *w, const struct request *r, const struct h1_field *f);

#endif

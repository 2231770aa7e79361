/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * origin: scheme, host and port of a request as its client sees them (RFC 6454 4): those of the
 * URL, or what a trusted proxy says in their place, in whichever of its fields. Cache groups are an
 * origin's own (RFC 9875 2).
 *
 * Two origins taken for one here only invalidate each other's groups; one taken for two would keep
 * stale content. So X-Forwarded-Port, with which some proxies name the port of one of their own
 * legs, is ignored.
 */
#ifndef POLDER_WORKER_MESSAGE_ORIGIN_H
#define POLDER_WORKER_MESSAGE_ORIGIN_H
#include <stddef.h>

struct request;

#define ORIGIN_MAX 320
/* "https://host:port" in lower case, without the scheme's own port; cut where it is longer. Returns
 * the length. r has its head. */
size_t origin_text(const struct request *r, char out[ORIGIN_MAX]);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * supervisor_link: what this worker sends to polder-supervisor: clients that have asked for a
 * WebSocket (polder/handover.h), and what it invalidates. It is connected when there is something
 * to send, and again after the supervisor was restarted. Nothing here blocks.
 */
#ifndef POLDER_WORKER_SUPERVISOR_LINK_H
#define POLDER_WORKER_SUPERVISOR_LINK_H
#include "polder/field.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct worker;

struct supervisor_link {
    int fd; /* -1 */
    uint64_t again_ms, warn_ms;
    bool any_subscribers; /* a WebSocket route without a backend */
    bool resync;          /* the supervisor has missed an invalidation */
};

/* One message, with a descriptor where fd >= 0. 0, or a negative errno: it was not delivered. */
int supervisor_link_send(struct worker *w, struct iovec *iov, size_t n, int fd);
/* Where WebSockets are counted over a fleet: the page of their slots. Each second, and before each of
 * them: a supervisor that has just begun knows nothing of it. */
void supervisor_link_send_slots(struct worker *w);
void supervisor_link_close(struct worker *w);
/* Clients of WebSocket routes that Polder answers alone hear of what this worker has invalidated:
 * a URL ("host/path?query") or a tag, the other one empty. */
void supervisor_link_tell(struct worker *w, struct str url, struct str tag);
void supervisor_link_catch_up(struct worker *w); /* periodically: what the queue had no room for */

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * handover: how a worker gives a client's WebSocket upgrade to polder-supervisor.
 *
 * One SOCK_SEQPACKET message on runtime_dir/supervisor.sock: this header, the request head exactly
 * as it is to be sent to the backend (re-serialised by the worker, blank line included), then
 * pipelined bytes the client had already sent; with SCM_RIGHTS the client's socket. The worker has
 * taken the socket out of its epoll set (EPOLL_CTL_DEL) before and closes its own copy after. From
 * then on the supervisor answers: 101, the backend's refusal, or 503. EAGAIN: the worker keeps the
 * socket and answers 503 itself.
 */
#ifndef POLDER_HANDOVER_H
#define POLDER_HANDOVER_H
#include <stdint.h>

#define HANDOVER_MAGIC     0x706f6c77u
#define HANDOVER_VERSION   4
#define HANDOVER_MAX       (64u << 10) /* whole message */
#define HANDOVER_LINES_MAX 2304
/* In flags: carries no socket but an invalidation by a worker: id is a tag, or head is a URL
 * ("host/path?query"), or both are empty for everything. */
#define HANDOVER_TELLS 1u
/* In flags, of the first message of a connection: its descriptor is the table of server states. */
#define HANDOVER_SERVERS 2u
/* In flags: a probe of polderctl verify, counted apart; LOCAL: one that no backend is asked for. */
#define HANDOVER_PROBE 4u
#define HANDOVER_LOCAL 8u

/* In flags, once a second where WebSockets are counted over a fleet: two descriptors, of the page of
 * slots (fleet_slots.h) and of the event that wakes control. */
#define HANDOVER_SLOTS 16u

struct handover {
    uint32_t magic;
    uint16_t version, flags;
    uint8_t peer[16];    /* the client (behind trusted proxies), v4-mapped */
    char accept_key[28]; /* base64 SHA-1 answer to Sec-WebSocket-Key */
    uint32_t route_len;  /* pattern as configured, no NUL; finds the supervisor's route */
    uint32_t id_len;     /* the path's last segment, as sent; 0: make a client_id up */
    uint32_t limit_len;  /* header lines for every answer: RateLimit fields, the id */
    uint32_t head_len;   /* request head */
    uint32_t pipelined_len;
    uint64_t sticky_hash; /* as in struct sticky_key (sticky.h); 0: any server */
    uint32_t sticky_server, pad_;
    /* then: route, id, lines of the limits, head, pipelined */
};
_Static_assert(sizeof(struct handover) == 88, "wire format");
#endif

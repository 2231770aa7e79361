/* SPDX-License-Identifier: BSD-2-Clause */
/* worker: what the working process has of its own; private to survive/. */
#ifndef POLDER_SUPERVISOR_WORKER_H
#define POLDER_SUPERVISOR_WORKER_H
#include "daemons/supervisor/survive/custodian.h"
#include "daemons/supervisor/survive/die.h"
#include "daemons/supervisor/survive/survive.h"

struct ring {
    uint32_t *at;
    uint32_t first, n, size;
};
struct survivor {
    struct custodian *custodian; /* as it was at the fork */
    struct segment *segment;
    int channel, epoll;
    ev_io io;
    struct ring slots, blocks; /* that were used, and are free or will be soon */
    int link[CUSTODIAN_LINKS]; /* descriptors of this process */
    bool deaf;                 /* the custodian has taken no message for a while */
    bool unready;              /* it has not heard yet that this process is ready */
};

uint64_t survivor_route_hash(const struct config_route *route);
void survivor_free_block(struct survivor *v, struct buffer *b);
/* The custodian lets go of what it holds for it. */
void survivor_let(struct survivor *v, struct slot *slot);
bool ring_put(struct ring *r, uint32_t n);
/* Sends a note about this slot; false: the custodian does not take it. */
bool survivor_tell(struct survivor *v, enum note_kind kind, uint32_t number, int fd);
#endif

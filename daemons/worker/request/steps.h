/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * steps: the way of a request, from its head to what answers it.
 */
#ifndef POLDER_WORKER_REQUEST_STEPS_H
#define POLDER_WORKER_REQUEST_STEPS_H
#include "daemons/worker/message/request.h"
#include "polder/clientip.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct h1_out;
struct request;
struct worker;

/* client_ops.head(): bytes of a request's head, and what follows it. Returns how many were used; 0:
 * more of it must come. */
size_t request_read(struct client *c, const char *at, size_t len);
/* A request whose client goes while it is held. False: its head is not understood. */
bool request_held(struct client *c, const char *bytes, size_t len, struct request *r);
/* A request that was held goes its way again; its limits have been charged. */
struct request_again {
    const char *bytes; /* its head */
    size_t len;
    const struct clientip *peer; /* whose it was, where there is no client; NULL: Polder's own */
    uint64_t until_ms;
    uint32_t wait_s, waited_s;
    bool tried;
    bool anonymous; /* without what says who asks, unless the copies of its route are partitioned */
};
void request_again(struct client *c, const struct request_again *again);
/* The same request as a plain GET without its client, for a fetch behind. False: it has no key. */
bool request_background(struct worker *w, struct client *c, const struct request_again *again,
                        struct request *r);
/* What its key has of the fields in which a trusted proxy tells scheme, host, port and path
 * (key_origin.c). */
void request_put_origin(struct h1_out *o, const struct request *r);

#endif

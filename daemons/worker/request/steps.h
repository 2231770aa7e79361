/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * steps: the steps of a request, from its head to its answer.
 */
#ifndef POLDER_WORKER_REQUEST_STEPS_H
#define POLDER_WORKER_REQUEST_STEPS_H
#include "daemons/worker/message/request.h"
#include "polder/clientip.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct fetch;
struct h1_head;
struct h1_out;
struct worker;

/* ---- steps.c ---- */
/* client_ops.head(): bytes of a request's head, and what follows it. Returns how many were used; 0:
 * more of it must come. */
size_t request_read(struct client *c, const char *at, size_t len);
struct request_replay {
    const char *bytes; /* its head */
    size_t len;
    const struct clientip *peer; /* its address, if the client has left; NULL: Polder's own */
    uint64_t until_ms;
    uint32_t wait_s, waited_s;
    uint64_t charge_by_ms; /* its limits have not been charged: by then they are. 0: they have */
    bool tried;
    bool anonymous; /* without identity fields, unless the copies of its route are partitioned */
};
/* Processes a request that was held again: long_polls.again(), limit_waiters.again(). */
void request_again(struct client *c, const struct request_replay *again);
/* fetches.look_again() */
void request_look_again(struct fetch *ex);

/* ---- replay.c: heads processed again without their connection ---- */
/* A request whose client leaves while it is held. False: its head cannot be parsed. */
bool request_held(struct client *c, const char *bytes, size_t len, struct request *r);
/* The same request as a plain GET without its client, for a fetch behind. False: it has no key. */
bool request_background(struct worker *w, struct client *c, const struct request_replay *again,
                        struct request *r);
/* The head, in worker.head. NULL: it is not understood, or not whole. */
const struct h1_head *request_parse_again(struct worker *w, const struct request_replay *again);

/* ---- identify.c ---- */
/* What the head says by itself: client and target. Begins *r. peer: see request_replay. */
void request_identify(struct worker *w, struct client *c, const struct h1_head *head,
                      const struct clientip *peer, struct request *r);

/* ---- locate.c ---- */
/* The route (NULL: none) and the URL. 0, or what url_normalise() says. */
int request_locate(struct worker *w, struct request *r);

/* ---- prepare.c ---- */
/* Whether this request may be answered from the store at all, and under which key. */
bool request_prepare_lookup(struct worker *w, struct request *r);
/* An answer to POST that names its own URL and says how long it is good answers later GETs (RFC
 * 9110 9.3.3). */
bool request_prepare_post(struct worker *w, struct request *r);
/* A precondition of a change with entity tags made by Polder is judged by Polder, because the
 * backend has never seen them: it holds while the response that they were made of is fresh in the
 * store. A change by another client ends that. True if there are other tags, too, which the backend
 * knows. */
bool request_own_tags_hold(struct worker *w, struct request *r);

/* ---- key_origin.c ---- */
/* The key's part for the fields in which a trusted proxy sends scheme, host, port and path. */
void request_put_origin(struct h1_out *o, const struct request *r);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * long_poll: requests that wait for a change of the response that their client has (Prefer: wait).
 * A connection has at most one: client.held. It is answered when the response has changed, when its
 * time is over, or before the worker exits.
 */
#ifndef POLDER_WORKER_REQUEST_LONG_POLL_H
#define POLDER_WORKER_REQUEST_LONG_POLL_H
#include "polder/cache.h"
#include "polder/field.h"

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct client;
struct hit_found;
struct request;
struct request_replay;
struct worker;

LIST_HEAD(watch_list, watch);
struct long_polls {
    struct watch_list *watches; /* buckets by key; NULL: never needed */
    struct watch_list new_watches, dead_watches;
    uint32_t n_watches, n_held;
    void (*again)(struct client *c,
                  const struct request_replay *again); /* takes the steps of one that is let go */
    ev_timer scan;                                     /* looks at all watches a little later */
    double scanned_s;
};

/* Holds a request that would be answered with 304. False: answer it. */
bool long_poll_unchanged(const struct request *r, const struct cache_record *rec,
                         const struct cache_key *key, struct str etag);
/* Holds a request while what it asks for is fetched behind. Takes found->stale if it does. */
bool long_poll_for_fetch(const struct request *r, struct hit_found *found);
void long_poll_drop(struct client *c); /* the client is going */
void long_poll_end(struct client *c);  /* answers it now */
uint64_t long_poll_due(const struct client *c);
/* The request that is held. False: none. */
bool long_poll_describe(struct client *c, struct request *r);
void long_poll_wake(struct worker *w);     /* the eventfd fired */
void long_poll_scan(struct worker *w);     /* all watches, now */
void long_poll_look_new(struct worker *w); /* before the loop sleeps */
void long_poll_leave(
    struct worker *w); /* draining: held requests are answered before the worker exits */
void long_poll_free_the_dead(struct worker *w);

#endif

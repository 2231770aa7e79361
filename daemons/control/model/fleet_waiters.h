/* SPDX-License-Identifier: BSD-2-Clause */
/* fleet_waiters: callers that wait until the other hosts have what was invalidated here. */
#ifndef POLDER_CONTROL_FLEET_WAITERS_H
#define POLDER_CONTROL_FLEET_WAITERS_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

/* What has become of an invalidation. */
struct fleet_result {
    bool connected;            /* else the others hear of it when the store is back */
    uint32_t hosts;            /* others that have it */
    uint32_t missing;          /* others whose lease ran out before they had it */
    const char *missing_names; /* "a, b" */
};
typedef void (*fleet_done_fn)(void *arg, const struct fleet_result *r);

struct fleet_waiter {
    TAILQ_ENTRY(fleet_waiter) entry;
    uint64_t id;       /* in the log; 0: it is not there yet */
    uint64_t since_ms; /* it is there */
    fleet_done_fn done;
    void *arg;
};
TAILQ_HEAD(fleet_waiters, fleet_waiter);

/* NULL: no memory. */
struct fleet_waiter *fleet_waiter_add(struct fleet_waiters *all, fleet_done_fn done, void *arg);
/* It is in the log now. */
void fleet_waiter_logged(struct fleet_waiter *w, uint64_t id);
/* Calls it back and forgets it. */
void fleet_waiter_answer(struct fleet_waiters *all, struct fleet_waiter *w,
                         const struct fleet_result *r);
/* This host is cut off. */
void fleet_waiters_end(struct fleet_waiters *all);
#endif

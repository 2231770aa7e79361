/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * leak_guard: does shared content depend on the identity? After some hits the backend is asked
 * again, with and without the identity fields; polder/leak_guard.h has the shared state of a route.
 *
 * A check belongs to the caller from guard_look() to guard_begin(), then to the worker.
 */
#ifndef POLDER_WORKER_LEAK_GUARD_LEAK_GUARD_H
#define POLDER_WORKER_LEAK_GUARD_LEAK_GUARD_H
#include "polder/cache.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct request;
struct worker;

struct guard_check;
struct guard_checks {
    LIST_HEAD(, guard_check) all;
    uint32_t n;
    bool due; /* some check waits for its next step */
};
void guard_prepare(struct worker *w); /* once, when the routes are known */
/* A sampled hit: *check is set if it is to be checked, and is then passed to guard_begin(). False:
 * it takes the long way, with the head. */
bool guard_look(const struct request *r, const struct cache_view *v, struct guard_check **check);
/* Takes the check; answered: the client has its answer. */
void guard_begin(struct guard_check *k, bool answered);
/* A request in quarantine: if it is like the one that closed it, the backend is asked from time to
 * time whether it still differs; the quarantine ends after three negative checks. */
void guard_retry(const struct request *r);
void guard_run(struct worker *w); /* before the loop sleeps, if guard_checks.due */
void guard_stop(struct worker *w);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * limits_wait: requests that wait until the store of the fleet has said how many of their key this
 * host may admit. Such a request is its head; it takes its steps again when control has heard of the
 * store, or after fleet.limit_timeout.
 */
#ifndef POLDER_WORKER_REQUEST_LIMITS_WAIT_H
#define POLDER_WORKER_REQUEST_LIMITS_WAIT_H
#include <stdbool.h>
#include <stdint.h>

struct client;
struct h1_head;
struct limit_bill;
struct worker;

/* False: it cannot wait. charge_by_ms 0: it has just come. */
bool limits_wait(struct client *c, const struct h1_head *head, const struct limit_bill *bill,
                 uint64_t charge_by_ms);
void limits_wait_drop(struct client *c);
void limits_wait_wake(struct worker *w); /* control has heard of the store */
void limits_wait_init(struct worker *w); /* before the loop runs */
#endif

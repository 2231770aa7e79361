/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * via: the name of this Polder in Via (RFC 9110 7.6.3), and whether a request carries it: then an
 * upstream leads back here, and each round would use a connection on both sides until there are
 * none left.
 *
 * The name is the configuration's, or "polder-" and a number that polderd makes at each start, the
 * same for all its workers: two Polders in a row do not mistake each other for a loop.
 */
#ifndef POLDER_WORKER_MESSAGE_VIA_H
#define POLDER_WORKER_MESSAGE_VIA_H
#include "daemons/http/h1.h"
#include <stdbool.h>
#include <stdint.h>

struct request;
struct worker;

void via_init(struct worker *w);
/* "Via: 1.1 NAME\r\n"; what came in Via stands in lines before it. */
void via_put(struct h1_out *o, const struct request *r);
/* OPTIONS with Max-Forwards: how far it may still go (RFC 9110 7.6.2). False: f is not that. */
bool via_max_forwards(const struct h1_head *head, const struct h1_field *f, uint64_t *left);
bool via_may_go_no_further(const struct h1_head *head);
/* Has this request been here before? Raises a hint for the operator. */
bool via_is_loop(const struct request *r);
#endif

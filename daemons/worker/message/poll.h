/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll: whom a poll's interval keeps from the backend.
 */
#ifndef POLDER_WORKER_MESSAGE_POLL_H
#define POLDER_WORKER_MESSAGE_POLL_H

struct request;

/* Counts a request that a poll's interval keeps from the backend, and now and then notes whose. */
void poll_note(const struct request *r);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * poll: counts requests that a poll's interval keeps from the backend.
 */
#ifndef POLDER_WORKER_MESSAGE_POLL_H
#define POLDER_WORKER_MESSAGE_POLL_H

struct request;

/* Counts a request that a poll's interval keeps from the backend, and samples its client. */
void poll_note(const struct request *r);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* stale: which stored response may be given although it is stale, for the backend fails. */
#ifndef POLDER_WORKER_CACHE_STALE_H
#define POLDER_WORKER_CACHE_STALE_H
#include <stdbool.h>

struct request;
struct stored_copy;

/* Not what has been invalidated since the copy was taken, nor what is too old. */
bool stale_may_give(const struct request *r, const struct stored_copy *copy);
/* Answers with it, for the backend has just failed (error_backoff.h). False: it is to be asked. */
bool stale_answer(const struct request *r, struct stored_copy *copy);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* stale: which stale response may be served because the backend fails. */
#ifndef POLDER_WORKER_CACHE_STALE_H
#define POLDER_WORKER_CACHE_STALE_H
#include <stdbool.h>

struct request;
struct stored_copy;

/* False if it was invalidated since the copy was taken, or is too old. */
bool stale_may_give(const struct request *r, const struct stored_copy *copy);
/* Answers with it, because the backend has just failed (error_backoff.h). False: the backend has to
 * be asked. */
bool stale_answer(const struct request *r, struct stored_copy *copy);

#endif
